"""What a simple law of records is: tables that are counted once, and that draw with the same interface as the VAE."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import nn

from medtwin.core.errors import ConfigError
from medtwin.timelines.generation.generate import People, Timeline
from medtwin.timelines.generation.masks import Masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.source import TimelineSource
from medtwin.timelines.generation.tile import MaskedMass
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec


class CountedLaw(nn.Module, ABC):
    """A law without a latent whose state is counted and not descended to.

    Args:
        sizes: What the data module knows; `num_codes` of it is held against the spec that the law is bound to.
    """

    latent_dim = 0

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        if "num_codes" not in sizes:
            raise ValueError(f"sizes must have num_codes, got {', '.join(sizes)}")
        self.num_codes = int(sizes["num_codes"])

    @abstractmethod
    def count(self, sequences: Sequences, spec: TimelineSpec, seed: int) -> None:
        """Takes the law from training subjects.

        Args:
            sequences: Of the training subjects.
            spec: Of the run.
            seed: Decides every random choice.

        Raises:
            ConfigError: If there are too few subjects.
        """

    def source(self, spec: TimelineSpec, masks: Masks) -> TimelineSource:
        """What draws records.

        Raises:
            ConfigError: If the spec has another vocabulary than the law.
        """
        if len(spec.vocabulary) != self.num_codes:
            raise ConfigError(f"the law is of {self.num_codes} codes, the spec of {len(spec.vocabulary)}: train again")
        return self._source(spec, masks)

    @abstractmethod
    def _source(self, spec: TimelineSpec, masks: Masks) -> CountedSource:
        """What draws records, of a spec that fits."""


class CountedSource(ABC):
    """What a counted law draws with.

    Args:
        law: Its law. spec: Of the run.
    """

    def __init__(self, law: CountedLaw, spec: TimelineSpec) -> None:
        self.net, self._spec = law, spec

    @property
    def spec(self) -> TimelineSpec:
        """Of the run."""
        return self._spec

    @property
    def latent_dim(self) -> int:
        """0."""
        return self.net.latent_dim

    @abstractmethod
    def timelines(self, people: People, noise: Noise, mass: MaskedMass) -> list[Timeline]:
        """See `TimelineSource`."""
