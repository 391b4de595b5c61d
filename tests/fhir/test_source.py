from __future__ import annotations

import gzip
import os
from pathlib import Path

import orjson
import pytest

from medtwin.core.errors import SourceError
from medtwin.fhir import FhirSource, has_fhir
from tests.fhir.samples import PATIENT, SUBJECT_ID, ndjson, observation, read, rows_of, write_gzip


def _bundle(kind: str) -> bytes:
    """A bundle whose resources have no ids of their own and refer to each other by urn:uuid."""
    patient = {name: value for name, value in PATIENT.items() if name != "id"}
    pulse = observation(subject={"reference": "urn:uuid:aaaa"})
    del pulse["id"]
    entries = [
        {"fullUrl": "urn:uuid:bbbb", "resource": pulse, "request": {"method": "POST", "url": "Observation"}},
        {"fullUrl": "urn:uuid:aaaa", "resource": patient, "request": {"method": "POST", "url": "Patient"}},
    ]
    return orjson.dumps({"resourceType": "Bundle", "type": kind, "entry": entries})


@pytest.mark.parametrize("kind", ["transaction", "collection", "searchset", "batch"])
@pytest.mark.parametrize("packed", [False, True])
def test_bundles(tmp_path: Path, kind: str, packed: bool) -> None:
    data = _bundle(kind)
    (tmp_path / ("b.json.gz" if packed else "b.json")).write_bytes(gzip.compress(data, mtime=0) if packed else data)
    events, ledger = read(tmp_path)
    assert rows_of(events, "Observation")[0].subject_id == SUBJECT_ID
    assert ledger.read == {"Bundle": 1, "Patient": 1, "Observation": 1}


def test_entries_without_a_resource_are_rejected_unless_they_are_requests(tmp_path: Path) -> None:
    deletion = {"request": {"method": "DELETE", "url": "Patient/1"}}
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [deletion, {}, 7, {"resource": PATIENT}]}
    deep = PATIENT
    for _ in range(6):
        deep = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": deep}]}
    (tmp_path / "a.ndjson").write_bytes(ndjson(bundle, deep, {"resourceType": "Bundle", "entry": {}}))
    events, ledger = read(tmp_path)
    assert [(reject.rule, reject.line) for reject in ledger.rejects] == [
        ("malformed-bundle", 1),
        ("malformed-bundle", 1),
        ("malformed-bundle", 2),
        ("malformed-bundle", 3),
    ]
    assert len(events) == 2


def test_a_mixed_tree_of_folders(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "patient.json").write_bytes(b"\xef\xbb\xbf" + orjson.dumps(PATIENT))
    write_gzip(tmp_path / "Observation.ndjson.gz", b"\xef\xbb\xbf" + ndjson(observation("o1"), b"", observation("o2")))
    (tmp_path / "bulk.json").write_bytes(ndjson(observation("o3"), observation("o4")))
    for name in ("scan.dcm", "notes.txt", "README", "table.csv"):
        (tmp_path / name).write_bytes(b"x")
    events, ledger = read(tmp_path)
    assert len(rows_of(events, "Observation")) == 4
    assert ledger.flags["ignored-files"] == 4
    assert ledger.rejects == []


def test_one_file_is_a_source_too(tmp_path: Path) -> None:
    path = tmp_path / "all.ndjson"
    path.write_bytes(ndjson(PATIENT, observation()))
    assert len(read(path)[0]) == 3


def test_a_truncated_gzip_keeps_the_lines_before_the_break(tmp_path: Path) -> None:
    lines = ndjson(PATIENT, *(observation(f"o{number}") for number in range(5000)))
    packed = gzip.compress(lines, mtime=0)
    (tmp_path / "all.ndjson.gz").write_bytes(packed[: len(packed) // 2])
    events, ledger = read(tmp_path)
    assert [reject.rule for reject in ledger.rejects] == ["truncated-gzip"]
    assert 0 < len(rows_of(events, "Observation")) == ledger.rejects[0].line - 1 < 5000


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("a.json", b"{", "malformed-json"),
        ("a.json", b"\xff\xfe{\x00}\x00", "not-utf8"),
        ("a.ndjson", b"\xff\xfe{\x00}\x00\n\x00", "not-utf8"),
        ("a.json", b"[" * 5000, "malformed-json"),
        ("a.json.gz", gzip.compress(b"{}" * 500, mtime=0)[:20], "truncated-gzip"),
    ],
)
def test_files_that_cannot_be_read_are_rejected_whole(tmp_path: Path, name: str, data: bytes, rule: str) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.ndjson").write_bytes(ndjson(PATIENT))
    events, ledger = read(tmp_path)
    assert [(reject.file, reject.rule) for reject in ledger.rejects] == [(name, rule)]
    assert ledger.read["unreadable"] == 1
    assert len(events) == 2


def test_nothing_to_read_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        FhirSource(tmp_path / "nowhere")
    (tmp_path / "scan.dcm").write_bytes(b"x")
    assert not has_fhir(tmp_path)
    with pytest.raises(SourceError, match=r"looked for \.json, \.ndjson.*1 other files"):
        FhirSource(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(SourceError, match="closed"):
        FhirSource(tmp_path)
