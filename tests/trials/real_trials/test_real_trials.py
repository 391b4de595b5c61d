"""Real trials re-analysed: R's numbers, and the direction that was published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.logrank import logrank_test
from tests.trials.real_trials import actg175, cgd, colon, pilot
from tests.trials.real_trials.compared import Compared

pytestmark = pytest.mark.real
COMPARED = (*actg175.COMPARED, *colon.COMPARED, *cgd.COMPARED, *pilot.COMPARED)


@pytest.mark.parametrize("each", COMPARED, ids=[each.name for each in COMPARED])
def test_agrees_with_r(public_data: Path, each: Compared) -> None:
    assert each.worst(public_data) < each.tolerance, (each.found(public_data), each.r)


def test_another_number_does_not_agree(public_data: Path) -> None:
    each = COMPARED[0]
    moved = replace(each, r=[value * 1.00001 for value in each.r])
    assert moved.worst(public_data) > each.tolerance


def hazard_ratio(time: np.ndarray, event: np.ndarray, mine: np.ndarray) -> tuple[float, float, float]:
    """With its limits of 95 %."""
    model = cox_model(time, event, mine)
    low, high = model.interval()
    return float(model.hazard_ratios[0]), float(low[0]), float(high[0])


@pytest.mark.parametrize("arm", actg175.ARMS)
def test_each_arm_of_actg_175_was_better_than_zidovudine_alone(public_data: Path, arm: int) -> None:
    p = actg175.pair(public_data, arm)
    _, _, high = hazard_ratio(p["days"], p["cens"], p["mine"])
    assert high < 0.8


@pytest.mark.parametrize("event", [colon.RECURRENCE, colon.DEATH])
def test_levamisole_with_fluorouracil_was_better_and_levamisole_alone_was_not(public_data: Path, event: int) -> None:
    both, alone = (colon.pair(public_data, event, arm) for arm in ("Lev+5FU", "Lev"))
    _, _, high = hazard_ratio(both["time"], both["status"], both["mine"])
    _, low, above = hazard_ratio(alone["time"], alone["status"], alone["mine"])
    assert high < 1
    assert low < 1 < above


def test_interferon_gamma_lowered_the_rate_of_infections(public_data: Path) -> None:
    assert cgd.infections(public_data).interval()[1][0] < 0.7


def test_patches_with_the_drug_irritate(public_data: Path) -> None:
    for arm in pilot.ARMS[1:]:
        p = pilot.pair(public_data, arm)
        _, low, _ = hazard_ratio(p["time"], p["event"], p["mine"])
        assert low > 1.5


def test_arms_dealt_at_random_show_nothing(public_data: Path) -> None:
    """The negative control: of 200 random divisions about 1 in 20 is significant, as the real one is beyond doubt."""
    d, rng = colon.trial(public_data, colon.DEATH), np.random.default_rng(4)
    both = colon.pair(public_data, colon.DEATH, "Lev+5FU")
    assert logrank_test(both["time"], both["status"], both["mine"]).p_value < 0.002
    p = [logrank_test(d["time"], d["status"], rng.permutation(len(d["time"])) % 2).p_value for _ in range(200)]
    assert 2 <= sum(each < 0.05 for each in p) <= 20
