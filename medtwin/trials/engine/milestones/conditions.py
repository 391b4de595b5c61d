"""When a milestone comes, and what an action asks of the trial at it.

A `Timing` has a month at which it becomes true and stays so: events, months, patients enrolled or followed, joined by
`&` and `|`. A `Question` is asked at a milestone: whether a timing is true by then, a statistic, a rejection, joined by
`&`, `|` and `~`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ROUNDING = 1 + 2.0**-48
"""By how much later follow-up ends than a milestone, so that rounding does not hide the event which brings it."""


class Course(Protocol):
    """What simulated trials know of their patients' course; rows are trials."""

    def month_of_event(self, endpoint: str, population: str | None, count: int, rows: Ints) -> Floats:
        """The calendar month of event number `count`, (rows,); inf where there are fewer."""
        ...

    def month_of_patient(self, count: int | None, rows: Ints) -> Floats:
        """The calendar month at which patient number `count` is randomised, (rows,); None: the last one."""
        ...

    def month_of_milestone(self, name: str, rows: Ints) -> Floats:
        """The calendar month of a milestone, (rows,); inf where it has not come."""
        ...


class Seen(Course, Protocol):
    """What is known at a milestone."""

    def z_value(self, endpoint: str, population: str | None, rows: Ints, months: Floats) -> Floats:
        """The test statistic of an endpoint by now, (rows,), positive in favour of the experimental arm."""
        ...

    def is_rejected(self, hypothesis: str, rows: Ints) -> Bools:
        """Whether a hypothesis has been rejected by now, (rows,)."""
        ...


class Question(ABC):
    """Something to be asked of a trial at a milestone."""

    @property
    def is_unblinded(self) -> bool:
        """Whether the answer depends on the difference between the arms."""
        return any(each.is_unblinded for each in self.parts)

    @property
    def parts(self) -> Sequence[Question]:
        """Of what it is made; none of a single question."""
        return ()

    @abstractmethod
    def answer(self, seen: Seen, rows: Ints, months: Floats) -> Bools:
        """Whether it holds, (rows,).

        Args:
            seen: The trials.
            rows: Which of them.
            months: (rows,) calendar months of the milestone.
        """

    def leaves(self) -> Iterator[Question]:
        """The single questions in it."""
        if not self.parts:
            yield self
        for each in self.parts:
            yield from each.leaves()

    def __and__(self, other: Question) -> Question:
        return AllOf((self, other))

    def __or__(self, other: Question) -> Question:
        return AnyOf((self, other))

    def __invert__(self) -> Question:
        return Not(self)


class Timing(Question):
    """What becomes true at some month and stays so."""

    @abstractmethod
    def due(self, course: Course, rows: Ints) -> Floats:
        """The calendar month at which it becomes true, (rows,); inf for never.

        Args:
            course: Of the trials.
            rows: Which of them.
        """

    def answer(self, seen: Seen, rows: Ints, months: Floats) -> Bools:
        """Whether it is true by now, (rows,)."""
        return np.asarray(self.due(seen, rows) <= months * ROUNDING)

    def __and__(self, other: Question) -> Question:
        return Later((self, other)) if isinstance(other, Timing) else AllOf((self, other))

    def __or__(self, other: Question) -> Question:
        return Earlier((self, other)) if isinstance(other, Timing) else AnyOf((self, other))


@dataclass(frozen=True)
class Events(Timing):
    """So many events of an endpoint, blinded: both arms together.

    Attributes:
        endpoint: A time to an event. count: 1 or more. population: With the biomarker of this name; None: all.
    """

    endpoint: str
    count: int
    population: str | None = None

    def __post_init__(self) -> None:
        if int(self.count) != self.count or self.count < 1:
            raise ValueError(f"count of events must be a whole number of 1 or more, got {self.count!r}")

    def due(self, course: Course, rows: Ints) -> Floats:
        """See `Timing`."""
        return course.month_of_event(self.endpoint, self.population, int(self.count), rows)


@dataclass(frozen=True)
class Month(Timing):
    """A calendar month of the trial.

    Attributes:
        month: 0 or more.
    """

    month: float

    def __post_init__(self) -> None:
        if not 0 <= self.month < np.inf:
            raise ValueError(f"month must be 0 or more, got {self.month!r}")

    def due(self, course: Course, rows: Ints) -> Floats:
        """See `Timing`."""
        return np.full(len(rows), float(self.month))


@dataclass(frozen=True)
class Enrolled(Timing):
    """So many patients randomised, and followed for so long since.

    Attributes:
        count: 1 or more; None: all whom the trial wants at that time.
        followed_months: 0 or more, whatever became of them since.
    """

    count: int | None = None
    followed_months: float = 0.0

    def __post_init__(self) -> None:
        if self.count is not None and (int(self.count) != self.count or self.count < 1):
            raise ValueError(f"count of patients must be a whole number of 1 or more, got {self.count!r}")
        if not 0 <= self.followed_months < np.inf:
            raise ValueError(f"followed_months must be 0 or more, got {self.followed_months!r}")

    def due(self, course: Course, rows: Ints) -> Floats:
        """See `Timing`."""
        return course.month_of_patient(self.count, rows) + self.followed_months


@dataclass(frozen=True)
class Since(Timing):
    """So many months since another milestone: a minimum gap. Never where that one has not come.

    Attributes:
        milestone: Its name. months: 0 or more.
    """

    milestone: str
    months: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.months < np.inf:
            raise ValueError(f"months since {self.milestone} must be 0 or more, got {self.months!r}")

    def due(self, course: Course, rows: Ints) -> Floats:
        """See `Timing`."""
        return course.month_of_milestone(self.milestone, rows) + self.months


@dataclass(frozen=True)
class _Joined(Timing):
    """Timings together.

    Attributes:
        timings: Two or more.
    """

    timings: Sequence[Timing]

    @property
    def parts(self) -> Sequence[Question]:
        """The timings."""
        return self.timings


@dataclass(frozen=True)
class Later(_Joined):
    """All of them: the last one decides. Written `a & b`."""

    def due(self, course: Course, rows: Ints) -> Floats:
        """See `Timing`."""
        return np.asarray(np.max([each.due(course, rows) for each in self.timings], axis=0))


@dataclass(frozen=True)
class Earlier(_Joined):
    """Any of them: the first one decides. Written `a | b`."""

    def due(self, course: Course, rows: Ints) -> Floats:
        """See `Timing`."""
        return np.asarray(np.min([each.due(course, rows) for each in self.timings], axis=0))


@dataclass(frozen=True)
class Statistic(Question):
    """Whether the test statistic of an endpoint lies in a range, z > 0 favouring the experimental arm: unblinded.

    Attributes:
        endpoint: A time to an event (log-rank test) or a response (difference in rates, pooled variance).
        at_least, below: The range, one of them or both.
        population: With the biomarker of this name; None: all.
    """

    endpoint: str
    at_least: float = -np.inf
    below: float = np.inf
    population: str | None = None

    def __post_init__(self) -> None:
        if not self.at_least < self.below or not (np.isfinite(self.at_least) or np.isfinite(self.below)):
            raise ValueError(f"statistic must have at_least < below, one of them given, got {self!r}")

    @property
    def is_unblinded(self) -> bool:
        """It is."""
        return True

    def answer(self, seen: Seen, rows: Ints, months: Floats) -> Bools:
        """See `Question`."""
        z = seen.z_value(self.endpoint, self.population, rows, months)
        return np.asarray((z >= self.at_least) & (z < self.below))


@dataclass(frozen=True)
class Rejected(Question):
    """Whether hypotheses have been rejected by now, at this milestone or before: unblinded.

    Attributes:
        hypotheses: Names; all of them must have been. `Rejected("a") | Rejected("b")`: any.
    """

    hypotheses: Sequence[str]

    def __init__(self, *hypotheses: str) -> None:
        if not hypotheses:
            raise ValueError("rejected must name one or more hypotheses")
        object.__setattr__(self, "hypotheses", tuple(hypotheses))

    @property
    def is_unblinded(self) -> bool:
        """It is."""
        return True

    def answer(self, seen: Seen, rows: Ints, months: Floats) -> Bools:
        """See `Question`."""
        return np.asarray(np.all([seen.is_rejected(name, rows) for name in self.hypotheses], axis=0))


@dataclass(frozen=True)
class _Several(Question):
    """Questions together.

    Attributes:
        questions: Two or more.
    """

    questions: Sequence[Question]

    @property
    def parts(self) -> Sequence[Question]:
        """The questions."""
        return self.questions


@dataclass(frozen=True)
class AllOf(_Several):
    """All of them hold. Written `a & b`."""

    def answer(self, seen: Seen, rows: Ints, months: Floats) -> Bools:
        """See `Question`."""
        return np.asarray(np.all([each.answer(seen, rows, months) for each in self.questions], axis=0))


@dataclass(frozen=True)
class AnyOf(_Several):
    """One of them holds. Written `a | b`."""

    def answer(self, seen: Seen, rows: Ints, months: Floats) -> Bools:
        """See `Question`."""
        return np.asarray(np.any([each.answer(seen, rows, months) for each in self.questions], axis=0))


@dataclass(frozen=True)
class Not(Question):
    """It does not hold. Written `~a`.

    Attributes:
        question: What does not.
    """

    question: Question

    @property
    def parts(self) -> Sequence[Question]:
        """The question."""
        return (self.question,)

    def answer(self, seen: Seen, rows: Ints, months: Floats) -> Bools:
        """See `Question`."""
        return ~self.question.answer(seen, rows, months)
