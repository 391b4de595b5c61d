"""The mixed model for repeated measures: balanced data in closed form, derivatives, invariants and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from medtwin.trials.analysis.covariance_structures import CovarianceStructure, StructureName
from medtwin.trials.analysis.means import pooled_t_test
from medtwin.trials.analysis.mmrm import MMRM, quick_search
from medtwin.trials.analysis.random_effects import random_effects_model


def trial(n: int = 24, visits: int = 3, dropout: float = 0.0) -> tuple[np.ndarray, ...]:
    """Response, design (arm by visit), subject, visit; dropout is monotone."""
    rng = np.random.default_rng(3)
    root = np.linalg.cholesky(np.array([[4.0, 2, 1], [2, 5, 2.5], [1, 2.5, 6]])[:visits, :visits])
    y = rng.normal(size=(n, visits)) @ root.T + np.arange(visits)
    subject, visit = (each.ravel() for each in np.meshgrid(np.arange(n), np.arange(visits), indexing="ij"))
    arm = subject % 2
    cells = [(visit == v).astype(float) for v in range(visits)]
    x = np.column_stack([*cells, *(arm * each for each in cells)])
    keep = visit <= np.repeat(np.where(rng.random(n) < dropout, rng.integers(0, visits, n), visits), visits)
    return y.ravel()[keep], x[keep], subject[keep], visit[keep]


@pytest.mark.parametrize("name", get_args(StructureName))
def test_derivatives_of_structures(name: StructureName) -> None:
    structure = CovarianceStructure(name, (0.0, 1.0, 2.5, 3.0))
    theta = np.linspace(-0.4, 0.5, structure.num_parameters)
    sigma = structure.matrix(theta)
    assert sigma == pytest.approx(sigma.T)
    for i, step in enumerate(1e-6 * np.eye(len(theta))):
        slope = (structure.matrix(theta + step) - structure.matrix(theta - step)) / 2e-6
        assert structure.first_derivatives(theta)[i] == pytest.approx(slope, abs=1e-7)
    second = structure.second_derivatives(theta)
    assert second == pytest.approx(second.swapaxes(0, 1), abs=1e-7)


def test_complete_data_give_the_pooled_covariance_of_the_arms() -> None:
    y, x, subject, visit = trial()
    fit = MMRM().fit(y, x, subject, visit)
    wide = y.reshape(-1, 3)
    rest = np.concatenate([wide[arm::2] - wide[arm::2].mean(axis=0) for arm in (0, 1)])
    assert fit.covariances[0] == pytest.approx(rest.T @ rest / 22, rel=1e-6)


@pytest.mark.parametrize("inference", ["satterthwaite", "kenward_roger_linear"])
def test_complete_data_give_the_t_test_of_a_visit(inference: str) -> None:
    y, x, subject, visit = trial()
    fit = MMRM("us", inference).fit(y, x, subject, visit)  # type: ignore[arg-type]
    one = fit.contrast(np.eye(6)[5])
    test = pooled_t_test(y[(visit == 2) & (subject % 2 == 1)], y[(visit == 2) & (subject % 2 == 0)])
    assert one.t == pytest.approx(test.t, rel=1e-6)
    assert one.degrees_of_freedom == pytest.approx(22, rel=1e-4)
    assert one.p_value == pytest.approx(test.p_value, rel=1e-4)


def test_compound_symmetry_is_the_random_intercept() -> None:
    y, x, subject, visit = trial(dropout=0.5)
    one, other = MMRM("cs").fit(y, x, subject, visit), random_effects_model(y, x, np.ones((len(y), 1)), subject)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-8)
    assert one.standard_errors == pytest.approx(other.standard_errors, rel=1e-6)
    assert one.covariances[0][0, 1] == pytest.approx(other.random_covariance[0, 0], rel=1e-5)


def test_richer_structures_fit_no_worse() -> None:
    rows = trial(dropout=0.5)
    fits = {name: MMRM(name).fit(*rows).log_likelihood for name in ("us", "toeph", "ar1h", "csh", "adh", "toep", "ar1")}
    assert fits["us"] > fits["toeph"] > max(fits["ar1h"], fits["csh"])
    assert fits["us"] > fits["adh"] > fits["ar1h"]
    assert fits["toeph"] > fits["toep"] > fits["ar1"]


def test_the_quick_search_ends_near_the_maximum() -> None:
    rows = trial(dropout=0.5)
    best, quick = MMRM().fit(*rows), MMRM(search=quick_search).fit(*rows)
    assert 0 <= best.log_likelihood - quick.log_likelihood < 1e-4
    assert quick.coefficients == pytest.approx(best.coefficients, abs=0.01)


def test_neither_order_nor_units_matter() -> None:
    y, x, subject, visit = trial(dropout=0.5)
    one = MMRM("us", "kenward_roger").fit(y, x, subject, visit)
    order = np.random.default_rng(1).permutation(len(y))
    other = MMRM("us", "kenward_roger").fit(1000 * y[order], x[order], subject[order], visit[order])
    assert other.t == pytest.approx(one.t, rel=1e-5)
    assert other.degrees_of_freedom == pytest.approx(one.degrees_of_freedom, rel=1e-4)


def test_kenward_and_rogers_errors_are_larger_and_one_contrast_is_an_f_of_one() -> None:
    rows = trial(n=14, dropout=0.5)
    plain, adjusted = (MMRM("us", name).fit(*rows) for name in ("satterthwaite", "kenward_roger_linear"))
    larger = adjusted.standard_errors / plain.standard_errors
    assert larger[[0, 3]] == pytest.approx(1.0)  # of the first visit, at which nobody is missing
    assert (larger[[1, 2, 4, 5]] > 1.01).all()
    one, joint = adjusted.contrast(np.eye(6)[4]), adjusted.joint_test(np.eye(6)[4:5])
    assert joint.f == pytest.approx(one.t**2)
    several = adjusted.joint_test(np.eye(6)[3:])
    assert several.numerator_df == 3
    assert 2 < several.denominator_df < 14


def test_groups_have_their_own_covariance() -> None:
    y, x, subject, visit = trial()
    fit = MMRM().fit(y, x, subject, visit, group=subject % 2)
    assert fit.covariances[1] == pytest.approx(np.cov(y.reshape(-1, 3)[1::2].T), rel=1e-5)


def test_simple_degrees_of_freedom() -> None:
    y, x, subject, visit = trial()
    assert MMRM("us", "residual").fit(y, x, subject, visit).degrees_of_freedom == pytest.approx(72 - 6)
    design = np.column_stack([np.ones(72), subject % 2, visit])
    found = MMRM("us", "between_within").fit(y, design, subject, visit).degrees_of_freedom
    assert found.tolist() == [72 - 24 - 1, 24 - 2, 72 - 24 - 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MMRM("un"), "structure must be one of"),  # type: ignore[arg-type]
        (lambda: MMRM("us", "kr"), "inference must be one of"),  # type: ignore[arg-type]
        (lambda: MMRM("us", "kenward_roger", is_restricted=False), "is_restricted must be true"),
        (lambda: MMRM().fit([1.0, 2, 3], np.ones((3, 1)), [0, 0, 1], [0, 0, 0]), "visit must be given once"),
        (lambda: MMRM().fit([1.0, 2, 3], np.ones((3, 1)), [0, 0, 1], [0, 1, 0], group=[0, 1, 1]), "group must be"),
        (lambda: MMRM().fit(*trial()).contrast([0.0] * 6), "not all 0"),
        (lambda: MMRM().fit(*trial()).joint_test(np.ones((2, 6))), "independent rows"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
