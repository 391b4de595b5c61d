from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from medtwin.check.cox import fit_cox
from medtwin.trials.analysis.survival_batch import cox_log_hazard_ratio, risk_sets

# Remission in weeks under 6-MP and placebo, 21 patients each; + is censored (Freireich et al. 1963, Blood 21:699).
MP6 = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
PLACEBO = "1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23"


def remission() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    both = f"{MP6} {PLACEBO}".split()
    time = np.array([float(one.rstrip("+")) for one in both])
    return time, np.array(["+" not in one for one in both]), np.r_[np.zeros(21), np.ones(21)][:, None]


def test_agrees_with_the_published_analysis_of_remission() -> None:
    """coxph(Surv(time, cens) ~ treat, gehan), ties by Efron: 1.5721, standard error 0.4124 (Venables & Ripley 2002)."""
    fitted = fit_cox(*remission())
    assert fitted.beta.round(4).tolist() == [1.5721]
    assert fitted.standard_error.round(4).tolist() == [0.4124]
    assert fitted.num_events == 30


def test_three_subjects_by_hand() -> None:
    """x = 1, 0, 1 failing in this order: L = e^b / (2 e^b + 1) * 1 / (1 + e^b); dL = 0 at e^2b = 1/2."""
    fitted = fit_cox(np.array([1.0, 2.0, 3.0]), np.ones(3, bool), np.array([[1.0], [0.0], [1.0]]))
    b = -log(2) / 2
    assert fitted.beta[0] == pytest.approx(b)
    assert fitted.log_likelihood == pytest.approx(log(exp(b) / (2 * exp(b) + 1) / (1 + exp(b))))


def test_agrees_with_the_trials_code_on_one_arm() -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        arm = rng.integers(2, size=80)
        time = np.ceil(rng.exponential(8 * np.exp(-0.5 * arm)))  # many ties
        event = rng.random(80) < 0.7
        theirs = cox_log_hazard_ratio(risk_sets(time[None], event[None], arm[None]))
        mine = fit_cox(time, event, arm[:, None].astype(float))
        assert mine.beta[0] == pytest.approx(theirs.estimate[0], abs=1e-8)
        assert mine.standard_error[0] == pytest.approx(theirs.standard_error[0], abs=1e-6)


def efron(time: np.ndarray, event: np.ndarray, x: np.ndarray, beta: np.ndarray) -> float:
    """Efron's log partial likelihood, one term after the other."""
    total, risk = 0.0, np.exp(x @ beta)
    for t in np.unique(time[event]):
        dead = event & (time == t)
        total += float((x[dead] @ beta).sum())
        for rank in range(dead.sum()):
            total -= log(risk[time >= t].sum() - rank / dead.sum() * risk[dead].sum())
    return total


def test_several_covariates_reach_the_maximum_of_the_plain_likelihood() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 3))
    time = np.ceil(rng.exponential(10 * np.exp(-x @ np.array([0.8, -0.4, 0.0]))))
    event = rng.random(60) < 0.8
    fitted = fit_cox(time, event, x)
    best = efron(time, event, x, fitted.beta)
    assert fitted.log_likelihood == pytest.approx(best)
    step = 1e-3
    for column in range(3):
        move = np.eye(3)[column] * step
        up, down = efron(time, event, x, fitted.beta + move), efron(time, event, x, fitted.beta - move)
        assert up < best > down
        assert (up - down) / (2 * step) == pytest.approx(0, abs=1e-4)
    hessian = np.array(
        [
            [
                sum(
                    s * r * efron(time, event, x, fitted.beta + step * (s * np.eye(3)[i] + r * np.eye(3)[j]))
                    for s in (1, -1)
                    for r in (1, -1)
                )
                / (4 * step**2)
                for j in range(3)
            ]
            for i in range(3)
        ]
    )
    assert fitted.standard_error == pytest.approx(np.sqrt(np.diag(np.linalg.inv(-hessian))), rel=1e-3)
    assert np.abs(fit_cox(time, event, x, start=fitted.beta + 0.3).beta - fitted.beta).max() < 1e-8


def test_what_has_no_maximum_has_no_estimate() -> None:
    time, event = np.arange(1.0, 9.0), np.ones(8, bool)
    separated = (time <= 4).astype(float)[:, None]
    assert np.isnan(fit_cox(time, event, separated).beta).all()
    assert np.isnan(fit_cox(time, event, np.ones((8, 1))).beta).all()
    assert np.isnan(fit_cox(time, ~event, separated).beta).all()
    assert fit_cox(time, event, np.zeros((8, 0))).beta.shape == (0,)
    assert np.isnan(fit_cox(np.zeros(0), np.zeros(0, bool), np.zeros((0, 2))).beta).all()
