"""A Markov chain by type (`chain`): what it knows of a record is the last thing said, and how much time is left."""

from __future__ import annotations

from collections.abc import Mapping

from medtwin.timelines.baselines.chain import NAMES, Chain, count_chain
from medtwin.timelines.baselines.hard_facts import HardFacts
from medtwin.timelines.baselines.law import CountedLaw, CountedSource
from medtwin.timelines.baselines.tables import Tables
from medtwin.timelines.baselines.walk import Walk
from medtwin.timelines.generation.generate import People, Timeline
from medtwin.timelines.generation.masks import Masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.tile import MaskedMass
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec


class Markov(CountedLaw):
    """The chain as a model.

    Args:
        sizes: Filled in from the data.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(sizes)
        self.chain = Tables(NAMES)

    def count(self, sequences: Sequences, spec: TimelineSpec, seed: int) -> None:
        """See `CountedLaw`."""
        self.chain.fill(count_chain(sequences, spec))

    def _source(self, spec: TimelineSpec, masks: Masks) -> CountedSource:
        return _MarkovSource(self, spec, masks)


class _MarkovSource(CountedSource):
    def __init__(self, law: Markov, spec: TimelineSpec, masks: Masks) -> None:
        super().__init__(law, spec)
        self._chain, self._facts = Chain(law.chain, spec), HardFacts(spec, masks, law.chain["fact_shares"])

    def timelines(self, people: People, noise: Noise, mass: MaskedMass) -> list[Timeline]:
        return Walk(self._chain, self._facts, people, noise, mass).timelines()
