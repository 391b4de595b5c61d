"""Group-sequential tests of several hypotheses by a graph, in many trials: alpha passes on at any look."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from medtwin.trials.design.graph import Graph
from medtwin.trials.engine.milestones.bounds import SpendingBounds
from medtwin.trials.engine.milestones.plan import MilestoneTrial

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class GraphTests:
    """The tests of a trial's hypotheses.

    At a look each hypothesis that is tested there has the level which the graph gives it, hypotheses rejected so far
    gone; its bound is that of a group-sequential test at this level from its first look on. Rejections pass their level
    on at once.

    Attributes:
        trial: Whose hypotheses.

    Source: Maurer & Bretz 2013, Stat Biopharm Res 5:311, algorithm 1.
    """

    trial: MilestoneTrial
    _bounds: list[SpendingBounds] = field(init=False, repr=False)
    _levels: dict[tuple[bool, ...], Floats] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._bounds = [
            SpendingBounds(each.spending, 1.0 if each.fractions is not None or each.planned is None else each.planned)
            for each in self.trial.hypotheses
        ]

    def levels(self, rejected: Bools) -> Floats:
        """The level of each hypothesis, (hypotheses,), once some are rejected."""
        key = tuple(rejected.tolist())
        if key not in self._levels:
            self._levels[key] = self._of_graph(rejected)
        return self._levels[key]

    def _of_graph(self, rejected: Bools) -> Floats:
        if self.trial.graph is None:
            return np.where(rejected, 0.0, self.trial.alpha)
        graph: Graph = self.trial.graph
        for place in np.flatnonzero(rejected):
            graph = graph.without(int(place))
        return self.trial.alpha * graph.weights

    def after(self, look: int, places: list[int], z: Floats, information: Floats, rejected_at: Ints) -> Ints:
        """Where each hypothesis is rejected once a look is over, (trials, hypotheses), -1: not.

        Args:
            look: Number of the milestone.
            places: Numbers of the hypotheses that are tested there.
            z: (trials, hypotheses, milestones) so far, nan where a hypothesis was not tested.
            information: The same.
            rejected_at: (trials, hypotheses) before it.
        """
        found = rejected_at.copy()
        tested = np.zeros(found.shape, dtype=np.float64)  # the level at which each was tested last
        while True:
            levels = self._levels_of(found >= 0)
            before = found.copy()
            for place in places:
                level = levels[:, place]
                is_due = (before[:, place] < 0) & (level > tested[:, place]) & (information[:, place, look] > 0)
                is_due &= ~self._is_over(place, look, information)
                for each in np.unique(level[is_due]):
                    # no bound lies below that of a single look at the level
                    rows = np.flatnonzero(is_due & (level == each) & (z[:, place, look] >= -ndtri(each)))
                    bound = self.bound(place, look, float(each), information[rows, place])
                    found[rows[z[rows, place, look] >= bound], place] = look
                tested[:, place] = np.maximum(tested[:, place], level)
            if (found == before).all():
                return found

    def _levels_of(self, rejected: Bools) -> Floats:
        codes, first, which = np.unique(rejected @ (1 << np.arange(rejected.shape[1])), True, True)
        return (
            np.stack([self.levels(rejected[row]) for row in first])[which] if len(codes) else np.zeros(rejected.shape)
        )

    def _is_over(self, place: int, look: int, information: Floats) -> Bools:
        """Whether the last test of a hypothesis has been, (trials,): its level is spent."""
        last = self.trial.names.index(self.trial.hypotheses[place].at[-1])
        return np.asarray(~np.isnan(information[:, place, last])) & (last != look)

    def bound(self, place: int, look: int, level: float, information: Floats) -> Floats:
        """The efficacy z bound of a hypothesis at a look, (trials,), inf for none.

        Args:
            place: Number of the hypothesis.
            look: Number of the milestone.
            level: Its one-sided alpha.
            information: (trials, milestones), nan at looks that did not test it.
        """
        hypothesis = self.trial.hypotheses[place]
        names = self.trial.names
        is_final = look in (names.index(hypothesis.at[-1]), len(names) - 1)
        is_last = np.full(len(information), is_final)
        if hypothesis.fractions is None and hypothesis.planned is None:
            return self._bounds[place].last(level, np.ones((1, len(information))), is_last)
        order = [names.index(name) for name in hypothesis.at if name != names[look]]
        seen = information[:, [*order, look]].T.copy()
        if hypothesis.fractions is not None:
            fixed = np.array([hypothesis.fractions[names[number]] for number in [*order, look]])
            if is_final:
                fixed[-1] = 1.0
            seen = np.where(np.isnan(seen), np.nan, fixed[:, None])
        seen[:-1].sort(axis=0)  # in order of time; nan goes last
        with np.errstate(invalid="ignore"):
            is_behind = (seen[:-1] >= seen[-1]).any(axis=0) & (hypothesis.fractions is not None)
        seen[:-1, is_behind] = np.nan
        found = self._bounds[place].last(level, seen, is_last)
        return np.where(is_behind, np.inf, found)  # fractions fixed in advance whose order the trial did not keep
