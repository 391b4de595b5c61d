"""Analyses of times to events in one trial: R's survival, simtrial, survRM2 and cmprsk, computed by medtwin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from medtwin.trials.analysis.competing import CumulativeIncidence, cumulative_incidence, fine_gray_model, gray_test
from medtwin.trials.analysis.logrank import Weight, event_table
from medtwin.trials.analysis.milestone import milestone_test
from medtwin.trials.analysis.restricted_mean import (
    Contrast,
    RestrictedMean,
    adjusted_restricted_mean,
    compare_restricted_means,
)
from medtwin.trials.analysis.results import Comparison
from medtwin.trials.analysis.weighted_logrank import max_combo_test, weighted_logrank_test
from medtwin.trials.survival_weights import EarlyZero, FlemingHarrington, MagirrBurman
from tests.trials.reference import r_base
from tests.trials.reference import survival_fits as fits
from tests.trials.reference.cases import Case, NotCoveredError
from tests.trials.reference.data_frames import data_frames
from tests.trials.reference.evaluate import Environment, Frame, Named, as_factor, as_number, is_missing, plain, vector
from tests.trials.reference.rcalls import Call
from tests.trials.reference.signatures import bound
from tests.trials.reference.survival_fits import Arguments

_TITLES: dict[Contrast, str] = {
    "difference": "RMST.difference.adjusted",
    "ratio": "RMST.ratio.adjusted",
    "loss_ratio": "RMTL.ratio.adjusted",
}
"""Of the tables of coefficients of `rmst2()`."""


def _two_arm_frame(frame: Frame, arm: Any) -> Frame:
    """The columns that simtrial wants; the arm is 1 or True for the experimental one."""
    names = np.where(np.asarray(arm, dtype=bool), "experimental", "control")
    stratum = np.array(["All"] * len(names))
    return Frame(stratum=stratum, treatment=names, tte=frame["time"], event=frame["status"])


def _variables(folder: Path) -> dict[str, Any]:
    """The data frames of the set-up in `meta.r_setup`, those whose files are there."""
    found: dict[str, Any] = dict(data_frames(folder))
    if "vet" in found:
        found["vt"] = _two_arm_frame(found["vet"], found["vet"]["trt"] == 2)
    if "col2" in found:
        found["ct"] = _two_arm_frame(found["col2"], found["col2"]["trt"] == 1)
    return found


class CountingProcess(Frame):
    """The risk sets of a trial in two arms, and the data frame they are of."""

    source: Frame


def _counting_process(env: Environment, call: Call) -> CountingProcess:
    given = Arguments.of(env, call, ("x", "arm"))
    if given.value("arm") != "experimental":
        raise NotCoveredError("another arm of counting_process() than experimental")
    source: Frame = given.value("x")
    time, event, arm, stratum = _two_arms(source)
    table = event_table(time, event, arm, strata=stratum)
    both: Any = (table.at_risk > 0).all(axis=1)
    columns = {
        "stratum": np.array(table.strata)[table.stratum],
        "event_total": table.events.sum(axis=1),
        "event_trt": table.events[:, 1],
        "tte": table.time,
        "n_risk_total": table.at_risk.sum(axis=1),
        "n_risk_trt": table.at_risk[:, 1],
        "s": table.survival,
        "o_minus_e": table.observed_minus_expected()[:, 1],
        "var_o_minus_e": table.covariance()[:, 1, 1],
    }
    found = CountingProcess(columns).rows(both)
    process = CountingProcess(found)
    process.source = source
    return process


def _two_arms(frame: Frame) -> tuple[Any, Any, Any, Any]:
    """Time, event, arm and stratum of a data frame of simtrial."""
    frame = frame.source if isinstance(frame, CountingProcess) else frame
    arm = plain(frame["treatment"]) == "experimental"
    return frame["tte"], frame["event"], arm, plain(frame["stratum"]) if "stratum" in frame else np.zeros(len(arm))


def _fh(env: Environment, call: Call) -> Weight:
    given = Arguments.of(env, call, ("rho", "gamma"))
    return FlemingHarrington(given.value("rho", 0.0), given.value("gamma", 0.0))


def _mb(env: Environment, call: Call) -> Weight:
    given = Arguments.of(env, call, ("delay", "w_max"))
    return MagirrBurman(given.value("delay", 4.0), given.value("w_max", np.inf))


def _early_zero(env: Environment, call: Call) -> Weight:
    given = Arguments.of(env, call, ("early_period", "fail_rate"))
    if given.value("fail_rate") is not None:
        raise NotCoveredError("the argument fail_rate of early_zero()")
    return EarlyZero(given.value("early_period"))


def _wlr(env: Environment, call: Call) -> dict[str, Any]:
    given = Arguments.of(env, call, ("data", "weight", "return_variance", "ratio", "formula"))
    if "formula" in given.nodes:
        raise NotCoveredError("the argument formula of wlr()")
    time, event, arm, stratum = _two_arms(given.value("data"))
    found = weighted_logrank_test(time, event, arm, given.value("weight"), strata=stratum)
    return {
        "estimate": found.score,
        "se": found.standard_error,
        "variance": found.standard_error**2,
        "z": found.z,
        "p_value": found.p_value,
    }


def _maxcombo(env: Environment, call: Call) -> dict[str, Any]:
    given = Arguments.of(env, call, ("data", "rho", "gamma", "return_variance", "return_corr"))
    time, event, arm, stratum = _two_arms(given.value("data"))
    powers = [vector(given.value("rho", np.array([0, 0, 1.0]))), vector(given.value("gamma", np.array([0, 1.0, 1])))]
    weights = [FlemingHarrington(float(rho), float(gamma)) for rho, gamma in zip(*powers, strict=True)]
    found = max_combo_test(time, event, arm, weights, strata=stratum)
    return {
        "estimate": np.array([each.score for each in found.tests]),
        "se": np.array([each.standard_error for each in found.tests]),
        "z": np.array([each.z for each in found.tests]),
        "corr": found.correlation,
        "p_value": found.p_value,
    }


def _milestone(env: Environment, call: Call) -> dict[str, Any]:
    given = Arguments.of(env, call, ("data", "ms_time", "test_type"))
    time, event, arm, _ = _two_arms(given.value("data"))
    found = milestone_test(time, event, arm, given.value("ms_time"), scale=given.value("test_type", "log-log"))
    return {"estimate": found.estimate, "se": found.standard_error, "z": found.z, "p_value": found.p_value}


def _rmst(env: Environment, call: Call) -> dict[str, Any]:
    signature = ("data", "tau", "var_label_tte", "var_label_event", "var_label_group", "formula", "reference", "alpha")
    given = Arguments.of(env, call, signature)
    if "formula" in given.nodes:
        raise NotCoveredError("the argument formula of rmst()")
    frame = given.value("data")
    columns = [
        plain(frame[given.value(f"var_label_{name}", default)])
        for name, default in (("tte", "tte"), ("event", "event"), ("group", "treatment"))
    ]
    arm = columns[2] != given.value("reference", "control")
    level = 1 - given.value("alpha", 0.05)
    found = compare_restricted_means(columns[0], columns[1], arm, given.value("tau", 10.0), level=level).difference
    return {"estimate": found.estimate, "se": found.standard_error, "z": found.z, "p_value": found.p_value}


def _rmst2(env: Environment, call: Call) -> dict[str, Any]:
    given = Arguments.of(env, call, ("time", "status", "arm", "tau", "covariates", "alpha"))
    time, event, arm = (vector(given.value(name)) for name in ("time", "status", "arm"))
    level, tau, covariates = 1 - given.value("alpha", 0.05), given.value("tau"), given.value("covariates")
    if tau is None:
        tau = min(float(time[arm == side].max()) for side in (0, 1))
    if covariates is not None:
        return _adjusted(time, event, arm, covariates, tau, level)
    found = compare_restricted_means(time, event, arm, tau, level=level)
    rows = [found.difference, found.ratio, found.loss_ratio]
    return {
        "tau": found.experimental.tau,
        "RMST.arm1": _one_arm(found.experimental),
        "RMST.arm0": _one_arm(found.control),
        "unadjusted.result": _contrasts(rows),
    }


def _one_arm(mean: RestrictedMean) -> dict[str, Any]:
    names = (["Est.", "se", *(f"{side} {mean.level:g}".replace("0.", ".") for side in ("lower", "upper"))],)
    rmst = np.array([mean.estimate, mean.standard_error, mean.low, mean.high])
    rmtl = np.array([mean.time_lost, mean.standard_error, mean.tau - mean.high, mean.tau - mean.low])
    result = Named(np.stack([rmst, rmtl]), (["RMST", "RMTL"], names[0]))
    return {"rmst": Named(rmst, names), "rmtl": Named(rmtl, names), "result": result}


def _contrasts(rows: list[Comparison]) -> Named:
    values = np.array([[each.estimate, each.low, each.high, each.p_value] for each in rows])
    names = ["RMST (arm=1)-(arm=0)", "RMST (arm=1)/(arm=0)", "RMTL (arm=1)/(arm=0)"]
    return Named(values, (names, ["Est.", "lower .95", "upper .95", "p"]))


def _adjusted(time: Any, event: Any, arm: Any, covariates: Any, tau: float, level: float) -> dict[str, Any]:
    if isinstance(covariates, Frame):
        labels, x = list(covariates), np.column_stack([as_number(each) for each in covariates.values()])
    else:
        x = np.asarray(plain(covariates), dtype=np.float64).reshape(len(time), -1)
        labels = [f"covariates{j + 1}" for j in range(x.shape[1])]
    names = ["intercept", "arm", *labels]
    found: dict[str, Any] = {"tau": tau}
    comparisons = []
    for contrast, title in _TITLES.items():
        fit = adjusted_restricted_mean(time, event, arm, x, tau, contrast=contrast, level=level)
        comparisons.append(fit.comparison)
        b, se = fit.coefficients, fit.standard_errors
        z = b / se
        tail = 2 * norm.sf(np.abs(z))
        half = norm.ppf(0.5 + level / 2) * se
        if contrast == "difference":
            columns, heads = [b, se, z, tail, b - half, b + half], ["coef", "se(coef)", "z", "p"]
        else:
            columns = [b, se, z, tail, np.exp(b), np.exp(b - half), np.exp(b + half)]
            heads = ["coef", "se(coef)", "z", "p", "exp(coef)"]
        found[title] = Named(np.column_stack(columns), (names, [*heads, "lower .95", "upper .95"]))
    return {**found, "adjusted.result": _contrasts(comparisons)}


def _crr(env: Environment, call: Call) -> dict[str, Any]:
    signature = ("ftime", "fstatus", "cov1", "cov2", "tf", "cengroup", "failcode", "cencode", "subset", "na.action")
    given = Arguments.of(env, call, (*signature, "gtol", "maxiter", "init", "variance"))
    if {"cov2", "tf", "init"} & set(given.nodes):
        raise NotCoveredError("the arguments cov2, tf or init of crr()")
    cov1 = given.value("cov1")
    names = list(cov1.names[1] or []) if isinstance(cov1, Named) else []
    x = np.asarray(plain(cov1), dtype=np.float64)
    x = x.reshape(len(x), -1)
    time, cause = (vector(given.value(name)) for name in ("ftime", "fstatus"))
    keep = ~(is_missing(time) | is_missing(cause) | is_missing(x))
    if "subset" in given.nodes:
        keep &= vector(given.value("subset")).astype(bool)
    group = given.value("cengroup")
    fit = fine_gray_model(
        time[keep],
        cause[keep],
        x[keep],
        of_interest=given.value("failcode", 1.0),
        censored=given.value("cencode", 0.0),
        censoring_group=None if group is None else vector(group)[keep],
    )
    return {
        "class": "crr",
        "coef": Named(fit.coefficients, (names or [f"x{j + 1}" for j in range(x.shape[1])],)),
        "var": fit.covariance,
        "invinf": fit.naive_covariance,
        "loglik": fit.log_likelihood,
        "loglik.null": fit.null_log_likelihood,
        "n": float(keep.sum()),
        "fit": fit,
    }


def _crr_summary(fit: Any) -> dict[str, Any]:
    model = fit["fit"]
    b, se, names = model.coefficients, model.standard_errors, fit["coef"].names[0]
    low, high = model.interval()
    heads = ["coef", "exp(coef)", "se(coef)", "z", "p-value"]
    return {
        "coef": Named(
            np.column_stack([b, np.exp(b), se, b / se, [float(f"{p:.2g}") for p in model.p_values]]), (names, heads)
        ),
        "conf.int": Named(np.column_stack([np.exp(b), np.exp(-b), low, high]), (names, [*heads[1:2], "exp(-coef)"])),
    }


def _summary(fit: Any, **options: Any) -> Any:
    return _crr_summary(fit) if fit["class"] == "crr" else fits.summary(fit, **options)


def _cuminc(env: Environment, call: Call) -> dict[str, Any]:
    given = Arguments.of(env, call, ("ftime", "fstatus", "group", "strata", "rho", "cencode", "subset", "na.action"))
    time, cause = (vector(given.value(name)) for name in ("ftime", "fstatus"))
    group, strata, censored = given.value("group"), given.value("strata"), given.value("cencode", 0.0)
    groups = as_factor(np.ones(len(time)) if group is None else group)
    keep = ~(is_missing(time) | is_missing(cause) | is_missing(groups))
    if strata is not None:
        keep &= ~is_missing(strata)
    if "subset" in given.nodes:
        keep &= vector(given.value("subset")).astype(bool)
    time, cause, groups = time[keep], cause[keep], groups.take(keep)
    strata = None if strata is None else vector(strata)[keep]
    causes = [each for each in np.unique(cause).tolist() if each != censored]
    found: dict[str, Any] = {}
    tests = []
    for of in causes:
        for g, label in enumerate(groups.levels):
            here = groups.codes == g
            curve = cumulative_incidence(time[here], cause[here], of_interest=of, censored=censored)
            found[f"{label} {of:g}"] = _corners(curve, float(time[here].max()))
        if len(groups.levels) > 1:
            options = {"of_interest": of, "censored": censored, "strata": strata, "rho": given.value("rho", 0.0)}
            test = gray_test(time, cause, groups.codes, **options)
            tests.append([test.chi_square, test.p_value, float(test.degrees_of_freedom)])
    if tests:
        found["Tests"] = Named(np.array(tests), ([f"{of:g}" for of in causes], ["stat", "pv", "df"]))
    return found


def _corners(curve: CumulativeIncidence, end: float) -> dict[str, Any]:
    """A curve with the corners of its steps, as R writes it."""
    steps = {
        name: np.concatenate([[0.0, 0.0], np.repeat(values, 2)])
        for name, values in (("est", curve.estimate), ("var", curve.variance))
    }
    return {"time": np.concatenate([[0.0], np.repeat(curve.time, 2), [end]]), **steps, "curve": curve, "end": end}


def _timepoints(fit: Any, times: Any) -> dict[str, Any]:
    at = vector(times).astype(np.float64)
    curves = {name: each for name, each in fit.items() if name != "Tests"}
    axes = (list(curves), [f"{each:g}" for each in at])
    values = {
        "est": [np.where(at <= each["end"], each["curve"].at(at), np.nan) for each in curves.values()],
        "var": [np.where(at <= each["end"], each["curve"].variance_at(at), np.nan) for each in curves.values()],
    }
    return {name: Named(np.stack(rows), axes) for name, rows in values.items()}


_ZPH: dict[str, Any] = {"fit": None, "transform": "km", "terms": True, "singledf": False, "global": True}
_NATIVES: dict[str, Callable[[Environment, Call], Any]] = {
    "Surv": fits.surv,
    "survdiff": fits.survdiff,
    "coxph": fits.coxph,
    "survreg": fits.survreg,
    "survfit": fits.survfit,
    "counting_process": _counting_process,
    "fh": _fh,
    "mb": _mb,
    "early_zero": _early_zero,
    "wlr": _wlr,
    "maxcombo": _maxcombo,
    "milestone": _milestone,
    "rmst": _rmst,
    "rmst2": _rmst2,
    "crr": _crr,
    "cuminc": _cuminc,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **r_base.FUNCTIONS,
    "summary": _summary,
    "quantile": fits.quantile,
    "coef": fits.coefficients,
    "vcov": fits.variance,
    "confint": fits.confint,
    "logLik": fits.log_likelihood,
    "timepoints": _timepoints,
    "cox.zph": bound("cox.zph", _ZPH, fits.cox_zph),
    "concordance": fits.concordance_of,
    "AIC": fits.information_criterion,
}


def survival_analysis(case: Case) -> Mapping[str, Any]:
    """The outputs of a case: its call is evaluated with fits of medtwin, then what it takes out of the result."""
    env = Environment(_variables(case.folder), _FUNCTIONS, _NATIVES)
    return env.answer(case.call, case.extract)


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {"survival_analysis": survival_analysis}
