"""Tests and estimates of many trials at once, (trials, patients): each agrees with the room's function of one trial.

| question | files |
|---|---|
| do arms survive alike | survival_scores (log-rank, weighted, MaxCombo), survival_hazard_ratio, survival_curves |
| do means or locations differ | t_tests, ranks; with covariates: ancova |
| do rates differ | rates, stratified_rates; with covariates: glm, then standardised_risks |
| do counts of events differ | glm (Poisson), negative_binomial |
| repeated measurements | mmrm (mmrm_sums, mmrm_likelihood, mmrm_inference) |
| shared by tests of survival | survival_order: patients in order, once for all; survival_maximum: of several z |
| shared by the others | arms: who is in which arm; contrasts: what they give; restricted_rates: rates under a null |
"""
