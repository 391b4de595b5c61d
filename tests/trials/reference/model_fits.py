"""Fits of R's stats, MASS and geepack by medtwin: arguments, and results as R names them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from scipy.stats import chi2, f, norm, t

from medtwin.trials.analysis.gee import GEE, Correlation
from medtwin.trials.analysis.glm import (
    Family,
    GeneralisedLinearModel,
    generalised_linear_model,
    negative_binomial_model,
)
from medtwin.trials.analysis.linear import LinearModel, linear_model
from medtwin.trials.analysis.profile_likelihood import profile_interval
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Formula, Named, plain, vector
from tests.trials.reference.model_calls import Design, column, design
from tests.trials.reference.rcalls import Call, Name
from tests.trials.reference.survival_fits import Arguments

_DISTRIBUTIONS = {"binomial": "binomial", "poisson": "poisson", "gaussian": "gaussian", "Gamma": "gamma"}


def refuse_arguments(given: Arguments, name: str, *unknown: str) -> None:
    """Raises for arguments of a call that medtwin has no counterpart of.

    Raises:
        NotCoveredError: Naming the argument.
    """
    for each in unknown:
        if each in given.nodes:
            raise NotCoveredError(f"the argument {each} of {name}()")


def _design(given: Arguments, *more: str) -> Design:
    nodes = tuple(given.nodes[name] for name in more if name in given.nodes)
    return design(given.env, given.value("formula"), given.value("data"), given.nodes.get("subset"), nodes)


def as_fit(kind: str, of: Design, coefficients: Any, variance: Any, **others: Any) -> dict[str, Any]:
    """A fit as R shows it: what all classes have, and what is said of this one."""
    names = of.names
    return {
        "class": kind,
        "coefficients": Named(of.kept.vector(coefficients, first=1), (names,)),
        "vcov": Named(variance, ([names[0], *np.array(names[1:])[of.kept.columns]],) * 2),
        "design": of,
        **others,
    }


def lm(env: Environment, call: Call) -> dict[str, Any]:
    """`lm()`."""
    given = Arguments.of(env, call, ("formula", "data", "subset", "weights", "na.action"))
    of = _design(given, "weights")
    weights = np.ones(len(of.x))
    if "weights" in given.nodes:
        weights = column(env, given.nodes["weights"], given.value("data"), of.frame.rows).astype(np.float64)
    fit = linear_model(of.y.numbers - of.offset, of.x, weights=weights)
    residuals = fit.residuals / np.sqrt(weights)
    return as_fit(
        "lm",
        of,
        fit.coefficients,
        fit.covariance,
        fit=fit,
        residuals=residuals,
        weights=weights,
        df=float(fit.degrees_of_freedom),
        loglik=fit.log_likelihood,
        parameters=fit.x.shape[1] + 1,
        **{"fitted.values": of.y.numbers - residuals, "df.residual": float(fit.degrees_of_freedom)},
    )


def family(node: Any, default: str = "gaussian") -> Family:
    """The argument family, not evaluated: a name, a call with a link, or text."""
    if node is None:
        return Family(_DISTRIBUTIONS[default])  # type: ignore[arg-type]
    link = None
    if isinstance(node, Call):
        chosen = node.get("link", 0)
        link = chosen.name if isinstance(chosen, Name) else chosen
    name = node if isinstance(node, str) else node.name
    is_quasi = name.startswith("quasi")
    name = name.removeprefix("quasi")
    if name not in _DISTRIBUTIONS:
        raise NotCoveredError(f"the family {name}")
    return Family(_DISTRIBUTIONS[name], link, is_quasi=is_quasi)  # type: ignore[arg-type]


def _weighted(given: Arguments, of: Design, law: Family) -> tuple[Any, Any]:
    """Response and prior weights; counts of successes and failures become shares of trials."""
    y, weights = of.y.columns, np.ones(len(of.x))
    if "weights" in given.nodes:
        weights = column(given.env, given.nodes["weights"], given.value("data"), of.frame.rows).astype(np.float64)
    if y.ndim == 2:
        if law.distribution != "binomial":
            raise NotCoveredError("a response of several columns")
        trials = y.sum(axis=1)
        y, weights = y[:, 0] / np.maximum(trials, 1e-300), weights * trials
    return y, weights


def glm(env: Environment, call: Call) -> dict[str, Any]:
    """`glm()`."""
    signature = ("formula", "family", "data", "weights", "subset", "na.action", "start", "offset")
    given = Arguments.of(env, call, signature)
    refuse_arguments(given, "glm", "start")
    of, law = _design(given), family(given.nodes.get("family"))
    y, weights = _weighted(given, of, law)
    offset = of.offset
    if "offset" in given.nodes:
        offset = offset + column(env, given.nodes["offset"], given.value("data"), of.frame.rows)
    fit = generalised_linear_model(y, of.x, law, weights=weights, offset=offset)
    return _glm(of, fit, offset)


def _glm(of: Design, fit: GeneralisedLinearModel, offset: Any, **others: Any) -> dict[str, Any]:
    null = generalised_linear_model(
        fit.response, np.ones((len(fit.response), 1)), fit.family, weights=fit.weights, offset=offset
    )
    rank = fit.num_parameters - int(not np.isnan(fit.theta_error))
    return as_fit(
        "glm",
        of,
        fit.coefficients,
        fit.covariance,
        fit=fit,
        loglik=fit.log_likelihood,
        aic=2 * rank - 2 * fit.log_likelihood,
        parameters=fit.num_parameters,
        deviance=fit.deviance,
        y=fit.response,
        **{
            "fitted.values": fit.fitted,
            "df.residual": float(fit.degrees_of_freedom),
            "null.deviance": null.deviance,
            "df.null": float(null.degrees_of_freedom),
            **others,
        },
    )


def glm_nb(env: Environment, call: Call) -> dict[str, Any]:
    """`MASS::glm.nb()`."""
    given = Arguments.of(env, call, ("formula", "data", "weights", "subset", "na.action", "link", "init.theta"))
    of = _design(given)
    y, weights = _weighted(given, of, Family("poisson"))
    link = given.nodes.get("link")
    name: Any = link.name if isinstance(link, Name) else link or "log"
    fit = negative_binomial_model(y, of.x, link=name, weights=weights, offset=of.offset)
    others = {"theta": fit.family.theta, "SE.theta": fit.theta_error, "twologlik": 2 * fit.log_likelihood}
    return {
        **_glm(of, fit, of.offset, **others),
        "class": "negbin",
        "aic": 2 * (fit.num_parameters - fit.log_likelihood),
    }


def geeglm(env: Environment, call: Call) -> dict[str, Any]:
    """`geepack::geeglm()`: a cluster is a run of rows with one id."""
    signature = (
        "formula",
        "family",
        "data",
        "weights",
        "subset",
        "na.action",
        "start",
        "id",
        "waves",
        "zcor",
        "corstr",
    )
    given = Arguments.of(env, call, (*signature, "scale.fix", "scale.value", "std.err"))
    refuse_arguments(given, "geeglm", "weights", "start", "zcor")
    if given.value("std.err", "san.se") != "san.se":
        raise NotCoveredError("the argument std.err of geeglm()")
    of = _design(given)
    if of.y.columns.ndim > 1:
        raise NotCoveredError("a response of several columns in geeglm()")
    data = given.value("data")
    label = vector(column(env, given.nodes["id"], data, of.frame.rows))
    cluster = np.cumsum(np.concatenate([[True], label[1:] != label[:-1]]))
    waves = None if "waves" not in given.nodes else vector(column(env, given.nodes["waves"], data, of.frame.rows))
    # geeglm() of geepack 1.3.9 takes scale.fix and estimates the scale all the same.
    model = GEE(family(given.nodes.get("family")), _correlation(given.value("corstr", "independence")))
    fit = model.fit(of.y.columns, of.x, cluster, wave=waves, offset=of.offset)
    found = as_fit("geeglm", of, fit.coefficients, fit.covariance, fit=fit, **{"fitted.values": fit.fitted})
    geese = {
        "beta": found["coefficients"],
        "vbeta": fit.covariance,
        "vbeta.naiv": fit.naive_covariance,
        "alpha": fit.correlation,
        "gamma": fit.scale,
    }
    return {**found, "geese": geese, "df.residual": float(len(of.x) - of.x.shape[1])}


def _correlation(name: str) -> Correlation:
    """A working correlation by the start of its name."""
    known = [each for each in get_args(Correlation) if each.startswith(name)]
    if len(known) != 1:
        raise NotCoveredError(f"the corstr {name} of geeglm()")
    return known[0]  # type: ignore[no-any-return]


def geese(env: Environment, call: Call) -> Any:
    """`geepack::geese()`."""
    return geeglm(env, call)["geese"]


def summary(fit: Any) -> dict[str, Any]:
    """`summary()`."""
    if fit["class"] == "mmrm":
        own = fit["fit"]
        table = [own.coefficients, own.standard_errors, own.degrees_of_freedom, own.t, own.p_values]
        heads = ["Estimate", "Std. Error", "df", "t value", "Pr(>|t|)"]
        return {**fit, "coefficients": Named(np.column_stack(table), (_kept(fit), heads))}
    if fit["class"] == "geeglm":
        own = fit["fit"]
        table = [own.coefficients, own.standard_errors, own.wald, chi2.sf(own.wald, 1)]
        heads = ["Estimate", "Std.err", "Wald", "Pr(>|W|)"]
        scale = Named(np.array([[own.scale]]), (["(Intercept)"], ["Estimate"]))
        return {**fit, "coefficients": Named(np.column_stack(table), (_kept(fit), heads)), "dispersion": scale}
    if fit["class"] in ("lme", "gls"):
        return dict(fit)
    return _lm_summary(fit) if fit["class"] == "lm" else _glm_summary(fit)


def _kept(fit: Any) -> list[str]:
    return list(fit["vcov"].names[0])


def _table(fit: Any, variance: Any, df: float | None) -> Named:
    b, se = fit["fit"].coefficients, np.sqrt(np.diag(variance))
    p = 2 * (norm.sf(np.abs(b / se)) if df is None else t.sf(np.abs(b / se), df))
    letter = "z" if df is None else "t"
    heads = ["Estimate", "Std. Error", f"{letter} value", f"Pr(>|{letter}|)"]
    return Named(np.column_stack([b, se, b / se, p]), (_kept(fit), heads))


def _lm_summary(fit: Any) -> dict[str, Any]:
    own: LinearModel = fit["fit"]
    rest = float(own.residuals @ own.residuals)
    fitted = fit["fitted.values"]  # with the offset, as R 4.2 counts it
    second, w = own.degrees_of_freedom, fit["weights"]
    centre = np.average(fitted, weights=w) if fit["design"].has_intercept else 0.0
    total = rest + float((w * (fitted - centre) ** 2).sum())
    first = own.x.shape[1] - int(fit["design"].has_intercept)
    share = 1 - rest / total
    ratio = share / max(first, 1) / ((1 - share) / second)
    return {
        **fit,
        "coefficients": _table(fit, own.covariance, second),
        "sigma": own.sigma,
        "r.squared": share,
        "adj.r.squared": 1 - (1 - share) * (own.x.shape[0] - int(fit["design"].has_intercept)) / second,
        "fstatistic": Named(np.array([ratio, first, second]), (["value", "numdf", "dendf"],)),
        "df": np.array([own.x.shape[1], second, own.x.shape[1]]),
        "pvalue": float(f.sf(ratio, first, second)),
    }


def _glm_summary(fit: Any) -> dict[str, Any]:
    own: GeneralisedLinearModel = fit["fit"]
    df = own.degrees_of_freedom if own.family.has_free_dispersion else None
    return {**fit, "coefficients": _table(fit, own.covariance, df), "dispersion": own.dispersion}


def coefficients(fit: Any) -> Any:
    """`coef()`; of a summary its table."""
    return fit["coefficients"]


def variance(fit: Any) -> Any:
    """`vcov()`."""
    return fit["vcov"]


def robust_variance(fit: Any, type: str = "HC3", **unknown: Any) -> Named:
    """`sandwich::vcovHC()`."""
    if unknown or fit["class"] not in ("lm", "glm", "negbin"):
        raise NotCoveredError(f"vcovHC() of {fit['class']} with {sorted(unknown)}")
    kind = {"HC": "HC0"}.get(type, type)
    return Named(fit["fit"].robust_covariance(kind), fit["vcov"].names)


def sandwich(fit: Any) -> Named:
    """`sandwich::sandwich()`."""
    return robust_variance(fit, "HC0")


def coefficient_tests(fit: Any, variance: Any = None, **named: Any) -> Named:
    """`lmtest::coeftest()`."""
    given = named.pop("vcov.", named.pop("vcov", variance))
    if named:
        raise NotCoveredError(f"the arguments {sorted(named)} of coeftest()")
    matrix = plain(given(fit) if callable(given) else fit["vcov"] if given is None else given)
    df = fit["df.residual"] if fit["class"] == "lm" else None
    return _table(fit, matrix, df)


def confint(fit: Any, parm: Any = None, level: float = 0.95) -> Named:
    """`confint()` of lm and mmrm, `confint.default()` of all."""
    own = fit["fit"]
    se = np.sqrt(np.diag(plain(fit["vcov"])))
    df = own.degrees_of_freedom if fit["class"] in ("lm", "mmrm") else np.inf
    half = t.ppf(0.5 + level / 2, df) * se
    tails = [f"{50 * (1 - level):.3g} %", f"{100 - 50 * (1 - level):.3g} %"]
    table = Named(np.column_stack([own.coefficients - half, own.coefficients + half]), (_kept(fit), tails))
    if parm is None:
        return table
    wanted = vector(parm)
    names = _kept(fit)
    rows = [names.index(each) if isinstance(each, str) else int(each) - 1 for each in wanted.tolist()]
    return Named(table.values[rows], ([names[row] for row in rows], tails))


def strict_confint(fit: Any, parm: Any = None, level: float = 0.95) -> Named:
    """`confint()`, which of a glm is by profiles of the likelihood."""
    if fit["class"] not in ("glm", "negbin"):
        if fit["class"] in ("lme", "gls"):
            raise NotCoveredError(f"confint() of {fit['class']}")
        return confint(fit, parm, level)
    wald = confint({**fit, "class": "default"}, parm, level)
    limits = [profile_interval(fit["fit"], _kept(fit).index(name), level) for name in wald.names[0] or ()]
    return Named(np.array([[each.low, each.high] for each in limits]), wald.names)


def wald_confint(fit: Any, parm: Any = None, level: float = 0.95) -> Named:
    """`confint.default()`."""
    return confint({**fit, "class": "default"}, parm, level)


def log_likelihood(fit: Any) -> float:
    """`logLik()`."""
    return float(fit["loglik"])


def aic(fit: Any) -> float:
    """`AIC()`."""
    return float(fit["aic"] if fit["class"] == "mmrm" else 2 * fit["parameters"] - 2 * fit["loglik"])


def bic(fit: Any) -> float:
    """`BIC()`."""
    if fit["class"] == "mmrm":
        return float(fit["bic"])
    return float(np.log(fit.get("size", len(fit["design"].x))) * fit["parameters"] - 2 * fit["loglik"])


def deviance(fit: Any) -> float:
    """`deviance()`; of lm the residual sum of squares."""
    return float(fit["fit"].residuals @ fit["fit"].residuals if fit["class"] == "lm" else fit["deviance"])


def leverages(fit: Any) -> Any:
    """`hatvalues()` of lm."""
    if fit["class"] != "lm":
        raise NotCoveredError(f"hatvalues() of {fit['class']}")
    return fit["fit"].leverages


def residuals(fit: Any, type: str | None = None) -> Any:
    """`residuals()`: of a glm those of the deviance unless another type is asked for."""
    if fit["class"] not in ("lm", "glm", "negbin"):
        raise NotCoveredError(f"residuals() of {fit['class']}")
    own = fit["fit"]
    if fit["class"] == "lm":
        return fit["residuals"]
    raw = own.response - own.fitted
    roots = np.sqrt(own.weights * np.maximum(own.family.deviances(own.response, own.fitted), 0.0))
    kinds = {"response": raw, "pearson": own.pearson, "deviance": np.sign(raw) * roots}
    if (type or "deviance") not in kinds:
        raise NotCoveredError(f"the type {type} of residuals()")
    return kinds[type or "deviance"]


def predict(env: Environment, call: Call) -> Any:
    """`predict()` of lm and glm, of both also with errors, of lm also with limits."""
    given = Arguments.of(env, call, ("object", "newdata", "type", "se.fit", "interval", "level"))
    fit = given.value("object")
    if fit["class"] not in ("lm", "glm", "negbin", "geeglm"):
        raise NotCoveredError(f"predict() of {fit['class']}")
    data = given.value("newdata")
    of: Design = fit["design"]
    x, offset = (of.x, of.offset) if data is None else of.with_data(env, data)
    own, kind = fit["fit"], given.value("type", "link")
    eta = x @ own.coefficients + offset
    is_linear = fit["class"] == "lm" or kind == "link"
    if not is_linear and (kind != "response" or fit["class"] == "geeglm"):
        raise NotCoveredError(f"the type {kind} of predict()")
    found = eta if is_linear else own.predict(x, offset)
    asks_limits = given.value("interval", "none") != "none"
    if not given.value("se.fit", False) and not asks_limits:
        return found
    slopes = np.ones(len(x)) if is_linear else own.family.functions.slope(eta)
    errors = np.sqrt(np.einsum("ij,jk,ik->i", x, own.covariance, x)) * np.abs(slopes)
    return _limits(fit, given, found, errors) if asks_limits else {"fit": found, "se.fit": errors}


def _limits(fit: Any, given: Arguments, found: Any, errors: Any) -> Named:
    kind, own = given.value("interval"), fit["fit"]
    if fit["class"] != "lm" or kind not in ("confidence", "prediction") or given.value("se.fit", False):
        raise NotCoveredError(f"the interval {kind} of predict() of {fit['class']}")
    spread = np.hypot(errors, own.sigma) if kind == "prediction" else errors
    half = t.ppf(0.5 + given.value("level", 0.95) / 2, own.degrees_of_freedom) * spread
    return Named(np.column_stack([found, found - half, found + half]), (None, ["fit", "lwr", "upr"]))


def model_matrix(env: Environment, call: Call) -> Named:
    """`model.matrix()` of a fit or a formula, also at other data."""
    given = Arguments.of(env, call, ("object", "data"))
    what, data = given.value("object"), given.value("data")
    if isinstance(what, Formula):
        of = design(env, Formula(1.0, what.right), data) if data is not None else None
        if of is None:
            raise NotCoveredError("model.matrix() of a formula without data")
        return Named(of.x, (None, of.names))
    of = what["design"]
    x = of.x if data is None else of.with_data(env, data)[0]
    return Named(x, (None, _kept(what)))
