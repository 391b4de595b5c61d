"""What a simulated trial tells of its cohort: everything of simulated and synthetic subjects, no few real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medtwin.core.disclosure import SMALLEST_CELL, is_small
from medtwin.core.provenance import Origin
from medtwin.trials import Study
from medtwin.trials.engine.response_trial import ResponseStudy
from medtwin.trials.population.attrition import GroupRow
from medtwin.trials.population.told_attrition import ToldRow, told_attrition, told_groups

HIDDEN = "not told"


@dataclass(frozen=True)
class ToldCohort:
    """The numbers of a trial's cohort that may be told; None: not told.

    Attributes:
        attrition: The flow. groups: By sex, age and race, of divisions that may be told.
        subjects, eligible: Of the cohort, and of them those who may enter. events: Endpoints in their record.
        smallest: The least count of people that is told.
    """

    attrition: Sequence[ToldRow] = ()
    groups: Sequence[GroupRow] = ()
    subjects: int | None = 0
    eligible: int | None = 0
    events: int | None = 0
    smallest: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether all of the flow is told."""
        return all(row.is_whole for row in self.attrition)

    @property
    def is_flow_told(self) -> bool:
        """Whether it is told how many might enter and how many do: else nothing that depends on either is."""
        return all(row.remaining is not None for row in (*self.attrition[:2], *self.attrition[-1:]))

    @property
    def withheld(self) -> list[str]:
        """The criteria of which not all is told."""
        return [row.criterion for row in self.attrition[2:] if not row.is_whole]

    def part(self, count: int, total: int) -> int | None:
        """A count of some people, unless few have it or few lack it."""
        return None if self.tells_few(count, total) else count

    def tells_few(self, count: int, total: int) -> bool:
        """Whether few of some people have something, or few lack it."""
        return is_small(count, self.smallest) or is_small(total - count, self.smallest)


def told_cohort(study: Study | ResponseStudy, origin: Origin, smallest: int = SMALLEST_CELL) -> ToldCohort:
    """What may be told of a trial's cohort.

    Args:
        study: The trial on its patients.
        origin: Of the cohort; of simulated and synthetic subjects everything may be told.
        smallest: The least count of real people that is told; 1: everything is told.
    """
    least = smallest if origin == "real" else 1
    rows = told_attrition(study.attrition, least)
    groups = told_groups(study.attrition_by_group, least)
    if not rows:
        return ToldCohort(smallest=least)
    told = ToldCohort(rows, groups, rows[0].remaining, rows[-1].remaining, smallest=least)
    count = study.num_events if isinstance(study, Study) else 0
    events = None if told.eligible is None else told.part(count, told.eligible)
    return ToldCohort(rows, groups, told.subjects, told.eligible, events, least)


def shown_count(count: int | None) -> str:
    """A count in a sentence.

    >>> shown_count(1234), shown_count(None)
    ('1,234', 'not told')
    """
    return HIDDEN if count is None else f"{count:,}"
