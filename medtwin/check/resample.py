"""Resampling of whole subjects: intervals by bootstrap, baselines by random halves. All of it is matrix products.

A measure is a distance between weighted sums over subjects: features (subjects, numbers) times weights (draws,
subjects) give sums (draws, numbers), and a distance turns two of those into (draws,) values. The first draw weighs
everybody once: the estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medtwin.check.estimates import LEVEL, Estimate
from medtwin.core.seeds import generator

NUM_RESAMPLES = 200
NUM_HALVES = 100
MIN_CONTROL = 30
"""Control subjects below which the control's own distance says nothing beside its noise."""

Weights = NDArray[np.float32]
Features: TypeAlias = "NDArray[np.floating[Any]] | sparse.csr_array"
Sums = NDArray[np.float64]
Distance = Callable[[Sums, Sums], NDArray[np.float64]]


@dataclass(frozen=True)
class Plan:
    """How subjects are drawn: the same draws for every measure of the same subjects.

    Attributes:
        real, synthetic: (1 + resamples, subjects) how often each subject is drawn; ones in the first row.
        half_a, half_b: (halves, real subjects) 0 or 1; each row splits the real subjects in two.
        half_scale: Turns a distance between halves into one between samples of the actual sizes, where a distance of
            two samples of one law falls with the square root of 1/n + 1/m.
        control_scale: The same for the control against train; None: too few.
    """

    real: Weights
    synthetic: Weights
    half_a: Weights
    half_b: Weights
    half_scale: float
    control_scale: float | None = None


def make_plan(
    num_real: int,
    num_synthetic: int,
    num_control: int,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    purpose: str = "subjects",
) -> Plan:
    """Draws the plan.

    Args:
        num_real: Subjects of the reference, at least 2.
        num_synthetic: Twins, at least 1.
        num_control: Real subjects unseen in training; 0 or more.
        seed: Decides the draws, with `purpose`.
        num_resamples: Of the bootstrap.
        purpose: Names the set of subjects, so that different sets have draws of their own.

    Raises:
        ValueError: If there are fewer than 2 real subjects, or no synthetic one.
    """
    if num_real < 2 or num_synthetic < 1:
        raise ValueError(f"a plan needs 2 real subjects and a synthetic one, got {num_real} and {num_synthetic}")
    rng = generator(seed, "check", purpose)
    halves = np.zeros((NUM_HALVES, num_real), np.float32)
    for row in halves:
        row[rng.permutation(num_real)[: num_real // 2]] = 1
    noise = 1 / num_real + 1 / num_synthetic
    sizes = num_real // 2, num_real - num_real // 2
    has_control = num_control >= MIN_CONTROL
    return Plan(
        _bootstrap(rng, num_real, num_resamples),
        _bootstrap(rng, num_synthetic, num_resamples),
        halves,
        1 - halves,
        float(np.sqrt(noise / (1 / sizes[0] + 1 / sizes[1]))),
        float(np.sqrt(noise / (1 / num_real + 1 / num_control))) if has_control else None,
    )


def _bootstrap(rng: np.random.Generator, num_subjects: int, num_resamples: int) -> Weights:
    weights = np.ones((1 + num_resamples, num_subjects), np.float32)
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(num_subjects, size=num_subjects), minlength=num_subjects)
    return weights


def subject_weights(subject: NDArray[np.int64], num_resamples: int, rng: np.random.Generator) -> Weights:
    """How often each row is drawn when whole subjects are, (1 + resamples, rows); ones in the first row.

    Args:
        subject: Of each row, (rows,).
        num_resamples: How many draws.
        rng: Decides them.
    """
    _, place = np.unique(subject, return_inverse=True)
    return _bootstrap(rng, int(place.max(initial=-1)) + 1, num_resamples)[:, place]


def weighted_sums(weights: Weights, features: Features) -> Sums:
    """Sums of the features over subjects, (draws, numbers)."""
    if sparse.issparse(features):
        product: Sums = np.asarray((features.T @ weights.T).T, dtype=np.float64)
        return product
    return np.asarray(weights @ features, dtype=np.float64)


@dataclass(frozen=True)
class Draws:
    """A distance for every draw; averages of several are draws again."""

    bootstrap: NDArray[np.float64]
    halves: NDArray[np.float64]
    control: float | None

    def estimate(self, plan: Plan, *, power: float = 1.0) -> Estimate:
        """The estimate with its interval and baseline.

        The interval is the percentile interval of the bootstrap, shifted so that its middle is the estimate: resampling
        adds noise of its own to a distance, which would push the interval above the estimate.

        Args:
            plan: Whose draws they are.
            power: How the distance falls with the noise: 1 like a difference, 2 like a squared one, 0 not at all.
        """
        value = float(self.bootstrap[0])
        spread = self.bootstrap[1:] - np.median(self.bootstrap[1:])
        low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + value
        halves = self.halves * plan.half_scale**power
        control = None
        if self.control is not None and plan.control_scale is not None:
            control = self.control * plan.control_scale**power
        is_distance = bool(np.all(self.bootstrap >= 0))
        low = max(float(low), 0.0) if is_distance else float(low)
        return Estimate(value, low, float(high), float(np.mean(halves)), float(np.quantile(halves, LEVEL)), control)


def compare(plan: Plan, real: Features, synthetic: Features, control: Features | None, distance: Distance) -> Draws:
    """The distance between the sums of two sides, for every draw.

    Args:
        plan: How subjects are drawn.
        real: (subjects, numbers) features of the reference.
        synthetic: The same of the twins.
        control: The same of the control; None: there is none.
        distance: Of sums (draws, numbers) and (draws, numbers), or one row of either; gives (draws,).
    """
    bootstrap = distance(weighted_sums(plan.real, real), weighted_sums(plan.synthetic, synthetic))
    halves = distance(weighted_sums(plan.half_a, real), weighted_sums(plan.half_b, real))
    of_control = None
    if control is not None and plan.control_scale is not None:
        everybody = np.ones((1, control.shape[0]), np.float32)
        of_control = float(distance(weighted_sums(plan.real[:1], real), weighted_sums(everybody, control))[0])
    return Draws(bootstrap, halves, of_control)


def average(draws: Sequence[Draws], weights: Sequence[float] | None = None) -> Draws:
    """The mean of several distances, draw by draw.

    Raises:
        ValueError: If there is none.
    """
    if not draws:
        raise ValueError("average needs at least one distance")
    share = np.asarray(weights if weights is not None else np.ones(len(draws)), dtype=np.float64)
    share = share / share.sum()
    controls = [one.control for one in draws if one.control is not None]
    return Draws(
        np.tensordot(share, np.stack([one.bootstrap for one in draws]), 1),
        np.tensordot(share, np.stack([one.halves for one in draws]), 1),
        float(np.dot(share, controls)) if len(controls) == len(draws) else None,
    )


def worst(draws: Sequence[Draws]) -> Draws:
    """The largest of several distances, draw by draw; the control's, of those that it has."""
    controls = [one.control for one in draws if one.control is not None]
    return Draws(
        np.max([one.bootstrap for one in draws], axis=0),
        np.max([one.halves for one in draws], axis=0),
        max(controls) if controls else None,
    )
