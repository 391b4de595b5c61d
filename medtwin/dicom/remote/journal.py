"""What the PACS confirmed, on disk as it comes, so that a killed run continues."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from medtwin.core.errors import OutputError
from medtwin.dicom.remote.instances import Instance, Outcome

_VERSION = 1
_STATES = frozenset({"stored", "warning", "refused", "missing"})


class Journal:
    """A file of one line for each thing that became of an instance; the last line of an instance holds.

    A line that a kill cut short is dropped on opening. A line stands for a file of this content: where the file has
    another hash by now, it does not count. A line that is lost costs one object that is sent again, under the same
    SOP Instance UID, and comes to the same; so lines are handed to the system at once, and forced to the disk when
    the journal is closed.

    Args:
        path: The file; made if it is not there.
        about: Which PACS it is about; another one's is not continued.

    Raises:
        OutputError: If the file is another PACS's, or no journal.
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, Outcome]] = {}
        size = self._load(about) if path.exists() else 0
        self._file: IO[bytes] = path.open("r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)
        if not size:
            self._append({"medtwin_pacs_journal": _VERSION, "about": dict(about)})

    def close(self) -> None:
        """Forces everything to the disk, and closes the file."""
        with self._lock:
            if not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()

    def outcome(self, instance: Instance) -> Outcome | None:
        """What became of an instance with this content; None if nothing yet."""
        found = self._known.get(instance.sop_uid)
        return found[1] if found is not None and found[0] == instance.sha256 else None

    def record(self, instance: Instance, outcome: Outcome) -> None:
        """Writes what became of an instance."""
        line = {"sop": instance.sop_uid, "sha256": instance.sha256, "state": outcome.state, "status": outcome.status}
        self._append(line)
        self._known[instance.sop_uid] = (instance.sha256, outcome)

    def _append(self, line: Mapping[str, object]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._file.closed:  # an answer that came after the run was stopped: it is asked for again
                return
            self._file.write(data)
            self._file.flush()

    def _load(self, about: Mapping[str, str]) -> int:
        """Reads the complete lines; returns how many bytes they are."""
        size = 0
        with self._path.open("rb") as file:
            for number, data in enumerate(file):
                if not data.endswith(b"\n"):
                    break
                line = self._parse(data, number)
                if number == 0:
                    self._require_same(line, about)
                else:
                    outcome = Outcome(str(line["state"]), str(line["status"]))
                    self._known[str(line["sop"])] = (str(line["sha256"]), outcome)
                size += len(data)
        return size

    def _parse(self, data: bytes, number: int) -> dict[str, object]:
        try:
            line = json.loads(data)
        except ValueError:
            line = None
        is_fit = isinstance(line, dict) and (
            number == 0 or (line.keys() >= {"sop", "sha256", "state", "status"} and line["state"] in _STATES)
        )
        if not is_fit:
            raise OutputError(f"{self._path} is damaged in line {number + 1}: remove it to send everything again")
        return dict(line)

    def _require_same(self, line: Mapping[str, object], about: Mapping[str, str]) -> None:
        if line.get("medtwin_pacs_journal") != _VERSION:
            raise OutputError(f"{self._path} is no journal of this version of medtwin: remove it to begin anew")
        if line.get("about") != dict(about):
            raise OutputError(
                f"{self._path} tells what another PACS holds: repeat the settings of pacs that it was begun with, "
                "or choose another out="
            )
