"""Tests and estimates: functions for the data of one trial, and in `batched` kernels over many trials at once.

| question | files |
|---|---|
| how long until an event, in one group | kaplan_meier, restricted_mean; by a law: parametric |
| do arms survive alike | logrank, weighted_logrank, milestone, restricted_mean; with covariates: cox, concordance |
| competing and recurrent events | competing; cox with late entry, strata and clusters |
| how many events are still to come | event_projection |
| do means or locations differ | means, rank_shifts, several_groups; with covariates: linear |
| do rates or counts differ | rates, exact_rates, several_groups; with covariates: glm, g_computation |
| repeated measurements | mmrm (covariance_structures, small_sample), random_effects, gee |
| the same after withdrawal, imputed | reference_based |
| what a prior and the data say | bayes |
| several hypotheses | multiplicity |
| summaries by stage, for `medtwin.trials.adaptive` | stage_data |
| many trials at once | batched; for the engine: survival_batch, event_shares |
| shared: data at the door, results, laws | follow_up, results, normal_maximum, profile_likelihood |
"""
