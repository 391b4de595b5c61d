"""Heart failure: hypertension, diabetes, kidney disease and male sex raise its hazard; it decompensates and kills."""

from __future__ import annotations

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER, Switch, event_age, risk_steps
from medtwin.hospital.life import Acute, Life
from medtwin.hospital.population import DAYS_PER_YEAR
from medtwin.hospital.visits import Visit, diagnosis, emergency_admission, poisson_ages, regular

FIRST_AGE = 18.0


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the age of onset, the severity then, the drugs and the decompensations."""
    laws, person = life.laws.heart_failure, life.person
    ratio = laws.ratio_male if person.is_male else 1.0
    steps = risk_steps(FIRST_AGE, ratio, risk_switches(life))
    life.heart_failure = event_age(laws.onset, float(rng.exponential()), steps)
    severity = 0.15 + 0.55 * float(rng.beta(2.0, 2.5))  # choice
    if life.heart_failure == NEVER:
        return
    life.heart_failure_severity = severity
    for drug in (codes.FUROSEMIDE, codes.CARVEDILOL, codes.LISINOPRIL):
        life.drugs[drug] = min(life.drugs.get(drug, NEVER), life.heart_failure)
    first, last = max(life.heart_failure, life.age_at_start), life.age_at_end
    rate = laws.decompensation_rate + laws.decompensation_rate_severity * severity
    for age in poisson_ages(rate, first, last, rng):
        life.acutes.append(Acute("decompensation", age, age + 14.0 / DAYS_PER_YEAR, admitted=True))


def risk_switches(life: Life) -> list[Switch]:
    """When hypertension, diabetes and kidney disease begin to raise the hazard, and by how much."""
    laws, person = life.laws.heart_failure, life.person
    return [
        (life.hypertension, person.of_sex(laws.ratio_hypertension)),
        (life.diabetes, person.of_sex(laws.ratio_diabetes)),
        (life.ckd, laws.ratio_ckd),
    ]


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The diagnosis, a visit every six months, and an admission for every decompensation."""
    planned = diagnosis(life, life.heart_failure, rng, _find)
    planned += regular(life, life.heart_failure, 182.0, rng, _follow)
    for acute in life.acutes:
        if acute.kind == "decompensation" and life.in_record(acute.start):
            days = float(rng.gamma(4.0, 1.3)) + 1.0  # choice: five days in the median
            planned += emergency_admission(life, acute.start, days, _decompensate, _stay)
    return planned


def _find(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.NT_PROBNP, codes.SODIUM])
    chart.kidney_panel()
    chart.procedure(codes.ECHOCARDIOGRAPHY, 15, 15)
    chart.observe([codes.EJECTION_FRACTION], 30)
    chart.diagnose(codes.HEART_FAILURE)
    chart.list_problem(codes.HEART_FAILURE, chart.age)
    chart.start_drugs(codes.HEART_FAILURE)
    chart.start_drugs(codes.HYPERTENSION)  # lisinopril
    chart.image("CR", "PA", codes.HEART_FAILURE)


def _follow(chart: Chart) -> None:
    chart.diagnose(codes.HEART_FAILURE)
    chart.vital_signs()
    chart.observe([codes.WEIGHT, codes.NT_PROBNP])
    chart.kidney_panel()


def _decompensate(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.NT_PROBNP, codes.SODIUM, codes.HEMOGLOBIN])
    chart.kidney_panel()
    chart.image("CR", "AP", codes.HEART_FAILURE)
    chart.diagnose(codes.HEART_FAILURE)


def _stay(chart: Chart) -> None:
    chart.diagnose(codes.HEART_FAILURE)
    chart.prescribe(codes.FUROSEMIDE, codes.HEART_FAILURE, days=30)
    for minutes in chart.rounds():
        chart.vital_signs(minutes)
        chart.kidney_panel(minutes)
