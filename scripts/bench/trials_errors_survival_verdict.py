"""What trials_errors_survival.py finds of a row, and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trials_errors_rates import NOMINAL_TOLERANCE, do_agree, standard_error
from trials_errors_survival_tests import Row

POWER_ERRORS = 3.0


@dataclass(frozen=True)
class Measured:
    """A row with what was found.

    Attributes:
        row: Which. is_null: Whether its rate is an error. kind, in_strata: Of its test.
        rate: Of rejection. trials: Simulated.
        independent: Rate and trials of the independent programme.
    """

    row: Row
    is_null: bool
    kind: str
    in_strata: bool
    rate: float
    trials: int
    independent: tuple[float, int] | None = None

    @property
    def standard_error(self) -> float:
        """Monte-Carlo, of the rate."""
        return standard_error(self.rate, self.trials)

    @property
    def tolerance(self) -> float:
        """How far the rate may lie from what is expected."""
        at = self.row.expected
        expected = math.sqrt(at * (1 - at) / self.trials)
        return max(NOMINAL_TOLERANCE, 4 * expected) if self.is_null else POWER_ERRORS * expected

    @property
    def is_near(self) -> bool:
        """Whether it is as expected."""
        return abs(self.rate - self.row.expected) <= self.tolerance

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.is_near:
            return "ok"
        if self.independent is None:
            return "MISS"
        return "as R" if do_agree((self.rate, self.trials), self.independent) else "MISS"
