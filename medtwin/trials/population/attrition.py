"""Attrition of a cohort criterion by criterion, in all and by sex, age and race, and the numbers of a CONSORT flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.population.cohort import Cohort
from medtwin.trials.population.criteria import AttritionRow, Candidates, Enrolled, IndexDay, age_years
from medtwin.trials.population.language import RACES

Ints = NDArray[np.int64]
# Ages at which bands begin, in completed years: ICH E7 counts the old from 65, and asks for those of 75 and more.
AGE_BANDS = (18, 40, 65, 75)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Division:
    """A division of the subjects: `labels` of the groups, and (subjects,) the number of each subject's group."""

    labels: Sequence[str]
    number: Ints

    def __post_init__(self) -> None:
        if self.number.size and not 0 <= self.number.min() <= self.number.max() < len(self.labels):
            raise ValueError(f"number must be that of a label, 0 to {len(self.labels) - 1}, got {self.number.max()}")

    def counts(self, subjects: NDArray[np.generic]) -> dict[str, int]:
        """How many of some subjects, a mask or indices, are in each group."""
        found = np.bincount(self.number[subjects], minlength=len(self.labels))
        return dict(zip(self.labels, found.tolist(), strict=True))


@dataclass(frozen=True)
class GroupRow:
    """A line of the attrition of a group: those assessed fail, are not evaluable, or remain."""

    division: str
    group: str
    criterion: str
    assessed: int
    fails: int
    not_evaluable: int
    remaining: int


@dataclass(frozen=True)
class Consort:
    """The enrolment part of a CONSORT flow diagram.

    Attributes:
        assessed: Subjects of the cohort. eligible: Those who enter. excluded: The others.
        fails: Excluded as a criterion does not hold. not_evaluable: Excluded as it could not be evaluated.
        reasons: The criterion that excluded, how many fail it, and of how many it could not be evaluated; each subject
            counts where the order of the criteria first excludes it.

    Source: Schulz, Altman & Moher 2010, BMJ 340:c332, figure 1.
    """

    assessed: int
    eligible: int
    excluded: int
    fails: int
    not_evaluable: int
    reasons: Sequence[tuple[str, int, int]]

    def __str__(self) -> str:
        lines = [f"Assessed for eligibility (n = {self.assessed:,})", f"Excluded (n = {self.excluded:,})"]
        for criterion, fails, unknown in self.reasons:
            gap = f", not evaluable {unknown:,}" if unknown else ""
            lines.append(f"  {criterion}: not met {fails:,}{gap}")
        return "\n".join([*lines, f"Eligible (n = {self.eligible:,})"])


def consort(attrition: Sequence[AttritionRow]) -> Consort:
    """The numbers of the flow diagram of an attrition table.

    Raises:
        ValueError: If the table has no row.
    """
    if not attrition:
        raise ValueError(f"attrition must have a row, got {list(attrition)!r}")
    rows = [row for row in attrition if row.excluded]
    fails, unknown = sum(row.fails for row in rows), sum(row.not_evaluable for row in rows)
    reasons = [(row.criterion, row.fails, row.not_evaluable) for row in rows]
    first, last = attrition[0].remaining, attrition[-1].remaining
    return Consort(first, last, fails + unknown, fails, unknown, reasons)


def attrition_by_group(enrolled: Enrolled, divisions: Mapping[str, Division]) -> list[GroupRow]:
    """The attrition table of each group of each division.

    Args:
        enrolled: Who entered and who was excluded where.
        divisions: Name to division, as `demographics` gives them.
    """
    rows = []
    for name, division in divisions.items():
        size = len(division.labels)
        cells = enrolled.left_at * size + division.number
        excluded = np.bincount(cells, minlength=size * len(enrolled.attrition)).reshape(-1, size)
        unknown = np.bincount(cells[enrolled.is_unknown], minlength=size * len(enrolled.attrition)).reshape(-1, size)
        for group, label in enumerate(division.labels):
            remaining = int(excluded[:, group].sum())
            for step, line in enumerate(enrolled.attrition):
                out, lacks = (int(excluded[step, group]), int(unknown[step, group])) if step else (0, 0)
                rows.append(GroupRow(name, label, line.criterion, remaining, out - lacks, lacks, remaining - out))
                remaining -= out
    return rows


def days_of_reference(cohort: Cohort, index: IndexDay, entry: Candidates) -> Ints:
    """(subjects,) the day of entry; of others the last day on which they might have entered, or of their record."""
    found = cohort.last.copy()
    at = index.candidates(cohort)
    is_last = np.diff(at.subject, append=-1) != 0
    found[at.subject[is_last]] = at.day[is_last]
    found[entry.subject] = entry.day
    return found


def demographics(cohort: Cohort, day: Ints, age_bands: Sequence[int] = AGE_BANDS) -> dict[str, Division]:
    """Sex, age and race of the subjects, as divisions.

    Args:
        cohort: Subjects.
        day: (subjects,) on which age is told, as `days_of_reference` gives it.
        age_bands: Completed years at which bands begin, increasing.

    Raises:
        ValueError: If there are no bands, or they do not increase.
    """
    if not age_bands or any(low >= high for low, high in pairwise((0, *age_bands))):
        raise ValueError(f"age_bands must increase, from above 0, got {list(age_bands)!r}")
    years = age_years(cohort, Candidates(np.arange(len(day)), day))
    years[years < 0] = np.nan  # no day of life is recorded
    ends = [f"{low} to {high - 1}" for low, high in pairwise(age_bands)]
    bands = [f"below {age_bands[0]}", *ends, f"{age_bands[-1]} and over"]
    band = np.searchsorted(np.asarray(age_bands, dtype=np.float64), np.floor(years), side="right")
    races = {code: name for name, code in RACES.items()}
    return {
        "sex": _division(cohort.sex, {}),
        "age": Division([*bands, UNKNOWN], np.where(np.isnan(years), len(bands), band)),
        "race": _division(cohort.race, races),
    }


def _division(recorded: NDArray[np.str_], names: Mapping[str, str]) -> Division:
    """Groups of a recorded word, those without one last; those of several words are `several`."""
    words, number = np.unique(recorded, return_inverse=True)
    shown = ["several" if "+" in word else names.get(word, word) or UNKNOWN for word in words.tolist()]
    labels = sorted(set(shown) - {UNKNOWN}) + [UNKNOWN] * (UNKNOWN in shown)
    return Division(labels, np.array([labels.index(word) for word in shown], dtype=np.int64)[number])
