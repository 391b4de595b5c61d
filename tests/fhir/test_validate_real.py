"""Public data: what the layers find there is a real defect; docs/fhir_validation.md lists them."""

from __future__ import annotations

import gzip
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from medtwin.fhir.validate import Validation, validate_resource

pytestmark = pytest.mark.real
_ROOT = Path(__file__).resolve().parents[2]
_DEFECTS = Path(os.environ.get("MEDTWIN_TOOLS", _ROOT.parent / "shared" / "tools")) / "fhir_server" / "defects.py"

_EXAMPLES = {
    ("missing-element", "Questionnaire"): 32,  # items without linkId
    ("missing-element", "DiagnosticReport"): 1,  # a narrative without div
    ("full-url", "Bundle"): 17,  # a fullUrl of another id
    ("ucum", "Bundle"): 1,  # tbl, mEq, ml/hr, ea, month: no UCUM
    ("ucum", "Claim"): 1,
    ("ucum", "MedicationDispense"): 5,
    ("ucum", "MedicationRequest"): 4,
    ("ucum", "VisionPrescription"): 2,
    ("reference-type", "DeviceUseStatement"): 1,
    ("reference-type", "MedicationRequest"): 1,
    ("reference-type", "Observation"): 1,
    ("vital-sign-effective", "Observation"): 1,
}


def _resources(folder: Path, pattern: str, every: int = 1) -> Iterator[Any]:
    paths = sorted(folder.glob(pattern))
    assert paths, f"nothing in {folder} is like {pattern}"
    for path in paths:
        data = gzip.decompress(path.read_bytes())
        for number, line in enumerate(data.splitlines() if ".ndjson" in path.name else [data]):
            if number % every == 0:
                yield orjson.loads(line)


def _errors(resources: Iterator[Any]) -> tuple[int, dict[tuple[str, str], int]]:
    validation = Validation()
    for resource in resources:
        validation.add(resource)
    found = {(rule, kind): n for (severity, rule, kind), n in validation.counts.items() if severity == "error"}
    return sum(validation.num_resources.values()), found


def test_examples_of_hl7_and_us_core(public_data: Path) -> None:
    assert _errors(_resources(public_data, "fhir_examples/*.ndjson.gz")) == (577, _EXAMPLES)


def test_synthea_bundles(public_data: Path) -> None:
    assert _errors(_resources(public_data, "synthea_r4/bundles/*.json.gz")) == (8, {})


def test_every_tenth_resource_of_synthea_and_mimic(public_data: Path) -> None:
    number, found = _errors(_resources(public_data, "synthea_r4/ndjson/*.ndjson.gz", every=10))
    assert number > 11_000
    assert set(found) <= {("ucum", "Observation")}
    number, found = _errors(_resources(public_data, "mimic4_demo_fhir/*/*.ndjson.gz", every=10))
    assert (number > 26_000, found) == (True, {})


@pytest.mark.slow
def test_all_of_synthea_and_mimic(public_data: Path) -> None:
    synthea = _errors(_resources(public_data, "synthea_r4/ndjson/*.ndjson.gz"))
    assert synthea == (117_796, {("ucum", "Observation"): 94})  # (score) and units, said to be UCUM
    assert _errors(_resources(public_data, "mimic4_demo_fhir/*/*.ndjson.gz")) == (260_073, {})


@pytest.fixture(scope="module")
def defects() -> ModuleType:
    """65 single defects in 14 valid resources, which were there before these layers."""
    if not _DEFECTS.is_file():
        pytest.skip("needs the planted defects: set MEDTWIN_TOOLS to their folder")
    spec = importlib.util.spec_from_file_location("planted_defects", _DEFECTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_planted_defects_are_found(defects: ModuleType) -> None:
    missed = []
    for name, base, change in defects.MUT:
        found = validate_resource(defects.m(base, change), ["schema", "rules"])
        if not any(each.severity == "error" for each in found):
            missed.append(name)
    assert (len(defects.MUT), missed) == (65, [])


def test_no_base_of_the_planted_defects_is_refused(defects: ModuleType) -> None:
    found = Counter(str(each) for base in defects.BASE.values() for each in validate_resource(base))
    assert (len(defects.BASE), found) == (14, Counter())
