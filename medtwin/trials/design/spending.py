"""Error-spending functions: how much of alpha (or beta) a group-sequential trial may have spent by a fraction."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import beta, cauchy, norm, t

Floats = NDArray[np.float64]
SpendingKind = Literal["obrien_fleming", "pocock", "hwang_shih_decani", "kim_demets"]
_NEEDS_PARAMETER = {"hwang_shih_decani": "gamma", "kim_demets": "rho"}


class SpendingFunction(Hashable, Protocol):
    """Anything that says how much of an error is spent by a fraction of the information, and can be hashed."""

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`; `total` from fraction 1 on."""


@dataclass(frozen=True)
class Spending:
    """A spending function of the information fraction.

    Attributes:
        kind: `obrien_fleming` and `pocock` are Lan & DeMets' functions that come near those bounds;
            `hwang_shih_decani` takes gamma, `kim_demets` takes rho > 0.
        parameter: gamma or rho; None for the others.

    Raises:
        ValueError: If the parameter is missing, not wanted, or rho is not positive.

    Source: Lan & DeMets 1983, Biometrika 70:659; Hwang, Shih & DeCani 1990, Stat Med 9:1439; Kim & DeMets 1987,
    Biometrika 74:149.
    """

    kind: SpendingKind = "obrien_fleming"
    parameter: float | None = None

    def __post_init__(self) -> None:
        known = ("obrien_fleming", "pocock", *_NEEDS_PARAMETER)
        if self.kind not in known:
            raise ValueError(f"spending must be one of {', '.join(known)}, got {self.kind!r}")
        wanted = _NEEDS_PARAMETER.get(self.kind)
        if wanted and self.parameter is None:
            raise ValueError(f"spending {self.kind} needs parameter={wanted}")
        if not wanted and self.parameter is not None:
            raise ValueError(f"spending {self.kind} takes no parameter, got {self.parameter!r}")
        if self.kind == "kim_demets" and self.parameter is not None and self.parameter <= 0:
            raise ValueError(f"parameter (rho) must be above 0, got {self.parameter!r}")

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`; `total` from fraction 1 on.

        Args:
            fraction: Information fractions, 0 or more.
            total: What is spent at the end, one-sided, between 0 and 1.

        Raises:
            ValueError: If the total is not a probability.

        >>> Spending("obrien_fleming").spent([0.5, 1.0], 0.025).round(6).tolist()
        [0.001525, 0.025]
        """
        if not 0 < total < 1:
            raise ValueError(f"the error to spend must be between 0 and 1, got {total!r}")
        t = np.clip(np.asarray(fraction, dtype=np.float64), 0.0, 1.0)
        match self.kind:
            case "obrien_fleming":
                with np.errstate(divide="ignore"):
                    return np.asarray(2.0 * norm.sf(norm.isf(total / 2.0) / np.sqrt(t)))
            case "pocock":
                return np.asarray(total * np.log1p((np.e - 1.0) * t))
            case "hwang_shih_decani":
                gamma = self.parameter or 0.0
                return total * t if gamma == 0 else np.asarray(total * np.expm1(-gamma * t) / np.expm1(-gamma))
            case "kim_demets":
                return np.asarray(total * t ** (self.parameter or 1.0))


Quantiles = Literal["logistic", "normal", "cauchy", "extreme_value", "extreme_value_2", "student"]
_LAWS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "logistic": (expit, logit),
    "normal": (norm.cdf, norm.ppf),
    "cauchy": (cauchy.cdf, cauchy.ppf),
    "extreme_value": (lambda x: np.exp(-np.exp(-x)), lambda p: -np.log(-np.log(p))),
    "extreme_value_2": (lambda x: -np.expm1(-np.exp(x)), lambda p: np.log(-np.log1p(-p))),
}


@dataclass(frozen=True)
class TwoParameterSpending:
    """A spending function total F(intercept + slope F^-1(t)) of a distribution F.

    Attributes:
        law: The distribution. intercept, slope: On the scale of its quantiles; the slope is above 0.
        degrees_of_freedom: Of Student's distribution, None for the others.

    Raises:
        ValueError: For an unknown law, a slope that is not positive, or degrees of freedom that do not fit.

    Source: Anderson & Clark 2010, Stat Med 29:321.
    """

    law: Quantiles
    intercept: float
    slope: float
    degrees_of_freedom: float | None = None

    def __post_init__(self) -> None:
        if self.law not in (*_LAWS, "student"):
            raise ValueError(f"law must be one of {', '.join((*_LAWS, 'student'))}, got {self.law!r}")
        if not self.slope > 0:
            raise ValueError(f"slope must be above 0, got {self.slope!r}")
        if (self.law == "student") != (self.degrees_of_freedom is not None):
            raise ValueError(f"degrees_of_freedom are those of the law student, got {self.degrees_of_freedom!r}")

    @classmethod
    def through(
        cls,
        law: Quantiles,
        fractions: tuple[float, float],
        shares: tuple[float, float],
        degrees_of_freedom: float | None = None,
    ) -> TwoParameterSpending:
        """The one that has spent these shares of the total by these fractions.

        Raises:
            ValueError: If they do not increase between 0 and 1.

        >>> through = TwoParameterSpending.through("logistic", (0.3, 0.6), (0.05, 0.3))
        >>> through.spent([0.3, 0.6, 1.0], 0.025).round(5).tolist()
        [0.00125, 0.0075, 0.025]
        """
        if not (0 < fractions[0] < fractions[1] < 1 and 0 < shares[0] < shares[1] < 1):
            raise ValueError(f"fractions and shares must increase between 0 and 1, got {fractions!r} and {shares!r}")
        quantile = _law(law, degrees_of_freedom)[1]
        x, y = quantile(np.array(fractions)), quantile(np.array(shares))
        slope = float((y[1] - y[0]) / (x[1] - x[0]))
        return cls(law, float(y[0] - slope * x[0]), slope, degrees_of_freedom)

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`; `total` from fraction 1 on."""
        at = np.clip(np.asarray(fraction, dtype=np.float64), 0.0, 1.0)
        cdf, quantile = _law(self.law, self.degrees_of_freedom)
        inside = (at > 0) & (at < 1)
        share = cdf(self.intercept + self.slope * quantile(np.where(inside, at, 0.5)))
        return np.asarray(total * np.where(inside, share, at))


def _law(
    law: Quantiles, degrees_of_freedom: float | None
) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    if law == "student":
        return lambda x: t.cdf(x, degrees_of_freedom), lambda p: t.ppf(p, degrees_of_freedom)
    return _LAWS[law]


@dataclass(frozen=True)
class BetaSpending:
    """A spending function that is the beta distribution function of the fraction.

    Attributes:
        first, second: Its parameters, above 0.

    Raises:
        ValueError: If they are not.

    Source: Anderson & Clark 2010, Stat Med 29:321.
    """

    first: float
    second: float

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.second > 0):
            raise ValueError(f"the parameters must be above 0, got {self.first!r} and {self.second!r}")

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`; `total` from fraction 1 on."""
        return np.asarray(total * beta.cdf(np.asarray(fraction, dtype=np.float64), self.first, self.second))


@dataclass(frozen=True)
class ExponentialSpending:
    """A spending function total^(t^-nu).

    Attributes:
        nu: The shape, above 0; at 0.8 it is near O'Brien and Fleming's for small errors.

    Raises:
        ValueError: If it is not.

    Source: Anderson & Clark 2010, Stat Med 29:321.
    """

    nu: float

    def __post_init__(self) -> None:
        if not self.nu > 0:
            raise ValueError(f"nu must be above 0, got {self.nu!r}")

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`; `total` from fraction 1 on."""
        at = np.clip(np.asarray(fraction, dtype=np.float64), 0.0, 1.0)
        with np.errstate(divide="ignore"):
            return np.asarray(total ** (at**-self.nu))


@dataclass(frozen=True)
class PointSpending:
    """A spending function through points, straight between them.

    Attributes:
        fractions: Of information, increasing, between 0 and 1. shares: Of the total spent by them, not decreasing.
        steps: Whether it jumps at each point and is level between them, in place of the lines.

    Raises:
        ValueError: If they do not fit each other.
    """

    fractions: tuple[float, ...]
    shares: tuple[float, ...]
    steps: bool = False

    def __post_init__(self) -> None:
        x, y = np.array([0.0, *self.fractions, 1.0]), np.array([0.0, *self.shares, 1.0])
        if len(x) != len(y) or (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
            raise ValueError(f"fractions must increase and shares not decrease between 0 and 1, got {self!r}")

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`; `total` from fraction 1 on."""
        at = np.clip(np.asarray(fraction, dtype=np.float64), 0.0, 1.0)
        x, y = np.array([0.0, *self.fractions, 1.0]), np.array([0.0, *self.shares, 1.0])
        if self.steps:
            return np.asarray(total * y[np.searchsorted(x, at, side="right") - 1])
        return np.asarray(total * np.interp(at, x, y))


@dataclass(frozen=True)
class _InRange:
    """A spending function that is another one in a range of fractions.

    Attributes:
        inner: The other. start, end: Of the range, 0 <= start < end <= 1.

    Raises:
        ValueError: If the range is none.
    """

    inner: SpendingFunction
    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"start and end must increase between 0 and 1, got {self.start!r} and {self.end!r}")


@dataclass(frozen=True)
class TrimmedSpending(_InRange):
    """Nothing is spent up to the start, all from the end on, and what `inner` says between them."""

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`.

        >>> TrimmedSpending(Spending("kim_demets", 1.0), 0.3, 0.9).spent([0.2, 0.5, 0.95], 0.02).tolist()
        [0.0, 0.01, 0.02]
        """
        at = np.asarray(fraction, dtype=np.float64)
        inside = self.inner.spent(np.maximum(at, self.start), total)
        return np.where(at <= self.start, 0.0, np.where(at >= self.end, total, inside))


@dataclass(frozen=True)
class TruncatedSpending(_InRange):
    """All of `inner` is spent between the start and the end, on the scale of that range."""

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`.

        >>> TruncatedSpending(Spending("kim_demets", 1.0), 0.2, 0.6).spent([0.1, 0.4, 0.8], 0.02).round(6).tolist()
        [0.0, 0.01, 0.02]
        """
        at = np.clip((np.asarray(fraction, dtype=np.float64) - self.start) / (self.end - self.start), 0.0, 1.0)
        return np.where(at > 0, self.inner.spent(np.where(at > 0, at, 1.0), total), 0.0)


@dataclass(frozen=True)
class GappedSpending(_InRange):
    """What `inner` says up to the start, nothing more until the end, and all beyond it."""

    def spent(self, fraction: ArrayLike, total: float) -> Floats:
        """The error spent by each fraction, in the shape of `fraction`.

        >>> GappedSpending(Spending("kim_demets", 1.0), 0.3, 0.9).spent([0.2, 0.5, 0.95], 0.02).round(6).tolist()
        [0.004, 0.006, 0.02]
        """
        at = np.asarray(fraction, dtype=np.float64)
        return np.where(at > self.end, total, self.inner.spent(np.minimum(at, self.start), total))
