"""Real trials analysed by medtwin, beside R's numbers: actg175, colon, cgd, and CDISC's pilot study in pilot.

`compared` holds what an analysis and R's call of it are, and what the trials read and do alike; `projection` asks how
well the number of events to come is projected.
"""
