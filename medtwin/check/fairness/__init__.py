"""Whether groups of patients fare alike: by sex, age, race, site, or whatever `strata` divides by.

A map. `settings` holds the floor and the stated target population, `groups` says who is of which group and which are
too small to judge, `frames` asks fairlearn's MetricFrame for a metric in a group and of all others, `gaps` picks the
group that fares worst. `representation` looks at the groups' shares, `fidelity` at their records, `utility` at what
models of twins predict of them, `attacks` at how much more is learned of them; each gives a row per group and one
measure, which gates judge. Intervals are from resampling whole patients. The rows that findings hold are in
`check.group_rows`.
"""
