"""Fits of R's mmrm by medtwin: arguments, the covariance in the formula, contrasts and parts of a fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtwin.trials.analysis.covariance_structures import StructureName
from medtwin.trials.analysis.mmrm import MMRM, quick_search
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Factor, Formula, Named, plain, vector
from tests.trials.reference.model_calls import column, design, sum_of, terms_of
from tests.trials.reference.model_fits import as_fit, refuse_arguments
from tests.trials.reference.rcalls import Call
from tests.trials.reference.survival_fits import Arguments

_STRUCTURES = ("us", "toep", "toeph", "ar1", "ar1h", "cs", "csh", "ad", "adh", "sp_exp")
_INFERENCE: dict[str, Any] = {
    "Satterthwaite": "satterthwaite",
    "Kenward-Roger": "kenward_roger",
    "Residual": "residual",
    "Between-Within": "between_within",
}


def mmrm(env: Environment, call: Call) -> dict[str, Any]:
    """`mmrm::mmrm()`."""
    signature = ("formula", "data", "weights", "covariance", "reml", "control", "method", "vcov", "optimizer")
    given = Arguments.of(env, call, signature)
    refuse_arguments(given, "mmrm", "weights", "covariance")
    control = given.nodes.get("control")
    options = {} if control is None else dict(control.named)
    if "optimizer" in given.nodes or set(options) - {"method", "vcov"}:
        raise NotCoveredError(f"the control {sorted(options)} of mmrm()")
    chosen = {name: given.value(name) or env.run(options.get(name)) for name in ("method", "vcov")}
    formula, data = given.value("formula"), given.value("data")
    terms = terms_of(formula.right)
    bars = [each for each in terms if isinstance(each, Call) and each.name in _STRUCTURES]
    if len(bars) != 1:
        raise NotCoveredError("a covariance structure of mmrm() that is not known")
    visit, subject, group = _roles(bars[0])
    nodes = tuple(each for each in (visit, subject, group) if each is not None)
    of = design(env, Formula(formula.left, sum_of([each for each in terms if each is not bars[0]])), data, None, nodes)
    method = chosen["method"] or "Satterthwaite"
    structure: StructureName = bars[0].name  # type: ignore[assignment]
    model = MMRM(structure, _inference(method, chosen["vcov"]), bool(given.value("reml", True)), quick_search)
    places = column(env, visit, data, of.frame.rows)
    groups = None if group is None else _order(column(env, group, data, of.frame.rows))
    labels = vector(column(env, subject, data, of.frame.rows))
    fit = model.fit(of.y.numbers, of.x, labels, _order(places), group=groups)
    several = len(fit.covariances) > 1
    return as_fit(
        "mmrm",
        of,
        fit.coefficients,
        fit.covariance,
        fit=fit,
        loglik=fit.log_likelihood,
        varcorr=list(fit.covariances) if several else fit.covariances[0],
        aic=fit.aic,
        bic=fit.bic,
        deviance=-2 * fit.log_likelihood,
    )


def _order(values: Any) -> Any:
    return values.codes if isinstance(values, Factor) else vector(values)


def _roles(bar: Call) -> tuple[Any, Any, Any]:
    """Visit, subject and group of `us(visit | group / subject)`."""
    inner = bar.args[0]
    if len(bar.args) != 1 or not isinstance(inner, Call) or inner.name != "|":
        raise NotCoveredError("several coordinates of a covariance structure")
    visit, right = inner.args
    if isinstance(right, Call) and right.name == "/":
        return visit, right.args[1], right.args[0]
    return visit, right, None


def _inference(method: str, vcov: str | None) -> Any:
    if method not in _INFERENCE:
        raise NotCoveredError(f"the method {method} of mmrm()")
    if method == "Kenward-Roger":
        if vcov not in (None, "Kenward-Roger", "Kenward-Roger-Linear"):
            raise NotCoveredError(f"the vcov {vcov} of mmrm()")
        return "kenward_roger_linear" if vcov == "Kenward-Roger-Linear" else "kenward_roger"
    if vcov not in (None, "Asymptotic"):
        raise NotCoveredError(f"the vcov {vcov} of mmrm()")
    return _INFERENCE[method]


def contrast(fit: Any, weights: Any) -> dict[str, float]:
    """`mmrm::df_1d()`."""
    one = fit["fit"].contrast(vector(weights).astype(np.float64))
    return {
        "est": one.estimate,
        "se": one.standard_error,
        "df": one.degrees_of_freedom,
        "t_stat": one.t,
        "p_val": one.p_value,
    }


def contrasts(fit: Any, weights: Any) -> dict[str, float]:
    """`mmrm::df_md()`."""
    one = fit["fit"].joint_test(np.asarray(plain(weights), dtype=np.float64))
    return {"num_df": float(one.numerator_df), "denom_df": one.denominator_df, "f_stat": one.f, "p_val": one.p_value}


def component(fit: Any, name: Any) -> Any:
    """`mmrm::component()`, for one name."""
    known = {
        "beta_est": fit["coefficients"],
        "beta_vcov": Named(fit["fit"].model_covariance, fit["vcov"].names),
        "varcor": fit["varcorr"],
        "n_theta": float(len(fit["fit"].theta)),
        "n_subjects": float(fit["fit"].num_subjects),
        "n_obs": float(fit["fit"].num_rows),
        "n_timepoints": float(len(fit["fit"].visits)),
    }
    if name not in known:
        raise NotCoveredError(f"the component {name} of mmrm()")
    return known[name]
