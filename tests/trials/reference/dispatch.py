"""Which module answers the cases of a category, and the judgement of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.trials.reference import adaptive, designs, dose_finding, models, simulations, survival, survival_designs
from tests.trials.reference.cases import Case, NotCoveredError, agrees
from tests.trials.reference.rcalls import RSyntaxError
from tests.trials.reference.verdict import Judged

Answer = Callable[[Case], Mapping[str, Any]]
ANSWERS: dict[str, Answer] = {
    **designs.ANSWERS,
    **survival_designs.ANSWERS,
    **survival.ANSWERS,
    **models.ANSWERS,
    **adaptive.ANSWERS,
    **simulations.ANSWERS,
    **dose_finding.ANSWERS,
}
"""By category: what computes the outputs of a case with medtwin, by name; it may leave out what is not covered."""


def judge(case: Case) -> Judged:
    """Computes the outputs of a case and compares them; a failure is a reason, not an end."""
    names = tuple(case.outputs)
    if case.category not in ANSWERS:
        return Judged(case.id, case.category, {}, names, "no module answers this category")
    try:
        found = ANSWERS[case.category](case)
    except (NotCoveredError, RSyntaxError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        return Judged(case.id, case.category, {}, names, f"{type(error).__name__}: {error}")
    good = {name: agrees(case, name, found[name]) for name in names if name in found}
    values = {name: (found[name], case.outputs[name]) for name, fine in good.items() if not fine}
    missing = tuple(name for name in names if name not in found)
    return Judged(case.id, case.category, good, missing, "not computed" if missing else "", values)


def wrong(cases: Iterable[Case]) -> list[str]:
    """What of the cases is not computed or does not agree, by name; nothing is good."""
    judged = [judge(case) for case in cases]
    return [
        f"{one.case_id}: {one.values or one.reason}" for one in judged if one.missing or not all(one.agrees.values())
    ]
