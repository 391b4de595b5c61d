"""Bayesian questions and sizes with prognostic scores, known by the names of their inputs, answered by medtwin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from medtwin.trials.analysis.bayes import Beta, Gamma, Normal, mixture_of, normal_assurance, probability_better
from medtwin.trials.design.means import MeansTest
from medtwin.trials.design.prognostic import PrognosticAdjustment

Inputs = Mapping[str, Any]


def _numbers(value: Any) -> list[float]:
    return [float(each) for each in np.atleast_1d(np.asarray(value, dtype=np.float64))]


def _two_rates(inputs: Inputs) -> dict[str, Any]:
    (a, b), y, n = (_numbers(inputs[name]) for name in ("prior", "y", "n"))
    one, other = (Beta(a, b).after(k, m)[0] for k, m in zip(y, n, strict=True))
    return {"prob_arm1_better": probability_better(one, other)}


def _mixture(inputs: Inputs) -> dict[str, Any]:
    prior = mixture_of(*(_numbers(inputs[f"prior_{name}"]) for name in ("weights", "a", "b")))
    found = prior.after(float(inputs["y"]), float(inputs["n"]))
    answers: dict[str, Any] = {
        "post_weights": list(found.weights),
        "post_a": [each.a for each in found.components],
        "post_b": [each.b for each in found.components],
        "post_mean": found.mean,
        "post_sd": math.sqrt(found.variance),
    }
    for tenths in range(1, 10):
        answers[f"p_gt_0{tenths}"] = float(found.above(tenths / 10))
    return answers


def _assurance(inputs: Inputs) -> dict[str, Any]:
    n, sd, alpha = (float(inputs[name]) for name in ("n_per_arm", "sd", "alpha_one_sided"))
    mean, spread = float(inputs["prior_mean"]), float(inputs["prior_sd"])
    test = MeansTest(mean, sd, known_sd=True)
    return {
        "assurance": normal_assurance(Normal(mean, spread), sd * math.sqrt(2 / n), alpha),
        "power_at_mean": test.rejects(2 * n, alpha),
    }


def _normal_posterior(inputs: Inputs) -> dict[str, Any]:
    found, _ = Normal(float(inputs["prior_mean"]), float(inputs["prior_sd"])).after(
        float(inputs["estimate"]), float(inputs["se"])
    )
    return {"post_mean": found.mean, "post_sd": found.sd}


def _gamma_posterior(inputs: Inputs) -> dict[str, Any]:
    shape, rate, events, time = (float(inputs[name]) for name in ("prior_shape", "prior_rate", "events", "exposure"))
    found, _ = Gamma(shape, rate).after(events, time)
    return {"post_shape": found.shape, "post_rate": found.rate, "post_mean": found.mean}


_QUESTIONS = {
    frozenset({"prior", "y", "n"}): _two_rates,
    frozenset({"prior_weights", "prior_a", "prior_b", "y", "n"}): _mixture,
    frozenset({"n_per_arm", "sd", "alpha_one_sided", "prior_mean", "prior_sd"}): _assurance,
    frozenset({"prior_mean", "prior_sd", "estimate", "se"}): _normal_posterior,
    frozenset({"prior_shape", "prior_rate", "events", "exposure"}): _gamma_posterior,
}
"""By the names of the inputs, notes aside."""


def bayesian_answers(inputs: Inputs) -> dict[str, Any]:
    """Outputs by name, none where the inputs ask for something else."""
    names = frozenset(inputs) - {"note", "items", "formula"}
    asked = _QUESTIONS.get(names)
    if asked is _two_rates and not all(len(_numbers(inputs[name])) == 2 for name in names):
        return {}
    return {} if asked is None else asked(inputs)


def prognostic_answers(inputs: Inputs) -> dict[str, Any]:
    """Patients of each arm, and the share saved, for each correlation."""
    names = frozenset(inputs) - {"note", "formula"}
    if names != {"alpha", "sided", "power", "delta", "sd", "rho"}:
        return {}
    alpha, power = float(inputs["alpha"]) / float(inputs["sided"]), float(inputs["power"])
    trials = [PrognosticAdjustment(float(inputs["delta"]), float(inputs["sd"]), rho) for rho in _numbers(inputs["rho"])]
    return {
        "n_per_arm": [each.control_subjects(alpha, power) for each in trials],
        "reduction": [each.reduction for each in trials],
    }
