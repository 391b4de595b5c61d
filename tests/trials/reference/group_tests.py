"""Tests of R's stats of several groups, of events per time and of nested models, by medtwin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import chi2

from medtwin.trials.analysis import exact_rates, several_groups
from medtwin.trials.analysis.linear import linear_model
from medtwin.trials.restricted_rates import Scale, restricted_rates
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Formula, Frame, Named, as_factor, is_missing, plain, vector
from tests.trials.reference.model_calls import Design
from tests.trials.reference.model_tests import side, table
from tests.trials.reference.rcalls import Call
from tests.trials.reference.survival_fits import Arguments


def _groups(given: Arguments) -> list[Any]:
    """Vectors of values: of a list, of values and their groups, or by a formula."""
    first = given.value("x") if "x" in given.nodes else given.value("formula")
    if isinstance(first, list):
        return [np.asarray(plain(each), dtype=np.float64) for each in first]
    if isinstance(first, Formula):
        data = given.value("data") if "data" in given.nodes else given.value("g")
        inner = given.env.within(data) if isinstance(data, Frame) else given.env
        values, group = np.asarray(plain(inner.run(first.left)), dtype=np.float64), inner.run(first.right)
        keep = ~is_missing(values) & ~is_missing(as_factor(group))
        if "subset" in given.nodes:
            keep &= vector(inner.run(given.nodes["subset"])).astype(bool)
    else:
        values, group = np.asarray(plain(first), dtype=np.float64), given.value("g")
        keep = ~is_missing(values) & ~is_missing(as_factor(group))
    there = as_factor(as_factor(group).take(keep))
    return [values[keep][there.codes == i] for i in range(len(there.levels))]


def _chi_square(found: Any) -> dict[str, Any]:
    return {"statistic": found.chi_square, "parameter": float(found.degrees_of_freedom), "p.value": found.p_value}


def kruskal_test(env: Environment, call: Call) -> dict[str, Any]:
    """`kruskal.test()`."""
    given = Arguments.of(env, call, ("x", "g", "formula", "data", "subset", "na.action"))
    return _chi_square(several_groups.kruskal_wallis_test(_groups(given)))


def friedman_test(env: Environment, call: Call) -> dict[str, Any]:
    """`friedman.test()` of a matrix."""
    given = Arguments.of(env, call, ("y",))
    return _chi_square(several_groups.friedman_test(plain(given.value("y"))))


def one_way_test(env: Environment, call: Call) -> dict[str, Any]:
    """`oneway.test()`."""
    given = Arguments.of(env, call, ("formula", "data", "subset", "na.action", "var.equal"))
    found = several_groups.one_way_test(_groups(given), equal_variances=bool(given.value("var.equal", False)))
    return {
        "statistic": found.f,
        "parameter": np.array([found.numerator_df, found.denominator_df]),
        "p.value": found.p_value,
    }


def trend_test(env: Environment, call: Call) -> dict[str, Any]:
    """`prop.trend.test()`."""
    given = Arguments.of(env, call, ("x", "n", "score"))
    scores = given.value("score")
    events, subjects = vector(given.value("x")), vector(given.value("n"))
    return _chi_square(several_groups.trend_test(events, subjects, None if scores is None else vector(scores)))


def poisson_test(env: Environment, call: Call) -> dict[str, Any]:
    """`poisson.test()` of one rate or two."""
    given = Arguments.of(env, call, ("x", "T", "r", "alternative", "conf.level"))
    x, null = vector(given.value("x")).astype(np.float64), float(given.value("r", 1.0))
    times = np.broadcast_to(vector(given.value("T", 1.0)).astype(np.float64), x.shape)
    options: dict[str, Any] = {
        "alternative": side(given.value("alternative", "two.sided")),
        "level": given.value("conf.level", 0.95),
    }
    if len(x) == 1:
        limits = exact_rates.exact_event_rate(float(x[0]), float(times[0]), **options)
        p = exact_rates.event_rate_test(round(float(x[0])), float(times[0]), null, alternative=options["alternative"])
    else:
        both = exact_rates.exact_rate_ratio(
            (float(x[0]), float(x[1])), (float(times[0]), float(times[1])), null, **options
        )
        limits, p = both.odds_ratio, both.p_value
    return {
        "statistic": x[0],
        "p.value": p,
        "estimate": limits.estimate,
        "conf.int": np.array([limits.low, limits.high]),
    }


def cross_table(env: Environment, call: Call) -> Named:
    """`xtabs(~a + b + c)` of counts of rows."""
    given = Arguments.of(env, call, ("formula", "data", "subset"))
    formula: Formula = given.value("formula")
    if formula.left is not None or "subset" in given.nodes:
        raise NotCoveredError("xtabs() of sums or of a subset")
    data = given.value("data")
    inner = env if data is None else env.within(data)
    names: list[Any] = []
    node = formula.right
    while isinstance(node, Call) and node.name == "+":
        names.insert(0, node.args[1])
        node = node.args[0]
    return table(*(inner.run(each) for each in (node, *names)))


def restricted(scale: Scale) -> Callable[[Environment, Call], Any]:
    """`rpact:::.getFarringtonManningValuesDiff()` and its like for ratios."""

    def values(env: Environment, call: Call) -> Any:
        given = Arguments.of(env, call, ("rate1", "rate2", "theta", "allocation"))
        rates = given.value("rate1"), given.value("rate2")
        ratio = given.value("allocation", 1.0)
        return np.array(restricted_rates(rates, given.value("theta"), scale=scale, allocation_ratio=ratio))

    return values


def analysis_of_variance(env: Environment, call: Call) -> dict[str, Any]:
    """`anova()`: of one linear model by its terms, or of two nested models."""
    fits = [env.run(each) for each in call.args]
    test = env.run(call.named.get("test"))
    if set(call.named) - {"test"} or len(fits) > 2:
        raise NotCoveredError(f"anova() of {len(fits)} fits with {sorted(call.named)}")
    if len(fits) == 1:
        if fits[0]["class"] != "lm":
            raise NotCoveredError(f"anova() of one {fits[0]['class']}")
        return _by_terms(fits[0])
    smaller, larger = fits
    if smaller["class"] == "lm":
        found = several_groups.nested_models_test(smaller["fit"], larger["fit"])
        return {
            "F": np.array([np.nan, found.f]),
            "Pr(>F)": np.array([np.nan, found.p_value]),
            "Res.Df": np.array([smaller["df.residual"], larger["df.residual"]]),
            "Df": np.array([np.nan, found.numerator_df]),
        }
    if smaller["class"] != "glm" or str(test) not in ("Chisq", "LRT") or larger["fit"].family.has_free_dispersion:
        raise NotCoveredError(f"anova() of {smaller['class']} with the test {test}")
    gain, df = smaller["deviance"] - larger["deviance"], smaller["df.residual"] - larger["df.residual"]
    return {
        "Resid. Df": np.array([smaller["df.residual"], larger["df.residual"]]),
        "Resid. Dev": np.array([smaller["deviance"], larger["deviance"]]),
        "Df": np.array([np.nan, df]),
        "Deviance": np.array([np.nan, gain]),
        "Pr(>Chi)": np.array([np.nan, float(chi2.sf(gain, df))]),
    }


def _by_terms(fit: Any) -> dict[str, Any]:
    of: Design = fit["design"]
    y, whole = of.y.numbers - of.offset, fit["fit"]
    if not all(of.kept.columns):
        raise NotCoveredError("anova() of a model with columns that depend on one another")
    ends = [1, *(1 + np.cumsum([len(each) for each in of.frame.columns_of_terms()]))]
    steps = [linear_model(y, of.x[:, :end]) for end in ends]
    found = [several_groups.nested_models_test(one, other, whole) for one, other in pairwise(steps)]
    df = np.array([each.numerator_df for each in found] + [whole.degrees_of_freedom])
    means = np.array([each.f for each in found] + [1.0]) * whole.sigma**2
    columns = {
        "Df": df,
        "Sum Sq": df * means,
        "Mean Sq": means,
        "F value": np.array([*(each.f for each in found), np.nan]),
        "Pr(>F)": np.array([*(each.p_value for each in found), np.nan]),
    }
    return Frame(columns)


NATIVES: dict[str, Callable[[Environment, Call], Any]] = {
    "kruskal.test": kruskal_test,
    "friedman.test": friedman_test,
    "oneway.test": one_way_test,
    "prop.trend.test": trend_test,
    "poisson.test": poisson_test,
    "xtabs": cross_table,
    "anova": analysis_of_variance,
    ".getFarringtonManningValuesDiff": restricted("difference"),
    ".getFarringtonManningValuesRatio": restricted("ratio"),
}
