"""Fits of R's nlme by medtwin: `lme()` with random effects of one grouping, and what `VarCorr()` shows of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtwin.trials.analysis.mixed import random_intercept_model
from medtwin.trials.analysis.random_effects import random_effects_model
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Formula, Named, vector
from tests.trials.reference.model_fits import as_fit, refuse_arguments
from tests.trials.reference.model_frames import Design, column, design
from tests.trials.reference.rcalls import Call
from tests.trials.reference.survival_fits import Arguments

_SIGNATURE = ("fixed", "data", "random", "correlation", "weights", "subset", "method", "na.action")


def lme(env: Environment, call: Call) -> dict[str, Any]:
    """`nlme::lme()` with a random intercept, or several random effects of one subject."""
    given = Arguments.of(env, call, _SIGNATURE)
    refuse_arguments(given, "lme", "correlation", "weights")
    method, data, bar = given.value("method", "REML"), given.value("data"), given.value("random")
    if not isinstance(bar, Formula) or not isinstance(bar.right, Call) or bar.right.name != "|":
        raise NotCoveredError("random effects of lme() that are no formula with one bar")
    if method not in ("REML", "ML"):
        raise NotCoveredError(f"the method {method} of lme()")
    effects, subject = bar.right.args
    if isinstance(subject, Call):
        raise NotCoveredError("nested groups of lme()")
    of = design(env, given.value("fixed"), data, given.nodes.get("subset"), (subject,))
    labels = vector(column(env, subject, data, of.frame.rows))
    if effects == 1.0:
        return _with_intercept(of, labels, method)
    return _with_effects(of, _random_design(env, effects, data, given, of), labels, method)


def _random_design(env: Environment, effects: Any, data: Any, given: Arguments, of: Design) -> Design:
    found = design(env, Formula(given.value("fixed").left, effects), data, given.nodes.get("subset"))
    if len(found.x) != len(of.x):
        raise NotCoveredError("missing values in what lme() has random effects of")
    return found


def _with_intercept(of: Design, labels: Any, method: str) -> dict[str, Any]:
    fit = random_intercept_model(of.y.numbers, of.x, labels, is_restricted=method == "REML")
    spread = np.array([[fit.between_sd**2, fit.between_sd], [fit.within_sd**2, fit.within_sd]])
    b, se = fit.coefficients, fit.standard_errors
    columns = np.column_stack([b, se, fit.degrees_of_freedom, b / se, fit.p_values])
    heads = ["Value", "Std.Error", "DF", "t-value", "p-value"]
    return as_fit(
        "lme",
        of,
        b,
        fit.covariance,
        fit=fit,
        sigma=fit.within_sd,
        loglik=fit.log_likelihood,
        parameters=len(b) + 2,
        tTable=Named(columns, (of.names, heads)),
        varcorr=Named(spread, (["(Intercept)", "Residual"], ["Variance", "StdDev"])),
        size=len(of.x) - (len(b) if method == "REML" else 0),
    )


def _with_effects(of: Design, random: Design, labels: Any, method: str) -> dict[str, Any]:
    fit = random_effects_model(of.y.numbers, of.x, random.x, labels, is_restricted=method == "REML")
    sds = np.append(fit.random_sds, fit.residual_sd)
    count, b = len(fit.random_sds), fit.coefficients
    return as_fit(
        "lme",
        of,
        b,
        fit.covariance,
        fit=fit,
        sigma=fit.residual_sd,
        loglik=fit.log_likelihood,
        parameters=len(b) + count * (count + 1) // 2 + 1,
        varcorr=Named(np.column_stack([sds**2, sds]), ([*random.names, "Residual"], ["Variance", "StdDev"])),
        size=len(of.x) - (len(b) if method == "REML" else 0),
    )
