"""Robust scales of values: per token, so per code and unit, with an exact inverse and the precision of the source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A standard normal has an interquartile range of 1.349.
_IQR_OF_NORMAL = 1.349
_MAX_DECIMALS = 4
# What a generated value may be: the central 99.6 % of the training values, and half a scale unit beyond on both sides.
# The extremes of single people would identify them.
_TAIL = 0.002
_MARGIN = 0.5


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to numbers near a standard normal and back.

    Attributes:
        form: `linear`; `log` for positive, skewed values; `log1p` for durations, which may be zero.
        centre, width: Median and normalised interquartile range after the form.
        low, high: Bounds of generated values, scaled.
        decimals: Digits after the point that the source writes.
    """

    form: Literal["linear", "log", "log1p"]
    centre: float
    width: float
    low: float
    high: float
    decimals: int

    def encode(self, values: Floats) -> Floats:
        """Scaled values, same shape; a value that the form cannot take (a negative one under log) is nan."""
        with np.errstate(invalid="ignore", divide="ignore"):
            shaped = _shape(values, self.form)
        scaled = (shaped - self.centre) / self.width
        return np.where(np.isfinite(scaled), scaled, np.nan)

    def decode(self, scaled: Floats) -> Floats:
        """Values of scaled ones, rounded to the precision of the source.

        >>> scale = Scale("linear", 5.0, 2.0, -3.0, 3.0, 1)
        >>> scale.decode(scale.encode(np.array([7.1])))
        array([7.1])
        """
        shaped = scaled * self.width + self.centre
        if self.form == "log":
            shaped = np.exp(shaped)
        elif self.form == "log1p":
            shaped = np.expm1(shaped)
        return np.round(shaped, self.decimals) + 0.0

    def half_width(self, values: Floats) -> Floats:
        """Half of the rounding of the source at some values, on the scale of `encode`, same shape; not negative.

        >>> Scale("linear", 5.0, 2.0, -3.0, 3.0, 1).half_width(np.array([7.1]))
        array([0.025])
        """
        half = 0.5 * 10.0**-self.decimals
        slope = np.ones_like(values)
        if self.form == "log":
            slope = 1.0 / np.maximum(values, half)
        elif self.form == "log1p":
            slope = 1.0 / (1.0 + np.maximum(values, 0.0))
        return half * slope / self.width

    def to_json(self) -> dict[str, Any]:
        """The scale as JSON values."""
        return asdict(self)


def _shape(values: Floats, form: str) -> Floats:
    if form == "log":
        return np.log(values)
    return np.log1p(values) if form == "log1p" else values


def fit_scale(values: Floats, *, is_duration: bool = False) -> Scale:
    """The scale of some training values, (n,), n at least 1, all finite."""
    form: Literal["linear", "log", "log1p"] = "log1p" if is_duration else "linear"
    if not is_duration and values.min() > 0 and _skewness(np.log(values)) < 0.6 * _skewness(values):
        form = "log"
    shaped = _shape(values, form)
    quarter, centre, three = np.quantile(shaped, [0.25, 0.5, 0.75])
    tiny = 1e-9 * max(1.0, abs(float(centre)))  # rounding, not spread
    width = next((w for w in ((three - quarter) / _IQR_OF_NORMAL, float(shaped.std())) if w > tiny), 1.0)
    low, high = (np.quantile(shaped, [_TAIL, 1 - _TAIL]) - centre) / width
    if shaped.std() > tiny:
        low, high = low - _MARGIN, high + _MARGIN
    decimals = _decimals(values, is_duration)
    if not is_duration and form == "linear" and np.quantile(shaped, 1 - _TAIL) == shaped.max() > shaped.min():
        high = (shaped.max() + 0.49 * 10.0**-decimals - centre) / width  # many have the most that can be, such as 100 %
    if not is_duration and values.min() >= 0 and form == "linear":  # what is never negative stays so, once rounded
        low = max(low, (-0.49 * 10.0**-decimals - centre) / width)
    return Scale(form, float(centre), float(width), float(low), float(high), decimals)


def _skewness(values: Floats) -> float:
    """Absolute skewness by quartiles (Bowley), which single extremes do not move."""
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return float(abs(high + low - 2 * middle) / (high - low)) if high > low else 0.0


def _decimals(values: Floats, is_duration: bool) -> int:
    if is_duration:
        return 0
    for decimals in range(_MAX_DECIMALS):
        rounded = np.round(values, decimals)
        if np.mean(np.isclose(rounded, values, rtol=1e-6, atol=1e-9)) >= 0.99:
            return decimals
    return _MAX_DECIMALS
