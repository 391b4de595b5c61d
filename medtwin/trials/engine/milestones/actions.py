"""What may be done at a milestone: stop, let the trial last longer or shorter, change enrolment and its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from medtwin.trials.engine.milestones.conditions import Question, Statistic

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Changeable(Protocol):
    """Simulated trials that can be changed from a month on; rows are trials."""

    def stop(self, rows: Ints, months: Floats, reason: str) -> None:
        """Ends them."""
        ...

    def end_by(self, rows: Ints, months: Floats, last: float) -> None:
        """Sets the month by which they end at the latest, not before now."""
        ...

    def change_rate(self, rows: Ints, months: Floats, factor: float) -> None:
        """Sets the rate at which patients enter screening, relative to the plan's."""
        ...

    def pause(self, rows: Ints, months: Floats, length: float) -> None:
        """Lets nobody enter screening for some months."""
        ...

    def resize(self, rows: Ints, months: Floats, num_subjects: int) -> None:
        """Sets the number of patients wanted; who is in screening by now stays."""
        ...


class Action(Protocol):
    """Something done at a milestone."""

    @property
    def when(self) -> Question | None:
        """What has to hold; None: always."""
        ...

    @property
    def label(self) -> str:
        """In words."""
        ...

    @property
    def changes_information(self) -> bool:
        """Whether it changes how much information later tests have."""
        ...

    def act(self, trials: Changeable, rows: Ints, months: Floats) -> None:
        """Does it to some trials.

        Args:
            trials: All of a block.
            rows: Which of them.
            months: (rows,) the calendar month of each.
        """
        ...


@dataclass(frozen=True)
class Stop:
    """The trial ends here.

    Attributes:
        reason: In words, such as "efficacy" or "futility". when: What has to hold; None: always.
    """

    reason: str
    when: Question | None = None

    @property
    def label(self) -> str:
        """In words."""
        return f"stop for {self.reason}"

    @property
    def changes_information(self) -> bool:
        """It leaves none."""
        return False

    def act(self, trials: Changeable, rows: Ints, months: Floats) -> None:
        """See `Action`."""
        trials.stop(rows, months, self.reason)


def go_no_go(endpoint: str, alpha: float, population: str | None = None) -> Stop:
    """A binding gate: the trial stops unless the test of an endpoint reaches one-sided alpha.

    Args:
        endpoint: A response (difference in rates, pooled variance) or a time to an event (log-rank test).
        alpha: Between 0 and 1.
        population: With the biomarker of this name; None: all.

    Raises:
        ValueError: If alpha is no level.

    >>> go_no_go("orr", 0.1).label
    'stop for no go: orr'
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha!r}")
    return Stop(f"no go: {endpoint}", Statistic(endpoint, below=float(-ndtri(alpha)), population=population))


@dataclass(frozen=True)
class EndBy:
    """The trial ends by another month at the latest: longer or shorter than planned.

    Attributes:
        month: Of the calendar; not before the milestone. when: What has to hold; None: always.
    """

    month: float
    when: Question | None = None

    def __post_init__(self) -> None:
        if not 0 < self.month < np.inf:
            raise ValueError(f"month must be above 0, got {self.month!r}")

    @property
    def label(self) -> str:
        """In words."""
        return f"end by month {self.month:g}"

    @property
    def changes_information(self) -> bool:
        """It does."""
        return True

    def act(self, trials: Changeable, rows: Ints, months: Floats) -> None:
        """See `Action`."""
        trials.end_by(rows, months, self.month)


@dataclass(frozen=True)
class ChangeAccrual:
    """Patients enter screening at another rate from now on.

    Attributes:
        factor: On the planned rate at that time, above 0. when: What has to hold; None: always.
    """

    factor: float
    when: Question | None = None

    def __post_init__(self) -> None:
        if not 0 < self.factor < np.inf:
            raise ValueError(f"factor must be above 0 (to stop it, PauseAccrual or Resize), got {self.factor!r}")

    @property
    def label(self) -> str:
        """In words."""
        return f"accrual times {self.factor:g}"

    @property
    def changes_information(self) -> bool:
        """It does where a look comes by the calendar."""
        return True

    def act(self, trials: Changeable, rows: Ints, months: Floats) -> None:
        """See `Action`."""
        trials.change_rate(rows, months, self.factor)


@dataclass(frozen=True)
class PauseAccrual:
    """Nobody enters screening for some months.

    Attributes:
        months: Above 0. when: What has to hold; None: always.
    """

    months: float
    when: Question | None = None

    def __post_init__(self) -> None:
        if not 0 < self.months < np.inf:
            raise ValueError(f"months of a pause must be above 0, got {self.months!r}")

    @property
    def label(self) -> str:
        """In words."""
        return f"pause of {self.months:g} months"

    @property
    def changes_information(self) -> bool:
        """It does where a look comes by the calendar."""
        return True

    def act(self, trials: Changeable, rows: Ints, months: Floats) -> None:
        """See `Action`."""
        trials.pause(rows, months, self.months)


@dataclass(frozen=True)
class Resize:
    """The trial wants another number of patients; who is in screening by now stays.

    Attributes:
        num_subjects: 1 or more. when: What has to hold; None: always.
    """

    num_subjects: int
    when: Question | None = None

    def __post_init__(self) -> None:
        if int(self.num_subjects) != self.num_subjects or self.num_subjects < 1:
            raise ValueError(f"num_subjects must be a whole number of 1 or more, got {self.num_subjects!r}")

    @property
    def label(self) -> str:
        """In words."""
        return f"resize to {self.num_subjects} patients"

    @property
    def changes_information(self) -> bool:
        """It does."""
        return True

    def act(self, trials: Changeable, rows: Ints, months: Floats) -> None:
        """See `Action`."""
        trials.resize(rows, months, int(self.num_subjects))


@dataclass(frozen=True)
class Enrich:
    """Only patients with the biomarker are enrolled from now on: refused by every trial, see `MilestoneTrial`.

    Attributes:
        population: The biomarker. when: What has to hold; None: always.
    """

    population: str
    when: Question | None = None

    @property
    def label(self) -> str:
        """In words."""
        return f"enrich to {self.population}"

    @property
    def changes_information(self) -> bool:
        """It does."""
        return True

    def act(self, trials: Changeable, rows: Ints, months: Floats) -> None:
        """Never reached."""
        raise NotImplementedError(self.label)
