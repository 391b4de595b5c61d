from __future__ import annotations

import gzip
import os
import time
import zlib
from pathlib import Path

import orjson
import pytest

from medtwin.core.errors import ConfigError, SourceError
from medtwin.core.sources import Ledger
from medtwin.fhir import FhirSource, has_fhir, index_source, read_events
from medtwin.fhir.reading.lines import Limits
from tests.fhir.samples import PATIENT, SUBJECT_ID, UNSHIFTED, ndjson, observation, read, rows_of, write_gzip


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
    assert 0 < len(rows_of(events, "Observation")) == ledger.rejects[0].line - 2 < 5000


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


def _read_limited(folder: Path, megabytes: float) -> Ledger:
    source, ledger = FhirSource(folder, Limits(megabytes)), Ledger()
    list(read_events(source, index_source(source), UNSHIFTED, ledger))
    assert ledger.imbalance() == {}
    return ledger


def test_a_line_that_is_too_long_is_rejected_and_the_next_is_read(tmp_path: Path) -> None:
    long = observation("long", note=[{"text": "x" * 200_000}])
    (tmp_path / "a.ndjson").write_bytes(ndjson(PATIENT, observation("o1"), long, observation("o2")))
    (tmp_path / "b.json").write_bytes(orjson.dumps(long))
    ledger = _read_limited(tmp_path, 0.1)
    assert [(reject.file, reject.line, reject.rule) for reject in ledger.rejects] == [
        ("a.ndjson", 3, "too-large"),
        ("b.json", 0, "too-large"),
    ]
    assert "source.max_resource_mb" in ledger.rejects[0].reason
    assert ledger.carried["Observation"] == 2
    assert _read_limited(tmp_path, 1).rules == {"duplicate-id": 1}


def _bomb(path: Path, megabytes: int, pattern: bytes) -> None:
    """Writes a gzip file of so much of one pattern, without ever holding it."""
    packer = zlib.compressobj(9, wbits=31)
    block = pattern * (2**20 // len(pattern))
    with path.open("wb") as file:
        file.write(packer.compress(ndjson(PATIENT)))
        for _ in range(megabytes):
            file.write(packer.compress(block))
        file.write(packer.flush())


@pytest.mark.parametrize(
    ("name", "pattern", "rule"),
    [
        ("a.ndjson.gz", b"\0", "too-large"),
        ("a.ndjson.gz", b'{"a":', "too-large"),
        ("a.ndjson.gz", b"\n", "too-large"),
        ("a.ndjson.gz", b"{}\n", "not-fhir"),
        ("a.json.gz", b"\0", "too-large"),
        ("a.json.gz", b"{}\n", "too-large"),
    ],
)
def test_a_small_file_that_grows_without_end_is_stopped(tmp_path: Path, name: str, pattern: bytes, rule: str) -> None:
    _bomb(tmp_path / name, 300, pattern)
    assert (tmp_path / name).stat().st_size < 2**20
    (tmp_path / "z.ndjson").write_bytes(ndjson(PATIENT | {"id": "p2", "identifier": []}))
    began = time.process_time()
    ledger = _read_limited(tmp_path, 1)
    assert time.process_time() - began < 20
    # A line that never ends, empty ones that never end, or lines that are no FHIR.
    assert [(each.file, each.rule) for each in ledger.rejects if each.rule != "unknown-type"] == [(name, rule)]
    assert ledger.carried["Patient"] == (2 if "ndjson" in name else 1)


@pytest.mark.parametrize("megabytes", [0, -1, float("nan")])
def test_a_limit_must_leave_something_to_read(megabytes: float) -> None:
    with pytest.raises(ConfigError, match="max_resource_mb"):
        Limits(megabytes)


@pytest.mark.parametrize(
    "line",
    [
        b'{"resourceType": "Observation", "meta": {"a": "\xff"}}',
        b'{"resourceType": "Observation", "meta": {"a": "\xed\xa0\x80"}}',
        b'{"resourceType": "Observation", "\xe9": 1}',
        orjson.dumps(observation(note="\u00e9")).decode().encode("latin-1"),
    ],
)
def test_what_is_not_read_must_be_utf8_too(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.ndjson").write_bytes(ndjson(PATIENT, line, observation("\u00e9")))
    _, ledger = read(tmp_path)
    assert [(reject.line, reject.rule) for reject in ledger.rejects] == [(2, "not-utf8")]


@pytest.mark.parametrize(
    "element",
    [
        b"[1,]",
        b"01",
        b"+1",
        b"tru",
        b'"\x01"',
        b'"\\x"',
        b'"\\ud800"',
        b"NaN",
        b"-Infinity",
        b"1e",
        b"{1: 2}",
        b"[" * 20_000,
    ],
)
def test_what_is_not_read_must_be_json_too(tmp_path: Path, element: bytes) -> None:
    (tmp_path / "a.ndjson").write_bytes(
        ndjson(PATIENT, b'{"resourceType": "Observation", "extension": ' + element + b"}", observation())
    )
    events, ledger = read(tmp_path)
    assert [(reject.line, reject.rule) for reject in ledger.rejects] == [(2, "malformed-json")]
    assert len(rows_of(events, "Observation")) == 1


def _manifest(*urls: str, **more: object) -> bytes:
    output = [{"type": "Patient", "url": url} for url in urls]
    return orjson.dumps({"transactionTime": "2020-01-01T00:00:00Z", "request": "x", "output": output, **more})


def test_a_bulk_export_is_read_with_its_manifest(tmp_path: Path) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-found"}]}
    write_gzip(tmp_path / "Patient.000.ndjson.gz", ndjson(PATIENT))
    (tmp_path / "Observation.000.ndjson").write_bytes(ndjson(observation()))
    (tmp_path / "error.ndjson").write_bytes(ndjson(outcome))
    urls = [f"https://x.example/download/{name}.000.ndjson?token=1" for name in ("Patient", "Observation")]
    error = [{"type": "OperationOutcome", "url": "https://x.example/error.ndjson"}]
    (tmp_path / "manifest.json").write_bytes(_manifest(*urls, error=error, deleted=[]))
    _, ledger = read(tmp_path)
    assert ledger.rejects == []
    assert ledger.carried == {"Patient": 1, "Observation": 1}
    assert ledger.not_carried == {"OperationOutcome": 1}
    assert ledger.flags == {"ignored-files": 1, "export-manifests": 1, "export-error-files": 1}


def test_a_bulk_export_of_which_a_file_is_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Patient.000.ndjson").write_bytes(ndjson(PATIENT))
    (tmp_path / "manifest.json").write_bytes(
        _manifest("https://x/Patient.000.ndjson", "https://x/Condition.000.ndjson")
    )
    with pytest.raises(SourceError, match=r"1 of them are not there \(condition\.000\.ndjson\): download"):
        FhirSource(tmp_path)


def test_a_bulk_export_may_have_been_renamed_whole(tmp_path: Path) -> None:
    (tmp_path / "1.ndjson").write_bytes(ndjson(PATIENT))
    (tmp_path / "export_manifest.json").write_bytes(_manifest("https://x/Patient.000.ndjson"))
    assert FhirSource(tmp_path).flags["export-manifest-with-other-names"] == 1


def test_a_manifest_with_an_entry_without_a_url_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.ndjson").write_bytes(ndjson(PATIENT))
    (tmp_path / "manifest.json").write_bytes(_manifest().replace(b"[]", b"[7]"))
    with pytest.raises(SourceError, match=r"manifest\.json: every entry"):
        FhirSource(tmp_path)
