# ruff: noqa: RUF009 - `_law` is dataclasses.field
"""The laws of the hospital: every number that decides who falls ill, what is measured and who dies, with its source.

"Choice" marks a number that is ours. Ages are in years, rates per person-year, hazard ratios against the person without
the factor. A share "at" an age is of the people alive at the start of the record.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar

from medtwin.hospital.hazards import Gompertz, LogisticRise

_T = TypeVar("_T")


def _law(value: _T, source: str) -> _T:
    """A dataclass field with its source as metadata."""
    made: Any = field(default=value, metadata={"source": source})
    return made  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RecordLaws:
    """The window that the record covers, and how care is given."""

    window_start: datetime = _law(datetime(2015, 1, 1), "choice")
    window_end: datetime = _law(datetime(2025, 1, 1), "choice; excluded")
    attendance_at_20: float = _law(0.45, "choice; share of yearly check-ups kept")
    attendance_at_70: float = _law(0.85, "choice")
    not_done_immunization: float = _law(0.05, "choice")
    penicillin_allergy: float = _law(0.08, "choice; about 10 % of US patients are labelled (CDC)")
    revoked_order: float = _law(0.04, "choice; imaging orders that were withdrawn")
    influenza_uptake_at_20: float = _law(0.33, "CDC FluVaxView 2019-20: 38 % at 18-49 years, rounded to our ages")
    influenza_uptake_at_70: float = _law(0.68, "CDC FluVaxView 2019-20: 70 % at 65 and over")


@dataclass(frozen=True)
class PopulationLaws:
    """Who the people are at the start of the record."""

    age_bands: tuple[tuple[int, int, float], ...] = _law(
        (
            (18, 25, 0.125),
            (25, 35, 0.180),
            (35, 45, 0.165),
            (45, 55, 0.175),
            (55, 65, 0.170),
            (65, 75, 0.115),
            (75, 85, 0.070),
        ),
        "US Census Bureau, population estimates 2015, adults to 84 years, rounded",
    )
    female: float = _law(0.51, "US Census Bureau, population estimates 2015, adults")
    height_cm: tuple[float, float] = _law((175.3, 161.3), "Fryar et al. 2021, Vital Health Stat 3(46): men, women")
    height_sd_cm: float = _law(7.3, "Fryar et al. 2021, from standard errors, rounded")
    bmi_median: float = _law(28.6, "Fryar et al. 2021: median at 20 and over about 28.5")
    bmi_log_sd: float = _law(0.21, "Fryar et al. 2021: 5th and 95th percentile about 20 and 42")
    current_smoker: tuple[float, float] = _law((0.153, 0.127), "Cornelius et al. 2020, MMWR 69:1736: men, women, 2019")
    former_smoker: tuple[float, float] = _law((0.26, 0.20), "NHIS 2019, rounded: men, women")
    races: tuple[tuple[str, float], ...] = _law(
        (("2106-3", 0.763), ("2054-5", 0.134), ("2028-9", 0.059), ("1002-5", 0.013), ("2131-1", 0.031)),
        "US Census Bureau 2019; acts on nothing here",
    )
    hispanic: float = _law(0.185, "US Census Bureau 2019; acts on nothing here")


@dataclass(frozen=True)
class HypertensionLaws:
    """Essential hypertension: older, heavier people and men before women."""

    rise: tuple[LogisticRise, LogisticRise] = _law(
        (LogisticRise(0.843, 38.7, 0.716), LogisticRise(0.805, 46.4, 1.13)),
        "fitted to Ostchega et al. 2020, NCHS Data Brief 364: men 31, 59, 75 %, women 13, 50, 74 % from 18, 40, 60 on",
    )
    ratio_per_5_bmi: float = _law(1.49, "Jayedi et al. 2018, J Hypertens 36:2117: 1.49 per 5 kg/m2")
    lisinopril_uptake: float = _law(0.60, "choice; 50 to 70 % of US adults with hypertension are treated")
    amlodipine_uptake: float = _law(0.30, "choice")


@dataclass(frozen=True)
class DiabetesLaws:
    """Type 2 diabetes, its glycaemia and its drugs."""

    rise: LogisticRise = _law(
        LogisticRise(0.262, 54.0, 0.743),
        "fitted to CDC National Diabetes Statistics Report 2022: 4.8, 18.9 and 29.2 % at 18-44, 45-64 and 65+",
    )
    ratio_per_5_bmi: float = _law(1.72, "Jayedi et al. 2022, Obes Rev 23:e13452: 1.72 per 5 kg/m2")
    ratio_male: float = _law(1.15, "choice; CDC report 2022: 15.4 % of men, 14.1 % of women")
    ratio_after_gestational: float = _law(9.51, "Vounzoulaki et al. 2020, BMJ 369:m1361")
    a1c_at_50: float = _law(5.40, "choice; Pani et al. 2008 report means of 5.1 to 5.6 % without diabetes")
    a1c_per_year: float = _law(0.012, "Pani et al. 2008, Diabetes Care 31:1991: 0.012 to 0.014 per year")
    a1c_sd: float = _law(0.22, "choice")
    a1c_rise_floor: float = _law(0.9, "choice; so that HbA1c is at least about 6.5 % at diagnosis")
    a1c_rise_median: float = _law(1.3, "choice; median above the floor at diagnosis, log-normal")
    a1c_rise_log_sd: float = _law(0.5, "choice")
    a1c_progression: float = _law(0.06, "choice; per year, for 12 years, treated or not (UKPDS 34 found a slow rise)")
    lead_years: float = _law(2.0, "choice; prediabetes before the diagnosis")
    metformin_effect: float = _law(-1.12, "Hirst et al. 2012, Diabetes Care 35:446: -1.12 points as monotherapy")
    metformin_uptake_log_odds: float = _law(1.2, "choice; at a median HbA1c")
    metformin_uptake_slope: float = _law(1.0, "choice; per SD of log severity: treatment is confounded by indication")
    glargine_effect: float = _law(-1.6, "Riddle et al. 2003, Diabetes Care 26:3080: 8.6 to 7.0 %")
    glargine_rate: float = _law(0.05, "choice; starts per year after diagnosis")
    effect_delay_days: float = _law(90.0, "HbA1c mirrors about three months")
    eag_slope: float = _law(28.7, "Nathan et al. 2008, Diabetes Care 31:1473 (ADAG)")
    eag_intercept: float = _law(-46.7, "Nathan et al. 2008 (ADAG)")


@dataclass(frozen=True)
class KidneyLaws:
    """Filtration falls with age, faster with diabetes and hypertension; below 60 it is chronic kidney disease."""

    egfr_at_40: float = _law(107.0, "choice, near Wetzels et al. 2007, Kidney Int 72:632")
    egfr_sd: float = _law(9.0, "choice")
    loss_per_year: float = _law(0.75, "Lindeman et al. 1985, J Am Geriatr Soc 33:278: 0.75 mL/min per year, from 40 on")
    loss_hypertension: float = _law(0.30, "choice")
    loss_diabetes: float = _law(1.2, "choice; median extra loss, log-normal between people")
    loss_diabetes_log_sd: float = _law(0.5, "choice")
    ckd_below: float = _law(60.0, "KDIGO 2012: GFR below 60 for three months")
    hemoglobin_per_egfr: float = _law(0.037, "Astor et al. 2002, Arch Intern Med 162:1401: 14.9, 13.8 at eGFR 60, 30")
    hemoglobin_per_egfr_below_30: float = _law(0.12, "Astor et al. 2002: 13.8 to 12.0 g/dL from eGFR 30 to 15")
    anemia_below: float = _law(10.5, "choice; KDIGO 2012 defines anemia below 13.0 (men), 12.0 (women)")
    potassium_per_egfr: float = _law(0.012, "choice; mmol/L for every mL/min below 60")


@dataclass(frozen=True)
class HeartFailureLaws:
    """Heart failure and its decompensations."""

    onset: Gompertz = _law(
        Gompertz(0.00060, 0.056), "fitted to AHA 2019 statistics: about 1.5, 6 and 11 % at 40-59, 60-79 and 80+"
    )
    ratio_male: float = _law(1.5, "choice")
    ratio_hypertension: tuple[float, float] = _law((2.07, 3.35), "Levy et al. 1996, JAMA 275:1557: men, women")
    ratio_diabetes: tuple[float, float] = _law((1.74, 1.95), "Ohkuma et al. 2019, Diabetologia 62:1550: men, women")
    ratio_ckd: float = _law(1.94, "Kottgen et al. 2007, J Am Soc Nephrol 18:1307 (ARIC)")
    severity_per_year: float = _law(0.03, "choice; on a scale of 0 to 1")
    decompensation_rate: float = _law(0.10, "choice; per year at severity 0")
    decompensation_rate_severity: float = _law(0.45, "choice; added per unit of severity")
    decompensation_severity: float = _law(0.25, "choice; added while decompensated")


@dataclass(frozen=True)
class CopdLaws:
    """Chronic obstructive pulmonary disease."""

    rise: LogisticRise = _law(
        LogisticRise(0.13, 69.5, 0.90), "fitted to CDC 2021: about 6 % of adults, 11 to 12 % at 65 and over"
    )
    ratio_current: float = _law(3.51, "Forey et al. 2011, BMC Pulm Med 11:36")
    ratio_former: float = _law(2.35, "Forey et al. 2011, BMC Pulm Med 11:36")
    ratio_at_onset: float = _law(0.58, "choice; FEV1/FVC at diagnosis, below 0.70 (GOLD)")
    ratio_sd: float = _law(0.045, "choice")
    fev1_loss_l: float = _law(0.033, "Vestbo et al. 2011, N Engl J Med 365:1184: 33 mL per year")
    exacerbation_rate: float = _law(0.30, "choice; Hurst et al. 2010 report more in trials' patients")
    exacerbation_admitted: float = _law(0.30, "choice")


@dataclass(frozen=True)
class PneumoniaLaws:
    """Community-acquired pneumonia, and chest infections that only look like it."""

    onset: Gompertz = _law(
        Gompertz(0.0085, 0.053),
        "growth of Jackson et al. 2004, Clin Infect Dis 39:1642: 18.2 to 52.3 per 1000, 65-69 to 85+",
    )
    ratio_copd: float = _law(2.8, "choice, among the odds ratios of Torres et al. 2013, Thorax 68:1057")
    ratio_heart_failure: float = _law(1.9, "choice, as above")
    ratio_diabetes: float = _law(1.3, "choice, as above")
    ratio_current_smoker: float = _law(1.6, "choice, as above")
    admitted_log_odds_at_60: float = _law(-1.2, "choice; 25 to 60 % by age and disease")
    admitted_per_year: float = _law(0.06, "choice")
    admitted_disease: float = _law(0.8, "choice; log-odds for heart failure, and for COPD")
    death_log_odds_at_70: float = _law(-2.7, "choice; 30-day mortality of the admitted, 6 % at 70")
    death_per_year: float = _law(0.05, "choice")
    mimic_rate: float = _law(0.020, "choice; per year: suspected, radiograph clear")
    ct_share: float = _law(0.30, "choice; of the admitted")
    control_film: float = _law(0.5, "choice; radiograph six weeks after")


@dataclass(frozen=True)
class BreastCancerLaws:
    """Breast cancer: about one case in a hundred is a man."""

    onset: Gompertz = _law(Gompertz(0.0033, 0.040), "near SEER 2015-2019: 330 per 100,000 women at 60, 150 at 42")
    ratio_male: float = _law(0.010, "SEER: about 1 % of the cases are men")
    ratio_per_birth: float = _law(0.93, "Collaborative Group 2002, Lancet 360:187: 7.0 % less per birth")
    excess_death_rate: float = _law(0.018, "SEER: five-year relative survival 91 %")
    excess_years: float = _law(10.0, "choice")


@dataclass(frozen=True)
class PregnancyLaws:
    """Births by age, and gestational diabetes."""

    birth_rates: tuple[tuple[int, int, float], ...] = _law(
        (
            (18, 20, 0.027),
            (20, 25, 0.0575),
            (25, 30, 0.0935),
            (30, 35, 0.0975),
            (35, 40, 0.0553),
            (40, 45, 0.0126),
            (45, 50, 0.0011),
        ),
        "Osterman et al. 2024, Natl Vital Stat Rep 73(2): births per woman and year, 2022; 18-19: their rate",
    )
    weeks: tuple[float, float] = _law((39.0, 1.6), "choice; mean and SD, 34 to 42")
    cesarean: float = _law(0.321, "Osterman et al. 2024: 32.1 % in 2022")
    gestational_diabetes: float = _law(0.083, "QuickStats, MMWR 2023: 8.3 % in 2021; at a BMI of 28.6")
    ratio_per_5_bmi: float = _law(1.5, "choice; odds of gestational diabetes")


@dataclass(frozen=True)
class OsteoarthritisLaws:
    """Osteoarthritis of the knee, and its replacement."""

    rise: LogisticRise = _law(
        LogisticRise(0.337, 73.9, 0.654),
        "fitted to Zhang & Jordan 2010, Clin Geriatr Med 26:355: 10 (men), 13 % (women) at 60+",
    )
    ratio_male: float = _law(0.55, "Srikanth et al. 2005, Osteoarthritis Cartilage 13:769: incidence of knee disease")
    ratio_per_5_bmi: float = _law(1.35, "Jiang et al. 2012, Joint Bone Spine 79:291")
    replacement_rate: float = _law(0.025, "choice; per year, at 50 to 85")


@dataclass(frozen=True)
class MortalityLaws:
    """Death: a Gompertz baseline times the ratios of disease and smoking, and the deaths of pneumonia and cancer."""

    baseline: tuple[Gompertz, Gompertz] = _law(
        (Gompertz(0.0051, 0.074), Gompertz(0.0030, 0.082)),
        "level and growth such that all men and women come near the SSA period life table 2019 (Trustees Report 2021)",
    )
    ratio_current_smoker: float = _law(2.8, "Jha et al. 2013, N Engl J Med 368:341: 2.8 in men, 3.0 in women")
    ratio_former_smoker: float = _law(1.4, "choice; depends on the age of quitting in Jha et al. 2013")
    ratio_diabetes: float = _law(1.80, "Emerging Risk Factors Collaboration 2011, N Engl J Med 364:829")
    ratio_heart_failure: float = _law(2.5, "choice; five-year survival near 50 % (Taylor et al. 2019, BMJ 364:l223)")
    ratio_copd: float = _law(1.7, "choice")
    ratio_ckd: float = _law(1.4, "choice, near CKD Prognosis Consortium 2010, Lancet 375:2073")
    ratio_hypertension: float = _law(1.15, "choice")
    frailty_log_sd: float = _law(0.3, "choice; latent, mean ratio 1")
    dies_in_hospital: float = _law(0.35, "Cross & Warraich 2019, N Engl J Med 381:2369: 35 % in 2017 (natural deaths)")


@dataclass(frozen=True)
class DrugLaws:
    """What the drugs do to what is measured, at full effect."""

    pressure_systolic: float = _law(-9.1, "Law et al. 2009, BMJ 338:b1665: one drug at standard dose, mm[Hg]")
    pressure_diastolic: float = _law(-5.5, "Law et al. 2009, BMJ 338:b1665")
    atorvastatin_ldl: float = _law(-0.43, "Law et al. 2003, BMJ 326:1423: atorvastatin 20 mg, 43 % less LDL")
    atorvastatin_uptake: float = _law(0.6, "choice; of people with diabetes over 40, or LDL of 160 mg/dL or more")
    carvedilol_heart_rate: float = _law(-8.0, "choice, per minute")
    lisinopril_potassium: float = _law(0.10, "choice, mmol/L")


@dataclass(frozen=True)
class ImageLaws:
    """Who is imaged beyond the courses."""

    chest_pain_rate: float = _law(0.016, "choice; radiographs per year without a disease of the chest")
    ct_share_copd: float = _law(0.35, "choice; at diagnosis")


@dataclass(frozen=True)
class Laws:
    """All laws of the hospital. To change one: `replace(LAWS, pneumonia=replace(LAWS.pneumonia, ...))`."""

    record: RecordLaws = RecordLaws()
    population: PopulationLaws = PopulationLaws()
    hypertension: HypertensionLaws = HypertensionLaws()
    diabetes: DiabetesLaws = DiabetesLaws()
    kidney: KidneyLaws = KidneyLaws()
    heart_failure: HeartFailureLaws = HeartFailureLaws()
    copd: CopdLaws = CopdLaws()
    pneumonia: PneumoniaLaws = PneumoniaLaws()
    breast_cancer: BreastCancerLaws = BreastCancerLaws()
    pregnancy: PregnancyLaws = PregnancyLaws()
    osteoarthritis: OsteoarthritisLaws = OsteoarthritisLaws()
    mortality: MortalityLaws = MortalityLaws()
    drugs: DrugLaws = DrugLaws()
    images: ImageLaws = ImageLaws()


LAWS = Laws()


def laws_as_dict(laws: Laws = LAWS) -> dict[str, dict[str, dict[str, Any]]]:
    """Every law by group and name, as {"value": ..., "source": ...} fit for JSON.

    >>> laws_as_dict()["diabetes"]["metformin_effect"]["value"]
    -1.12
    """
    return {
        group.name: {
            law.name: {"value": _plain(getattr(getattr(laws, group.name), law.name)), "source": law.metadata["source"]}
            for law in fields(getattr(laws, group.name))
        }
        for group in fields(laws)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, LogisticRise | Gompertz):
        return {"law": type(value).__name__} | {part.name: getattr(value, part.name) for part in fields(value)}
    return value
