"""Cases computed in R, run through medtwin: `python -m tests.trials.reference FILE.json`.

| question | files |
|---|---|
| what is a case, when does an answer agree, what is said of all | cases, verdict, dispatch, __main__ |
| how is an R expression read and evaluated | rcalls, evaluate, r_base (r_control, r_laws), signatures, data_frames |
| who answers which category | designs, survival_designs, survival, models, adaptive (each an `ANSWERS` by category) |
| rpact | rpact_bounds, rpact_designs, rpact_survival, rpact_timing; with data: rpact_data, rpact_analysis, rpact_arms |
| gsDesign | gsdesign_bounds, gsdesign_survival, gsdesign_interim; sizes, with those of stats: stats_power |
| gsDesign2 | gsdesign2_tables, gsdesign2_designs, gsdesign2_fixed |
| lrstat | lrstat_bounds, lrstat_sizes, lrstat_designs, lrstat_timing, lrstat_inference |
| multiple tests of stats, lrstat and mvtnorm | graphs_of_r |
| survival, simtrial, survRM2, cmprsk | survival, survival_fits |
| stats, MASS, geepack | model_frame, model_calls, model_fits, model_tests, group_tests |
| nlme, mmrm | mixed_fits, mmrm_fits |
| questions known by their inputs alone | bayes_answers |
| more calls of R with their values | more/ |

A crosswalk translates arguments and names results; what is computed is medtwin's. `FUNCTIONS` get evaluated arguments,
`NATIVES` the call itself. What has no counterpart raises `NotCoveredError` and is listed by name.
"""
