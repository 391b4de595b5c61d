"""An identifier in any text of any resource is nowhere in the dataset, in what the verb says, nor in the books."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from medtwin.fhir.elements import ACTORS, TABLES
from medtwin.pipelines.ingest import IngestSettings, Source, ingest
from tests.fhir.samples import PATIENT, concept, ndjson, observation
from tests.fhir.test_hostile import MARKER, planted, planted_resource

_NUMBER = MARKER.rpartition("-")[2]
_PARTS = ("Zebediah", "Quux", _NUMBER)
_OTHERS = (*ACTORS, "Medication", "Device", "Goal", "RelatedPerson")


def _resources() -> Iterator[dict[str, Any]]:
    """Every type that is read, with the marker in every text, as name of a property, in what it contains."""
    for kind in sorted({*TABLES, "Patient"}):
        made = planted_resource(kind)
        made["contained"] = [planted("Practitioner") | {"resourceType": "Practitioner", "id": MARKER}]
        made[MARKER] = {MARKER: MARKER}
        made["id"] = f"{MARKER}-{kind}"
        yield made
        yield made | {
            "id": f"{MARKER}-{kind}-2",
            "subject": {"reference": f"Patient/{MARKER}-Patient", "display": MARKER},
        }
    for kind in _OTHERS:
        yield planted(kind) | {"resourceType": kind, "id": f"{MARKER}-{kind}"}
    yield observation(
        MARKER,
        performer=[{"reference": f"Practitioner/{MARKER}-Practitioner", "display": MARKER}],
        encounter={"reference": f"Encounter/{MARKER}", "identifier": {"value": MARKER}},
        method=concept(f"{MARKER} of a system", "1") | {"text": MARKER},
        valueQuantity={"value": 1, "unit": MARKER, "code": "mg"},
    )


@pytest.fixture(name="made", scope="module")
def _made() -> list[dict[str, Any]]:
    (number,) = PATIENT["identifier"]
    return [PATIENT | {"identifier": [number | {"value": _NUMBER}]}, *_resources()]


def _words_of(folder: Path) -> Iterator[tuple[str, str]]:
    """The content of every file: as it stands, and decoded."""
    for path in sorted(folder.rglob("*")):
        yield str(path), path.name
        if path.is_file():
            yield str(path), path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                yield str(path), str(pq.read_table(path).to_pydict())
                yield str(path), str(pq.read_metadata(path).to_dict())


@pytest.mark.parametrize("form", ["ndjson", "bundle"])
def test_a_planted_identifier_is_nowhere(
    tmp_path: Path,
    form: str,
    made: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    source, out = tmp_path / "source", tmp_path / "dataset"
    source.mkdir()
    broken = [b'{"resourceType": "%s"' % MARKER.encode(), MARKER.encode(), orjson.dumps({"resourceType": MARKER})]
    if form == "ndjson":
        (source / "all.ndjson").write_bytes(ndjson(*made, *broken))
    else:
        entries = [{"fullUrl": f"urn:uuid:{MARKER}-{number}", "resource": each} for number, each in enumerate(made)]
        (source / "all.json").write_bytes(
            orjson.dumps({"resourceType": "Bundle", "id": MARKER, "type": "collection", MARKER: 1, "entry": entries})
        )
    assert sum(orjson.dumps(each).count(MARKER.encode()) for each in made) > 2_000
    ingest(IngestSettings(source=Source(fhir=source), out=out))
    said = capsys.readouterr()
    counts = orjson.loads((out / "counts.json").read_bytes())
    assert {kind for kind in TABLES if counts["carried"].get(kind, 0)} == set(TABLES)
    found = [(path, part) for path, text in _words_of(out) for part in _PARTS if part in text]
    assert found == []
    assert [part for part in _PARTS if part in said.out + said.err + caplog.text] == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """The control of the test above: a leak would be seen, in the clear and in a compressed column."""
    source, out = tmp_path / "source", tmp_path / "dataset"
    source.mkdir()
    (source / "all.ndjson").write_bytes(ndjson(PATIENT, observation(code=concept("http://loinc.org", "Zebediah"))))
    ingest(IngestSettings(source=Source(fhir=source), out=out))
    files = {Path(path).name for path, text in _words_of(out) if "Zebediah" in text}
    assert {"codes.parquet", "00000.parquet"} <= files
