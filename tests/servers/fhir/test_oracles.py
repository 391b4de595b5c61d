"""The independent validators agree with the defect set, and find nothing in what medtwin writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fhir.defects import SET_KINDS, Defect, read_bases, read_defects
from tests.peers import google_findings, medplum_findings, require_peer

Findings = dict[str, dict[int, Any]]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the embedded hospital of five patients writes."""
    out = tmp_path_factory.mktemp("oracles") / "hospital"
    command = [sys.executable, "-m", "medtwin", "hospital", "n=5", "seed=1", "images=false", f"out={out}"]
    subprocess.run(command, check=True)
    files = sorted(out.rglob("*.ndjson"))
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def alone() -> list[Defect]:
    """The defects that stand in a single resource."""
    return [defect for defect in read_defects() if defect.kind not in SET_KINDS]


def _numbered(findings: list[dict[str, Any]], groups: Mapping[str, list[Any]]) -> Findings:
    """The findings of each group by the number of the resource in it."""
    found: Findings = {}
    start = 1
    for name, group in groups.items():
        lines = range(start, start + len(group))
        found[name] = {finding["line"] - start: finding for finding in findings if finding["line"] in lines}
        start += len(group)
    return found


@pytest.fixture(scope="module")
def medplum(alone: list[Defect], hospital: list[dict[str, Any]]) -> Findings:
    bases = read_bases()
    groups = {"bases": [*bases.values()], "defects": [each.plant(bases) for each in alone], "hospital": hospital}
    findings, summary = medplum_findings(resource for group in groups.values() for resource in group)
    assert summary["resources"] == sum(map(len, groups.values()))
    assert summary["unevaluated"] == {}
    return _numbered(findings, groups)


@pytest.fixture(scope="module")
def google(alone: list[Defect], hospital: list[dict[str, Any]]) -> Findings:
    """It is slow, so it sees the defects of structure and twenty resources of each type of the hospital."""
    bases = read_bases()
    structural = [each.plant(bases) for each in alone if each.kind in ("cardinality", "unknown-element")]
    by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for resource in hospital:
        by_type[resource["resourceType"]].append(resource)
    some = [resource for resources in by_type.values() for resource in resources[:20]]
    groups = {"bases": [*bases.values()], "defects": structural, "hospital": some}
    findings, summary = google_findings(resource for group in groups.values() for resource in group)
    assert summary["resources"] == sum(map(len, groups.values()))
    return _numbered(findings, groups)


def test_both_take_every_valid_base(medplum: Findings, google: Findings) -> None:
    assert medplum["bases"] == {}
    assert google["bases"] == {}


def test_the_strict_validator_catches_the_defects_that_it_can_tell(medplum: Findings, alone: list[Defect]) -> None:
    missed = Counter(defect.kind for number, defect in enumerate(alone) if number not in medplum["defects"])
    assert missed == {"ucum": 5}  # @medplum/core does not parse units


def test_google_fhir_catches_every_defect_of_cardinality_and_every_unknown_element(
    google: Findings, alone: list[Defect]
) -> None:
    assert len(google["defects"]) == sum(defect.kind in ("cardinality", "unknown-element") for defect in alone) > 100


def test_neither_finds_anything_in_the_hospital(
    medplum: Findings, google: Findings, hospital: list[dict[str, Any]]
) -> None:
    assert len(hospital) > 500
    assert medplum["hospital"] == {}
    assert google["hospital"] == {}


def test_the_strict_validator_takes_the_profiles_of_a_guide(tmp_path: Path) -> None:
    url = "http://example.org/StructureDefinition/dated-patient"
    profile = json.loads((require_peer("r4_core") / "StructureDefinition-Patient.json").read_bytes())
    profile |= {"id": "dated-patient", "url": url, "derivation": "constraint", "baseDefinition": profile["url"]}
    elements = {element["path"]: element for element in profile["snapshot"]["element"]}
    elements["Patient.birthDate"]["min"] = 1
    elements["Patient.maritalStatus"]["binding"]["strength"] = "required"
    (tmp_path / "StructureDefinition-dated-patient.json").write_text(json.dumps(profile))
    declared = {"resourceType": "Patient", "meta": {"profile": [url]}}
    status = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "MTH"}]}
    dated = declared | {"birthDate": "1970"}
    resources = [declared, dated, dated | {"maritalStatus": status}, {"resourceType": "Patient", "active": True}]
    findings, summary = medplum_findings(resources, tmp_path)
    assert [finding["line"] for finding in findings] == [1, 3]
    assert summary["profiles"] == {url: {"count": 3, "known": True}}
    assert medplum_findings(resources)[1]["profiles"] == {url: {"count": 3, "known": False}}
