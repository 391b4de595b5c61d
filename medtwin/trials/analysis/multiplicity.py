"""Adjusted p values of several hypotheses from their p values alone, by closed or step-wise procedures.

Source: Holm 1979, Scand J Stat 6:65; Hochberg 1988, Biometrika 75:800; Hommel 1988, Biometrika 75:383; Benjamini &
Hochberg 1995, J R Stat Soc B 57:289; Benjamini & Yekutieli 2001, Ann Stat 29:1165; Dmitrienko, Tamhane & Wiens 2008,
Biometrical Journal 50:667 (truncated procedures).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Adjustment = Literal["none", "bonferroni", "holm", "hochberg", "hommel", "benjamini_hochberg", "benjamini_yekutieli"]
Truncated = Literal["holm", "hochberg", "hommel"]


def adjusted_p_values(p_values: ArrayLike, method: Adjustment = "holm", *, hypotheses: int | None = None) -> Floats:
    """Adjusted p values, (p values,); nan stays nan and does not count.

    Args:
        p_values: Raw p values, (p values,).
        method: The first five adjust for the familywise error, the others for the false discovery rate.
        hypotheses: How many there are, if some p values were left out as larger than these; None: as many as given.

    Raises:
        ValueError: If something is no p value, there are fewer hypotheses than p values, or the method is unknown.

    >>> adjusted_p_values([0.01, 0.02, 0.03], "hochberg").tolist()
    [0.03, 0.03, 0.03]
    """
    given = np.atleast_1d(np.asarray(p_values, dtype=np.float64))
    known = ~np.isnan(given)
    p = given[known]
    m = len(p) if hypotheses is None else hypotheses
    _check(p)
    if m < len(p):
        raise ValueError(f"hypotheses must be at least the {len(p)} p values, got {hypotheses!r}")
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
    found = np.full(given.shape, np.nan)
    found[known] = np.minimum(_METHODS[method](p, m), 1.0) if len(p) else p
    return found


def _check(p: Floats) -> None:
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values must be between 0 and 1, got {p.tolist()}")


def _holm(p: Floats, m: int) -> Floats:
    order = np.argsort(p, kind="stable")
    found = np.empty_like(p)
    found[order] = np.maximum.accumulate((m - np.arange(len(p))) * p[order])
    return found


def _step_up(factors: Callable[[Floats, int], Floats]) -> Callable[[Floats, int], Floats]:
    """Step-up with the factor of the i-th smallest p value."""

    def adjust(p: Floats, m: int) -> Floats:
        order = np.argsort(p, kind="stable")[::-1]
        rank = np.arange(len(p), 0, -1, dtype=np.float64)
        found = np.empty_like(p)
        found[order] = np.minimum.accumulate(factors(rank, m) * p[order])
        return found

    return adjust


def _hommel(p: Floats, m: int) -> Floats:
    """The largest, over subsets that hold a hypothesis, of Simes' p value: by size, the smallest others are worst."""
    full = np.concatenate([p, np.ones(m - len(p))])
    ordered = np.sort(full)
    found = full.copy()
    for size in range(2, m + 1):
        largest = ordered[m - size + 1 :]
        top = float(np.min(size * largest / np.arange(2, size + 1)))
        simes = np.minimum(size * full, top)
        simes[full > ordered[m - size]] = top
        found = np.maximum(found, simes)
    return found[: len(p)]


_METHODS: dict[str, Callable[[Floats, int], Floats]] = {
    "none": lambda p, m: p,
    "bonferroni": lambda p, m: m * p,
    "holm": _holm,
    "hochberg": _step_up(lambda rank, m: m - rank + 1),
    "hommel": _hommel,
    "benjamini_hochberg": _step_up(lambda rank, m: m / rank),
    "benjamini_yekutieli": _step_up(lambda rank, m: m / rank * float(np.sum(1.0 / np.arange(1, m + 1)))),
}


def intersections(hypotheses: int) -> NDArray[np.bool_]:
    """Which hypotheses belong to each intersection, (2^hypotheses - 1, hypotheses): that of all first."""
    numbers = np.arange(2**hypotheses - 1, 0, -1)
    return np.asarray((numbers[:, None] >> np.arange(hypotheses)[::-1]) & 1, dtype=np.bool_)


def closed_adjustment(members: NDArray[np.bool_], intersection_p_values: ArrayLike) -> Floats:
    """Adjusted p values, (hypotheses,): the largest p value of the intersections that hold a hypothesis.

    Source: Marcus, Peritz & Gabriel 1976, Biometrika 63:655.
    """
    p = np.asarray(intersection_p_values, dtype=np.float64)
    return np.asarray(np.minimum(np.where(members, p[:, None], 0.0).max(axis=0), 1.0))


def truncated_p_value(
    p_values: ArrayLike, family_size: int, truncation: float, procedure: Truncated = "hommel"
) -> float:
    """The p value of an intersection of hypotheses of a family by a truncated procedure.

    Critical values are a mixture of those of the procedure, with weight `truncation`, and of Bonferroni's.

    Args:
        p_values: Of the hypotheses in the intersection.
        family_size: Hypotheses of the family.
        truncation: gamma, from 0 (Bonferroni) to 1 (the procedure itself).
        procedure: The procedure.

    Raises:
        ValueError: If the truncation is not between 0 and 1, or the procedure unknown.

    Source: Dmitrienko, Tamhane & Wiens 2008.
    """
    p = np.sort(np.asarray(p_values, dtype=np.float64))
    if not 0 <= truncation <= 1:
        raise ValueError(f"truncation must be from 0 to 1, got {truncation!r}")
    size = len(p)
    rank = np.arange(1, size + 1)
    shares = {"holm": np.full(size, 1 / size), "hochberg": 1 / (size - rank + 1), "hommel": rank / size}
    if procedure not in shares:
        raise ValueError(f"procedure must be one of {', '.join(shares)}, got {procedure!r}")
    return float(np.min(p / (truncation * shares[procedure] + (1 - truncation) / family_size)))


def truncated_adjustment(p_values: ArrayLike, truncation: float = 1.0, procedure: Truncated = "hommel") -> Floats:
    """Adjusted p values of a truncated procedure for one family, (hypotheses,), by the closure principle.

    See `truncated_p_value`.
    """
    p = np.asarray(p_values, dtype=np.float64)
    _check(p)
    members = intersections(len(p))
    return closed_adjustment(members, [truncated_p_value(p[each], len(p), truncation, procedure) for each in members])


def gatekeeping_adjustment(
    p_values: ArrayLike,
    families: Sequence[Sequence[int]],
    required: tuple[ArrayLike, ArrayLike],
    truncation: Sequence[float],
    procedure: Truncated = "hommel",
    *,
    modified: bool = False,
    exhaust: bool = True,
) -> Floats:
    """Adjusted p values, (hypotheses,), of a mixture-based gatekeeping procedure.

    Args:
        p_values: Raw p values, (hypotheses,).
        families: Hypotheses, from 0, of each family, in the order of testing; each hypothesis in one of them.
        required: Which hypotheses (columns) must all be rejected before one (row) is tested; of which at least one
            must be; both (hypotheses, hypotheses) of 0 and 1.
        truncation: gamma of each family; the last is 1 whatever is said.
        procedure: Within families.
        modified: Whether a family's size is what can be tested of it given the intersection, and what cannot be tested
            counts as accepted for those that require it.
        exhaust: Whether the last family with active hypotheses is tested without truncation.

    Raises:
        ValueError: If the families do not hold each hypothesis once.

    Source: Dmitrienko & Tamhane 2011, Stat Med 30:1473; modified: Dmitrienko, Kordzakhia & Brechenmacher 2016, J
    Biopharm Stat 26:758.
    """
    p = np.asarray(p_values, dtype=np.float64)
    _check(p)
    if sorted(each for family in families for each in family) != list(range(len(p))):
        raise ValueError(f"families must hold each of {len(p)} hypotheses once, got {families!r}")
    every, some = (np.asarray(each, dtype=np.bool_) for each in required)
    gammas = [*truncation[: len(families) - 1], 1.0]
    members = intersections(len(p))
    found = []
    for inside in members:
        open_to_test = _testable(inside, every, some)
        while modified and (_testable(inside | ~open_to_test, every, some) != open_to_test).any():
            open_to_test = _testable(inside | ~open_to_test, every, some)
        found.append(_mixture_p_value(p, families, (inside, open_to_test), gammas, procedure, (modified, exhaust)))
    return closed_adjustment(members, found)


def _testable(accepted: NDArray[np.bool_], every: NDArray[np.bool_], some: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Hypotheses that may be tested when some are accepted."""
    blocked = (every & accepted).any(axis=1)
    return np.asarray(~blocked & ~(some.any(axis=1) & (accepted | ~some).all(axis=1)))


def _mixture_p_value(
    p: Floats,
    families: Sequence[Sequence[int]],
    state: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    gammas: Sequence[float],
    procedure: Truncated,
    rule: tuple[bool, bool],
) -> float:
    """The p value of an intersection: the least over families of theirs, over the share of alpha left to them."""
    inside, open_to_test = state
    modified, exhaust = rule
    active = [[each for each in family if inside[each] and open_to_test[each]] for family in families]
    last = max((k for k, each in enumerate(active) if each), default=-1)
    share, found = 1.0, 1.0
    for k, (family, tested) in enumerate(zip(families, active, strict=True)):
        if not tested:
            continue
        size = sum(open_to_test[each] for each in family) if modified else len(family)
        gamma = 1.0 if k == last and exhaust else gammas[k]
        found = min(found, truncated_p_value(p[tested], int(size), gamma, procedure) / share)
        share *= 1 - (1.0 if len(tested) == size else gamma + (1 - gamma) * len(tested) / size)
        if share <= 0:
            break
    return found
