"""Tests of R's stats by medtwin: of means, ranks and rates; rpact's restricted rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from medtwin.trials.analysis import exact_rates, means, rank_shifts, rates, several_groups
from medtwin.trials.analysis.results import Interval
from medtwin.trials.restricted_rates import restricted_rates
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import (
    Environment,
    Factor,
    Formula,
    Frame,
    Named,
    as_factor,
    is_missing,
    plain,
    vector,
)
from tests.trials.reference.r_laws import zero
from tests.trials.reference.rcalls import Call
from tests.trials.reference.survival_fits import Arguments

_SIDES: dict[str, means.Alternative] = {"two.sided": "two_sided", "greater": "greater", "less": "less"}


def side(name: Any) -> means.Alternative:
    """An alternative, or the start of its name."""
    found = [ours for theirs, ours in _SIDES.items() if theirs.startswith(str(name))]
    if len(found) != 1:
        raise NotCoveredError(f"the alternative {name}")
    return found[0]


def _samples(given: Arguments) -> tuple[Any, Any]:
    """Two samples, or one and None: by two vectors, or by a formula whose right side is a group."""
    first = given.value("x") if "x" in given.nodes else given.value("formula")
    if not isinstance(first, Formula):
        return _numbers(first), None if given.value("y") is None else _numbers(given.value("y"))
    data = given.value("data") if "data" in given.nodes else given.value("y")
    frame = data if isinstance(data, Frame) else None
    inner = given.env if frame is None else given.env.within(frame)
    keep = np.array(True)
    if "subset" in given.nodes:
        keep = vector(inner.run(given.nodes["subset"])).astype(bool)
    values = _numbers(inner.run(first.left))
    if first.right == 1.0:
        return values[np.broadcast_to(keep, values.shape)], None
    group = as_factor(inner.run(first.right))
    keep = np.broadcast_to(keep, values.shape) & ~is_missing(values) & ~is_missing(group)
    there = as_factor(group.take(keep))
    if len(there.levels) != 2:
        raise NotCoveredError(f"{len(there.levels)} groups of a test of two")
    return values[keep][there.codes == 0], values[keep][there.codes == 1]


def _numbers(value: Any) -> Any:
    return np.atleast_1d(np.asarray(plain(value), dtype=np.float64))


def _present(x: Any, y: Any, is_paired: bool) -> tuple[Any, Any]:
    if y is None:
        return x[~np.isnan(x)], None
    if is_paired:
        gaps = x - y
        return gaps[~np.isnan(gaps)], None
    return x[~np.isnan(x)], y[~np.isnan(y)]


_T = ("x", "y", "alternative", "mu", "paired", "var.equal", "conf.level", "data", "formula", "subset", "na.action")
_WILCOXON = ("x", "y", "alternative", "mu", "paired", "exact", "correct", "conf.int", "conf.level")


def t_test(env: Environment, call: Call) -> dict[str, Any]:
    """`t.test()`."""
    given = Arguments.of(env, call, _T)
    is_paired = bool(given.value("paired", False))
    both = _samples(given)
    x, y = _present(*both, is_paired)
    options: dict[str, Any] = {
        "null": given.value("mu", 0.0),
        "alternative": side(given.value("alternative", "two.sided")),
        "level": given.value("conf.level", 0.95),
    }
    if y is None:
        found, estimate = means.one_sample_t_test(x, **options), np.array([x.mean()])
    else:
        test = means.pooled_t_test if given.value("var.equal", False) else means.welch_t_test
        found, estimate = test(x, y, **options), np.array([x.mean(), y.mean()])
    return {
        "statistic": found.t,
        "parameter": found.degrees_of_freedom,
        "p.value": found.p_value,
        "conf.int": np.array([found.low, found.high]),
        "estimate": estimate,
        "stderr": found.standard_error,
        "null.value": options["null"],
    }


def wilcoxon_test(env: Environment, call: Call) -> dict[str, Any]:
    """`wilcox.test()`."""
    given = Arguments.of(env, call, (*_WILCOXON, "data", "formula", "subset", "na.action"))
    x, y = _present(*_samples(given), bool(given.value("paired", False)))
    options: dict[str, Any] = {
        "null": given.value("mu", 0.0),
        "alternative": side(given.value("alternative", "two.sided")),
        "exact": given.value("exact"),
        "continuity": bool(given.value("correct", True)),
    }
    found = means.signed_rank_test(x, **options) if y is None else means.rank_sum_test(x, y, **options)
    result = {"statistic": found.statistic, "p.value": found.p_value}
    if not given.value("conf.int", False):
        return result
    level = given.value("conf.level", 0.95)
    shift = _shift(x, y, found.is_exact, level if options["alternative"] == "two_sided" else 2 * level - 1, options)
    low = -math.inf if options["alternative"] == "less" else shift.low
    high = math.inf if options["alternative"] == "greater" else shift.high
    return {**result, "estimate": shift.estimate, "conf.int": np.array([low, high])}


def _shift(x: Any, y: Any, is_exact: bool, level: float, options: dict[str, Any]) -> Interval:
    if is_exact:
        return means.signed_rank_shift(x, level=level) if y is None else means.rank_sum_shift(x, y, level=level)
    chosen: dict[str, Any] = {"level": level, "continuity": options["continuity"], "find_root": _coarse_zero}
    if y is None:
        return rank_shifts.signed_rank_normal_shift(x[x != options["null"]], **chosen)
    return rank_shifts.rank_sum_normal_shift(x, y, **chosen)


def _coarse_zero(function: Callable[[float], float], low: float, high: float) -> float:
    """To the tolerance that `wilcox.test()` asks of `uniroot()`."""
    return zero(function, low, high, 1e-4)


def _table(given: Arguments) -> Any:
    """A table of counts, or the one of two factors."""
    x, y = given.value("x"), given.value("y")
    if y is not None:
        return table(x, y).values
    return np.asarray(plain(x), dtype=np.float64)


def table(*factors: Any, **options: Any) -> Named:
    """`table()` of up to three factors."""
    if set(options) - {"useNA", "dnn"}:
        raise NotCoveredError(f"the arguments {sorted(options)} of table()")
    all_factors = [each if isinstance(each, Factor) else as_factor(each) for each in factors]
    keep = np.all([each.codes >= 0 for each in all_factors], axis=0)
    found = np.zeros([len(each.levels) for each in all_factors])
    np.add.at(found, tuple(each.codes[keep] for each in all_factors), 1.0)
    return Named(found, tuple(list(each.levels) for each in all_factors))


def chi_square_test(env: Environment, call: Call) -> dict[str, Any]:
    """`chisq.test()` of a table."""
    given = Arguments.of(env, call, ("x", "y", "correct"))
    counts = _table(given)
    if counts.ndim == 1:
        raise NotCoveredError("chisq.test() of one row")
    found = rates.chi_square_test(counts, continuity=bool(given.value("correct", True)))
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    return {
        "statistic": found.chi_square,
        "parameter": float(found.degrees_of_freedom),
        "p.value": found.p_value,
        "expected": expected,
        "observed": counts,
    }


def proportion_test(env: Environment, call: Call) -> dict[str, Any]:
    """`prop.test()`."""
    given = Arguments.of(env, call, ("x", "n", "p", "alternative", "conf.level", "correct"))
    x, level = np.asarray(plain(given.value("x")), dtype=np.float64), given.value("conf.level", 0.95)
    alternative, correct = side(given.value("alternative", "two.sided")), bool(given.value("correct", True))
    null = given.value("p")
    if x.ndim == 2:
        x, n = x[:, 0], x.sum(axis=1)
    else:
        x, n = np.atleast_1d(x), _numbers(given.value("n"))
    if len(x) == 1:
        return _one_proportion(float(x[0]), float(n[0]), 0.5 if null is None else null, alternative, level, correct)
    if null is not None:
        return _known_proportions(x, n, vector(null).astype(np.float64), correct)
    found = rates.chi_square_test(np.column_stack([x, n - x]), continuity=correct)
    result: dict[str, Any] = {
        "statistic": found.chi_square,
        "parameter": float(found.degrees_of_freedom),
        "p.value": found.p_value,
        "estimate": x / n,
        "conf.int": None,
    }
    if len(x) == 2:
        pairs = (float(x[0]), float(x[1])), (float(n[0]), float(n[1]))
        limits = rates.wald_interval(*pairs, alternative=alternative, level=level, continuity=correct)
        z = math.copysign(math.sqrt(found.chi_square), limits.estimate)
        tails = {"two_sided": found.p_value, "greater": norm.sf(z), "less": norm.cdf(z)}
        result |= {"conf.int": np.array([limits.low, limits.high]), "p.value": float(tails[alternative])}
    return result


def _known_proportions(x: Any, n: Any, null: Any, correct: bool) -> dict[str, Any]:
    step = 0.5 if correct and len(x) == 2 else 0.0
    statistic = float(((np.abs(x - n * null) - step) ** 2 / (n * null * (1 - null))).sum())
    return {
        "statistic": statistic,
        "parameter": float(len(x)),
        "p.value": float(chi2.sf(statistic, len(x))),
        "estimate": x / n,
    }


def _one_proportion(
    x: float, n: float, null: float, alternative: means.Alternative, level: float, correct: bool
) -> dict[str, Any]:
    step = min(0.5, abs(x - n * null)) if correct else 0.0
    z = math.copysign((abs(x - n * null) - step) / math.sqrt(n * null * (1 - null)), x - n * null)
    tails = {"two_sided": chi2.sf(z**2, 1), "greater": norm.sf(z), "less": norm.cdf(z)}
    found = rates.wilson_interval(x, n, level=level if alternative == "two_sided" else 2 * level - 1, continuity=step)
    low = 0.0 if alternative == "less" else found.low
    high = 1.0 if alternative == "greater" else found.high
    return {
        "statistic": z**2,
        "parameter": 1.0,
        "p.value": float(tails[alternative]),
        "estimate": x / n,
        "conf.int": np.array([low, high]),
    }


def fisher_test(env: Environment, call: Call) -> dict[str, Any]:
    """`fisher.test()`; the odds ratios of a 2 x 2 table are roots to the tolerance of R's `uniroot()`."""
    given = Arguments.of(env, call, ("x", "y", "or", "alternative", "conf.int", "conf.level"))
    options: dict[str, Any] = {
        "null": given.value("or", 1.0),
        "find_root": zero,
        "alternative": side(given.value("alternative", "two.sided")),
        "level": given.value("conf.level", 0.95),
    }
    counts = _table(given)
    if counts.shape != (2, 2):
        return {"p.value": exact_rates.fisher_freeman_halton_test(counts)}
    found = rates.fisher_test(counts, **options)
    odds = found.odds_ratio
    return {"p.value": found.p_value, "estimate": odds.estimate, "conf.int": np.array([odds.low, odds.high])}


def mcnemar_test(env: Environment, call: Call) -> dict[str, Any]:
    """`mcnemar.test()`."""
    given = Arguments.of(env, call, ("x", "y", "correct"))
    found = rates.mcnemar_test(_table(given), continuity=bool(given.value("correct", True)))
    return {"statistic": found.chi_square, "parameter": 1.0, "p.value": found.p_value}


def mantel_haenszel_test(env: Environment, call: Call) -> dict[str, Any]:
    """`mantelhaen.test()`."""
    given = Arguments.of(env, call, ("x", "y", "z", "alternative", "correct", "exact", "conf.level"))
    counts = plain(given.value("x"))
    if "y" in given.nodes:
        counts = table(given.value("x"), given.value("y"), given.value("z")).values
    options: dict[str, Any] = {
        "continuity": bool(given.value("correct", True)),
        "alternative": side(given.value("alternative", "two.sided")),
        "level": given.value("conf.level", 0.95),
    }
    tables = np.moveaxis(np.asarray(counts, dtype=np.float64), 2, 0)
    if tables.shape[1:] != (2, 2):
        whole = several_groups.stratified_association_test(tables)
        return {
            "statistic": whole.chi_square,
            "parameter": float(whole.degrees_of_freedom),
            "p.value": whole.p_value,
        }
    if given.value("exact", False):
        del options["continuity"]
        exact = exact_rates.exact_stratified_test(tables, find_root=zero, **options)
        ends = np.array([exact.odds_ratio.low, exact.odds_ratio.high])
        return {
            "statistic": float(tables[:, 0, 0].sum()),
            "p.value": exact.p_value,
            "estimate": exact.odds_ratio.estimate,
            "conf.int": ends,
        }
    found = rates.stratified_test(tables, **options)
    odds = found.odds_ratio
    return {
        "statistic": found.chi_square,
        "parameter": 1.0,
        "p.value": found.p_value,
        "estimate": odds.estimate,
        "conf.int": np.array([odds.low, odds.high]),
    }


def binomial_test(env: Environment, call: Call) -> dict[str, Any]:
    """`binom.test()`."""
    given = Arguments.of(env, call, ("x", "n", "p", "alternative", "conf.level"))
    x = _numbers(given.value("x"))
    k, n = (float(x[0]), float(x.sum())) if len(x) == 2 else (float(x[0]), float(given.value("n")))
    alternative, level = side(given.value("alternative", "two.sided")), given.value("conf.level", 0.95)
    found = rates.exact_rate(k, n, level=level if alternative == "two_sided" else 2 * level - 1)
    p = rates.binomial_test(round(k), round(n), given.value("p", 0.5), alternative=alternative)
    low = 0.0 if alternative == "less" else found.low
    high = 1.0 if alternative == "greater" else found.high
    return {"statistic": k, "parameter": n, "p.value": p, "estimate": k / n, "conf.int": np.array([low, high])}


def farrington_manning_values(env: Environment, call: Call) -> dict[str, float]:
    """`rpact:::.getFarringtonManningValues()`."""
    given = Arguments.of(env, call, ("rate1", "rate2", "theta", "allocation", "method"))
    scale = {"diff": "difference", "ratio": "ratio"}.get(given.value("method", "diff"))
    if scale is None:
        raise NotCoveredError(f"the method {given.value('method')}")
    rates_ = given.value("rate1"), given.value("rate2")
    allocation = given.value("allocation", 1.0)
    first, second = restricted_rates(rates_, given.value("theta"), scale=scale, allocation_ratio=allocation)  # type: ignore[arg-type]
    return {"theta": given.value("theta"), "method": given.value("method"), "ml1": first, "ml2": second}


def _cells(value: Any) -> Any:
    """In R's order, by columns."""
    return vector(value).astype(np.float64).reshape(-1, order="F")


def array(env: Environment, call: Call) -> Named:
    """`array()`, filled by columns."""
    given = Arguments.of(env, call, ("data", "dim", "dimnames"))
    shape = [int(each) for each in vector(given.value("dim"))]
    cells = np.resize(_cells(given.value("data")), math.prod(shape))
    return Named(cells.reshape(shape, order="F"), (None,) * len(shape))


def matrix(env: Environment, call: Call) -> Named:
    """`matrix()`."""
    given = Arguments.of(env, call, ("data", "nrow", "ncol", "byrow", "dimnames"))
    cells = _cells(given.value("data"))
    rows, columns = given.value("nrow"), given.value("ncol")
    if rows is None:
        rows = len(cells) if columns is None else math.ceil(len(cells) / columns)
    columns = math.ceil(len(cells) / rows) if columns is None else columns
    shape = int(rows), int(columns)
    order: Any = "C" if given.value("byrow", False) else "F"
    return Named(np.resize(cells, math.prod(shape)).reshape(shape, order=order), (None, None))


NATIVES: dict[str, Callable[[Environment, Call], Any]] = {
    "t.test": t_test,
    "wilcox.test": wilcoxon_test,
    "chisq.test": chi_square_test,
    "prop.test": proportion_test,
    "fisher.test": fisher_test,
    "mcnemar.test": mcnemar_test,
    "mantelhaen.test": mantel_haenszel_test,
    "binom.test": binomial_test,
    ".getFarringtonManningValues": farrington_manning_values,
    "array": array,
    "matrix": matrix,
}
