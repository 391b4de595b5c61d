from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.fhir.defects import Defect, Resource, read_bases, read_defects
from tests.fhir.defects.__main__ import summary
from tests.fhir.defects.catch import is_caught, refused
from tests.fhir.defects.minimal import Definitions
from tests.peers import R4_CORE, require_peer

KINDS = {
    "binding",
    "bundle",
    "cardinality",
    "choice",
    "chronology",
    "code-system",
    "contained",
    "dangling",
    "duplicate-id",
    "extension",
    "invariant",
    "json-type",
    "narrative",
    "primitive",
    "reference-type",
    "ucum",
    "unknown-element",
    "vital-signs",
}
NUM_TYPES = 146  # the resource types of R4 that are not abstract


@pytest.fixture(scope="module")
def bases() -> dict[str, Resource]:
    return read_bases()


@pytest.fixture(scope="module")
def defects() -> list[Defect]:
    return read_defects()


def test_the_set_covers_every_type_and_kind(bases: dict[str, Resource], defects: list[Defect]) -> None:
    assert len(defects) > 500
    assert len({defect.type for defect in defects}) == NUM_TYPES
    assert {defect.kind for defect in defects} == KINDS
    assert Counter(defect.name for defect in defects).most_common(1)[0][1] == 1
    for defect in defects:
        assert json.dumps(defect.plant(bases)) != json.dumps(bases[defect.base]), defect.name


def test_the_minimal_bases_are_those_of_the_definitions(bases: dict[str, Resource]) -> None:
    require_peer("r4_core")
    definitions = Definitions(R4_CORE)
    assert len(definitions.types()) == NUM_TYPES
    assert [name for name in definitions.types() if definitions.minimal(name) != bases[f"min.{name}"]] == []


def test_no_valid_resource_is_refused(bases: dict[str, Resource]) -> None:
    assert refused(bases) == []


def test_nine_of_ten_defects_are_caught(
    bases: dict[str, Resource], defects: list[Defect], capsys: pytest.CaptureFixture[str]
) -> None:
    missed = [defect for defect in defects if not is_caught(defect, bases)]
    with capsys.disabled():
        print("\n" + summary(defects, missed))  # noqa: T201
    assert len(missed) <= 0.1 * len(defects)
