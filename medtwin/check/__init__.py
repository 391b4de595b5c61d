"""How good a synthetic dataset is: fidelity with baselines and intervals, copies, gates; no torch."""

from medtwin.check.compare import Options, compare_datasets, compare_records, require_comparable
from medtwin.check.findings import Estimate, Findings, Measure
from medtwin.check.gates import Gate, GateResult, Profile, judge, profile_from
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
