"""How a subject's first numbers of a token are distributed: the mixture that a head begins at.

A level of liver enzymes is skewed even on a logarithmic scale. Few subjects tell of it in a step of training, so that a
head which begins at the same normals for every token has learned little of its shape when training ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.reading.scales import Scale

Floats = NDArray[np.float64]

NUM_LEVELS = 5
"""Normals of a mixture."""
_MOST, _LEAST = 4_000, 50  # numbers that a mixture is fitted to, of each token
_NARROWEST, _PRIOR = 0.15, 5.0  # scaled; and so many numbers are imagined in each normal
_ROUNDS = 50


@dataclass
class FirstNumbers:
    """The first numbers of every token, at most so many of each, part by part."""

    _parts: list[NDArray[np.float32]] = field(default_factory=list)
    _tokens: list[NDArray[np.int64]] = field(default_factory=list)
    _count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, token: NDArray[np.int64], value: NDArray[np.float32], num_tokens: int) -> None:
        """Adds the first numbers of some subjects, (n,) each: of which token, and scaled."""
        if not len(self._count):
            self._count = np.zeros(num_tokens, np.int64)
        kept = self._count[token] < _MOST
        self._tokens.append(token[kept])
        self._parts.append(value[kept])
        self._count += np.bincount(token[kept], minlength=num_tokens)

    def mixtures(self, scales: Sequence[Scale | None]) -> NDArray[np.float64]:
        """(V, 3 NUM_LEVELS) log weights, means and log standard deviations, scaled; nan where too little is known."""
        found = np.full((len(scales), 3 * NUM_LEVELS), np.nan)
        if not self._tokens:
            return found
        token, value = np.concatenate(self._tokens), np.concatenate(self._parts).astype(np.float64)
        order = np.argsort(token, kind="stable")
        bounds = np.searchsorted(token[order], np.arange(len(scales) + 1))
        for index, scale in enumerate(scales):
            mine = value[order[bounds[index] : bounds[index + 1]]][:_MOST]
            if scale is not None and len(mine) >= _LEAST:
                found[index] = fit_mixture(np.clip(mine, scale.low, scale.high))
        return found


def fit_mixture(values: Floats) -> Floats:
    """The mixture of numbers (n,), as `FirstNumbers.mixtures` has it, by expectation and maximisation.

    Begins at the fifths of the sorted numbers, so that the same numbers give the same mixture; a normal that holds few
    of them is drawn to the spread of all. Source: Dempster, Laird & Rubin 1977, J R Stat Soc B 39:1; McLachlan & Peel
    2000, section 3.

    >>> skewed = np.exp(np.linspace(-2, 2, 400)) / 4
    >>> weights, means, widths = fit_mixture(skewed).reshape(3, -1)
    >>> bool(abs(np.exp(weights) @ means - skewed.mean()) < 0.03), float(np.exp(weights).sum().round(6))
    (True, 1.0)
    """
    values = np.sort(values)
    parts = np.array_split(values, NUM_LEVELS)
    weights, means = np.full(NUM_LEVELS, 1 / NUM_LEVELS), np.array([part.mean() for part in parts])
    spread = max(float(values.std()), _NARROWEST)
    widths = np.maximum(np.array([part.std() for part in parts]), spread / NUM_LEVELS)
    for _ in range(_ROUNDS):
        logs = np.log(weights) - np.log(widths) - 0.5 * ((values[:, None] - means) / widths) ** 2
        belongs = np.exp(logs - logs.max(axis=1, keepdims=True))
        belongs /= belongs.sum(axis=1, keepdims=True)
        mass = belongs.sum(axis=0)
        weights = (mass + 1) / (len(values) + NUM_LEVELS)
        means = (belongs.T @ values + _PRIOR * means) / (mass + _PRIOR)
        around = (belongs * (values[:, None] - means) ** 2).sum(axis=0)
        widths = np.sqrt((around + _PRIOR * (spread / NUM_LEVELS) ** 2) / (mass + _PRIOR)).clip(min=_NARROWEST)
    return np.concatenate([np.log(weights), means, np.log(widths)])
