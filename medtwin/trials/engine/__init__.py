"""Many simulated trials: batches, scenarios and their operating characteristics.

| question | files |
|---|---|
| a trial of times to an event, on a cohort | survival_trial, estimand; what is simulated and tabled: scenarios |
| its patients, patient by patient | course (levels: factors that strata ask for), batch: to the stop |
| its data at a look, fast | looks, followed |
| a trial whose endpoint is read once | response_trial, response_design (exact_rates: of all tables), response_tests |
| its patients, what is simulated and tabled | response_batch, response_scenarios |
| trials without patients, by the law of the statistic | canonical, bound_surface; as scenarios: fast_level |
| what is true if the plan was wrong; designs side by side | assumptions, response_assumptions; comparison |
| the true estimand, and how well a design estimates it | counterfactual; scoring, measure_scoring, response_scoring |
| who took part, what the trials were like | enrolled, summaries |
| several arms, or doses | arm_selection, dose_trials |
| several endpoints, looks at milestones | milestones |
| how many trials, and how precise on few patients | target_error, precision |
| shared: ends of trials, Monte-Carlo estimates, tasks, patient tables | stopped, estimates, tasks, covariate_columns |
"""
