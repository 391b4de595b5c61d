"""`medtwin validate fhir=...`, through the functions behind the verb."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from medtwin.core.errors import ConfigError, DatasetError, OutputError, SourceError
from medtwin.pipelines.validate import ValidateSettings, main, validate_fhir
from tests.fhir.samples import ENCOUNTER, LOINC, PATIENT, concept, ndjson, observation

_GLUCOSE = concept(LOINC, "2345-7")


def _folder(tmp_path: Path, *resources: Any) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "all.ndjson.gz").write_bytes(gzip.compress(ndjson(PATIENT, ENCOUNTER, *resources)))
    return folder


def test_valid_files_are_said_to_be_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder(tmp_path, observation(code=_GLUCOSE, encounter={"reference": "Encounter/e1"}))
    main({"fhir": str(folder), "layers": ["schema", "rules", "models"], "out": str(tmp_path / "new" / "r.json")})
    assert "1 files of FHIR are valid: 3 resources" in capsys.readouterr().out
    report = json.loads((tmp_path / "new" / "r.json").read_text())
    assert report["checked"] == {"schema": 3, "rules": 3, "models": 3}
    assert report["encounters"]["Observation"] == {"compared": 1, "outside": 0}
    assert (report["errors"], report["findings"], report["unreadable"]) == (0, [], [])


def test_everything_that_is_wrong_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    early = observation("o1", code=_GLUCOSE, effectiveDateTime="1970-01-01")
    broken = observation("o2", code=_GLUCOSE, status="done")
    lost = observation("o2", code=_GLUCOSE, encounter={"reference": "Encounter/gone"})
    folder = _folder(tmp_path, early, broken, lost, b'{"resourceType": ')
    out = tmp_path / "report.json"
    with pytest.raises(DatasetError, match=r"1 files of FHIR are not valid: 2 errors, 1 unreadable"):
        main({"fhir": str(folder), "out": str(out)})
    said = capsys.readouterr().out
    assert "Observation/o2 status: the code must be in its required value set [value-set]" in said
    assert "all.ndjson.gz:6: the text must be one whole JSON object" in said
    report = json.loads(out.read_text())
    found = {(each["severity"], each["rule"], each["type"]): each["first"] for each in report["findings"]}
    assert found == {
        ("error", "value-set", "Observation"): ["Observation/o2 status"],
        ("error", "duplicate-id", "Observation"): ["Observation"],
        ("warning", "before-birth", "Observation"): ["Observation/o1 effectiveDateTime"],
        ("warning", "dangling-reference", "Observation to Encounter"): [
            "Observation to Encounter (first: Observation/o2)"
        ],
    }
    assert report["unreadable"][0]["line"] == 6


def test_a_dangling_reference_can_be_an_error_or_nothing(tmp_path: Path) -> None:
    folder = _folder(tmp_path, observation(code=_GLUCOSE, encounter={"reference": "Encounter/gone"}))
    with pytest.raises(DatasetError):
        validate_fhir(ValidateSettings(fhir=(folder,), references="error"))
    assert validate_fhir(ValidateSettings(fhir=(folder,), references="off", chronology=False)).findings() == []


def test_bundles_and_several_paths(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": observation(code=_GLUCOSE)}]}
    (tmp_path / "b.json").write_text(json.dumps(bundle, indent=1))
    found = validate_fhir(ValidateSettings(fhir=(folder, tmp_path / "b.json"), references="error"))
    assert found.num_resources == {"Patient": 1, "Encounter": 1, "Bundle": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "dataset=DIR or fhir=PATH"),
        ({"dataset": "a", "fhir": "b"}, "only one"),
        ({"fhir": "b", "layers": []}, "layers must be some of"),
        ({"fhir": "b", "layers": ["spelling"]}, "layers must be one of"),
        ({"fhir": "b", "sample": -1}, "sample must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(given)


def test_faults_of_the_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        main({"fhir": str(tmp_path / "nowhere")})
    (tmp_path / "empty.ndjson").write_bytes(b"\n")
    with pytest.raises(SourceError, match="hold no resource"):
        main({"fhir": str(tmp_path / "empty.ndjson")})
    folder = _folder(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        main({"fhir": str(folder), "out": str(folder / "all.ndjson.gz" / "report.json")})
