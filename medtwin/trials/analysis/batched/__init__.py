"""Tests and estimates of many trials at once, (trials, patients): each agrees with the room's function of one trial.

`survival_*` are of times to an event: `survival_order` puts patients in order, once for all tests of the same data.
`t_tests`, `ranks` and `ancova` are of means, `rates` and `stratified_rates` of counts of responses, `glm` with
`standardised_risks` of responses given covariates, `negative_binomial` of events, `mmrm` of repeated measures; `arms`
checks who is in which arm, `contrasts` is what they give.
"""
