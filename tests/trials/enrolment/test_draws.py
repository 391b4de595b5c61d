from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.enrolment.draws import TrialDraws, philox


def test_a_number_depends_on_seed_scope_purpose_trial_and_place_only() -> None:
    many = TrialDraws(3, 250)
    few = TrialDraws(3, 30, first_trial=90)
    np.testing.assert_array_equal(few.uniform(5, "a"), many.uniform(40, "a")[90:120, :5])
    np.testing.assert_array_equal(few.exponential(5, "a"), many.exponential(40, "a")[90:120, :5])
    np.testing.assert_array_equal(few.gamma(5, 0.7, "a"), many.gamma(40, 0.7, "a")[90:120, :5])
    mean = np.random.default_rng(0).uniform(0, 3, (250, 40))
    np.testing.assert_array_equal(few.poisson(mean[90:120, :5], "a"), many.poisson(mean, "a")[90:120, :5])
    for other in (TrialDraws(4, 250), TrialDraws(3, 250, scope="b"), TrialDraws(3, 250, first_trial=100)):
        assert abs(np.corrcoef(other.uniform(40, "a").ravel(), many.uniform(40, "a").ravel())[0, 1]) < 0.04
    assert abs(np.corrcoef(many.uniform(40, "b").ravel(), many.uniform(40, "a").ravel())[0, 1]) < 0.04


def test_laws() -> None:
    draws = TrialDraws(1, 200)
    assert draws.uniform(100, "u").mean() == pytest.approx(0.5, abs=4 * 12**-0.5 / 20_000**0.5)
    assert draws.exponential(100, "e").mean() == pytest.approx(1.0, abs=4 / 20_000**0.5)
    gamma = draws.gamma(100, 4.0, "g")
    assert gamma.mean() == pytest.approx(1.0, abs=4 * 0.5 / 20_000**0.5)
    assert gamma.var() == pytest.approx(0.25, rel=0.1)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        philox(-1, 0)
    with pytest.raises(ValueError, match="stream must be 0 or more"):
        philox(0, -1)
    for change, message in (({"seed": -1}, "seed"), ({"num_trials": 0}, "num_trials"), ({"first_trial": -1}, "first")):
        with pytest.raises(ValueError, match=message):
            TrialDraws(**{"seed": 0, "num_trials": 1, **change})
