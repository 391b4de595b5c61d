"""Fits of R's survival package by medtwin: its arguments, and its results as R names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from medtwin.trials.analysis.concordance import concordance
from medtwin.trials.analysis.cox import CoxModel, cox_model, proportional_hazards_test
from medtwin.trials.analysis.kaplan_meier import (
    HazardTies,
    Limits,
    SurvivalCurve,
    kaplan_meier,
    nelson_aalen,
    survival_limits,
)
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.analysis.parametric import parametric_model
from medtwin.trials.analysis.restricted_mean import restricted_mean
from medtwin.trials.survival_weights import FlemingHarrington
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Named, plain, vector
from tests.trials.reference.model_frame import Estimable, ModelFrame, model_frame
from tests.trials.reference.rcalls import Call


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call by name; those by place have the names of the signature.

    Raises:
        NotCoveredError: For an argument that is not in the signature.
    """

    env: Environment
    nodes: Mapping[str, Any]

    @classmethod
    def of(cls, env: Environment, call: Call, signature: tuple[str, ...]) -> Arguments:
        """The arguments of a call."""
        unknown = set(call.named) - set(signature)
        left = [name for name in signature if name not in call.named]
        if unknown or len(call.args) > len(left):
            raise NotCoveredError(f"the arguments {sorted(unknown) or len(call.args)} of {call.name}()")
        return cls(env, {**dict(zip(left, call.args, strict=False)), **call.named})

    def value(self, name: str, default: Any = None) -> Any:
        """An argument evaluated."""
        return self.env.run(self.nodes[name]) if name in self.nodes else default

    def frame(self) -> ModelFrame:
        """The model frame of `formula`, `data` and `subset`."""
        return model_frame(self.env, self.value("formula"), self.value("data"), self.nodes.get("subset"))

    def column(self, name: str, frame: ModelFrame) -> Any:
        """An argument evaluated in the data, at the rows of the frame."""
        if name not in self.nodes:
            return None
        data = self.value("data")
        return vector((self.env if data is None else self.env.within(data)).run(self.nodes[name]))[frame.rows]


@dataclass(frozen=True)
class Surv:
    """Times and events; start is None unless late entry is given."""

    start: NDArray[Any] | None
    time: NDArray[Any]
    event: NDArray[Any]

    @property
    def columns(self) -> NDArray[Any]:
        """All of it, (rows, columns)."""
        return np.column_stack([each for each in (self.start, self.time, self.event) if each is not None])

    def rows(self, keep: NDArray[np.bool_]) -> Surv:
        """Some of the rows."""
        return Surv(None if self.start is None else self.start[keep], self.time[keep], self.event[keep])


def surv(env: Environment, call: Call) -> Surv:
    """`Surv(time, event)` or `Surv(start, stop, event)`; events coded 1 and 2 as R reads them."""
    given = Arguments.of(env, call, ("time", "time2", "event", "type"))
    if given.value("type", "right") not in ("right", "counting"):
        raise NotCoveredError(f"the type {given.value('type')} of Surv()")
    one, two, three = (given.value(name) for name in ("time", "time2", "event"))
    if two is None or three is None:
        start, stop, event = None, one, three if two is None else two
    else:
        start, stop, event = vector(one).astype(np.float64), two, three
    time = vector(stop).astype(np.float64)
    flags = np.ones(len(time)) if event is None else vector(event)
    if flags.dtype.kind == "U":
        raise NotCoveredError("states as the event of Surv()")
    numbers = flags.astype(np.float64)
    return Surv(start, time, numbers - 1 if np.nanmax(numbers) == 2 else numbers)


def survdiff(env: Environment, call: Call) -> dict[str, Any]:
    """`survdiff()`: observed, expected and variance by group."""
    given = Arguments.of(env, call, ("formula", "data", "subset", "na.action", "rho", "timefix"))
    frame = given.frame()
    group, labels = frame.groups()
    y = frame.response
    weight = FlemingHarrington(rho=given.value("rho", 0.0))
    found = logrank_test(y.time, y.event, group, strata=frame.strata, weight=weight, entry=y.start)
    squeeze = found.observed.shape[1] == 1
    return {
        "n": Named(np.bincount(group).astype(np.float64), (labels,)),
        "obs": found.observed[:, 0] if squeeze else found.observed,
        "exp": found.expected[:, 0] if squeeze else found.expected,
        "var": found.variance,
        "chisq": found.chi_square,
        "pvalue": found.p_value,
    }


def coxph(env: Environment, call: Call) -> dict[str, Any]:
    """`coxph()`: coefficients, variances, tests and concordance."""
    signature = ("formula", "data", "weights", "subset", "ties", "method", "robust", "cluster", "id", "x", "y", "model")
    given = Arguments.of(env, call, signature)
    if "weights" in given.nodes:
        raise NotCoveredError("the argument weights of coxph()")
    frame = given.frame()
    y, (x, names) = frame.response, frame.matrix()
    cluster = frame.cluster if frame.cluster is not None else given.column("cluster", frame)
    is_robust = given.value("robust", cluster is not None)
    if is_robust and cluster is None:
        cluster = given.column("id", frame)
        cluster = np.arange(len(y.time)) if cluster is None else cluster
    ties = given.value("ties", given.value("method", "efron"))
    if ties not in ("efron", "breslow"):
        raise NotCoveredError(f"ties {ties} of coxph()")
    cluster = cluster if is_robust else None
    kept = Estimable.of(x)
    options = {"entry": y.start, "strata": frame.strata, "cluster": cluster}
    fit = cox_model(y.time, y.event, x[:, kept.columns], ties=ties, **options)
    order = concordance(y.time, y.event, fit.risk_score, **options)
    fit = replace(
        fit,
        coefficients=kept.vector(fit.coefficients),
        covariance=kept.matrix(fit.covariance),
        naive_covariance=kept.matrix(fit.naive_covariance),
    )
    found = {
        "class": "coxph",
        "coefficients": Named(fit.coefficients, (names,)),
        "var": fit.covariance,
        "loglik": np.array([fit.null_log_likelihood, fit.log_likelihood]),
        "score": fit.score_test.chi_square,
        "wald.test": fit.wald_test.chi_square,
        "n": float(fit.num_rows),
        "nevent": float(fit.num_events),
        "method": ties,
        "concordance": Named(
            np.array(
                [
                    order.concordant,
                    order.discordant,
                    order.tied_score,
                    order.tied_time,
                    order.tied_both,
                    order.estimate,
                    order.standard_error,
                ]
            ),
            (["concordant", "discordant", "tied.x", "tied.y", "tied.xy", "concordance", "std"],),
        ),
        "fit": fit,
        "proportionality": lambda scale: _proportionality(frame, kept, scale),
    }
    return {**found, "naive.var": fit.naive_covariance} if is_robust else found


def _proportionality(frame: ModelFrame, kept: Estimable, scale: Any) -> Named:
    """The table of `cox.zph()`."""
    y, x, columns = frame.response, frame.matrix()[0], frame.columns_of_terms()
    if not kept.columns.all():
        raise NotCoveredError("cox.zph() of covariates that depend on each other")
    options = {"entry": y.start, "strata": frame.strata, "terms": columns}
    found = proportional_hazards_test(y.time, y.event, x, scale=scale, **options)
    rows = [[each.chi_square, float(each.degrees_of_freedom), each.p_value] for each in (*found.tests, found.overall)]
    return Named(np.array(rows), ([":".join(term) for term in frame.terms] + ["GLOBAL"], ["chisq", "df", "p"]))


def cox_zph(given: Mapping[str, Any]) -> dict[str, Any]:
    """`cox.zph()`."""
    if given["singledf"] or not given["terms"] or not given["global"]:
        raise NotCoveredError("the arguments terms, singledf or global of cox.zph()")
    if given["fit"]["class"] != "coxph" or given["fit"]["method"] != "efron":
        raise NotCoveredError("cox.zph() of other models, or ties by Breslow")
    return {"table": given["fit"]["proportionality"](given["transform"]), "transform": given["transform"]}


def concordance_of(fit: Any) -> dict[str, Any]:
    """`concordance()` of a Cox model."""
    values = dict(zip(fit["concordance"].names[0], fit["concordance"].values, strict=True))
    return {"concordance": float(values["concordance"]), "var": float(values["std"] ** 2), "n": fit["n"]}


def information_criterion(fit: Any, k: float = 2.0) -> float:
    """`AIC()`."""
    size = len(fit["coefficients"].values) if fit["class"] == "coxph" else len(fit["var"].values)
    return -2 * log_likelihood(fit) + k * size


def survreg(env: Environment, call: Call) -> dict[str, Any]:
    """`survreg()`: coefficients, scale and log-likelihood; the variance has log scale last."""
    given = Arguments.of(env, call, ("formula", "data", "weights", "subset", "na.action", "dist", "init", "scale"))
    if {"weights", "init"} & set(given.nodes):
        raise NotCoveredError("the arguments weights or init of survreg()")
    frame = given.frame()
    if frame.strata is not None or frame.cluster is not None:
        raise NotCoveredError("strata() or cluster() in survreg()")
    names = {"loggaussian": "lognormal", "t": None}
    asked = given.value("dist", "weibull")
    family, scale = names.get(asked, asked), given.value("scale", 0.0)
    if family is None:
        raise NotCoveredError(f"the distribution {asked} of survreg()")
    x, labels = frame.matrix(intercept=True)
    kept = Estimable.of(x[:, 1:])
    covariates = x[:, 1:][:, kept.columns] if kept.columns.any() else None
    fit = parametric_model(frame.response.time, frame.response.event, covariates, family=family, scale=scale or None)
    matrix = kept.matrix(fit.covariance, first=1)
    rows = labels if len(matrix) == len(labels) else [*labels, "Log(scale)"]
    return {
        "class": "survreg",
        "coefficients": Named(kept.vector(fit.coefficients, first=1), (labels,)),
        "icoef": np.array([]),
        "scale": fit.scale,
        "var": Named(matrix, (rows, rows)),
        "loglik": np.array([fit.null_log_likelihood, fit.log_likelihood]),
    }


@dataclass(frozen=True)
class Group:
    """One curve of `survfit()` with the data it is of; hazard may count ties otherwise than the curve."""

    label: str
    response: Surv
    curve: SurvivalCurve
    hazard: SurvivalCurve


def survfit(env: Environment, call: Call) -> dict[str, Any]:
    """`survfit()`: curves of groups."""
    signature = (
        "formula",
        "data",
        "subset",
        "conf.type",
        "conf.int",
        "stype",
        "ctype",
        "type",
        "error",
        "timefix",
        "se.fit",
    )
    given = Arguments.of(env, call, signature)
    if given.value("error", "greenwood") != "greenwood":
        raise NotCoveredError("the argument error of survfit()")
    frame = given.frame()
    if frame.strata is not None:
        raise NotCoveredError("strata() in survfit()")
    group, labels = frame.groups() if frame.terms else (np.zeros(int(frame.rows.sum()), dtype=np.int64), [""])
    kind = {None: (1, 1), "kaplan-meier": (1, 1), "fleming-harrington": (2, 1), "fh2": (2, 2)}[given.value("type")]
    stype, ctype = given.value("stype", kind[0]), given.value("ctype", kind[1])
    level, limits = given.value("conf.int", 0.95), given.value("conf.type", "log")
    ties: HazardTies = "nelson_aalen" if ctype == 1 else "fleming_harrington"
    groups = []
    for g, label in enumerate(labels):
        y = frame.response.rows(group == g)
        hazard = nelson_aalen(y.time, y.event, entry=y.start, level=level, limits=limits, ties=ties)
        curve = kaplan_meier(y.time, y.event, entry=y.start, level=level, limits=limits) if stype == 1 else hazard
        groups.append(Group(label, y, curve, hazard))
    return {
        "class": "survfit",
        "groups": groups,
        "conf.int": level,
        "conf.type": limits,
        **_curves(groups, None, limits),
    }


def _curves(groups: list[Group], times: Any, limits: Limits, *, extend: bool = False) -> dict[str, Any]:
    """The columns of curves at some times, those of events, or all of observation (None), one group after another."""
    parts: list[dict[str, NDArray[Any]]] = []
    for each in groups:
        y, curve = each.response, each.curve
        own = np.unique(y.time) if times is None else curve.time
        asked = own if times is None or isinstance(times, str) else np.sort(vector(times).astype(np.float64))
        asked = asked if extend else asked[asked <= y.time.max()]
        start = np.full(len(y.time), -np.inf) if y.start is None else y.start
        survival = curve.at(asked)
        sd_log = np.divide(
            curve.step(curve.standard_error, asked, before=0.0),
            survival,
            out=np.full(len(asked), np.nan),
            where=survival > 0,
        )
        low, high = survival_limits(survival, sd_log, level=curve.level, limits=limits)
        ends = [np.searchsorted(np.sort(y.time[y.event == k]), asked, side="right") for k in (1, 0)]
        parts.append(
            {
                "time": asked,
                "surv": survival,
                "std.err": survival * sd_log,
                "lower": low,
                "upper": high,
                "n.risk": ((start < asked[:, None]) & (y.time >= asked[:, None])).sum(axis=1),
                "n.event": np.diff(ends[0], prepend=0),
                "n.censor": np.diff(ends[1], prepend=0),
                "cumhaz": each.hazard.step(each.hazard.cumulative_hazard, asked, before=0.0),
                "std.chaz": each.hazard.step(each.hazard.hazard_error, asked, before=0.0),
                "strata": np.array([each.label] * len(asked)),
            }
        )
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if len(groups) == 1:
        joined["strata"] = None
    return {**joined, "n": np.array([float(len(each.response.time)) for each in groups])}


def summary(fit: Any, *, times: Any = None, extend: bool = False, rmean: Any = None) -> dict[str, Any]:
    """`summary()` of curves or of a Cox model."""
    if fit["class"] == "survfit":
        return {
            **_curves(fit["groups"], "events" if times is None else times, fit["conf.type"], extend=extend),
            "table": _table(fit, rmean),
        }
    if fit["class"] == "coxph":
        return _cox_summary(fit)
    if fit["class"] == "survreg":
        b, se = fit["coefficients"].values, np.sqrt(np.diag(fit["var"].values))[: len(fit["coefficients"].values)]
        columns = np.column_stack([b, se, b / se, chi2.sf((b / se) ** 2, 1)])
        return {**fit, "table": Named(columns, (fit["coefficients"].names[0], ["Value", "Std. Error", "z", "p"]))}
    raise NotCoveredError(f"summary() of {fit['class']}")


def _mean(group: Group, tau: float) -> tuple[float, float]:
    """The restricted mean and its standard error, of a Kaplan-Meier curve from time 0; nan for others."""
    if group.curve is group.hazard or group.response.start is not None:
        return np.nan, np.nan
    found = restricted_mean(group.response.time, group.response.event, tau, extend=True)
    return found.estimate, found.standard_error


def _table(fit: Any, rmean: Any) -> Named:
    rows, percent = [], f"{fit['conf.int']:g}"
    names = ["records", "n.max", "n.start", "events", "rmean", "se(rmean)", "median", f"{percent}LCL", f"{percent}UCL"]
    tau = float(max(each.response.time.max() for each in fit["groups"]) if rmean in (None, "common") else rmean)
    for each in fit["groups"]:
        count, median = float(len(each.response.time)), each.curve.quantile(0.5)
        mean = _mean(each, tau)
        row = [count, count, count, float(each.response.event.sum()), *mean]
        rows.append([*row, median.estimate, median.low, median.high])
    table = np.array(rows)
    if len(rows) == 1:
        return Named(table[0], (names,))
    return Named(table, ([each.label for each in fit["groups"]], names))


def _cox_summary(fit: Any) -> dict[str, Any]:
    model: CoxModel = fit["fit"]
    names = fit["coefficients"].names[0]
    low, high = model.interval()
    is_robust = "naive.var" in fit
    errors = [np.sqrt(np.diag(model.naive_covariance)), *([model.standard_errors] if is_robust else [])]
    heads = ["coef", "exp(coef)", "se(coef)", *(["robust se"] if is_robust else []), "z", "Pr(>|z|)"]
    columns = np.column_stack([model.coefficients, model.hazard_ratios, *errors, model.z, model.p_values])
    limits = np.column_stack([model.hazard_ratios, 1 / model.hazard_ratios, low, high])
    tests = {"logtest": model.likelihood_ratio_test, "sctest": model.score_test, "waldtest": model.wald_test}
    return {
        **fit,
        "coefficients": Named(columns, (names, heads)),
        "conf.int": Named(limits, (names, ["exp(coef)", "exp(-coef)", "lower .95", "upper .95"])),
        "concordance": Named(fit["concordance"].values[5:], (["C", "se(C)"],)),
        **{
            name: Named(
                np.array(
                    [
                        round(one.chi_square, 2) if name == "waldtest" else one.chi_square,
                        one.degrees_of_freedom,
                        one.p_value,
                    ]
                ),
                (["test", "df", "pvalue"],),
            )
            for name, one in tests.items()
        },
    }


def quantile(fit: Any, probs: Any = (0.25, 0.5, 0.75)) -> dict[str, Any]:
    """`quantile()` of curves, with limits."""
    shares = vector(probs).tolist()
    names = [f"{100 * share:g}" for share in shares]
    found = [[each.curve.quantile(share) for share in shares] for each in fit["groups"]]
    labels = [each.label for each in fit["groups"]]

    def matrix(part: str) -> Named:
        values = np.array([[getattr(one, part) for one in row] for row in found])
        return Named(values[0], (names,)) if len(labels) == 1 else Named(values, (labels, names))

    return {"quantile": matrix("estimate"), "lower": matrix("low"), "upper": matrix("high")}


def coefficients(fit: Any) -> Any:
    """`coef()`."""
    return fit["coefficients"] if "coefficients" in fit else fit["coef"]


def variance(fit: Any) -> Any:
    """`vcov()`."""
    return fit["var"]


def confint(fit: Any, level: float = 0.95) -> Named:
    """`confint()`: Wald limits of the coefficients."""
    if fit["class"] != "coxph":
        raise NotCoveredError(f"confint() of {fit['class']}")
    low, high = fit["fit"].interval(level)
    tails = [f"{50 * (1 - level):.3g} %", f"{100 - 50 * (1 - level):.3g} %"]
    return Named(np.log(np.column_stack([low, high])), (fit["coefficients"].names[0], tails))


def log_likelihood(fit: Any) -> float:
    """`logLik()`."""
    return float(plain(fit["loglik"])[1])
