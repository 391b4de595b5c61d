from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.attacks.singling_out import (
    Condition,
    matches_of,
    multivariate_predicates,
    num_matches,
    singling_out,
    univariate_predicates,
)
from medtwin.check.attacks.table import People
from tests.check.attacks.laws import leak

NAN = float("nan")


def people(*rows: list[float]) -> People:
    return People(("sex", "age"), np.array(rows, np.float64), np.array([True, False]))


def test_predicates_of_one_attribute_by_hand() -> None:
    twins = people([0, 20], [0, 20], [1, 30], [0, NAN])
    found = set(univariate_predicates(twins, np.random.default_rng(0), 100))
    expected = {
        (Condition(0, "is", 1.0),),
        (Condition(1, "is", 30.0),),
        (Condition(1, "at least", 30.0),),  # not "at most 20": two are
    }
    unknown = [one for one in found if np.isnan(one[0].value)]
    assert found - set(unknown) == expected
    assert len(unknown) == 1
    assert all(num_matches(one, twins) == 1 for one in found)
    assert len(univariate_predicates(twins, np.random.default_rng(0), 2)) == 2


def test_predicates_of_several_hold_of_one_twin_and_are_not_repeated() -> None:
    sides = leak(0, 5, number=300)
    found = multivariate_predicates(sides.synthetic, np.random.default_rng(0), 200, 3)
    assert len(found) == len(set(found)) == 200
    assert (matches_of(found, sides.synthetic).sum(axis=1) == 1).all()
    middle = float(np.median(sides.synthetic.values[:, 4]))
    for condition in (one for predicate in found for one in predicate if one.column == 4):
        assert condition.operator == ("at least" if condition.value > middle else "at most")
    assert multivariate_predicates(people([0, 1]), np.random.default_rng(0), 5, 9)[0] == (
        Condition(0, "is", 0.0),
        Condition(1, "at most", 1.0),
    )


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_risk_rises_with_the_leak(share: float) -> None:
    sides = leak(share, 11)
    for risk in singling_out(sides.train, sides.synthetic, sides.control, seed=1, num_attacks=800):
        assert risk.risk is not None
        assert risk.low is not None
        assert risk.high is not None
        assert risk.low <= share <= risk.high
        assert risk.risk == pytest.approx(share, abs=0.05)
        assert (risk.low > 0) == (share > 0)
        assert risk.naive is not None
        assert risk.naive.rate < 0.05


def test_few_attributes_hold_of_others_too_and_tell_less() -> None:
    sides = leak(0.3, 11)
    of = [singling_out(sides.train, sides.synthetic, sides.control, seed=1, num_attacks=800, num_columns=columns)[1]
          for columns in (3, 9)]  # fmt: skip
    assert of[0].control.rate > 5 * of[1].control.rate
    assert of[0].risk is not None
    assert of[0].risk < 0.3


def test_a_smaller_control_is_corrected_and_a_tiny_one_refused() -> None:
    sides = leak(0.3, 2, num_control=500)
    one, _ = singling_out(sides.train, sides.synthetic, sides.control, seed=1, num_attacks=1000)
    assert one.scale == 2
    assert one.low is not None
    assert one.high is not None
    assert one.low <= 0.3 <= one.high
    tiny = singling_out(sides.train, sides.synthetic, sides.control.take(np.arange(50)), seed=1)
    assert [each.risk for each in tiny] == [None, None]
    assert "1000 training subjects against 50 of the control" in tiny[0].reason


def test_no_alarm_on_independent_draws() -> None:
    """The trap of a control of half the size: uncorrected, it makes independent twins look unsafe."""
    alarms, uncorrected = [], []
    for seed in range(6):
        sides = leak(0, seed, number=600, num_control=300)
        found = singling_out(sides.train, sides.synthetic, sides.control, seed=seed, num_attacks=250)
        alarms += [each.low is not None and each.low > 0 for each in found]
        predicates = multivariate_predicates(sides.synthetic, np.random.default_rng(seed), 250, 4)
        rates = [(matches_of(predicates, side).sum(axis=1) == 1).mean() for side in (sides.train, sides.control)]
        uncorrected.append(rates[0] - rates[1])
    assert sum(alarms) <= 2
    assert np.mean(uncorrected) > 0.02
