"""Files as lines and documents of text: gzip or not, no longer than is allowed, and where one breaks off."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, cast

import orjson
from isal import isal_zlib

from medtwin.core.errors import ConfigError
from medtwin.fhir.reading.inflate import GzipStream

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"
_BROKEN = (EOFError, zlib.error, cast("type[Exception]", isal_zlib.error), gzip.BadGzipFile)
_TRUNCATED = "the compressed file ends early or is damaged: what stands before this line was read; copy it again"
_IS_UTF16 = "the file must be UTF-8, and is UTF-16: none of it was read"
# FHIR shrinks to a tenth or a thirtieth; what grows more than this may be meant to fill the disk or to take for ever.
_MAX_INFLATION = 300
_FREE_INFLATION = 64 * 2**20
_BOMB = (
    f"the compressed file grows more than {_MAX_INFLATION} fold, and was read no further: unpack it if that is right"
)
_BLOCK = 1 << 20
# A line may be so many times too long before the rest of its file is given up: a small file can inflate to terabytes.
_GIVE_UP = 8


@dataclass(frozen=True)
class Limits:
    """How much text may be one resource or bundle.

    Attributes:
        max_resource_mb: Megabytes (2**20 bytes) of a line of NDJSON, or of a JSON file.

    Raises:
        ConfigError: If it is not positive.
    """

    max_resource_mb: float = 256

    def __post_init__(self) -> None:
        if not self.max_resource_mb > 0:
            raise ConfigError(f"source.max_resource_mb must be more than 0, got {self.max_resource_mb!r}")

    @property
    def num_bytes(self) -> int:
        """The longest text in bytes."""
        return int(self.max_resource_mb * 2**20)

    @property
    def reason(self) -> str:
        """What a text that is too long is told."""
        return f"a line or document may have {self.max_resource_mb:g} MB: raise source.max_resource_mb if it is none"


# Number, 1-based and 0 for a whole file; text; whether it is known to be UTF-8.
Line = tuple[int, bytes, bool]


class BadLine(NamedTuple):
    """Why a line, or a file from a line on, could not be read: a rule, and a reason without content."""

    number: int
    rule: str
    reason: str


def read_lines(path: Path, limits: Limits) -> Iterator[Line | BadLine]:
    """The lines of NDJSON that hold something, as far as the file can be read."""
    at = [0]
    try:
        with _open(path) as file:
            most = max(_FREE_INFLATION, _MAX_INFLATION * path.stat().st_size)
            yield from _lines(file, limits, at, most)
    except _BROKEN:
        yield BadLine(at[0] + 1, "truncated-gzip", _TRUNCATED)
    except OSError as error:
        yield BadLine(at[0], "unreadable-file", f"cannot be read: {error.strerror}")


def read_document(path: Path, limits: Limits) -> Iterator[Line | BadLine]:
    """A JSON file as one text; one that holds NDJSON under the wrong name as its lines."""
    rest = _Rest(limits)
    try:
        with _open(path) as file:
            for block in iter(lambda: file.read1(_BLOCK), b""):
                rest.add(block)
                if rest.is_too_long:
                    yield BadLine(0, "too-large", limits.reason)
                    return
    except _BROKEN:
        yield BadLine(0, "truncated-gzip", _TRUNCATED)
        return
    except OSError as error:
        yield BadLine(0, "unreadable-file", f"cannot be read: {error.strerror}")
        return
    text = rest.take() or b""
    if text.startswith(_UTF16):
        yield BadLine(0, "not-utf8", _IS_UTF16)
    elif _is_ndjson(text := text.removeprefix(_BOM)):
        for number, line in enumerate(text.split(b"\n"), start=1):
            if line and not line.isspace():
                yield number, line, False
    else:
        yield 0, text, False


def _is_ndjson(text: bytes) -> bool:
    """Whether a text is several JSON objects, one a line."""
    first, _, others = text.lstrip().partition(b"\n")
    if not others.strip():
        return False
    try:
        return isinstance(orjson.loads(first), dict)
    except orjson.JSONDecodeError:
        return False


def _open(path: Path) -> BufferedReader | GzipStream:
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
    file = path.open("rb")
    return GzipStream(file) if is_gzip else file


class _Rest:
    """The beginning of a line that goes on in the next block."""

    __slots__ = ("_limits", "_parts", "_size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, text: bytes) -> None:
        """Appends to it, unless it is too long already."""
        self._size += len(text)
        if self.is_too_long:
            self._parts.clear()
        else:
            self._parts.append(text)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added since the last line."""
        return not self._size

    @property
    def is_too_long(self) -> bool:
        """Whether it is longer than is allowed."""
        return self._size > self._limits.num_bytes

    @property
    def is_hopeless(self) -> bool:
        """Whether it is so much longer that its end is not worth waiting for."""
        return self._size > _GIVE_UP * self._limits.num_bytes

    def take(self) -> bytes | None:
        """The line, which is then forgotten; None if it is too long."""
        text = None if self.is_too_long else b"".join(self._parts)
        self._parts, self._size = [], 0
        return text


def _lines(file: BufferedReader | GzipStream, limits: Limits, at: list[int], most: int) -> Iterator[Line | BadLine]:
    """The lines of a stream; `at` holds how many were read, also when reading fails.

    Args:
        file: The stream.
        limits: How long a line may be.
        at: One number.
        most: How many bytes the stream may have.
    """
    start = file.read(3)
    if start.startswith(_UTF16):
        yield BadLine(1, "not-utf8", _IS_UTF16)
        return
    rest, longest = _Rest(limits), limits.num_bytes
    rest.add(start.removeprefix(_BOM))
    for block in iter(lambda: file.read1(_BLOCK), b""):
        most -= len(block)
        if most < 0:
            yield BadLine(at[0] + 1, "too-large", _BOMB)
            return
        if block.isspace() and rest.is_empty:
            at[0] += block.count(b"\n")
            continue
        first, *others = block.split(b"\n")
        rest.add(first)
        if not others:
            if rest.is_hopeless:
                yield BadLine(at[0] + 1, "too-large", f"{limits.reason}; its file was read no further")
                return
            continue
        yield from _line(rest, limits, at)
        rest.add(others.pop())
        is_utf8 = block.isascii()
        for text in others:
            at[0] += 1
            if len(text) > longest:
                yield BadLine(at[0], "too-large", limits.reason)
            elif text and not text.isspace():
                yield at[0], text, is_utf8
    yield from _line(rest, limits, at)


def _line(rest: _Rest, limits: Limits, at: list[int]) -> Iterator[Line | BadLine]:
    """The line that `rest` holds, if it holds something."""
    at[0] += 1
    text = rest.take()
    # The first three bytes of a stream may hold line breaks of their own.
    *before, last = text.split(b"\n") if text is not None else [b""]
    for number, each in enumerate(before):
        if each and not each.isspace():
            yield at[0] + number, each, False
    at[0] += len(before)
    if text is None:
        yield BadLine(at[0], "too-large", limits.reason)
    elif last and not last.isspace():
        yield at[0], last, False
