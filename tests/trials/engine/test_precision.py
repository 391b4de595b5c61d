"""A known law: does the interval of a result on twins hold the truth as often as it says, over repeated sources?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.engine.batch import Estimate
from medtwin.trials.engine.precision import across_cohorts, source_error, within_cohort

RATE, TAU, SOURCE, TWINS, REPEATS = 0.05, 12.0, 100, 4000, 300
TRUTH = math.exp(-RATE * TAU)


def estimate_of(months: np.ndarray, count: int | None = None) -> Estimate:
    """Survival at tau with the error of so many independent patients."""
    share = float((months > TAU).mean())
    error = math.sqrt(share * (1 - share) / (count or len(months)))
    return Estimate(share, error, share - 1.96 * error, share + 1.96 * error)


def twins_of(source: np.ndarray, rng: np.random.Generator, count: int = TWINS) -> np.ndarray:
    """The generator: an exponential law fitted to the source."""
    return rng.exponential(source.mean(), count)


def coverage(intervals: list[tuple[float, float]]) -> float:
    return float(np.mean([low <= TRUTH <= high for low, high in intervals]))


def test_the_interval_of_one_cohort_holds_the_truth_and_the_naive_one_does_not() -> None:
    rng = np.random.default_rng(1)
    naive, honest = [], []
    for _ in range(REPEATS):
        twins = twins_of(rng.exponential(1 / RATE, SOURCE), rng)
        found = estimate_of(twins)
        naive.append((found.low, found.high))
        error = source_error(
            lambda rows, t=twins: math.exp(-TAU / t[rows].mean()), TWINS, SOURCE, rng, num_resamples=60
        )  # type: ignore[misc]
        precise = within_cohort(found, error, effective_subjects=SOURCE, is_source=False)
        honest.append((precise.low, precise.high))
        assert precise.is_lower_bound
    spread = math.sqrt(0.95 * 0.05 / REPEATS)
    assert coverage(naive) < 0.5
    assert abs(coverage(honest) - 0.95) < 4 * spread


def test_more_twins_do_not_make_the_source_larger() -> None:
    rng = np.random.default_rng(2)
    source = rng.exponential(1 / RATE, SOURCE)
    widths = []
    for count in (2_000, 50_000):
        twins = twins_of(source, rng, count)
        error = source_error(lambda rows, t=twins: float((t[rows] > TAU).mean()), count, SOURCE, rng)  # type: ignore[misc]
        found = within_cohort(estimate_of(twins), error, effective_subjects=SOURCE, is_source=False)
        widths.append(found.high - found.low)
        assert error == pytest.approx(math.sqrt(TRUTH * (1 - TRUTH) / SOURCE), rel=0.25)
    assert widths[1] > 0.75 * widths[0]  # of as many patients it would be 0.2 of it


def test_cohorts_of_resampled_sources_hold_the_truth_and_seeds_of_one_generator_do_not() -> None:
    rng = np.random.default_rng(3)
    resampled, seeds, both = [], [], []
    for _ in range(REPEATS):
        source = rng.exponential(1 / RATE, SOURCE)
        fits = [source[rng.integers(SOURCE, size=SOURCE)] for _ in range(8)]
        honest = across_cohorts([estimate_of(twins_of(fit, rng)) for fit in fits], spread="bootstrap")
        resampled.append((honest.low, honest.high))
        same = [estimate_of(twins_of(source, rng)) for _ in range(8)]
        alone = across_cohorts(same, spread="seeds")
        seeds.append((alone.low, alone.high))
        assert alone.is_lower_bound
        assert not honest.is_lower_bound
        added = across_cohorts(same, spread="seeds", source_error=TRUTH * -math.log(TRUTH) / math.sqrt(SOURCE))
        both.append((added.low, added.high))
    spread = math.sqrt(0.95 * 0.05 / REPEATS)
    assert abs(coverage(resampled) - 0.95) < 4 * spread
    assert coverage(seeds) < 0.5
    assert abs(coverage(both) - 0.95) < 4 * spread


def test_combining_by_hand() -> None:
    """Values 1, 2, 3 with errors 0.5: B = 1 - 0.25; bootstrap: 4/3 of it beside 0.25 / 3."""
    three = [Estimate(value, 0.5, 0, 0) for value in (1.0, 2.0, 3.0)]
    found = across_cohorts(three, spread="bootstrap", effective_subjects=100)
    assert (found.value, found.effective_subjects) == (2.0, 100)
    assert found.cohort_error**2 == pytest.approx(4 / 3 * 0.75)
    assert found.monte_carlo_error**2 == pytest.approx(0.25 / 3)
    assert found.degrees_of_freedom == pytest.approx(2 * (1 + 0.25 / 3) ** 2)
    assert across_cohorts(three, spread="seeds").cohort_error ** 2 == pytest.approx(0.25)
    none = across_cohorts([Estimate(1.0, 0.5, 0, 0)] * 2, spread="bootstrap")
    assert none.cohort_error == 0.0
    assert none.high == pytest.approx(1 + norm.isf(0.025) * 0.5 / math.sqrt(2))


def test_refusals() -> None:
    rng, one = np.random.default_rng(0), Estimate(1.0, 0.1, 0.8, 1.2)
    with pytest.raises(ValueError, match="cohorts must be 2 or more, got 1"):
        across_cohorts([one], spread="seeds")
    with pytest.raises(ValueError, match="spread must be bootstrap or seeds"):
        across_cohorts([one, one], spread="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the source is too small for it"):
        source_error(lambda rows: math.nan, 100, 10, rng)
    with pytest.raises(ValueError, match="effective_subjects must be 2 or more, got 1"):
        source_error(lambda rows: 0.0, 100, 1, rng)
