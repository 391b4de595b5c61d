"""A multipart/related answer, part by part, in bounded memory (RFC 2046 5.1, RFC 2387; DICOM PS3.18 8.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.message import Message
from typing import IO

_MAX_HEADERS = 65_536
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{1,200}")


class BrokenMultipartError(Exception):
    """The answer ends before its last boundary, or is no multipart: what came of it is not whole."""


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a Content-Type states; None if it is not multipart/related.

    >>> boundary_of('multipart/related; type="application/dicom"; boundary="a b"')
    b'a b'
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or boundary is None or not _BOUNDARY.fullmatch(boundary):
        return None
    return boundary.encode()


def split_parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[Iterator[bytes]]:
    """The contents of the parts, each as chunks; a part must be read to its end before the next.

    Args:
        chunks: The body.
        boundary: Of `boundary_of`.

    Raises:
        BrokenMultipartError: If it ends before the last boundary, or a part has no end to its headers.
    """
    reader = _Reader(chunks, boundary)
    for _ in reader.until_boundary():
        pass
    while not reader.is_last():
        reader.skip_headers()
        yield reader.until_boundary()


def save_part(part: Iterable[bytes], file: IO[bytes]) -> int:
    """Writes the content of a part; returns how many bytes it has."""
    size = 0
    for chunk in part:
        size += file.write(chunk)
    return size


class _Reader:
    """Gives what stands before the next boundary, and steps over it."""

    def __init__(self, chunks: Iterable[bytes], boundary: bytes) -> None:
        self._chunks = iter(chunks)
        self._delimiter = b"\r\n--" + boundary
        self._data = bytearray(b"\r\n")  # the first boundary may stand at the very beginning

    def until_boundary(self) -> Iterator[bytes]:
        while (place := self._data.find(self._delimiter)) < 0:
            safe = len(self._data) - len(self._delimiter)
            if safe > 0:
                yield bytes(self._data[:safe])
                del self._data[:safe]
            self._more()
        yield bytes(self._data[:place])
        del self._data[: place + len(self._delimiter)]

    def is_last(self) -> bool:
        """Whether the boundary just passed was the last: two hyphens follow it."""
        while len(self._data) < 2:
            self._more()
        return self._data.startswith(b"--")

    def skip_headers(self) -> None:
        while (place := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > _MAX_HEADERS:
                raise BrokenMultipartError
            self._more()
        # The blank line ends the headers; where there are none, it stands right behind the boundary.
        del self._data[: place + 4]

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise BrokenMultipartError
        self._data += chunk
