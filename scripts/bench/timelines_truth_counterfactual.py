"""Counterfactual twins against counterfactual lives: what a change of age or sex does to a record, on average.

The truth is the mean change between pairs of lives under the same noise (`medtwin.hospital.counterfactual`), weighted
so that ages and sexes before the change are those of the factual twins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timelines_truth_cohorts import CKD, Bools, Cohort, Floats, Ints, cached_tables, cohort_of
from timelines_truth_measures import Interval, subject_draws

from medtwin.check.records import Vocabulary
from medtwin.core.errors import DatasetError
from medtwin.core.files import read_json
from medtwin.hospital import codes
from medtwin.hospital.counterfactual import NO_CHANGE, OLDEST, Change, change_from, paired_life, paired_record
from medtwin.hospital.simulate import SubjectRecord

TOLERANCE = 0.10
"""Share of the true effect by which an effect may be off."""
SMALL = 0.02
"""... or share of the outcome's standard deviation: below, an effect is as good as none."""
STEADY = ("GENDER", "BIRTHSEX", "RACE", "ETHNICITY", "LANGUAGE", "smoking")
"""Facts that age leaves alone; of these, RACE, ETHNICITY and LANGUAGE are left alone by sex."""
_NEAR_YEARS = 0.5  # a record starts within a quarter of a year of the age that is set


def _ever(*wanted: str) -> Callable[[Cohort], Floats]:
    return lambda one: np.isfinite(one.onset(*wanted)).astype(np.float64)


OUTCOMES: dict[str, Callable[[Cohort], Floats]] = {
    "events": lambda one: one.records.num_events.astype(np.float64),
    "encounters": lambda one: one.num_encounters.astype(np.float64),
    "hypertension": _ever(codes.HYPERTENSION),
    "diabetes": _ever(codes.DIABETES),
    "chronic kidney disease": _ever(*CKD),
    "heart failure": _ever(codes.HEART_FAILURE),
    "pregnancy": _ever(codes.PREGNANCY),
    "mammography": _ever(codes.MAMMOGRAPHY),
    "death": lambda one: one.died.astype(np.float64),
    "creatinine, mg/dL": lambda one: one.mean_value(codes.CREATININE),
    "hemoglobin, g/dL": lambda one: one.mean_value(codes.HEMOGLOBIN),
    "systolic pressure, mm[Hg]": lambda one: one.mean_value(codes.SYSTOLIC),
    "HbA1c, %": lambda one: one.mean_value(codes.A1C),
}
"""What is compared, (subjects,), by name; NaN where a record does not say."""


@dataclass(frozen=True)
class Pairs:
    """Factual subjects and the same subjects changed, in the same order.

    Attributes:
        change: What was done to the second.
    """

    factual: Cohort
    changed: Cohort
    change: Change

    def take(self, which: Ints) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.factual.take(which), self.changed.take(which), self.change)

    def really_changed(self) -> Pairs:
        """Those who were not already what was asked for; of a set sex, the others only."""
        if self.change.sex is None:
            return self
        return self.take(np.flatnonzero(self.factual.male != (self.change.sex == "M")))


def read_pairs(factual: Cohort, changed: Cohort, folder: Path) -> Pairs:
    """Joins a factual and a counterfactual dataset by metadata/counterfactual.parquet of the latter.

    Raises:
        DatasetError: If a pair is missing on either side, or there is none.
    """
    path = folder / "metadata" / "counterfactual.parquet"
    if not path.is_file():
        raise DatasetError(f"{folder} must have metadata/counterfactual.parquet: subject_id, factual_id")
    table = pq.ParquetFile(path).read()
    here = _places(changed, table["subject_id"], folder)
    there = _places(factual, table["factual_id"], folder)
    change = change_from(read_json(folder / "metadata" / "counterfactual.json"))
    return Pairs(factual.take(there), changed.take(here), change)


def _places(cohort: Cohort, ids: pa.ChunkedArray, folder: Path) -> Ints:
    wanted, known = ids.to_numpy().astype(np.int64), cohort.records.subjects
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    if not len(wanted) or (known[place] != wanted).any():
        raise DatasetError(f"every pair of {folder} must be in both datasets, {(known[place] != wanted).sum()} are not")
    return np.asarray(place, np.int64)


def label_of(change: Change) -> str:
    """A change as a part of a file's name.

    >>> label_of(Change(age=75.0)), label_of(Change(sex="F"))
    ('age75', 'sexF')
    """
    parts = [
        f"age{change.age:g}" if change.age is not None else "",
        f"older{change.older_by:g}" if change.older_by else "",
        f"sex{change.sex}" if change.sex else "",
    ]
    return "".join(parts) or "asis"


def _members(change: Change, num_pairs: int, seed: int) -> Iterator[int]:
    """Persons whom a change leaves within the ages of the hospital."""
    index = found = 0
    while found < num_pairs:
        if not change.older_by or paired_life(seed, index).person.age + change.older_by <= OLDEST:
            found += 1
            yield index
        index += 1


def true_pairs(folder: Path, vocabulary: Vocabulary, change: Change, num_pairs: int, seed: int) -> Pairs:
    """Pairs of lives of the hospital, from files of a folder where they are."""
    members = list(_members(change, num_pairs, seed))
    limited = f"-upto{OLDEST - change.older_by:g}" if change.older_by else ""
    sides = []
    for one in (NO_CHANGE, change):
        name = f"paired-seed{seed}-{label_of(one)}{limited}"
        tables = cached_tables(folder, name, partial(_member, members, seed, one), num_pairs)
        sides.append(cohort_of(tables, vocabulary))
    return Pairs(sides[0], sides[1], change)


def _member(members: list[int], seed: int, change: Change, number: int) -> SubjectRecord:
    return paired_record(seed, members[number], change)


@dataclass(frozen=True)
class Shift:
    """The mean change of an outcome.

    Attributes:
        before: Mean of the factual twins. true_before: Of the lives, weighted.
        twins: Mean change of the twins, with its interval. truth: Of the lives, with its Monte Carlo interval.
        sd: Standard deviation of the outcome in the lives before the change.
        num_pairs: Pairs of twins in which both sides say it.
    """

    outcome: str
    before: float
    true_before: float
    twins: Interval
    truth: Interval
    sd: float
    num_pairs: int

    @property
    def allowed(self) -> float:
        """By how much the change may be off."""
        return max(TOLERANCE * abs(self.truth.value), SMALL * self.sd)

    @property
    def is_real(self) -> bool:
        """Whether the true change is more than as good as none."""
        return abs(self.truth.value) > SMALL / TOLERANCE * self.sd

    @property
    def verdict(self) -> str:
        """How the estimate stands to what is allowed, and its interval with the errors of twins and lives together.

        `within`, and `proven` if so is the whole interval; `unclear` if only a part of the interval is, which more
        pairs would decide; else `outside`.
        """
        off = abs(self.twins.value - self.truth.value)
        half = 1.959964 * float(np.hypot(self.twins.error, self.truth.error))
        if not np.isfinite(off + half):
            return "not measured"
        if off > self.allowed:
            return "unclear" if off - half <= self.allowed else "outside"
        return "proven" if off + half <= self.allowed else "within"


def shifts(twins: Pairs, lives: Pairs, *, seed: int, num_resamples: int) -> list[Shift]:
    """The mean change of every outcome in twins, beside that of lives of the same ages and sexes."""
    twins, lives = twins.really_changed(), lives.really_changed()
    weight = _matched(lives.factual, twins.factual)
    rows = []
    for name, outcome in OUTCOMES.items():
        first, second = outcome(twins.factual), outcome(twins.changed)
        true_first, true_second = outcome(lives.factual), outcome(lives.changed)
        mine = _mean_interval(second - first, np.ones(len(first)), seed, num_resamples)
        true = _mean_interval(true_second - true_first, weight, seed, num_resamples)
        known = np.isfinite(true_first)
        mean = float(np.average(true_first[known], weights=weight[known])) if known.any() else float("nan")
        before = float(np.nanmean(first)) if np.isfinite(first).any() else float("nan")
        sd = float(np.nanstd(true_first))
        num_pairs = int(np.isfinite(second - first).sum())
        rows.append(Shift(name, before, mean, mine, true, sd, num_pairs))
    return rows


def _matched(lives: Cohort, twins: Cohort) -> Floats:
    """Weights, (lives,), that give lives the twins' joint distribution of half-decades of age and of sex."""

    def cells(one: Cohort) -> Ints:
        return np.where(np.isfinite(one.age), np.clip(one.age // 5, 0, 40), 41).astype(np.int64) * 2 + one.male

    here, there = cells(twins), cells(lives)
    share = np.bincount(here, minlength=90) / len(here)
    count = np.bincount(there, minlength=90)
    return np.asarray((share / np.maximum(count, 1))[there] * len(there))


def _mean_interval(values: Floats, weight: Floats, seed: int, num_resamples: int) -> Interval:
    """Weighted mean of what is known, with 1.96 standard errors of resampled pairs."""
    known = np.isfinite(values) & (weight > 0)
    if known.sum() < 2:
        return Interval(float("nan"), float("nan"), float("nan"))
    values, weight = values[known], weight[known]
    draws = subject_draws(len(values), seed, num_resamples) * weight
    means = draws @ values / draws.sum(axis=1)
    half = 1.959964 * float(means[1:].std(ddof=1))
    return Interval(float(means[0]), float(means[0]) - half, float(means[0]) + half)


@dataclass(frozen=True)
class Kept:
    """What a change is to leave alone, and what it is to reach.

    Attributes:
        what: A fact. share: Pairs that keep it, or reach it, of those that state it on both sides; NaN of none.
        num_pairs: How many those are.
    """

    what: str
    share: float
    num_pairs: int


def kept(pairs: Pairs) -> list[Kept]:
    """Adherence to the change, and the facts that it must not touch."""
    rows = []
    ages = pairs.changed.age
    steady = STEADY if pairs.change.sex is None else STEADY[2:5]
    if pairs.change.sex is not None:
        rows.append(_share("the sex that was set", pairs.changed.male == (pairs.change.sex == "M"), np.isfinite(ages)))
        near = np.abs(ages - pairs.factual.age) <= _NEAR_YEARS
        rows.append(_share("age kept", near, np.isfinite(ages - pairs.factual.age)))
    else:
        target = pairs.factual.age + pairs.change.older_by if pairs.change.age is None else pairs.change.age
        rows.append(_share("the age that was set", np.abs(ages - target) <= _NEAR_YEARS, np.isfinite(ages - target)))
    for fact in steady:
        first, second = (
            one.smoking if fact == "smoking" else one.static(fact) for one in (pairs.factual, pairs.changed)
        )
        rows.append(_share(f"{fact} kept", first == second, (first >= 0) & (second >= 0)))
    return rows


def _share(what: str, is_so: Bools, is_known: Bools) -> Kept:
    number = int(is_known.sum())
    return Kept(what, float(is_so[is_known].mean()) if number else float("nan"), number)
