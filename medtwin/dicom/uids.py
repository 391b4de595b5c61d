"""UIDs that depend on what they name, so that a run repeated gives the same files."""

from __future__ import annotations

import hashlib

from pydicom.uid import UID

_ROOT = "2.25."
"""PS3.5 B.2: a 128-bit integer in decimal may follow 2.25."""


def synthetic_uid(*parts: str | int) -> UID:
    """A UID of at most 44 characters under 2.25, from 128 bits of the SHA-256 of the parts.

    Args:
        parts: What the UID names, such as run, subject, series and index; their order and number matter.

    Raises:
        ValueError: If there are no parts.

    >>> synthetic_uid("run", 7, "series", 0)
    '2.25.319089080926611207841264736366851415419'
    """
    if not parts:
        raise ValueError("synthetic_uid must be given at least one part, got none")
    text = "\x1f".join(map(str, parts))
    return UID(_ROOT + str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")))


IMPLEMENTATION_UID = synthetic_uid("medtwin", "implementation")
"""Implementation Class UID of the files that we write; constant over versions."""

IMPLEMENTATION_VERSION = "MEDTWIN_1"
"""Implementation Version Name, at most 16 characters; constant, so that equal input gives equal bytes."""
