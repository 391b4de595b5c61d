"""What `medtwin export` writes of the hospital and of public data: valid for us, and for validators of others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from medtwin.core.files import read_json
from medtwin.fhir.profiles.table import load_profiles
from tests.fhir.export_findings import sample
from tests.fhir.profile_definitions import write_package
from tests.peers import google_findings, medplum_findings, require_peer

_PUBLIC = {"mimic": "mimic4_demo_fhir", "synthea": "synthea_r4/ndjson"}


def _medtwin(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "medtwin", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def _export(dataset: Path, profile: str, out: Path) -> tuple[Path, dict[str, int]]:
    override = "override.reason='a test, the files are deleted'"
    settings = ("formats=[fhir]", f"fhir.profile={profile}", override)
    _medtwin("export", f"dataset={dataset}", *settings, f"out={out}")
    return out / "fhir", read_json(out / "counts.json")["fhir"]


def _require_clean(folder: Path, counts: dict[str, int], guide: Path, num_each: tuple[int, int]) -> None:
    assert {name: n for name, n in counts.items() if name.startswith(("error", "warning"))} == {}
    num_resources = sum(len(path.read_bytes().splitlines()) for path in folder.glob("*.ndjson"))
    assert counts["checked by schema"] == counts["checked by rules"] == num_resources
    findings, summary = medplum_findings(sample(folder, num_each[0]), guide)
    assert findings == []
    assert all(each["known"] for each in summary["profiles"].values())
    few = sample(folder, num_each[1])
    findings, summary = google_findings(few)
    assert (findings, summary["resources"]) == ([], len(few))


@pytest.fixture(scope="module")
def us_core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """US Core 6.1 as definitions: those of our table, for no package index has HL7's."""
    folder = tmp_path_factory.mktemp("us_core")
    assert write_package(load_profiles(), require_peer("r4_core"), folder) == len(load_profiles())
    return folder


@pytest.mark.parametrize("profile", [pytest.param("r4", marks=pytest.mark.slow), "us-core-6.1"])
def test_the_export_of_the_hospital_is_valid_for_all(tmp_path: Path, us_core: Path, profile: str) -> None:
    _medtwin("hospital", "n=6", "seed=3", f"out={tmp_path / 'h'}")
    _medtwin("ingest", f"source={tmp_path / 'h'}", f"out={tmp_path / 'd'}")
    folder, counts = _export(tmp_path / "d", profile, tmp_path / "e")
    _require_clean(folder, counts, us_core, (60, 8))
    declared = Counter(json.loads(line)["resourceType"] for line in _declaring(folder))
    if profile == "r4":
        assert not declared
    else:
        assert {kind: counts[kind] for kind in declared} == dict(declared)
        assert {"Patient", "Encounter", "Condition", "Observation", "MedicationRequest"} <= set(declared)


def _declaring(folder: Path) -> list[bytes]:
    lines = [line for path in folder.glob("*.ndjson") for line in path.read_bytes().splitlines()]
    return [line for line in lines if "profile" in json.loads(line)["meta"]]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("profile", ["r4", "us-core-6.1"])
@pytest.mark.parametrize("name", list(_PUBLIC))
def test_the_export_of_public_data_is_valid_for_all(
    tmp_path: Path, public_data: Path, us_core: Path, name: str, profile: str
) -> None:
    _medtwin("ingest", f"source.fhir={public_data / _PUBLIC[name]}", f"out={tmp_path / 'd'}")
    folder, counts = _export(tmp_path / "d", profile, tmp_path / "e")
    _require_clean(folder, counts, us_core, (400, 25))
