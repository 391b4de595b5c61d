"""What the mixed model for repeated measures needs of each trial: sums over patients who were seen at the same visits.

The value of a patient at a visit has the mean u' B[:, visit]: u are numbers of the patient (one, arm, covariates), so
that sums of u u', u y' and y y' say all, however many patients there are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from medtwin.trials.analysis.follow_up import Floats, Ints


@dataclass(frozen=True)
class VisitDesign:
    """Columns of the model: a number of the patient at some visits.

    Attributes:
        at: (visits, columns) 1 at the visits that a column is of, else 0. source: (columns,) which number.
        arm_columns: (visits,) columns of the difference of the arms at each visit.
    """

    at: Floats
    source: Ints
    arm_columns: Ints

    @classmethod
    def of(cls, visits: int, covariates: int, *, by_visit: bool) -> VisitDesign:
        """Visits, arm by visit, and covariates, by visit or with one slope for all."""
        each, one = np.eye(visits), np.ones((visits, 1))
        blocks = [(each, 0), (each, 1), *((each if by_visit else one, 2 + c) for c in range(covariates))]
        at = np.hstack([block for block, _ in blocks])
        source = np.concatenate([np.full(block.shape[1], number) for block, number in blocks])
        return cls(at, source, np.arange(visits, 2 * visits))

    @cached_property
    def placed(self) -> Floats:
        """(visits x numbers, columns) 1 where a column is of the visit and the number."""
        return np.asarray(self.at[:, None] * (np.arange(self.source.max() + 1)[:, None] == self.source)).reshape(
            -1, len(self.source)
        )

    @cached_property
    def pairs(self) -> Floats:
        """(visits^2 numbers^2, columns^2): the same of two columns."""
        visits, columns = self.at.shape
        one = self.placed.reshape(visits, -1, columns)
        return np.asarray(np.einsum("asi,btj->abstij", one, one).reshape(-1, columns**2))

    def of_columns(self, products: Floats) -> Floats:
        """Sums by two visits and two numbers, (..., visits^2, numbers^2), as of columns, (..., columns, columns)."""
        size = len(self.source)
        return np.asarray(
            (products.reshape(*products.shape[:-2], -1) @ self.pairs).reshape(*products.shape[:-2], size, size)
        )

    def of_numbers(self, matrix: Floats) -> Floats:
        """The transpose of `of_columns`: (trials, columns, columns) to (trials, visits^2, numbers^2)."""
        found = matrix.reshape(len(matrix), -1) @ self.pairs.T
        return np.asarray(found.reshape(len(matrix), len(self.at) ** 2, -1))


@dataclass(frozen=True)
class PatternSums:
    """Sums over the patients of each trial who were seen at the same visits, a pattern.

    Attributes:
        count: (trials, patterns). uu: (trials, patterns, numbers, numbers). uy: (trials, patterns, numbers, visits).
        yy: (trials, patterns, visits, visits).
    """

    count: Floats
    uu: Floats
    uy: Floats
    yy: Floats

    def of(self, trials: Ints) -> PatternSums:
        """Those of some trials."""
        return replace(self, **{each.name: getattr(self, each.name)[trials] for each in fields(self)})


def pattern_sums(response: Floats, numbers: Floats) -> tuple[Floats, PatternSums]:
    """Visits of every pattern that some patient has, (patterns, visits) 0 or 1, and their sums.

    Args:
        response: (trials, patients, visits), nan where it was not measured.
        numbers: (trials, numbers, patients): one, arm, covariates.
    """
    seen = np.isfinite(response)
    codes = seen @ (1 << np.arange(seen.shape[2]))
    y = np.where(seen, response, 0.0).transpose(0, 2, 1)
    k = numbers.shape[1]
    both = np.concatenate([numbers, y], axis=1)
    turned = both.transpose(0, 2, 1)
    found = np.unique(codes[codes > 0])
    sums = np.stack([np.matmul(both * (codes == code)[:, None], turned) for code in found], axis=1)
    visits = (found[:, None] >> np.arange(seen.shape[2])) & 1
    parts = sums[:, :, 0, 0], sums[:, :, :k, :k], sums[:, :, :k, k:], sums[:, :, k:, k:]
    return visits.astype(np.float64), PatternSums(*(np.ascontiguousarray(each) for each in parts))
