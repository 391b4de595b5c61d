"""Pregnancy and birth, in women of 18 to 49; gestational diabetes, which foreshadows type 2 diabetes."""

from __future__ import annotations

import math

import numpy as np

from medtwin.hospital import codes
from medtwin.hospital.chart import Chart
from medtwin.hospital.life import Life, Pregnancy
from medtwin.hospital.population import DAYS_PER_YEAR
from medtwin.hospital.visits import Visit, admission, bound, clinic

FIRST_AGE, LAST_AGE = 18, 50
REST_YEARS = 0.5  # choice: from a birth to the next conception, at least
VISIT_WEEKS = (9, 16, 24, 30, 36)  # choice; fewer than guidelines ask for
GLUCOSE_WEEK = 24  # ADA Standards of Care: screening at 24 to 28 weeks


def begin(life: Life, rng: np.random.Generator) -> None:
    """Sets the pregnancies of a woman's life, those before the record too (they matter for later diabetes)."""
    if life.person.is_male:
        return
    laws = life.laws.pregnancy
    draws = rng.random((LAST_AGE - FIRST_AGE, 4))
    weeks = np.clip(rng.normal(*laws.weeks, LAST_AGE - FIRST_AGE), 34.0, 42.0)
    odds = laws.gestational_diabetes / (1.0 - laws.gestational_diabetes)
    odds *= math.exp(math.log(laws.ratio_per_5_bmi) * (life.person.bmi - 28.6) / 5.0)
    rates = [rate for low, high, rate in laws.birth_rates for _ in range(low, high)]
    free_from = float(FIRST_AGE)
    for year, rate in enumerate(rates):
        conception = FIRST_AGE + year + float(draws[year, 1])
        birth = conception + 7.0 * float(weeks[year]) / DAYS_PER_YEAR
        if draws[year, 0] >= rate or conception < free_from or birth >= LAST_AGE:
            continue
        has_diabetes = bool(draws[year, 2] < odds / (1.0 + odds))
        cesarean = bool(draws[year, 3] < laws.cesarean)
        life.pregnancies.append(Pregnancy(conception, birth, has_diabetes, cesarean))
        free_from = birth + REST_YEARS


def visits(life: Life, rng: np.random.Generator) -> list[Visit]:
    """Prenatal visits, the birth, and a visit six weeks after, of pregnancies that begin inside the record."""
    planned = []
    for pregnancy in life.pregnancies:
        if not life.in_record(pregnancy.conception):
            continue
        for week in VISIT_WEEKS:
            age = pregnancy.conception + 7.0 * week / DAYS_PER_YEAR
            act = bound(_prenatal, pregnancy=pregnancy, week=week)
            planned.append(clinic(life, age, rng, act, codes.PRENATAL_VISIT))
        days = 3.5 if pregnancy.cesarean else 2.0
        planned.append(admission(life.time_of(pregnancy.birth), days, bound(_give_birth, pregnancy=pregnancy)))
        planned.append(clinic(life, pregnancy.birth + 42.0 / DAYS_PER_YEAR, rng, _postnatal, codes.POSTNATAL_VISIT))
    return planned


def _prenatal(chart: Chart, pregnancy: Pregnancy, week: int) -> None:
    chart.blood_pressure()
    chart.observe([codes.WEIGHT])
    if week == VISIT_WEEKS[0]:
        chart.diagnose(codes.PREGNANCY)
        chart.list_problem(codes.PREGNANCY, chart.age, pregnancy.birth)
        chart.observe([codes.HEMOGLOBIN, codes.LEUKOCYTES])
    if week == GLUCOSE_WEEK:
        chart.observe([codes.GLUCOSE, codes.HEMOGLOBIN])
        if pregnancy.gestational_diabetes and chart.age < chart.life.diabetes:
            chart.diagnose(codes.GESTATIONAL_DIABETES)
            chart.list_problem(codes.GESTATIONAL_DIABETES, chart.age, pregnancy.birth)
    if week == VISIT_WEEKS[3]:
        chart.immunize(codes.TDAP)


def _give_birth(chart: Chart, pregnancy: Pregnancy) -> None:
    chart.vital_signs()
    chart.diagnose(codes.PREGNANCY)
    chart.observe([codes.HEMOGLOBIN])
    delivery = codes.CESAREAN if pregnancy.cesarean else codes.VAGINAL_DELIVERY
    chart.procedure(delivery, 240, 45, codes.PREGNANCY)
    chart.vital_signs(1440.0)


def _postnatal(chart: Chart) -> None:
    chart.blood_pressure()
    chart.observe([codes.WEIGHT, codes.HEMOGLOBIN])
