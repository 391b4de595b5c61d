"""The largest of correlated normal variables against laws that are known."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.analysis.normal_maximum import upper_tail_of_maximum


@pytest.mark.parametrize(("count", "error"), [(1, 1e-12), (2, 1e-7), (3, 1e-5), (5, 2e-3)])
@pytest.mark.parametrize("z", [-1.0, 0.5, 2.0, 4.0])
def test_independent(count: int, error: float, z: float) -> None:
    expected = -math.expm1(count * norm.logcdf(z))
    assert upper_tail_of_maximum(z, np.eye(count)) == pytest.approx(expected, rel=error)


def test_copies_and_opposites() -> None:
    assert upper_tail_of_maximum(2.0, np.ones((3, 3))) == pytest.approx(norm.sf(2))
    assert upper_tail_of_maximum(2.0, [[1, -1], [-1, 1]]) == pytest.approx(2 * norm.sf(2))


def test_at_zero_by_angle() -> None:
    """Both of two are below 0 with chance 1/4 + asin(rho) / (2 pi)."""
    expected = 3 / 4 - math.asin(0.6) / (2 * math.pi)
    assert upper_tail_of_maximum(0.0, [[1, 0.6], [0.6, 1]]) == pytest.approx(expected, abs=1e-4)
    assert upper_tail_of_maximum(1e-9, [[1, 0.6], [0.6, 1]]) == pytest.approx(expected, abs=1e-4)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="correlation must be a correlation matrix"):
        upper_tail_of_maximum(1.0, [[1, 0.5], [0.4, 1]])
    with pytest.raises(ValueError, match="positive semi-definite"):
        upper_tail_of_maximum(1.0, [[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]])
