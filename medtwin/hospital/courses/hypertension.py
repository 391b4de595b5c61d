"""Essential hypertension: age, sex and body mass raise its hazard; two drugs lower pressure."""

from __future__ import annotations

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER, event_age, risk_steps
from medtwin.hospital.life import Life
from medtwin.hospital.visits import Visit, diagnosis

FOUND_FROM = 18.0  # choice: what began in childhood is found then


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the age of onset and the drugs."""
    laws, person = life.laws.hypertension, life.person
    draws = rng.random(2)
    ratio = laws.ratio_per_5_bmi ** ((person.bmi - 28.6) / 5.0)
    baseline = laws.rise[0] if person.is_male else laws.rise[1]
    onset = event_age(baseline, float(rng.exponential()), risk_steps(0.0, ratio))
    life.hypertension = max(onset, FOUND_FROM)
    delays = rng.exponential([0.2, 4.0])
    for drug, uptake, draw, delay in (
        (codes.LISINOPRIL, laws.lisinopril_uptake, draws[0], delays[0]),
        (codes.AMLODIPINE, laws.amlodipine_uptake, draws[1], delays[1]),
    ):
        if life.hypertension < NEVER and draw < uptake:
            life.drugs[drug] = life.hypertension + float(delay)


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The visit of the diagnosis; later ones are check-ups."""
    return diagnosis(life, life.hypertension, rng, _find)


def _find(chart: Chart) -> None:
    chart.blood_pressure(5)
    chart.blood_pressure(15)
    chart.kidney_panel()
    chart.diagnose(codes.HYPERTENSION)
    chart.list_problem(codes.HYPERTENSION, chart.age)
    chart.start_drugs(codes.HYPERTENSION)
