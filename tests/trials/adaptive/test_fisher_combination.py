from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from medtwin.trials.design.combination import (
    FisherDesign,
    fisher_design,
    inverse_normal,
    inverse_normal_weights,
    product_bound,
    product_level,
)


@pytest.mark.parametrize(
    ("information", "alpha", "method", "options", "critical"),
    [
        ([1, 2], 0.025, "equal_alpha", {}, [0.0157880731518787, 0.00222054375435215]),
        ([1, 2, 3], 0.025, "equal_alpha", {}, [0.0123085467187423, 0.00166359229551173, 0.000291066872410515]),
        ([0.3, 0.6, 1], 0.025, "equal_alpha", {}, [0.0117855609174455, 0.00158217668440216, 0.000176553216533397]),
        ([0.6, 1], 0.025, "full_alpha", {}, [0.00620393288237385] * 2),
        ([1, 2, 3], 0.025, "full_alpha", {}, [0.000728380000149165] * 3),
        (
            [1, 2, 3],
            0.025,
            "full_alpha",
            {"futility": [0.7, 0.5], "binding": True},
            [0.00874519800650546, 0.00112227282257322, 0.000728380000149165],
        ),
        (
            [1, 2, 3],
            0.05,
            "no_interaction",
            {"futility": [0.6, 0.4], "binding": True},
            [0.0202735825798129, 0.00461011309379539, 0.00184404523751815],
        ),
        (
            [0.3, 0.5, 1],
            0.025,
            "no_interaction",
            {"futility": [0.7, 0.5], "binding": True},
            [0.011437585389189, 0.000864786326299, 0.000505512596694],
        ),
        (
            [1, 2, 3],
            0.025,
            "user_defined_alpha",
            {"spent": [0.01, 0.015, 0.025]},
            [0.01, 0.00108573620476022, 0.000480104954027638],
        ),
        (
            [1, 2, 3],
            0.025,
            "user_defined_alpha",
            {"spent": [0.01, 0.015, 0.025], "futility": [0.7, 0.5], "binding": True},
            [0.01, 0.001176887277762, 0.000659170586056],
        ),
    ],
)
def test_bounds_of_rpact(information: Any, alpha: Any, method: Any, options: Any, critical: Any) -> None:
    found = fisher_design(information, alpha, method, **options)
    assert found.critical == pytest.approx(critical, rel=1e-8)
    assert found.alpha_spent[-1] == pytest.approx(alpha, rel=1e-9)


def test_stopping_for_futility_that_does_not_bind_leaves_the_bounds() -> None:
    plain = fisher_design([1, 2, 3])
    assert fisher_design([1, 2, 3], futility=[0.7, 0.5]).critical.tolist() == plain.critical.tolist()
    assert (fisher_design([1, 2, 3], futility=[0.7, 0.5], binding=True).critical > plain.critical).all()


def test_the_product_of_two_is_chi_square() -> None:
    """Bauer & Koehne 1994: the critical product of the last of two stages at full level."""
    assert product_bound(0.05, [1, 1]) == pytest.approx(np.exp(-0.5 * chi2.isf(0.05, 4)))
    weights = [1.0, 1.2, 0.7]
    assert product_level(product_bound(0.02, weights), weights) == pytest.approx(0.02, rel=1e-9)


@pytest.mark.parametrize("information", [[1, 2, 3, 4], pytest.param([0.2, 0.6, 0.8, 1.0], marks=pytest.mark.slow)])
def test_errors_spent_are_those_of_simulated_p_values(information: Any) -> None:
    design = fisher_design(information, 0.1, futility=[0.8, 0.6, 0.4], binding=True)
    p = np.random.default_rng(1).random((100_000, 4))
    products = np.cumprod(p**design.weights, axis=1)
    goes_on, spent = np.ones(len(p), dtype=bool), []
    for k in range(4):
        crossed = goes_on & (products[:, k] <= design.critical[k])
        spent.append(crossed.mean())
        goes_on &= ~crossed & (p[:, k] <= (design.futility[k] if k < 3 else 1.0))
    assert np.cumsum(spent) == pytest.approx(design.alpha_spent, abs=4 * np.sqrt(0.1 * 0.9 / len(p)))


@pytest.mark.parametrize(
    ("information", "options", "expected"),
    [
        ([1, 2, 3], {}, 0.05182735033),
        ([1, 2, 3, 4], {}, 0.05482093345),
        ([0.3, 0.5, 1], {}, 0.05236746379),
        ([1, 2, 3], {"method": "full_alpha", "futility": [0.7, 0.5], "binding": True}, 0.0662439562),
    ],
)
def test_conditional_errors_of_rpact(information: Any, options: Any, expected: Any) -> None:
    design = fisher_design(information, **options)
    assert design.conditional_error(1, 0.05136138933) == pytest.approx(expected, abs=1e-9)


def test_the_conditional_error_averages_to_alpha() -> None:
    """Over the first p value: its mean is the level."""
    design = fisher_design([1, 2, 3])
    x, w = np.polynomial.legendre.leggauss(40)
    low = float(design.critical[0])
    p = np.exp(0.5 * np.log(low) * (1 - x))  # on the log scale, from the bound to 1
    mean = low + float((w * p * -0.5 * np.log(low)) @ [design.conditional_error(1, each) for each in p])
    assert mean == pytest.approx(0.025, abs=1e-6)
    assert design.conditional_error(1, low / 2) == 1.0


def test_stagewise_p_values() -> None:
    """At the bound, the p value is what has been spent; Brannath, Posch & Bauer 2002 for two stages in closed form."""
    design = fisher_design([1, 2])
    assert design.stagewise_p_value(2, float(design.critical[1])) == pytest.approx(0.025)
    assert design.stagewise_p_value(1, 0.01) == pytest.approx(0.01)
    product, first = 0.0044121552, float(design.critical[0])
    assert design.stagewise_p_value(2, product) == pytest.approx(first - product * np.log(first))


def test_weights_of_the_inverse_normal() -> None:
    weights = inverse_normal_weights([200 / 350, 1])
    assert weights == pytest.approx([np.sqrt(200 / 350), np.sqrt(150 / 350)])
    assert inverse_normal([1.0, 2.0], weights) == pytest.approx([1.0, weights @ [1.0, 2.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fisher_design([1, 2], 0.6), "alpha must be one-sided"),
        (lambda: fisher_design([1, 2], futility=[0.5, 0.5]), "futility must be p values"),
        (lambda: fisher_design([1, 2], futility=[0.0]), "futility must be p values"),
        (lambda: fisher_design([1, 2], method="no_interaction"), "no_interaction must have three stages"),
        (lambda: fisher_design([1, 2], method="user_defined_alpha", spent=[0.02, 0.01]), "spent must be one error"),
        (lambda: fisher_design([1, 2], method="pocock"), "method must be a known one"),
        (lambda: FisherDesign(np.ones(2), np.ones(2), np.ones(2)), "critical and futility must be one per stage"),
    ],
)
def test_refusals(call: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        call()
