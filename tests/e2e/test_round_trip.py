"""Embedded hospital -> FHIR and DICOM -> ingest gives back the same events and pixels, under other names and dates.

Exceptions, all stated in docs/conventions.md: the birth of subjects who are over 89 at their last event.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medtwin.core.codes import AGE_CAPPED, BIRTH
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import DatasetError
from medtwin.core.events import Event, table_to_events
from medtwin.core.files import read_json
from medtwin.core.pseudonyms import Pseudonyms, load_or_create_key
from medtwin.dicom import open_series, validate_series
from medtwin.fhir import validate_references, validate_resource
from medtwin.hospital import simulate_subject
from medtwin.pipelines.export_fhir import ResourceChecker
from tests.e2e.conftest import Medtwin

NUM_SUBJECTS, SEED = 40, 3


@pytest.fixture(scope="module")
def ingested(dataset: Path) -> Dataset:
    return open_dataset(dataset)


@pytest.fixture(scope="module")
def pseudonyms(dataset: Path) -> Pseudonyms:
    return Pseudonyms(load_or_create_key(dataset.with_name("dataset.private") / "key"))


@pytest.fixture(scope="module")
def source() -> list[list[Event]]:
    return [simulate_subject(SEED, index).events for index in range(NUM_SUBJECTS)]


def renamed(events: list[Event], pseudonyms: Pseudonyms) -> Iterator[Event]:
    """The events of one subject as ingest should give them."""
    resource_of = {event.event_id: event.resource for event in events if event.event_id and not event.parent_id}
    subject = pseudonyms.subject_id(f"mr:{events[0].subject_id}")
    shift = pseudonyms.shift(subject)

    def new_id(name: str | None) -> str | None:
        if name is None:
            return None
        root, dot, number = name.partition(".")
        return pseudonyms.event_id(str(resource_of[root]), root) + dot + number

    def new_text(text: str | None) -> str | None:
        if text in resource_of:
            return new_id(text)
        if text is not None and text.startswith("2.25."):
            return pseudonyms.uid(text)
        if text is not None and len(text) == 10 and text[4] == text[7] == "-":
            return (date.fromisoformat(text) + shift).isoformat()
        return text

    for event in events:
        value = event.numeric_value
        yield replace(
            event,
            subject_id=subject,
            time=None if event.time is None else event.time + shift,
            end_time=None if event.end_time is None else event.end_time + shift,
            event_id=new_id(event.event_id),
            parent_id=new_id(event.parent_id),
            encounter_id=new_id(event.encounter_id),
            text_value=new_text(event.text_value),
            numeric_value=None if value is None else float(np.float32(value)),
        )


def comparable(event: Event) -> tuple[object, ...]:
    value = event.numeric_value
    return tuple(
        None
        if value is None and name == "numeric_value"
        else round(float(np.float32(value)), 9)
        if name == "numeric_value" and value is not None
        else getattr(event, name)
        for name in Event.__slots__
    )


def test_every_event_comes_back_under_its_pseudonym(
    ingested: Dataset, pseudonyms: Pseudonyms, source: list[list[Event]]
) -> None:
    found = Counter(map(comparable, table_to_events(ingested.events())))
    wanted = Counter(comparable(event) for events in source for event in renamed(events, pseudonyms))
    capped = {row[0] for row in found if row[2] == AGE_CAPPED}
    missing = [row for row in (wanted - found).elements() if not (row[2] == BIRTH and row[0] in capped)]
    added = [row for row in (found - wanted).elements() if not (row[2] in (BIRTH, AGE_CAPPED) and row[0] in capped)]
    assert missing[:5] == []
    assert added[:5] == []
    assert sum(found.values()) > 4000


def test_the_private_map_joins_the_two_and_stays_outside(
    dataset: Path, ingested: Dataset, pseudonyms: Pseudonyms
) -> None:
    path = dataset.with_name("dataset.private") / "identities.csv"
    assert path.stat().st_mode & 0o077 == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {int(row["subject_id"]) for row in rows} == set(ingested.subject_splits())
    assert all(pseudonyms.subject_id(row["identity"]) == int(row["subject_id"]) for row in rows)
    assert not list(dataset.rglob("*identit*"))
    assert not list(dataset.rglob("key"))


def test_pixels_are_bit_equal_and_images_stand_on_the_shifted_date_of_their_study(
    hospital: Path, ingested: Dataset, pseudonyms: Pseudonyms
) -> None:
    copies = {}
    for row in ingested.images().to_pylist():
        for path in sorted((ingested.path / row["path"]).glob("*.dcm")):
            copies[pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID] = (path, row)
    originals = sorted((hospital / "dicom").rglob("*.dcm"))
    assert len(originals) == len(copies) > 15
    for path in originals:
        original = pydicom.dcmread(path)
        copy_path, row = copies[pseudonyms.uid(original.SOPInstanceUID)]
        copy = pydicom.dcmread(copy_path)
        assert copy.PixelData == original.PixelData
        subject = pseudonyms.subject_id(f"mr:{original.PatientID}")
        taken = datetime.strptime(original.StudyDate + original.StudyTime[:6], "%Y%m%d%H%M%S")  # noqa: DTZ007 (the offset is checked to be UTC below)
        assert row["subject_id"] == subject == int(copy.PatientID)
        assert row["time"] == taken + pseudonyms.shift(subject)
        assert original.TimezoneOffsetFromUTC == "+0000"
        assert copy.SyntheticData == "YES"


def test_the_record_of_an_image_is_that_of_its_subject(ingested: Dataset) -> None:
    events = table_to_events(ingested.events())
    time_of = {e.text_value: (e.subject_id, e.time) for e in events if e.code == "FHIR//ImagingStudy.studyInstanceUID"}
    rows = ingested.images().to_pylist()
    assert {row["study_uid"] for row in rows} <= set(time_of)
    assert all(time_of[row["study_uid"]] == (row["subject_id"], row["time"]) for row in rows)


def test_images_bear_the_findings_that_their_report_concludes(ingested: Dataset, pseudonyms: Pseudonyms) -> None:
    labels = {row["series_uid"]: row["labels"] for row in ingested.images().to_pylist()}
    orders = [order for index in range(NUM_SUBJECTS) for order in simulate_subject(SEED, index).image_orders]
    assert {pseudonyms.uid(order.series_uid): list(order.labels) for order in orders} == labels
    assert any(labels.values())


def test_the_dataset_is_valid_and_its_books_balance(ingested: Dataset, medtwin: Medtwin) -> None:
    assert ingested.validate() == []
    assert ingested.origin == "simulated"
    counts = read_json(ingested.path / "counts.json")
    assert counts["rejected"] == {}
    for kind, number in counts["read"].items():
        assert number == counts["carried"].get(kind, 0) + counts["not_carried"].get(kind, 0)
    assert "is valid" in medtwin("validate", f"dataset={ingested.path}").stdout


def test_every_resource_of_an_export_is_valid_and_refers_to_what_is_there(
    dataset: Path, medtwin: Medtwin, tmp_path: Path
) -> None:
    medtwin("export", f"dataset={dataset}", f"out={tmp_path / 'e'}", "formats=[fhir]", "fhir.check=all")
    counts = read_json(tmp_path / "e" / "counts.json")["fhir"]
    written = sum(number for kind, number in counts.items() if kind.isalpha())
    assert counts["checked by schema"] == counts["checked by rules"] == counts["checked by models"] == written > 5000
    assert not [kind for kind in counts if kind.startswith(("error", "warning", "not carried"))]
    files = sorted((tmp_path / "e" / "fhir").glob("*.ndjson"))
    resources = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    assert validate_references(resources) == []
    shared = [each for each in resources if each["resourceType"] in ("Device", "Provenance")]
    assert [finding for each in shared for finding in validate_resource(each) if finding.severity == "error"] == []


def test_a_resource_that_is_no_fhir_stops_the_export() -> None:
    checker = ResourceChecker("sample")
    with pytest.raises(DatasetError, match="it would write an invalid resource"):
        checker([{"resourceType": "Observation", "id": "a", "status": "final", "code": "x"}])


def test_every_series_is_valid_dicom(ingested: Dataset) -> None:
    for row in ingested.images().to_pylist()[:12]:
        series = open_series(ingested.path / row["path"])
        datasets = [pydicom.dcmread(instance.path) for instance in series.instances]
        assert [finding for finding in validate_series(datasets) if finding.severity == "error"] == []


def test_a_second_hospital_of_the_same_seed_is_the_same(hospital: Path, medtwin: Medtwin, tmp_path: Path) -> None:
    out = tmp_path / "hospital"
    medtwin("hospital", f"n={NUM_SUBJECTS}", f"seed={SEED}", "workers=2", f"out={out}")
    assert (out / "manifest.json").read_bytes() == (hospital / "manifest.json").read_bytes()


def test_more_patients_do_not_change_the_first_ones(hospital: Path, medtwin: Medtwin, tmp_path: Path) -> None:
    medtwin("hospital", f"n={NUM_SUBJECTS + 5}", f"seed={SEED}", "images=false", f"out={tmp_path / 'more'}")
    few = (hospital / "fhir" / "Observation.ndjson").read_text().splitlines()
    more = (tmp_path / "more" / "fhir" / "Observation.ndjson").read_text().splitlines()
    assert more[: len(few)] == few
    assert len(more) > len(few)


def test_dates_move_by_weeks_and_no_date_stays(hospital: Path, ingested: Dataset, pseudonyms: Pseudonyms) -> None:
    shifts = {pseudonyms.shift(subject) for subject in ingested.subject_splits()}
    assert timedelta(0) not in shifts
    assert len(shifts) > NUM_SUBJECTS / 2
