"""ACTG 175: how many events follow, projected from a part of what is known, and how often the number lies within.

Two questions. Halves: a model of a random half of an arm projects the events of the other half. Cuts: a model of what
was known of an arm by so many days of follow-up projects the events that came after, of those who were still watched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.event_projection import (
    EventProjection,
    FamiliesProjection,
    project_events,
    project_over_families,
    weighed_models,
)
from medtwin.trials.analysis.kaplan_meier import kaplan_meier
from medtwin.trials.analysis.parametric import parametric_model
from tests.trials.real_trials.actg175 import trial

Floats = NDArray[np.float64]
CUTS = tuple(range(300, 801, 50))
DRAWS = 400


@dataclass(frozen=True)
class Projected:
    """Events that came, and what was projected of them."""

    events: int
    projection: EventProjection | FamiliesProjection

    @property
    def is_inside(self) -> bool:
        """Whether the number lies within the limits of 95 %."""
        low, high = self.projection.interval()
        return low <= self.events <= high


def arm_of(folder: Path, arm: int) -> tuple[Floats, Floats]:
    """Days and events of an arm."""
    d = trial(folder)
    here = d["arms"] == arm
    return d["days"][here], d["cens"][here]


def other_half(folder: Path, seed: int, *, arm: int = 0, fitted: int = 0) -> Projected:
    """The events of a random half of an arm by a Weibull model of the other half, or of a half of another arm."""
    rng = np.random.default_rng(seed)
    days, event = arm_of(folder, fitted)
    order = rng.permutation(len(days))
    known, rest = order[: len(days) // 2], order[len(days) // 2 :]
    later, came = days[rest], event[rest]
    if arm != fitted:
        later, came = arm_of(folder, arm)
        half = rng.permutation(len(later))[: len(later) // 2]
        later, came = later[half], came[half]
    model = parametric_model(days[known], event[known])
    watched = kaplan_meier(days[known], 1 - event[known])
    return Projected(int(came.sum()), project_events(model, np.zeros(len(later)), watched, rng, draws=DRAWS))


def after(days: Floats, event: Floats, cut: float, rng: np.random.Generator, *, averaged: bool = True) -> Projected:
    """The events after a cut by what was known then: by all families that it leaves, or by the likeliest alone.

    How long each is watched is taken from the whole follow-up: that the trial would go on so long was planned.
    """
    models = weighed_models(np.minimum(days, cut), (event == 1) & (days <= cut))
    at_risk = days > cut
    start, watched = np.full(at_risk.sum(), float(cut)), kaplan_meier(days, 1 - event)
    if averaged:
        found: EventProjection | FamiliesProjection = project_over_families(models, start, watched, rng, draws=DRAWS)
    else:
        found = project_events(max(models, key=lambda each: each[1])[0], start, watched, rng, draws=DRAWS)
    return Projected(int(event[at_risk].sum()), found)


def simulated(seed: int, cut: float = 500.0, *, size: int = 532) -> tuple[Projected, Projected]:
    """The same of a trial whose law is known, lognormal and much like the control arm; then with another law after.

    The second is the negative control: after the cut the hazard is five times as high, which nothing before says.
    """
    rng = np.random.default_rng(seed)
    time = np.exp(7.6 + 1.1 * rng.normal(size=size))
    end = rng.uniform(700, 1200, size)
    sooner = np.where(time > cut, cut + (time - cut) / 5, time)
    same, changed = (after(np.minimum(t, end), (t <= end).astype(np.float64), cut, rng) for t in (time, sooner))
    return same, changed
