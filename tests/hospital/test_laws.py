"""The laws hold in the record: measured from events alone, and computed here a second time from the cited numbers."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from medtwin.hospital import LAWS, codes, physiology, simulate_subject, truth
from medtwin.hospital.simulate import draw_life

NUM_SUBJECTS = 2000
SEED = 2024
START, END = datetime(2015, 1, 1), datetime(2025, 1, 1)
BANDS = ((18, 40), (40, 60), (60, 86))
YEAR = timedelta(days=365.25)


class Seen(NamedTuple):
    """A subject as an analyst sees it: nothing but events."""

    sex: str
    birth: datetime
    death: datetime | None
    times: dict[str, list[datetime]]
    values: dict[str, list[tuple[datetime, float]]]
    smoking: str
    encounters: list[tuple[datetime, datetime, str]]

    def age(self, time: datetime) -> float:
        return (time - self.birth) / YEAR

    def first(self, code: str) -> float:
        """Age at the first event of a code."""
        return self.age(self.times[code][0]) if code in self.times else math.inf


def look(record) -> Seen:
    times, values, smoking = {}, {}, ""
    birth = death = None
    sex = record.events[0].code[-1]
    for event in record.events:
        if event.time is None or event.code.startswith(("FHIR//", "NEGATED//")):
            continue
        times.setdefault(event.code, []).append(event.time)
        if event.numeric_value is not None:
            values.setdefault(event.code, []).append((event.time, event.numeric_value))
        birth = event.time if event.code == "MEDS_BIRTH" else birth
        death = event.time if event.code == "MEDS_DEATH" else death
        smoking = event.text_value if event.code == codes.SMOKING_STATUS and not smoking else smoking
    spans = [(event.time, event.end_time, event.code) for event in record.events if event.resource == "Encounter"]
    return Seen(sex, birth, death, times, values, smoking, spans)


@pytest.fixture(scope="module")
def seen():
    return [look(simulate_subject(SEED, index)) for index in range(NUM_SUBJECTS)]


@pytest.fixture(scope="module")
def expected():
    return truth()["expected"]


def cumulative(rise, age):
    """-log(1 - share) of a logistic rise, written anew."""
    return -np.log(1.0 - rise.plateau / (1.0 + np.exp(-rise.slope * (age - rise.midpoint) / 10.0)))


def bmi_of(one):
    return one.values[codes.BMI][0][1] if codes.BMI in one.values else 28.6


def p_hypertension(one):
    rise = LAWS.hypertension.rise[one.sex == "F"]
    ratio = 1.49 ** ((bmi_of(one) - 28.6) / 5.0)
    return 1.0 - math.exp(-ratio * (cumulative(rise, one.age(START)) - cumulative(rise, 0.0)))


def p_diabetes(one):
    rise = LAWS.diabetes.rise
    ratio = 1.72 ** ((bmi_of(one) - 28.6) / 5.0) * (1.15 if one.sex == "M" else 1.0)
    return 1.0 - math.exp(-ratio * (cumulative(rise, one.age(START)) - cumulative(rise, 18.0)))


def p_copd(one):
    ratio = {codes.NEVER_SMOKER: 1.0, codes.FORMER_SMOKER: 2.35}.get(one.smoking, 3.51)
    gained = cumulative(LAWS.copd.rise, one.age(START)) - cumulative(LAWS.copd.rise, 35.0)
    return 1.0 - math.exp(-ratio * max(gained, 0.0))


def p_osteoarthritis(one):
    rise = LAWS.osteoarthritis.rise
    ratio = 1.35 ** ((bmi_of(one) - 28.6) / 5.0) * (0.55 if one.sex == "M" else 1.0)
    return 1.0 - math.exp(-ratio * max(cumulative(rise, one.age(START)) - cumulative(rise, 30.0), 0.0))


def deviation(group, affected, probability):
    """Chi-squared of observed against expected cases over sex and age bands, and its degrees of freedom."""
    total, cells = 0.0, 0
    for sex in "MF":
        for low, high in BANDS:
            cell = [
                (case, probability(one))
                for one, case in zip(group, affected, strict=True)
                if one.sex == sex and low <= one.age(START) < high
            ]
            variance = sum(p * (1.0 - p) for _, p in cell)
            if variance < 3.0:  # too few cases for the normal approximation
                continue
            total += sum(case - p for case, p in cell) ** 2 / variance
            cells += 1
    return total, cells


# Women are left out of diabetes: gestational diabetes, which START does not show, raises their hazard.
@pytest.mark.parametrize(
    ("code", "probability", "sexes"),
    [
        (codes.HYPERTENSION, p_hypertension, "MF"),
        (codes.DIABETES, p_diabetes, "M"),
        (codes.COPD, p_copd, "MF"),
        (codes.KNEE_OSTEOARTHRITIS, p_osteoarthritis, "MF"),
    ],
)
def test_prevalence_by_age_and_sex_follows_the_law(seen, code, probability, sexes):
    group = [one for one in seen if one.sex in sexes]
    affected = [one.first(code) <= one.age(START) for one in group]
    total, cells = deviation(group, affected, probability)
    assert cells >= 2
    assert total < stats.chi2.ppf(0.99, cells)
    shuffled = np.random.default_rng(0).permutation(affected)
    total, cells = deviation(group, shuffled, probability)
    assert total > stats.chi2.ppf(0.999, cells)


@pytest.mark.parametrize(
    ("code", "sex", "band", "cited"),
    [
        (codes.HYPERTENSION, "M", (18, 40), 0.312),  # Ostchega et al. 2020, NCHS Data Brief 364
        (codes.HYPERTENSION, "M", (40, 60), 0.594),
        (codes.HYPERTENSION, "M", (60, 86), 0.752),
        (codes.HYPERTENSION, "F", (18, 40), 0.130),
        (codes.HYPERTENSION, "F", (40, 60), 0.499),
        (codes.HYPERTENSION, "F", (60, 86), 0.739),
        (codes.DIABETES, "MF", (18, 45), 0.048),  # CDC National Diabetes Statistics Report 2022
        (codes.DIABETES, "MF", (45, 65), 0.189),
        (codes.DIABETES, "MF", (65, 86), 0.292),
        (codes.KNEE_OSTEOARTHRITIS, "M", (60, 86), 0.10),  # Zhang & Jordan 2010
        (codes.KNEE_OSTEOARTHRITIS, "F", (60, 86), 0.13),
        (codes.COPD, "MF", (65, 86), 0.115),  # CDC 2021
    ],
)
def test_prevalence_is_near_the_cited_number(seen, code, sex, band, cited):
    group = [one for one in seen if one.sex in sex and band[0] <= one.age(START) < band[1]]
    count = sum(one.first(code) <= one.age(START) for one in group)
    interval = stats.binomtest(count, len(group)).proportion_ci(0.95)
    assert interval.low - 0.03 <= cited <= interval.high + 0.03


COURSES = {
    "hypertension": codes.HYPERTENSION,
    "diabetes": codes.DIABETES,
    "ckd": codes.CKD_3,
    "heart_failure": codes.HEART_FAILURE,
    "copd": codes.COPD,
    "breast_cancer": codes.BREAST_CANCER,
    "osteoarthritis": codes.KNEE_OSTEOARTHRITIS,
}


@pytest.mark.parametrize("name", COURSES)
def test_prevalence_is_that_of_the_truth(seen, expected, name):
    total, cells = 0.0, 0
    for label, share in expected["prevalence_at_start"][name].items():
        low, high = (float(part) for part in label[2:].split("-"))
        group = [one for one in seen if one.sex == label[0] and low <= one.age(START) < high + 1.0]
        count = sum(one.first(COURSES[name]) <= one.age(START) for one in group)
        mean = len(group) * share["mean"]
        if mean >= 5.0:
            error = len(group) * share["standard_error"]
            total += (count - mean) ** 2 / (mean * (1.0 - share["mean"]) + error**2)
            cells += 1
    assert cells >= 1
    assert total < stats.chi2.ppf(0.99, cells)


def test_hba1c_in_and_out_of_diabetes(seen, expected):
    def difference(is_diabetic):
        first = [(one.values[codes.A1C][0][1], flag) for one, flag in is_diabetic if codes.A1C in one.values]
        inside = [value for value, flag in first if flag]
        outside = [value for value, flag in first if not flag]
        error = math.hypot(stats.sem(inside), stats.sem(outside))
        return np.mean(inside) - np.mean(outside), error

    flags = [one.first(codes.DIABETES) <= one.age(START) for one in seen]
    measured, error = difference(zip(seen, flags, strict=True))
    true = expected["hba1c_at_start"]["difference"]
    assert abs(measured - true["mean"]) < 2.58 * math.hypot(error, true["standard_error"])
    assert measured > 1.0
    shuffled = np.random.default_rng(0).permutation(flags)
    measured, error = difference(zip(seen, shuffled, strict=True))
    assert abs(measured - true["mean"]) > 5.0 * error


def test_glucose_moves_with_hba1c_along_the_adag_line(seen):
    pairs = np.array(
        [
            (a1c, glucose)
            for one in seen
            for (when, a1c), (then, glucose) in zip(
                one.values.get(codes.A1C, []),
                [pair for pair in one.values.get(codes.GLUCOSE, []) if pair[0] in one.times.get(codes.A1C, [])],
                strict=True,
            )
            if when == then
        ]
    )
    a1c, glucose = pairs.T
    assert len(pairs) > 5000
    residual = glucose - (28.7 * a1c - 46.7)  # Nathan et al. 2008
    assert abs(residual.mean()) < 0.5
    assert 14.0 < residual.std() < 17.0  # 15.7 in the source
    assert np.corrcoef(a1c, glucose)[0, 1] > 0.75
    assert abs(np.corrcoef(a1c, np.random.default_rng(0).permutation(glucose))[0, 1]) < 0.05


def test_egfr_is_ckd_epi_2021_of_the_reported_creatinine(seen):
    def ckd_epi(creatinine, age, sex):
        """Inker et al. 2021, table S4, written anew."""
        kappa, alpha, factor = (0.7, -0.241, 1.012) if sex == "F" else (0.9, -0.302, 1.0)
        low, high = min(creatinine / kappa, 1), max(creatinine / kappa, 1)
        return 142 * low**alpha * high**-1.2 * 0.9938**age * factor

    count = wrong_sex = 0
    for one in seen:
        for (time, egfr), (_, creatinine) in zip(
            one.values.get(codes.EGFR, []), one.values.get(codes.CREATININE, []), strict=True
        ):
            age = int(one.age(time))
            assert abs(egfr - ckd_epi(creatinine, age, one.sex)) <= 0.5 + 1e-9
            wrong_sex += abs(egfr - ckd_epi(creatinine, age, "MF"[one.sex == "M"])) > 0.51
            count += 1
    assert count > 8000
    assert wrong_sex > 0.95 * count


def test_total_cholesterol_is_the_sum_of_its_parts(seen):
    for one in seen[:500]:
        parts = (one.values.get(code, []) for code in (codes.CHOLESTEROL, codes.LDL, codes.HDL, codes.TRIGLYCERIDES))
        for (_, total), (_, ldl), (_, hdl), (_, triglycerides) in zip(*parts, strict=True):
            assert abs(total - (ldl + hdl + triglycerides / 5.0)) <= 0.5 + 1e-9


def a1c_changes(seen, *, treated):
    """Change of HbA1c from the diagnosis to 100 days to two years later, and the years between; no insulin."""
    changes = []
    for one in seen:
        if not one.age(START) < one.first(codes.DIABETES) < math.inf:
            continue
        if (codes.METFORMIN in one.times) != treated:
            continue
        start = one.times[codes.DIABETES][0]
        stop = min([start + 2 * YEAR, *one.times.get(codes.GLARGINE, [])])
        before = [value for time, value in one.values[codes.A1C] if abs(time - start) < timedelta(hours=2)]
        after = [(time, value) for time, value in one.values[codes.A1C] if start + timedelta(days=100) < time < stop]
        if before and after:
            changes.append((after[0][1] - before[0], (after[0][0] - start) / YEAR))
    return np.array(changes)


def test_metformin_lowers_hba1c_by_its_law(seen):
    drift = LAWS.diabetes.a1c_progression + LAWS.diabetes.a1c_per_year
    for treated, effect in ((True, -1.12), (False, 0.0)):  # Hirst et al. 2012
        change, years = a1c_changes(seen, treated=treated).T
        net = change - drift * years
        interval = stats.t.interval(0.99, len(net) - 1, net.mean(), stats.sem(net))
        assert interval[0] - 0.05 < effect < interval[1] + 0.05
        assert len(net) >= 15
        assert not interval[0] - 0.05 < -1.12 - effect < interval[1] + 0.05


def test_metformin_goes_to_the_worse_cases():
    """Treatment is confounded: untreated and treated differ before the first tablet."""
    before = {True: [], False: []}
    for index in range(6000):
        life = draw_life(SEED, index)
        if life.diabetes < math.inf:
            before[codes.METFORMIN in life.drugs].append(life.person.traits.diabetes_severity)
    difference = np.mean(before[True]) - np.mean(before[False])
    assert difference > 0.5
    assert 0.65 < len(before[True]) / (len(before[True]) + len(before[False])) < 0.85


def test_lisinopril_lowers_pressure_by_its_law():
    lives = (draw_life(SEED, index) for index in range(400))
    treated = [life for life in lives if life.drugs.get(codes.LISINOPRIL, math.inf) < 80.0]
    for life in treated:
        with_drug = physiology.systolic(life, 85.0), physiology.diastolic(life, 85.0)
        del life.drugs[codes.LISINOPRIL]
        without = physiology.systolic(life, 85.0), physiology.diastolic(life, 85.0)
        assert with_drug[0] - without[0] == pytest.approx(-9.1)  # Law et al. 2009
        assert with_drug[1] - without[1] == pytest.approx(-5.5)
    assert len(treated) > 50


def test_deaths_by_age_and_sex_follow_the_truth(seen, expected):
    def standardised(deaths):
        total = 0.0
        for name, rate in expected["deaths_per_1000_years"].items():
            sex, low, high = name[0], *(float(part) for part in name[2:].split("-"))
            years = count = 0.0
            for one, death in zip(seen, deaths, strict=True):
                if one.sex == sex:
                    stop = one.age(death or END)
                    years += max(min(high + 1.0, stop) - max(low, one.age(START)), 0.0)
                    count += death is not None and low <= stop < high + 1.0
            mean, error = rate["mean"] * years / 1000.0, rate["standard_error"] * years / 1000.0
            total += (count - mean) ** 2 / (mean + error**2)
        return total, len(expected["deaths_per_1000_years"])

    deaths = [one.death for one in seen]
    total, cells = standardised(deaths)
    assert total < stats.chi2.ppf(0.99, cells)
    total, cells = standardised([deaths[i] for i in np.random.default_rng(0).permutation(NUM_SUBJECTS)])
    assert total > stats.chi2.ppf(0.9999, cells)


def expected_deaths(one, ratios, since):
    """Integrated hazard of death of one subject from an age on, from its events and the cited hazard ratios."""
    gompertz = LAWS.mortality.baseline[one.sex == "F"]
    smoking = {codes.NEVER_SMOKER: 1.0, codes.FORMER_SMOKER: 1.4}.get(one.smoking, 2.8)
    ages = np.arange(max(one.age(START), since), one.age(one.death or END), 0.05)
    hazard = smoking * gompertz.rate_at_60 * np.exp(gompertz.growth * (ages + 0.025 - 60.0))
    for code, ratio in ratios.items():
        hazard[ages >= one.first(code)] *= ratio
    return 0.05 * hazard.sum()


# Cited in laws.py.
DEATH_RATIOS = {
    codes.DIABETES: 1.80,
    codes.HEART_FAILURE: 2.5,
    codes.COPD: 1.7,
    codes.CKD_3: 1.4,
    codes.HYPERTENSION: 1.15,
}


@pytest.mark.parametrize("course", [None, codes.DIABETES, codes.HEART_FAILURE, codes.COPD, codes.CKD_3])
def test_deaths_follow_the_hazard_ratios(seen, course):
    """In everyone, and after the onset of a course; deaths of pneumonia and cancer have laws of their own."""
    observed = predicted = unaware = 0.0
    for one in seen:
        since = one.first(course) if course else 0.0
        if codes.BREAST_CANCER in one.times or since == math.inf:
            continue
        recent = [time for time in one.times.get(codes.PNEUMONIA, []) if (one.death or END) - time < timedelta(days=15)]
        observed += one.death is not None and not recent
        predicted += expected_deaths(one, DEATH_RATIOS, since)
        unaware += expected_deaths(one, {}, since)
    assert abs(observed - predicted) < 2.58 * math.sqrt(predicted)
    assert abs(observed - unaware) > 2.58 * math.sqrt(unaware)


def test_pneumonia_follows_the_truth(seen, expected):
    years = sum(one.age(one.death or END) - one.age(START) for one in seen)
    episodes = 0
    for one in seen:
        times = one.times.get(codes.PNEUMONIA, [])
        episodes += sum(b - a > timedelta(days=60) for a, b in zip([datetime(1900, 1, 1), *times], times, strict=False))
    mean = 0.0
    for name, rate in expected["pneumonias_per_1000_years"].items():
        sex, low, high = name[0], *(float(part) for part in name[2:].split("-"))
        for one in seen:
            if one.sex == sex:
                mean += (
                    rate["mean"]
                    / 1000.0
                    * max(min(high + 1.0, one.age(one.death or END)) - max(low, one.age(START)), 0.0)
                )
    # Episodes cluster in the sick: the variance is above Poisson's, by a factor of 1.5 or so.
    assert abs(episodes - mean) < 2.58 * math.sqrt(1.5 * mean)
    assert 0.005 < episodes / years < 0.02


def test_births_follow_the_rates(seen):
    births = years = 0.0
    for one in seen:
        if one.sex == "F":
            delivered = [*one.times.get(codes.VAGINAL_DELIVERY, []), *one.times.get(codes.CESAREAN, [])]
            # A birth inside the record is recorded if the conception was too.
            births += sum(25.75 <= one.age(time) < 34.75 and time > START + 0.75 * YEAR for time in delivered)
            low = max(25.75, one.age(START) + 0.75)
            years += max(min(34.75, one.age(one.death or END)) - low, 0.0)
    rate = (0.0935 + 0.0975) / 2.0  # Osterman et al. 2024
    mean = years * rate / (1.0 + rate * 1.25)  # nobody conceives in pregnancy, or half a year after
    assert abs(births - mean) < 2.58 * math.sqrt(mean)


def test_sickness_brings_its_laboratory(seen):
    def mean(code, group):
        return np.mean([value for one in group for _, value in one.values.get(code, [])])

    failing = [one for one in seen if codes.HEART_FAILURE in one.times]
    sound = [one for one in seen if codes.HEART_FAILURE not in one.times]
    assert mean(codes.NT_PROBNP, failing) > 400.0
    kidneys = [one for one in seen if codes.CKD_4 in one.times]
    assert mean(codes.HEMOGLOBIN, kidneys) < mean(codes.HEMOGLOBIN, sound) - 0.8
    assert mean(codes.POTASSIUM, kidneys) > mean(codes.POTASSIUM, sound) + 0.2
    obstructed = [one for one in seen if codes.COPD in one.times]
    assert mean(codes.FEV1_TO_FVC, obstructed) < 70.0


def test_about_one_breast_cancer_in_a_hundred_is_a_mans():
    assert LAWS.breast_cancer.ratio_male == 0.01
    sexes = Counter()
    for index in range(8000):
        life = draw_life(SEED, index)
        sexes[life.person.sex] += life.breast_cancer < 85.0
    assert sexes["F"] > 300
    assert sexes["M"] <= stats.poisson.ppf(0.999, 0.012 * sexes["F"])
