"""How the hospital measures: instrument noise, rounding to the precision of the laboratory, and reference ranges.

Reference ranges: American Board of Internal Medicine, Laboratory Reference Ranges 2024, where nothing else is said.
Noise: choices near desirable analytical imprecision plus day-to-day variation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medtwin.hospital import codes, physiology
from medtwin.hospital.life import Life

Category = Literal["vital-signs", "laboratory", "procedure", "social-history"]
Pair = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Measure:
    """How one observation is made.

    Attributes:
        true: The true value of a life at an age.
        decimals: Digits after the point that are reported.
        sd: Noise of a measurement, in units.
        cv: Noise of a measurement, as a share of the value.
        low: Lower reference limit for men, women; None where there is none.
        high: Upper reference limit for men, women.
        ceiling: The largest value that can be reported.
    """

    true: Callable[[Life, float], float]
    unit: str
    decimals: int
    sd: float = 0.0
    cv: float = 0.0
    low: Pair = (None, None)
    high: Pair = (None, None)
    category: Category = "laboratory"
    ceiling: float = 1e6

    def limits(self, sex: str) -> Pair:
        """The reference range, (low, high), of a sex."""
        which = 0 if sex == "M" else 1
        return self.low[which], self.high[which]

    def read(self, life: Life, age: float, rng: np.random.Generator) -> float:
        """A reading: the true value, noise, and rounding; always above zero."""
        value = self.true(life, age)
        value += (self.sd + self.cv * value) * float(rng.standard_normal())
        smallest = 10.0**-self.decimals
        return round(min(max(value, smallest), self.ceiling), self.decimals)


def _both(value: float) -> Pair:
    return (value, value)


MEASURES: dict[str, Measure] = {
    codes.HEART_RATE: Measure(
        physiology.heart_rate, "/min", 0, sd=5.0, low=_both(60), high=_both(100), category="vital-signs"
    ),
    codes.RESPIRATORY_RATE: Measure(
        physiology.respiratory_rate, "/min", 0, sd=1.2, low=_both(12), high=_both(20), category="vital-signs"
    ),
    codes.TEMPERATURE: Measure(
        physiology.temperature, "Cel", 1, sd=0.2, low=_both(36.1), high=_both(37.5), category="vital-signs"
    ),
    codes.OXYGEN_SATURATION: Measure(
        physiology.oxygen_saturation, "%", 0, sd=0.9, low=_both(94), category="vital-signs", ceiling=100.0
    ),
    codes.WEIGHT: Measure(physiology.weight, "kg", 1, cv=0.01, category="vital-signs"),
    codes.SYSTOLIC: Measure(
        physiology.systolic, "mm[Hg]", 0, sd=7.0, low=_both(90), high=_both(129), category="vital-signs"
    ),
    codes.DIASTOLIC: Measure(
        physiology.diastolic, "mm[Hg]", 0, sd=5.0, low=_both(60), high=_both(79), category="vital-signs"
    ),
    codes.A1C: Measure(physiology.a1c, "%", 1, cv=0.02, low=_both(4.0), high=_both(5.6)),
    # SD of mean glucose about the ADAG line: 15.7 mg/dL (Nathan et al. 2008).
    codes.GLUCOSE: Measure(physiology.glucose, "mg/dL", 0, sd=14.0, low=_both(70), high=_both(99)),
    codes.CREATININE: Measure(physiology.creatinine, "mg/dL", 2, cv=0.04, low=(0.7, 0.5), high=(1.3, 1.1)),
    codes.POTASSIUM: Measure(physiology.potassium, "mmol/L", 1, sd=0.25, low=_both(3.5), high=_both(5.0)),
    codes.SODIUM: Measure(lambda _life, _age: 140.0, "mmol/L", 0, sd=2.0, low=_both(136), high=_both(145)),
    codes.HEMOGLOBIN: Measure(physiology.hemoglobin, "g/dL", 1, cv=0.02, low=(14.0, 12.0), high=(18.0, 16.0)),
    codes.LEUKOCYTES: Measure(physiology.leukocytes, "10*3/uL", 1, cv=0.15, low=_both(4.0), high=_both(11.0)),
    codes.CRP: Measure(physiology.crp, "mg/L", 1, cv=0.35, high=_both(8.0)),
    # Upper limit: McDonagh et al. 2021, Eur Heart J 42:3599 (ESC guideline), outside an emergency.
    codes.NT_PROBNP: Measure(physiology.nt_probnp, "pg/mL", 0, cv=0.2, high=_both(125)),
    # Desirable values: NCEP Adult Treatment Panel III (2001).
    codes.LDL: Measure(physiology.ldl, "mg/dL", 0, cv=0.06, high=_both(129)),
    codes.HDL: Measure(physiology.hdl, "mg/dL", 0, cv=0.05, low=(40.0, 50.0)),
    codes.TRIGLYCERIDES: Measure(physiology.triglycerides, "mg/dL", 0, cv=0.15, high=_both(149), ceiling=399.0),
    codes.FEV1: Measure(physiology.fev1, "L", 2, cv=0.03, category="procedure"),
    codes.FVC: Measure(physiology.fvc, "L", 2, cv=0.03, category="procedure"),
    codes.EJECTION_FRACTION: Measure(
        physiology.ejection_fraction, "%", 0, sd=3.0, low=_both(50), high=_both(75), category="procedure"
    ),
}

# Limits of values that are computed from others.
EGFR_LOW = 60.0  # KDIGO 2012
CHOLESTEROL_HIGH = 199.0  # NCEP Adult Treatment Panel III
BMI_LOW, BMI_HIGH = 18.5, 24.9  # WHO 2000, TRS 894
FEV1_TO_FVC_LOW = 70.0  # GOLD, fixed ratio, %


def interpretation(value: float, low: float | None, high: float | None) -> str:
    """L, N or H against a reference range; the limits themselves are normal.

    >>> interpretation(5.0, 3.5, 5.0), interpretation(5.1, 3.5, 5.0), interpretation(9.0, 10.0, None)
    ('N', 'H', 'L')
    """
    if low is not None and value < low:
        return "L"
    return "H" if high is not None and value > high else "N"
