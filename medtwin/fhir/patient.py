"""A Patient as static rows, birth and death; and back."""

from __future__ import annotations

from typing import Any

from medtwin.core.codes import AGE_CAPPED, BIRTH, DEATH, GENDERS, SYSTEMS
from medtwin.core.events import Event
from medtwin.fhir.codings import as_list, as_object, coding_code
from medtwin.fhir.details import Draft, RejectedError
from medtwin.fhir.terms import words
from medtwin.fhir.times import format_moment

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
TAG_SYSTEM = "urn:medtwin:tag"
MR_TYPE = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}
# Our name for a subject's number, whatever it stands for in the source.
SUBJECT_SYSTEM = "urn:medtwin:subject"
_GENDER_CODES = {word: code for code, word in GENDERS.items()}
_UNKNOWN = frozenset({"UNK", "ASKU", "OTH"})
# Which systems the codes of a static row come from; a null flavour stands beside them.
_ROW_SYSTEMS = {"RACE": "OMB", "ETHNICITY": "OMB", "MARITAL": "MARITALSTATUS", "LANGUAGE": "BCP47"}
_EXTENSIONS = {"us-core-race": "RACE", "us-core-ethnicity": "ETHNICITY"}
_OMB_DISPLAY = {
    "1002-5": "American Indian or Alaska Native",
    "2028-9": "Asian",
    "2054-5": "Black or African American",
    "2076-8": "Native Hawaiian or Other Pacific Islander",
    "2106-3": "White",
    "2131-1": "Other Race",
    "2135-2": "Hispanic or Latino",
    "2186-5": "Not Hispanic or Latino",
}
_BIRTH_SEXES = ("F", "M", "OTH", "UNK", "ASKU")
_READ_ELEMENTS = words(
    "resourceType id gender birthDate deceasedBoolean deceasedDateTime maritalStatus communication extension"
)


def patient_rows(patient: dict[str, Any], subject_id: int, draft: Draft) -> None:
    """Appends the rows of a Patient: what is known of the person, birth, death.

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
    draft.rows += [Event(subject_id, None, code, resource="Patient") for code in dict.fromkeys(codes)]
    for name, code in (("birthDate", BIRTH), ("deceasedDateTime", DEATH)):
        if patient.get(name) is not None:
            moment = draft.moment(patient[name], f"Patient.{name}")
            draft.rows.append(Event(subject_id, moment.time, code, time_precision=moment.precision, resource="Patient"))


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
        is_category = as_object(inner, "Patient.extension.extension").get("url") == "ombCategory"
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
    if system == _ROW_SYSTEMS[row] or (system == "NULLFLAVOR" and bare in _UNKNOWN):
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


def patient_id(subject_id: int) -> str:
    """The FHIR id of a subject's Patient; the word keeps it from being purely numeric."""
    return f"subject-{subject_id}"


def is_patient_row(event: Event) -> bool:
    """Whether a row states a fact that a Patient has an element for."""
    word = event.code.partition("//")[0]
    return event.code in (BIRTH, DEATH, AGE_CAPPED) or (event.time is None and word in _WRITERS)


def rows_to_patient(subject_id: int, rows: list[Event]) -> dict[str, Any]:
    """The Patient of a subject; `rows` are those that `is_patient_row` accepts."""
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "id": patient_id(subject_id),
        "identifier": [
            {"type": {"coding": [MR_TYPE]}, "system": SUBJECT_SYSTEM, "value": str(subject_id)},
        ],
    }
    for row in rows:
        word, _, code = row.code.partition("//")
        if row.time is not None and row.code == BIRTH:
            patient["birthDate"] = _date_of(row)
        elif row.time is not None and row.code == DEATH:
            patient["deceasedDateTime"] = format_moment(row.time, row.time_precision)
        elif row.code == AGE_CAPPED:
            patient["meta"] = {"tag": [{"system": TAG_SYSTEM, "code": code}]}
        elif word in _WRITERS:
            _WRITERS[word](patient, code)
    if "deceasedDateTime" in patient:
        patient.pop("deceasedBoolean", None)
    return patient


def _date_of(row: Event) -> str:
    """The date of a birth: never more precise than a day."""
    precision = row.time_precision or "day"
    text = format_moment(row.time, precision) if row.time is not None else ""
    return text[:10]


def _set_gender(patient: dict[str, Any], code: str) -> None:
    patient["gender"] = GENDERS.get(f"GENDER//{code}", "unknown")


def _omb_extension(patient: dict[str, Any], name: str, code: str) -> None:
    """Adds a category to a US Core extension, which demands a text too."""
    url = US_CORE + name
    extensions = patient.setdefault("extension", [])
    found = next((each for each in extensions if each["url"] == url), None)
    coding = _static_coding("OMB", code)
    display = _OMB_DISPLAY.get(code, "Unknown")
    if found is None:
        extensions.append({"url": url, "extension": [{"url": "text", "valueString": display}]})
        found = extensions[-1]
    found["extension"].insert(-1, {"url": "ombCategory", "valueCoding": coding | {"display": display}})


def _static_coding(system: str, code: str) -> dict[str, str]:
    return {"system": SYSTEMS["NULLFLAVOR" if code in _UNKNOWN else system], "code": code}


def _set_race(patient: dict[str, Any], code: str) -> None:
    _omb_extension(patient, "us-core-race", code)


def _set_ethnicity(patient: dict[str, Any], code: str) -> None:
    _omb_extension(patient, "us-core-ethnicity", code)


def _set_birth_sex(patient: dict[str, Any], code: str) -> None:
    patient.setdefault("extension", []).append({"url": f"{US_CORE}us-core-birthsex", "valueCode": code})


def _set_marital(patient: dict[str, Any], code: str) -> None:
    patient["maritalStatus"] = {"coding": [_static_coding("MARITALSTATUS", code)]}


def _add_language(patient: dict[str, Any], code: str) -> None:
    language = {"coding": [_static_coding("BCP47", code)]}
    patient.setdefault("communication", []).append({"language": language})


def _set_deceased(patient: dict[str, Any], code: str) -> None:
    patient["deceasedBoolean"] = code == "true"


_WRITERS = {
    "GENDER": _set_gender,
    "RACE": _set_race,
    "ETHNICITY": _set_ethnicity,
    "BIRTHSEX": _set_birth_sex,
    "MARITAL": _set_marital,
    "LANGUAGE": _add_language,
    "DECEASED": _set_deceased,
}
