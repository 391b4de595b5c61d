"""What draws timelines, whatever is behind it: the temporal VAE, or a simple law to hold against it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from medtwin.timelines.generation.generate import People, Timeline, run_tile
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.tile import MaskedMass, TimelineModel
from medtwin.timelines.reading.spec import TimelineSpec


@runtime_checkable
class TimelineSource(Protocol):
    """A trained law of records, given attributes."""

    @property
    def spec(self) -> TimelineSpec:
        """Of the run."""

    @property
    def latent_dim(self) -> int:
        """Numbers of z that `People.latent` has to bring; 0: none."""

    def timelines(self, people: People, noise: Noise, mass: MaskedMass) -> list[Timeline]:
        """The records of the subjects of a tile that are wanted; each depends on its own attributes and key only.

        Args:
            people: Who.
            noise: Made of `people.keys`.
            mass: Counts the masked probability.
        """


def draw_tile(model: TimelineModel | TimelineSource, people: People, noise: Noise, mass: MaskedMass) -> list[Timeline]:
    """The timelines of the subjects of a tile that are wanted, whatever draws them."""
    if isinstance(model, TimelineSource):
        return model.timelines(people, noise, mass)
    return run_tile(model, people, noise, mass)
