"""Tails of the largest of correlated normal variables, many at once: known laws, R's mvtnorm, the room's function."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.analysis.batched.survival_maximum import upper_tails_of_maximum
from medtwin.trials.analysis.normal_maximum import upper_tail_of_maximum


def tail(z: float, correlation: object) -> float:
    return float(upper_tails_of_maximum([z], np.asarray(correlation, dtype=float)[None])[0])


def random_correlations(count: int, variables: int, rank: int, seed: int) -> np.ndarray:
    """Those of unit vectors that lean to one side, as statistics of one trial do."""
    vectors = np.random.default_rng(seed).standard_normal((count, variables, rank))
    vectors[:, :, 0] += 1.0
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return vectors @ vectors.transpose(0, 2, 1)


@pytest.mark.parametrize(("count", "error"), [(1, 1e-12), (2, 1e-8), (3, 1e-8), (4, 1e-3), (6, 1e-3)])
@pytest.mark.parametrize("z", [-1.0, 0.5, 2.0, 4.0])
def test_independent(count: int, error: float, z: float) -> None:
    assert tail(z, np.eye(count)) == pytest.approx(-math.expm1(count * norm.logcdf(z)), rel=error)


@pytest.mark.parametrize(
    ("z", "r12", "r13", "r23", "expected"),
    [  # 1 - pmvnorm(..., algorithm = TVPACK(abseps = 1e-14)), mvtnorm in R 4.2.2
        (1.5, 0.2, 0.5, 0.4, 0.1632130782881),
        (2.2, 0.9, 0.6, 0.75, 0.0289012607002),
        (2.2, -0.3, 0.1, -0.4, 0.0413404715412),
        (0.7, 0.8, 0.8, 0.9, 0.3542795756089),
        (-0.8, 0.3, 0.5, 0.1, 0.9680766613290),
        (3.5, 0.7, 0.2, 0.6, 0.0006561270531),
        (2.0, 0.99, 0.95, 0.97, 0.0305344927649),
    ],
)
def test_agrees_with_mvtnorm_of_three(z: float, r12: float, r13: float, r23: float, expected: float) -> None:
    assert tail(z, [[1, r12, r13], [r12, 1, r23], [r13, r23, 1]]) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("z", "expected"), [(1.0, 0.3708900708), (2.2, 0.0440725563), (3.0, 0.0047719068)])
def test_agrees_with_mvtnorm_of_four(z: float, expected: float) -> None:
    """1 - pmvnorm(..., algorithm = Miwa(4097)), mvtnorm in R 4.2.2."""
    correlation = [[1, 0.8, 0.5, 0.5], [0.8, 1, 0.5, 0.5], [0.5, 0.5, 1, 0.1], [0.5, 0.5, 0.1, 1]]
    assert tail(z, correlation) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("variables", "rank", "error"),
    [(2, 2, 1e-7), (4, 2, 2e-7), pytest.param(4, 3, 2e-5, marks=pytest.mark.slow), (5, 4, 2e-3)],
)
def test_agrees_with_the_function_of_one(variables: int, rank: int, error: float) -> None:
    correlations = random_correlations(4, variables, rank, seed=variables + rank)
    for z in (-1.5, 0.6, 2.24, 3.5):
        found = upper_tails_of_maximum(np.full(4, z), correlations)
        np.testing.assert_allclose(found, [upper_tail_of_maximum(z, each) for each in correlations], rtol=error)


def test_copies_and_opposites() -> None:
    assert tail(2.0, np.ones((3, 3))) == pytest.approx(norm.sf(2))
    assert tail(2.0, [[1, -1], [-1, 1]]) == pytest.approx(2 * norm.sf(2))
    doubled = np.array([[1, 0.3, 1], [0.3, 1, 0.3], [1, 0.3, 1]])
    assert tail(1.7, doubled) == pytest.approx(tail(1.7, [[1, 0.3], [0.3, 1]]), rel=1e-10)
    assert tail(2.0, np.ones((5, 5))) == pytest.approx(norm.sf(2))


def test_at_zero_by_angle() -> None:
    """Both of two are below 0 with chance 1/4 + asin(rho) / (2 pi)."""
    expected = 3 / 4 - math.asin(0.6) / (2 * math.pi)
    for z in (0.0, 1e-9, -1e-9):
        assert tail(z, [[1, 0.6], [0.6, 1]]) == pytest.approx(expected, abs=1e-4)


def test_a_trial_does_not_depend_on_the_others_and_nan_stays() -> None:
    correlations = random_correlations(150, 4, 4, seed=1)
    z = np.linspace(-2, 4, 150)
    z[7], correlations[8, 0, 1] = np.nan, np.nan
    together = upper_tails_of_maximum(z, correlations)
    alone = np.concatenate([upper_tails_of_maximum(z[[i]], correlations[[i]]) for i in range(150)])
    np.testing.assert_allclose(together, alone, rtol=1e-10)
    assert np.isnan(together[[7, 8]]).all()
    assert np.isfinite(np.delete(together, [7, 8])).all()


def test_refusals() -> None:
    for z, correlation, message in (
        ([1.0], [[[1, 0.5], [0.4, 1]]], "symmetric"),
        ([1.0], [[[1, 0.5], [0.5, 2]]], "ones on its diagonal"),
        ([1.0], [[[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]], "positive semi-definite"),
        ([1.0, 2.0], [[[1.0]]], "square for each"),
        ([1.0], np.eye(20)[None], "at most 13"),
    ):
        with pytest.raises(ValueError, match=message):
            upper_tails_of_maximum(z, correlation)
