"""COPD: smoking raises its hazard; flow falls, and exacerbations come."""

from __future__ import annotations

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER, event_age, risk_steps
from medtwin.hospital.life import Acute, Life
from medtwin.hospital.population import DAYS_PER_YEAR
from medtwin.hospital.visits import Visit, bound, clinic, diagnosis, emergency_admission, poisson_ages, regular

FIRST_AGE = 35.0  # choice


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the age of onset, the inhalers and the exacerbations."""
    laws = life.laws.copd
    ratio = {"never": 1.0, "former": laws.ratio_former, "current": laws.ratio_current}[life.person.smoking]
    life.copd = event_age(laws.rise, float(rng.exponential()), risk_steps(FIRST_AGE, ratio))
    if life.copd == NEVER:
        return
    life.drugs[codes.ALBUTEROL] = life.copd
    life.drugs[codes.FLUTICASONE_SALMETEROL] = life.copd + float(rng.exponential(3.0))  # choice
    for age in poisson_ages(laws.exacerbation_rate, max(life.copd, life.age_at_start), life.age_at_end, rng):
        admitted = bool(rng.random() < laws.exacerbation_admitted)
        life.acutes.append(Acute("exacerbation", age, age + 12.0 / DAYS_PER_YEAR, admitted))


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The diagnosis, spirometry every year, and every exacerbation, in the clinic or in hospital."""
    has_ct = bool(rng.random() < life.laws.images.ct_share_copd)
    planned = diagnosis(life, life.copd, rng, bound(_find, has_ct=has_ct))
    planned += regular(life, life.copd, 365.0, rng, _follow)
    for acute in life.acutes:
        if acute.kind != "exacerbation" or not life.in_record(acute.start):
            continue
        if acute.admitted:
            days = float(rng.gamma(4.0, 1.0)) + 1.0  # choice
            planned += emergency_admission(life, acute.start, days, _exacerbate, _stay)
        else:
            planned.append(clinic(life, acute.start, rng, _exacerbate_mildly, codes.PROBLEM_VISIT))
    return planned


def _find(chart: Chart, has_ct: bool) -> None:
    chart.vital_signs()
    chart.smoking_status()
    chart.spirometry()
    chart.diagnose(codes.COPD)
    chart.list_problem(codes.COPD, chart.age)
    chart.start_drugs(codes.COPD)
    chart.image("CR", "PA", codes.COPD)
    if has_ct:
        chart.image("CT", None, codes.COPD, minutes=30)


def _follow(chart: Chart) -> None:
    chart.diagnose(codes.COPD)
    chart.smoking_status()
    chart.observe([codes.OXYGEN_SATURATION])
    chart.spirometry()


def _exacerbate_mildly(chart: Chart) -> None:
    chart.vital_signs()
    chart.diagnose(codes.COPD_EXACERBATION, resolved_after_days=14)
    chart.prescribe(codes.PREDNISONE, codes.COPD, days=5)


def _exacerbate(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.LEUKOCYTES, codes.CRP])
    chart.image("CR", "AP", codes.COPD_EXACERBATION)
    chart.diagnose(codes.COPD_EXACERBATION, resolved_after_days=21)


def _stay(chart: Chart) -> None:
    chart.diagnose(codes.COPD_EXACERBATION, resolved_after_days=21)
    chart.prescribe(codes.PREDNISONE, codes.COPD, days=5)
    for minutes in chart.rounds():
        chart.vital_signs(minutes)
