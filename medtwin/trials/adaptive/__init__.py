"""Analysis of trials with interim looks from data by stage: what needs both designs and data.

| question | files |
|---|---|
| what a look compares with its bound | combined_tests: group-sequential, inverse normal, Fisher's product |
| what the data of two arms say at each look | trial_analysis |
| what those of several arms say | closed_test |
| what is assumed of the stages to come | planned_effects |

Data by stage are `medtwin.trials.analysis.stage_data`'s; bounds are `medtwin.trials.design`'s.
"""
