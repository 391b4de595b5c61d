"""Fits of R's nlme by medtwin: `lme()` with random effects of one grouping, and what `VarCorr()` shows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.stats import t

from medtwin.trials.analysis.covariance_structures import StructureName
from medtwin.trials.analysis.mmrm import MMRM
from medtwin.trials.analysis.random_effects import random_effects_model
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Factor, Formula, Named, as_factor, vector
from tests.trials.reference.model_calls import Design, column, design
from tests.trials.reference.model_fits import as_fit, refuse_arguments
from tests.trials.reference.rcalls import Call, Name
from tests.trials.reference.survival_fits import Arguments

_SIGNATURE = ("fixed", "data", "random", "correlation", "weights", "subset", "method", "na.action")


def lme(env: Environment, call: Call) -> dict[str, Any]:
    """`nlme::lme()` with a random intercept, or several random effects of one subject."""
    given = Arguments.of(env, call, _SIGNATURE)
    refuse_arguments(given, "lme", "correlation", "weights")
    method, data = given.value("method", "REML"), given.value("data")
    if method not in ("REML", "ML"):
        raise NotCoveredError(f"the method {method} of lme()")
    effects, subject = _bar(given.value("random"))
    if isinstance(subject, Call):
        raise NotCoveredError("nested groups of lme()")
    of = design(env, given.value("fixed"), data, given.nodes.get("subset"), (subject,))
    labels = vector(column(env, subject, data, of.frame.rows))
    if effects == 1.0:
        return _with_intercept(of, labels, method)
    return _with_effects(of, _random_design(env, effects, data, given, of), labels, method)


def _bar(random: Any) -> tuple[Any, Any]:
    """Effects and subject of `~effects | subject`, or of `list(subject = ~effects)`."""
    if isinstance(random, Mapping) and len(random) == 1:
        ((name, formula),) = random.items()
        if isinstance(formula, Formula):
            return formula.right, Name(name)
    if not isinstance(random, Formula) or not isinstance(random.right, Call) or random.right.name != "|":
        raise NotCoveredError("random effects of lme() that are no formula with one bar")
    return random.right.args


def _random_design(env: Environment, effects: Any, data: Any, given: Arguments, of: Design) -> Design:
    found = design(env, Formula(given.value("fixed").left, effects), data, given.nodes.get("subset"))
    if len(found.x) != len(of.x):
        raise NotCoveredError("missing values in what lme() has random effects of")
    return found


def _with_intercept(of: Design, labels: Any, method: str) -> dict[str, Any]:
    constant = np.ones((len(of.x), 1))
    fit = random_effects_model(of.y.numbers, of.x, constant, labels, is_restricted=method == "REML")
    sds = np.append(fit.random_sds, fit.residual_sd)
    b, se = fit.coefficients, fit.standard_errors
    if method == "ML":  # summary() enlarges them
        se = se * np.sqrt(len(of.x) / (len(of.x) - len(b)))
    p = 2 * t.sf(np.abs(b / se), fit.degrees_of_freedom)
    columns = np.column_stack([b, se, fit.degrees_of_freedom, b / se, p])
    heads = ["Value", "Std.Error", "DF", "t-value", "p-value"]
    return as_fit(
        "lme",
        of,
        b,
        fit.covariance,
        fit=fit,
        sigma=fit.residual_sd,
        loglik=fit.log_likelihood,
        parameters=len(b) + 2,
        tTable=Named(columns, (of.names, heads)),
        varcorr=Named(np.column_stack([sds**2, sds]), (["(Intercept)", "Residual"], ["Variance", "StdDev"])),
        random=Named(fit.random_covariance, (["(Intercept)"],) * 2),
        size=len(of.x) - (len(b) if method == "REML" else 0),
    )


def _with_effects(of: Design, random: Design, labels: Any, method: str) -> dict[str, Any]:
    fit = random_effects_model(of.y.numbers, of.x, random.x, labels, is_restricted=method == "REML")
    sds = np.append(fit.random_sds, fit.residual_sd)
    count, b = len(fit.random_sds), fit.coefficients
    columns, heads = [sds**2, sds], ["Variance", "StdDev"]
    for j in range(count - 1):  # shown to three digits, below the diagonal
        rows = [np.nan] * (j + 1) + fit.random_correlation[j + 1 :, j].round(3).tolist()
        columns.append(np.array([*rows, np.nan]))
        heads.append("Corr" if j == 0 else "")
    return as_fit(
        "lme",
        of,
        b,
        fit.covariance,
        fit=fit,
        sigma=fit.residual_sd,
        loglik=fit.log_likelihood,
        parameters=len(b) + count * (count + 1) // 2 + 1,
        varcorr=Named(np.column_stack(columns), ([*random.names, "Residual"], heads)),
        random=Named(fit.random_covariance, (random.names,) * 2),
        size=len(of.x) - (len(b) if method == "REML" else 0),
    )


def gls(env: Environment, call: Call) -> dict[str, Any]:
    """`nlme::gls()` whose errors have a covariance that MMRM has too."""
    given = Arguments.of(env, call, ("model", "data", "correlation", "weights", "subset", "method", "na.action"))
    refuse_arguments(given, "gls", "subset")
    method, data = given.value("method", "REML"), given.value("data")
    kind, (_, subject) = _error_formula(given.nodes.get("correlation"))
    variances = given.nodes.get("weights")
    is_free = variances is not None
    if is_free and (not isinstance(variances, Call) or variances.name != "varIdent"):
        raise NotCoveredError("weights of gls() other than varIdent()")
    names: dict[tuple[str, bool], StructureName] = {
        ("corCompSymm", False): "cs",
        ("corCompSymm", True): "csh",
        ("corAR1", False): "ar1",
        ("corAR1", True): "ar1h",
        ("corSymm", True): "us",
    }
    structure = names.get((kind, is_free))
    if structure is None:
        raise NotCoveredError(f"{kind}() of gls() {'with' if is_free else 'without'} varIdent()")
    visit = _error_formula(variances)[1][1] if is_free else None
    of = design(env, given.value("model"), data, None, (subject,))
    labels = vector(column(env, subject, data, of.frame.rows))
    places = _running(labels)
    if visit is not None:
        value = column(env, visit, data, of.frame.rows)
        groups = (value if isinstance(value, Factor) else as_factor(value)).codes
        if kind != "corCompSymm" and not np.array_equal(places, groups):
            raise NotCoveredError("strata of varIdent() that are not the places of rows in their subject")
        places = groups
    fit = MMRM(structure, is_restricted=method == "REML").fit(of.y.numbers, of.x, labels, places)
    rows, count = of.x.shape
    return as_fit(
        "gls",
        of,
        fit.coefficients,
        fit.covariance * (1.0 if method == "REML" else rows / (rows - count)),
        fit=fit,
        sigma=float(np.sqrt(fit.covariances[0][places[0], places[0]])),
        loglik=fit.log_likelihood,
        parameters=count + len(fit.theta),
        size=rows - (count if method == "REML" else 0),
    )


def _error_formula(node: Any) -> tuple[str, tuple[Any, Any]]:
    """Name and both sides of the bar of `corAR1(form = ~1 | subject)`."""
    form = node.get("form", 1) if isinstance(node, Call) else None
    if not isinstance(form, Call) or form.name != "~" or len(form.args) != 1 or set(node.named) - {"form"}:
        raise NotCoveredError("a covariance of errors without a formula")
    bar = form.args[0]
    if not isinstance(bar, Call) or bar.name != "|" or bar.args[0] != 1.0:
        raise NotCoveredError("a covariance of errors by other than the order of rows")
    return node.name, bar.args


def _running(labels: Any) -> Any:
    """The place of each row among those of its subject."""
    seen: dict[Any, int] = {}
    found = []
    for each in labels.tolist():
        found.append(seen.get(each, 0))
        seen[each] = found[-1] + 1
    return np.array(found)


def intervals(fit: Any, level: float = 0.95, which: str = "all") -> dict[str, Named]:
    """`intervals()` of the fixed effects of lme()."""
    if fit["class"] != "lme" or which not in ("all", "fixed") or "tTable" not in fit:
        raise NotCoveredError(f"intervals() of {fit['class']} for {which}")
    own = fit["fit"]
    half = t.ppf(0.5 + level / 2, own.degrees_of_freedom) * own.standard_errors
    table = np.column_stack([own.coefficients - half, own.coefficients, own.coefficients + half])
    return {"fixed": Named(table, (fit["design"].names, ["lower", "est.", "upper"]))}


def _part(name: str) -> Callable[[Any], Any]:
    def take(fit: Any) -> Any:
        if name not in fit:
            raise NotCoveredError(f"the {name} of {fit['class']}")
        return fit[name]

    return take


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "intervals": intervals,
    "getVarCov": _part("random"),
}
