"""Who may enter: cohorts of subjects and the criteria of eligibility.

| question | files |
|---|---|
| who is in a dataset, when, with what | cohort; which codes a name stands for: code_family |
| who may enter, and when; baseline covariates | criteria; values in one unit: units |
| how many are left after each criterion | attrition |
| eligibility as text | language (tokens, propositions, measures); what it says of subjects: evaluation |
| what if a criterion were left out | what_if: failing (who fails what), shapley, resampled_pools, pool_effects |
"""
