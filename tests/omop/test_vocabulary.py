from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from medtwin.core.errors import SourceError
from medtwin.omop import load_vocabulary
from medtwin.omop.routes import Case, Target, route
from medtwin.omop.vocabulary import CodeConcepts, Concept, Vocabulary
from tests.omop.samples import (
    BIRTH,
    DIABETES,
    GLUCOSE,
    ORDER,
    STAY,
    clinical,
    dataset_of,
    export,
    record,
    rows,
    write_athena,
)

_CODES = ["ICD10CM//E11.9", "ICD10CM//E119", "ICD10CM//Z83.3", "ICD10CM//E11.21", "ICD10CM//E11.99", "LOINC//2345-7"]


def test_codes_are_found_with_what_they_map_to(tmp_path: Path) -> None:
    found = load_vocabulary(
        write_athena(tmp_path / "a"), [*_CODES, "LOINC//nope", "LOCAL//x", "bare"], ["mm[Hg]", "bogus"]
    )
    type_2 = Concept(201826, "Condition")
    assert found.codes["ICD10CM//E11.9"] == CodeConcepts(45591027, (type_2,))
    assert found.codes["ICD10CM//E119"] == found.codes["ICD10CM//E11.9"]  # a source that leaves the dot out
    assert found.codes["ICD10CM//Z83.3"] == CodeConcepts(45548653, (Concept(4167217, "Observation"),), (201826,))
    assert found.codes["ICD10CM//E11.21"].standard == (Concept(1002, "Condition"), Concept(1003, "Measurement"))
    # A deprecated code still means what its valid map says; the invalid map is left out.
    assert found.codes["ICD10CM//E11.99"] == CodeConcepts(1004, (type_2,))
    # A standard concept maps to itself although the download has no row that says so.
    assert found.codes["LOINC//2345-7"] == CodeConcepts(3004501, (Concept(3004501, "Measurement"),))
    assert set(found.codes) == {*_CODES, "UCUM//mm[Hg]"}
    assert (found.unit("mm[Hg]"), found.unit("bogus"), found.unit(None)) == (8876, 0, 0)
    assert found.version == "v5.0 29-FEB-24"


def test_a_map_to_a_concept_that_is_not_standard_does_not_count(tmp_path: Path) -> None:
    found = load_vocabulary(write_athena(tmp_path / "a"), ["ICD9CM//250.00"])
    assert found.codes["ICD9CM//250.00"].standard == (Concept(201826, "Condition"),)


def test_systems_of_the_users_own_and_gzipped_files(tmp_path: Path) -> None:
    folder = write_athena(tmp_path / "a")
    for path in list(folder.iterdir()):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    found = load_vocabulary(folder, ["my.org/icd//E11.9", "NDC//0193-1468-21"], (), {"my.org/icd": "ICD10CM"})
    assert found.codes["my.org/icd//E11.9"].source_concept_id == 45591027
    assert found.codes["NDC//0193-1468-21"].standard == (Concept(1008, "Device"),)


def test_a_file_that_is_not_athenas_is_named(tmp_path: Path) -> None:
    folder = write_athena(tmp_path / "a")
    (folder / "CONCEPT.csv").write_text("concept_id,concept_name\n1,x\n")
    with pytest.raises(SourceError, match=r"omop\.vocab: CONCEPT\.csv"):
        load_vocabulary(folder, _CODES)


_KIDNEY = {"ICD10CM//E11.21": CodeConcepts(1001, (Concept(1002, "Condition"), Concept(1003, "Measurement")))}
_HISTORY = {"ICD10CM//Z83.3": CodeConcepts(5, (Concept(6, "Observation"),), (201826,))}
_DRUG = {"RXNORM//7980": CodeConcepts(1006, (Concept(1006, "Drug"),))}


@pytest.mark.parametrize(
    ("codes", "case", "targets"),
    [
        # One code that says two things gives two rows.
        (
            _KIDNEY,
            Case("ICD10CM//E11.21", "Condition", False, True, False),
            (Target("condition_occurrence", 1002, 1001), Target("measurement", 1003, 1001)),
        ),
        # The domain decides, not the resource; what it says as a value stands as one.
        (
            _HISTORY,
            Case("ICD10CM//Z83.3", "Condition", False, True, False),
            (Target("observation", 6, 5, 201826),),
        ),
        # A value is never parted from its event, nor lost to a table without values.
        (
            _KIDNEY,
            Case("ICD10CM//E11.21", "Observation", True, True, False),
            (Target("observation", 0, 1001), Target("measurement", 1003, 1001)),
        ),
        # An allergy that is coded by its substance is no exposure to it.
        (_DRUG, Case("RXNORM//7980", "AllergyIntolerance", False, True, False), (Target("observation", 0, 1006),)),
        (
            _DRUG,
            Case("RXNORM//7980", "MedicationStatement", False, True, False),
            (Target("drug_exposure", 1006, 1006),),
        ),
        # Neither is an order a fact.
        (_DRUG, Case("RXNORM//7980", "ServiceRequest", False, True, False), (Target("observation", 0, 1006),)),
        # A dated table cannot hold what has no date.
        (_DRUG, Case("RXNORM//7980", "MedicationStatement", False, False, False), (Target("observation", 0, 1006),)),
        ({}, Case("LOINC//72166-2", "Observation", False, True, True), (Target("observation"),)),
        ({}, Case("ATC//A10BA02", None, False, True, False), (Target("drug_exposure"),)),
        ({}, Case("MEDICATION//aspirin", None, True, True, False), (Target("measurement"),)),
    ],
)
def test_events_stand_where_their_domain_says(
    codes: dict[str, CodeConcepts], case: Case, targets: tuple[Target, ...]
) -> None:
    assert route(case, Vocabulary(codes)) == targets


def test_the_export_uses_the_vocabulary(tmp_path: Path) -> None:
    events = [
        *record(),
        clinical("ICD10CM//E11.21", "Condition", "c5"),
        clinical("ICD10CM//Z83.3", "Condition", "c6"),
        clinical("NDC//00193146821", "MedicationDispense", "d1"),
        clinical("CPT4//90935", "Procedure", "p1"),
        clinical("LOINC//8480-6", "Observation", "o9", text_value="SNOMED//10828004"),
    ]
    books = export(dataset_of(tmp_path / "d", events), tmp_path / "o", vocab=write_athena(tmp_path / "a"))
    conditions = rows(tmp_path / "o", "condition_occurrence")
    assert [(row["condition_concept_id"], row["condition_source_concept_id"]) for row in conditions] == [
        (201826, 45591027),
        (1002, 1001),
    ]
    measurements = rows(tmp_path / "o", "measurement")
    found = {row["measurement_concept_id"]: row for row in measurements}
    assert set(found) == {3005, 3004249, 3004501, 1003}
    assert found[3004501]["unit_concept_id"] == found[3004501]["unit_source_concept_id"] == 8753
    assert found[1003]["measurement_source_value"] == "ICD10CM//E11.21"
    positive = next(row for row in measurements if row["value_source_value"])
    assert (positive["value_as_concept_id"], positive["value_as_number"]) == (9188, None)
    history = next(row for row in rows(tmp_path / "o", "observation") if row["observation_concept_id"] == 4167217)
    assert (history["value_as_concept_id"], history["qualifier_source_value"]) == (201826, "Condition")
    (device,) = rows(tmp_path / "o", "device_exposure")
    assert device["device_concept_id"] == 1008
    (procedure,) = rows(tmp_path / "o", "procedure_occurrence")
    assert (procedure["procedure_concept_id"], procedure["procedure_source_concept_id"]) == (1009, 1010)
    (drug,) = rows(tmp_path / "o", "drug_exposure")
    assert (drug["drug_concept_id"], drug["route_concept_id"]) == (40163924, 4132161)
    assert books.further == {"measurement": 1} | {name: 0 for name in books.further if name != "measurement"}
    (relation,) = rows(tmp_path / "o", "fact_relationship")
    assert (relation["domain_concept_id_1"], relation["domain_concept_id_2"]) == (19, 21)
    (source,) = rows(tmp_path / "o", "cdm_source")
    assert (source["vocabulary_version"], source["cdm_version_concept_id"]) == ("v5.0 29-FEB-24", 756265)
    told = books.as_dict()["events_by_code_system"]
    assert told["ICD10CM"] == {"with standard concept": 3, "without": 0}
    assert told["LANGUAGE"] == {"with standard concept": 0, "without": 1}


def test_events_of_other_subjects_do_not_change_a_subjects_rows(tmp_path: Path) -> None:
    events = [BIRTH, STAY, DIABETES, GLUCOSE, ORDER]
    export(dataset_of(tmp_path / "d", events), tmp_path / "o", vocab=write_athena(tmp_path / "a"))
    first = {name: rows(tmp_path / "o", name) for name in ("condition_occurrence", "measurement", "drug_exposure")}
    assert [len(each) for each in first.values()] == [1, 1, 1]
    assert all(row["visit_occurrence_id"] == 1 for each in first.values() for row in each)
