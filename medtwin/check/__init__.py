"""How good a synthetic dataset is: fidelity with baselines and intervals, copies, gates; numpy and scipy only."""

from medtwin.check.compare import compare_datasets, require_comparable
from medtwin.check.findings import Estimate, Findings, Measure
from medtwin.check.gates import Gate, GateResult, gates_from, judge
from medtwin.check.plausibility import Rule, rules_from

__all__ = [
    "Estimate",
    "Findings",
    "Gate",
    "GateResult",
    "Measure",
    "Rule",
    "compare_datasets",
    "gates_from",
    "judge",
    "require_comparable",
    "rules_from",
]
