"""Graphical multiple-test procedures: weights of alpha on hypotheses, and where they go when one is rejected.

Source: Bretz, Maurer, Brannath & Posch 2009, Stat Med 28:586; Bretz et al. 2011, Biometrical Journal 53:894; Maurer &
Bretz 2013, Stat Biopharm Res 5:311 (group-sequential); Lu 2016, Stat Med 35:4041 (mixtures of Simes tests).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtwin.trials.design.dunnett import weighted_p_value

Floats = NDArray[np.float64]
BoundsAt = Callable[[float], Floats]
_NONE_LEFT = 1e-12  # a loop that keeps all of its weight: nothing passes on


@dataclass(frozen=True)
class Graph:
    """Weights of alpha and transitions between hypotheses.

    Attributes:
        weights: (hypotheses,), of 0 or more, sum at most 1.
        transitions: (hypotheses, hypotheses), row i: shares of the weight of i that go on when it is rejected; of 0 or
            more, sum of a row at most 1, diagonal 0.

    Raises:
        ValueError: If they are not so.
    """

    weights: Floats
    transitions: Floats

    def __post_init__(self) -> None:
        w, g = np.asarray(self.weights, dtype=np.float64), np.asarray(self.transitions, dtype=np.float64)
        if w.ndim != 1 or (w < 0).any() or w.sum() > 1 + 1e-9:
            raise ValueError(f"weights must be of 0 or more with a sum of at most 1, got {w.tolist()}")
        rows_fit = g.shape == (len(w), len(w)) and (g >= 0).all() and (g.sum(axis=1) <= 1 + 1e-9).all()
        if not rows_fit or (np.diag(g) != 0).any():
            raise ValueError(
                f"transitions must be of 0 or more, sum to at most 1 in a row, 0 on the diagonal, got {g.tolist()}"
            )
        object.__setattr__(self, "weights", w)
        object.__setattr__(self, "transitions", g)

    def without(self, hypothesis: int) -> Graph:
        """The graph when a hypothesis, from 0, is rejected: it keeps its place, with weight and transitions of 0.

        >>> Graph([1.0, 0.0], [[0, 1], [0, 0]]).without(0).weights.tolist()
        [0.0, 1.0]
        """
        w, g, j = self.weights, self.transitions, hypothesis
        if not 0 <= j < len(w):
            raise ValueError(f"hypothesis must be from 0 to {len(w) - 1}, got {hypothesis!r}")
        passed = w + w[j] * g[j]
        stays = 1 - g[:, j] * g[j]
        through = np.outer(g[:, j], g[j])
        kept = np.where(stays > _NONE_LEFT, 1 / np.maximum(stays, _NONE_LEFT), 0.0)[:, None] * (g + through)
        np.fill_diagonal(kept, 0.0)
        kept[j], kept[:, j], passed[j] = 0.0, 0.0, 0.0
        return Graph(passed, kept)

    def intersections(self) -> tuple[NDArray[np.bool_], Floats]:
        """Members and weights of every intersection, both (2^hypotheses - 1, hypotheses), that of all first."""
        m = len(self.weights)
        numbers = np.arange(2**m - 1, 0, -1)
        members = np.asarray((numbers[:, None] >> np.arange(m)[::-1]) & 1, dtype=np.bool_)
        graphs = {2**m - 1: self}
        for number in numbers[1:]:
            gone = 1 << (int(~number & (2**m - 1)).bit_length() - 1)
            graphs[int(number)] = graphs[int(number) | gone].without(m - gone.bit_length())
        return members, np.array([graphs[int(number)].weights for number in numbers])

    def adjusted_p_values(self, p_values: ArrayLike) -> Floats:
        """Adjusted p values of the weighted Bonferroni procedure, (hypotheses,), rejecting one after the other.

        Args:
            p_values: Raw p values, (hypotheses,).

        Source: Bretz et al. 2009, algorithm 2.
        """
        p = self._checked(p_values)
        graph, left, found, largest = self, np.ones(len(p), dtype=bool), np.ones(len(p)), 0.0
        for _ in range(len(p)):
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = np.where(left & (graph.weights > 0), p / graph.weights, np.inf)
            j = int(np.argmin(ratios))
            if not ratios[j] < np.inf:
                return found
            largest = max(largest, float(ratios[j]))
            found[j] = min(largest, 1.0)
            left[j], graph = False, graph.without(j)
        return found

    def _checked(self, p_values: ArrayLike) -> Floats:
        p = np.asarray(p_values, dtype=np.float64)
        if p.shape != self.weights.shape or not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"p_values must be {len(self.weights)} between 0 and 1, got {p.tolist()}")
        return p

    def simes_p_values(self, p_values: ArrayLike, families: Sequence[Sequence[int]] | None = None) -> Floats:
        """Adjusted p values of the closed test by weighted Simes tests, (hypotheses,).

        Args:
            p_values: Raw p values, (hypotheses,).
            families: Hypotheses, from 0, tested together by Simes' test; Bonferroni's joins families. None: all.

        Source: Lu 2016.
        """
        members, weights = self.intersections()
        return weighted_simes(members, weights, self._checked(p_values), families)

    def parametric_p_values(
        self, p_values: ArrayLike, correlation: ArrayLike, families: Sequence[Sequence[int]] | None = None
    ) -> Floats:
        """Adjusted p values of the closed test by weighted parametric tests, (hypotheses,).

        Args:
            p_values: Raw one-sided p values, (hypotheses,).
            correlation: Of the statistics, (hypotheses, hypotheses); nan where it is not known, between families.
            families: Hypotheses, from 0, of known correlations; Bonferroni's test joins families. None: all.

        Source: Bretz et al. 2011; Xi et al. 2017.
        """
        members, weights = self.intersections()
        return weighted_parametric(members, weights, self._checked(p_values), correlation, families)


def weighted_simes(
    members: ArrayLike, weights: ArrayLike, p_values: ArrayLike, families: Sequence[Sequence[int]] | None = None
) -> Floats:
    """Adjusted p values, (hypotheses,), of a closed test by mixtures of weighted Simes tests.

    Args:
        members: Of each intersection, (intersections, hypotheses).
        weights: Of the hypotheses in each, same shape.
        p_values: Raw, (hypotheses,).
        families: See `Graph.simes_p_values`.
    """
    p = np.asarray(p_values, dtype=np.float64)

    def simes(w: Floats, family: Sequence[int]) -> float:
        order = sorted((each for each in family if w[each] > 0), key=lambda each: p[each])
        if not order:
            return 1.0
        reached = np.array([w[[other for other in order if p[other] <= p[each]]].sum() for each in order])
        return float(np.min(p[order] / reached))

    return _closed(members, weights, simes, families)


def weighted_parametric(
    members: ArrayLike,
    weights: ArrayLike,
    p_values: ArrayLike,
    correlation: ArrayLike,
    families: Sequence[Sequence[int]] | None = None,
) -> Floats:
    """Adjusted p values, (hypotheses,), of a closed test by weighted parametric tests; see `weighted_simes`."""
    p, rho = np.asarray(p_values, dtype=np.float64), np.asarray(correlation, dtype=np.float64)

    def parametric(w: Floats, family: Sequence[int]) -> float:
        chosen = [each for each in family if w[each] > 0]
        return weighted_p_value(p[chosen], w[chosen], rho[np.ix_(chosen, chosen)]) if chosen else 1.0

    return _closed(members, weights, parametric, families)


def _closed(
    members: ArrayLike,
    weights: ArrayLike,
    local: Callable[[Floats, Sequence[int]], float],
    families: Sequence[Sequence[int]] | None,
) -> Floats:
    """The largest p value of the intersections that hold a hypothesis; theirs is the least of the families'."""
    inside, w = np.asarray(members, dtype=np.bool_), np.asarray(weights, dtype=np.float64)
    groups = [list(range(w.shape[1]))] if families is None else families
    if sorted(each for group in groups for each in group) != list(range(w.shape[1])):
        raise ValueError(f"families must hold each of {w.shape[1]} hypotheses once, got {families!r}")
    each = np.array([min(local(row, group) for group in groups) for row in np.where(inside, w, 0.0)])
    return np.asarray(np.minimum(np.where(inside, each[:, None], 0.0).max(axis=0), 1.0))


@dataclass(frozen=True)
class SequentialHypothesis:
    """A hypothesis tested at several looks.

    Attributes:
        p_values: (looks so far,) one-sided, nan at looks without a test of it.
        bounds_at: The efficacy z bounds, (looks so far,), of its test with an alpha; inf where it is not tested.
    """

    p_values: Floats
    bounds_at: BoundsAt


def first_rejections(
    graph: Graph, hypotheses: Sequence[SequentialHypothesis], alpha: float, bound_of: Callable[[float], float]
) -> list[int]:
    """The look, from 1, at which each hypothesis is rejected by a graphical group-sequential procedure; 0: not.

    At each look hypotheses are tested at the bound of that look with the level that they have, which grows as others
    are rejected.

    Args:
        graph: Weights and transitions.
        hypotheses: In the order of the graph.
        alpha: One-sided familywise error.
        bound_of: The p value that a z bound stands for.

    Raises:
        ValueError: If the hypotheses are not those of the graph.

    Source: Maurer & Bretz 2013, algorithm 1.
    """
    if len(hypotheses) != len(graph.weights):
        raise ValueError(f"hypotheses must be {len(graph.weights)}, got {len(hypotheses)}")
    found = [0] * len(hypotheses)
    for look in range(max(len(each.p_values) for each in hypotheses)):
        rejected = True
        while rejected:
            rejected = False
            for j, each in enumerate(hypotheses):
                level = alpha * float(graph.weights[j])
                if found[j] or level <= 0 or look >= len(each.p_values) or not each.p_values[look] <= 1:
                    continue
                if each.p_values[look] <= bound_of(float(each.bounds_at(level)[look])):
                    found[j], graph, rejected = look + 1, graph.without(j), True
    return found
