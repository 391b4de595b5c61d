"""Values of records in one unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medtwin.core.units import convert
from medtwin.trials.population.cohort import CONVERTED_DIGITS, Records, significant

Floats = NDArray[np.float64]


def values_in(records: Records, unit: str | None) -> Floats:
    """Values in a UCUM unit, (rows,); nan in one of another dimension. A value without a unit is taken to be in it.

    A converted value has nine significant digits, so that 0.07 is 7 % and no hair more.
    """
    scale, offset = np.ones(len(records.units) + 1), np.zeros(len(records.units) + 1)
    for number in np.unique(records.unit[records.unit >= 0]).tolist():
        if unit is not None and records.units[number] != unit:
            scale[number], offset[number] = _conversion(records.units[number], unit)
    is_converted = (scale != 1) | (offset != 0)
    if not is_converted.any():
        return records.value
    values = records.value * scale[records.unit] + offset[records.unit]
    return np.where(is_converted[records.unit], significant(values, CONVERTED_DIGITS), values)


def _conversion(unit: str, to: str) -> tuple[float, float]:
    """Factor and offset from one unit to another; nan where they measure different things."""
    try:
        offset = convert(0.0, unit, to)
        return convert(1.0, unit, to) - offset, offset
    except ValueError:
        return np.nan, np.nan
