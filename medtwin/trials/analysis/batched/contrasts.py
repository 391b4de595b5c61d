"""One contrast of the arms in each of many trials: its estimate, test and limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from medtwin.trials.analysis.follow_up import Bools, Floats, as_level


@dataclass(frozen=True)
class Contrasts:
    """Experimental less control, or the logarithm of experimental by control, of each trial.

    A trial without an estimate, such as one in which nothing varies or whose fit has no end, has an estimate or
    standard error of nan: its statistic is nan and rejects nothing.

    Attributes:
        estimate, standard_error: (trials,). degrees_of_freedom: (trials,) of t, inf for a normal statistic.
    """

    estimate: Floats
    standard_error: Floats
    degrees_of_freedom: Floats

    @classmethod
    def normal(cls, estimate: Floats, standard_error: Floats) -> Contrasts:
        """Of Wald's normal tests."""
        return cls(estimate, standard_error, np.full(estimate.shape, np.inf))

    def statistic(self, null: float = 0.0) -> Floats:
        """(estimate - null) / standard_error, (trials,); nan where that is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (self.estimate - null) / self.standard_error
        return np.where(self.standard_error > 0, found, np.nan)

    def p_greater(self, null: float = 0.0) -> Floats:
        """One-sided p values, (trials,), against a contrast above the null."""
        return np.asarray(stdtr(self.degrees_of_freedom, -self.statistic(null)))

    def p_two_sided(self, null: float = 0.0) -> Floats:
        """Two-sided p values, (trials,)."""
        return np.asarray(2 * stdtr(self.degrees_of_freedom, -np.abs(self.statistic(null))))

    def z(self, null: float = 0.0) -> Floats:
        """The normal statistic of the same one-sided p value, (trials,), to be compared with group-sequential bounds.

        >>> Contrasts(np.array([2.0]), np.array([1.0]), np.array([5.0])).z().round(4).tolist()
        [1.6355]
        """
        t = self.statistic(null)
        return np.asarray(np.sign(t) * -ndtri(stdtr(self.degrees_of_freedom, -np.abs(t))))

    def rejects(self, alpha: float, null: float = 0.0) -> Bools:
        """Whether a one-sided test at alpha finds the contrast above the null, (trials,)."""
        return np.asarray(self.p_greater(null) <= alpha)

    def limits(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Lower and upper limits, (trials,) each.

        Raises:
            ValueError: If the level does not lie between 0 and 1.
        """
        half = stdtrit(self.degrees_of_freedom, 0.5 + as_level("level", level) / 2) * self.standard_error
        return self.estimate - half, self.estimate + half
