"""What happens to whom: endpoints of records, and prognosis of each patient.

| question | files |
|---|---|
| what a trial waits for, and when a cohort's subjects had it | endpoint |
| each patient's hazard: fitted to a cohort, or assumed | prognosis |
| an effect that differs between patients | effect |
| an endpoint that is read once: its law, and as a cohort has it | response, response_fit |
| progression-free and overall survival of one patient | joint |
| several endpoints of one patient | several_endpoints |
"""
