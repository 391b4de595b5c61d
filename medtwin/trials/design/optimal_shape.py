"""The shape of Wang & Tsiatis' bounds that needs the least information on average.

Source: Wang & Tsiatis 1987, Biometrics 43:193; Wassmer & Brannath 2016, Group Sequential and Confirmatory Adaptive
Designs in Clinical Trials, section 2.2.3.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from medtwin.trials.design.boundaries import drift_of_power, exit_probabilities, fixed_drift, fractions, shaped_bounds

Floats = NDArray[np.float64]
Criterion = Literal["alternative", "alternative_and_maximum", "null_half_alternative"]


def expected_information(
    information: ArrayLike, alpha: float, power: float, delta: float, *, two_sided: bool = False
) -> tuple[float, Floats]:
    """The maximal and the expected information of Wang & Tsiatis' bounds of one shape, as ratios to a fixed design.

    Args:
        information: (looks,) information.
        alpha: One-sided error; with `two_sided`, of both sides together.
        power: To reject towards the alternative.
        delta: The shape.
        two_sided: Symmetric bounds.

    Returns:
        The maximum, and (3,) expectations under the alternative, half of it and the null.

    Raises:
        ValueError: If power is not between alpha and 1.

    >>> maximum, expected = expected_information([1 / 3, 2 / 3, 1.0], 0.025, 0.9, 0.0)
    >>> round(maximum, 4), expected.round(4).tolist()
    (1.0161, [0.7987, 0.9695, 1.0136])
    """
    if not alpha < power < 1:
        raise ValueError(f"power must be between alpha and 1, got {power!r}")
    t = fractions(information)
    upper = shaped_bounds(t, alpha, delta, two_sided=two_sided)
    lower = -upper if two_sided else None
    drift = drift_of_power(lambda d: exit_probabilities(t, upper, lower, d).power - power)
    maximum = (drift / fixed_drift(alpha / 2 if two_sided else alpha, power)) ** 2
    stops = [exit_probabilities(t, upper, lower, share * drift).expected(t) for share in (1.0, 0.5, 0.0)]
    return maximum, maximum * np.array(stops)


def optimal_shape(
    information: ArrayLike,
    alpha: float,
    power: float,
    criterion: Criterion = "alternative",
    *,
    two_sided: bool = False,
) -> float:
    """The shape of Wang & Tsiatis' bounds, from 0 to 1, that makes a sum of informations least.

    Args:
        information: (looks,) information.
        alpha: One-sided error; with `two_sided`, of both sides together.
        power: To reject towards the alternative.
        criterion: What is summed: the expectation under the alternative; that and the maximum; or the expectations
            under the null, half of the alternative and the alternative.
        two_sided: Symmetric bounds.

    Raises:
        ValueError: If there are fewer than two looks, or power is not between alpha and 1.

    >>> round(optimal_shape([0.5, 1.0], 0.05, 0.8), 3)
    0.387
    """
    if len(fractions(information)) < 2:
        raise ValueError(f"information must be of two looks or more, got {np.size(information)}")

    def cost(delta: float) -> float:
        maximum, expected = expected_information(information, alpha, power, delta, two_sided=two_sided)
        if criterion == "null_half_alternative":
            return float(expected.sum())
        return float(expected[0]) + (maximum if criterion == "alternative_and_maximum" else 0.0)

    return float(minimize_scalar(cost, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-5}).x)
