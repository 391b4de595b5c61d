"""What was sent and what the server confirmed, on disk before anything else happens, so that a killed run continues."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from medtwin.core.errors import OutputError

_VERSION = 1


@dataclass(frozen=True)
class Failure:
    """A resource that the server did not take.

    Attributes:
        key: Its type and id.
        status: Of HTTP; 0 if it was not sent.
        codes: The issue codes of the server's OperationOutcome, or why it was not sent.
        elements: The element paths that the outcome names, without content.
    """

    key: str
    status: int
    codes: tuple[str, ...]
    elements: tuple[str, ...] = ()


@dataclass
class Tally:
    """What became of the resources of a parcel.

    Attributes:
        done: `created`, `updated` or `unchanged`, by type.
        failures: Those not taken.
        ids: The references under which the server keeps resources, where it chose the ids itself.
        rest: What is left, as parcels of their own, each by its keys.
    """

    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    rest: list[list[str]] = field(default_factory=list)

    @property
    def num_done(self) -> int:
        """Resources that the server has."""
        return self.done.total()


class Journal:
    """A file of one line per step: a parcel was sent, divided, or concluded.

    Every line is on disk (fsync) when `record` returns. A line that a kill cut short is dropped on opening. The last
    line of a parcel holds; nothing is rewritten.

    Args:
        path: The file; made if it is not there.
        about: What it is about: the server, and how it is written to; another one is not continued.

    Raises:
        OutputError: If the file is another server's, or no journal.
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self._path = path
        self._places: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self.started: str | None = None
        size = self._load(about) if path.exists() else 0
        self._file: IO[bytes] = path.open("r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)
        if not size:
            self._append({"medtwin_journal": _VERSION, "about": dict(about)})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def state(self, digest: str) -> str | None:
        """What the last line says of a parcel; None if it was never sent.

        `sent`; `divided` into halves; `concluded`, the tally says how; `continued`, concluded but for its rest.
        """
        found = self._places.get(digest)
        return found[0] if found else None

    def num(self, state: str) -> int:
        """How many parcels are in a state."""
        return sum(1 for found, _ in self._places.values() if found == state)

    def start(self, moment: str) -> str:
        """The server's time when the first run began; `moment`, if this is the first."""
        if self.started is None:
            self._append({"started": moment})
            self.started = moment
        return self.started

    def record(self, digest: str, state: str, tally: Tally | None = None) -> None:
        """Writes what became of a parcel, and waits until it is on disk."""
        line: dict[str, Any] = {"parcel": digest, "state": state}
        if tally is not None:
            line["done"] = [[kind, what, number] for (kind, what), number in sorted(tally.done.items())]
            line["failures"] = [[each.key, each.status, each.codes, each.elements] for each in tally.failures]
            line |= {"ids": tally.ids, "rest": tally.rest}
        place = self._append(line)
        self._places[digest] = (state, place)

    def tally(self, digest: str) -> Tally:
        """What was recorded of a parcel that is concluded or continued."""
        _, place = self._places[digest]
        with self._lock, self._path.open("rb") as file:
            file.seek(place)
            return _tally(orjson.loads(file.readline()))

    def total(self) -> Tally:
        """What became of all resources, over all runs."""
        total = Tally()
        for digest, (state, _) in list(self._places.items()):
            if state in ("concluded", "continued"):
                each = self.tally(digest)
                total.done += each.done
                total.failures += each.failures
        return total

    def _append(self, line: Mapping[str, Any]) -> int:
        with self._lock:
            place = self._file.tell()
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            self._file.flush()
            os.fsync(self._file.fileno())
            return place

    def _load(self, about: Mapping[str, str]) -> int:
        """Reads the file; returns its length without a line that was cut short."""
        size = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                value = _object(line)
                if number == 0:
                    self._require(value, about)
                elif "started" in value:
                    self.started = str(value["started"])
                elif "parcel" in value:
                    self._places[str(value["parcel"])] = (str(value["state"]), size)
                size += len(line)
        return size

    def _require(self, head: Mapping[str, Any], about: Mapping[str, str]) -> None:
        if head.get("medtwin_journal") != _VERSION:
            raise OutputError(f"{self._path} is no journal of this version of medtwin: choose another out=")
        if head.get("about") != dict(about):
            raise OutputError(f"{self._path} is about another server or another way of writing: choose another out=")


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _tally(line: Mapping[str, Any]) -> Tally:
    done = Counter({(kind, what): number for kind, what, number in line["done"]})
    failures = [Failure(key, status, tuple(codes), tuple(paths)) for key, status, codes, paths in line["failures"]]
    return Tally(done, failures, dict(line["ids"]), list(line["rest"]))
