"""Projected numbers of events: a law in closed form, families weighed. See also `real_trials/test_projection.py`."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medtwin.trials.analysis.event_projection import (
    most_likely_model,
    project_events,
    project_over_families,
    weighed_models,
)
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.parametric import Family, ParametricModel

Floats = NDArray[np.float64]


def known(family: Family, location: float, scale: float) -> ParametricModel:
    """A model whose parameters are known."""
    return ParametricModel(family, np.array([location]), scale, np.eye(2) * 1e-18, 0.0, 0.0)


@pytest.mark.parametrize(
    ("family", "survival"),
    [
        ("weibull", lambda t: np.exp(-((t / 10) ** 2))),
        ("lognormal", None),
        ("loglogistic", lambda t: 1 / (1 + (t / 10) ** 2)),
    ],
)
def test_the_expected_number_follows_the_law(family: Family, survival: object) -> None:
    """Of those free of the event at 4, whose observation ends at 9."""
    from scipy.stats import norm

    law = survival if callable(survival) else (lambda t: norm.sf((np.log(t) - np.log(10)) / 0.5))
    watched = kaplan_meier([50.0], [1])
    found = project_events(
        known(family, np.log(10), 0.5), np.full(400, 4.0), watched, np.random.default_rng(1), until=9.0
    )
    share = 1 - law(9.0) / law(4.0)
    error = np.sqrt(400 * share * (1 - share) / len(found.counts))
    assert abs(found.expected - 400 * share) < 4 * error
    assert found.counts.std() == pytest.approx(np.sqrt(400 * share * (1 - share)), rel=0.1)


def test_censoring_takes_events_away() -> None:
    """Half are lost at 5 and half at 15: of an exponential law with mean 10."""
    watched = kaplan_meier([5.0, 15.0], [1, 1])
    found = project_events(known("exponential", np.log(10), 1.0), np.zeros(300), watched, np.random.default_rng(2))
    expected = 300 * (1 - (np.exp(-0.5) + np.exp(-1.5)) / 2)
    assert found.expected == pytest.approx(expected, rel=0.01)
    late = project_events(known("exponential", np.log(10), 1.0), np.full(300, 6.0), watched, np.random.default_rng(2))
    assert late.expected == pytest.approx(300 * (1 - np.exp(-0.9)), rel=0.02)  # all of them are of the second half


def test_what_makes_no_sense_is_refused() -> None:
    watched, rng = kaplan_meier([50.0], [1]), np.random.default_rng(0)
    model = known("weibull", 1.0, 1.0)
    with pytest.raises(ValueError, match="seen_until must be"):
        project_events(model, [-1.0], watched, rng)
    with pytest.raises(ValueError, match="draws must be"):
        project_events(model, [0.0], watched, rng, draws=0)
    with pytest.raises(ValueError, match="family must be one of"):
        project_events(known("gaussian", 1.0, 1.0), [0.0], watched, rng)
    with pytest.raises(ValueError, match="covariates must be the 0"):
        project_events(model, [0.0, 0.0, 0.0], watched, rng, covariates=[1.0, 2.0, 4.0])


def waiting(seed: int = 6, size: int = 200) -> tuple[Floats, Floats]:
    """Times of a lognormal law, seen for at most 9."""
    time = np.exp(2 + np.random.default_rng(seed).normal(size=size))
    return np.minimum(time, 9), (time <= 9).astype(np.float64)


def test_weights_are_those_of_akaike() -> None:
    """Between models of as many parameters they go as the likelihoods."""
    time, event = waiting()
    found = {model.family: (model, weight) for model, weight in weighed_models(time, event)}
    assert sum(weight for _, weight in found.values()) == pytest.approx(1)
    (one, w1), (other, w2) = found["weibull"], found["lognormal"]
    assert w1 / w2 == pytest.approx(np.exp(one.log_likelihood - other.log_likelihood))
    best = most_likely_model(time, event)
    assert found[best.family][1] == max(weight for _, weight in found.values())


def test_limits_over_families_hold_under_each_that_the_data_leave() -> None:
    """Those of a mixture would lie inside; a family with less than an eighth of the greatest weight does not count."""
    start, watched = np.full(60, 9.0), kaplan_meier([40.0], [1])
    few, many = known("exponential", np.log(200), 1.0), known("exponential", np.log(20), 1.0)
    own = [project_events(each, start, watched, np.random.default_rng(1), draws=4000) for each in (few, many)]
    both = project_over_families([(few, 0.25), (many, 0.75)], start, watched, np.random.default_rng(1), draws=4000)
    assert both.expected == pytest.approx(0.25 * own[0].expected + 0.75 * own[1].expected, rel=0.03)
    low, high = both.interval()
    assert low == pytest.approx(own[0].interval()[0], abs=1)
    assert high == pytest.approx(own[1].interval()[1], abs=1)
    mixed = np.concatenate([own[0].counts[:1000], own[1].counts[:3000]])
    assert np.quantile(mixed, 0.025) > low
    most = project_over_families([(few, 0.1), (many, 0.9)], start, watched, np.random.default_rng(1))
    assert [weight for _, weight in most.projections] == [1.0]
    assert most.expected == pytest.approx(own[1].expected, rel=0.05)


@pytest.mark.parametrize("weights", [[0.5, 0.4], [1.5, -0.5], [np.nan, 1.0]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]) -> None:
    models = [(known("exponential", 1.0, 1.0), weight) for weight in weights]
    with pytest.raises(ValueError, match="models must have weights"):
        project_over_families(models, [0.0], kaplan_meier([50.0], [1]), np.random.default_rng(0))
