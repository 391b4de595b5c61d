"""Care that everyone has: the first visit, yearly check-ups, vaccines, new long-term drugs, and chest pain."""

from __future__ import annotations

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.drugs import REASONS
from medtwin.hospital.hazards import NEVER
from medtwin.hospital.life import Life
from medtwin.hospital.visits import Visit, bound, clinic, emergency, poisson_ages

INTAKE_WITHIN_YEARS = 0.25  # choice
STATIN_AGE = 40.0  # ACC/AHA 2018 guideline: diabetes at 40 to 75
HIGH_LDL = 160.0  # NCEP Adult Treatment Panel III
COVID_YEAR = 2021
PNEUMOCOCCAL_AGE = 65.0  # CDC ACIP 2014
TETANUS_EVERY_YEARS = 10

CHRONIC = (
    ("hypertension", codes.HYPERTENSION),
    ("diabetes", codes.DIABETES),
    ("ckd", codes.CKD_3),
    ("anemia", codes.ANEMIA),
    ("heart_failure", codes.HEART_FAILURE),
    ("copd", codes.COPD),
    ("breast_cancer", codes.BREAST_CANCER),
    ("osteoarthritis", codes.KNEE_OSTEOARTHRITIS),
    ("hyperlipidemia", codes.HYPERLIPIDEMIA),
)
"""Field of `Life` and the code of the problem list."""


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets hyperlipidemia and the statin."""
    laws = life.laws.drugs
    draws = rng.random(2)
    life.penicillin_allergy = bool(rng.random() < life.laws.record.penicillin_allergy)
    if 122.0 + 30.0 * life.person.traits.ldl >= HIGH_LDL:
        life.hyperlipidemia = 35.0 + 20.0 * float(draws[0])  # choice: found at 35 to 55
    due = min(max(life.diabetes, STATIN_AGE), life.hyperlipidemia)
    if due < NEVER and draws[1] < laws.atorvastatin_uptake:
        life.drugs[codes.ATORVASTATIN] = due


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The first visit, the check-ups that are kept, and visits for chest pain."""
    first = life.age_at_start + float(rng.uniform(0.01, INTAKE_WITHIN_YEARS))
    first = min(first, (life.age_at_start + life.last_age) / 2.0)
    planned = [clinic(life, first, rng, _intake, codes.CHECK_UP)]
    age = first + float(rng.uniform(0.9, 1.1))
    while age < life.last_age:
        if rng.random() < _attendance(life, age):
            planned.append(clinic(life, age, rng, bound(_check_up, full=bool(rng.random() < 0.6)), codes.CHECK_UP))
        age += float(rng.uniform(0.9, 1.1))
    for age in poisson_ages(life.laws.images.chest_pain_rate, life.age_at_start, life.last_age, rng):
        planned.append(emergency(life, age, _chest_pain, hours=4.0))
    found = {code: getattr(life, field) for field, code in CHRONIC if code != codes.HYPERLIPIDEMIA}
    for drug, start in life.drugs.items():
        is_with_diagnosis = start in (found.get(REASONS[drug]), life.heart_failure)  # that visit prescribes it
        if life.in_record(start) and not is_with_diagnosis:
            planned.append(clinic(life, start, rng, bound(_start_drug, drug=drug)))
    return planned


def _start_drug(chart: Chart, drug: str) -> None:
    """A visit at which a long-term drug is added."""
    _note_hyperlipidemia(chart)
    chart.blood_pressure()
    chart.prescribe(drug, REASONS[drug])


def _attendance(life: Life, age: float) -> float:
    laws = life.laws.record
    return float(np.interp(age, (20.0, 70.0), (laws.attendance_at_20, laws.attendance_at_70)))


def _intake(chart: Chart) -> None:
    """The first visit: everything that began before is listed."""
    for field, code in CHRONIC:
        onset = getattr(chart.life, field)
        if onset < chart.age:
            chart.list_problem(code, onset)
    if chart.life.penicillin_allergy:
        chart.list_allergy(codes.PENICILLIN_ALLERGY)
    _check_up(chart, full=True, with_height=True)


def _check_up(chart: Chart, full: bool, with_height: bool = False) -> None:
    """A check-up; a full one has size and laboratory tests."""
    life, age = chart.life, chart.age
    _note_hyperlipidemia(chart)
    chart.vital_signs()
    chart.smoking_status()
    if full:
        chart.body_size(with_height=with_height)
        chart.observe([codes.A1C, codes.GLUCOSE, codes.HEMOGLOBIN])
        chart.kidney_panel()
    if full and age >= 35.0:
        chart.lipid_panel()
    for drug, start in life.drugs.items():
        if start <= age:
            chart.prescribe(drug, REASONS[drug])
    _vaccinate(chart)


def _note_hyperlipidemia(chart: Chart) -> None:
    """It gives no symptom: it is noted at the first visit after it began."""
    if chart.life.hyperlipidemia <= chart.age and codes.HYPERLIPIDEMIA not in chart.problems:
        chart.diagnose(codes.HYPERLIPIDEMIA)
        chart.list_problem(codes.HYPERLIPIDEMIA, chart.age)


def _vaccinate(chart: Chart) -> None:
    laws, life, year = chart.life.laws.record, chart.life, chart.start.year
    uptake = float(np.interp(chart.age, (20.0, 70.0), (laws.influenza_uptake_at_20, laws.influenza_uptake_at_70)))
    if chart.chance(uptake):
        chart.immunize(codes.INFLUENZA)
    given = {event.code for event in chart.events if event.resource == "Immunization"}
    if chart.age >= PNEUMOCOCCAL_AGE and codes.PNEUMOCOCCAL_POLYSACCHARIDE not in given:
        conjugate = codes.PNEUMOCOCCAL_CONJUGATE
        chart.immunize(conjugate if conjugate not in given else codes.PNEUMOCOCCAL_POLYSACCHARIDE)
    if year == COVID_YEAR and codes.COVID_19 not in given and chart.chance(0.8):  # choice
        chart.immunize(codes.COVID_19)
    if (year + life.person.index) % TETANUS_EVERY_YEARS == 0:
        chart.immunize(codes.TETANUS)


def _chest_pain(chart: Chart) -> None:
    """A visit for chest pain that turns out harmless."""
    chart.vital_signs()
    chart.observe([codes.HEMOGLOBIN, codes.LEUKOCYTES])
    chart.kidney_panel()
    chart.image("CR", "PA" if chart.chance(0.5) else "AP", codes.CHEST_PAIN)
    chart.diagnose(codes.CHEST_PAIN, resolved_after_days=7)
