"""An interpolated trigram model of token sequences, check's own: what one sample of records says of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medtwin.check.collapse.tokens import Sequences, with_starts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ngrams:
    """All trigrams that some samples of records hold, so that a model of one can be asked about any other.

    Attributes:
        suffix: Bigram that a trigram (u, v, w) ends in, (v, w), (trigrams,). context: Pair (u, v), (trigrams,).
        last: Token that a bigram ends in, (bigrams,). before: Token that it begins with, (bigrams,).
        num_tokens: Different tokens; a token that a model has not seen is one of those.
        samples: Trigrams of the subjects of each sample, (subjects, trigrams) each.
    """

    suffix: Ints
    context: Ints
    last: Ints
    before: Ints
    num_tokens: int
    samples: tuple[sparse.csr_array, ...]

    @staticmethod
    def of(samples: Sequence[Sequences]) -> Ngrams:
        """The trigrams of some samples."""
        parts = with_starts(samples)
        rows = np.concatenate(parts)
        tokens, place = np.unique(rows, return_inverse=True)
        rows = place.reshape(rows.shape).astype(np.int64)
        size = len(tokens)
        pairs, context = np.unique(rows[:, 0] * size + rows[:, 1], return_inverse=True)
        trigrams, place = np.unique(context * size + rows[:, 2], return_inverse=True)
        first, last = trigrams // size, trigrams % size
        bigrams, suffix = np.unique((pairs[first] % size) * size + last, return_inverse=True)
        starts = np.cumsum([0, *(len(part) for part in parts)])
        matrices = []
        for sample, start, stop in zip(samples, starts[:-1], starts[1:], strict=True):
            shape = sample.num_subjects, len(trigrams)
            entries = np.ones(stop - start), (sample.subject, place[start:stop])
            matrices.append(sparse.csr_array(sparse.coo_array(entries, shape=shape)))
        return Ngrams(suffix, first, bigrams % size, bigrams // size, size, tuple(matrices))

    def counts(self, sample: int, weights: Floats | None = None) -> Floats:
        """How often each trigram stands in a sample whose subjects count by weights (subjects,), (trigrams,)."""
        matrix = self.samples[sample]
        given = np.ones(matrix.shape[0]) if weights is None else weights
        return np.asarray(given @ matrix, np.float64)

    def costs(self, counts: Floats) -> Floats:
        """Nats that each trigram's last token costs given the two before it, (trigrams,), under a model of counts.

        Interpolation by Witten-Bell's method C from trigrams over bigrams and single tokens to the uniform law: a
        context counts as much as it was seen, what is below it as much as it had different followers.

        Args:
            counts: Of the trigrams that the model is fitted to, (trigrams,), 0 or more.

        Source: Witten & Bell 1991, IEEE Trans Inf Theory 37:1085; Chen & Goodman 1999, Comput Speech Lang 13:359.
        """
        bigrams = self._bigrams(counts)
        singles = self.token_counts(counts)
        seen = float((singles > 0).sum())
        of_single = (singles + seen / self.num_tokens) / max(singles.sum() + seen, 1e-300)
        if not seen:
            of_single[:] = 1 / self.num_tokens
        of_bigram = _interpolated(bigrams, self.before, of_single[self.last])
        return -np.log(_interpolated(counts, self.context, of_bigram[self.suffix]))

    def _bigrams(self, counts: Floats) -> Floats:
        return np.asarray(np.bincount(self.suffix, counts, len(self.last)), np.float64)

    def token_counts(self, counts: Floats) -> Floats:
        """How often each token stands there, (tokens,), of counts of trigrams (trigrams,)."""
        return np.asarray(np.bincount(self.last, self._bigrams(counts), self.num_tokens), np.float64)


def _interpolated(counts: Floats, context: Ints, below: Floats) -> Floats:
    """Probabilities (grams,) from counts (grams,) within contexts (grams,), and probabilities without the context."""
    size = int(context.max(initial=-1)) + 1
    total = np.bincount(context, counts, size)
    followers = np.bincount(context, counts > 0, size)
    weight = total + followers
    known = np.where(weight > 0, weight, 1.0)[context]
    return np.where(weight[context] > 0, (counts + followers[context] * below) / known, below)
