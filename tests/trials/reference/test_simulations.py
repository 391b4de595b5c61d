"""Simulated operating characteristics agree with those of rpact and of a published brief, and others do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trials.reference.cases import Case, Simulated, agrees, read_cases
from tests.trials.reference.dispatch import judge, wrong

MORE = read_cases(Path(__file__).parent / "more" / "simulations.json")
SURVIVAL = [case for case in MORE if case.id.startswith("sim_surv")]


@pytest.mark.parametrize("case", [case for case in MORE if case not in SURVIVAL], ids=lambda case: case.id)
def test_agrees_with_rpact(case: Case) -> None:
    assert wrong([case]) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", SURVIVAL, ids=lambda case: case.id)
def test_survival_agrees_with_rpact(case: Case) -> None:
    assert wrong([case]) == []


@pytest.mark.slow
@pytest.mark.real
def test_agrees_with_the_reference_file(reference_cases: dict[str, Case]) -> None:
    for name in ("oc_surv_delayed", "oc_multiarm_best", "ext_pharma118", "oc_boin", "oc_crm"):
        assert wrong([reference_cases[name]]) == []


def test_another_truth_does_not_agree() -> None:
    """The negative control: five points of power, one of a hundred patients."""
    (case,) = [case for case in MORE if case.id == "sim_arms_control"]
    outputs = {"any": [0.0234, 0.8502], "n": [420, 410.0]}
    moved = Case(case.folder, {**case.raw, "outputs": outputs})
    assert judge(moved).agrees == {"any": False, "n": False}


def test_a_simulated_answer_is_judged_by_its_error() -> None:
    case = Case(Path(), {"outputs": {"power": 0.8}, "tolerance": {"abs": 0.5, "rel": 0.0}})
    assert agrees(case, "power", Simulated(0.839, 0.01))
    assert not agrees(case, "power", Simulated(0.841, 0.01))
