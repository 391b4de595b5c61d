"""What the looks of trials with an endpoint that is read once may be analysed by, many trials at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.batched.ancova import analyses_of_covariance
from medtwin.trials.analysis.batched.glm import logistic_models
from medtwin.trials.analysis.batched.rates import Counts, miettinen_nurminen_z
from medtwin.trials.analysis.batched.standardised_risks import augmented_risks
from medtwin.trials.analysis.batched.t_tests import pooled_t_tests
from medtwin.trials.outcome.response import SCORE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Compared(Protocol):
    """The arms of many trials, compared."""

    @property
    def estimate(self) -> Floats:
        """Experimental less control, (trials,); nan where there is none."""
        ...

    def z(self, null: float = 0.0) -> Floats:
        """The normal statistic of the one-sided p value that the difference is above the null, (trials,); or nan."""
        ...


class ResponseTest(Protocol):
    """A test of the difference between the arms."""

    @property
    def covariates(self) -> Sequence[str]:
        """What it adjusts for, by name."""
        ...

    @property
    def is_binary(self) -> bool:
        """Whether it is of rates; else of means."""
        ...

    @property
    def description(self) -> str:
        """In words."""
        ...

    def compare(self, response: Floats, arm: Bools, observed: Bools, covariates: Floats) -> Compared:
        """The comparison of every trial.

        Args:
            response: (trials, patients); what it is of those who are not observed does not matter.
            arm: (trials, patients) whether in the experimental arm.
            observed: (trials, patients) who is analysed; at least two in each arm of every trial.
            covariates: (trials, patients, covariates) standardised.

        Raises:
            ValueError: If a trial cannot be analysed so.
        """
        ...


@dataclass(frozen=True)
class StudentTest:
    """Student's test of two means."""

    @property
    def covariates(self) -> Sequence[str]:
        """None."""
        return ()

    @property
    def is_binary(self) -> bool:
        """No."""
        return False

    @property
    def description(self) -> str:
        """In words."""
        return "Student's t test"

    def compare(self, response: Floats, arm: Bools, observed: Bools, covariates: Floats) -> Compared:
        """The comparison of every trial; see `ResponseTest`."""
        return pooled_t_tests(response, arm, observed=observed)


@dataclass(frozen=True)
class CovarianceAnalysis:
    """The analysis of covariance, of errors of one variance.

    Attributes:
        covariates: `score` (the prognostic score), `stratum` (sex), or a baseline covariate of the cohort.

    Raises:
        ValueError: If there are none, or one stands twice.
    """

    covariates: Sequence[str] = (SCORE,)

    def __post_init__(self) -> None:
        _check_covariates(self.covariates)

    @property
    def is_binary(self) -> bool:
        """No."""
        return False

    @property
    def description(self) -> str:
        """In words."""
        return f"Analysis of covariance adjusted for {', '.join(self.covariates)}"

    def compare(self, response: Floats, arm: Bools, observed: Bools, covariates: Floats) -> Compared:
        """The comparison of every trial; see `ResponseTest`."""
        return analyses_of_covariance(response, arm, covariates, observed=observed)


@dataclass(frozen=True)
class RateComparison:
    """Two rates of every trial, by Miettinen and Nurminen's score test of their difference."""

    counts: Counts

    @property
    def estimate(self) -> Floats:
        """Experimental less control, (trials,)."""
        experimental, control = self.counts.rates
        return experimental - control

    def z(self, null: float = 0.0) -> Floats:
        """The score statistic, (trials,)."""
        return miettinen_nurminen_z(self.counts, null)


@dataclass(frozen=True)
class ScoreTestOfRates:
    """Miettinen and Nurminen's test of the difference of two rates."""

    @property
    def covariates(self) -> Sequence[str]:
        """None."""
        return ()

    @property
    def is_binary(self) -> bool:
        """Yes."""
        return True

    @property
    def description(self) -> str:
        """In words."""
        return "Miettinen and Nurminen's test of the difference of rates"

    def compare(self, response: Floats, arm: Bools, observed: Bools, covariates: Floats) -> Compared:
        """The comparison of every trial; see `ResponseTest`."""
        return RateComparison(Counts.of_patients(response, arm, observed=observed))


@dataclass(frozen=True)
class StandardisedRates:
    """A logistic model whose predictions are averaged over the trial's patients: g-computation, Wald's test.

    Attributes:
        covariates: `score` (the prognostic score), `stratum` (sex), or a baseline covariate of the cohort.

    Raises:
        ValueError: If there are none, or one stands twice.

    Source: Ye et al. 2023, Stat Biosci 15:321.
    """

    covariates: Sequence[str] = (SCORE,)

    def __post_init__(self) -> None:
        _check_covariates(self.covariates)

    @property
    def is_binary(self) -> bool:
        """Yes."""
        return True

    @property
    def description(self) -> str:
        """In words."""
        return f"Difference of rates standardised by a logistic model of {', '.join(self.covariates)}"

    def compare(self, response: Floats, arm: Bools, observed: Bools, covariates: Floats) -> Compared:
        """The comparison of every trial; see `ResponseTest`."""
        return augmented_risks(logistic_models(response, arm, covariates, observed=observed)).difference()


def _check_covariates(covariates: Sequence[str]) -> None:
    if isinstance(covariates, str) or not covariates or len(set(covariates)) < len(covariates):
        raise ValueError(f"covariates must be a list of different names, got {covariates!r}")


@dataclass(frozen=True)
class Found:
    """What the looks of some trials found, (trials,) each; nan where a trial could not be analysed.

    Attributes:
        estimate: Experimental less control. z: Against the null. z_truth: Against the true difference.
    """

    estimate: Floats
    z: Floats
    z_truth: Floats


def analyse(
    test: ResponseTest,
    data: tuple[Floats, Ints, Bools, Floats],
    null: float,
    truth: float,
) -> Found:
    """The analysis of every trial; those in which it cannot be done, such as one with an empty arm, find nothing.

    Args:
        test: How.
        data: Response, arm, who is observed, (trials, patients) each, and covariates, (trials, patients, covariates).
        null: Difference under the null.
        truth: The true difference.
    """
    response, arm, observed, covariates = data
    is_experimental = arm == 1
    found = np.full((3, len(arm)), np.nan)
    least = 2 + covariates.shape[2]
    counts = [(observed & here).sum(axis=1) for here in (is_experimental, ~is_experimental)]
    rows = np.flatnonzero(np.minimum(*counts) >= least)

    def compare(some: Ints) -> Compared:
        return test.compare(response[some], is_experimental[some], observed[some], covariates[some])

    _fill(found, rows, compare, null, truth)
    return Found(*found)


def _fill(found: Floats, rows: Ints, compare: Callable[[Ints], Compared], null: float, truth: float) -> None:
    """Writes what some trials found, halving them where one of them cannot be analysed."""
    if not len(rows):
        return
    try:
        each = compare(rows)
    except ValueError:
        if len(rows) > 1:
            half = len(rows) // 2
            _fill(found, rows[:half], compare, null, truth)
            _fill(found, rows[half:], compare, null, truth)
        return
    found[:, rows] = each.estimate, each.z(null), each.z(truth)
