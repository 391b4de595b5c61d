"""When an event-driven group-sequential trial looks, whom it has by then, and what it expects to need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtwin.trials.design.boundaries import Exits
from medtwin.trials.design.two_arm_survival import TwoArmSurvival

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EventDrivenLooks:
    """The looks of a trial that waits for events.

    Attributes:
        events: (looks,) events waited for.
        times: (looks,) calendar months at which they are expected.
        subjects: (looks,) patients enrolled by then.
    """

    events: Floats
    times: Floats
    subjects: Floats

    def expected(self, exits: Exits) -> ExpectedCourse:
        """Means over where the trial stops."""
        return ExpectedCourse(*(exits.expected(each) for each in (self.events, self.subjects, self.times)))


@dataclass(frozen=True)
class ExpectedCourse:
    """Means at the stop.

    Attributes:
        events: Events. subjects: Patients enrolled. duration: Calendar months.
    """

    events: float
    subjects: float
    duration: float


def event_driven_looks(trial: TwoArmSurvival, events: ArrayLike) -> EventDrivenLooks:
    """The looks of a trial after so many events.

    Args:
        trial: Who is followed.
        events: (looks,) events, increasing.

    Raises:
        ValueError: If so many events are never expected.
    """
    wanted = np.atleast_1d(np.asarray(events, dtype=np.float64))
    times = trial.time_of_events(wanted)
    if not np.isfinite(times).all():
        raise ValueError(f"events must be as many as the trial can have, got {wanted.tolist()}")
    return EventDrivenLooks(wanted, times, trial.subjects(times))
