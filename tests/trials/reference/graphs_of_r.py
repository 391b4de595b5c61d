"""Crosswalk of R's multiple-test procedures to medtwin: p.adjust, and lrstat's graphs and gatekeepers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medtwin.trials.analysis.multiplicity import adjusted_p_values, gatekeeping_adjustment, truncated_adjustment
from medtwin.trials.design.dunnett import critical_value, probability_below
from medtwin.trials.design.graph import (
    Graph,
    SequentialHypothesis,
    first_rejections,
    weighted_parametric,
    weighted_simes,
)
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import plain
from tests.trials.reference.lrstat_bounds import lrstat_bounds
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, refuse, signature

Floats = NDArray[np.float64]
_ADJUSTMENTS: dict[str, Any] = {
    "none": "none",
    "bonferroni": "bonferroni",
    "holm": "holm",
    "hochberg": "hochberg",
    "hommel": "hommel",
    "BH": "benjamini_hochberg",
    "fdr": "benjamini_hochberg",
    "BY": "benjamini_yekutieli",
}


def _adjust(given: Arguments) -> Floats:
    if given["method"] not in _ADJUSTMENTS:
        raise NotCoveredError(f"method={given['method']!r} of p.adjust()")
    p = np.atleast_1d(given["p"])
    count = None if is_missing(given["n"]) else int(given["n"])
    if count == len(p):
        count = None
    return adjusted_p_values(p, _ADJUSTMENTS[given["method"]], hypotheses=count)


# --- lrstat ---


def _rows(p: Any, hypotheses: int) -> Floats:
    """Vectors of p values, (vectors, hypotheses)."""
    found = np.asarray(plain(p), dtype=np.float64)
    return found if found.ndim == 2 else found.reshape(-1, hypotheses)


def _graph(given: Arguments) -> Graph:
    return Graph(np.atleast_1d(given["w"]), np.atleast_2d(given["G"]))


def _of_rows(rows: Floats, adjust: Callable[[Floats], Floats]) -> Floats:
    return np.array([adjust(row) for row in rows])


def bonferroni(given: Arguments) -> Floats:
    """fadjpbon(), of a graph."""
    graph = _graph(given)
    return _of_rows(_rows(given["p"], len(graph.weights)), graph.adjusted_p_values)


def _families(family: Any, hypotheses: int) -> list[list[int]] | None:
    if is_missing(family):
        return None
    return [np.flatnonzero(row).tolist() for row in np.asarray(plain(family)).reshape(-1, hypotheses)]


def _members(weights: Floats) -> NDArray[np.bool_]:
    """Of the intersections that lrstat's weight matrix has in its rows."""
    m = weights.shape[1]
    found = (np.arange(2**m - 1, 0, -1)[:, None] >> np.arange(m)[::-1]) & 1
    if len(found) != len(weights):
        raise NotCoveredError(f"a weight matrix of {len(weights)} rows")
    return np.asarray(found, dtype=np.bool_)


def simes(given: Arguments) -> Floats:
    """fadjpsim()."""
    weights = np.atleast_2d(given["wgtmat"])
    families = _families(given["family"], weights.shape[1])
    members = _members(weights)
    return _of_rows(_rows(given["p"], weights.shape[1]), lambda row: weighted_simes(members, weights, row, families))


def dunnett(given: Arguments) -> Floats:
    """fadjpdun()."""
    weights = np.atleast_2d(given["wgtmat"])
    m = weights.shape[1]
    families, members = _families(given["family"], m), _members(weights)
    if is_missing(given["corr"]):
        raise NotCoveredError("corr left out of fadjpdun()")
    corr = np.atleast_2d(given["corr"])
    return _of_rows(_rows(given["p"], m), lambda row: weighted_parametric(members, weights, row, corr, families))


def _update(given: Arguments) -> dict[str, Any]:
    left = [int(each) for each in numbers(given["I"])]
    j = int(given["j"])
    graph = _graph(given).without(j - 1)
    return {"w": graph.weights, "G": graph.transitions, "I": np.array([each for each in left if each != j], float)}


def _truncated(given: Arguments) -> Floats:
    rows = np.atleast_2d(given["p"])
    return _of_rows(rows, lambda row: truncated_adjustment(row, float(given["gamma"]), given["test"]))


def _gatekeeping(modified: bool) -> Callable[[Arguments], Floats]:
    def adjust(given: Arguments) -> Floats:
        rows = np.atleast_2d(given["p"])
        m = rows.shape[1]
        families = _families(given["family"], m) or [list(range(m))]
        parallel = np.zeros((m, m)) if is_missing(given["parallel"]) else np.atleast_2d(given["parallel"])
        required = np.atleast_2d(given["serial"]), parallel
        gamma, exhaust = numbers(given["gamma"]), bool(given["exhaust"])
        return _of_rows(
            rows,
            lambda row: gatekeeping_adjustment(
                row, families, required, gamma, given["test"], modified=modified, exhaust=exhaust
            ),
        )

    return adjust


def _two_sequences(given: Arguments) -> Floats:
    """fstp2seq(): families of two hypotheses, each required by the next one of its sequence."""
    if not given["retest"]:
        raise NotCoveredError("retest=FALSE of fstp2seq()")
    rows = np.atleast_2d(given["p"])
    m = rows.shape[1]
    families = [[k, k + 1] for k in range(0, m, 2)]
    serial, none = np.eye(m, k=-2), np.zeros((m, m))
    gamma, test = numbers(given["gamma"]), str(given["test"]).lower()
    return _of_rows(
        rows,
        lambda row: gatekeeping_adjustment(row, families, (serial, none), gamma, test, modified=True),  # type: ignore[arg-type]
    )


_TYPES: Arguments = {"typeAlphaSpending": None, "parameterAlphaSpending": None}


def _each(value: Any, size: int, missing: Any) -> list[Any]:
    if is_missing(value):
        return [missing] * size
    found: list[Any] = np.atleast_1d(plain(value)).tolist()
    return found * size if len(found) == 1 else found


def _table(value: Any, size: int, missing: Any) -> Floats:
    """(hypotheses, looks) of a matrix, or of one row for all."""
    if is_missing(value):
        return np.asarray(missing, dtype=np.float64)
    found = np.atleast_2d(np.asarray(plain(value), dtype=np.float64))
    return np.repeat(found, size, axis=0) if len(found) == 1 else found


def sequential(given: Arguments) -> Floats:
    """fseqbon()."""
    graph = _graph(given)
    m = len(graph.weights)
    p = np.atleast_2d(given["p"]).reshape(-1, np.atleast_2d(given["p"]).shape[1])
    repeats, looks = p.shape[0] // m, p.shape[1]
    information = _table(given["information"], m, np.tile(np.arange(1, looks + 1) / float(given["kMax"]), (m, 1)))
    most = numbers(_each(given["maxInformation"], m, 1.0))
    incidence = _table(given["incidenceMatrix"], m, np.ones((m, int(given["kMax"]))))
    spending = _table(given["spendingTime"], m, np.full((m, looks), np.nan))
    kinds = _each(given["typeAlphaSpending"], m, "sfOF")
    parameters = _each(given["parameterAlphaSpending"], m, np.nan)
    found = []
    for r in range(repeats):
        hypotheses = [
            _hypothesis(
                p[r * m + j],
                (information[j], most[j], incidence[j], spending[j]),
                (kinds[j], parameters[j], int(given["kMax"])),
            )
            for j in range(m)
        ]
        found.append(first_rejections(graph, hypotheses, float(given["alpha"]), lambda z: float(norm.sf(z))))
    return np.array(found, dtype=np.float64)


def _hypothesis(
    p: Floats, course: tuple[Floats, float, Floats, Floats], spending: tuple[str, float, int]
) -> SequentialHypothesis:
    """The looks at which a hypothesis is tested, with bounds at them; inf elsewhere."""
    information, most, incidence, times = course
    kind, parameter, looks = spending
    tested = np.flatnonzero(incidence[: len(p)] != 0)
    is_last = len(tested) == int(np.sum(incidence != 0))
    rates = information[: len(p)][tested] / most
    at = np.minimum(rates, 1.0) if np.isnan(times).all() else times[tested]
    if is_last and len(at):
        at = np.append(at[:-1], 1.0)
    values = np.where(np.isin(np.arange(len(p)), tested), p, np.nan)

    def bounds(alpha: float) -> Floats:
        found = np.full(len(p), np.inf)
        if len(tested):
            given = {
                "typeAlphaSpending": kind,
                "parameterAlphaSpending": parameter,
                "spendingTime": at,
                "userAlphaSpending": None,
            }
            found[tested] = lrstat_bounds(given, _whole(rates, kind, incidence, looks), alpha)[: len(tested)]
        return found

    return SequentialHypothesis(values, bounds)


def _whole(rates: Floats, kind: str, incidence: Floats, looks: int) -> Floats:
    """Rates of all looks where the bounds need those to come."""
    if kind not in ("OF", "P", "WT", "none"):
        return rates
    planned = int(np.sum(incidence[:looks] != 0))
    if len(rates) == planned:
        return rates
    rest = rates[-1] + (1 - rates[-1]) * np.arange(1, planned - len(rates) + 1) / (planned - len(rates))
    return np.concatenate([rates, rest])


def repeated(given: Arguments) -> Floats:
    """repeatedPValue()."""
    from medtwin.trials.adaptive.combined_tests import root_of_level

    rows = np.atleast_2d(given["p"])
    looks = rows.shape[1]
    information = _table(given["information"], len(rows), np.nan)
    times = _table(given["spendingTime"], len(rows), np.full(rows.shape, np.nan))
    found = np.full(rows.shape, np.nan)
    for i, row in enumerate(rows):
        for k in range(looks):
            course = information[i], float(given["maxInformation"]), np.ones(int(given["kMax"])), times[i]
            spending = given["typeAlphaSpending"], given["parameterAlphaSpending"], int(given["kMax"])
            hypothesis = _hypothesis(row[: k + 1], course, spending)
            z = norm.isf(row[k])
            found[i, k] = root_of_level(lambda a, h=hypothesis, k=k, z=z: float(h.bounds_at(a)[k]) - z)  # type: ignore[misc]
    return found


# --- mvtnorm ---


def _normal(name: str, given: Arguments, formal: Arguments) -> Floats:
    refuse(name, given, formal, "df")
    if not is_missing(given["sigma"]):
        raise NotCoveredError(f"sigma of {name}()")
    if is_missing(given["corr"]):
        raise NotCoveredError(f"corr left out of {name}()")
    return np.atleast_2d(given["corr"])


_QUANTILE = signature(
    p=None, interval=None, tail="lower.tail", mean=0.0, corr=None, sigma=None, algorithm=None, maxpts=None, abseps=None,
    releps=None, df=None,
)  # fmt: skip
_PROBABILITY = signature(
    lower=-np.inf, upper=np.inf, mean=0.0, corr=None, sigma=None, algorithm=None, maxpts=None, abseps=None,
    releps=None, df=None,
)  # fmt: skip


def _quantile(given: Arguments) -> dict[str, Any]:
    corr = _normal("qmvnorm", given, dict(_QUANTILE))
    refuse("qmvnorm", given, dict(_QUANTILE), "mean")
    p, tail = float(given["p"]), given["tail"]
    if tail == "both.tails":
        return {"quantile": critical_value(1 - p, corr, two_sided=True)}
    found = critical_value(1 - p, corr)
    return {"quantile": found if tail == "lower.tail" else -found}


def _probability(given: Arguments) -> float:
    corr = _normal("pmvnorm", given, dict(_PROBABILITY))
    m = len(corr)
    ends = [np.resize(np.atleast_1d(given[each]), m) - given["mean"] for each in ("lower", "upper")]
    if (ends[0] == -np.inf).all():
        return probability_below(ends[1], corr)
    if (ends[1] == np.inf).all():
        return probability_below(-ends[0], corr)
    raise NotCoveredError("pmvnorm() between finite limits")


_FADJ = {"wgtmat": None, "p": None, "family": None}
_MIXTURE = signature(p=None, family=None, serial=None, parallel=None, gamma=None, test="hommel", exhaust=True)
_SEQUENTIAL = signature(
    w=None, G=None, alpha=0.025, kMax=None, typeAlphaSpending=None, parameterAlphaSpending=None, incidenceMatrix=None,
    maxInformation=None, p=None, information=None, spendingTime=None,
)  # fmt: skip
_REPEATED = signature(
    kMax=None, typeAlphaSpending="sfOF", parameterAlphaSpending=None, maxInformation=1.0, p=None, information=None,
    spendingTime=None,
)  # fmt: skip
_BOUND: dict[str, tuple[Any, Callable[[Arguments], Any]]] = {
    "p.adjust": ({"p": None, "method": "holm", "n": None}, _adjust),
    "fadjpbon": ({"w": None, "G": None, "p": None}, bonferroni),
    "fwgtmat": ({"w": None, "G": None}, lambda given: _graph(given).intersections()[1]),
    "fadjpsim": (_FADJ, simes),
    "fadjpdun": ({**_FADJ, "corr": None}, dunnett),
    "updateGraph": ({"w": None, "G": None, "I": None, "j": None}, _update),
    "ftrunc": ({"p": None, "test": "hommel", "gamma": 1.0}, _truncated),
    "fstdmix": (_MIXTURE, _gatekeeping(False)),
    "fmodmix": (_MIXTURE, _gatekeeping(True)),
    "fstp2seq": ({"p": None, "gamma": None, "test": "hochberg", "retest": True}, _two_sequences),
    "fseqbon": (_SEQUENTIAL, sequential),
    "repeatedPValue": (_REPEATED, repeated),
    "qmvnorm": (_QUANTILE, _quantile),
    "pmvnorm": (_PROBABILITY, _probability),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: bound(name, formal, function) for name, (formal, function) in _BOUND.items()},
}
