"""Breast cancer, in women and in about one man for a hundred women; screening, surgery, and what follows."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER, event_age, risk_steps
from medtwin.hospital.life import Life
from medtwin.hospital.visits import Visit, admission, bound, clinic, diagnosis, regular

FIRST_AGE = 25.0
SCREENING_AGES = (50.0, 75.0)  # US Preventive Services Task Force 2016: every two years, 50 to 74
FOLLOW_UP_YEARS = 5.0  # choice


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the age of onset and the endocrine drug."""
    laws, person = life.laws.breast_cancer, life.person
    ratio = laws.ratio_male if person.is_male else 1.0
    switches = [(one.birth, laws.ratio_per_birth) for one in life.pregnancies]
    life.breast_cancer = event_age(laws.onset, float(rng.exponential()), risk_steps(FIRST_AGE, ratio, switches))
    # Aromatase inhibitors after the menopause, tamoxifen before it and in men (ASCO guideline 2019).
    drug = codes.ANASTROZOLE if not person.is_male and life.breast_cancer >= 51.0 else codes.TAMOXIFEN
    if rng.random() < 0.75 and life.breast_cancer < NEVER:  # choice: hormone receptor positive
        life.drugs[drug] = life.breast_cancer + 0.4


def excess_death_age(life: Life, rng: np.random.Generator) -> float:
    """The age at which the cancer kills, if it does within its excess years and inside the record."""
    laws = life.laws.breast_cancer
    age = max(life.breast_cancer, life.age_at_start) + float(rng.exponential(1.0 / laws.excess_death_rate))
    return age if age < life.breast_cancer + laws.excess_years else NEVER


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """Biopsy, surgery three weeks later, follow-up for five years, and screening of women."""
    planned = diagnosis(life, life.breast_cancer, rng, _find)
    if planned:
        surgery = planned[0].time + timedelta(days=21)
        planned.append(admission(surgery, 1.4, _operate))
    planned += regular(life, life.breast_cancer, 182.0, rng, _follow, life.breast_cancer + FOLLOW_UP_YEARS)
    if not life.person.is_male:
        first = max(SCREENING_AGES[0], life.age_at_start) + 2.0 * float(rng.random())
        while first < min(SCREENING_AGES[1], life.last_age, life.breast_cancer):
            planned.append(clinic(life, first, rng, bound(_screen), codes.CHECK_UP))
            first += 2.0
    return planned


def _screen(chart: Chart) -> None:
    chart.procedure(codes.MAMMOGRAPHY, 5, 15)


def _find(chart: Chart) -> None:
    chart.procedure(codes.MAMMOGRAPHY, 0, 10)
    chart.procedure(codes.BREAST_BIOPSY, 15, 5)
    chart.diagnose(codes.BREAST_CANCER)
    chart.list_problem(codes.BREAST_CANCER, chart.age)


def _operate(chart: Chart) -> None:
    chart.vital_signs()
    chart.observe([codes.HEMOGLOBIN, codes.LEUKOCYTES])
    chart.diagnose(codes.BREAST_CANCER)
    chart.procedure(codes.LUMPECTOMY, 180, 90, codes.BREAST_CANCER)


def _follow(chart: Chart) -> None:
    chart.diagnose(codes.BREAST_CANCER)
    chart.observe([codes.WEIGHT, codes.HEMOGLOBIN, codes.LEUKOCYTES])
    if chart.chance(0.5):
        chart.procedure(codes.MAMMOGRAPHY, 5, 15, codes.BREAST_CANCER)
