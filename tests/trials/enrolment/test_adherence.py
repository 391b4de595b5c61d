from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.enrolment.adherence import (
    ChangeDraws,
    Discontinuation,
    Dropout,
    SwitchAtMonth,
    SwitchAtProgression,
    event_months,
)
from medtwin.trials.enrolment.draws import TrialDraws

TENTH = PiecewiseRate((0.0,), (0.1,))
NEVER = np.full((1, 1), np.inf)


def months(amount: float, arm: int, *changes: tuple[float, float], hazard: PiecewiseRate = TENTH) -> float:
    made = [(np.full((1, 1), at), part) for at, part in changes]
    return float(event_months(hazard, np.full((1, 1), amount), 0.5, np.full((1, 1), arm), made)[0, 0])


def test_event_times_by_hand() -> None:
    assert (months(1.0, 0), months(1.0, 1)) == (10.0, 20.0)
    # 4 months at .05 use .2 of 1; the other .8 last 8 months at .1
    assert months(1.0, 1, (4.0, 0.0)) == pytest.approx(12.0)
    assert months(1.0, 0, (4.0, 1.0)) == pytest.approx(16.0)  # .6 more at .05
    assert months(1.0, 0, (11.0, 1.0)) == 10.0  # too late to matter
    assert months(1.0, 1, (4.0, 0.5)) == pytest.approx(4 + 0.8 / (0.1 * 0.5**0.5))
    assert months(1.0, 0, (8.0, 0.0), (4.0, 1.0)) == pytest.approx(12.0)  # .4, then .2 at .05, then .4 at .1
    assert months(1.0, 0, (0.0, 1.0)) == 20.0
    assert months(1.0, 0, (4.0, 0.0), (4.0, 1.0)) == pytest.approx(16.0)  # the later of the list stays


def test_hazards_that_change_and_end() -> None:
    hazard = PiecewiseRate((0.0, 2.0, 6.0), (0.1, 0.3, 0.0))  # 1.4 in all
    assert months(1.1, 0, hazard=hazard) == pytest.approx(5.0)
    assert months(1.1, 1, (2.0, 0.0), hazard=hazard) == pytest.approx(2 + 1.0 / 0.3)  # .1 used, 1.0 more at .3
    assert months(1.1, 1, (3.0, 0.0), hazard=hazard) == pytest.approx(3 + 0.85 / 0.3)
    assert months(1.1, 1, (4.0, 0.0), hazard=hazard) == np.inf  # .1 + .3 used, .6 left, .7 would be needed
    assert months(1.1, 1, (np.inf, 0.0), hazard=hazard) == np.inf
    assert months(0.6, 1, (np.inf, 0.0), hazard=hazard) == pytest.approx(2 + 0.5 / 0.15)


def test_nothing_changes_where_the_treatment_does_nothing() -> None:
    draws = TrialDraws(0, 20)
    amount, arm = draws.exponential(50, "event"), (draws.uniform(50, "arm") < 0.5).astype(np.int64)
    at = draws.exponential(50, "change")
    found = event_months(TENTH, amount, 1.0, arm, [(at, 0.0), (2 * at, 1.0)])
    np.testing.assert_allclose(found, TENTH.time_at(amount), rtol=1e-12)


def test_survival_after_stopping_is_that_of_the_two_hazards() -> None:
    """Stopping at rate s, hazards a before and b after: S(t) = e^-(s+a)t + s e^-bt (1 - e^-(s+a-b)t) / (s + a - b)."""
    draws, count, s, a, b, t = TrialDraws(1, 400), 100, 0.08, 0.05, 0.1, 12.0
    stop = Discontinuation(PiecewiseRate((0.0,), (s,)))
    arm = np.ones((400, count), dtype=np.int64)
    at = stop.months(ChangeDraws.of(draws, count, 0), arm, NEVER, NEVER)
    event = event_months(TENTH, draws.exponential(count, "event"), 0.5, arm, [(at, stop.effect)])
    expected = np.exp(-(s + a) * t) + s * np.exp(-b * t) * (1 - np.exp(-(s + a - b) * t)) / (s + a - b)
    error = (expected * (1 - expected) / event.size) ** 0.5
    assert (event > t).mean() == pytest.approx(expected, abs=4 * error)
    assert abs(np.exp(-a * t) - expected) > 20 * error  # a control: full adherence
    assert np.isinf(stop.months(ChangeDraws.of(draws, count, 0), 0 * arm, NEVER, NEVER)).all()


def test_who_switches_and_when() -> None:
    draws = TrialDraws(2, 200)
    change, arm = ChangeDraws.of(draws, 50, 1), (draws.uniform(50, "arm") < 0.5).astype(np.int64)
    enrolled, risk = 20 * draws.uniform(50, "enrolled"), np.exp(draws.uniform(50, "risk"))
    at_month = SwitchAtMonth(12.0, 0.4)
    when = at_month.months(change, arm, enrolled, risk)
    assert np.isinf(when[arm == 1]).all()
    switched = np.isfinite(when)
    assert switched[arm == 0].mean() == pytest.approx(0.4, abs=4 * 0.5 / (arm == 0).sum() ** 0.5)
    np.testing.assert_allclose(when[switched], np.maximum(12.0 - enrolled, 0.0)[switched])
    progression = SwitchAtProgression(TENTH)
    when = progression.months(change, arm, enrolled, risk)
    assert np.isfinite(when[arm == 0]).all()
    scaled = (when * risk)[arm == 0]
    assert scaled.mean() == pytest.approx(10.0, abs=4 * 10 / len(scaled) ** 0.5)
    assert (at_month.effect, progression.effect) == (1.0, 1.0)
    back = SwitchAtMonth(12.0, from_arm=1)
    assert back.effect == 0.0
    assert np.isinf(back.months(change, arm, enrolled, risk)[arm == 0]).all()
    assert SwitchAtMonth(12.0, part=0.5).effect == 0.5


def test_dropout_by_arm_and_time() -> None:
    draws = TrialDraws(3, 200)
    leaving, arm = draws.exponential(100, "dropout"), (draws.uniform(100, "arm") < 0.5).astype(np.int64)
    alike = Dropout.of_share(0.05).months(leaving, arm)
    assert (alike < 12).mean() == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 20_000) ** 0.5)
    apart = Dropout(PiecewiseRate((0.0, 6.0), (0.0, 0.1)), TENTH)
    found = apart.months(leaving, arm)
    assert found[arm == 0].min() >= 6.0
    np.testing.assert_array_equal(found[arm == 1], TENTH.time_at(leaving)[arm == 1])
    assert np.isinf(Dropout.of_share(0.0).months(leaving, arm)).all()
    assert apart.arms[1] is TENTH


def test_refusals() -> None:
    for call, message in (
        (lambda: Discontinuation(TENTH, 1.5), "effect must be in"),
        (lambda: SwitchAtMonth(-1.0), "month must be 0 or more"),
        (lambda: SwitchAtMonth(1.0, 1.5), "probability must be in"),
        (lambda: SwitchAtMonth(1.0, part=-0.5), "part must be in"),
        (lambda: SwitchAtProgression(TENTH, probability=-0.1), "probability must be in"),
        (lambda: SwitchAtProgression(TENTH, from_arm=2), "from_arm must be 0 or 1"),
        (lambda: Dropout.of_share(1.0), "dropout must be a share"),
        (lambda: event_months(TENTH, NEVER, 0.0, np.zeros((1, 1), np.int64), []), "hazard_ratio must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
