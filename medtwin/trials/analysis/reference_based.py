"""Reference-based imputation after withdrawal from treatment, by conditional means of a repeated-measures model.

What is missing gets its expectation given what was seen of the subject; how means go on after withdrawal is an
assumption, such as that they jump to those of the reference arm. The effect is a linear function of the imputed values,
so that this one imputation gives the estimate that infinitely many random ones would; its variance comes from leaving
out one subject at a time, the imputation model fitted anew.

That variance is the one over repeated trials. Rubin's rules give a larger one here: random imputation takes from the
reference what it does not pay for (Seaman, White & Leacy 2014, Pharm Stat 13:12; in favour of Rubin's rules Cro,
Carpenter & Kenward 2019, J R Stat Soc A 182:623).

Source: Carpenter, Roger & Kenward 2013, J Biopharm Stat 23:1352; Wolbers et al. 2022, Pharm Stat 21:1246.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.follow_up import Bools, Floats, Ints, as_flags, as_level
from medtwin.trials.analysis.linear import linear_model
from medtwin.trials.analysis.mmrm import MMRM, Likelihood, newton_search
from medtwin.trials.analysis.results import Comparison

Strategy = Literal["missing_at_random", "jump_to_reference", "copy_reference", "copy_increments"]
_MOST_STEPS = 40


@dataclass(frozen=True)
class RepeatedOutcome:
    """Measurements of subjects at visits after the start, and what they are regressed on.

    Attributes:
        response: (subjects, visits), nan where it is missing.
        experimental: (subjects,) whether a subject is in the experimental arm; the others are the reference.
        covariates: (subjects, columns) at baseline, complete, such as the baseline value; (subjects, 0) of none.
        withdrawal: (subjects,) place of the first visit after withdrawal from treatment, from 0; the number of visits
            for whoever did not withdraw. What is missing before it is missing at random.

    Raises:
        ValueError: If shapes differ, covariates are missing, an arm has nobody, a withdrawal is no place, or something
            was measured after it.
    """

    response: Floats
    experimental: Bools
    covariates: Floats
    withdrawal: Ints

    def __post_init__(self) -> None:
        y, z = self.response, self.covariates
        if y.ndim != 2 or z.ndim != 2 or len(y) != len(z):
            raise ValueError(f"response and covariates must be of the same subjects, got {y.shape!r} and {z.shape!r}")
        if np.isinf(y).any():
            raise ValueError("response must be finite, or nan where it is missing, got an infinite one")
        if not np.isfinite(z).all():
            raise ValueError("covariates must be finite, got missing ones")
        if not 0 < self.experimental.sum() < len(y):
            raise ValueError("experimental must name subjects of both arms, got one arm")
        if self.withdrawal.shape != (len(y),) or not np.isin(self.withdrawal, np.arange(y.shape[1] + 1)).all():
            raise ValueError(f"withdrawal must be a visit from 0 to {y.shape[1]} for each of {len(y)} subjects")
        if (self.has_left & ~np.isnan(y)).any():
            raise ValueError("response must be missing from the withdrawal on, got measurements after it")

    @classmethod
    def of(
        cls,
        response: ArrayLike,
        experimental: ArrayLike,
        covariates: ArrayLike | None = None,
        *,
        withdrawal: ArrayLike | None = None,
    ) -> RepeatedOutcome:
        """From anything like arrays; see the attributes.

        Args:
            response: (subjects, visits).
            experimental: (subjects,) 0 or 1.
            covariates: (subjects, columns), or (subjects,) for one; None: none.
            withdrawal: (subjects,); None: everybody withdraws after the last measurement.

        Raises:
            ValueError: See the class.
        """
        y = np.asarray(response, dtype=np.float64)
        if y.ndim != 2:
            raise ValueError(f"response must be (subjects, visits), got a shape of {y.shape!r}")
        z = np.zeros((len(y), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
        seen = ~np.isnan(y)
        last = np.where(seen.any(axis=1), y.shape[1] - np.argmax(seen[:, ::-1], axis=1), 0)
        left = last if withdrawal is None else np.asarray(withdrawal)
        return cls(y, as_flags("experimental", experimental, len(y)), z[:, None] if z.ndim == 1 else z, left)

    @property
    def has_left(self) -> Bools:
        """Whether a subject has withdrawn by a visit, (subjects, visits)."""
        return np.asarray(np.arange(self.response.shape[1]) >= self.withdrawal[:, None])

    def without(self, subject: int) -> RepeatedOutcome:
        """All but one subject, by its place."""
        keep = np.arange(len(self.response)) != subject
        return RepeatedOutcome(
            self.response[keep], self.experimental[keep], self.covariates[keep], self.withdrawal[keep]
        )

    def design(self, experimental: Bools) -> Floats:
        """Arm and covariates by visit as if subjects were in such arms, (subjects, visits, columns)."""
        n, m = self.response.shape
        row = np.column_stack([np.ones(n), experimental, self.covariates])
        return np.asarray(np.einsum("ic,vw->ivcw", row, np.eye(m)).reshape(n, m, -1))

    def likelihood(self, model: MMRM) -> tuple[Likelihood, Floats]:
        """Of what was seen, and parameters to search from; see `MMRM.likelihood`."""
        seen = ~np.isnan(self.response)
        return model.likelihood(self.response[seen], self.design(self.experimental)[seen], *np.nonzero(seen))

    def means(self, coefficients: Floats, strategy: Strategy) -> Floats:
        """The means that a strategy takes for each subject, (subjects, visits)."""
        own = self.design(self.experimental) @ coefficients
        reference = self.design(np.zeros(len(own), dtype=bool)) @ coefficients
        left: Bools = self.has_left
        match strategy:
            case "missing_at_random":
                return own
            case "jump_to_reference":
                return np.where(left, reference, own)
            case "copy_reference":
                return np.where(left.any(axis=1, keepdims=True), reference, own)
            case "copy_increments":
                before = np.maximum(self.withdrawal - 1, 0)
                gap = np.where(self.withdrawal > 0, (own - reference)[np.arange(len(own)), before], 0.0)
                return np.where(left, reference + gap[:, None], own)

    def imputed(self, means: Floats, covariance: Floats) -> Floats:
        """The response with its expectations given what was seen of the subject, (subjects, visits)."""
        found, seen = self.response.copy(), ~np.isnan(self.response)
        for pattern in np.unique(seen, axis=0):
            rows = np.flatnonzero((seen == pattern).all(axis=1))
            slopes = np.linalg.solve(covariance[np.ix_(pattern, pattern)], covariance[np.ix_(pattern, ~pattern)])
            rest = self.response[np.ix_(rows, pattern)] - means[np.ix_(rows, pattern)]
            found[np.ix_(rows, ~pattern)] = means[np.ix_(rows, ~pattern)] + rest @ slopes
        return found


def conditional_means(outcome: RepeatedOutcome, strategy: Strategy, model: MMRM | None = None) -> Floats:
    """The measurements with their expectations where they are missing, (subjects, visits).

    Args:
        outcome: What was measured.
        strategy: How the means of the experimental arm go on after withdrawal. missing_at_random: as those of the
            arm; jump_to_reference: as the reference's; copy_reference: as if the subject had been in the reference all
            along; copy_increments: in parallel to the reference's, from the last visit before withdrawal.
        model: Of the measurements, which are regressed on arm and covariates at each visit, with a covariance that the
            arms share; None: unstructured, by residual likelihood.

    Raises:
        ValueError: If the strategy is not known, or as of `MMRM.fit`, for instance for a visit that an arm never has.
    """
    _check(strategy)
    likelihood, start = outcome.likelihood(model or MMRM())
    return _imputed(outcome, strategy, likelihood, (model or MMRM()).search(likelihood, start))


def reference_based_effect(
    outcome: RepeatedOutcome, strategy: Strategy, *, model: MMRM | None = None, visit: int = -1, level: float = 0.95
) -> Comparison:
    """The difference experimental - reference at a visit, adjusted for the covariates, with jackknife standard error.

    Args:
        outcome: What was measured.
        strategy: See `conditional_means`.
        model: See `conditional_means`.
        visit: Its place.
        level: Of the limits.

    Raises:
        ValueError: As of `conditional_means`, also where a subject is left out; or if the visit is no place or the
            level does not lie between 0 and 1.

    >>> y = [[1, 4], [2, 6], [1, 5], [1, 9], [3, None], [2, 12], [1, 10]]
    >>> outcome = RepeatedOutcome.of(y, [0, 0, 0, 1, 1, 1, 1])
    >>> for strategy in ("missing_at_random", "jump_to_reference"):
    ...     reference_based_effect(outcome, strategy).estimate.__round__(3)
    6.167
    4.625
    """
    _check(strategy)
    as_level("level", level)
    m = outcome.response.shape[1]
    if not -m <= visit < m:
        raise ValueError(f"visit must be a place among {m}, got {visit!r}")
    likelihood, start = outcome.likelihood(model or MMRM())
    theta = (model or MMRM()).search(likelihood, start)
    estimate = _difference(outcome, _imputed(outcome, strategy, likelihood, theta)[:, visit])
    others = np.array([_difference(some, y[:, visit]) for some, y in _left_out(outcome, strategy, model, theta)])
    return Comparison.of_difference(estimate, math.sqrt((len(others) - 1) * float(others.var())), level)


def _check(strategy: str) -> None:
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy must be one of {get_args(Strategy)}, got {strategy!r}")


def _imputed(outcome: RepeatedOutcome, strategy: Strategy, likelihood: Likelihood, theta: Floats) -> Floats:
    coefficients, _, _ = likelihood.coefficients(likelihood.weights(theta))
    return outcome.imputed(outcome.means(coefficients, strategy), likelihood.covariances(theta)[0])


def _difference(outcome: RepeatedOutcome, values: Floats) -> float:
    """By analysis of covariance."""
    x = np.column_stack([np.ones(len(values)), outcome.experimental, outcome.covariates])
    return float(linear_model(values, x).coefficients[1])


def _left_out(
    outcome: RepeatedOutcome, strategy: Strategy, model: MMRM | None, theta: Floats
) -> Iterator[tuple[RepeatedOutcome, Floats]]:
    """The outcome without each subject, and its measurements imputed anew."""
    bend = np.asarray(np.linalg.inv(outcome.likelihood(model or MMRM())[0].hessian(theta)), dtype=np.float64)
    for subject in range(len(outcome.response)):
        some = outcome.without(subject)
        likelihood, start = some.likelihood(model or MMRM())
        yield some, _imputed(some, strategy, likelihood, _nearby(likelihood, theta, bend, start))


def _nearby(likelihood: Likelihood, theta: Floats, inverse_hessian: Floats, start: Floats) -> Floats:
    """The maximum near that of nearly the same data, by steps with its Hessian; from the start if they do not end."""
    near = theta
    for _ in range(_MOST_STEPS):
        value, gradient = likelihood.negative(near)
        if not np.isfinite(value):
            break
        if np.abs(gradient).max() < 1e-7:
            return near
        near = near - inverse_hessian @ gradient
    return newton_search(likelihood, start)
