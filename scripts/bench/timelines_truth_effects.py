"""Effects that the hospital's laws have on records: disease on disease, drugs on numbers, and all of it on death.

Each is estimated from records alone, by the same code in twins and in a large draw of the hospital; that draw's value
is the truth of the estimator. Where a law of `medtwin.hospital.laws` is the same quantity but for what records hide
(later onsets, attenuation by measuring, other causes of death), it stands beside, never in a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from timelines_truth_cohorts import CKD, SMOKING, Cohort, Floats, Ints
from timelines_truth_measures import Interval

from medtwin.check.cox import fit_cox
from medtwin.core.seeds import generator
from medtwin.hospital import codes
from medtwin.hospital.laws import LAWS

Estimator = Callable[[Ints], Floats]
MIN_ROWS = 20
"""Subjects, and outcomes of either kind, below which an effect is not estimated."""
_RIDGE = 0.01  # on log-odds per unit of a covariate: keeps a resample without an outcome in a cell finite
_NEWTON_STEPS = 25
_Z = 1.959964


@dataclass(frozen=True)
class Question:
    """Some effects that one fit gives.

    Attributes:
        family: comorbidity, treatment, mortality or level.
        names: What each effect is, with its unit.
        laws: The law's own number of each; None where it has none.
        size: Subjects that take part; 0: it cannot be answered.
        estimate: Effects, (effects,), of some of these subjects, by number, with repetitions.
    """

    family: str
    names: tuple[str, ...]
    laws: tuple[float | None, ...]
    size: int
    estimate: Estimator


@dataclass(frozen=True)
class Effect:
    """An effect with its interval: the estimate and 1.96 standard errors from resampled subjects."""

    family: str
    name: str
    law: float | None
    size: int
    interval: Interval


def effects(cohort: Cohort, *, seed: int, num_resamples: int) -> list[Effect]:
    """All effects in the records of a cohort; NaN where they cannot be estimated."""
    found = []
    for question in questions(cohort):
        draws = _draws(question, seed, num_resamples)
        for number, (name, law) in enumerate(zip(question.names, question.laws, strict=True)):
            interval = _normal(draws[:, number])
            found.append(Effect(question.family, name, law, question.size, interval))
    return found


def _draws(question: Question, seed: int, num_resamples: int) -> Floats:
    if question.size < MIN_ROWS:
        return np.full((1, len(question.names)), np.nan)
    rng = generator(seed, "effects", *question.names)
    everybody = np.arange(question.size)
    samples = [everybody, *(rng.integers(question.size, size=question.size) for _ in range(num_resamples))]
    return np.stack([question.estimate(sample) for sample in samples])


def _normal(draws: Floats) -> Interval:
    rest = draws[1:][np.isfinite(draws[1:])]
    value = float(draws[0])
    if not math.isfinite(value) or len(rest) < max(2, len(draws) // 2):
        return Interval(value if math.isfinite(value) else float("nan"), float("nan"), float("nan"))
    half = _Z * float(rest.std(ddof=1))
    return Interval(value, value - half, value + half)


def questions(cohort: Cohort) -> list[Question]:
    """What is asked of every cohort."""
    return [*_comorbidities(cohort), *_treatments(cohort), *_levels(cohort), _mortality(cohort)]


def _logistic(x: Floats, y: Floats) -> Floats:
    """Log-odds per unit of each column but the first, which is the constant; NaN without outcomes of both kinds.

    >>> x = np.column_stack([np.ones(40), np.repeat([0.0, 1.0], 20)])
    >>> y = np.r_[np.repeat([0.0, 1.0], [15, 5]), np.repeat([0.0, 1.0], [5, 15])]
    >>> _logistic(x, y).round(1)  # log(3 * 3) = 2.2
    array([2.2])
    """
    if min(y.sum(), (1 - y).sum()) < MIN_ROWS // 4:
        return np.full(x.shape[1] - 1, np.nan)
    beta = np.zeros(x.shape[1])
    penalty = np.diag(np.r_[0.0, np.full(x.shape[1] - 1, _RIDGE)])
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (y - p) - penalty @ beta
        information = (x * (p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(information + 1e-9 * np.eye(len(beta)), gradient)
        beta += step * min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-7:
            break
    return np.asarray(beta[1:])


def _linear(x: Floats, y: Floats) -> Floats:
    """Least squares slope of each column but the first, which is the constant."""
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0][1:])


@dataclass(frozen=True)
class _Person:
    """Covariates of every subject, (subjects,) each; NaN where unknown."""

    age: Floats
    male: Floats
    bmi: Floats
    current: Floats
    former: Floats

    def adjusted(self) -> list[Floats]:
        """Age in decades from 50, its square, and sex."""
        decades = (self.age - 50.0) / 10.0
        return [decades, decades**2, self.male]


def _person(cohort: Cohort) -> _Person:
    known = cohort.smoking >= 0
    smokes = [np.where(known, cohort.smoking == SMOKING.index(status), np.nan) for status in SMOKING]
    bmi = (cohort.first_value(codes.BMI) - 28.6) / 5.0
    return _Person(cohort.age, cohort.male.astype(np.float64), bmi, smokes[2], smokes[1])


def _fitted(
    family: str, asked: dict[str, float | None], columns: Sequence[Floats], y: Floats, fit: Callable[..., Floats]
) -> Question:
    """A regression of y on columns, of which the first ones are asked for; subjects with an unknown are left out."""
    table = np.column_stack([np.ones(len(y)), *columns])
    known = np.isfinite(table).all(axis=1) & np.isfinite(y)
    x, outcome = table[known], y[known]

    def estimate(rows: Ints) -> Floats:
        return fit(x[rows], outcome[rows])[: len(asked)]

    return Question(family, tuple(asked), tuple(asked.values()), len(outcome), estimate)


def _pair(log_of: tuple[float, float]) -> float:
    """Mean logarithm of a hazard ratio of men and of women."""
    return float(np.mean(np.log(log_of)))


def _comorbidities(cohort: Cohort) -> list[Question]:
    """Log-odds of a disease at any time by another at any time, age, sex, body mass or smoking."""
    person, laws = _person(cohort), LAWS
    ever = {
        name: np.isfinite(cohort.onset(*wanted)).astype(np.float64)
        for name, wanted in {
            "hypertension": (codes.HYPERTENSION,),
            "diabetes": (codes.DIABETES,),
            "ckd": CKD,
            "heart failure": (codes.HEART_FAILURE,),
            "copd": (codes.COPD,),
            "pneumonia": (codes.PNEUMONIA,),
        }.items()
    }
    heart, lungs = laws.heart_failure, laws.pneumonia

    def asked(outcome: str, **causes: float | None) -> dict[str, float | None]:
        return {f"{cause.replace('_', ' ')} on {outcome}": law for cause, law in causes.items()}

    def odds(outcome: str, causes: dict[str, float | None], columns: Sequence[Floats]) -> Question:
        adjusted = person.adjusted()
        return _fitted("comorbidity, log odds", causes, [*columns, *adjusted], ever[outcome], _logistic)

    return [
        odds(
            "heart failure",
            asked(
                "heart failure",
                hypertension=_pair(heart.ratio_hypertension),
                diabetes=_pair(heart.ratio_diabetes),
                ckd=math.log(heart.ratio_ckd),
            ),
            [ever["hypertension"], ever["diabetes"], ever["ckd"]],
        ),
        odds("ckd", asked("ckd", hypertension=None, diabetes=None), [ever["hypertension"], ever["diabetes"]]),
        odds(
            "pneumonia",
            asked(
                "pneumonia",
                copd=math.log(lungs.ratio_copd),
                heart_failure=math.log(lungs.ratio_heart_failure),
                diabetes=math.log(lungs.ratio_diabetes),
                current_smoking=math.log(lungs.ratio_current_smoker),
            ),
            [ever["copd"], ever["heart failure"], ever["diabetes"], person.current],
        ),
        odds(
            "copd",
            asked(
                "copd", current_smoking=math.log(laws.copd.ratio_current), past_smoking=math.log(laws.copd.ratio_former)
            ),
            [person.current, person.former],
        ),
        odds("hypertension", asked("hypertension", bmi_by_5=math.log(laws.hypertension.ratio_per_5_bmi)), [person.bmi]),
        odds("diabetes", asked("diabetes", bmi_by_5=math.log(laws.diabetes.ratio_per_5_bmi)), [person.bmi]),
    ]


def _around(cohort: Cohort, code: str, at: Floats, window: tuple[float, float]) -> Floats:
    """Mean of a code's numbers from so many years to so many years about a moment, (subjects,); NaN without one."""
    who, years, value = cohort.numbers_of(code)
    with np.errstate(invalid="ignore"):
        since = years - at[who]
    inside = (since >= window[0]) & (since <= window[1])
    count = np.bincount(who[inside], minlength=cohort.size)
    total = np.bincount(who[inside], weights=value[inside], minlength=cohort.size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _treatments(cohort: Cohort) -> list[Question]:
    """Changes of a number within people about the start of a drug; of metformin beside those who did not get it."""
    laws = LAWS
    diagnosed = cohort.onset(codes.DIABETES)
    is_new = (diagnosed > 0.1) & np.isfinite(diagnosed)
    change = _around(cohort, codes.A1C, diagnosed, (0.35, 1.5)) - _around(cohort, codes.A1C, diagnosed, (-0.01, 0.02))
    started = cohort.onset(codes.METFORMIN)
    treated = (np.abs(started - np.where(is_new, diagnosed, np.nan)) < 0.1).astype(np.float64)
    change = np.where(is_new, change, np.nan)
    found = [
        _fitted(
            "treatment",
            {"metformin on HbA1c, change since diagnosis against untreated, %": laws.diabetes.metformin_effect},
            [treated],
            change,
            _linear,
        )
    ]
    within = {
        "glargine on HbA1c, change within people, %": (codes.GLARGINE, codes.A1C, laws.diabetes.glargine_effect),
        "amlodipine on systolic pressure, change, mm[Hg]": (
            codes.AMLODIPINE,
            codes.SYSTOLIC,
            laws.drugs.pressure_systolic,
        ),
        "atorvastatin on log LDL, change": (codes.ATORVASTATIN, codes.LDL, math.log1p(laws.drugs.atorvastatin_ldl)),
    }
    for name, (drug, code, law) in within.items():
        start = cohort.onset(drug)
        start = np.where((start > 0.5) & np.isfinite(start), start, np.nan)
        before = _around(cohort, code, start, (-1.5, 0.0))
        after = _around(cohort, code, start, (0.25, 1.75))
        difference = np.log(after / before) if code == codes.LDL else after - before
        found.append(_mean("treatment", name, law, difference))
    return found


def _mean(family: str, name: str, law: float | None, values: Floats) -> Question:
    known = values[np.isfinite(values)]
    return Question(family, (name,), (law,), len(known), lambda rows: np.array([known[rows].mean()]))


def _levels(cohort: Cohort) -> list[Question]:
    """What the first number of a code owes to disease, age and sex."""
    person = _person(cohort)
    had = [cohort.had(code).astype(np.float64) for code in (codes.DIABETES, codes.HYPERTENSION)]
    past_40 = np.maximum(person.age - 40.0, 0.0) / 10.0
    kidney = LAWS.kidney

    def level(code: str, asked: dict[str, float | None], columns: Sequence[Floats]) -> Question:
        value = cohort.first_value(code)
        return _fitted("level", asked, columns, np.log(value) if code == codes.NT_PROBNP else value, _linear)

    return [
        level(codes.A1C, {"diabetes on first HbA1c, %": None}, [had[0], *person.adjusted(), person.bmi]),
        level(codes.SYSTOLIC, {"hypertension on first systolic, mm[Hg]": None}, [had[1], *person.adjusted()]),
        level(
            codes.EGFR,
            {
                "decade past 40 on first eGFR, mL/min": -10 * kidney.loss_per_year,
                "diabetes on first eGFR, mL/min": None,
            },
            [past_40, *had, person.male],
        ),
        level(codes.HEMOGLOBIN, {"male sex on first hemoglobin, g/dL": 14.9 - 13.5}, [person.male, person.age / 10]),
        level(codes.NT_PROBNP, {"decade on log of first NT-proBNP": None}, [person.age / 10, person.male]),
    ]


def _mortality(cohort: Cohort) -> Question:
    """Log hazard ratios of death from the start on, by what was so at the start (Cox regression)."""
    person, laws = _person(cohort), LAWS.mortality
    asked: dict[str, float | None] = {
        "decade of age on death": 10 * float(np.mean([one.growth for one in laws.baseline])),
        "male sex on death": math.log(laws.baseline[0].rate_at_60 / laws.baseline[1].rate_at_60),
        "diabetes on death": math.log(laws.ratio_diabetes),
        "heart failure on death": math.log(laws.ratio_heart_failure),
        "copd on death": math.log(laws.ratio_copd),
        "ckd on death": math.log(laws.ratio_ckd),
        "current smoking on death": math.log(laws.ratio_current_smoker),
        "past smoking on death": math.log(laws.ratio_former_smoker),
    }
    had = [
        cohort.had(*one).astype(np.float64) for one in ((codes.DIABETES,), (codes.HEART_FAILURE,), (codes.COPD,), CKD)
    ]
    table = np.column_stack([(person.age - 50) / 10, person.male, *had, person.current, person.former])
    known = np.isfinite(table).all(axis=1) & (cohort.years > 0)
    x, years, died = table[known], cohort.years[known], cohort.died[known]

    def estimate(rows: Ints) -> Floats:
        if died[rows].sum() < MIN_ROWS:
            return np.full(len(asked), np.nan)
        return fit_cox(years[rows], died[rows], x[rows]).beta

    return Question("mortality, log hazard", tuple(asked), tuple(asked.values()), int(known.sum()), estimate)


@dataclass(frozen=True)
class Held:
    """An effect in twins beside the truth.

    Attributes:
        twins: Of the twins. truth: Of the large draw.
        holds: Whether the twins' interval contains the truth; None where it could not be estimated.
        z: Difference over the standard errors of the twins, of the truth and, where given, of the training subjects.
        is_told: Whether the twins' interval tells the effect from none.
    """

    twins: Effect
    truth: Effect
    holds: bool | None
    z: float
    is_told: bool


def held(twins: Sequence[Effect], truth: Sequence[Effect], train: Sequence[Effect] | None = None) -> list[Held]:
    """Every effect of the twins against the truth."""
    rows = []
    for number, (mine, true) in enumerate(zip(twins, truth, strict=True)):
        inside = mine.interval
        if not math.isfinite(inside.low) or not math.isfinite(true.interval.value):
            rows.append(Held(mine, true, None, float("nan"), False))
            continue
        errors = [inside.error, true.interval.error]
        if train is not None and math.isfinite(train[number].interval.error):
            errors.append(train[number].interval.error)
        z = (inside.value - true.interval.value) / float(np.sqrt(np.square(errors).sum()))
        holds = inside.low <= true.interval.value <= inside.high
        rows.append(Held(mine, true, holds, float(z), not inside.low <= 0.0 <= inside.high))
    return rows
