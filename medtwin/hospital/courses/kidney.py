"""Chronic kidney disease and its anemia: they begin when filtration, which others lower, is too low."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medtwin.hospital import codes, physiology
from medtwin.hospital.chart import Chart
from medtwin.hospital.hazards import NEVER
from medtwin.hospital.life import Life
from medtwin.hospital.visits import Visit, diagnosis, regular

OLDEST = 110.0


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the ages at which filtration falls below the limit, and at which anemia follows."""
    laws = life.laws.kidney
    life.ckd = _crossing(lambda age: physiology.egfr(life, age) < laws.ckd_below)
    if life.ckd < NEVER:
        is_anemic = _crossing(lambda age: physiology.hemoglobin(life, age) < laws.anemia_below, life.ckd)
        life.anemia = is_anemic
    if life.anemia < NEVER:
        life.drugs[codes.FERROUS_SULFATE] = life.anemia


def _crossing(is_beyond: Callable[[float], bool], first: float = 18.0) -> float:
    """The age, to a day, at which a condition that never reverts becomes true."""
    low, high = first, OLDEST
    if not is_beyond(high):
        return NEVER
    while high - low > 1.0 / 365.0:
        middle = (low + high) / 2.0
        low, high = (low, middle) if is_beyond(middle) else (middle, high)
    return high


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """The diagnosis, the diagnosis of anemia, and a visit a year."""
    found = diagnosis(life, life.ckd, rng, _find) + diagnosis(life, life.anemia, rng, _find_anemia)
    return found + regular(life, life.ckd, 365.0, rng, _follow)


def stage(filtration: float) -> str:
    """The code of the stage. Source: KDIGO 2012 (G3 30 to 59, G4 15 to 29, G5 below 15)."""
    if filtration >= 30.0:
        return codes.CKD_3
    return codes.CKD_4 if filtration >= 15.0 else codes.CKD_5


def _find(chart: Chart) -> None:
    chart.kidney_panel()
    chart.observe([codes.HEMOGLOBIN])
    chart.diagnose(codes.CKD_3)
    chart.list_problem(codes.CKD_3, chart.age)


def _find_anemia(chart: Chart) -> None:
    chart.observe([codes.HEMOGLOBIN])
    chart.diagnose(codes.ANEMIA)
    chart.list_problem(codes.ANEMIA, chart.age)
    chart.start_drugs(codes.ANEMIA)


def _follow(chart: Chart) -> None:
    current = stage(physiology.egfr(chart.life, chart.age))
    chart.diagnose(current)
    if current not in chart.problems:
        chart.list_problem(current, chart.age)
    chart.blood_pressure()
    chart.kidney_panel()
    chart.observe([codes.HEMOGLOBIN, codes.SODIUM])
