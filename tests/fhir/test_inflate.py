from __future__ import annotations

import gzip
import io
import random

import pytest
from isal import isal_zlib

from medtwin.fhir.reading.inflate import GzipStream

TEXT = b"".join(b"%d %s\n" % (number, random.Random(number).randbytes(9).hex().encode()) for number in range(20_000))


def _read(data: bytes, size: int) -> tuple[bytes, str]:
    """What a stream gives, and the name of what it raises at the end."""
    found = []
    with GzipStream(io.BytesIO(data)) as stream:
        try:
            while text := stream.read1(size):
                assert len(text) <= size
                found.append(text)
        except (EOFError, isal_zlib.error) as error:
            return b"".join(found), type(error).__name__
    return b"".join(found), ""


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_it_gives_what_gzip_gives(size: int) -> None:
    members = gzip.compress(TEXT[:100_000]) + gzip.compress(b"") + gzip.compress(TEXT[100_000:])
    assert _read(members, size) == (gzip.decompress(members), "") == (TEXT, "")
    assert _read(members + b"\0" * 512, size) == (TEXT, "")


def test_of_a_truncated_file_it_gives_what_stands_before_the_end() -> None:
    whole = gzip.compress(TEXT)
    found, error = _read(whole[: len(whole) // 2], 1 << 20)
    assert error == "EOFError"
    assert TEXT.startswith(found)
    assert len(TEXT) * 0.45 < len(found) < len(TEXT) * 0.55


@pytest.mark.parametrize("cut", [1, 8])
def test_a_file_without_its_checksum_is_truncated(cut: int) -> None:
    assert _read(gzip.compress(TEXT)[:-cut], 1 << 20) == (TEXT, "EOFError")


def test_what_follows_and_is_no_gzip_is_an_error() -> None:
    assert _read(gzip.compress(TEXT) + b"rubbish, and more of it", 1 << 20) == (TEXT, "IsalError")


def test_a_changed_byte_is_an_error() -> None:
    whole = bytearray(gzip.compress(TEXT))
    whole[-6] ^= 1  # of the checksum
    assert _read(bytes(whole), 1 << 20)[1] == "IsalError"


def test_it_reads_so_many_bytes() -> None:
    with GzipStream(io.BytesIO(gzip.compress(b"abc") + gzip.compress(b"def"))) as stream:
        assert [stream.read(2), stream.read(3), stream.read(3), stream.read(3)] == [b"ab", b"cde", b"f", b""]
