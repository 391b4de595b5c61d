"""Cases computed in R, run through medtwin: `python -m tests.trials.reference FILE.json`."""
