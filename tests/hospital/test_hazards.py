from __future__ import annotations

import math

import numpy as np
import pytest

from medtwin.hospital.hazards import NEVER, Gompertz, LogisticRise, accumulated, event_age, risk_steps

RISE = LogisticRise(0.4, 60.0, 0.8)
GOMPERTZ = Gompertz(0.01, 0.08)


@pytest.mark.parametrize("baseline", [RISE, GOMPERTZ])
def test_age_at_inverts_cumulative(baseline):
    for age in (20.0, 55.5, 90.0):
        assert baseline.age_at(baseline.cumulative(age)) == pytest.approx(age)


def test_logistic_rise_has_half_its_plateau_at_the_midpoint():
    assert RISE.share(60.0) == pytest.approx(0.2)
    assert RISE.cumulative(NEVER) == pytest.approx(-math.log(0.6))


def test_gompertz_hazard_is_the_slope_of_its_cumulative_hazard():
    slope = (GOMPERTZ.cumulative(70.001) - GOMPERTZ.cumulative(69.999)) / 0.002
    assert slope == pytest.approx(GOMPERTZ.hazard(70.0), rel=1e-6)


def test_event_age_accumulates_exactly_the_draw():
    steps = risk_steps(18.0, 1.2, [(40.0, 2.0), (55.0, 3.0)])
    assert steps == [(18.0, 1.2), (40.0, 2.4), (55.0, pytest.approx(7.2))]
    for draw in (0.01, 0.1, 0.5, 1.0):
        assert accumulated(GOMPERTZ, steps, event_age(GOMPERTZ, draw, steps)) == pytest.approx(draw)


def test_a_draw_beyond_the_plateau_never_happens():
    assert event_age(RISE, 0.6, risk_steps(18.0, 1.0)) == NEVER
    assert event_age(RISE, 0.6, risk_steps(18.0, 3.0)) < NEVER


def test_share_affected_under_a_hazard_ratio():
    draws = np.random.default_rng(0).exponential(size=20_000)
    ages = np.array([event_age(RISE, draw, risk_steps(0.0, 2.0)) for draw in draws])
    expected = 1.0 - math.exp(-2.0 * (RISE.cumulative(65.0) - RISE.cumulative(0.0)))
    assert (ages <= 65.0).mean() == pytest.approx(expected, abs=0.012)  # 3.6 standard errors
