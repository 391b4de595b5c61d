"""Real trials analysed by medtwin, beside R's numbers: ACTG 175, colon, CGD, CDISC's pilot study."""
