"""Other analyses of one trial: tests, regressions, MMRM; sizes with prognostic scores; Bayesian answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.trials.reference import group_tests, mixed_fits, mmrm_fits, r_base, r_control, r_laws
from tests.trials.reference import model_fits as fits
from tests.trials.reference.bayes_answers import bayesian_answers, prognostic_answers
from tests.trials.reference.cases import Case
from tests.trials.reference.evaluate import Environment, Frame, as_factor, plain
from tests.trials.reference.model_calls import assign, transform, variables
from tests.trials.reference.model_tests import NATIVES as TESTS
from tests.trials.reference.model_tests import table
from tests.trials.reference.rcalls import Call
from tests.trials.reference.stats_power import FUNCTIONS as POWER

_NATIVES: dict[str, Callable[[Environment, Call], Any]] = {
    **r_control.NATIVES,
    **TESTS,
    **group_tests.NATIVES,
    "<-": assign,
    "=": assign,
    "transform": transform,
    "function": r_laws.function,
    "lm": fits.lm,
    "glm": fits.glm,
    "glm.nb": fits.glm_nb,
    "geeglm": fits.geeglm,
    "geese": fits.geese,
    "lme": mixed_fits.lme,
    "gls": mixed_fits.gls,
    "mmrm": mmrm_fits.mmrm,
    "predict": fits.predict,
    "model.matrix": fits.model_matrix,
}


def _taken(name: str) -> Callable[[Any], Any]:
    def take(fit: Any) -> Any:
        return fit[name]

    return take


def _row_names(value: Any) -> Any:
    return np.array(value.names[0])


def _by_group(values: Any, group: Any, apply: Callable[..., Any], **named: Any) -> Any:
    """`tapply()`."""
    factor, whole = as_factor(group), np.asarray(plain(values), dtype=np.float64)
    return np.array([apply(whole[factor.codes == i], **named) for i in range(len(factor.levels))])


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **r_base.FUNCTIONS,
    **POWER,
    **mixed_fits.FUNCTIONS,
    "summary": fits.summary,
    "coef": fits.coefficients,
    "coefficients": fits.coefficients,
    "fixef": fits.coefficients,
    "vcov": fits.variance,
    "vcovHC": fits.robust_variance,
    "sandwich": fits.sandwich,
    "coeftest": fits.coefficient_tests,
    "confint": fits.strict_confint,
    "confint.default": fits.wald_confint,
    "logLik": fits.log_likelihood,
    "AIC": fits.aic,
    "BIC": fits.bic,
    "deviance": fits.deviance,
    "hatvalues": fits.leverages,
    "fitted": _taken("fitted.values"),
    "residuals": fits.residuals,
    "resid": fits.residuals,
    "df.residual": _taken("df.residual"),
    "sigma": lambda fit: fit["fit"].sigma if fit["class"] == "lm" else fit["sigma"],
    "nobs": lambda fit: float(len(fit["design"].x)),
    "VarCorr": _taken("varcorr"),
    "df_1d": mmrm_fits.contrast,
    "df_md": mmrm_fits.contrasts,
    "component": mmrm_fits.component,
    "rownames": _row_names,
    "colnames": lambda value: np.array(list(value) if isinstance(value, Frame) else value.names[1]),
    "table": table,
    "tapply": _by_group,
    "droplevels": as_factor,
}


def analysis(case: Case) -> Mapping[str, Any]:
    """The outputs of a case: its call is evaluated with fits and tests of medtwin."""
    env = Environment({"T": True, "F": False, **variables(case.folder)}, _FUNCTIONS, _NATIVES)
    return env.answer(case.call, case.extract)


def bayesian(case: Case) -> Mapping[str, Any]:
    """The outputs of a case: by the function of medtwin its inputs ask for, else by its expression."""
    found = bayesian_answers(case.inputs)
    return found if set(found) >= set(case.outputs) else {**analysis(case), **found}


def prognostic(case: Case) -> Mapping[str, Any]:
    """The outputs of a case: by the function of medtwin its inputs ask for, else by its expression."""
    found = prognostic_answers(case.inputs)
    return found if set(found) >= set(case.outputs) else {**analysis(case), **found}


ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "analysis_other": analysis,
    "bayesian": bayesian,
    "procova": prognostic,
}
