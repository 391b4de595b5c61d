"""A gzip file as a stream that gives all of what can be inflated before it says that the file is broken."""

from __future__ import annotations

from types import TracebackType
from typing import IO, Any

from isal import isal_zlib

_CHUNK = 1 << 16
_GZIP_WINDOW = 31


class GzipStream:
    """Reads a gzip file of any number of members, in bounded memory; inflating is ISA-L's.

    igzip's own reader raises at the end of a truncated file before it has given what came before.

    Args:
        file: The compressed file, open at its beginning; closed with the stream.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pending = b""
        self._inflate: Any = isal_zlib.decompressobj(wbits=_GZIP_WINDOW)

    def __enter__(self) -> GzipStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read1(self, size: int) -> bytes:
        """At most so many bytes, and at least one unless the file has ended.

        Raises:
            EOFError: If the file ends within a member.
            isal_zlib.error: If it is no gzip from here on.
        """
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            data = self._pending or self._file.read(_CHUNK)
            text: bytes = self._inflate.decompress(data, size)
            self._pending = self._inflate.unconsumed_tail
            if text:
                return text
            if not data and not self._inflate.eof:
                raise EOFError

    def read(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        parts = []
        while size > 0 and (text := self.read1(size)):
            parts.append(text)
            size -= len(text)
        return b"".join(parts)

    def _next_member(self) -> bool:
        """Whether another member follows; zeros between members are padding."""
        rest: bytes = self._inflate.unused_data.lstrip(b"\0")
        while not rest:
            chunk = self._file.read(_CHUNK)
            if not chunk:
                return False
            rest = chunk.lstrip(b"\0")
        self._pending = rest
        self._inflate = isal_zlib.decompressobj(wbits=_GZIP_WINDOW)
        return True
