"""Osteoarthritis of the knee, and its replacement: a source of chest radiographs for another reason than the chest."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER, event_age, risk_steps
from medtwin.hospital.life import Life
from medtwin.hospital.visits import Visit, admission, clinic, diagnosis

FIRST_AGE = 30.0
REPLACEMENT_AGES = (50.0, 85.0)


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the age of onset, of the replacement, and naproxen, which is withheld in kidney disease."""
    laws, person = life.laws.osteoarthritis, life.person
    ratio = laws.ratio_per_5_bmi ** ((person.bmi - 28.6) / 5.0) * (laws.ratio_male if person.is_male else 1.0)
    life.osteoarthritis = event_age(laws.rise, float(rng.exponential()), risk_steps(FIRST_AGE, ratio))
    wait = float(rng.exponential(1.0 / laws.replacement_rate))
    if life.osteoarthritis == NEVER:
        return
    replaced = max(life.osteoarthritis, REPLACEMENT_AGES[0]) + wait
    life.knee_replacement = replaced if replaced < REPLACEMENT_AGES[1] else NEVER
    safe = life.osteoarthritis < min(life.ckd, life.heart_failure)
    life.drugs[codes.NAPROXEN if safe else codes.ACETAMINOPHEN] = life.osteoarthritis


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The diagnosis; three weeks before a replacement the pre-operative visit, then the stay and a control."""
    planned = diagnosis(life, life.osteoarthritis, rng, _find)
    if life.in_record(life.knee_replacement):
        before = clinic(life, life.knee_replacement, rng, _prepare)
        surgery = before.time + timedelta(days=21)
        planned += [before, admission(surgery, 2.3, _replace)]
        planned.append(clinic(life, life.age_of(surgery + timedelta(days=45)), rng, _control))
    return planned


def _find(chart: Chart) -> None:
    chart.body_size(with_height=False)
    chart.diagnose(codes.KNEE_OSTEOARTHRITIS)
    chart.list_problem(codes.KNEE_OSTEOARTHRITIS, chart.age)
    chart.start_drugs(codes.KNEE_OSTEOARTHRITIS)


def _prepare(chart: Chart) -> None:
    chart.diagnose(codes.KNEE_OSTEOARTHRITIS)
    chart.vital_signs()
    chart.observe([codes.HEMOGLOBIN, codes.LEUKOCYTES])
    chart.kidney_panel()
    chart.image("CR", "PA", codes.KNEE_OSTEOARTHRITIS)


def _replace(chart: Chart) -> None:
    chart.diagnose(codes.KNEE_OSTEOARTHRITIS)
    chart.vital_signs()
    chart.procedure(codes.KNEE_REPLACEMENT, 120, 95, codes.KNEE_OSTEOARTHRITIS)
    chart.vital_signs(1440.0)
    chart.observe([codes.HEMOGLOBIN, codes.CRP], 1440.0)


def _control(chart: Chart) -> None:
    chart.diagnose(codes.KNEE_OSTEOARTHRITIS)
    chart.observe([codes.WEIGHT, codes.CRP])
