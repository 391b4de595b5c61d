"""Projected numbers of events: a law in closed form, calibration, and half of a real control arm from the other."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medtwin.trials.analysis.event_projection import EventProjection, most_likely_model, project_events
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.parametric import Family, ParametricModel, parametric_model
from tests.trials.reference.cases import read_columns

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


def actg175() -> dict[str, Floats]:
    """The trial of Hammer et al. 1996: days to a fall of CD4 by half, AIDS or death."""
    root = os.environ.get("MEDTWIN_DATA")
    path = Path(root or "nowhere") / "trials" / "lifelines_mit" / "actg175.csv"
    if not path.is_file():
        pytest.skip("needs ACTG 175 in MEDTWIN_DATA")
    return read_columns(path)


def halved(trial: dict[str, Floats], arm: int, seed: int) -> tuple[EventProjection, int]:
    """What a random half of the control arm says of the number of events in half of an arm, and the number."""
    rng = np.random.default_rng(seed)
    control, other = (rng.permutation(np.flatnonzero(trial["arms"] == which)) for which in (0, arm))
    fitted = control[: len(control) // 2]
    rest = control[len(control) // 2 :] if arm == 0 else other[: len(control) // 2]
    days, cens = trial["days"], trial["cens"]
    model = parametric_model(days[fitted], cens[fitted])
    watched = kaplan_meier(days[fitted], 1 - cens[fitted])
    return project_events(model, np.zeros(len(rest)), watched, rng, draws=400), int(cens[rest].sum())


def test_half_of_a_control_arm_projects_the_other_half() -> None:
    trial = actg175()
    inside = []
    for seed in range(40):
        found, events = halved(trial, 0, seed)
        low, high = found.interval()
        inside.append(low <= events <= high)
    assert inside[0]
    assert np.mean(inside) >= 0.875  # 95 % but for chance: 35 of 40 or more in 96 of 100 such series


def test_the_control_arm_does_not_project_a_treated_arm() -> None:
    """The published effect, a hazard ratio of one half, is far outside the interval."""
    trial = actg175()
    found, events = halved(trial, 1, 0)
    assert events < found.interval()[0]


def test_the_first_half_of_follow_up_projects_the_second() -> None:
    trial = actg175()
    mine = trial["arms"] == 0
    days, cens = trial["days"][mine], trial["cens"][mine]
    cut = 600.0
    model = most_likely_model(np.minimum(days, cut), (cens == 1) & (days <= cut))
    assert model.family == "lognormal"  # a Weibull law, less likely by 0.9, would promise 111 events; 71 came
    at_risk = days > cut
    watched = kaplan_meier(days, 1 - cens)  # administrative: when each is last seen
    found = project_events(model, np.full(at_risk.sum(), cut), watched, np.random.default_rng(3), draws=400)
    low, high = found.interval()
    assert low <= cens[at_risk].sum() <= high
