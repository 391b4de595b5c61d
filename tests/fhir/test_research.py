from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from medtwin.fhir import ExportContext, provenance_resources, validate_references, validate_resource
from medtwin.fhir.validate import LAYERS
from medtwin.fhir.writing.research import ResearchFacts, StudyArm, SubjectFacts, research_resources

CONTEXT = ExportContext("simulated", "urn:medtwin:replay:SIM1", datetime(2026, 1, 1, tzinfo=UTC), "1")
STUDY = ResearchFacts(
    "SIM1",
    "A toy",
    "Time to death",
    [StudyArm("Control", "Control"), StudyArm("Experimental", "Experimental", "Hazard ratio 0.6")],
    date(2026, 1, 1),
    date(2027, 1, 1),
    "Nobody exists.",
    "It stopped.",
)
SUBJECTS = [
    SubjectFacts(
        "SIM1-001-00001", "Control", "off-study", date(2026, 1, 2), date(2026, 3, 1), "F", 1960, date(2026, 3, 1)
    ),
    SubjectFacts("SIM1-001-00002", "Experimental", "withdrawn", date(2026, 1, 3), date(2026, 4, 1), "M"),
    SubjectFacts("SIM1-001-00003", "Experimental", "on-study", date(2026, 1, 4)),
]


def test_a_study_and_its_subjects_are_valid_r4() -> None:
    made = list(research_resources(CONTEXT, STUDY, SUBJECTS))
    assert [each["resourceType"] for each in made] == ["ResearchStudy", *["Patient", "ResearchSubject"] * 3]
    made += provenance_resources(CONTEXT, [f"{each['resourceType']}/{each['id']}" for each in made])
    for each in made:
        assert [found for found in validate_resource(each, layers=LAYERS) if found.severity != "information"] == []
    assert validate_references(made) == []


def test_what_they_say() -> None:
    study, patient, subject, _, left, _, stayed = research_resources(CONTEXT, STUDY, SUBJECTS)
    assert study["status"] == "completed"
    assert study["period"] == {"start": "2026-01-01", "end": "2027-01-01"}
    assert [arm["name"] for arm in study["arm"]] == ["Control", "Experimental"]
    assert study["note"] == [{"text": "It stopped."}]
    assert (patient["gender"], patient["birthDate"], patient["deceasedDateTime"]) == ("female", "1960", "2026-03-01")
    assert subject["study"] == {"reference": f"ResearchStudy/{study['id']}"}
    assert subject["individual"] == {"reference": f"Patient/{patient['id']}"}
    assert (subject["status"], subject["assignedArm"]) == ("off-study", "Control")
    assert left["period"] == {"start": "2026-01-03", "end": "2026-04-01"}
    assert stayed["period"] == {"start": "2026-01-04"}
    for each in (study, patient, subject):
        assert each["meta"]["security"][0]["code"] == "HTEST"
        assert each["meta"]["tag"] == [{"system": "urn:medtwin:origin", "code": "simulated"}]


def test_ids_depend_on_the_identifiers_alone() -> None:
    later = replace(CONTEXT, recorded=datetime(2030, 1, 1, tzinfo=UTC), version="2")
    ids = [each["id"] for each in research_resources(CONTEXT, STUDY, SUBJECTS)]
    assert ids == [each["id"] for each in research_resources(later, replace(STUDY, title="Another"), SUBJECTS)]
    assert len(set(ids)) == len(ids)
    other = [each["id"] for each in research_resources(CONTEXT, replace(STUDY, study_id="SIM2"), SUBJECTS)]
    assert other[0] != ids[0]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="arm must be one of Control, Experimental, got 'Placebo'"):
        list(research_resources(CONTEXT, STUDY, [replace(SUBJECTS[0], arm="Placebo")]))
    with pytest.raises(ValueError, match="status must be one of on-study, off-study, withdrawn, got 'dead'"):
        replace(SUBJECTS[0], status="dead")
