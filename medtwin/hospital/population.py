"""Who lives around the hospital: birth, sex, size, smoking, and latent traits that later laws act upon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Literal, TypeVar

import numpy as np

from medtwin.hospital.laws import PopulationLaws

Sex = Literal["M", "F"]
_T = TypeVar("_T")
Smoking = Literal["never", "former", "current"]
DAYS_PER_YEAR = 365.25
FIRST_SUBJECT_ID = 100_000


@dataclass(frozen=True, slots=True)
class Traits:
    """How a person differs from others of the same kind, each a draw from N(0, 1), fixed for life."""

    frailty: float
    glycaemia: float
    diabetes_severity: float
    pressure: float
    filtration: float
    kidney_vulnerability: float
    hemoglobin: float
    ldl: float
    hdl: float
    triglycerides: float
    heart_rate: float
    lung_volume: float
    lung_obstruction: float
    natriuretic: float


@dataclass(frozen=True, slots=True)
class Person:
    """A person at the start of the record.

    Attributes:
        age: Age in years at the start of the record.
        bmi: Body mass index then, kg/m2.
        quit_age: Age at which a former smoker quit; all smokers began at 18.
    """

    index: int
    subject_id: int
    sex: Sex
    birth: datetime
    age: float
    height_cm: float
    bmi: float
    smoking: Smoking
    quit_age: float
    race: str
    hispanic: bool
    marital: str
    traits: Traits

    @property
    def is_male(self) -> bool:
        """Whether the sex is M."""
        return self.sex == "M"

    def of_sex(self, pair: Sequence[float]) -> float:
        """The member of a pair (men, women) that holds for this person."""
        return pair[0] if self.is_male else pair[1]


def draw_person(rng: np.random.Generator, index: int, laws: PopulationLaws, window_start: datetime) -> Person:
    """A person drawn from the population laws; every person takes the same number of draws."""
    uniform = rng.random(9)
    traits = Traits(*map(float, rng.standard_normal(len(fields(Traits)))))
    size = rng.standard_normal(2)
    age = _draw_age(float(uniform[0]), float(uniform[1]), laws)
    male = bool(uniform[2] >= laws.female)
    which = 0 if male else 1
    birth = (window_start - timedelta(days=age * DAYS_PER_YEAR)).replace(hour=0, minute=0, second=0, microsecond=0)
    smoking = _draw_smoking(float(uniform[3]), laws.current_smoker[which], laws.former_smoker[which])
    return Person(
        index=index,
        subject_id=FIRST_SUBJECT_ID + index,
        sex="M" if male else "F",
        birth=birth,
        age=(window_start - birth) / timedelta(days=DAYS_PER_YEAR),
        height_cm=laws.height_cm[which] + laws.height_sd_cm * float(size[0]),
        bmi=min(max(laws.bmi_median * math.exp(laws.bmi_log_sd * float(size[1])), 16.0), 60.0),
        smoking=smoking,
        quit_age=18.0 + (age - 18.0) * (0.2 + 0.8 * float(uniform[4])),
        race=_pick(float(uniform[5]), laws.races),
        hispanic=bool(uniform[6] < laws.hispanic),
        marital=_draw_marital(float(uniform[7]), age),
        traits=traits,
    )


def _draw_age(band_draw: float, within: float, laws: PopulationLaws) -> float:
    low, high = _pick(band_draw, [((low, high), share) for low, high, share in laws.age_bands])
    return low + (high - low) * within


def _draw_smoking(draw: float, current: float, former: float) -> Smoking:
    if draw < current:
        return "current"
    return "former" if draw < current + former else "never"


def _pick(draw: float, shares: Sequence[tuple[_T, float]]) -> _T:
    """The item at which the cumulative share passes a uniform draw."""
    for item, share in shares:
        if draw < share:
            return item
        draw -= share
    return shares[-1][0]


def _draw_marital(draw: float, age: float) -> str:
    """Marital status: single (S) less often with age, widowed (W) in old age, else married (M) or divorced (D)."""
    single = max(0.08, 0.95 - 0.03 * (age - 18.0))
    widowed = max(0.0, 0.012 * (age - 60.0))
    return _pick(draw, [("S", single), ("W", widowed), ("D", 0.12), ("M", 1.0)])
