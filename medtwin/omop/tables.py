"""The tables of OMOP CDM 5.4 that medtwin writes and reads: columns in their order, types, what may be null."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

CDM_VERSION = "v5.4"

# One line per table: `name: column type, ...`; `!` marks NOT NULL. Types: `key` integer that numbers or names a row,
# `int` other integers and concepts, `date`, `time` datetime, `num` numeric, `text`, and `s50` varchar(50).
# Source: OHDSI/CommonDataModel v5.4, inst/csv/OMOP_CDMv5.4_Field_Level.csv and the PostgreSQL DDL made from it.
_SPECIFICATION = """
person: person_id key!, gender_concept_id int!, year_of_birth int!, month_of_birth int, day_of_birth int,
  birth_datetime time, race_concept_id int!, ethnicity_concept_id int!, location_id key, provider_id key,
  care_site_id key, person_source_value s50, gender_source_value s50, gender_source_concept_id int,
  race_source_value s50, race_source_concept_id int, ethnicity_source_value s50, ethnicity_source_concept_id int
observation_period: observation_period_id key!, person_id key!, observation_period_start_date date!,
  observation_period_end_date date!, period_type_concept_id int!
visit_occurrence: visit_occurrence_id key!, person_id key!, visit_concept_id int!, visit_start_date date!,
  visit_start_datetime time, visit_end_date date!, visit_end_datetime time, visit_type_concept_id int!,
  provider_id key, care_site_id key, visit_source_value s50, visit_source_concept_id int,
  admitted_from_concept_id int, admitted_from_source_value s50, discharged_to_concept_id int,
  discharged_to_source_value s50, preceding_visit_occurrence_id key
visit_detail: visit_detail_id key!, person_id key!, visit_detail_concept_id int!, visit_detail_start_date date!,
  visit_detail_start_datetime time, visit_detail_end_date date!, visit_detail_end_datetime time,
  visit_detail_type_concept_id int!, provider_id key, care_site_id key, visit_detail_source_value s50,
  visit_detail_source_concept_id int, admitted_from_concept_id int, admitted_from_source_value s50,
  discharged_to_source_value s50, discharged_to_concept_id int, preceding_visit_detail_id key,
  parent_visit_detail_id key, visit_occurrence_id key!
condition_occurrence: condition_occurrence_id key!, person_id key!, condition_concept_id int!,
  condition_start_date date!, condition_start_datetime time, condition_end_date date, condition_end_datetime time,
  condition_type_concept_id int!, condition_status_concept_id int, stop_reason s20, provider_id key,
  visit_occurrence_id key, visit_detail_id key, condition_source_value s50, condition_source_concept_id int,
  condition_status_source_value s50
drug_exposure: drug_exposure_id key!, person_id key!, drug_concept_id int!, drug_exposure_start_date date!,
  drug_exposure_start_datetime time, drug_exposure_end_date date!, drug_exposure_end_datetime time,
  verbatim_end_date date, drug_type_concept_id int!, stop_reason s20, refills int, quantity num, days_supply int,
  sig text, route_concept_id int, lot_number s50, provider_id key, visit_occurrence_id key, visit_detail_id key,
  drug_source_value s50, drug_source_concept_id int, route_source_value s50, dose_unit_source_value s50
procedure_occurrence: procedure_occurrence_id key!, person_id key!, procedure_concept_id int!, procedure_date date!,
  procedure_datetime time, procedure_end_date date, procedure_end_datetime time, procedure_type_concept_id int!,
  modifier_concept_id int, quantity int, provider_id key, visit_occurrence_id key, visit_detail_id key,
  procedure_source_value s50, procedure_source_concept_id int, modifier_source_value s50
device_exposure: device_exposure_id key!, person_id key!, device_concept_id int!, device_exposure_start_date date!,
  device_exposure_start_datetime time, device_exposure_end_date date, device_exposure_end_datetime time,
  device_type_concept_id int!, unique_device_id s255, production_id s255, quantity int, provider_id key,
  visit_occurrence_id key, visit_detail_id key, device_source_value s50, device_source_concept_id int,
  unit_concept_id int, unit_source_value s50, unit_source_concept_id int
measurement: measurement_id key!, person_id key!, measurement_concept_id int!, measurement_date date!,
  measurement_datetime time, measurement_time s10, measurement_type_concept_id int!, operator_concept_id int,
  value_as_number num, value_as_concept_id int, unit_concept_id int, range_low num, range_high num, provider_id key,
  visit_occurrence_id key, visit_detail_id key, measurement_source_value s50, measurement_source_concept_id int,
  unit_source_value s50, unit_source_concept_id int, value_source_value s50, measurement_event_id key,
  meas_event_field_concept_id int
observation: observation_id key!, person_id key!, observation_concept_id int!, observation_date date!,
  observation_datetime time, observation_type_concept_id int!, value_as_number num, value_as_string s60,
  value_as_concept_id int, qualifier_concept_id int, unit_concept_id int, provider_id key, visit_occurrence_id key,
  visit_detail_id key, observation_source_value s50, observation_source_concept_id int, unit_source_value s50,
  qualifier_source_value s50, value_source_value s50, observation_event_id key, obs_event_field_concept_id int
death: person_id key!, death_date date!, death_datetime time, death_type_concept_id int, cause_concept_id int,
  cause_source_value s50, cause_source_concept_id int
specimen: specimen_id key!, person_id key!, specimen_concept_id int!, specimen_type_concept_id int!,
  specimen_date date!, specimen_datetime time, quantity num, unit_concept_id int, anatomic_site_concept_id int,
  disease_status_concept_id int, specimen_source_id s50, specimen_source_value s50, unit_source_value s50,
  anatomic_site_source_value s50, disease_status_source_value s50
fact_relationship: domain_concept_id_1 int!, fact_id_1 key!, domain_concept_id_2 int!, fact_id_2 key!,
  relationship_concept_id int!
location: location_id key!, address_1 s50, address_2 s50, city s50, state s2, zip s9, county s20,
  location_source_value s50, country_concept_id int, country_source_value s80, latitude num, longitude num
care_site: care_site_id key!, care_site_name s255, place_of_service_concept_id int, location_id key,
  care_site_source_value s50, place_of_service_source_value s50
provider: provider_id key!, provider_name s255, npi s20, dea s20, specialty_concept_id int, care_site_id key,
  year_of_birth int, gender_concept_id int, provider_source_value s50, specialty_source_value s50,
  specialty_source_concept_id int, gender_source_value s50, gender_source_concept_id int
metadata: metadata_id key!, metadata_concept_id int!, metadata_type_concept_id int!, name s250!, value_as_string s250,
  value_as_concept_id int, value_as_number num, metadata_date date, metadata_datetime time
cdm_source: cdm_source_name s255!, cdm_source_abbreviation s25!, cdm_holder s255!, source_description text,
  source_documentation_reference s255, cdm_etl_reference s255, source_release_date date!, cdm_release_date date!,
  cdm_version s10, cdm_version_concept_id int!, vocabulary_version s20!
"""
_ARROW = {
    "key": pa.int64(),
    "int": pa.int32(),
    "date": pa.date32(),
    "time": pa.timestamp("us"),
    "num": pa.float64(),
    "text": pa.string(),
}
_SQL = {"key": "BIGINT", "int": "INTEGER", "date": "DATE", "time": "TIMESTAMP", "num": "DOUBLE", "text": "VARCHAR"}


@dataclass(frozen=True)
class Column:
    """One column of the CDM.

    Attributes:
        kind: `key`, `int`, `date`, `time`, `num`, `text` or `s<width>`.
    """

    name: str
    kind: str
    required: bool

    @property
    def width(self) -> int | None:
        """The width of its varchar; None for other types."""
        return int(self.kind[1:]) if re.fullmatch(r"s\d+", self.kind) else None

    @property
    def arrow(self) -> pa.DataType:
        """Its Arrow type: keys are int64, because medtwin's may pass 2^31; numeric is float64."""
        return _ARROW["text" if self.width else self.kind]

    @property
    def sql(self) -> str:
        """Its DuckDB type."""
        return f"VARCHAR({self.width})" if self.width else _SQL[self.kind]


@dataclass(frozen=True)
class CdmTable:
    """A table of the CDM."""

    name: str
    columns: tuple[Column, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """Its Arrow schema; NOT NULL columns are not nullable."""
        return pa.schema([pa.field(c.name, c.arrow, nullable=not c.required) for c in self.columns])

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of its columns."""
        return frozenset(column.name for column in self.columns)

    @property
    def key(self) -> str | None:
        """Its primary key; None where it has none of its own."""
        first = self.columns[0].name
        return first if first == f"{self.name}_id" or self.name == "person" else None

    def ddl(self) -> str:
        """CREATE TABLE of DuckDB."""
        lines = [f'  "{c.name}" {c.sql}{" NOT NULL" if c.required else ""}' for c in self.columns]
        if self.key is not None:
            lines.append(f"  PRIMARY KEY ({self.key})")
        return f"CREATE TABLE {self.name} (\n" + ",\n".join(lines) + "\n)"


def _parse(text: str) -> dict[str, CdmTable]:
    tables = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        name, _, body = block.partition(":")
        columns = []
        for item in body.split(","):
            column, kind = item.split()
            columns.append(Column(column, kind.rstrip("!"), kind.endswith("!")))
        tables[name] = CdmTable(name, tuple(columns))
    return tables


TABLES = _parse(_SPECIFICATION)

# Foreign keys that are not to a concept: column of any table -> table that it names a row of.
FOREIGN_KEYS = {
    "person_id": "person",
    "visit_occurrence_id": "visit_occurrence",
    "preceding_visit_occurrence_id": "visit_occurrence",
    "visit_detail_id": "visit_detail",
    "parent_visit_detail_id": "visit_detail",
    "preceding_visit_detail_id": "visit_detail",
    "provider_id": "provider",
    "care_site_id": "care_site",
    "location_id": "location",
}


@dataclass(frozen=True)
class EventTable:
    """Where a table of clinical events keeps what they all have.

    Attributes:
        concept, source_value, source_concept: Columns of the code.
        date, time: Columns of the start.
        end_date, end_time: Columns of the end, where there are some.
        kind: Column of the type concept: where the record comes from.
        event, event_field: Columns of the link to another record.
    """

    name: str
    concept: str
    source_value: str
    source_concept: str | None
    date: str
    time: str
    kind: str
    end_date: str | None = None
    end_time: str | None = None
    event: str | None = None
    event_field: str | None = None

    @property
    def key(self) -> str:
        """Its primary key."""
        return f"{self.name}_id"


def _event_table(name: str, stem: str, start: str, end: str | None = None, **more: str | None) -> EventTable:
    return EventTable(
        name,
        f"{stem}_concept_id",
        f"{stem}_source_value",
        more.pop("source_concept", f"{stem}_source_concept_id"),
        f"{start}_date",
        f"{start}_datetime",
        f"{stem}_type_concept_id",
        f"{end}_date" if end else None,
        f"{end}_datetime" if end else None,
        **more,
    )


EVENT_TABLES = {
    table.name: table
    for table in (
        _event_table("visit_occurrence", "visit", "visit_start", "visit_end"),
        _event_table("visit_detail", "visit_detail", "visit_detail_start", "visit_detail_end"),
        _event_table("condition_occurrence", "condition", "condition_start", "condition_end"),
        _event_table("drug_exposure", "drug", "drug_exposure_start", "drug_exposure_end"),
        _event_table("procedure_occurrence", "procedure", "procedure", "procedure_end"),
        _event_table("device_exposure", "device", "device_exposure_start", "device_exposure_end"),
        _event_table(
            "measurement",
            "measurement",
            "measurement",
            event="measurement_event_id",
            event_field="meas_event_field_concept_id",
        ),
        _event_table(
            "observation",
            "observation",
            "observation",
            event="observation_event_id",
            event_field="obs_event_field_concept_id",
        ),
        _event_table("specimen", "specimen", "specimen", source_concept=None),
    )
}
VISIT_TABLES = ("visit_occurrence", "visit_detail")
# Tables whose rows come from events, in the order in which they are written: what is linked to comes first.
CLINICAL_TABLES = tuple(name for name in EVENT_TABLES if name not in VISIT_TABLES)
