"""What samples of records say of themselves and of real anchors, under a trigram model fitted to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from medtwin.check.collapse.jackknife import NUM_GROUPS, Jackknifed, group_weights
from medtwin.check.collapse.ngrams import Ngrams
from medtwin.check.collapse.tokens import Coder
from medtwin.check.records import Records

MAX_SUBJECTS = 1000
"""Subjects of a side; twice as many real ones, for the negative control."""
MIN_SUBJECTS = 30
"""Below which nothing is said."""
NUM_HALVES = 10
ANCHOR, SELF, ENTROPY = "anchor perplexity", "self-perplexity", "entropy"
"""Nats per token: of anchors, of the sample itself, and of a token by its frequency."""

Floats = NDArray[np.float64]
Numbers: TypeAlias = "dict[str, Jackknifed]"


@dataclass(frozen=True)
class Costs:
    """Nats per token of samples of equal size, by name.

    Attributes:
        real: Of real subjects. fresh: Of as many other real ones, in the place of twins. generations: Of twins.
        halves: Differences of disjoint real samples of that size, (halves,) by name.
        size: Subjects of each sample. num_anchors: Of the anchors.
    """

    real: Numbers
    fresh: Numbers
    generations: tuple[Numbers, ...]
    halves: dict[str, Floats]
    size: int
    num_anchors: int


def sample_size(real: Records, anchors: Records | None, generations: Sequence[Records]) -> int:
    """Subjects of each sample: what two disjoint real samples and every generation allow; 0: too few of anything."""
    size = min(MAX_SUBJECTS, real.num_subjects // 2, *(one.num_subjects for one in generations))
    if anchors is None or min(size, anchors.num_subjects) < MIN_SUBJECTS:
        return 0
    return size


def costs(real: Records, anchors: Records, generations: Sequence[Records], rng: np.random.Generator) -> Costs:
    """All costs.

    A token is a fact, a code with the band of its number, the time since the step before, or the end of the record
    (`tokens.Coder`). Anchor perplexity is the exponential of what the anchors' tokens cost under the model of a sample.
    Self-perplexity: the model of one half of its subjects is asked about the other half, and the reverse. Entropy: of
    the frequencies of tokens, with the correction of Miller & Madow.

    Args:
        real: Real subjects, in random order; the bands are decided on all of them.
        anchors: Real subjects that no generation was learned from; at most `MAX_SUBJECTS` are asked about.
        generations: Of twins, subjects in random order.
        rng: Decides the halves.

    Raises:
        ValueError: If there are too few subjects of any side (`sample_size`).

    Source: Jelinek, Mercer, Bahl & Baker 1977, J Acoust Soc Am 62:S63 (perplexity); Miller 1955, in Quastler (ed.),
    Information Theory in Psychology (entropy); that models of twins get worse for real data from generation to
    generation: Shumailov et al. 2024, Nature 631:755.
    """
    size = sample_size(real, anchors, generations)
    if not size:
        raise ValueError(f"costs needs {MIN_SUBJECTS} subjects of each side and twice as many real ones")
    coder = Coder.of(real)
    pool = real.take(np.arange(2 * size))
    asked = anchors.take(np.arange(min(MAX_SUBJECTS, anchors.num_subjects)))
    sides = [asked, pool, *(one.take(np.arange(size)) for one in generations)]
    ngrams = Ngrams.of([coder.sequences(one) for one in sides])
    of_anchors = np.array([ngrams.counts(0, weights) for weights in group_weights(asked.num_subjects)])
    nobody = np.zeros((1 + NUM_GROUPS, size))
    first = np.hstack([group_weights(size), nobody])
    halves: list[Floats] = []
    for _ in range(NUM_HALVES):
        half = np.zeros(2 * size)
        half[rng.permutation(2 * size)[:size]] = 1
        halves.append(np.subtract(*(_numbers(ngrams, 1, one, of_anchors[0]) for one in (half, 1 - half))))
    return Costs(
        _jackknifed(ngrams, 1, first, of_anchors),
        _jackknifed(ngrams, 1, first[:, ::-1], of_anchors),
        tuple(_jackknifed(ngrams, 2 + i, group_weights(size), of_anchors) for i in range(len(generations))),
        dict(zip((ANCHOR, SELF, ENTROPY), np.array(halves).T, strict=True)),
        size,
        asked.num_subjects,
    )


def _jackknifed(ngrams: Ngrams, sample: int, weights: Floats, of_anchors: Floats) -> Numbers:
    """The numbers of a sample whose subjects count by weights, (1 + groups, subjects): of everybody first."""
    own = np.array([_numbers(ngrams, sample, one, of_anchors[0]) for one in weights]).T
    cost = ngrams.costs(ngrams.counts(sample, weights[0]))
    shared = of_anchors @ cost / of_anchors.sum(axis=1)
    return {ANCHOR: Jackknifed.of(own[0], shared), SELF: Jackknifed.of(own[1]), ENTROPY: Jackknifed.of(own[2])}


def _numbers(ngrams: Ngrams, sample: int, weights: Floats, anchors: Floats) -> Floats:
    """Nats per token, (3,): of anchors (trigrams,), of the sample itself, and by frequency alone."""
    counts = ngrams.counts(sample, weights)
    anchor = float(anchors @ ngrams.costs(counts)) / anchors.sum()
    halves = [ngrams.counts(sample, weights * (np.arange(len(weights)) % 2 == fold)) for fold in (0, 1)]
    own = sum(float(other @ ngrams.costs(one)) for one, other in (halves, halves[::-1]))
    return np.array([anchor, own / max(counts.sum(), 1.0), entropy(ngrams.token_counts(counts))])


def entropy(counts: Floats) -> float:
    """Entropy in nats of what was counted, with the correction of Miller & Madow; 0 of nothing.

    >>> round(entropy(np.array([50.0, 50.0])), 3)
    0.698
    """
    total = counts.sum()
    if not total:
        return 0.0
    share = counts[counts > 0] / total
    return float(-(share * np.log(share)).sum() + (len(share) - 1) / (2 * total))
