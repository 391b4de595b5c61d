"""The truth of the hospital: its laws with their sources, what they imply, and the true state of every subject."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medtwin.hospital import anatomy, physiology
from medtwin.hospital.hazards import NEVER
from medtwin.hospital.laws import LAWS, Laws, laws_as_dict
from medtwin.hospital.life import Life
from medtwin.hospital.simulate import SubjectRecord, draw_life

Band = tuple[float, float]
NUM_LIVES = 6_000
_SEED = 20150101
COURSES = (
    "hypertension",
    "diabetes",
    "ckd",
    "heart_failure",
    "copd",
    "breast_cancer",
    "osteoarthritis",
)
AGE_BANDS: tuple[Band, ...] = ((18, 40), (40, 60), (60, 86))
DEATH_BANDS: tuple[Band, ...] = ((18, 50), (50, 65), (65, 75), (75, 85), (85, 96))
SEXES = ("M", "F")

# In words what the parameters mean; `m` is the product of the hazard ratios in force.
FORMS = {
    "onset": (
        "P(affected at age a) = 1 - exp(-integral of m(t) dH0(t)), "
        "H0(t) = -log(1 - plateau / (1 + exp(-slope (t - midpoint) / 10)))"
    ),
    "gompertz": "hazard at age t = m(t) rate_at_60 exp(growth (t - 60))",
    "bmi": "ratio_per_5_bmi ** ((bmi - 28.6) / 5), bmi at the start of the record",
    "kidney": (
        "eGFR at age a = egfr_at_40 + egfr_sd z - loss_per_year (a - 40)+ - loss_hypertension (a - onset)+ "
        "- loss_diabetes exp(loss_diabetes_log_sd z') (a - onset)+"
    ),
    "egfr": "CKD-EPI 2021 from creatinine and whole years, rounded (Inker et al. 2021, N Engl J Med 385:1737)",
    "glucose": "mean glucose = eag_slope HbA1c + eag_intercept, mg/dL (Nathan et al. 2008)",
    "cholesterol": "total = LDL + HDL + triglycerides / 5, mg/dL (Friedewald et al. 1972, Clin Chem 18:499)",
}


def truth(laws: Laws = LAWS, num_lives: int = NUM_LIVES) -> dict[str, Any]:
    """Everything that is true of the hospital, fit for truth.json.

    Args:
        laws: The laws.
        num_lives: Lives drawn, without records, for the expected values; about 4,000 a second.

    Returns:
        `laws` (value and source of every parameter), `imaging_laws`, `forms` (what they mean), and `expected`:
        prevalence at the start of the record, deaths and pneumonias per 1,000 person-years and mean HbA1c, each with
        its Monte Carlo standard error.
    """
    lives = [draw_life(_SEED, index, laws) for index in range(num_lives)]
    return {
        "laws": laws_as_dict(laws),
        "imaging_laws": anatomy.laws_as_dict(),
        "forms": FORMS,
        "expected": {
            "num_lives": num_lives,
            "prevalence_at_start": _prevalence(lives),
            "deaths_per_1000_years": _death_rates(lives),
            "hba1c_at_start": _mean_a1c(lives),
            "pneumonias_per_1000_years": _pneumonia_rates(lives),
        },
    }


def subject_truth(record: SubjectRecord) -> dict[str, Any]:
    """The true state of one subject, flat: onset ages in years (None: never inside the life), traits and death."""
    life = record.life
    person = life.person
    onsets = {f"{name}_onset_age": _age_or_none(life, getattr(life, name)) for name in (*COURSES, "anemia")}
    return {
        "index": person.index,
        "subject_id": person.subject_id,
        "sex": person.sex,
        "age_at_start": person.age,
        "bmi": person.bmi,
        "smoking": person.smoking,
        "frailty": person.traits.frailty,
        **onsets,
        "heart_failure_severity": life.severity_of_heart_failure(life.last_age),
        "egfr_at_end": physiology.egfr(life, life.last_age),
        "hba1c_at_end": physiology.a1c(life, life.last_age),
        "num_pneumonias": sum(one.kind == "pneumonia" and life.in_record(one.start) for one in life.acutes),
        "num_births": sum(life.in_record(one.birth) for one in life.pregnancies),
        "num_images": len(record.image_orders),
        "death_age": _age_or_none(life, life.death),
    }


def _age_or_none(life: Life, age: float) -> float | None:
    return age if age < NEVER and age <= life.last_age else None


def _estimate(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard error."""
    array = np.asarray(values, dtype=float)
    return {"mean": float(array.mean()), "standard_error": float(array.std() / math.sqrt(len(array)))}


def _label(sex: str, band: Band) -> str:
    return f"{sex} {band[0]:g}-{band[1] - 1:g}"


def _prevalence(lives: Sequence[Life]) -> dict[str, dict[str, dict[str, float]]]:
    """Share affected at the start of the record by course, then by sex and age."""

    def affected(name: str, sex: str, band: Band) -> list[float]:
        group = [one for one in lives if one.person.sex == sex and band[0] <= one.age_at_start < band[1]]
        return [float(getattr(one, name) <= one.age_at_start) for one in group]

    return {
        name: {_label(sex, band): _estimate(affected(name, sex, band)) for sex in SEXES for band in AGE_BANDS}
        for name in COURSES
    }


def _rates(
    lives: Sequence[Life], bands: Sequence[Band], events_of: Callable[[Life], list[float]]
) -> dict[str, dict[str, float]]:
    """Events per 1,000 person-years inside the record, by sex and age at the event."""
    rates = {}
    for sex in SEXES:
        group = [one for one in lives if one.person.sex == sex]
        for low, high in bands:
            years = sum(max(min(high, one.last_age) - max(low, one.age_at_start), 0.0) for one in group)
            count = sum(low <= age < high for one in group for age in events_of(one))
            if years > 0.0:
                error = 1000.0 * math.sqrt(max(count, 1)) / years
                rates[_label(sex, (low, high))] = {"mean": 1000.0 * count / years, "standard_error": error}
    return rates


def _death_rates(lives: Sequence[Life]) -> dict[str, dict[str, float]]:
    return _rates(lives, DEATH_BANDS, lambda one: [one.death])


def _pneumonia_rates(lives: Sequence[Life]) -> dict[str, dict[str, float]]:
    def episodes(life: Life) -> list[float]:
        return [one.start for one in life.acutes if one.kind == "pneumonia" and life.in_record(one.start)]

    return _rates(lives, DEATH_BANDS, episodes)


def _mean_a1c(lives: Sequence[Life]) -> dict[str, Any]:
    """Mean true HbA1c, %, at the start of the record, with and without diabetes then, and the difference."""
    values: dict[bool, list[float]] = {True: [], False: []}
    for life in lives:
        age = life.age_at_start
        values[life.diabetes <= age].append(physiology.a1c(life, age))
    with_diabetes, without = _estimate(values[True]), _estimate(values[False])
    error = math.hypot(with_diabetes["standard_error"], without["standard_error"])
    difference = {"mean": with_diabetes["mean"] - without["mean"], "standard_error": error}
    return {"diabetes": with_diabetes, "no_diabetes": without, "difference": difference}
