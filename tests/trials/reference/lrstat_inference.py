"""Crosswalk of lrstat's conditional power, confidence intervals and inference after adaptation to medtwin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.conditional_power import Remainder, effect_since, remainder
from medtwin.trials.design.repeated_intervals import (
    AdaptedTrial,
    SequentialInference,
    repeated_inference,
    stagewise_inference,
)
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Frame
from tests.trials.reference.lrstat_bounds import lrstat_bounds
from tests.trials.reference.lrstat_designs import DESIGN
from tests.trials.reference.signatures import Arguments, bound, is_missing, numbers, refuse

Floats = NDArray[np.float64]
_TEST: Arguments = {
    "informationRates": None,
    "efficacyStopping": None,
    "criticalValues": None,
    "alpha": 0.025,
    "typeAlphaSpending": "sfOF",
    "parameterAlphaSpending": None,
    "spendingTime": None,
}
_LOOK: Arguments = {"L": None, "zL": None, "IMax": None}
_NEW: Arguments = {
    "INew": None,
    "MullerSchafer": False,
    "informationRatesNew": None,
    "efficacyStoppingNew": None,
    "typeAlphaSpendingNew": "sfOF",
    "parameterAlphaSpendingNew": None,
    "spendingTimeNew": None,
}


def _rates(given: Arguments, looks: int | None = None) -> Floats:
    if is_missing(given["informationRates"]):
        if looks is None:
            raise NotCoveredError("informationRates left out")
        return np.arange(1, looks + 1) / looks
    return np.array(numbers(given["informationRates"]))


def _bounds_at(given: Arguments, rates: Floats) -> Callable[[float], Floats]:
    return lambda alpha: lrstat_bounds(given, rates, alpha, tested=given["efficacyStopping"])


def _bounds(given: Arguments, rates: Floats) -> Floats:
    if not is_missing(given["criticalValues"]):
        return np.array(numbers(given["criticalValues"]))
    return _bounds_at(given, rates)(float(given["alpha"]))


def _frame(found: SequentialInference) -> Frame:
    return Frame(
        pvalue=found.p_value,
        thetahat=found.estimate,
        cilevel=found.level,
        lower=found.lower,
        upper=found.upper,
    )


def _repeated(given: Arguments) -> Frame:
    rates = _rates(given)
    if not is_missing(given["criticalValues"]):
        raise NotCoveredError("criticalValues of getRCI()")
    information = float(given["IMax"]) * rates
    test = _bounds_at(given, rates)
    return _frame(repeated_inference(int(given["L"]), float(given["zL"]), information, test, float(given["alpha"])))


def _stagewise(given: Arguments) -> Frame:
    rates = _rates(given)
    information, upper = float(given["IMax"]) * rates, _bounds(given, rates)
    return _frame(stagewise_inference(int(given["L"]), float(given["zL"]), information, upper, float(given["alpha"])))


def _second_rates(given: Arguments, rates: Floats, look: int) -> Floats:
    """Information rates of the second trial: given, or spaced as the looks that it replaces."""
    if not given["MullerSchafer"]:
        return np.asarray((rates[look:] - rates[look - 1]) / (1 - rates[look - 1]))
    if not is_missing(given["informationRatesNew"]):
        return np.array(numbers(given["informationRatesNew"]))
    if is_missing(given.get("kNew")):
        raise NotCoveredError("informationRatesNew left out")
    looks = int(given["kNew"])
    return np.arange(1, looks + 1) / looks


def _second_bounds(given: Arguments, rates: Floats, rest: Remainder) -> Floats:
    """Bounds of the second trial: of its own spending of the conditional error, or those of what it replaces."""
    if not given["MullerSchafer"]:
        return rest.upper
    error = rest.power(0.0)
    return lrstat_bounds(given, rates, error, "New", given["efficacyStoppingNew"])


def _adapted(given: Arguments) -> tuple[AdaptedTrial, Floats]:
    look, rates = int(given["L"]), _rates(given, int(given["kMax"]))
    information, new_rates = float(given["IMax"]) * rates, _second_rates(given, rates, look)
    upper, second = _bounds(given, rates), float(given["INew"]) * new_rates
    z = float(given["zL"])
    if is_missing(given["L2"]):
        new_look = int(given["Lc"]) - look
        known, new = information[look - 1], second[new_look - 1]
        new_z = (float(given["zLc"]) * np.sqrt(known + new) - z * np.sqrt(known)) / np.sqrt(new)
    else:
        new_look, new_z = int(given["L2"]), float(given["zL2"])
    return AdaptedTrial(look, z, information, upper, new_look, float(new_z), second), new_rates


def _backward_image(given: Arguments) -> Frame:
    trial, new_rates = _adapted(given)
    return _frame(trial.inference(_second_bounds(given, new_rates, trial.rest), float(given["alpha"])))


def _repeated_adapted(given: Arguments) -> Frame:
    if not given["MullerSchafer"] or not is_missing(given["criticalValues"]):
        raise NotCoveredError("getADRCI() without MullerSchafer, or with criticalValues")
    trial, new_rates = _adapted(given)
    rates = _rates(given, int(given["kMax"]))

    def second(error: float) -> Floats:
        return lrstat_bounds(given, new_rates, error, "New", given["efficacyStoppingNew"])

    return _frame(trial.repeated_inference(_bounds_at(given, rates), second, float(given["alpha"])))


def _conditional_power(given: Arguments) -> Floats:
    refuse("getCP", given, _CP, "futilityStopping", "futilityStoppingNew", "varianceRatio", "typeBetaSpendingNew")
    look, looks = int(given["L"]), int(given["kMax"])
    rates = _rates(given, looks)
    information, z = float(given["IMax"]) * rates, float(given["zL"])
    lower = np.full(looks, -np.inf)
    if not is_missing(given["futilityBounds"]):
        values = numbers(given["futilityBounds"])[: looks - 1]
        lower[: len(values)] = values
    rest = remainder(look, z, information, _bounds(given, rates), lower)
    new_rates = _second_rates(given, rates, look)
    second = float(given["INew"]) * new_rates
    theta = numbers(given["theta"])
    if len(theta) == 1:
        planned, adapted = np.full(len(rest.information), theta[0]), np.full(len(second), theta[0])
    else:
        planned = effect_since(theta[:looks], look, information)
        known = information[look - 1]
        together = np.concatenate([information[:look], known + second])
        adapted = effect_since([*theta[:look], *theta[looks:]], look, together)
    new = Remainder(second, _second_bounds(given, new_rates, rest), np.full(len(second), -np.inf))
    if not given["MullerSchafer"]:
        new = rest.at_information(second)
    return np.array([rest.power(planned), new.power(adapted)])


_CP: Arguments = {
    "INew": None,
    "L": None,
    "zL": None,
    "theta": None,
    "IMax": None,
    **DESIGN,
    "kMax": None,
    "MullerSchafer": False,
    "kNew": None,
    "informationRatesNew": None,
    "efficacyStoppingNew": None,
    "futilityStoppingNew": None,
    "typeAlphaSpendingNew": "sfOF",
    "parameterAlphaSpendingNew": None,
    "typeBetaSpendingNew": "none",
    "parameterBetaSpendingNew": None,
    "spendingTimeNew": None,
    "varianceRatio": 1.0,
}
_ADAPTED: Arguments = {
    **_LOOK,
    "kMax": None,
    **_TEST,
    "L2": None,
    "zL2": None,
    "Lc": None,
    "zLc": None,
    **_NEW,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getRCI": bound("getRCI", {**_LOOK, **_TEST}, _repeated),
    "getCI": bound("getCI", {**_LOOK, **_TEST}, _stagewise),
    "getADCI": bound("getADCI", {**_ADAPTED, "alpha": 0.25}, _backward_image),
    "getADRCI": bound("getADRCI", _ADAPTED, _repeated_adapted),
    "getCP": bound("getCP", _CP, _conditional_power),
}
