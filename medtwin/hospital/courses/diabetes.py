"""Type 2 diabetes: body mass, sex, age and gestational diabetes raise its hazard; metformin and insulin lower HbA1c."""

from __future__ import annotations

import math

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER, event_age, risk_steps
from medtwin.hospital.life import Life
from medtwin.hospital.visits import Visit, diagnosis, regular

FIRST_AGE = 18.0


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the age of onset and the drugs; the worse the diabetes, the likelier metformin."""
    laws, person = life.laws.diabetes, life.person
    ratio = laws.ratio_per_5_bmi ** ((person.bmi - 28.6) / 5.0) * (laws.ratio_male if person.is_male else 1.0)
    affected = [one.birth for one in life.pregnancies if one.gestational_diabetes]
    switches = [(min(affected), laws.ratio_after_gestational)] if affected else []
    life.diabetes = event_age(laws.rise, float(rng.exponential()), risk_steps(FIRST_AGE, ratio, switches))
    draw, wait = float(rng.random()), float(rng.exponential(1.0 / laws.glargine_rate))
    if life.diabetes == NEVER:
        return
    log_odds = laws.metformin_uptake_log_odds + laws.metformin_uptake_slope * person.traits.diabetes_severity
    if draw < 1.0 / (1.0 + math.exp(-log_odds)):
        life.drugs[codes.METFORMIN] = life.diabetes
    life.drugs[codes.GLARGINE] = life.diabetes + wait


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The diagnosis, and a visit every six months."""
    found = diagnosis(life, life.diabetes, rng, _find)
    return found + regular(life, life.diabetes, 182.0, rng, _follow)


def _find(chart: Chart) -> None:
    chart.blood_pressure()
    chart.body_size(with_height=False)
    chart.observe([codes.A1C, codes.GLUCOSE])
    chart.kidney_panel()
    chart.lipid_panel()
    chart.diagnose(codes.DIABETES)
    chart.list_problem(codes.DIABETES, chart.age)
    chart.start_drugs(codes.DIABETES)


def _follow(chart: Chart) -> None:
    chart.diagnose(codes.DIABETES)
    chart.blood_pressure()
    chart.observe([codes.A1C, codes.GLUCOSE])
