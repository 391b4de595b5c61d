"""A Patient as static rows, birth and death; `medtwin.fhir.writing.patient` is the inverse."""

from __future__ import annotations

from typing import Any

from medtwin.core.codes import AGE_CAPPED, BIRTH, DEATH, GENDERS
from medtwin.fhir.codings import as_list, as_object, coding_code
from medtwin.fhir.reading.details import Draft, RejectedError
from medtwin.fhir.terms import words
from medtwin.fhir.times import Moment
from medtwin.fhir.writing.patient import NULL_FLAVORS, TAG_SYSTEM, US_CORE

_GENDER_CODES = {word: code for code, word in GENDERS.items()}
# Which systems the codes of a static row come from; a null flavour stands beside them.
_ROW_SYSTEMS = {"RACE": "OMB", "ETHNICITY": "OMB", "MARITAL": "MARITALSTATUS", "LANGUAGE": "BCP47"}
_EXTENSIONS = {"us-core-race": "RACE", "us-core-ethnicity": "ETHNICITY"}
_BIRTH_SEXES = ("F", "M", "OTH", "UNK", "ASKU")
_READ_ELEMENTS = words(
    "resourceType id gender birthDate deceasedBoolean deceasedDateTime maritalStatus communication extension"
)


def patient_facts(patient: dict[str, Any], draft: Draft) -> list[tuple[str, Moment | None]]:
    """What a Patient says of a person, as codes, each with its time: static facts, then birth and death.

    Raises:
        RejectedError, ShapeError: If an element that is read is malformed.
    """
    for name in patient:
        if name not in _READ_ELEMENTS:
            draft.leave("Patient", name)
    codes = [*_gender(patient), *_extension_codes(patient, draft), *_marital(patient, draft)]
    codes += [*_languages(patient, draft), *_tags(patient)]
    deceased = patient.get("deceasedBoolean")
    if deceased is not None and not isinstance(deceased, bool):
        raise RejectedError("malformed-resource", "Patient.deceasedBoolean must be true or false")
    if deceased:
        codes.append("DECEASED//true")
    facts: list[tuple[str, Moment | None]] = [(code, None) for code in dict.fromkeys(codes)]
    for name, code in (("birthDate", BIRTH), ("deceasedDateTime", DEATH)):
        if patient.get(name) is not None:
            facts.append((code, draft.moment(patient[name], f"Patient.{name}")))
    return facts


def _gender(patient: dict[str, Any]) -> list[str]:
    gender = patient.get("gender")
    if gender is None:
        return []
    if not isinstance(gender, str) or gender not in _GENDER_CODES:
        words = ", ".join(sorted(_GENDER_CODES))
        raise RejectedError("malformed-resource", f"Patient.gender must be one of {words}")
    return [_GENDER_CODES[gender]]


def _extension_codes(patient: dict[str, Any], draft: Draft) -> list[str]:
    codes = []
    for extension in as_list(patient.get("extension"), "Patient.extension"):
        url = as_object(extension, "Patient.extension").get("url")
        name = url.removeprefix(US_CORE) if isinstance(url, str) else ""
        if name in _EXTENSIONS:
            codes += _omb_codes(_EXTENSIONS[name], extension, draft)
        elif name == "us-core-birthsex" and extension.get("valueCode") in _BIRTH_SEXES:
            codes.append(f"BIRTHSEX//{extension['valueCode']}")
        else:
            draft.left.append("Patient.extension")
    return codes


def _omb_codes(row: str, extension: dict[str, Any], draft: Draft) -> list[str]:
    codes = []
    for inner in as_list(extension.get("extension"), "Patient.extension.extension"):
        is_category = as_object(inner, "Patient.extension.extension").get("url") in ("ombCategory", "detailed")
        code = _row_code(row, inner.get("valueCoding"), "Patient.extension.valueCoding") if is_category else None
        if code is None:
            draft.left.append("Patient.extension.extension")
        else:
            codes.append(code)
    return codes


def _row_code(row: str, coding: Any, path: str) -> str | None:
    """`RACE//2106-3` of a coding, if it is of the row's code system or a null flavour."""
    if coding is None:
        return None
    code = coding_code(coding, path)
    if code is None:
        return None
    system, _, bare = code.partition("//")
    if system == _ROW_SYSTEMS[row] or (system == "NULLFLAVOR" and bare in NULL_FLAVORS):
        return f"{row}//{bare}"
    return None


def _concept_rows(row: str, concept: Any, path: str, draft: Draft) -> list[str]:
    codes = []
    for coding in as_list(as_object(concept, path).get("coding"), f"{path}.coding"):
        code = _row_code(row, coding, f"{path}.coding")
        if code is None:
            draft.leave(path, "coding")
        else:
            codes.append(code)
    draft.leave_all(concept, ("coding",), path)
    return codes[:1]


def _marital(patient: dict[str, Any], draft: Draft) -> list[str]:
    status = patient.get("maritalStatus")
    return [] if status is None else _concept_rows("MARITAL", status, "Patient.maritalStatus", draft)


def _languages(patient: dict[str, Any], draft: Draft) -> list[str]:
    codes = []
    for each in as_list(patient.get("communication"), "Patient.communication"):
        language = as_object(each, "Patient.communication").get("language")
        if language is not None:
            codes += _concept_rows("LANGUAGE", language, "Patient.communication.language", draft)
        draft.leave_all(each, ("language",), "Patient.communication")
    return codes


def _tags(patient: dict[str, Any]) -> list[str]:
    meta = patient.get("meta")
    tags = meta.get("tag") if isinstance(meta, dict) else None
    ours = {"system": TAG_SYSTEM, "code": AGE_CAPPED.partition("//")[2]}
    return [AGE_CAPPED] if isinstance(tags, list) and ours in tags else []
