"""One secret key gives every pseudonym of a dataset, so that records and images of a person stay together.

Identities are hashed with keyed BLAKE2b (RFC 7693): without the key a pseudonym can be neither reversed nor recomputed
from a guessed identifier. Keep the key as safe as the source itself.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from medtwin.core.errors import ConfigError

KEY_BYTES = 32


SUBJECT_SYSTEM = "urn:medtwin:subject"
"""Who issues the number of a subject: `system` of Patient.identifier in FHIR, IssuerOfPatientID in DICOM."""


@dataclass(frozen=True)
class Pseudonyms:
    """The pseudonyms of one dataset.

    Attributes:
        key: 32 secret bytes.
        max_shift_weeks: Dates of a subject move by 1 to this many whole weeks, forward or back; 0 keeps them.

    Raises:
        ConfigError: If the key has another length or the shift is negative.
    """

    key: bytes
    max_shift_weeks: int = 52

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ConfigError(f"a pseudonym key must be {KEY_BYTES} bytes, got {len(self.key)}")
        if self.max_shift_weeks < 0:
            raise ConfigError(f"max_shift_weeks must be 0 or more, got {self.max_shift_weeks}")

    def _digest(self, purpose: str, text: str, size: int) -> bytes:
        person = purpose.encode().ljust(16, b"\0")[:16]
        return hashlib.blake2b(text.encode(), key=self.key, person=person, digest_size=size).digest()

    def subject_id(self, identity: str) -> int:
        """A positive 63-bit integer for an identity such as `mr:12345`."""
        return int.from_bytes(self._digest("subject", identity, 8), "big") >> 1

    def shift(self, subject_id: int) -> timedelta:
        """How far the dates of a subject move: whole weeks, so that weekdays stay; never zero unless switched off."""
        if self.max_shift_weeks == 0:
            return timedelta(0)
        draw = int.from_bytes(self._digest("shift", str(subject_id), 8), "big")
        weeks = 1 + draw % self.max_shift_weeks
        return timedelta(weeks=weeks if draw >> 63 else -weeks)

    def __reduce__(self) -> tuple[type[Pseudonyms], tuple[bytes, int]]:
        """Pickles what it is made of: the state of a hash cannot be."""
        return Pseudonyms, (self.key, self.max_shift_weeks)

    @cached_property
    def _event_hash(self) -> hashlib.blake2b:
        return hashlib.blake2b(key=self.key, person=b"event".ljust(16, b"\0"), digest_size=16)

    def event_digest(self, resource: str, resource_id: str) -> bytes:
        """The 16 bytes that `event_id` writes out."""
        return self.event_digests(resource)(resource_id.encode())

    def event_digests(self, resource: str) -> Callable[[bytes], bytes]:
        """`event_digest` of one type of resource, for many ids in UTF-8."""
        start = self._event_hash.copy()
        start.update(f"{resource}/".encode())

        def digest(resource_id: bytes) -> bytes:
            state = start.copy()
            state.update(resource_id)
            return state.digest()

        return digest

    def event_id(self, resource: str, resource_id: str) -> str:
        """A FHIR id in the form of a UUID; begins with a letter, because HAPI refuses purely numeric ids."""
        digits = self.event_digest(resource, resource_id).hex()
        return f"a{digits[1:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def uid(self, source_uid: str) -> str:
        """A DICOM UID under 2.25 (PS3.5 B.2: a UUID as a decimal) for a UID of the source."""
        return f"2.25.{int.from_bytes(self._digest('uid', source_uid, 16), 'big')}"

    def fingerprint(self) -> str:
        """Names the key without revealing it; provenance records it."""
        return self._digest("fingerprint", "", 8).hex()


def event_ids(digests: Sequence[bytes]) -> pa.Array:
    """The `event_id` of every `event_digest`, (digests,) string.

    >>> pseudonyms = Pseudonyms(bytes(32))
    >>> event_ids([pseudonyms.event_digest("Patient", "7")])[0].as_py() == pseudonyms.event_id("Patient", "7")
    True
    """
    digits = np.frombuffer(b"".join(digests).hex().encode(), dtype=np.uint8).reshape(-1, 32)
    text = np.full((len(digits), 36), ord("-"), dtype=np.uint8)
    for at, begin, end in ((0, 0, 8), (9, 8, 12), (14, 12, 16), (19, 16, 20), (24, 20, 32)):
        text[:, at : at + end - begin] = digits[:, begin:end]
    text[:, 0] = ord("a")
    ends = np.arange(len(digits) + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(len(digits), pa.py_buffer(ends), pa.py_buffer(text))


def load_or_create_key(path: Path, new: bytes | None = None) -> bytes:
    """The key stored in `path`; makes a new one, readable by its owner only, if the file does not exist.

    Args:
        path: The file.
        new: What the new key is to be; None: random. Only for patients who are simulated, whose identity is no secret.

    Raises:
        ConfigError: If the file is not a key, or others may read it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    with os.fdopen(descriptor, "w") as file:
        key = secrets.token_bytes(KEY_BYTES) if new is None else new
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_key(path: Path) -> bytes:
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} is a secret key that others may read: run chmod 600 on it")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise ConfigError(f"{path} must hold {2 * KEY_BYTES} hexadecimal digits") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path} must hold {2 * KEY_BYTES} hexadecimal digits; "
            "a run that was killed may have left it short: delete it"
        )
    return key
