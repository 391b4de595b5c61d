"""Death: a Gompertz hazard that disease and smoking multiply, and the deaths of pneumonia and of breast cancer."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.courses import breast_cancer, pneumonia
from medtwin.hospital.hazards import Gompertz, Switch, event_age, risk_steps
from medtwin.hospital.life import Life
from medtwin.hospital.visits import Visit, admission


def baseline_of(life: Life) -> Gompertz:
    """The baseline of a person's sex."""
    return life.laws.mortality.baseline[0 if life.person.is_male else 1]


def mortality_steps(life: Life) -> list[Switch]:
    """The hazard ratio of death from the start of the record on, without pneumonia and breast cancer."""
    laws, person = life.laws.mortality, life.person
    smoking = {"never": 1.0, "former": laws.ratio_former_smoker, "current": laws.ratio_current_smoker}
    frailty = math.exp(laws.frailty_log_sd * person.traits.frailty - laws.frailty_log_sd**2 / 2.0)
    switches = [
        (life.diabetes, laws.ratio_diabetes),
        (life.heart_failure, laws.ratio_heart_failure),
        (life.copd, laws.ratio_copd),
        (life.ckd, laws.ratio_ckd),
        (life.hypertension, laws.ratio_hypertension),
    ]
    return risk_steps(life.age_at_start, frailty * smoking[person.smoking], switches)


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the age at death, the first of three causes, if it falls inside the record."""
    natural = event_age(baseline_of(life), float(rng.exponential()), mortality_steps(life))
    first = min(natural, pneumonia.fatal_age(life), breast_cancer.excess_death_age(life, rng))
    if first < life.age_at_end:
        life.death = first


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The last stay, of those who die in hospital of something other than pneumonia."""
    draw, days = float(rng.random()), float(rng.uniform(0.5, 6.0))
    if life.death >= life.age_at_end or life.death == pneumonia.fatal_age(life):
        return []
    if draw >= life.laws.mortality.dies_in_hospital:
        return []
    start = max(life.time_of(life.death) - timedelta(days=days), life.laws.record.window_start)
    return [admission(start, days, _last_stay)]


def _last_stay(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.HEMOGLOBIN, codes.LEUKOCYTES, codes.CRP, codes.SODIUM])
    chart.kidney_panel()
