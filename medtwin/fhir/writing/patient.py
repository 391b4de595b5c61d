"""The Patient of a subject: static rows, birth and death as a resource; inverse of `medtwin.fhir.reading.patient`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from medtwin.core.codes import AGE_CAPPED, BIRTH, DEATH, GENDERS, SYSTEMS
from medtwin.core.pseudonyms import SUBJECT_SYSTEM
from medtwin.fhir.writing.rows import Resource, moment_text

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
TAG_SYSTEM = "urn:medtwin:tag"
MR_TYPE: Resource = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}
NULL_FLAVORS = frozenset({"UNK", "ASKU", "OTH"})
# CDC race and ethnicity codes. US Core 6.1 (omb-race-category, omb-ethnicity-category) has the categories; what else
# the CDC codes name is a detail of one.
_OMB_CATEGORIES = {
    "1002-5": "American Indian or Alaska Native",
    "2028-9": "Asian",
    "2054-5": "Black or African American",
    "2076-8": "Native Hawaiian or Other Pacific Islander",
    "2106-3": "White",
    "2135-2": "Hispanic or Latino",
    "2186-5": "Not Hispanic or Latino",
    "UNK": "Unknown",
    "ASKU": "Asked but no answer",
    "OTH": "Other",
}
_DISPLAYS = {**_OMB_CATEGORIES, "2131-1": "Other Race"}
_MAX_CATEGORIES = {"us-core-race": 5, "us-core-ethnicity": 1}


class Fact(NamedTuple):
    """A row of a Patient: its code, its time in microseconds, and the precision of that."""

    code: str
    time: int | None
    precision: str | None


def patient_id(subject_id: int) -> str:
    """The FHIR id of a subject's Patient; the word keeps it from being purely numeric."""
    return f"subject-{subject_id}"


@lru_cache(maxsize=1 << 14)
def is_patient_code(code: str, *, is_static: bool) -> bool:
    """Whether a row with this code, dated or not, states a fact that a Patient has an element for."""
    return code in (BIRTH, DEATH, AGE_CAPPED) or (is_static and code.partition("//")[0] in _WRITERS)


def write_patient(subject_id: int, facts: Iterable[Fact]) -> tuple[Resource, Counter[str]]:
    """The Patient of a subject without its meta, and what of the facts it could not hold.

    Args:
        subject_id: Whose facts they are.
        facts: Those of which `is_patient_code` is true.
    """
    patient: Resource = {
        "resourceType": "Patient",
        "id": patient_id(subject_id),
        "meta": {},
        "identifier": [{"type": {"coding": [MR_TYPE]}, "system": SUBJECT_SYSTEM, "value": str(subject_id)}],
    }
    lost: Counter[str] = Counter()
    for fact in facts:
        word, _, code = fact.code.partition("//")
        if fact.time is not None and fact.code == BIRTH:
            patient["birthDate"] = moment_text(fact.time, fact.precision or "day")[:10]
        elif fact.time is not None and fact.code == DEATH:
            patient["deceasedDateTime"] = moment_text(fact.time, fact.precision)
        elif word in _WRITERS and not _WRITERS[word](patient, code):
            lost[f"Patient.{word}"] += 1
    if "deceasedDateTime" in patient:
        patient.pop("deceasedBoolean", None)
    return patient, lost


def patient_tags(facts: Iterable[Fact]) -> tuple[Resource, ...]:
    """The tags that a Patient has beside those of every resource."""
    capped = any(fact.code == AGE_CAPPED for fact in facts)
    return ({"system": TAG_SYSTEM, "code": AGE_CAPPED.partition("//")[2]},) if capped else ()


def _set_gender(patient: Resource, code: str) -> bool:
    patient["gender"] = GENDERS.get(f"GENDER//{code}", "unknown")
    return True


def _add_category(patient: Resource, name: str, code: str) -> bool:
    """Adds a code to a US Core extension, which demands a text too; False if it has no place for another one."""
    url = US_CORE + name
    extensions = patient.setdefault("extension", [])
    found = next((each for each in extensions if each["url"] == url), None)
    if found is None:
        found = {"url": url, "extension": [{"url": "text", "valueString": ""}]}
        extensions.append(found)
    *parts, text = found["extension"]
    kind = "ombCategory" if code in _OMB_CATEGORIES else "detailed"
    if kind == "ombCategory" and sum(each["url"] == kind for each in parts) >= _MAX_CATEGORIES[name]:
        return False
    coding = _static_coding("OMB", code)
    display = _DISPLAYS.get(code, code)
    parts.append({"url": kind, "valueCoding": coding | ({"display": display} if code in _DISPLAYS else {})})
    text = {"url": "text", "valueString": ", ".join(filter(None, (text["valueString"], display)))}
    found["extension"] = [*parts, text]
    return True


def _static_coding(system: str, code: str) -> dict[str, str]:
    return {"system": SYSTEMS["NULLFLAVOR" if code in NULL_FLAVORS else system], "code": code}


def _set_race(patient: Resource, code: str) -> bool:
    return _add_category(patient, "us-core-race", code)


def _set_ethnicity(patient: Resource, code: str) -> bool:
    return _add_category(patient, "us-core-ethnicity", code)


def _set_birth_sex(patient: Resource, code: str) -> bool:
    patient.setdefault("extension", []).append({"url": f"{US_CORE}us-core-birthsex", "valueCode": code})
    return True


def _set_marital(patient: Resource, code: str) -> bool:
    patient["maritalStatus"] = {"coding": [_static_coding("MARITALSTATUS", code)]}
    return True


def _add_language(patient: Resource, code: str) -> bool:
    language = {"coding": [_static_coding("BCP47", code)]}
    patient.setdefault("communication", []).append({"language": language})
    return True


def _set_deceased(patient: Resource, code: str) -> bool:
    patient["deceasedBoolean"] = code == "true"
    return True


_WRITERS: dict[str, Callable[[Resource, str], bool]] = {
    "GENDER": _set_gender,
    "RACE": _set_race,
    "ETHNICITY": _set_ethnicity,
    "BIRTHSEX": _set_birth_sex,
    "MARITAL": _set_marital,
    "LANGUAGE": _add_language,
    "DECEASED": _set_deceased,
}
