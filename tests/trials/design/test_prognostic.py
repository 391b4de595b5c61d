"""Sizes with a prognostic score: hand values, invariants, a simulated trial and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medtwin.trials.analysis.linear import linear_model
from medtwin.trials.design.prognostic import PrognosticAdjustment


def test_without_a_score_by_hand() -> None:
    assert PrognosticAdjustment(0.3, 1.0, 0.0).control_subjects(0.025, 0.9) == pytest.approx(233.4982902542, abs=1e-9)


def test_the_share_saved_is_the_squared_correlation_after_deflation() -> None:
    plain, trusted = PrognosticAdjustment(0.3, 1, 0), PrognosticAdjustment(0.3, 1, 0.5)
    careful = PrognosticAdjustment(0.3, 1, 0.5, deflation=0.9, inflation=1.1)
    sizes = [each.subjects(0.025, 0.8) for each in (plain, trusted, careful)]
    assert sizes[1] / sizes[0] == pytest.approx(0.75)
    assert sizes[2] / sizes[0] == pytest.approx(1.21 * (1 - 0.45**2))


def test_power_undoes_the_size() -> None:
    design = PrognosticAdjustment(-0.4, 1.2, 0.6, allocation_ratio=2)
    assert design.power(design.control_subjects(0.025, 0.85), 0.025) == pytest.approx(0.85)
    assert design.subjects(0.025, 0.85) == pytest.approx(3 * design.control_subjects(0.025, 0.85))


def test_a_simulated_trial_has_the_planned_variance() -> None:
    rng, n, rho = np.random.default_rng(5), 100, 0.7
    effects = []
    for _ in range(800):
        score, arm = rng.normal(size=2 * n), np.repeat([0.0, 1.0], n)
        y = rho * score + np.sqrt(1 - rho**2) * rng.normal(size=2 * n)
        effects.append(linear_model(y, np.column_stack([np.ones(2 * n), arm, score])).coefficients[1])
    assert np.var(effects) == pytest.approx(PrognosticAdjustment(0.3, 1.0, rho).residual_variance * 2 / n, rel=0.15)


@pytest.mark.parametrize(
    "given", [{"effect": 0.0}, {"sd": 0.0}, {"correlation": 1.0}, {"deflation": 1.1}, {"inflation": 0.9}]
)
def test_refusals(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))}.* must be|must be"):
        PrognosticAdjustment(**{"effect": 0.3, "sd": 1.0, "correlation": 0.5, **given})
    with pytest.raises(ValueError, match="power must be between"):
        PrognosticAdjustment(0.3, 1.0, 0.5).control_subjects(0.9, 0.025)
