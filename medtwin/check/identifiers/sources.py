"""Collects a source's own identifiers: from FHIR resources of people, from DICOM headers, from a dataset's own ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.check.identifiers.known import TEXT_WORDS, Known
from medtwin.check.identifiers.words import words_of
from medtwin.core.dataset import Dataset
from medtwin.core.disclosure import SMALLEST_CELL
from medtwin.core.errors import SourceError
from medtwin.dicom.reading.texts import element_texts, read_whole

THINGS = ("Device", "Medication", "Substance", "Organization", "Location", "Provenance", "CodeSystem", "ValueSet")
"""Resources whose ids are of no patient."""
PEOPLE = ("Patient", "RelatedPerson", "Person", "Practitioner")
_DICOM_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "IssuerOfPatientID")
_DICOM_CONTACTS = ("PatientTelephoneNumbers", "PersonTelephoneNumbers", "PatientTelecomInformation")
_DICOM_NOTES = ("PatientComments", "ImageComments", "AdditionalPatientHistory", "StudyComments", "TextValue")
_NOTES = ("note", "text", "conclusion", "valueString", "comment", "description")


def add_resource(known: Known, resource: Mapping[str, Any], notes: Counter[str]) -> None:
    """Takes a FHIR resource: who it is of; what was written about them is counted in `notes`."""
    kind = resource.get("resourceType")
    if kind == "Bundle":
        for entry in _objects(resource.get("entry")):
            add_resource(known, entry.get("resource") or {}, notes)
        return
    if kind in THINGS:
        return
    for identifier in _objects(resource.get("identifier")):
        if isinstance(value := identifier.get("value"), str):
            known.add_number(value)
            if value.startswith("urn:oid:"):
                known.add_uid(value)
    if isinstance(name := resource.get("id"), str):
        known.add_number(name)
    if kind in PEOPLE:
        _add_person(known, resource)
    notes.update(_notes(resource))


def _add_person(known: Known, person: Mapping[str, Any]) -> None:
    contacts = _objects(person.get("contact"))
    for one in (person, *contacts):
        names = one.get("name")
        for name in _objects(names if isinstance(names, list) else [names]):
            given = [part for part in name.get("given") or () if isinstance(part, str)]
            known.add_name(str(name.get("family") or ""), *given)
            if not name.get("family") and isinstance(name.get("text"), str):
                known.add_name(name["text"])
        for point in _objects(one.get("telecom")):
            known.add_contact(str(point.get("value") or ""))
        places = one.get("address")
        for place in _objects(places if isinstance(places, list) else [places]):
            for line in place.get("line") or ():
                known.add_address(str(line))
    if person.get("resourceType") == "Patient" and isinstance(born := person.get("birthDate"), str):
        known.add_birth_date(born)


def add_dicom(known: Known, path: Path) -> None:
    """Takes the header of a DICOM file; a file that is none is passed over."""
    try:
        for name, form, text in element_texts(read_whole(path)):
            keyword = name.rpartition(".")[2]
            if keyword in _DICOM_NUMBERS:
                known.add_number(text)
            elif form == "PN":
                known.add_name(text)
            elif keyword in _DICOM_CONTACTS:
                known.add_contact(text)
            elif keyword == "PatientAddress":
                known.add_address(text)
            elif keyword == "PatientBirthDate" and len(text) == 8:
                known.add_birth_date(f"{text[:4]}-{text[4:6]}-{text[6:]}")
            elif form == "UI" and not text.startswith("1.2.840.10008.") and keyword.endswith("InstanceUID"):
                known.add_uid(text)
            elif keyword in _DICOM_NOTES or form in ("LT", "UT"):
                known.add_text(text)
    except SourceError:
        return


def add_dataset(known: Known, dataset: Dataset) -> None:
    """Takes what a dataset itself says of single subjects: ids of subjects, events and series, and rare texts.

    A text counts where fewer than `SMALLEST_CELL` subjects have it: what many have is nobody's.
    """
    known.add_subjects(dataset.subject_splits())
    for row in dataset.images().select(["study_uid", "series_uid"]).to_pylist():
        for uid in filter(None, row.values()):
            known.add_uid(uid)
    bearers: dict[str, set[int]] = {}
    for table in dataset.iter_events():
        for name in ("event_id", "encounter_id"):
            for one in pc.unique(table[name]).drop_null().to_pylist():
                known.add_number(one)
        for subject, text in _long_texts(table):
            bearers.setdefault(text, set()).add(subject)
    for text, subjects in bearers.items():
        if len(subjects) < SMALLEST_CELL:
            known.add_text(text)


def _long_texts(table: pa.Table) -> Iterator[tuple[int, str]]:
    """Subject and text of every text that is long enough to be somebody's."""
    texts = table.select(["subject_id", "text_value"]).filter(pc.is_valid(table["text_value"]))
    texts = texts.set_column(1, "text_value", texts["text_value"].cast(pa.string()))
    for row in texts.group_by(["subject_id", "text_value"], use_threads=False).aggregate([]).to_pylist():
        if len(words_of(row["text_value"])) >= TEXT_WORDS:
            yield row["subject_id"], row["text_value"]


def add_files(known: Known, paths: Iterable[Path]) -> None:
    """Takes the files of a source as they came: FHIR JSON and NDJSON, DICOM.

    Of texts, those count that stand there fewer than `SMALLEST_CELL` times: what stands there often is a form's.
    """
    notes: Counter[str] = Counter()
    for path in paths:
        if path.suffix.lower() in (".json", ".ndjson", ".jsonl"):
            for resource in _resources(path):
                add_resource(known, resource, notes)
        else:
            add_dicom(known, path)
    for text, count in notes.items():
        if count < SMALLEST_CELL:
            known.add_text(text)


def _resources(path: Path) -> Iterator[Mapping[str, Any]]:
    data = path.read_bytes()
    for part in [data] if path.suffix.lower() == ".json" else data.splitlines():
        try:
            resource = orjson.loads(part) if part.strip() else None
        except orjson.JSONDecodeError:
            continue
        if isinstance(resource, dict):
            yield resource


def _notes(resource: Mapping[str, Any]) -> Iterator[str]:
    """What was written: notes, narratives, conclusions, answers in words; displays of codes are nobody's."""
    for name in _NOTES:
        value = resource.get(name)
        for one in value if isinstance(value, list) else [value]:
            text = (one.get("text") or one.get("div")) if isinstance(one, dict) else one
            if isinstance(text, str):
                yield text


def _objects(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
