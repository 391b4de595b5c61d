"""Who may enter: cohorts of subjects and the criteria of eligibility."""
