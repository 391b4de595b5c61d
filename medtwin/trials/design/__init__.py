"""Designs solved analytically: spending, bounds, events, patients, timing, power.

| question | files |
|---|---|
| spent errors and bounds | spending, boundaries, group_sequential; at some looks, for harm: selected_looks |
| other shapes of bounds | inner_wedge, optimal_shape; where the effect changes from look to look: changing_effects |
| bounds at the information that looks have | monitoring |
| how many patients for means, rates, categories | means, rates, log_rates, fisher_exact, ordinal (normal_tests) |
| with a prognostic score | prognostic |
| how many events and patients for survival | survival_size, group_sequential |
| when events come | hazard, timing, two_arm_survival, event_driven |
| non-proportional hazards | average_hazard_ratio, weighted_logrank_design, max_combo_design, milestone_design |
| what the rest of a trial will bring | conditional_power |
| p values, estimates and intervals after looks | repeated_intervals; of many trials: stagewise_batch |
| several hypotheses or arms, several stages | graph, dunnett, combination |
| one arm; which dose | simon_two_stage; dose_finding (rules), continual_reassessment |
"""
