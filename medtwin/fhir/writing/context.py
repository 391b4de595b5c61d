"""What every resource of an export says of where it comes from, and the ids that medtwin gives."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import medtwin
from medtwin.fhir.terms import HTEST_SYSTEM, ORIGIN_SYSTEM
from medtwin.fhir.writing.rows import Resource

Profile = Literal["r4", "us-core-6.1"]
PROFILES: tuple[Profile, ...] = ("r4", "us-core-6.1")
# Our namespace of version 5 UUIDs (RFC 4122, section 4.3): the UUID of the URI `urn:medtwin` in the namespace of URLs.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:medtwin")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True)
class ExportContext:
    """What every resource of an export says of where it comes from.

    Attributes:
        origin: Whether the subjects are real, simulated or synthetic; all but real are labelled as test data.
        run: URI that names the export; stands in `meta.source`.
        recorded: When it was made.
        profile: `us-core-6.1` completes resources for US Core 6.1, and declares its profiles where they are met.

    Raises:
        ValueError: If there is no such profile.
    """

    origin: Literal["real", "simulated", "synthetic"]
    run: str = "urn:medtwin:export"
    recorded: datetime = field(default_factory=lambda: datetime.now(UTC))
    version: str = medtwin.__version__
    profile: Profile = "r4"

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {self.profile!r}")

    def meta(self, profiles: tuple[str, ...] = (), tags: tuple[Resource, ...] = ()) -> Resource:
        """The `meta` of a resource.

        Args:
            profiles: The profiles that it meets.
            tags: Its own, beside that of its origin.
        """
        meta: Resource = {"source": self.run}
        if profiles:
            meta["profile"] = list(profiles)
        if self.origin != "real":
            meta["security"] = [{"system": HTEST_SYSTEM, "code": "HTEST", "display": "test health data"}]
            tags = ({"system": ORIGIN_SYSTEM, "code": self.origin}, *tags)
        if tags:
            meta["tag"] = list(tags)
        return meta


def stable_id(text: str) -> str:
    """The version 5 UUID of a text in medtwin's namespace: what it is depends on the text only.

    >>> stable_id("device|1")
    '4e178e14-959b-5b3c-be5f-b016d33e8152'
    """
    raw = bytearray(hashlib.sha1(NAMESPACE.bytes + text.encode(), usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50
    raw[8] = raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def fhir_id(event_id: str) -> str:
    """The id of an event's resource: its own, where FHIR and its servers allow it."""
    return event_id if _ID.fullmatch(event_id) and not event_id.isdecimal() else stable_id(event_id)
