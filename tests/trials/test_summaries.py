"""Distributions, estimates by stop, and the patients of simulated trials."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from medtwin.trials import AssumedOutcome, Discontinuation, GroupSequential, PiecewiseRate, SurvivalTrial, prepare
from medtwin.trials.engine.batch import Characteristics, Stops, run_block
from medtwin.trials.engine.enrolled import ARMS, enrolled_in
from medtwin.trials.engine.summaries import distributions, estimates_by_stop, events_by_month, quantile_of
from medtwin.trials.population.attrition import Division

PLAN = GroupSequential(power=0.8, looks=(0.5, 1.0))
TRIAL = SurvivalTrial("a trial", PLAN, 0.6, assumed=AssumedOutcome(12.0, 0.5), annual_dropout=0.2)


def test_the_interval_of_a_quantile_covers_it() -> None:
    """Of 2,000 samples of 50 uniform numbers; the exact coverage of the order statistics is a binomial sum."""
    generator = np.random.default_rng(0)
    samples = generator.random((2000, 50))
    for probability in (0.25, 0.5):
        found = [quantile_of(each, probability) for each in samples]
        covered = np.mean([each.low <= probability <= each.high for each in found])
        low, high = binom.ppf([0.025, 0.975], 50, probability)
        exact = binom.cdf(high, 50, probability) - binom.cdf(low - 1, 50, probability)
        assert covered == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2000))
        assert exact >= 0.95
    assert quantile_of(np.arange(10.0), 0.05).low == -np.inf  # too few for a lower end
    with pytest.raises(ValueError, match="a probability in"):
        quantile_of(np.arange(10.0), 1.0)


def test_the_patients_of_trials_add_up() -> None:
    study = prepare(TRIAL, None, 0)
    stops = Stops.join([run_block(study.plan, 3, block, 0.6) for block in range(2)])
    size = len(study.plan.pool.log_risk)
    third = Division(["low", "high"], (np.arange(size) >= size // 3).astype(np.int64))
    found = enrolled_in(study.plan, 3, 0.6, stops, {"third": third}, blocks=5)
    assert found.num_trials == 200
    means = {arm: {state: each.mean.value for state, each in found.disposition[arm].items()} for arm in ARMS}
    for arm in ARMS:
        parts = ("had the event", "left before the end", "still followed at the end")
        assert sum(means[arm][part] for part in parts) == pytest.approx(means[arm]["randomised"])
        assert means[arm]["changed treatment"] == 0
    assert sum(means[arm]["had the event"] for arm in ARMS) == pytest.approx(stops.events.mean())
    assert sum(means[arm]["randomised"] for arm in ARMS) == pytest.approx(stops.subjects.mean())
    assert means["control"]["had the event"] > means["experimental"]["had the event"]
    shares = found.representation["third"]
    assert shares["low"].mean.value + shares["high"].mean.value == pytest.approx(1.0)
    assert abs(shares["high"].mean.value - third.number.mean()) < 4 * shares["high"].mean.standard_error
    assert shares["low"].low < shares["low"].mean.value < shares["low"].high


def test_who_stops_treatment_is_counted() -> None:
    stopping = Discontinuation(PiecewiseRate((0.0,), (0.05,)))
    changing = SurvivalTrial(
        "a", PLAN, 0.6, assumed=AssumedOutcome(12.0), num_subjects=240, treatment_changes=[stopping]
    )
    study = prepare(changing, None, 0)
    stops = run_block(study.plan, 3, 0, 0.6)
    states = {arm: enrolled_in(study.plan, 3, 0.6, stops, {}).disposition[arm]["changed treatment"] for arm in ARMS}
    assert states["control"].mean.value == 0
    assert 20 < states["experimental"].mean.value < 100


def test_events_come_when_looks_are_expected() -> None:
    study = prepare(TRIAL, None, 0)
    months = study.months_of_looks(0.6)
    assert events_by_month(study, months, 0.6) == pytest.approx(study.plan.design.events, rel=1e-6)
    changing = SurvivalTrial(
        "a", PLAN, 0.6, assumed=AssumedOutcome(12.0), num_subjects=240,
        treatment_changes=[Discontinuation(PiecewiseRate((0.0,), (0.05,)))],
    )  # fmt: skip
    other = prepare(changing, None, 0)
    by_trials = events_by_month(other, other.months_of_looks(0.6), 0.6)
    assert by_trials == pytest.approx(other.plan.design.events, rel=0.03)


def test_estimates_of_early_stops_are_extreme() -> None:
    study = prepare(TRIAL, None, 0)
    stops = Stops.join([run_block(study.plan, 3, block, 0.6) for block in range(3)])
    rows = estimates_by_stop(Characteristics(0.6, stops))
    assert sum(row.share.value for row in rows) == pytest.approx(1.0)
    early, late = (next(row for row in rows if (row.look, row.outcome) == (look, "null rejected")) for look in (1, 2))
    assert early.log_hazard_ratio.high < late.log_hazard_ratio.low < 0
    duration, patients, events = distributions(Characteristics(0.6, stops))
    assert duration.quantiles[0.5].low <= np.median(stops.months) <= duration.quantiles[0.5].high
    assert (patients.most, events.least) == (stops.subjects.max(), stops.events.min())
