"""A record of eleven events, an Athena download of twenty-two concepts, and readers of what was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.events import EVENT_SCHEMA, Event, events_to_table, sort_events, table_to_events
from medtwin.core.files import write_table
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.fhir.terms import is_result_word, is_unit_word
from medtwin.omop import Books, OmopOptions, OmopReader, OmopSource, Words, export_omop

RELEASED = date(2024, 1, 2)
BIRTH = Event(7, datetime(1960, 5, 1), "MEDS_BIRTH", time_precision="month", resource="Patient")
FACTS = [
    Event(7, None, "GENDER//F", resource="Patient"),
    Event(7, None, "RACE//2106-3", resource="Patient"),
    Event(7, None, "ETHNICITY//2186-5", resource="Patient"),
    Event(7, None, "LANGUAGE//en", resource="Patient"),
]
STAY = Event(
    7,
    datetime(2020, 3, 1, 8, 30),
    "SNOMED//185347001",
    encounter_id="e1",
    event_id="e1",
    end_time=datetime(2020, 3, 5, 12),
    status="finished",
    time_precision="second+00:00",
    resource="Encounter",
)
WARD = dataclasses.replace(
    STAY, time=datetime(2020, 3, 2), code="SNOMED//225351009", event_id="e2", encounter_id="e2", end_time=None
)


def clinical(code: str, resource: str, event_id: str, **more: Any) -> Event:
    """An event of the first stay, on 1 March 2020 at nine."""
    base = Event(
        7,
        datetime(2020, 3, 1, 9),
        code,
        encounter_id="e1",
        event_id=event_id,
        time_precision="second+00:00",
        resource=resource,
    )
    return dataclasses.replace(base, **more)


DIABETES = clinical("ICD10CM//E11.9", "Condition", "c1", status="confirmed", end_time=datetime(2020, 3, 4))
PRESSURE = clinical("LOINC//85354-9", "Observation", "o1", status="final")
SYSTOLIC = dataclasses.replace(
    PRESSURE, code="LOINC//8480-6", event_id="o1.1", parent_id="o1", numeric_value=128.5, unit="mm[Hg]"
)
GLUCOSE = clinical("LOINC//2345-7", "Observation", "o2", status="final", numeric_value=7.1, unit="mmol/L")
ORDER = clinical("RXNORM//860975", "MedicationRequest", "m1", status="active")
REFUTED = clinical("NEGATED//SNOMED//22298006", "Condition", "c2", status="refuted")


def record() -> list[Event]:
    """The whole record of subject 7, with the child rows of its events."""
    return [
        BIRTH,
        *FACTS,
        STAY,
        STAY.child("class", "ACTCODE//IMP"),
        STAY.child("hospitalization.dischargeDisposition", "DISCHARGE//home"),
        WARD,
        WARD.child("partOf", text_value="e1"),
        DIABETES,
        DIABETES.child("category", "CONDCATEGORY//problem-list-item"),
        DIABETES.child("clinicalStatus", "CONDCLINICAL//active"),
        PRESSURE,
        PRESSURE.child("category", "OBSCATEGORY//vital-signs"),
        SYSTOLIC,
        GLUCOSE,
        GLUCOSE.child("referenceRange.low", numeric_value=3.9, unit="mmol/L"),
        GLUCOSE.child("referenceRange.high", numeric_value=100, unit="mg/dL"),
        GLUCOSE.child("comparator", text_value=">"),
        ORDER,
        ORDER.child("dosageInstruction.route", "SNOMED//26643006"),
        ORDER.child("dosageInstruction.doseAndRate.doseQuantity", numeric_value=500, unit="mg"),
        ORDER.child("dispenseRequest.expectedSupplyDuration", numeric_value=30, unit="d"),
        REFUTED,
        REFUTED.child("category", "CONDCATEGORY//problem-list-item"),
        Event(7, datetime(2021, 6, 2), "MEDS_DEATH", time_precision="day", resource="Patient"),
    ]


def dataset_of(folder: Path, events: Iterable[Event]) -> Dataset:
    """A dataset of one shard, without splits."""
    write_table(folder / "data" / "0.parquet", sort_events(events_to_table(events)).cast(EVENT_SCHEMA))
    return open_dataset(folder)


def export(dataset: Dataset, folder: Path, **options: Any) -> Books:
    """Writes the tables; returns the books."""
    *_, books = export_omop(dataset, folder, OmopOptions(released=RELEASED, **options))
    assert isinstance(books, Books)
    return books


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table that was written."""
    read: list[dict[str, Any]] = pq.ParquetFile(folder / f"{table}.parquet").read().to_pylist()
    return read


def set_columns(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that have a value."""
    return {name: value for name, value in row.items() if value is not None}


def read_back(path: Path, vocab: Path | None = None, *, weeks: int = 0) -> tuple[list[Event], Ledger, OmopReader]:
    """The events of a CDM, sorted; by a fixed key and, unless asked for, with dates as they are."""
    ledger = Ledger()
    reader = OmopReader(
        OmopSource(path), Pseudonyms(b"k" * 32, weeks), ledger, Words(is_result_word, is_unit_word), vocab
    )
    table = pa.concat_tables(reader.tables())
    return table_to_events(sort_events(table)), ledger, reader


# concept_id, name, domain, vocabulary, class, standard, code, invalid_reason. Ids and names are those of Athena where
# they matter to nobody; the maps are made up so that each kind of map stands here once.
_CONCEPTS = """
45591027|Type 2 diabetes without complications|Condition|ICD10CM|5-char billing code||E11.9|
201826|Type 2 diabetes mellitus|Condition|SNOMED|Disorder|S|44054006|
45548653|Family history of diabetes|Observation|ICD10CM|4-char billing code||Z83.3|
4167217|Family history of clinical finding|Observation|SNOMED|Context-dependent|S|416471007|
1001|Diabetic kidney complication|Condition|ICD10CM|5-char billing code||E11.21|
1002|Disorder of kidney due to diabetes|Condition|SNOMED|Disorder|S|127013003|
1003|Microalbuminuria finding|Measurement|SNOMED|Clinical Finding|S|312975006|
1004|Old code|Condition|ICD10CM|5-char billing code||E11.99|D
1005|Withdrawn disorder|Condition|SNOMED|Disorder||9999|U
3004249|Systolic blood pressure|Measurement|LOINC|Clinical Observation|S|8480-6|
3004501|Glucose [Mass/volume] in Serum or Plasma|Measurement|LOINC|Lab Test|S|2345-7|
3005|Blood pressure panel|Measurement|LOINC|Clinical Observation|S|85354-9|
40163924|metformin hydrochloride 500 MG Oral Tablet|Drug|RxNorm|Clinical Drug|S|860975|
1006|Penicillin|Drug|RxNorm|Ingredient|S|7980|
4132161|Oral|Route|SNOMED|Qualifier Value|S|26643006|
8876|millimeter mercury column|Unit|UCUM|Unit|S|mm[Hg]|
8753|millimole per liter|Unit|UCUM|Unit|S|mmol/L|
9188|Positive|Meas Value|SNOMED|Qualifier Value|S|10828004|
1007|Quoted "name" in a test|Condition|ICD9CM|4-dig billing code||250.00|
1008|Glucose strip|Device|NDC|11-digit NDC|S|00193146821|
1009|Hemodialysis procedure|Procedure|SNOMED|Procedure|S|302497006|
1010|Hemodialysis|Observation|CPT4|CPT4||90935|
"""
_LINKS = """
45591027|201826|Maps to|
45548653|4167217|Maps to|
45548653|201826|Maps to value|
1001|1002|Maps to|
1001|1003|Maps to|
1004|201826|Maps to|
1004|1002|Maps to|D
1005|201826|Maps to|D
1007|201826|Maps to|
1007|1005|Maps to|
1010|1009|Maps to|
201826|45591027|Mapped from|
"""


def write_athena(folder: Path) -> Path:
    """Writes the download as Athena does: tab separated, no quoting, dates as digits."""
    folder.mkdir(parents=True)
    names = ["concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "standard_concept"]
    lines = ["\t".join([*names, "concept_code", "valid_start_date", "valid_end_date", "invalid_reason"])]
    for row in _CONCEPTS.strip().splitlines():
        *values, code, invalid = row.split("|")
        lines.append("\t".join([*values, code, "19700101", "20991231", invalid]))
    (folder / "CONCEPT.csv").write_text("\n".join(lines) + "\n")
    lines = ["concept_id_1\tconcept_id_2\trelationship_id\tvalid_start_date\tvalid_end_date\tinvalid_reason"]
    for row in _LINKS.strip().splitlines():
        first, second, relationship, invalid = row.split("|")
        lines.append("\t".join([first, second, relationship, "19700101", "20991231", invalid]))
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text("\n".join(lines) + "\n")
    (folder / "VOCABULARY.csv").write_text(
        "vocabulary_id\tvocabulary_name\tvocabulary_reference\tvocabulary_version\tvocabulary_concept_id\n"
        "None\tOMOP Standardized Vocabularies\tOMOP generated\tv5.0 29-FEB-24\t44819096\n"
    )
    return folder
