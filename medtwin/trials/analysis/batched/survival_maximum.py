"""Tails of the largest of several correlated standard normal variables, of many correlation matrices at once.

Up to rank 3 the variables are r_i . X of unit vectors r_i and a standard normal X in space, and the largest stays below
z > 0 within a polyhedron around the origin whose faces all lie at distance z. What lies beyond face i has the chance

    Q(z) - 1 / (2 pi) sum over its edges of int Q(z sqrt((1 + k^2) / (1 - x^2))) k / (k^2 + x^2) dx

Q being the upper normal tail, k = sqrt((1 - rho_ij) / (1 + rho_ij)) that of the edge with face j: the chi tail in each
direction, summed over the directions of the face (Deak 1980) by their angle around its foot, which leaves an integral
along each edge, as Owen's T function is in the plane. At the poles x = +-ik the tail is Q(z), which is taken out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from medtwin.trials.analysis.follow_up import Bools, Floats

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_SAME = 1e-12  # correlations this near to 1 are of one variable
_NO_RANK = 1e-8  # an eigenvalue below this one counts as 0
_POINTS = 1021
_AT_ONCE = 64


def upper_tails_of_maximum(z: ArrayLike, correlation: ArrayLike) -> Floats:
    """The chance that any of several standard normal variables exceeds z, (trials,); nan where anything is nan.

    The error is below 1e-8 of the result up to rank 3, and 1e-4 of it where |z| < 0.5; above rank 3 it is below 1e-3 of
    the result, by 1021 points for each matrix.

    Args:
        z: (trials,) the height.
        correlation: (trials, variables, variables), positive semi-definite.

    Raises:
        ValueError: For arrays of other shapes, or matrices that are no correlation matrices.

    Source: Deak 1980, Numer Math 35:369; above rank 3 Genz 1992, J Comput Graph Stat 1:141.

    >>> tail = float(upper_tails_of_maximum([1.5], [[[1.0, 0.0], [0.0, 1.0]]])[0])
    >>> round(tail, 9) == round(1 - 0.9331927987311419**2, 9)
    True
    """
    height, found = np.asarray(z, dtype=np.float64), np.asarray(correlation, dtype=np.float64)
    if height.ndim != 1 or found.shape != (len(height), *found.shape[-1:] * 2) or not found.shape[-1]:
        raise ValueError(f"correlation must be square for each of {height.size} z, got shape {found.shape!r}")
    tails = np.full(len(height), np.nan)
    known = np.isfinite(height) & np.isfinite(found).all(axis=(1, 2))
    given = found[known]
    skew = np.abs(given - given.transpose(0, 2, 1)).max(initial=0.0)
    if skew > 1e-9 or np.abs(np.diagonal(given, axis1=1, axis2=2) - 1).max(initial=0.0) > 1e-9:
        raise ValueError("correlation must be symmetric with ones on its diagonal")
    if found.shape[-1] == 1:
        tails[known] = ndtr(-height[known])
        return tails
    values, vectors = np.linalg.eigh(given)
    if values.min(initial=0.0) < -1e-8:
        raise ValueError(f"correlation must be positive semi-definite, got an eigenvalue of {values.min()!r}")
    is_flat = (values[:, :-3] < _NO_RANK).all(axis=1)
    of_known = np.empty(len(given))
    root = vectors[:, :, -3:] * np.sqrt(np.maximum(values[:, None, -3:], 0.0))
    of_known[is_flat] = _in_space(height[known][is_flat], root[is_flat])
    of_known[~is_flat] = _of_any_rank(height[known][~is_flat], given[~is_flat])
    tails[known] = of_known
    return tails


def _in_space(z: Floats, root: Floats) -> Floats:
    """The tail from vectors in up to three dimensions, (trials, variables, 1 to 3)."""
    if not len(z):
        return z
    r = np.zeros((*root.shape[:2], 3))
    r[:, :, : root.shape[2]] = root
    r /= np.linalg.norm(r, axis=2, keepdims=True)
    rho = np.clip(r @ r.transpose(0, 2, 1), -1.0, 1.0)
    is_again = _repeats(rho)
    side = np.where(z >= 0, 1.0, -1.0)
    height = np.abs(z)
    edges = np.zeros(len(z))
    for i in range(r.shape[1]):
        others = np.delete(np.arange(r.shape[1]), i)
        inside = _edges_of_face(height, side, r[:, i], r[:, others], is_again[:, others])
        edges += np.where(is_again[:, i], 0.0, inside)
    faces = (~is_again).sum(axis=1)
    return np.where(z >= 0, faces * ndtr(-height) - edges, 1 - edges)


def _repeats(rho: Floats) -> Bools:
    """Which variables are the same as one before them, (trials, variables)."""
    return np.asarray((np.tril(rho, -1) > 1 - _SAME).any(axis=2))


def _edges_of_face(height: Floats, side: Floats, normal: Floats, others: Floats, is_again: Bools) -> Floats:
    """The sum over the edges of one face, (trials,).

    On the plane at distance 1, u_j is the direction in which the face of j is met, after k_j; along that edge, at k_j
    u_j + t v_j, the face of m is met where k_j u_j . u_m + t v_j . u_m = k_m. Below 0 (side -1) the edges are those of
    what lies beyond all faces.
    """
    rho = np.einsum("td,tjd->tj", normal, others)
    across = np.maximum(1 - rho**2, 0.0)
    is_edge = ~is_again & (across > _SAME)
    length = np.sqrt(np.where(is_edge, across, 1.0))
    u = (others - rho[:, :, None] * normal[:, None]) / length[:, :, None]
    k = np.where(is_edge, (1 - rho) / length, 1.0)
    v = np.cross(normal[:, None], u)
    straight, slope = u @ u.transpose(0, 2, 1), v @ u.transpose(0, 2, 1)
    room = side[:, None, None] * (k[:, None, :] - k[:, :, None] * straight)
    slope = side[:, None, None] * slope
    bounds_it = is_edge[:, None, :] & ~np.eye(k.shape[1], dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        end = room / slope
    high = np.where(bounds_it & (slope > _SAME), end, np.inf).min(axis=2)
    low = np.where(bounds_it & (slope < -_SAME), end, -np.inf).max(axis=2)
    is_shut = (bounds_it & (np.abs(slope) <= _SAME) & (room < 0)).any(axis=2)
    is_edge &= ~is_shut & (low < high)
    start, stop = (np.arctan(np.where(is_edge, each, 0.0) / np.sqrt(1 + k**2)) for each in (low, high))
    around = np.arctan2(np.sin(stop), k) - np.arctan2(np.sin(start), k)
    half, middle = 0.5 * (stop - start), 0.5 * (stop + start)
    x = middle[:, :, None] + half[:, :, None] * _NODES
    sine, cosine = np.sin(x), np.cos(x)
    foot = ndtr(-height)[:, None]
    fall = ndtr(-height[:, None, None] * (np.sqrt(1 + k**2)[:, :, None] / cosine)) - foot[:, :, None]
    along = (fall * cosine / (k[:, :, None] ** 2 + sine**2)) @ _WEIGHTS
    return np.asarray(((foot * around + k * half * along) * is_edge).sum(axis=1) / (2 * np.pi))


def _of_any_rank(z: Floats, correlation: Floats) -> Floats:
    """The tail from that of the three variables which correlate least, adding what each further one does beyond."""
    order = np.argsort(correlation.sum(axis=2), axis=1)
    ranked = np.take_along_axis(correlation, order[:, :, None], axis=1)
    ranked = np.take_along_axis(ranked, order[:, None, :], axis=2)
    values, vectors = np.linalg.eigh(ranked[:, :3, :3])
    found = _in_space(z, vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
    for count in range(4, correlation.shape[1] + 1):
        for i in range(0, len(z), _AT_ONCE):
            found[i : i + _AT_ONCE] += _last_alone(z[i : i + _AT_ONCE], ranked[i : i + _AT_ONCE, :count, :count])
    return found


def _last_alone(z: Floats, correlation: Floats) -> Floats:
    """The chance, (trials,), that the last variable exceeds z and no other does: the others given its value."""
    points = _lattice(correlation.shape[1] - 1)
    x = -ndtri(ndtr(-z)[:, None] * points[0])
    rho = correlation[:, -1, :-1]
    rest = correlation[:, :-1, :-1] - rho[:, :, None] * rho[:, None, :]
    below = _all_below(z[:, None, None] - rho[:, :, None] * x[:, None], rest, points[1:])
    return np.asarray(below * ndtr(-z))


def _all_below(bound: Floats, covariance: Floats, points: Floats) -> Floats:
    """The mean chance, (trials,), that normal variables lie below bounds, (trials, variables, points)."""
    root = _cholesky(covariance)
    chance = np.ones((bound.shape[0], bound.shape[2]))
    y = np.zeros_like(bound)
    for j in range(bound.shape[1]):
        spread = np.maximum(root[:, j, j], 1e-9)[:, None]
        above = bound[:, j] - np.einsum("tk,tkp->tp", root[:, j, :j], y[:, :j])
        p = ndtr(above / spread)
        chance *= p
        if j + 1 < bound.shape[1]:
            y[:, j] = ndtri(np.clip(p * points[j], 1e-300, 1 - 1e-16))
    return np.asarray(chance.mean(axis=1))


def _cholesky(covariance: Floats) -> Floats:
    """Lower roots of semi-definite matrices, with columns of 0 where nothing is left."""
    root = np.zeros_like(covariance)
    for j in range(covariance.shape[1]):
        left = covariance[:, :, j] - np.einsum("tik,tk->ti", root[:, :, :j], root[:, j, :j])
        pivot = np.sqrt(np.maximum(left[:, j], 0.0))
        is_real = pivot > 1e-7
        root[:, j:, j] = np.where(is_real[:, None], left[:, j:] / np.where(is_real, pivot, 1.0)[:, None], 0.0)
    return root


def _lattice(dimensions: int) -> Floats:
    """Points of a rank-1 lattice folded once, (dimensions, points), in (0, 1).

    Source: Richtmyer's generators, square roots of primes; folded as in Hickernell 2002, MCQMC 2000, 274.
    """
    primes = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37])
    if dimensions > len(primes):
        raise ValueError(f"correlation must be of at most {len(primes) + 1} variables, got {dimensions + 1}")
    place = np.outer(np.sqrt(primes[:dimensions]), np.arange(1, _POINTS + 1)) % 1.0
    return np.asarray(1 - np.abs(2 * place - 1))
