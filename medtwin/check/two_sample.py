"""Two samples of rows: draws of equal size by subject, and whether a classifier can tell the samples apart.

What a classifier or a nearest neighbour finds depends on how many rows it sees. Hence every comparison of a measure,
twins with real, real with real, control with real, is of the same number of rows on both sides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.resample import MIN_CONTROL, NUM_RESAMPLES, Features, subject_weights
from medtwin.core.seeds import generator

MAX_ROWS = 2000
"""Rows per side that a classifier sees, half of them in training; twice as many real ones for the baseline."""
MIN_ROWS = 40
"""Rows per side below which nothing is said."""
NUM_HALVES = 10
"""Pairs of disjoint real samples behind a baseline."""
MAX_WIDENING = 2.0
"""By how much, at most, an interval is widened for what resampling leaves as it is."""
NUM_CONTROL_HALVES = 5
"""The same at the size of a control that is smaller than the other samples."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Classifier = Callable[[], Any]


@dataclass(frozen=True)
class Sample:
    """Rows of features and whose they are.

    Attributes:
        features: (rows, numbers), dense or sparse.
        subject: (rows,) any number that tells the subjects of this sample apart; several rows may be of one.

    Raises:
        ValueError: If there is not one subject per row.
    """

    features: Features
    subject: Ints

    def __post_init__(self) -> None:
        if self.subject.shape != (self.features.shape[0],):
            raise ValueError(f"subject must have shape ({self.features.shape[0]},), got {self.subject.shape}")

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return int(self.features.shape[0])


def one_per_subject(features: Features) -> Sample:
    """A sample of which each row is a subject of its own."""
    return Sample(features, np.arange(features.shape[0]))


Pair: TypeAlias = "tuple[Ints, Ints]"


@dataclass(frozen=True)
class EqualDraws:
    """Which rows are compared: the same number on both sides, whole subjects in random order, the last one cut.

    Attributes:
        size: Rows on each side.
        pool: Real rows that anything is drawn from.
        real, synthetic: (size,) rows of either side.
        halves: Rows (size,) and (size,) of real subjects, no subject on both sides.
        control: Real rows other than `real` and rows of the control, as many of both; None: too few of the control.
        control_halves: Like `halves` with so many rows; the same as `halves` where the control is large enough.
    """

    size: int
    pool: Ints
    real: Ints
    synthetic: Ints
    halves: tuple[Pair, ...]
    control: Pair | None
    control_halves: tuple[Pair, ...]


def draw_equal(
    real: Sample,
    synthetic: Sample,
    control: Sample | None,
    *,
    max_rows: int,
    num_halves: int,
    seed: int,
    purpose: str,
) -> EqualDraws | None:
    """Draws the rows.

    The size is what two disjoint real samples, and the twins, allow, at most `max_rows`.

    Args:
        real: The reference.
        synthetic: The twins.
        control: Real rows unseen in training; None: there are none.
        max_rows: The largest size.
        num_halves: Pairs of real samples.
        seed: Decides the draws, with `purpose`.
        purpose: Names the measure.

    Returns:
        None where that leaves fewer than `MIN_ROWS` rows.
    """
    orders = [_subject_order(side, generator(seed, "check", purpose, name))
              for side, name in ((real, "real"), (synthetic, "synthetic"))]  # fmt: skip
    waste = _most_rows(real) - 1  # the rows of a subject that is cut are lost to the second half
    size = min(max_rows, synthetic.num_rows, (real.num_rows - waste) // 2)
    if size < MIN_ROWS:
        return None
    pool = orders[0][: 2 * size + waste]
    rng = generator(seed, "check", purpose, "halves")
    halves = tuple(_halves(real.subject, pool, size, rng) for _ in range(num_halves))
    rest = pool[size:]
    rest = rest[real.subject[rest] != real.subject[pool[size - 1]]]  # the subject that was cut
    third, third_halves = None, halves
    if control is not None and len(np.unique(control.subject)) >= MIN_CONTROL:
        order = _subject_order(control, generator(seed, "check", purpose, "control"))
        smaller = min(size, len(order))
        third = rest[:smaller], order[:smaller]
        if smaller < size:
            rng = generator(seed, "check", purpose, "control halves")
            third_halves = tuple(_halves(real.subject, pool, smaller, rng) for _ in range(NUM_CONTROL_HALVES))
    return EqualDraws(size, pool, pool[:size], orders[1][:size], halves, third, third_halves)


def _most_rows(sample: Sample) -> int:
    return int(np.unique(sample.subject, return_counts=True)[1].max(initial=1))


def _subject_order(sample: Sample, rng: np.random.Generator) -> Ints:
    """All rows, (rows,), the subjects in random order, the rows of each together."""
    _, number = np.unique(sample.subject, return_inverse=True)
    rank = rng.permutation(int(number.max(initial=-1)) + 1)
    return np.argsort(rank[number], kind="stable")


def _halves(subject: Ints, pool: Ints, size: int, rng: np.random.Generator) -> Pair:
    order = pool[_subject_order(Sample(np.zeros((len(pool), 0)), subject[pool]), rng)]
    first, rest = order[:size], order[size:]
    return first, rest[subject[rest] != subject[first[-1]]][:size]


def bootstrap_weights(subject: Ints, num_resamples: int, rng: np.random.Generator) -> Floats:
    """`subject_weights` in double precision, (1 + resamples, rows): values of rows are summed with them."""
    return subject_weights(subject, num_resamples, rng).astype(np.float64)


@dataclass(frozen=True)
class EqualValues:
    """A number for every comparison of an `EqualDraws`.

    Attributes:
        bootstrap: (1 + resamples,) twins with real, the number itself first.
        halves: (halves,) real with real.
        halves_bootstrap: (1 + resamples,) like `bootstrap`, of the first pair of halves.
        control: Control with real; None: there is none.
        control_halves: (halves,) real with real at the size of the control.
        scatter_scale: By how much more numbers of independent samples scatter than those of halves of one pool.
    """

    bootstrap: Floats
    halves: Floats
    halves_bootstrap: Floats
    control: float | None
    control_halves: Floats
    scatter_scale: float = 1.0

    def estimate(self, *, is_higher_better: bool = False, most: float = np.inf) -> Estimate:
        """The estimate with its interval and baseline.

        The bootstrap leaves the classifiers, or the neighbourhoods, as they are. How much more real-with-real values
        scatter, for which those are made anew, than it says of one of them, is the factor that the interval is widened
        by, at most `MAX_WIDENING`.

        The baseline's bound is one that a further real-with-real value stays within with 95 % probability, were they
        normally distributed: mean and Student's t times the standard deviation, as there are few. A control that is
        smaller than the other samples counts by how far it is from real-with-real values of its size.

        Args:
            is_higher_better: Whether the bound is a lower one.
            most: Largest value that is possible.
        """
        value = float(self.bootstrap[0])
        number, baseline = len(self.halves), float(np.mean(self.halves))
        scatter = float(np.std(self.halves, ddof=1)) * self.scatter_scale
        given = float(np.std(self.halves_bootstrap[1:]))
        factor = float(np.clip(scatter / given, 1, MAX_WIDENING)) if given > 0 else 1.0
        bounds = np.quantile(self.bootstrap[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low, high = np.clip(value + factor * (bounds - value), 0, most)
        spread = scatter * float(stats.t.ppf(LEVEL, number - 1)) * np.sqrt(1 + 1 / number)
        worst = baseline - spread if is_higher_better else baseline + spread
        control = None
        if self.control is not None:
            control = float(np.clip(self.control - np.mean(self.control_halves) + baseline, 0, most))
        return Estimate(
            value, min(float(low), value), max(float(high), value), baseline, float(np.clip(worst, 0, most)), control
        )


def one_thread() -> AbstractContextManager[Any]:
    """Holds numpy's and scikit-learn's loops to one thread: the last digits of a sum depend on how many share it."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def boosted_trees() -> Any:
    """Histogram gradient boosting, a classifier of scikit-learn for dense features; NaN is a value of its own."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60,
        max_leaf_nodes=8,
        min_samples_leaf=10,
        l2_regularization=1.0,
        max_bins=64,
        early_stopping=False,
        random_state=0,
    )


def logistic_regression() -> Any:
    """Logistic regression with a ridge penalty, a classifier of scikit-learn for many sparse features."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=100)


@dataclass(frozen=True)
class Fold:
    """One half of the rows, scored by a classifier that was fitted to the other half.

    Attributes:
        first, second: Places in the drawn rows of either side.
        model: The fitted classifier; larger scores speak for the second side.
        scores_first, scores_second: Its scores of those rows.
    """

    first: Ints
    second: Ints
    model: Any
    scores_first: Floats
    scores_second: Floats


def split_in_two(subject: Ints) -> Ints:
    """Fold 0 or 1 of each row, (rows,): the subjects that stand first hold half of the rows; none is in both.

    >>> split_in_two(np.array([7, 7, 3, 5])).tolist()
    [0, 0, 1, 1]
    """
    _, start, number = np.unique(subject, return_index=True, return_inverse=True)
    return np.asarray(start[number] >= len(subject) / 2, dtype=np.int64)


def cross_fit(first: Sample, second: Sample, classifier: Classifier) -> list[Fold] | None:
    """Scores of all rows from classifiers that saw none of their subjects, two folds.

    A logistic regression that has not converged in its iterations is a classifier like any other: how well it does is
    measured on rows that it did not see.

    Args:
        first: Rows of one side, subjects in random order.
        second: The same of the other.
        classifier: Makes one that is not fitted.

    Returns:
        None where a fold would lack one of the sides.
    """
    from sklearn.exceptions import ConvergenceWarning

    folds = split_in_two(first.subject), split_in_two(second.subject)
    if not all(0 < fold.sum() < len(fold) for fold in folds):
        return None
    found = []
    for number in (0, 1):
        rest = [np.flatnonzero(fold != number) for fold in folds]
        held = [np.flatnonzero(fold == number) for fold in folds]
        model = classifier()
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(
                _stack(first.features[rest[0]], second.features[rest[1]]),
                np.repeat([0, 1], [len(rest[0]), len(rest[1])]),
            )
            scores = [model.decision_function(side.features[rows])
                      for side, rows in zip((first, second), held, strict=True)]  # fmt: skip
        found.append(Fold(held[0], held[1], model, scores[0], scores[1]))
    return found


def _stack(first: Any, second: Any) -> Any:
    """Both sides' rows; a column without any number is 0, because scikit-learn finds no bins for it."""
    if sparse.issparse(first):
        return sparse.vstack([first, second], format="csr")
    rows = np.concatenate([first, second])
    rows[:, np.isnan(rows).all(axis=0)] = 0
    return rows


def weighted_auc(low: Floats, high: Floats, low_weights: Floats, high_weights: Floats) -> Floats:
    """Area under the ROC curve, (draws,): how often a score of `high` is above one of `low`, ties count half.

    Args:
        low: Scores, (rows,).
        high: Scores, (other rows,).
        low_weights: How often each row of `low` counts, (draws, rows).
        high_weights: How often each row of `high` counts, (draws, other rows).

    Source: Hanley & McNeil 1982, Radiology 143:29.

    >>> one = np.ones((1, 2))
    >>> weighted_auc(np.array([1.0, 2.0]), np.array([2.0, 3.0]), one, one).tolist()
    [0.875]
    """
    points, place = np.unique(np.concatenate([low, high]), return_inverse=True)
    shape = len(points), len(place)
    gather = sparse.csr_array((np.ones(len(place)), (place, np.arange(len(place)))), shape=shape)
    below = np.asarray((gather[:, : len(low)] @ low_weights.T).T)
    above = np.asarray((gather[:, len(low) :] @ high_weights.T).T)
    wins = ((np.cumsum(below, axis=1) - below / 2) * above).sum(axis=1)
    return np.asarray(wins / (below.sum(axis=1) * above.sum(axis=1)))


def cross_fitted_auc(folds: list[Fold], first_weights: Floats, second_weights: Floats) -> Floats:
    """Mean of the two folds' areas under the ROC curve, (draws,), from weights of the rows (draws, rows)."""
    areas = [
        weighted_auc(
            fold.scores_first, fold.scores_second, first_weights[:, fold.first], second_weights[:, fold.second]
        )
        for fold in folds
    ]
    return np.asarray(np.mean(areas, axis=0))


def c2st_measure(
    real: Sample,
    synthetic: Sample,
    control: Sample | None,
    *,
    family: str,
    title: str,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Measure:
    """Classifier two-sample test by boosted trees: `c2st.{family}`, the area under the ROC curve; 0.5 is ideal.

    Half of the subjects train, the other half is scored, and the reverse. Samples are of equal size, at most `MAX_ROWS`
    rows per side and at most half of the real ones. A value clearly below 0.5 is no success: it arises where the twins
    copy real rows, of which one lies in training and the other in the half that is scored.

    The interval is from resampling subjects of both sides, given the two classifiers, and widened for what they add
    (`EqualValues.estimate`). The baseline is the same test, classifiers and all, between `NUM_HALVES` pairs of disjoint
    real samples; the control is tested against real.

    Args:
        real: The reference, dense features; NaN is allowed.
        synthetic: The twins.
        control: Real rows unseen in training; None: there are none.
        family: Names the measure.
        title: What the rows are, in words.
        seed: Decides the draws.
        num_resamples: Of the bootstrap.

    Source: Lopez-Paz & Oquab 2017, ICLR; area instead of accuracy as in Friedman 2003, SLAC-PUB-10325.
    """
    sides = real, synthetic, control
    return _c2st(sides, boosted_trees, f"c2st.{family}", title, seed, num_resamples)


def linear_c2st_measure(
    real: Sample,
    synthetic: Sample,
    control: Sample | None,
    *,
    family: str,
    title: str,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Measure:
    """The same as `c2st_measure` by logistic regression, for many sparse features such as counts of words."""
    sides = real, synthetic, control
    return _c2st(sides, logistic_regression, f"c2st.{family}", title, seed, num_resamples)


Sides: TypeAlias = "tuple[Sample, Sample, Sample | None]"


def c2st_draws(real: Sample, synthetic: Sample, control: Sample | None, *, name: str, seed: int) -> EqualDraws | None:
    """The rows that the test of this name compares; None: too few."""
    return draw_equal(
        real, synthetic, control, max_rows=MAX_ROWS, num_halves=NUM_HALVES, seed=seed, purpose=name
    )  # fmt: skip


def rows_of(sample: Sample, rows: Ints) -> Sample:
    """Some rows of a sample, in that order."""
    return Sample(sample.features[rows], sample.subject[rows])


def _c2st(sides: Sides, classifier: Classifier, name: str, title: str, seed: int, num_resamples: int) -> Measure:
    real, synthetic, control = sides
    full_title = f"{title}: how well a classifier tells twins from real (area under ROC, 0.5: not at all)"
    draws = c2st_draws(real, synthetic, control, name=name, seed=seed)
    if draws is None:
        reason = f"a classifier needs {2 * MIN_ROWS} real and {MIN_ROWS} synthetic rows"
        return Measure(name, full_title, None, 0, "lower", reason, real.num_rows > 0)
    rng = generator(seed, "check", name, "bootstrap")

    def areas(first: Sample, second: Sample, num_resamples: int = 0) -> Floats:
        weights = [bootstrap_weights(side.subject, num_resamples, rng) for side in (first, second)]
        folds = cross_fit(first, second, classifier)
        return np.full(1 + num_resamples, np.nan) if folds is None else cross_fitted_auc(folds, *weights)

    def of_halves(pairs: tuple[Pair, ...]) -> Floats:
        return np.array([areas(rows_of(real, a), rows_of(real, b))[0] for a, b in pairs])

    bootstrap = areas(rows_of(real, draws.real), rows_of(synthetic, draws.synthetic), num_resamples)
    first = areas(rows_of(real, draws.halves[0][0]), rows_of(real, draws.halves[0][1]), num_resamples)
    halves = np.append(first[0], of_halves(draws.halves[1:]))
    if np.isnan([bootstrap[0], *halves]).any():
        return Measure(name, full_title, None, 0, "lower", "one subject has most of the rows")
    of_control, control_halves = None, halves
    if control is not None and draws.control is not None:
        of_control = float(areas(rows_of(real, draws.control[0]), rows_of(control, draws.control[1]))[0])
        if draws.control_halves is not draws.halves:
            control_halves = of_halves(draws.control_halves)
    values = EqualValues(bootstrap, halves, first, of_control, control_halves)
    return Measure(name, full_title, values.estimate(most=1.0), 2 * draws.size)
