"""A law of patients' summaries (`summaries`), and a chain that is bent until its record has the summary that was drawn.

How a summary becomes a record: the chain (`walk`) goes step by step, and the probability of every event is multiplied
by how often the person is still to have it per step that is left, over how often people have it per step. What the
person has had enough of is not said any more; a step ends the sooner the fewer events are left for it. The record stops
when it has its steps, or its window is over. Times are the chain's, but no gap takes more than eight times the window's
share of a step, lest the window be over too soon. Numbers lie about the person's mean. Events that are
too rare for the summary, and children of events, are left to the chain.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from medtwin.core.seeds import generator
from medtwin.timelines.baselines.chain import NAMES as CHAIN
from medtwin.timelines.baselines.chain import Chain, count_chain
from medtwin.timelines.baselines.hard_facts import HardFacts
from medtwin.timelines.baselines.knots import Knots
from medtwin.timelines.baselines.law import CountedLaw, CountedSource
from medtwin.timelines.baselines.summaries import NAMES, features, fit_summaries
from medtwin.timelines.baselines.tables import Tables
from medtwin.timelines.baselines.walk import Walk
from medtwin.timelines.generation.generate import People, Timeline
from medtwin.timelines.generation.masks import Masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.tile import MaskedMass
from medtwin.timelines.priors import FitGan, FitMixture, GanPrior, MixturePrior, Prior, PriorFactory
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_HASTE = 3.0  # power by which who is behind is slow to end a step: with 1, much of what was drawn is never said
_STRIDE = 8.0  # a gap takes at most so many times the window's share of a step
_MIXTURE = ("weights", "means", "scales")
_GAN = ("shift", "scale", "w1", "b1", "w2", "b2", "w3", "b3")


class _Summary(CountedLaw):
    """A law of summaries.

    Args:
        sizes: Filled in from the data.
        factors: Fits the law of the factors.
        num_factors: How many; fewer where there are fewer than five training subjects for each.
        names: Arrays of that law.
    """

    def __init__(
        self, sizes: Mapping[str, int], factors: PriorFactory, num_factors: int, names: tuple[str, ...]
    ) -> None:
        super().__init__(sizes)
        if num_factors < 1:
            raise ValueError(f"num_factors must be 1 or more, got {num_factors!r}")
        self._factory, self._num_factors = factors, num_factors
        self.chain, self.summaries, self.factors = Tables(CHAIN), Tables(NAMES), Tables(names)

    def count(self, sequences: Sequences, spec: TimelineSpec, seed: int) -> None:
        """See `CountedLaw`."""
        self.chain.fill(count_chain(sequences, spec))
        numbers = Chain(self.chain, spec).numbers
        arrays, factors = fit_summaries(sequences, spec, numbers, self._num_factors, seed)
        self.summaries.fill(arrays)
        self.factors.fill(self._factory.fit(factors, np.full_like(factors, -np.inf), seed=seed).to_arrays())

    @abstractmethod
    def prior(self) -> Prior:
        """The law of the factors."""

    def _source(self, spec: TimelineSpec, masks: Masks) -> CountedSource:
        return _SummarySource(self, spec, masks)


class SummaryMixture(_Summary):
    """A Gaussian mixture on summaries as a model.

    Args:
        sizes: Filled in from the data.
        factors: Fits the mixture.
        num_factors: How many; fewer where there are fewer than five training subjects for each.
    """

    def __init__(self, sizes: Mapping[str, int], factors: FitMixture, num_factors: int = 24) -> None:
        super().__init__(sizes, factors, num_factors, _MIXTURE)

    def prior(self) -> MixturePrior:
        """The mixture."""
        return MixturePrior.from_arrays(self.factors.arrays())


class SummaryGan(_Summary):
    """A generative adversarial network on summaries as a model.

    Args:
        sizes: Filled in from the data.
        factors: Fits the network.
        num_factors: How many; fewer where there are fewer than five training subjects for each.
    """

    def __init__(self, sizes: Mapping[str, int], factors: FitGan, num_factors: int = 24) -> None:
        super().__init__(sizes, factors, num_factors, _GAN)

    def prior(self) -> GanPrior:
        """The network."""
        return GanPrior.from_arrays(self.factors.arrays())


class _SummarySource(CountedSource):
    def __init__(self, law: _Summary, spec: TimelineSpec, masks: Masks) -> None:
        super().__init__(law, spec)
        self._chain, self._prior, self._tables = Chain(law.chain, spec), law.prior(), law.summaries
        self._facts = HardFacts(spec, masks, law.chain["fact_shares"])
        self._amounts = Knots(self._tables["count_values"], self._tables["count_offsets"])

    def timelines(self, people: People, noise: Noise, mass: MaskedMass) -> list[Timeline]:
        target = self._targets(people)
        return Walk(self._chain, self._facts, people, noise, mass, tilt=target).timelines()

    def _targets(self, people: People) -> _Targets:
        tables, num = self._tables, people.num_needed
        rngs = [generator(0, "summary", int(key)) for key in people.keys[:num]]
        factors = self._prior.draw_many(rngs).astype(np.float64)
        normal = np.stack([rng.standard_normal(len(tables["noise"])) for rng in rngs])
        x = features(self.spec, people.attributes[:num])
        # (n, 1, width) times a matrix is one product per row: the same sums whatever n is.
        explained = (
            np.matmul(x[:, None], tables["effects"])[:, 0] + np.matmul(factors[:, None], tables["loadings"])[:, 0]
        )
        scores = explained + tables["noise"] * normal
        num_amounts = len(self._amounts.offsets) - 1
        groups = np.tile(np.arange(num_amounts), num)
        drawn = self._amounts.value(groups, ndtr(scores[:, :num_amounts]).ravel()).reshape(num, num_amounts)
        extra = np.stack([rng.random(num_amounts) for rng in rngs])
        amounts = np.maximum(np.floor(drawn + extra), 0.0)  # so that the mean is kept, whatever the fraction
        return _Targets(tables, amounts, scores[:, num_amounts:], self._chain.num_codes)


class _Targets:
    """What persons are to have in all: the tilt of a `Walk`.

    Args:
        tables: Of the summaries.
        amounts: (n, C + 1) counts and then steps.
        means: (n, M) standardised mean scores of numbers.
        num_codes: V.
    """

    def __init__(self, tables: Tables, amounts: Floats, means: Floats, num_codes: int) -> None:
        self._counted, self._num_codes = tables["counted"], num_codes
        self._left, self._num_steps = amounts[:, :-1].copy(), np.maximum(amounts[:, -1], 1.0)
        self._place = np.full(num_codes, -1)
        self._place[self._counted] = np.arange(len(self._counted))
        self._usual = np.stack([tables["static_per_code"], tables["steps_per_code"]])
        self._mean, self._within = np.zeros((len(means), num_codes)), np.ones(num_codes)
        self._mean[:, tables["valued"]] = means * tables["between"]
        self._within[tables["valued"]] = tables["within"]

    def weights(self, rows: Ints, step: Ints) -> Floats:
        """See `Tilt`."""
        is_dated = step > 0
        usual = self._usual[is_dated.astype(int)]
        steps_left = np.where(is_dated, np.maximum(self._num_steps[rows] - step + 1, 1.0), 1.0)
        # What is never said at this kind of step is not to be hurried.
        wanted = np.where(usual > 0, self._left[rows], 0.0) / steps_left[:, None]
        eagerness = wanted.sum(axis=1) / np.maximum(usual.sum(axis=1), 1e-9)
        weights = np.repeat(np.minimum(eagerness, 1.0)[:, None], self._num_codes + 1, axis=1)
        weights[:, self._counted] = wanted / np.where(usual > 0, usual, 1.0)
        weights[:, -1] = 1.0 / np.maximum(eagerness, 1e-2) ** _HASTE
        return weights

    def note(self, rows: Ints, token: Ints) -> None:
        """See `Tilt`."""
        place = self._place[token]
        known = place >= 0
        self._left[rows[known], place[known]] = np.maximum(self._left[rows[known], place[known]] - 1, 0)

    def is_over(self, rows: Ints, step: Ints) -> NDArray[np.bool_]:
        """See `Tilt`."""
        return np.asarray((step >= self._num_steps[rows]) | (self._left[rows].sum(axis=1) <= 0))

    def longest(self, rows: Ints, step: Ints, minutes_left: Ints) -> Floats:
        """See `Tilt`."""
        steps_left = np.maximum(self._num_steps[rows] - step, 0.0)
        return np.asarray(minutes_left * np.minimum(_STRIDE / (steps_left + 1.0), 1.0))

    def scores(self, rows: Ints, token: Ints, normal: Floats) -> Floats:
        """See `Tilt`."""
        return np.asarray(self._mean[rows, token] + self._within[token] * normal)
