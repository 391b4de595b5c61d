"""Who may enter a trial, and when: eligibility criteria over a cohort, the attrition table, baseline covariates.

Every criterion is asked at every candidate day of every subject (a visit, say); a subject enters on the first day on
which all hold. A criterion that cannot be evaluated (no such laboratory value) does not hold, and is counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.trials.population.cohort import NEVER, Code, Cohort, Records, latest_before
from medtwin.trials.population.units import values_in

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class Candidates:
    """Days on which subjects might enter: (candidates,) subject index and day, sorted by both."""

    subject: Ints
    day: Ints

    def where(self, keep: Bools | Ints) -> Candidates:
        """Those that are kept, by a mask or by their numbers."""
        return Candidates(self.subject[keep], self.day[keep])


@dataclass(frozen=True)
class Answer:
    """What a criterion says of each candidate: (candidates,) it holds; (candidates,) it cannot be evaluated."""

    holds: Bools
    is_unknown: Bools


class Criterion(Protocol):
    """A criterion of eligibility, as data."""

    @property
    def label(self) -> str:
        """What it demands, in words."""

    @property
    def codes(self) -> Sequence[Code]:
        """The codes it needs of the cohort."""

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate."""


def _known(holds: Bools) -> Answer:
    return Answer(holds, np.zeros_like(holds))


@dataclass(frozen=True)
class Age:
    """Age in completed years on the day, `minimum` to `maximum`, both included."""

    minimum: float = 0.0
    maximum: float = 150.0

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"age: minimum must be 0 or more and at most maximum, got {self.minimum!r}")

    @property
    def label(self) -> str:
        """What it demands, in words."""
        upper = f" to {self.maximum:g}" if self.maximum < 150 else " or more"
        return f"age {self.minimum:g}{upper} years"

    @property
    def codes(self) -> Sequence[str]:
        """None."""
        return ()

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate; unknown where the birth is."""
        years = np.floor(age_years(cohort, at))
        holds = (years >= self.minimum) & (years <= self.maximum)
        return Answer(holds, np.isnan(years))


@dataclass(frozen=True)
class Sex:
    """Administrative gender is the given one."""

    sex: Literal["F", "M"]

    def __post_init__(self) -> None:
        if self.sex not in ("F", "M"):
            raise ValueError(f"sex must be F or M, got {self.sex!r}")

    @property
    def label(self) -> str:
        """What it demands, in words."""
        return "women" if self.sex == "F" else "men"

    @property
    def codes(self) -> Sequence[str]:
        """None."""
        return ()

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate; unknown where the sex is."""
        sex = cohort.sex[at.subject]
        return Answer(sex == self.sex, sex == "")


@dataclass(frozen=True)
class _Codes:
    """Codes in a window that ends with the day.

    Attributes:
        codes: `SYSTEM//code`; those below them count too.
        window_days: Only so far back; None: ever.
        name: For the attrition table.
    """

    codes: Sequence[str]
    window_days: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _check_codes(self.codes, self.window_days)

    def _described(self, verb: str) -> str:
        return f"{verb} {self.name or ' or '.join(self.codes)}{_window(self.window_days)}"

    def _occurred(self, cohort: Cohort, at: Candidates) -> Bools:
        return _occurred(cohort.rows_of(self.codes), at, self.window_days)


@dataclass(frozen=True)
class Has(_Codes):
    """Any of the codes, or of those below them, on or before the day.

    Attributes:
        codes: `SYSTEM//code`. window_days: Only so far back; None: ever. name: For the attrition table.
    """

    @property
    def label(self) -> str:
        """What it demands, in words."""
        return self._described("has")

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate.

        Raises:
            ConfigError: If the cohort has none of the codes.
        """
        cohort.require_known(self.codes, self.label)
        return _known(self._occurred(cohort, at))


@dataclass(frozen=True)
class HasNot(_Codes):
    """None of the codes, nor of those below them, on or before the day.

    Attributes:
        codes: `SYSTEM//code`. window_days: Only so far back; None: ever. name: For the attrition table.
    """

    @property
    def label(self) -> str:
        """What it demands, in words."""
        return self._described("no")

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate; a cohort without the codes excludes nobody."""
        return _known(~self._occurred(cohort, at))


@dataclass(frozen=True)
class LatestValue:
    """The latest value of any of the codes, within a window before the end of the day, lies in a range.

    Attributes:
        codes: `SYSTEM//code`. minimum, maximum: Bounds, included; None: no bound.
        unit: UCUM, of the bounds; values in other units are converted. A value without a unit is taken to be in it.
        window_days: How far back. name: For the attrition table.
    """

    codes: Sequence[str]
    minimum: float | None = None
    maximum: float | None = None
    unit: str | None = None
    window_days: int = 365
    name: str | None = None

    def __post_init__(self) -> None:
        _check_codes(self.codes, self.window_days)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum must be at most maximum, got {self.minimum!r} and {self.maximum!r}")

    @property
    def label(self) -> str:
        """What it demands, in words."""
        limits = ((">=", self.minimum), ("<=", self.maximum))
        bounds = [f"{sign} {limit:g}" for sign, limit in limits if limit is not None]
        what = f"{self.name or ' or '.join(self.codes)} {' and '.join(bounds) or 'measured'}"
        return f"{what}{f' {self.unit}' if bounds and self.unit else ''}{_window(self.window_days)}"

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate; unknown where there is no value in the window, or none in such a unit.

        Raises:
            ConfigError: If the cohort has none of the codes.
        """
        cohort.require_known(self.codes, self.label)
        value = latest_value(cohort, self.codes, at, self.unit, self.window_days)
        low = -np.inf if self.minimum is None else self.minimum
        high = np.inf if self.maximum is None else self.maximum
        return Answer((value >= low) & (value <= high), np.isnan(value))


@dataclass(frozen=True)
class FollowUp:
    """The record goes on for at least so many days after the day, or ends with death in between."""

    minimum_days: int = 1

    def __post_init__(self) -> None:
        if self.minimum_days < 1:
            raise ValueError(f"minimum_days must be 1 or more, got {self.minimum_days!r}")

    @property
    def label(self) -> str:
        """What it demands, in words."""
        return f"alive, and followed up for {self.minimum_days} day{'s' * (self.minimum_days > 1)} or until death"

    @property
    def codes(self) -> Sequence[str]:
        """None."""
        return ()

    def ask(self, cohort: Cohort, at: Candidates) -> Answer:
        """What it says of each candidate."""
        death, last = cohort.death[at.subject], cohort.last[at.subject]
        is_long = last - at.day >= self.minimum_days
        return _known((death > at.day) & (is_long | (death != NEVER)))


@dataclass(frozen=True)
class IndexDay:
    """The days on which a subject might enter.

    Attributes:
        codes: Days with one of these codes; None: `visits` says which.
        visits: `encounter`: days with an encounter; `any`: days with any dated row.
        first_only: Only the first such day of each subject; else every one, and the first on which all criteria hold.
    """

    codes: Sequence[str] | None = None
    visits: Literal["encounter", "any"] = "encounter"
    first_only: bool = False

    def __post_init__(self) -> None:
        if self.visits not in ("encounter", "any"):
            raise ValueError(f"visits must be encounter or any, got {self.visits!r}")

    @property
    def label(self) -> str:
        """Which days, in words."""
        what = " or ".join(self.codes) if self.codes else {"encounter": "an encounter", "any": "any entry"}[self.visits]
        return f"has a {'first ' if self.first_only else ''}day with {what} after birth"

    def candidates(self, cohort: Cohort) -> Candidates:
        """The days, of every subject.

        Raises:
            ConfigError: If the cohort has none of the codes.
        """
        if self.codes:
            cohort.require_known(self.codes, "index")
            days = cohort.rows_of(self.codes)
        else:
            days = cohort.encounters if self.visits == "encounter" else cohort.seen
        birth = cohort.birth[days.subject]
        is_life = ((birth == NEVER) | (days.day >= birth)) & (days.day <= cohort.death[days.subject])
        found = Candidates(days.subject[is_life], days.day[is_life])
        is_new = np.diff(found.subject, prepend=-1) != 0
        if self.first_only:
            return found.where(is_new)
        return found.where(is_new | (np.diff(found.day, prepend=-1) != 0))


@dataclass(frozen=True)
class AttritionRow:
    """A line of the CONSORT flow: who remains after a criterion, whom it excluded, and of them who lacked the data."""

    criterion: str
    remaining: int
    excluded: int
    not_evaluable: int

    @property
    def assessed(self) -> int:
        """Subjects of whom it was asked: those who remained before it."""
        return self.remaining + self.excluded

    @property
    def fails(self) -> int:
        """Subjects of whom it is known not to hold on any day that remained."""
        return self.excluded - self.not_evaluable


@dataclass(frozen=True)
class Enrolled:
    """Eligible subjects, one entry each, and how they were found.

    Attributes:
        entry: The day of entry of each. attrition: The flow; its first two rows are the cohort and the index days.
        left_at: (subjects,) the row of `attrition` that excluded each subject of the cohort; 0 for the eligible.
        is_unknown: (subjects,) whether that row could not be evaluated.
    """

    entry: Candidates
    attrition: Sequence[AttritionRow]
    left_at: Ints
    is_unknown: Bools


def find_eligible(cohort: Cohort, index: IndexDay, criteria: Sequence[Criterion]) -> Enrolled:
    """The subjects who are eligible, on their first eligible day, and the attrition table, criterion by criterion.

    A subject remains after a criterion if on some day it and all before it hold. One is not evaluable for a criterion
    if it is excluded there and on some of its remaining days the criterion could not be evaluated.

    Raises:
        ConfigError: If nobody remains; names the criterion that left nobody. Or if a code is unknown.
    """
    found = follow_flow(cohort, index, criteria)
    _require_some(found.attrition)
    return found


def follow_flow(cohort: Cohort, index: IndexDay, criteria: Sequence[Criterion]) -> Enrolled:
    """`find_eligible`, where nobody may be eligible.

    Raises:
        ConfigError: If a code is unknown.
    """
    total = len(cohort.subject_id)
    at = index.candidates(cohort)
    remains = _anywhere(at, total)
    left_at, is_unknown = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.bool_)
    left_at[~remains] = 1
    size = int(remains.sum())
    rows = [AttritionRow("subjects in the cohort", total, 0, 0), AttritionRow(index.label, size, total - size, 0)]
    for number, criterion in enumerate(criteria, 2):
        answer = criterion.ask(cohort, at)
        kept = at.where(answer.holds)
        leaves = remains & ~_anywhere(kept, total)
        lacks = leaves & _anywhere(at.where(answer.is_unknown), total)
        left_at[leaves], is_unknown[lacks] = number, True
        remains &= ~leaves
        rows.append(AttritionRow(criterion.label, int(remains.sum()), int(leaves.sum()), int(lacks.sum())))
        at = kept
    is_first = np.diff(at.subject, prepend=-1) != 0
    return Enrolled(at.where(is_first), rows, left_at, is_unknown)


def _anywhere(at: Candidates, num_subjects: int) -> Bools:
    """(subjects,) who has any of the days."""
    has = np.zeros(num_subjects, dtype=np.bool_)
    has[at.subject] = True
    return has


def _require_some(flow: Sequence[AttritionRow]) -> None:
    empty = next((number for number, row in enumerate(flow) if row.remaining == 0), None)
    if empty is not None:
        rows, last = flow[: empty + 1], flow[empty]
        gap = f" ({last.not_evaluable} lacked the data)" if last.not_evaluable else ""
        before = ", then ".join(f"{row.remaining} after {row.criterion!r}" for row in rows[:-1])
        raise ConfigError(
            f"nobody is eligible: {last.criterion!r} left 0 of {last.excluded}{gap}; {before}. "
            "Loosen it in trial.eligibility, or try trial=any_adult"
        )


def _occurred(records: Records, at: Candidates, window_days: int | None) -> Bools:
    found = latest_before(records, at.subject, at.day)
    has = found >= 0
    if window_days is None or not len(records.day):
        return has
    return np.asarray(has & (at.day - records.day[np.maximum(found, 0)] <= window_days))


def latest_value(cohort: Cohort, codes: Sequence[Code], at: Candidates, unit: str | None, window_days: int) -> Floats:
    """The latest value of any of the codes up to each candidate day, in `unit`, (candidates,); nan for none."""
    records = cohort.rows_of(codes)
    records = records.take(~np.isnan(records.value))
    if not len(records.day):
        return np.full(len(at.day), np.nan)
    values = values_in(records, unit)
    found = latest_before(records, at.subject, at.day)
    index = np.maximum(found, 0)
    is_near = (found >= 0) & (at.day - records.day[index] <= window_days)
    return np.where(is_near, values[index], np.nan)


def age_years(cohort: Cohort, at: Candidates) -> Floats:
    """Age on each candidate day, in years, (candidates,); nan where the birth is unknown."""
    birth = cohort.birth[at.subject]
    return np.where(birth == NEVER, np.nan, (at.day - birth) / DAYS_PER_YEAR)


@dataclass(frozen=True)
class Lab:
    """A baseline covariate: the latest value of a code within a window. `name` heads its column."""

    name: str
    codes: Sequence[str]
    unit: str | None = None
    window_days: int = 730

    def __post_init__(self) -> None:
        _check_codes(self.codes, self.window_days)


@dataclass(frozen=True)
class Baseline:
    """Covariates of the eligible subjects.

    Attributes:
        subject_id: (subjects,). names: (covariates,). values: (subjects, covariates), nan where missing.
        sex: (subjects,) `F`, `M` or an empty string.
    """

    subject_id: Ints
    names: Sequence[str]
    values: Floats
    sex: NDArray[np.str_]

    def imputed(self) -> Floats:
        """The values, a missing one replaced by its covariate's median; a covariate that nobody has is 0."""
        with np.errstate(all="ignore"):
            has = ~np.isnan(self.values)
            medians = [
                np.median(column[known]) if known.any() else 0.0
                for column, known in zip(self.values.T, has.T, strict=True)
            ]
        return np.where(has, self.values, np.array(medians))


def baseline(cohort: Cohort, entry: Candidates, labs: Sequence[Lab]) -> Baseline:
    """Age, sex (1 female) and laboratory values on the day of entry."""
    sex = cohort.sex[entry.subject]
    columns = [age_years(cohort, entry), np.where(sex == "", np.nan, (sex == "F").astype(np.float64))]
    columns += [latest_value(cohort, lab.codes, entry, lab.unit, lab.window_days) for lab in labs]
    names = ("age_years", "is_female", *(lab.name for lab in labs))
    return Baseline(cohort.subject_id[entry.subject], names, np.stack(columns, axis=1), sex)


def _check_codes(codes: Sequence[str], window_days: int | None) -> None:
    if isinstance(codes, str) or not codes:
        raise ValueError(f"codes must be a list of SYSTEM//code, got {codes!r}")
    if window_days is not None and window_days < 0:
        raise ValueError(f"window_days must be 0 or more, got {window_days!r}")


def _window(days: int | None) -> str:
    return "" if days is None else f" within {days} days"
