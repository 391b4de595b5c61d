"""Community-acquired pneumonia: age, COPD, heart failure, diabetes and smoking raise its hazard; some die of it.

Chest infections that only look like it are imaged too, so that a radiograph does not give the diagnosis away.
"""

from __future__ import annotations

import math

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER, event_age, risk_steps
from medtwin.hospital.life import Acute, Life
from medtwin.hospital.population import DAYS_PER_YEAR
from medtwin.hospital.visits import Visit, bound, clinic, emergency_admission, poisson_ages

REPEAT_AFTER_YEARS = 0.25  # choice: no second pneumonia within three months
ILLNESS_DAYS = 24.0  # choice


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the episodes inside the record, up to the first fatal one."""
    age = life.age_at_start
    while True:
        age = event_age(life.laws.pneumonia.onset, float(rng.exponential()), pneumonia_steps(life, age))
        if age >= life.age_at_end:
            return
        episode = _episode(life, age, rng)
        life.acutes.append(episode)
        if episode.fatal:
            return
        age += REPEAT_AFTER_YEARS


def pneumonia_steps(life: Life, first_age: float) -> list[tuple[float, float]]:
    """The hazard ratio of pneumonia from an age on."""
    laws = life.laws.pneumonia
    ratio = laws.ratio_current_smoker if life.person.smoking == "current" else 1.0
    switches = [
        (life.copd, laws.ratio_copd),
        (life.heart_failure, laws.ratio_heart_failure),
        (life.diabetes, laws.ratio_diabetes),
    ]
    return risk_steps(first_age, ratio, switches)


def _episode(life: Life, age: float, rng: np.random.Generator) -> Acute:
    laws = life.laws.pneumonia
    num_diseases = (age >= life.copd) + (age >= life.heart_failure)
    log_odds = laws.admitted_log_odds_at_60 + laws.admitted_per_year * (age - 60.0)
    draws = rng.random(2)
    admitted = bool(draws[0] < _logistic(log_odds + laws.admitted_disease * num_diseases))
    deadly = _logistic(laws.death_log_odds_at_70 + laws.death_per_year * (age - 70.0))
    fatal = admitted and bool(draws[1] < deadly)
    days = float(rng.uniform(3.0, 14.0)) if fatal else ILLNESS_DAYS
    return Acute("pneumonia", age, age + days / DAYS_PER_YEAR, admitted, fatal)


def _logistic(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))


def fatal_age(life: Life) -> float:
    """The age at death of pneumonia; infinite without one."""
    return min((acute.end for acute in life.acutes if acute.fatal), default=NEVER)


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """Every episode, in the clinic or in hospital, a radiograph after some, and the look-alikes."""
    laws, planned = life.laws.pneumonia, []
    for acute in life.acutes:
        if acute.kind != "pneumonia" or not life.in_record(acute.start):
            continue
        if acute.admitted:
            days = float(rng.gamma(4.0, 1.3)) + 1.0  # choice
            if acute.fatal:
                days = (acute.end - acute.start) * DAYS_PER_YEAR
            has_ct = bool(rng.random() < laws.ct_share)
            treated = bound(_stay, has_ct=has_ct)
            planned += emergency_admission(life, acute.start, days, _suspect_in_emergency, treated)
        else:
            planned.append(clinic(life, acute.start, rng, _find, codes.PROBLEM_VISIT))
        if rng.random() < laws.control_film:
            planned.append(clinic(life, acute.start + 42.0 / DAYS_PER_YEAR, rng, _control))
    for age in poisson_ages(laws.mimic_rate, life.age_at_start, life.last_age, rng):
        planned.append(clinic(life, age, rng, _rule_out, codes.PROBLEM_VISIT))
    return [visit for visit in planned if life.in_record(life.age_of(visit.time))]


def _find(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.LEUKOCYTES, codes.CRP])
    chart.image("CR", "PA", codes.PNEUMONIA)
    chart.diagnose(codes.PNEUMONIA, resolved_after_days=30)
    chart.prescribe(codes.AZITHROMYCIN if chart.life.penicillin_allergy else codes.AMOXICILLIN, days=7)


def _suspect_in_emergency(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.LEUKOCYTES, codes.CRP, codes.HEMOGLOBIN, codes.SODIUM])
    chart.kidney_panel()
    chart.image("CR", "AP", codes.PNEUMONIA)
    chart.diagnose(codes.PNEUMONIA, resolved_after_days=35)


def _stay(chart: Chart, has_ct: bool) -> None:
    chart.diagnose(codes.PNEUMONIA, resolved_after_days=35)
    chart.prescribe(codes.LEVOFLOXACIN, days=7)
    chart.prescribe(codes.ACETAMINOPHEN, days=5)
    if has_ct:
        chart.image("CT", None, codes.PNEUMONIA, minutes=600)
    for minutes in chart.rounds():
        chart.vital_signs(minutes)
        chart.observe([codes.LEUKOCYTES, codes.CRP], minutes)


def _control(chart: Chart) -> None:
    chart.observe([codes.TEMPERATURE, codes.OXYGEN_SATURATION])
    chart.observe([codes.CRP])
    chart.image("CR", "PA", codes.PNEUMONIA)


def _rule_out(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.LEUKOCYTES, codes.CRP])
    chart.image("CR", "PA", codes.ACUTE_BRONCHITIS)
    chart.diagnose(codes.ACUTE_BRONCHITIS, resolved_after_days=14)
    chart.refute(codes.PNEUMONIA)
    if chart.chance(0.3):  # choice
        chart.prescribe(codes.AZITHROMYCIN, days=3)
