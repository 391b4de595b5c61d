"""Endpoints that are read once, some months after randomisation: a number, or yes and no; and whose they are.

A patient has one source of chance for both arms, so that the response under either arm is that of the same patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri

from medtwin.trials.outcome.endpoint import Endpoint
from medtwin.trials.population.criteria import Baseline

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SCORE = "score"
"""The prognostic score's name, among covariates and factors."""
_MOST_LOG_ODDS = 40.0


@dataclass(frozen=True)
class ResponsePool:
    """From whom the patients of simulated trials are drawn, with replacement.

    Attributes:
        score: (pool,) prognostic score, standardised: mean 0, and standard deviation 1 where it says anything.
        stratum: (pool,) for stratified randomisation, from 0.
        baseline: Their covariates, in the same order; None for a parametric pool.
    """

    score: Floats
    stratum: Ints
    baseline: Baseline | None = None

    @staticmethod
    def parametric(size: int = 1000) -> ResponsePool:
        """Normal scores at equally likely quantiles, in two strata that know nothing of them."""
        score = ndtri((np.arange(size) + 0.5) / size)
        return ResponsePool(score / score.std(), (np.arange(size) // 2) % 2)

    @staticmethod
    def of(score: Floats, stratum: Ints, baseline: Baseline) -> ResponsePool:
        """Subjects of a cohort with any scores."""
        spread = float(score.std())
        return ResponsePool((score - score.mean()) / (spread if spread > 1e-12 else 1.0), stratum, baseline)

    @cached_property
    def numbers(self) -> dict[str, Floats]:
        """What may be adjusted for, by name: (pool,) standardised values, a missing one at the median."""
        found = {SCORE: self.score, "stratum": _standardised(self.stratum.astype(np.float64))}
        if self.baseline is not None:
            columns = self.baseline.imputed().T
            found |= {name: _standardised(each) for name, each in zip(self.baseline.names, columns, strict=True)}
        return found

    def columns(self, names: Sequence[str]) -> Floats:
        """Some of the `numbers` side by side, (pool, names).

        Raises:
            ValueError: If it does not know one.
        """
        if missing := [name for name in names if name not in self.numbers]:
            raise ValueError(f"covariates must be among {', '.join(self.numbers)}, got {missing[0]!r}")
        found = [self.numbers[name] for name in names]
        return np.stack(found, axis=1) if found else np.zeros((len(self.score), 0))


def _standardised(values: Floats) -> Floats:
    spread = float(values.std())
    return np.asarray((values - values.mean()) / (spread if spread > 1e-12 else 1.0))


class Response(Protocol):
    """An endpoint that is read once, with what is assumed of it."""

    @property
    def name(self) -> str:
        """In words."""
        ...

    @property
    def months(self) -> float:
        """From randomisation to its reading."""
        ...

    @property
    def effect(self) -> float:
        """Under the alternative, experimental less control."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is to be wished for."""
        ...

    @property
    def record(self) -> Reading | Endpoint | None:
        """Where a cohort has it."""
        ...

    @property
    def description(self) -> str:
        """What is assumed of it, in words."""
        ...

    def check_effect(self, effect: float) -> None:
        """Refuses a difference that cannot be.

        Raises:
            ValueError: If there is none.
        """
        ...

    def expected(self, score: Floats, effect: float) -> Floats:
        """What is expected of each patient of a pool in the control and the experimental arm, (2, pool).

        Args:
            score: (pool,) prognostic score.
            effect: Experimental less control, of the means over the pool.
        """
        ...

    def drawn(self, expected: Floats, uniform: Floats) -> Floats:
        """Responses, in the shape of what is expected of each patient and of their numbers in (0, 1)."""
        ...


@dataclass(frozen=True)
class Reading:
    """A number of a cohort's record: the value nearest to the month at which the endpoint is read.

    Attributes:
        codes: `SYSTEM//code`. unit: UCUM, to which values are converted; None: as they stand.
        window_days: How far from that month it may lie.

    Raises:
        ValueError: If there are no codes, or the window is negative.
    """

    codes: Sequence[str]
    unit: str | None = None
    window_days: int = 90

    def __post_init__(self) -> None:
        if isinstance(self.codes, str) or not self.codes:
            raise ValueError(f"codes must be a list of SYSTEM//code, got {self.codes!r}")
        if self.window_days < 0:
            raise ValueError(f"window_days must be 0 or more, got {self.window_days!r}")


@dataclass(frozen=True)
class ContinuousResponse:
    """A number, normal given the prognostic score; the treatment adds the same to everybody.

    Attributes:
        name: In words. months: From randomisation to its reading, 0 or more.
        effect: Under the alternative, experimental less control, in the unit of the number.
        sd: Of the number within an arm. mean: In the control arm.
        correlation: Of the prognostic score with the number, within an arm.
        higher_is_better: Whether more of it is to be wished for.
        record: Where a cohort has it; then mean, sd and correlation are the cohort's. None: they are those stated.

    Raises:
        ValueError: If a number is out of its range.
    """

    name: str
    months: float
    effect: float
    sd: float
    mean: float = 0.0
    correlation: float = 0.0
    higher_is_better: bool = True
    record: Reading | None = None

    def __post_init__(self) -> None:
        _check_months(self.months)
        if not (self.sd > 0 and math.isfinite(self.sd)):
            raise ValueError(f"sd must be above 0, got {self.sd!r}")
        if not -1 < self.correlation < 1:
            raise ValueError(f"correlation must be between -1 and 1, got {self.correlation!r}")
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean!r}")
        self.check_effect(self.effect)

    @property
    def description(self) -> str:
        """What is assumed of it, in words."""
        text = f"mean {self.mean:.4g} and standard deviation {self.sd:.4g} in the control arm"
        return f"{text}, correlation {self.correlation:.3g} with a prognostic score" if self.correlation else text

    def check_effect(self, effect: float) -> None:
        """Refuses a difference that cannot be.

        Raises:
            ValueError: Unless it is finite.
        """
        if not math.isfinite(effect):
            raise ValueError(f"effect must be finite, got {effect!r}")

    def expected(self, score: Floats, effect: float) -> Floats:
        """What is expected of each patient of a pool in the control and the experimental arm, (2, pool)."""
        control = self.mean + self.sd * self.correlation * score
        return np.stack([control, control + effect])

    def drawn(self, expected: Floats, uniform: Floats) -> Floats:
        """Responses; see `Response`."""
        return np.asarray(expected + self.sd * math.sqrt(1 - self.correlation**2) * ndtri(uniform))


@dataclass(frozen=True)
class BinaryResponse:
    """Yes or no; log odds differ between patients by the prognostic score, the treatment adds the same to all of them.

    Attributes:
        name: In words. months: From randomisation to its reading, 0 or more.
        control: Rate in the control arm, all patients of the pool together.
        effect: Under the alternative, experimental less control rate.
        prognostic_sd: Standard deviation of the log odds between patients.
        higher_is_better: Whether yes is to be wished for.
        record: Where a cohort has it: whether the endpoint comes within the months. Then the control rate and the
            prognosis are the cohort's. None: they are those stated.

    Raises:
        ValueError: If a number is out of its range, or a rate is no rate.
    """

    name: str
    months: float
    control: float
    effect: float
    prognostic_sd: float = 0.0
    higher_is_better: bool = True
    record: Endpoint | None = None

    def __post_init__(self) -> None:
        _check_months(self.months)
        if not 0 < self.control < 1:
            raise ValueError(f"control must be a rate between 0 and 1, got {self.control!r}")
        if not 0 <= self.prognostic_sd < math.inf:
            raise ValueError(f"prognostic_sd must be 0 or more, got {self.prognostic_sd!r}")
        self.check_effect(self.effect)

    @property
    def description(self) -> str:
        """What is assumed of it, in words."""
        text = f"a rate of {self.control:.3g} in the control arm"
        spread = f", log odds with standard deviation {self.prognostic_sd:.3g} between patients"
        return text + spread if self.prognostic_sd else text

    def check_effect(self, effect: float) -> None:
        """Refuses a difference that cannot be.

        Raises:
            ValueError: Unless the rate of the experimental arm lies between 0 and 1.
        """
        if not 0 < self.control + effect < 1:
            raise ValueError(
                f"effect must leave a rate between 0 and 1 beside the control rate {self.control:g}, got {effect!r}"
            )

    def expected(self, score: Floats, effect: float) -> Floats:
        """Each one's rate in the control and the experimental arm, (2, pool); their means are as stated.

        Raises:
            ValueError: As `check_effect`.
        """
        self.check_effect(effect)
        spread = self.prognostic_sd * score
        return np.stack([expit(spread + _level(spread, rate)) for rate in (self.control, self.control + effect)])

    def drawn(self, expected: Floats, uniform: Floats) -> Floats:
        """Responses, 1 for yes; see `Response`."""
        return np.asarray(uniform < expected, dtype=np.float64)


def _check_months(months: float) -> None:
    if not 0 <= months < math.inf:
        raise ValueError(f"months must be 0 or more, got {months!r}")


def _level(spread: Floats, rate: float) -> float:
    """The log odds at score 0 with which the mean rate is as wanted."""
    if not spread.any():
        return float(logit(rate))
    return float(brentq(lambda a: float(expit(spread + a).mean()) - rate, -_MOST_LOG_ODDS, _MOST_LOG_ODDS, xtol=1e-12))
