"""How good a synthetic dataset is, and how useful: measures with baselines and intervals, gates, a verdict; no torch.

A map of the room. `records` reads a dataset into arrays, `resample` draws subjects and gives every measure its interval
and baseline; what is found stands in `findings`. Measured are codes (`codes`), numbers (`values`, `labs`,
`trajectories`, `missingness`), times (`times`, `kinds`), pairs (`pairs`), copies (`copies`, `near_copies`), what
classifiers and neighbours say (`summaries`, on `two_sample` and `neighbours`), groups (`strata`), the model's own view
(`likelihoods`); images (`image_findings`, on `pictures`, `images` and `image_*`); rules (`plausibility`, on `rules` and
`facts`); use (`utility`, on `utility_sides`, `utility_arms`, `tasks`, `task_features`, `classifiers`, `scores`,
`effects`, `cox`). Rooms of their own have attacks on the patients (`attacks`, as `attack_rows`), how groups fare
(`fairness`, as `group_rows`, and `small_cells`), generations of twins (`collapse`, as `collapse_rows`) and identifiers
in files (`identifiers`). `compare` runs all of it as `options` say, `gates` judges, `disclosure` takes out what tells
of few people. `controls` and `image_controls` break data on purpose, and `matrix` sees to it that every measure
notices. docs/check.md says it for users.
"""

from medtwin.check.compare import compare_datasets, compare_records, require_comparable
from medtwin.check.estimates import Estimate, Measure
from medtwin.check.findings import Findings
from medtwin.check.gates import Gate, GateResult, Profile, judge, profile_from
from medtwin.check.options import Options
from medtwin.check.plausibility import Rule, rules_from
from medtwin.check.strata import Stratification, stratifications_from

__all__ = [
    "Estimate",
    "Findings",
    "Gate",
    "GateResult",
    "Measure",
    "Options",
    "Profile",
    "Rule",
    "Stratification",
    "compare_datasets",
    "compare_records",
    "judge",
    "profile_from",
    "require_comparable",
    "rules_from",
    "stratifications_from",
]
