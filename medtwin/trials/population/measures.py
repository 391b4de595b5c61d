"""Measures that an eligibility expression may call by name: what codes they stand for, and in what unit they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A named measure: `codes` are `SYSTEM//code`, `unit` is UCUM; None: no unit."""

    codes: Sequence[str]
    unit: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.codes, str) or not self.codes:
            raise ValueError(f"codes must be a list of SYSTEM//code, got {self.codes!r}")


def _loinc(unit: str | None, *codes: str) -> Measure:
    return Measure(tuple(f"LOINC//{code}" for code in codes), unit)


# Only codes that measure one thing in one kind of quantity stand together: mass and substance concentrations do not.
# Source: LOINC, long common names and example UCUM units.
COMMON_MEASURES: Mapping[str, Measure] = {
    "albumin": _loinc("g/dL", "1751-7"),
    "alt": _loinc("U/L", "1742-6"),
    "ast": _loinc("U/L", "1920-8"),
    "bilirubin": _loinc("mg/dL", "1975-2"),
    "bmi": _loinc("kg/m2", "39156-5"),
    "cholesterol": _loinc("mg/dL", "2093-3"),
    "creatinine": _loinc("mg/dL", "2160-0"),
    "crp": _loinc("mg/L", "1988-5"),
    "diastolic": _loinc("mm[Hg]", "8462-4"),
    # 98979-8: CKD-EPI 2021; 62238-1: CKD-EPI 2009; 33914-3: MDRD. Each per 1.73 m2.
    "egfr": _loinc("mL/min/{1.73_m2}", "98979-8", "62238-1", "33914-3"),
    "ejection_fraction": _loinc("%", "10230-1"),
    "gcs": _loinc(None, "9269-2"),
    "glucose": _loinc("mg/dL", "2345-7"),
    "hba1c": _loinc("%", "4548-4"),
    "hdl": _loinc("mg/dL", "2085-9"),
    "heart_rate": _loinc("/min", "8867-4"),
    "height": _loinc("cm", "8302-2"),
    "hemoglobin": _loinc("g/dL", "718-7"),
    "inr": _loinc(None, "6301-6"),
    "ldl": _loinc("mg/dL", "13457-7", "18262-6"),
    "leukocytes": _loinc("10*3/uL", "6690-2"),
    "neutrophils": _loinc("10*3/uL", "751-8"),
    "nt_probnp": _loinc("pg/mL", "33762-6"),
    "oxygen_saturation": _loinc("%", "2708-6", "59408-5"),
    "platelets": _loinc("10*3/uL", "777-3"),
    "potassium": _loinc("mmol/L", "2823-3"),
    "respiratory_rate": _loinc("/min", "9279-1"),
    "sodium": _loinc("mmol/L", "2951-2"),
    "systolic": _loinc("mm[Hg]", "8480-6"),
    "temperature": _loinc("Cel", "8310-5"),
    "triglycerides": _loinc("mg/dL", "2571-8"),
    "weight": _loinc("kg", "29463-7"),
}
