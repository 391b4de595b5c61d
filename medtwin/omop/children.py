"""What a row of a CDM says beside its code, as child rows of the event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.omop import concepts
from medtwin.omop.accept import Accepted
from medtwin.omop.codes import ConceptCodes
from medtwin.omop.persons import Persons
from medtwin.omop.rows import EventRows
from medtwin.omop.sig import read_sig
from medtwin.omop.tables import EVENT_TABLES

_ROUTES = {
    "MedicationRequest": "dosageInstruction.route",
    "MedicationDispense": "dosageInstruction.route",
    "MedicationAdministration": "dosage.route",
    "MedicationStatement": "dosage.route",
    "Immunization": "route",
}
_QUANTITIES = {
    "MedicationRequest": "dispenseRequest.quantity",
    "MedicationDispense": "quantity",
    "MedicationAdministration": "dosage.dose",
    "MedicationStatement": "dosage.doseAndRate.doseQuantity",
    "Immunization": "doseQuantity",
}
_SUPPLIES = {"MedicationRequest": "dispenseRequest.expectedSupplyDuration", "MedicationDispense": "daysSupply"}


@dataclass(frozen=True)
class Tools:
    """What child rows are made with.

    Attributes:
        units: UCUM, and the unit as the source wrote it, of a column of a table.
        text: What a text may become: given text, element path, and days that the person's dates move.
        visits: Id to place of person, of the visits that were read, by table.
    """

    codes: ConceptCodes
    persons: Persons
    pseudonyms: Pseudonyms
    ledger: Ledger
    is_ours: bool
    units: Callable[[pa.Table, str], tuple[list[str | None], list[str | None]]]
    text: Callable[[str, str, int], str | None]
    visits: Mapping[str, Mapping[int, int]]


def _add_visit(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    table = accepted.table
    events.add_coded([_class_code(kind) for kind in table[accepted.spec.concept].to_pylist()], "class")
    for column, path in (
        ("admitted_from", "hospitalization.admitSource"),
        ("discharged_to", "hospitalization.dischargeDisposition"),
    ):
        stated = zip(
            table[f"{column}_source_value"].to_pylist(), table[f"{column}_concept_id"].to_pylist(), strict=True
        )
        events.add_coded([tools.codes.of_value(*pair) for pair in stated], path)
    if accepted.name == "visit_detail":
        parents = zip(
            table["parent_visit_detail_id"].to_pylist(), table["visit_occurrence_id"].to_pylist(), strict=True
        )
        events.add_texts([_whole(tools, *pair) for pair in parents], "partOf")


def _class_code(concept: int | None) -> str | None:
    word = concepts.CLASS_OF_VISIT.get(concept or 0)
    return f"ACTCODE//{word}" if word else None


def _whole(tools: Tools, detail: int | None, occurrence: int | None) -> str | None:
    """The encounter that a part belongs to."""
    if detail is not None:
        return tools.pseudonyms.event_id("visit_detail", str(detail))
    known = occurrence in tools.visits["visit_occurrence"]
    return tools.pseudonyms.event_id("visit_occurrence", str(occurrence)) if known else None


def _add_category(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    kinds = accepted.table[accepted.spec.kind].to_pylist()
    resources = events.events["resource"].to_pylist()
    wanted = {"CONDCATEGORY": "Condition", "OBSCATEGORY": "Observation"}
    codes = [concepts.TYPE_CATEGORIES.get(kind) for kind in kinds]
    is_child = pc.is_valid(events.events["parent_id"]).to_pylist()
    told = [
        code if code and wanted[code.partition("//")[0]] == resource and not child else None
        for code, resource, child in zip(codes, resources, is_child, strict=True)
    ]
    events.add_coded(told, "category")


def _add_links(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    """Adds what a record is part of, or was taken from; a panel is its components' parent instead."""
    spec, table = accepted.spec, accepted.table
    named = zip(table[spec.event_field or ""].to_pylist(), table[spec.event or ""].to_pylist(), strict=True)
    rows, paths, ids = [], [], []
    for row, (field_concept, number) in enumerate(named):
        other = concepts.FIELD_TABLES.get(field_concept or 0)
        if other is None or number is None or EVENT_TABLES[other].event is not None:
            continue
        if not tools.is_ours:
            tools.ledger.elements_not_carried[f"{accepted.name}.{spec.event}"] += 1
            continue
        rows.append(row)
        paths.append("specimen" if other == "specimen" else "partOf")
        ids.append(tools.pseudonyms.event_id(other, str(number)))
    events.add(np.array(rows, np.int64), paths, text_value=ids)


def _add_measurement(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    _add_category(tools, accepted, events)
    _add_links(tools, accepted, events)
    operators = accepted.table["operator_concept_id"].to_pylist()
    events.add_texts([concepts.OPERATOR_WORDS.get(concept or 0) for concept in operators], "comparator")
    units = events.events["unit"].to_pylist()  # a range is in the unit of its measurement
    for bound in ("low", "high"):
        events.add_numbers(accepted.table[f"range_{bound}"], f"referenceRange.{bound}", units)


def _add_observation(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    """Adds the category; and moves the value of a report, which has none, to where it came from."""
    _add_category(tools, accepted, events)
    _add_links(tools, accepted, events)
    resources, texts = events.events["resource"].to_pylist(), events.events["text_value"].to_pylist()
    pairs = list(zip(resources, texts, strict=True))
    if "DiagnosticReport" not in resources:
        return
    events.add_coded([text if name == "DiagnosticReport" else None for name, text in pairs], "conclusionCode")
    left = pa.array([None if name == "DiagnosticReport" else text for name, text in pairs], pa.large_string())
    place = events.events.column_names.index("text_value")
    events.events = events.events.set_column(place, events.events.schema.field(place), left)


def _add_procedure(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    pairs = zip(
        accepted.table["modifier_source_value"].to_pylist(),
        accepted.table["modifier_concept_id"].to_pylist(),
        strict=True,
    )
    events.add_coded([tools.codes.of_value(*pair) for pair in pairs], "bodySite")


def _add_specimen(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    pairs = zip(
        accepted.table["anatomic_site_source_value"].to_pylist(),
        accepted.table["anatomic_site_concept_id"].to_pylist(),
        strict=True,
    )
    events.add_coded([tools.codes.of_value(*pair) for pair in pairs], "collection.bodySite")


def _add_drug(tools: Tools, accepted: Accepted, events: EventRows) -> None:
    table = accepted.table
    resources = events.events["resource"].to_pylist()
    routes = zip(table["route_source_value"].to_pylist(), table["route_concept_id"].to_pylist(), strict=True)
    events.add_coded([tools.codes.of_value(*pair) for pair in routes], [_ROUTES[name] for name in resources])
    units, sources = tools.units(table, "dose_unit_source_value")
    quantity = table["quantity"].to_pylist()
    rows = np.array([row for row, number in enumerate(quantity) if number is not None], np.int64)
    events.add(
        rows,
        [_QUANTITIES[resources[row]] for row in rows.tolist()],
        numeric_value=[quantity[row] for row in rows.tolist()],
        unit=[units[row] for row in rows.tolist()],
        source_unit=[sources[row] for row in rows.tolist()],
    )
    supply = [_SUPPLIES.get(name) for name in resources]
    events.add_numbers(table["days_supply"], supply, ["d"] * len(resources))
    refills = ["dispenseRequest.numberOfRepeatsAllowed" if name == "MedicationRequest" else None for name in resources]
    events.add_numbers(table["refills"], refills)
    stopped = [tools.codes.stated(text) for text in table["stop_reason"].to_pylist()]
    events.add_coded(stopped, "statusReason")
    _add_sig(tools, table["sig"].to_pylist(), accepted.person, events)
    unread = {"days_supply": supply, "refills": refills, "stop_reason": stopped}
    for name, paths in unread.items():
        count = sum(
            value is not None and path is None for value, path in zip(table[name].to_pylist(), paths, strict=True)
        )
        tools.ledger.elements_not_carried.update({f"drug_exposure.{name}": count} if count else {})


def _add_sig(tools: Tools, sigs: list[str | None], person: NDArray[np.int64], events: EventRows) -> None:
    rows, items, words = [], [], []
    shifts = tools.persons.shift_days[person].tolist()
    for row, text in enumerate(sigs):
        found = read_sig(text) if text and tools.is_ours else None
        if text and found is None:
            tools.ledger.elements_not_carried["drug_exposure.sig"] += 1
        for item in found or ():
            rows.append(row)
            items.append(item)
            words.append(None if item.word is None else tools.text(item.word, item.path, shifts[row]))
    events.add(
        np.array(rows, np.int64),
        [f"{item.path}//{item.code}" if item.code else item.path for item in items],
        numeric_value=[item.number for item in items],
        unit=[item.unit for item in items],
        source_unit=[item.source_unit for item in items],
        text_value=words,
    )


ADDERS: dict[str, Callable[[Tools, Accepted, EventRows], None]] = {
    "visit_occurrence": _add_visit,
    "visit_detail": _add_visit,
    "condition_occurrence": _add_category,
    "drug_exposure": _add_drug,
    "procedure_occurrence": _add_procedure,
    "measurement": _add_measurement,
    "observation": _add_observation,
    "specimen": _add_specimen,
}
