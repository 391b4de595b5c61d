"""Distributions as quantiles: any law of numbers to normal scores and back.

Sources: normal scores, van der Waerden 1952; scores anywhere in the span of a value that has a share of its own
(the distributional transform), Rueschendorf 2009, Journal of Statistical Planning and Inference 139, 3921-3927.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_MAX_KNOTS = 128
_PER_KNOT = 5  # a knot is the mean of so many subjects at least, so that it is nobody's own


@dataclass(frozen=True)
class Quantiles:
    """A distribution as means of equally many sorted values each.

    Attributes:
        knots: (q,) ascending. A value that many share is several knots.
    """

    knots: Floats

    @classmethod
    def of(cls, values: Floats) -> Quantiles:
        """Those of some values, (n,), n at least 1."""
        num = int(np.clip(len(values) // _PER_KNOT, 1, _MAX_KNOTS))
        return cls(np.array([part.mean() for part in np.array_split(np.sort(values), num)]))

    def score(self, values: Floats) -> Floats:
        """Normal scores of values, same shape: the middle of the span of a value that is several knots."""
        left, right = self._span(values)
        return self._normal((left + right) / 2)

    def spread(self, values: Floats, uniforms: Floats) -> Floats:
        """Normal scores of values, same shape: at a place, in [0, 1), of each value's span.

        With uniform numbers the scores of draws from the distribution are standard normal, whatever values it repeats.

        >>> law = Quantiles(np.array([18.0, 18.0, 18.0, 30.0]))
        >>> law.spread(np.array([18.0, 18.0, 30.0]), np.array([0.0, 0.9, 0.5])).round(2).tolist()
        [-1.15, 0.19, 1.15]
        >>> law.value(law.spread(np.array([18.0, 18.0]), np.array([0.0, 0.9]))).tolist()
        [18.0, 18.0]
        """
        left, right = self._span(values)
        return self._normal(left + uniforms * (right - left))

    def value(self, scores: Floats) -> Floats:
        """Values of normal scores, same shape; beyond the outer knots by half a step at most."""
        part = torch.special.ndtr(torch.from_numpy(np.asarray(scores, np.float64))).numpy()
        if len(self.knots) == 1:
            return np.full(np.shape(scores), self.knots[0])
        first, last = self.knots[0], self.knots[-1]
        low, high = first - (self.knots[1] - first) / 2, last + (last - self.knots[-2]) / 2
        parts, knots = np.concatenate([[0.0], self._parts(), [1.0]]), np.concatenate([[low], self.knots, [high]])
        return np.asarray(np.interp(part, parts, knots))

    def _parts(self) -> Floats:
        return (np.arange(len(self.knots)) + 0.5) / len(self.knots)

    def _span(self, values: Floats) -> tuple[Floats, Floats]:
        """Probabilities between which each value lies; both are the same where a value is not several knots."""
        p = self._parts()
        one = np.interp(values, self.knots, p)
        other = 1 - np.interp(-values, -self.knots[::-1], 1 - p[::-1])
        return np.minimum(one, other), np.maximum(one, other)

    def _normal(self, part: Floats) -> Floats:
        outermost = 0.5 / (len(self.knots) + 1)
        return np.asarray(torch.special.ndtri(torch.from_numpy(np.clip(part, outermost, 1 - outermost))).numpy())
