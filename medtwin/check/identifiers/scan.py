"""The scan: every file of a folder, every text of it; what is found is told by file, field, kind and keyed hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from medtwin.check.estimates import Estimate, Measure
from medtwin.check.identifiers.birth_dates import too_many_birth_dates
from medtwin.check.identifiers.known import Known
from medtwin.check.identifiers.patterns import patterns_in
from medtwin.check.identifiers.texts import Text, texts_of
from medtwin.check.identifiers.words import is_uuid, uids_in
from medtwin.core.errors import DatasetError

NAME = "identifiers"
TITLE = "Identifiers of the source, or what looks like one, in the files"
BIRTHS = ("birthDate", "PatientBirthDate")
ALLOWED_UIDS = ("2.25.", "1.2.840.10008.", "1.2.826.0.1.3680043.", "1.2.276.0.7230010.", "2.16.840.1.113883.")
"""UUIDs, DICOM's own, those of the libraries that write (pydicom, highdicom, DCMTK), and code systems of HL7."""
_PLAIN = re.compile(r"[A-Za-z_(][\w .,:()/-]{0,80}")
_ISO = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})$")
Watch = Callable[[Iterable[Path]], Iterable[Path]]


@dataclass(frozen=True, slots=True)
class Hit:
    """Something found.

    Attributes:
        file: Where, below the folder; of a file whose name is itself found, its number. field: In which field.
        kind: What it is. source: `source` where it is the source's own, `pattern` where it looks like an identifier,
            `place` where something could be hidden.
        digest: A hash of it under a key that is kept nowhere: equal ones are one value. count: How often.
    """

    file: str
    field: str
    kind: str
    source: str
    digest: str
    count: int


@dataclass
class Scan:
    """What a scan of a folder finds.

    Attributes:
        hits: By file, field, kind and hash. files: Number of files of each ending. texts: Different texts looked at.
        unreadable: Files that could not be read, and why. known: How many identifiers of the source were looked for.
    """

    hits: tuple[Hit, ...]
    files: dict[str, int]
    texts: int
    unreadable: tuple[tuple[str, str], ...] = ()
    known: dict[str, int] = field(default_factory=dict)

    def measure(self) -> Measure:
        """The number of hits; not measured where a file could not be read and nothing was found in the others."""
        if self.unreadable and not self.hits:
            reason = f"{len(self.unreadable)} files could not be read"
            return Measure(NAME, TITLE, None, 0, reason=reason)
        number = float(len(self.hits))
        return Measure(NAME, TITLE, Estimate(number, number, number, 0.0, 0.0), self.texts)


def no_scan(reason: str) -> Measure:
    """The measure of a check that scanned nothing."""
    return Measure(NAME, TITLE, None, 0, reason=reason)


class Scanner:
    """Looks at texts, one file after the other.

    Args:
        known: The source's identifiers; without any, patterns alone are looked for.
    """

    def __init__(self, known: Known | None = None) -> None:
        self.known = known or Known()
        self._salt = secrets.token_bytes(32)
        self._hits: Counter[tuple[str, str, str, str, str]] = Counter()
        self._births: set[date] = set()
        self._cache: dict[tuple[str, str, bool, bool], tuple[tuple[str, str, str], ...]] = {}
        self._texts = 0

    def look(self, file: str, text: Text) -> None:
        """Takes one text of a file."""
        self._texts += 1
        if text.hidden:
            self._note(file, text.field, text.hidden, "place", text.field, text.count)
            return
        self._note_birth(text)
        for kind, source, part in self._found(text):
            self._note(file, text.field, kind, source, part, text.count)

    def name_of(self, path: str, number: int) -> str:
        """What a file is called in what is told: its path, unless that itself holds an identifier."""
        found = list(self._found(Text("file path", path.replace("/", " "))))
        for kind, source, part in found:
            self._note(f"file {number}", "file path", kind, source, part, 1)
        return f"file {number}" if found else path

    def finish(self, files: Counter[str], unreadable: Iterable[tuple[str, str]]) -> Scan:
        """Everything that was found."""
        equal = too_many_birth_dates(sorted(self._births), self.known)
        if equal:
            self._note("all files", "date of birth", "dates of birth, beyond chance", "source", "", equal)
        hits = tuple(Hit(*key, count) for key, count in sorted(self._hits.items()))
        return Scan(hits, dict(files), self._texts, tuple(unreadable), self.known.counts())

    def _found(self, text: Text) -> tuple[tuple[str, str, str], ...]:
        key = text.field, text.text, text.is_number, text.is_raw
        if key not in self._cache:
            if len(self._cache) > 500_000:
                self._cache.clear()
            own = self.known.found_in(text.text, text.field, is_number=text.is_number)
            found = [(kind, "source", part) for kind, part in own]
            if not (text.is_raw or text.is_number or is_uuid(text.text)):
                found += [(kind, "pattern", part) for kind, part in patterns_in(text.text)]
                found += [("UID of another root", "pattern", one) for one in _foreign(text)]
            self._cache[key] = tuple(found)
        return self._cache[key]

    def _note_birth(self, text: Text) -> None:
        if text.field.rpartition(".")[2] in BIRTHS and (match := _ISO.match(text.text)):
            year, month, day = map(int, match.groups())
            try:
                self._births.add(date(year, month, day))
            except ValueError:
                return

    def _note(self, file: str, place: str, kind: str, source: str, part: str, count: int) -> None:
        is_plain = not place or (_PLAIN.fullmatch(place) and sum(map(str.isdigit, place)) < 9)
        digest = hashlib.blake2b(f"{kind}\x1f{part}".encode(), key=self._salt, digest_size=6).hexdigest()
        self._hits[file, place if is_plain else "*", kind, source, digest] += count


def scan_folder(folder: Path, known: Known | None = None, *, watch: Watch = lambda paths: paths) -> Scan:
    """Scans every file below a folder.

    Args:
        folder: What is to leave.
        known: Identifiers of its source.
        watch: Wraps the files; a place for a progress bar.
    """
    scanner = Scanner(known)
    files: Counter[str] = Counter()
    unreadable: list[tuple[str, str]] = []
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and ".state" not in path.relative_to(folder).parts
    )
    for number, path in enumerate(watch(paths)):
        files[path.suffix.lower() or "none"] += 1
        name = scanner.name_of(path.relative_to(folder).as_posix(), number)
        try:
            for place, text in texts_of(path):
                inside = scanner.name_of(place, number) if place else ""
                scanner.look("/".join(filter(None, (name, inside))), text)
        except DatasetError as error:
            unreadable.append((name, str(error)))
    return scanner.finish(files, unreadable)


def _foreign(text: Text) -> list[str]:
    """UIDs of roots that neither medtwin nor a standard uses, in fields that hold UIDs."""
    is_uid = text.field.rpartition(".")[2].endswith(("UID", "uid")) or text.text.startswith("urn:oid:")
    return [one for one in uids_in(text.text) if not one.startswith(ALLOWED_UIDS)] if is_uid else []
