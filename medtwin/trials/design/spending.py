"""Error-spending functions: how much of alpha (or beta) a group-sequential trial may have spent by a fraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
SpendingKind = Literal["obrien_fleming", "pocock", "hwang_shih_decani", "kim_demets"]
_NEEDS_PARAMETER = {"hwang_shih_decani": "gamma", "kim_demets": "rho"}


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
