"""True values of the body at an age: what a perfect instrument would read. Courses and drugs act here only."""

from __future__ import annotations

import math

from medtwin.hospital import codes
from medtwin.hospital.life import Life

# CKD-EPI 2021 creatinine equation without race. Source: Inker et al. 2021, N Engl J Med 385:1737.
_EGFR_SCALE = 142.0
_EGFR_AGE = 0.9938
_EGFR_FEMALE = 1.012
_EGFR_KAPPA = {"M": 0.9, "F": 0.7}
_EGFR_ALPHA = {"M": -0.302, "F": -0.241}
_EGFR_SLOPE = -1.200


def egfr_from_creatinine(creatinine: float, age: float, sex: str) -> float:
    """Estimated GFR in mL/min/1.73 m2 by CKD-EPI 2021.

    Args:
        creatinine: Serum creatinine, mg/dL.
        age: Years.
        sex: "M" or "F".

    >>> round(egfr_from_creatinine(1.0, 50, "M")), round(egfr_from_creatinine(1.0, 50, "F"))
    (92, 69)
    """
    ratio = creatinine / _EGFR_KAPPA[sex]
    value: float = _EGFR_SCALE * min(ratio, 1.0) ** _EGFR_ALPHA[sex] * max(ratio, 1.0) ** _EGFR_SLOPE * _EGFR_AGE**age
    return value * (_EGFR_FEMALE if sex == "F" else 1.0)


def creatinine_from_egfr(egfr: float, age: float, sex: str) -> float:
    """The inverse of `egfr_from_creatinine`, mg/dL.

    >>> round(creatinine_from_egfr(egfr_from_creatinine(1.3, 70, "F"), 70, "F"), 6)
    1.3
    """
    ratio = egfr / (_EGFR_SCALE * _EGFR_AGE**age * (_EGFR_FEMALE if sex == "F" else 1.0))
    exponent = _EGFR_ALPHA[sex] if ratio > 1.0 else _EGFR_SLOPE
    return _EGFR_KAPPA[sex] * float(ratio ** (1.0 / exponent))


def a1c(life: Life, age: float) -> float:
    """HbA1c, %: rises with age, BMI and diabetes; falls with metformin and insulin."""
    laws, traits = life.laws.diabetes, life.person.traits
    value = laws.a1c_at_50 + laws.a1c_per_year * (age - 50.0) + laws.a1c_sd * traits.glycaemia
    value += 0.01 * (life.person.bmi - 28.6)  # choice
    since = age - life.diabetes
    if since > -laws.lead_years:
        rise = laws.a1c_rise_floor + laws.a1c_rise_median * math.exp(laws.a1c_rise_log_sd * traits.diabetes_severity)
        value += rise * min(1.0, 1.0 + since / laws.lead_years)
        value += laws.a1c_progression * min(max(since, 0.0), 12.0)
    value += laws.metformin_effect * life.drug_effect(codes.METFORMIN, age, laws.effect_delay_days)
    value += laws.glargine_effect * life.drug_effect(codes.GLARGINE, age, laws.effect_delay_days)
    return max(value, 4.3)


def glucose(life: Life, age: float) -> float:
    """Mean glucose, mg/dL, from HbA1c by the ADAG relation (Nathan et al. 2008)."""
    laws = life.laws.diabetes
    return laws.eag_slope * a1c(life, age) + laws.eag_intercept


def egfr(life: Life, age: float) -> float:
    """True filtration, mL/min/1.73 m2: falls from 40 on, faster with hypertension and diabetes."""
    laws, traits = life.laws.kidney, life.person.traits
    loss = laws.loss_per_year * max(age - 40.0, 0.0) + laws.loss_hypertension * max(age - life.hypertension, 0.0)
    extra = laws.loss_diabetes * math.exp(laws.loss_diabetes_log_sd * traits.kidney_vulnerability)
    return max(laws.egfr_at_40 + laws.egfr_sd * traits.filtration - loss - extra * max(age - life.diabetes, 0.0), 8.0)


def creatinine(life: Life, age: float) -> float:
    """Serum creatinine, mg/dL, that gives the true filtration."""
    return creatinine_from_egfr(egfr(life, age), age, life.person.sex)


def hemoglobin(life: Life, age: float) -> float:
    """Hemoglobin, g/dL: falls with filtration below 60, and in pregnancy (by 1.2: choice)."""
    laws, filtration = life.laws.kidney, egfr(life, age)
    value = life.person.of_sex((14.9, 13.5)) + 0.9 * life.person.traits.hemoglobin  # Astor et al. 2002; SD: choice
    value -= laws.hemoglobin_per_egfr * min(max(60.0 - filtration, 0.0), 30.0)
    value -= laws.hemoglobin_per_egfr_below_30 * max(30.0 - filtration, 0.0)
    return max(value - (1.2 if life.has_pregnancy(age) else 0.0), 6.0)


def potassium(life: Life, age: float) -> float:
    """Potassium, mmol/L: rises as filtration falls, and with lisinopril."""
    value = 4.15 + life.laws.kidney.potassium_per_egfr * max(60.0 - egfr(life, age), 0.0)
    return value + life.laws.drugs.lisinopril_potassium * life.drug_effect(codes.LISINOPRIL, age)


def _num_pressure_drugs(life: Life, age: float) -> float:
    return life.drug_effect(codes.LISINOPRIL, age) + life.drug_effect(codes.AMLODIPINE, age)


def systolic(life: Life, age: float) -> float:
    """Systolic pressure, mm[Hg]; slopes of age and BMI and the size of hypertension are choices."""
    value = 114.0 + 0.22 * (age - 45.0) + 0.35 * (life.person.bmi - 28.6) + 7.0 * life.person.traits.pressure
    value += 25.0 * min(max(1.0 + (age - life.hypertension) / 2.0, 0.0), 1.0)
    value += life.laws.drugs.pressure_systolic * _num_pressure_drugs(life, age)
    return value - 8.0 * life.acute_strength("pneumonia", age) - (4.0 if life.has_pregnancy(age) else 0.0)


def diastolic(life: Life, age: float) -> float:
    """Diastolic pressure, mm[Hg]: rises to 55 years, then falls (Franklin et al. 1997, Circulation 96:308)."""
    value = 74.0 + 0.15 * (min(age, 55.0) - 45.0) - 0.25 * max(age - 55.0, 0.0) + 4.5 * life.person.traits.pressure
    value += 13.0 * min(max(1.0 + (age - life.hypertension) / 2.0, 0.0), 1.0)
    value += life.laws.drugs.pressure_diastolic * _num_pressure_drugs(life, age)
    return value - 5.0 * life.acute_strength("pneumonia", age)


def heart_rate(life: Life, age: float) -> float:
    """Heart rate per minute; effects of illness are choices."""
    value = 71.0 + 6.0 * life.person.traits.heart_rate + 8.0 * life.severity_of_heart_failure(age)
    value += 24.0 * life.acute_strength("pneumonia", age) + 14.0 * life.acute_strength("exacerbation", age)
    value += 16.0 * life.acute_strength("decompensation", age) + (10.0 if life.has_pregnancy(age) else 0.0)
    return value + life.laws.drugs.carvedilol_heart_rate * life.drug_effect(codes.CARVEDILOL, age)


def respiratory_rate(life: Life, age: float) -> float:
    """Breaths per minute; all numbers are choices."""
    value = 15.0 + (1.5 if age >= life.copd else 0.0) + 9.0 * life.acute_strength("pneumonia", age)
    return value + 8.0 * life.acute_strength("exacerbation", age) + 6.0 * life.acute_strength("decompensation", age)


def temperature(life: Life, age: float) -> float:
    """Body temperature, Cel: 36.7, and 38.5 in full pneumonia (choice)."""
    return 36.7 + 1.8 * life.acute_strength("pneumonia", age)


def oxygen_saturation(life: Life, age: float) -> float:
    """Oxygen saturation, %; all numbers are choices."""
    value = 98.0 - 0.02 * max(age - 40.0, 0.0) - (2.2 if age >= life.copd else 0.0)
    value -= 5.5 * life.acute_strength("pneumonia", age) + 5.0 * life.acute_strength("exacerbation", age)
    return value - 4.5 * life.acute_strength("decompensation", age) - 1.0 * life.severity_of_heart_failure(age)


def weight(life: Life, age: float) -> float:
    """Body weight, kg: 0.2 % more a year (choice), 12 kg in a pregnancy, 3 kg of fluid in a decompensation."""
    value = life.person.bmi * (life.person.height_cm / 100.0) ** 2 * (1.0 + 0.002 * (age - life.age_at_start))
    for pregnancy in life.pregnancies:
        if pregnancy.conception <= age < pregnancy.birth:
            value += 12.0 * (age - pregnancy.conception) / (pregnancy.birth - pregnancy.conception)
    return value + 3.0 * life.acute_strength("decompensation", age)


def leukocytes(life: Life, age: float) -> float:
    """Leukocytes, 10*3/uL: 6.8, smokers 8.0, pneumonia twice as many (choice)."""
    value = 8.0 if life.person.smoking == "current" else 6.8
    value += 2.5 if life.has_pregnancy(age) else 0.0
    return value + 7.5 * life.acute_strength("pneumonia", age) + 2.0 * life.acute_strength("exacerbation", age)


def crp(life: Life, age: float) -> float:
    """C reactive protein, mg/L: about 2, and 120 in full pneumonia (choice)."""
    value = 1.8 * math.exp(0.05 * (life.person.bmi - 28.6))
    return value + 118.0 * life.acute_strength("pneumonia", age) + 18.0 * life.acute_strength("exacerbation", age)


def nt_probnp(life: Life, age: float) -> float:
    """NT-proBNP, pg/mL, log-linear in age, filtration and severity of heart failure (choices)."""
    severity = life.severity_of_heart_failure(age)
    log_value = 3.9 + 0.03 * (age - 50.0) + 0.015 * max(60.0 - egfr(life, age), 0.0)
    log_value += (1.2 + 3.2 * severity) * (severity > 0.0) + 0.45 * life.person.traits.natriuretic
    return math.exp(log_value)


def ldl(life: Life, age: float) -> float:
    """LDL cholesterol, mg/dL: 122 +- 30 (choice, near NHANES 2011-2014), 43 % less with atorvastatin."""
    value = max(122.0 + 30.0 * life.person.traits.ldl, 45.0)
    return value * (1.0 + life.laws.drugs.atorvastatin_ldl * life.drug_effect(codes.ATORVASTATIN, age, 42.0))


def hdl(life: Life, age: float) -> float:
    """HDL cholesterol, mg/dL: 47 in men, 58 in women, less with BMI and diabetes (choices)."""
    value = life.person.of_sex((47.0, 58.0)) - 0.5 * (life.person.bmi - 28.6) - (4.0 if age >= life.diabetes else 0.0)
    return max(value + 11.0 * life.person.traits.hdl, 22.0)


def triglycerides(life: Life, age: float) -> float:
    """Triglycerides, mg/dL: median 110, a third more with diabetes (choices)."""
    log_value = math.log(110.0) + 0.03 * (life.person.bmi - 28.6) + 0.40 * life.person.traits.triglycerides
    return min(math.exp(log_value + (0.3 if age >= life.diabetes else 0.0)), 390.0)


def fvc(life: Life, age: float) -> float:
    """Forced vital capacity, L. Source: Hankinson et al. 1999, Am J Respir Crit Care Med 159:179 (NHANES III)."""
    height = life.person.height_cm
    if life.person.is_male:
        value = -0.1933 + 0.00064 * age - 0.000269 * age**2 + 0.00018642 * height**2
    else:
        value = -0.3560 + 0.01870 * age - 0.000382 * age**2 + 0.00014815 * height**2
    return max(value, 1.0) * (1.0 + 0.10 * life.person.traits.lung_volume)


def fev1(life: Life, age: float) -> float:
    """Forced expiratory volume in one second, L: a share of FVC that COPD pulls below 0.70 and lets fall every year."""
    laws, vital = life.laws.copd, fvc(life, age)
    if age < life.copd:
        share = 0.83 - 0.0012 * (age - 40.0) + 0.02 * life.person.traits.lung_obstruction  # choice
        return vital * max(share, 0.71)
    share = min(laws.ratio_at_onset + laws.ratio_sd * life.person.traits.lung_obstruction, 0.68)
    return max(vital * share - laws.fev1_loss_l * (age - life.copd), 0.4)


def ejection_fraction(life: Life, age: float) -> float:
    """Left ventricular ejection fraction, %: 62, and 30 in the severest heart failure (choice)."""
    return 62.0 - 32.0 * life.severity_of_heart_failure(age)
