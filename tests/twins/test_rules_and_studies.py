from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from medtwin.config import compose, settings
from medtwin.core.events import Event, events_to_table, sort_events, validate_events
from medtwin.twins.rules import Fallback, ScanCall, ScanRules, scan_calls
from medtwin.twins.studies import Drawn, counts_by_modality, scan_uids, with_studies, without_scans

TIME = datetime(2021, 3, 4, 10, 0)
RULES = ScanRules(
    {"DCM//CR": "CR"},
    {"SNOMED//51185008": "CHEST"},
    Fallback(("ACTCODE//IMP",)),
    {"EDEMA": ["*icd10*//J81*", "ICD10CM//I50*"]},
)
STUDY = Event(1, TIME, "DCM//CR", event_id="s", encounter_id="e", status="available", resource="ImagingStudy")
REPORT = Event(1, TIME, "LOINC//18748-4", event_id="r", encounter_id="e", status="final", resource="DiagnosticReport")


def record(*conclusions: str) -> list[Event]:
    return [
        STUDY,
        STUDY.child("series.view", text_value="PA"),
        STUDY.child("series.bodySite", "SNOMED//51185008"),
        STUDY.child("series.modality", "DCM//CR"),
        STUDY.child("series.numberOfInstances", numeric_value=3.0),
        REPORT,
        REPORT.child("imagingStudy", text_value="s"),
        *(REPORT.child("conclusionCode", code) for code in conclusions),
    ]


def test_a_study_calls_for_what_its_report_concludes() -> None:
    (call,) = scan_calls(record("SNOMED//2", "SNOMED//1"), RULES, names_studies=True)
    assert call == ScanCall(1, "s", "e", TIME, "CR", "CHEST", "PA", ("SNOMED//1", "SNOMED//2"))


@pytest.mark.parametrize(("conclusions", "labels"), [(("SNOMED//17621005",), ()), ((), None)])
def test_normal_means_no_finding_and_silence_means_unknown(
    conclusions: tuple[str, ...], labels: tuple[str, ...] | None
) -> None:
    (call,) = scan_calls(record(*conclusions), RULES, names_studies=True)
    assert call.labels == labels


def test_a_study_of_another_modality_calls_for_nothing() -> None:
    other = [replace(event, code="DCM//US") if event is STUDY else event for event in record()]
    assert scan_calls(other, RULES, names_studies=True) == []


def stay(number: int, *codes: str) -> list[Event]:
    time = TIME.replace(day=number)
    visit = Event(1, time, "SNOMED//32485007", event_id=f"v{number}", encounter_id=f"v{number}", resource="Encounter")
    inside = [
        Event(1, time, c, event_id=f"c{number}{c}", encounter_id=f"v{number}", resource="Condition") for c in codes
    ]
    return [visit, visit.child("class", "ACTCODE//IMP"), *inside]


def test_without_studies_the_first_stay_and_each_with_a_finding_call_for_a_scan() -> None:
    events = [*stay(1), *stay(2), *stay(3, "x-icd10//J811"), *stay(4, "NEGATED//ICD10CM//I50.9")]
    calls = scan_calls(events, RULES, names_studies=False)
    assert [(call.encounter_id, call.labels) for call in calls] == [("v1", None), ("v3", ("EDEMA",))]
    assert {(call.modality, call.body_part, call.view) for call in calls} == {("CR", "CHEST", "AP")}
    assert scan_calls(events, replace(RULES, fallback=None), names_studies=False) == []


def test_a_record_points_at_the_scans_that_exist_and_no_others() -> None:
    events = record("SNOMED//1")
    (call,) = scan_calls(events, RULES, names_studies=True)
    drawn = Drawn(call, *map(str, scan_uids("run", call, 0)))
    rows = with_studies(events, [drawn])
    said = {row.code: row for row in rows}
    assert said["FHIR//ImagingStudy.studyInstanceUID"].text_value == drawn.study_uid
    assert said["FHIR//ImagingStudy.series"].text_value == drawn.series_uid
    assert said["FHIR//ImagingStudy.series.numberOfInstances"].numeric_value == 1.0
    without = with_studies(events, [])
    assert not any(row.code.startswith("FHIR//ImagingStudy.series") for row in without)
    assert STUDY in without


def test_whether_a_scan_was_drawn_and_how_it_is_written_can_be_taken_back() -> None:
    events = [replace(event, code="DCM//DX") if event is STUDY else event for event in record("SNOMED//1")]
    (call,) = scan_calls(events, replace(RULES, modalities={"DCM//DX": "DX"}), names_studies=True)
    unlike = [with_studies(events, []), with_studies(events, [Drawn(call, "2.25.7", "2.25.8", "CR")])]
    before, *after = (without_scans(events_to_table(rows)).to_pylist() for rows in (events, *unlike))
    assert after == [before, before]
    assert {row["code"] for row in before} >= {"DCM//DX", "LOINC//18748-4"}


def test_a_scan_by_rule_becomes_a_study_with_its_report() -> None:
    events = stay(3, "x-icd10//J811")
    (call,) = scan_calls(events, RULES, names_studies=False)
    rows = with_studies(events, [Drawn(call, "2.25.7", "2.25.8")])
    assert validate_events(sort_events(events_to_table(rows))) == []
    assert scan_calls(rows, RULES, names_studies=True)[0].labels == ("EDEMA",)


def test_uids_name_run_subject_and_scan() -> None:
    (call,) = scan_calls(record(), RULES, names_studies=True)
    uids = {uid for run in ("a", "b") for number in (0, 1) for uid in scan_uids(run, call, number)}
    assert len(uids) == 8
    assert scan_uids("a", call, 0) == scan_uids("a", call, 0)
    assert counts_by_modality([call, call]) == {"CR": 2}


@pytest.mark.parametrize("option", ["default", "studies_only"])
def test_the_shipped_rules_build(option: str) -> None:
    config = compose("generate", [f"scan_rules={option}", "timelines=x"])
    rules = settings(ScanRules, config["scan_rules"], "scan_rules")
    assert rules.modalities["DCM//CR"] == "CR"
    assert (rules.fallback is None) == (option == "studies_only")
    if rules.fallback is not None:
        assert rules.implied(["mimic.mit.edu/x/mimic-diagnosis-icd10//J189"]) == ("SNOMED//233604007",)
        assert rules.implied(["mimic.mit.edu/x/mimic-diagnosis-icd9//4280"]) == ("SNOMED//19242006",)
        assert rules.implied(["mimic.mit.edu/x/mimic-diagnosis-icd9//25000"]) == ()
