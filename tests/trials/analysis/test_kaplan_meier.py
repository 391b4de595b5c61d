"""Survival curves: by hand, invariants, and what is refused."""

import numpy as np
import pytest

from medtwin.trials.analysis.kaplan_meier import Limits, kaplan_meier, nelson_aalen, survival_limits

TIME, EVENT = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0], [1, 1, 1, 0, 1, 0]


def test_curve_by_hand() -> None:
    """At risk 6, 5, 2 with 1, 2, 1 events: 5/6, 5/6 3/5, 5/6 3/5 1/2."""
    curve = kaplan_meier(TIME, EVENT)
    assert curve.time.tolist() == [1.0, 2.0, 4.0]
    assert curve.at_risk.tolist() == [6, 5, 2]
    assert curve.events.tolist() == [1, 2, 1]
    np.testing.assert_allclose(curve.survival, [5 / 6, 1 / 2, 1 / 4])
    greenwood = np.cumsum([1 / 30, 2 / 15, 1 / 2])
    np.testing.assert_allclose(curve.standard_error, curve.survival * np.sqrt(greenwood))
    np.testing.assert_allclose(curve.cumulative_hazard, np.cumsum([1 / 6, 2 / 5, 1 / 2]))


def test_hazard_by_hand_with_both_ties() -> None:
    instant, in_turn = (nelson_aalen(TIME, EVENT, ties=ties) for ties in ("nelson_aalen", "fleming_harrington"))
    np.testing.assert_allclose(instant.cumulative_hazard, np.cumsum([1 / 6, 2 / 5, 1 / 2]))
    np.testing.assert_allclose(in_turn.cumulative_hazard, np.cumsum([1 / 6, 1 / 5 + 1 / 4, 1 / 2]))
    np.testing.assert_allclose(in_turn.hazard_error**2, np.cumsum([1 / 36, 1 / 25 + 1 / 16, 1 / 4]))
    np.testing.assert_allclose(instant.survival, np.exp(-instant.cumulative_hazard))


@pytest.mark.parametrize("limits", ["log", "log-log", "plain", "logit", "arcsin"])
def test_limits_hold_the_estimate_and_grow_with_the_level(limits: Limits) -> None:
    narrow, wide = (kaplan_meier(TIME, EVENT, level=level, limits=limits) for level in (0.8, 0.95))
    assert (wide.low >= 0).all()
    assert (wide.high <= 1).all()
    assert (wide.low <= narrow.low).all()
    assert (narrow.low < narrow.survival).all()
    assert (narrow.survival < narrow.high).all()
    assert (narrow.high <= wide.high).all()


@pytest.mark.parametrize("limits", ["log", "log-log", "plain", "logit", "arcsin"])
def test_limits_before_the_first_event_are_one(limits: Limits) -> None:
    low, high = survival_limits(np.ones(1), np.zeros(1), level=0.95, limits=limits)
    assert (low[0], high[0]) == (1.0, 1.0)


def test_limits_by_hand() -> None:
    """S = 1/2 with standard error se of log S; 1.96 to the digits given."""
    se, z = np.sqrt(1 / 30 + 2 / 15), 1.959963984540054
    found = {name: kaplan_meier(TIME, EVENT, limits=name) for name in ("plain", "log", "log-log")}
    assert found["plain"].low[1] == pytest.approx(0.5 - z * 0.5 * se)
    assert found["log"].high[1] == pytest.approx(min(1.0, 0.5 * np.exp(z * se)))
    assert found["log-log"].low[1] == pytest.approx(0.5 ** np.exp(z * se / np.log(2)))


def test_median_lies_halfway_where_the_curve_lies_on_one_half() -> None:
    assert kaplan_meier(TIME, EVENT).quantile(0.5).estimate == 3.0
    assert kaplan_meier([1, 2, 3], [1, 1, 1]).quantile(0.5).estimate == 2.0
    assert np.isnan(kaplan_meier([1, 2, 3], [1, 0, 0]).quantile(0.5).estimate)


def test_late_entry_by_hand() -> None:
    """The third subject enters at 1.5, after the first event: at risk 2 and then 2."""
    curve = kaplan_meier([1, 2, 3], [1, 1, 0], entry=[0, 0, 1.5])
    assert curve.at_risk.tolist() == [2, 2]
    assert curve.survival.tolist() == [0.5, 0.25]


def test_nobody_is_no_curve() -> None:
    assert kaplan_meier([], []).at([1.0]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, np.nan], [1, 1]), "time must be"),
        (([1, 2], [1, 2]), "event must be"),
        (([1, 2], [1]), "event must be"),
    ],
)
def test_refusals(arguments: tuple[list[float], list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kaplan_meier(*arguments)


def test_refusals_of_options() -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        kaplan_meier(TIME, EVENT, level=95)
    with pytest.raises(ValueError, match="limits must be one of"):
        kaplan_meier(TIME, EVENT, limits="loglog")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="entry must be one time before the end"):
        kaplan_meier(TIME, EVENT, entry=[2.0] * 6)
    with pytest.raises(ValueError, match="share must be between"):
        kaplan_meier(TIME, EVENT).quantile(1.0)
