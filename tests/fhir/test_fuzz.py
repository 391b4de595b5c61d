"""Mutated resources and files through the real reader: nothing breaks it, nothing is lost, everything has a reason.

5,000 of them under `slow`; 200 always.
"""

from __future__ import annotations

import copy
import gzip
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from medtwin.core.errors import SourceError
from medtwin.core.events import row_findings, sort_events
from medtwin.core.findings import errors_in
from medtwin.core.sources import Ledger
from medtwin.fhir import FhirSource, index_source
from medtwin.fhir.read import Reader, read_tables
from medtwin.fhir.reading.lines import Limits
from tests.fhir.hostile import JUNK, SAMPLES, places
from tests.fhir.samples import PATIENT, UNSHIFTED, ndjson

# Small, so that a text of a megabyte is too long.
_LIMITS = Limits(0.5)
_LAST = PATIENT | {"id": "last", "identifier": []}
_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"00", b"1.", b"0x1F", b"1" * 400, b"-0", b"1e-400")
_MANY = "Quux\u0001😀 " * 40_000


# --- Mutations of one resource: JSON text, of one line --------------------------------------------------------------


def _junk(sample: Any, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(places(sample))
        holder[key] = copy.deepcopy(rng.choice(JUNK))
    return orjson.dumps(sample)


def _wrong_types(sample: Any, rng: random.Random) -> bytes:
    holder, key = rng.choice(places(sample))
    value = holder[key]
    holder[key] = rng.choice([[value], {"value": value}, str(value), None, not value, [value, value], {str(value): {}}])
    return orjson.dumps(sample)


def _dropped(sample: Any, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 4)):
        found = places(sample)
        if found:
            holder, key = rng.choice(found)
            del holder[key]
    return orjson.dumps(sample)


def _renamed(sample: Any, rng: random.Random) -> bytes:
    holders = [holder for holder, _ in places(sample) if isinstance(holder, dict)]
    holder = rng.choice(holders)
    key = rng.choice(list(holder))
    names = [
        "value",
        "valueQuantity",
        "code",
        "Quux",
        "",
        "_" + key,
        key.upper(),
        "reference",
        "\u0000",
        "resourceType",
    ]
    holder[rng.choice(names)] = holder.pop(key)
    return orjson.dumps(sample)


def _deep(sample: Any, rng: random.Random) -> bytes:
    text, depth = orjson.dumps(sample), rng.choice([50, 900, 1100, 10_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"extension":[', b"]}"), (b'{"a":', b"}")])
    return text[:-1] + b',"extension":' + opening * depth + b"0" + closing * (depth if rng.random() < 0.8 else 0) + b"}"


def _huge(sample: Any, rng: random.Random) -> bytes:
    holder, key = rng.choice(places(sample))
    holder[key] = _MANY[: rng.choice([70, 300, 5_000, 100_000, 1_000_000])]
    return orjson.dumps(sample)


def _number(sample: Any, rng: random.Random) -> bytes:
    holder, key = rng.choice(places(sample))
    holder[key] = "@number@"
    return orjson.dumps(sample).replace(b'"@number@"', rng.choice(_NUMBERS))


def _bytes(sample: Any, rng: random.Random) -> bytes:
    text = bytearray(orjson.dumps(sample))
    for _ in range(rng.randint(1, 6)):
        text[rng.randrange(len(text))] = rng.choice([0, 9, 34, 44, 58, 91, 92, 123, 125, 127, 128, 0xC3, 0xED, 0xFF])
    return bytes(text)


def _cut(sample: Any, rng: random.Random) -> bytes:
    text = orjson.dumps(sample)
    return text[: rng.randrange(1, len(text))]


def _spliced(sample: Any, rng: random.Random) -> bytes:
    text, other = orjson.dumps(sample), orjson.dumps(rng.choice(SAMPLES))
    return text[: rng.randrange(len(text))] + other[rng.randrange(len(other)) :]


def _doubled(sample: Any, rng: random.Random) -> bytes:
    text = orjson.dumps(sample)
    return text[:-1] + b"," + orjson.dumps(rng.choice(SAMPLES))[1:]


_LINES: tuple[Callable[[Any, random.Random], bytes], ...] = (
    _junk,
    _wrong_types,
    _dropped,
    _renamed,
    _deep,
    _huge,
    _number,
    _bytes,
    _cut,
    _spliced,
    _doubled,
)


# --- Mutations of a whole file --------------------------------------------------------------------------------------


def _bundle(lines: list[bytes], rng: random.Random) -> bytes:
    kind = rng.choice([b'"transaction"', b'"collection"', b"7", b"null"])
    entries = [b'{"fullUrl":"urn:uuid:%d","resource":%s}' % (number, line) for number, line in enumerate(lines)]
    return b'{"resourceType":"Bundle","type":' + kind + b',"entry":[' + b",".join(entries) + b"]}"


def _cut_gzip(data: bytes, rng: random.Random) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return packed[: rng.randrange(3, len(packed))]


def _broken_gzip(data: bytes, rng: random.Random) -> bytes:
    packed = bytearray(gzip.compress(data, mtime=0))
    packed[rng.randrange(2, len(packed))] ^= 1 << rng.randrange(8)
    return bytes(packed)


def _two_gzip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return gzip.compress(data[:at], mtime=0) + gzip.compress(data[at:], mtime=0)


_FILES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda data, rng: data[: rng.randrange(len(data))],
    lambda data, rng: b"\xef\xbb\xbf" + data,
    lambda data, rng: data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-be", "utf-32", "utf-7"])),
    lambda data, rng: data.decode("latin-1").encode("latin-1") + b"\xe9\n",
    lambda data, rng: data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n\n", b"\0\n", b" \n\t"])),
    lambda data, rng: bytes(rng.randrange(256) for _ in range(2_000)),
    lambda data, rng: b"",
    _cut_gzip,
    _broken_gzip,
    _two_gzip,
)
_NAMES = ("a.ndjson", "a.json", "a.ndjson.gz", "a.json.gz", "a.JSONL")


def _case(folder: Path, rng: random.Random) -> int | None:
    """Writes a source; gives how many items it has, where that is known."""
    made = [copy.deepcopy(rng.choice(SAMPLES)) | {"id": f"x{number}"} for number in range(rng.randint(1, 6))]
    lines = [rng.choice(_LINES)(sample, rng) for sample in made]
    (folder / "z.ndjson").write_bytes(ndjson(*SAMPLES, _LAST))
    way = rng.random()
    if way < 0.6:
        (folder / "a.ndjson").write_bytes(ndjson(*lines))
        is_plain = not any(b"\n" in line or b"Bundle" in line or line.isspace() for line in lines)
        return len(SAMPLES) + 1 + len(lines) if is_plain else None
    if way < 0.75:
        (folder / "a.json").write_bytes(_bundle(lines, rng))
        return None
    (folder / rng.choice(_NAMES)).write_bytes(rng.choice(_FILES)(ndjson(*made, *lines), rng))
    return None


def _read(folder: Path) -> Ledger:
    source, ledger = FhirSource(folder, _LIMITS), Ledger()
    for table in read_tables(source, Reader(index_source(source), UNSHIFTED, ledger)):
        assert errors_in(row_findings(sort_events(table))) == []
    return ledger


def _fuzz(folder: Path, seed: int, count: int) -> Counter[str]:
    """What became of all items of so many sources."""
    total: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        place = folder / str(number)
        place.mkdir()
        expected = _case(place, rng)
        began = time.process_time()
        ledger = _read(place)
        assert time.process_time() - began < 20, number
        assert ledger.imbalance() == {}, number
        assert expected is None or ledger.read.total() == expected, number
        assert ledger.carried["Patient"] >= 2, number  # what came after the mutated file was read
        assert all(reject.rule and reject.reason for reject in ledger.rejects), number
        assert "Quux" not in f"{ledger}", number
        total.update({name: getattr(ledger, name).total() for name in ("carried", "not_carried", "rejected")})
        total.update(ledger.rules)
        for path in place.iterdir():
            path.unlink()
    return total


def test_mutated_sources_are_read_or_rejected_with_a_reason(tmp_path: Path) -> None:
    total = _fuzz(tmp_path, seed=1, count=200)
    assert total["rejected"] > 200
    for rule in ("malformed-json", "malformed-resource", "not-utf8", "too-large", "truncated-gzip", "unknown-type"):
        assert total[rule] > 0, rule


@pytest.mark.slow
def test_five_thousand_mutated_sources_are_read_or_rejected_with_a_reason(tmp_path: Path) -> None:
    total = _fuzz(tmp_path, seed=2, count=5_000)
    assert total["rejected"] > 5_000


def test_a_source_of_nothing_but_broken_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b"\xff\xfe")
    ledger = _read(tmp_path)
    assert ledger.rules == {"not-utf8": 1}
    (tmp_path / "a.ndjson").unlink()
    with pytest.raises(SourceError):
        _read(tmp_path)
