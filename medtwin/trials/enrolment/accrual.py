"""When and where patients come: rates by site, pauses, screening. Time is in calendar months of the trial.

Patients enter screening as a Poisson process with the sum of the sites' rates. Each is suitable with the same
probability, so those who are form a Poisson process too, and a suitable patient's site follows the sites' rates at that
time (Kingman 1993, Poisson Processes, sections 5.1 and 2.2). A screening lag passes until randomisation. Screening ends
with as many suitable patients as the trial wants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.enrolment.draws import TrialDraws

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_LAG_STEPS = 40


def ramped_rate(num_subjects: float, months: float, ramp_months: float = 0.0) -> PiecewiseRate:
    """Patients per month so that `num_subjects` are expected by `months`, rising in three steps over the ramp.

    Args:
        num_subjects: Patients in all.
        months: Duration of enrolment.
        ramp_months: Until the full rate; 0: at once.

    Raises:
        ValueError: If the duration is not positive or the ramp is longer than it.

    >>> ramped_rate(100, 10).rates
    (10.0,)
    """
    if not months > 0 or not 0 <= ramp_months <= months:
        raise ValueError(f"accrual must last above 0 months, its ramp at most as long, got {months!r}, {ramp_months!r}")
    if ramp_months == 0:
        return PiecewiseRate((0.0,), (num_subjects / months,))
    full = num_subjects / (months - ramp_months / 2)
    third = ramp_months / 3
    return PiecewiseRate(
        (0.0, third, 2 * third, ramp_months), tuple(full * share for share in (1 / 6, 3 / 6, 5 / 6, 1))
    )


def poisson_arrivals(generator: np.random.Generator, shape: tuple[int, int], enroll_rate: PiecewiseRate) -> Floats:
    """Calendar months of arrival of a Poisson process with this rate, (trials, patients), increasing.

    Raises:
        ValueError: If nobody is wanted, or the rate ends before so many are expected.
    """
    _check_enough(shape[1], enroll_rate)
    return enroll_rate.time_at(np.cumsum(generator.standard_exponential(shape), axis=1))


def even_arrivals(num_subjects: int, enroll_rate: PiecewiseRate) -> Floats:
    """Calendar months, (patients,), at which the integrated rate reaches 1, 2, ...: arrival without chance.

    Raises:
        ValueError: If nobody is wanted, or the rate ends before so many have come.

    >>> even_arrivals(3, PiecewiseRate((0.0, 2.0), (0.5, 4.0))).tolist()
    [2.0, 2.25, 2.5]
    """
    _check_enough(num_subjects, enroll_rate)
    return enroll_rate.time_at(np.minimum(np.arange(1.0, num_subjects + 1), _ever(enroll_rate)))


def _ever(enroll_rate: PiecewiseRate) -> float:
    """How many patients are expected in all."""
    return float(enroll_rate.cumulative(enroll_rate.starts[-1])) if enroll_rate.rates[-1] == 0 else math.inf


def _check_enough(num_subjects: float, enroll_rate: PiecewiseRate) -> None:
    """Refuses a trial of nobody, and one whose patients can never all come."""
    if not num_subjects >= 1:
        raise ValueError(f"num_subjects must be 1 or more, got {num_subjects!r}")
    ever = _ever(enroll_rate)
    if ever < num_subjects * (1 - 1e-12):
        raise ValueError(f"num_subjects must be at most the {ever:g} who can ever be enrolled, got {num_subjects:g}")


class Lag(Protocol):
    """How long screening takes."""

    def quantile(self, probability: ArrayLike) -> Floats:
        """The months by which so large a share has been screened."""
        ...


@dataclass(frozen=True)
class UniformLag:
    """A screening lag between two numbers of months, all equally likely; both the same: constant.

    Raises:
        ValueError: Unless 0 <= shortest <= longest.
    """

    shortest: float
    longest: float

    def __post_init__(self) -> None:
        if not 0 <= self.shortest <= self.longest < math.inf:
            raise ValueError(f"lag must have 0 <= shortest <= longest, got {self.shortest!r} and {self.longest!r}")

    def quantile(self, probability: ArrayLike) -> Floats:
        """The months by which so large a share has been screened."""
        return self.shortest + (self.longest - self.shortest) * np.asarray(probability, dtype=np.float64)


@dataclass(frozen=True)
class LogNormalLag:
    """A screening lag whose logarithm is normal.

    Attributes:
        median_months: Above 0.
        log_sd: Standard deviation of the logarithm, 0 or more.

    Raises:
        ValueError: If either is out of its range.
    """

    median_months: float
    log_sd: float

    def __post_init__(self) -> None:
        if not self.median_months > 0 or not self.log_sd >= 0:
            raise ValueError(
                f"median_months must be above 0 and log_sd 0 or more, got {self.median_months!r} and {self.log_sd!r}"
            )

    def quantile(self, probability: ArrayLike) -> Floats:
        """The months by which so large a share has been screened."""
        p = np.asarray(probability, dtype=np.float64)
        return np.asarray(self.median_months * np.exp(self.log_sd * ndtri(p)))


@dataclass(frozen=True)
class Screening:
    """What lies between arrival and randomisation.

    Attributes:
        failure: Share of those screened who may not enter, from 0 to below 1.
        lag: From screening's start to randomisation; None: none.

    Raises:
        ValueError: If the share is out of its range.
    """

    failure: float = 0.0
    lag: Lag | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.failure < 1:
            raise ValueError(f"failure must be a share from 0 to below 1, got {self.failure!r}")


@dataclass(frozen=True)
class Site:
    """A site that screens patients.

    Attributes:
        rate: Patients who enter screening per month of the site being open; a number or over time since it opened.
        opens: Month of the trial, 0 or more: its start-up time. closes: After it; default never.

    Raises:
        ValueError: If a number is out of its range.
    """

    rate: float | PiecewiseRate
    opens: float = 0.0
    closes: float = math.inf

    def __post_init__(self) -> None:
        if not isinstance(self.rate, PiecewiseRate) and not 0 <= self.rate < math.inf:
            raise ValueError(f"rate must be 0 or more, got {self.rate!r}")
        if not 0 <= self.opens < self.closes:
            raise ValueError(f"opens must be 0 or more and before closes, got {self.opens!r} and {self.closes!r}")

    @property
    def calendar_rate(self) -> PiecewiseRate:
        """Patients per month over the months of the trial."""
        rate = self.rate if isinstance(self.rate, PiecewiseRate) else PiecewiseRate((0.0,), (float(self.rate),))
        moved = [(self.opens + start, value) for start, value in zip(rate.starts, rate.rates, strict=True)]
        pieces = [(start, value) for start, value in moved if start < self.closes]
        before = [(0.0, 0.0)] if self.opens > 0 else []
        after = [(self.closes, 0.0)] if self.closes < math.inf else []
        starts, rates = zip(*before, *pieces, *after, strict=True)
        return PiecewiseRate(starts, rates)


@dataclass(frozen=True)
class Enrolment:
    """Who came when, (trials, patients) each, in order of the start of screening.

    Attributes:
        screened: Calendar month at which screening starts; inf for those whom a rate that ends never brings.
        enrolled: Calendar month of randomisation.
        site: Number of the site.
        failures: Patients who failed screening since the suitable one before.
    """

    screened: Floats
    enrolled: Floats
    site: Ints
    failures: Ints

    @property
    def order(self) -> Ints:
        """The patients of each trial in order of randomisation, (trials, patients)."""
        return np.argsort(self.enrolled, axis=1, kind="stable")


@dataclass(frozen=True)
class Accrual:
    """Poisson arrival at sites.

    Attributes:
        sites: One or more; a single one for a rate of the whole trial.
        pauses: (start, end) months in which nobody enters screening.
        screening: Failure and lag.
        site_variation: Coefficient of variation, between trials, of each site's rate about what is stated: gamma.

    Raises:
        ValueError: If there is no site, no site ever screens, a pause ends before it starts, or the variation is
            negative.

    Source: Anisimov & Fedorov 2007, Stat Med 26:4958 (Poisson-gamma model of sites).
    """

    sites: Sequence[Site]
    pauses: Sequence[Sequence[float]] = ()
    screening: Screening = field(default_factory=Screening)
    site_variation: float = 0.0

    def __post_init__(self) -> None:
        if not self.sites:
            raise ValueError(f"sites must be one or more, got {list(self.sites)}")
        check_pauses(self.pauses)
        if not self.site_variation >= 0:
            raise ValueError(f"site_variation must be 0 or more, got {self.site_variation!r}")
        if not self._rates.any():
            raise ValueError("sites must screen somebody outside the pauses, got rates of 0 in all")

    @cached_property
    def _starts(self) -> Floats:
        """Months at which a rate may change, (pieces,)."""
        cuts = {start for site in self.sites for start in site.calendar_rate.starts}
        return np.array(sorted(cuts | {float(edge) for pause in self.pauses for edge in pause}))

    @cached_property
    def _rates(self) -> Floats:
        """The rate of each site in each piece, (sites, pieces)."""
        rates = np.stack([site.calendar_rate.at(self._starts) for site in self.sites])
        for start, end in self.pauses:
            rates[:, (self._starts >= start) & (self._starts < end)] = 0.0
        return rates

    @cached_property
    def screening_rate(self) -> PiecewiseRate:
        """Patients who enter screening per month, all sites together."""
        return PiecewiseRate(tuple(self._starts.tolist()), tuple(self._rates.sum(axis=0).tolist()))

    @property
    def most(self) -> float:
        """How many patients can ever be enrolled, in expectation."""
        return _ever(self._suitable_rate)

    def of_size(self, num_subjects: float) -> Accrual:
        """The accrual of a trial with so many patients: itself, for its rates are absolute.

        Raises:
            ValueError: If so many can never be enrolled.
        """
        _check_enough(num_subjects, self._suitable_rate)
        return self

    @property
    def _suitable_rate(self) -> PiecewiseRate:
        return self.screening_rate.scaled(1 - self.screening.failure)

    def enroll_rate(self, num_subjects: float) -> PiecewiseRate:
        """Patients randomised per month, in expectation; with a lag it ends once all patients are in.

        Args:
            num_subjects: With whom screening ends.

        Raises:
            ValueError: If so many can never be enrolled.
        """
        rate, lag = self._suitable_rate, self.screening.lag
        _check_enough(num_subjects, rate)
        if lag is None:
            return rate
        last = float(rate.time_at(num_subjects))
        kept = [each for each in zip(rate.starts, rate.rates, strict=True) if each[0] < last]
        starts, rates = zip(*kept, (last, 0.0), strict=True)
        return _delayed(PiecewiseRate(starts, rates), lag)

    def enrolment_months(self, num_subjects: float) -> float:
        """The month by which the last patient is expected to be randomised, after the median lag.

        Raises:
            ValueError: If so many can never be enrolled.
        """
        _check_enough(num_subjects, self._suitable_rate)
        lag = 0.0 if self.screening.lag is None else float(self.screening.lag.quantile(0.5))
        return float(self._suitable_rate.time_at(num_subjects)) + lag

    def enrol(self, draws: TrialDraws, num_subjects: int) -> Enrolment:
        """The patients of simulated trials.

        Args:
            draws: Of the trials.
            num_subjects: Patients to randomise in each.

        Raises:
            ValueError: If so many can never be enrolled.
        """
        _check_enough(num_subjects, self._suitable_rate)
        failure, lag = self.screening.failure, self.screening.lag
        amount = self._amounts(draws, num_subjects)
        failures: Ints = np.broadcast_to(np.int64(0), amount.shape)
        if failure:
            failures = draws.poisson(failure / (1 - failure) * np.diff(amount, axis=1, prepend=0.0), "screen failures")
        rates = (1 - failure) * self._rates
        mark = draws.uniform(num_subjects, "site") if len(self.sites) > 1 else np.broadcast_to(0.0, amount.shape)
        if self.site_variation:
            factor = draws.gamma(len(self.sites), self.site_variation**-2, "rates of sites")
            came = [self._arrive(rates * f[:, None], a, u) for f, a, u in zip(factor, amount, mark, strict=True)]
            screened, site = np.stack([each[0] for each in came]), np.stack([each[1] for each in came])
        else:
            screened, site = self._arrive(rates, amount, mark)
        enrolled = screened
        if lag is not None:
            enrolled = screened + lag.quantile(draws.uniform(num_subjects, "screening lag"))
        return Enrolment(screened, enrolled, site, failures)

    def _amounts(self, draws: TrialDraws, num_subjects: int) -> Floats:
        """How many suitable patients are expected by the arrival of each, (trials, patients)."""
        waits = draws.exponential(num_subjects, "arrival")
        return np.cumsum(waits, axis=1, out=waits)

    def _arrive(self, rates: Floats, amount: Floats, mark: Floats) -> tuple[Floats, Ints]:
        """Month and site of arrivals, in the shape of `amount`.

        Args:
            rates: (sites, pieces).
            amount: Integrated rate at which each comes.
            mark: In [0, 1), which picks the site.
        """
        month = PiecewiseRate(tuple(self._starts.tolist()), tuple(rates.sum(axis=0).tolist())).time_at(amount)
        if len(rates) == 1:
            return month, np.broadcast_to(np.int64(0), month.shape)
        cumulative = np.cumsum(rates, axis=0)
        upper = np.divide(cumulative, cumulative[-1], out=np.ones_like(cumulative), where=cumulative[-1] > 0)
        upper[-1] = 1.0
        piece = np.searchsorted(self._starts, month, side="right") - 1
        edges = (np.arange(rates.shape[1])[:, None] + upper.T).ravel()  # piece by piece, the sites' shares of it
        found = np.searchsorted(edges, piece + mark, side="right") - piece * len(rates)
        return month, np.minimum(found, len(rates) - 1).astype(np.int64)


@dataclass(frozen=True)
class EvenAccrual(Accrual):
    """Arrival without chance: patient j comes when j are expected; which site it comes to is drawn."""

    def _amounts(self, draws: TrialDraws, num_subjects: int) -> Floats:
        amount = np.minimum(np.arange(1.0, num_subjects + 1), _ever(self._suitable_rate))
        return np.broadcast_to(amount, (draws.num_trials, num_subjects))


@dataclass(frozen=True)
class RampedAccrual:
    """Poisson arrival at a rate that rises in three steps and brings all patients by a given month, in expectation.

    Attributes:
        months: Duration of enrolment, above 0. ramp_months: Until its full rate.
        pauses: (start, end) months in which nobody enters screening; enrolment takes longer by as much as they cost.
        screening: Failure, which the rate makes up for, and lag, which comes on top of the months.

    Raises:
        ValueError: If the duration is not positive, the ramp is longer than it, or a pause ends before it starts.
    """

    months: float
    ramp_months: float = 0.0
    pauses: Sequence[Sequence[float]] = ()
    screening: Screening = field(default_factory=Screening)

    def __post_init__(self) -> None:
        ramped_rate(1.0, self.months, self.ramp_months)
        check_pauses(self.pauses)

    @property
    def most(self) -> float:
        """How many patients can ever be enrolled: the rate follows them."""
        return math.inf

    def of_size(self, num_subjects: float) -> Accrual:
        """The accrual of a trial with so many patients.

        Raises:
            ValueError: If there are none.
        """
        if not num_subjects > 0:
            raise ValueError(f"num_subjects must be above 0, got {num_subjects!r}")
        rate = ramped_rate(num_subjects / (1 - self.screening.failure), self.months, self.ramp_months)
        return Accrual((Site(rate),), self.pauses, self.screening)


def check_pauses(pauses: Sequence[Sequence[float]]) -> None:
    """Refuses what is no pair of months in order.

    Raises:
        ValueError: If a pause is not (start, end) with 0 <= start < end.
    """
    for pause in pauses:
        if len(pause) != 2 or not 0 <= pause[0] < pause[1] < math.inf:
            raise ValueError(f"pauses must be pairs of months with 0 <= start < end, got {list(pause)}")


def _delayed(rate: PiecewiseRate, lag: Lag) -> PiecewiseRate:
    """The rate after a random lag, which is taken at the middles of equally likely parts."""
    shifts = lag.quantile((np.arange(_LAG_STEPS) + 0.5) / _LAG_STEPS)
    starts = np.unique(np.concatenate([[0.0], np.add.outer(np.unique(shifts), rate.starts).ravel()]))
    middles = np.append(0.5 * (starts[1:] + starts[:-1]), starts[-1] + 1.0)
    before = middles[:, None] - shifts
    rates = np.where(before > 0, rate.at(before), 0.0).mean(axis=1)
    return PiecewiseRate(tuple(starts.tolist()), tuple(rates.tolist()))
