"""Hashes of the source's own identifiers, by kind, and where a text holds one of them."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medtwin.check.identifiers.words import compact, emails_in, is_uuid, phones_in, runs, uids_in, words_of
from medtwin.core.errors import ConfigError
from medtwin.core.files import atomic_file

NUMBER, NAME, NAME_PART, ADDRESS = "identifier", "name", "part of a name", "address"
PHONE, EMAIL, UID, TEXT, BIRTH_DATE = "telephone number", "e-mail address", "UID", "free text", "date of birth"
KINDS = (NUMBER, NAME, NAME_PART, ADDRESS, PHONE, EMAIL, UID, TEXT, BIRTH_DATE)
MIN_NUMBER = 5
"""Letters and digits that an identifier must have: shorter ones equal others by chance."""
MIN_INSIDE = 7
"""Those that one must have to be looked for within a longer text, and in fields that are not named like identifiers."""
SMALLEST_SUBJECT = 10**8
TEXT_WORDS = 6
"""Words that a free text must share with the source in a row."""
MIN_NAME = 3
_APART = re.compile(r"[\s/|,;]+")
PLACEHOLDERS = (
    "subject",
    "synthetic",
    "simulated",
    "medtwin",
    "patient",
    "twin",
    "test",
    "anonymous",
    "unknown",
    "none",
)
"""Words in the place of a name that are nobody's."""
_ID_FIELDS = (
    "id",
    "reference",
    "identifier",
    "mrn",
    "patient",
    "subject",
    "number",
    "record",
    "account",
    "accession",
    "value",
)
_NAME_FIELDS = ("name", "family", "given", "prefix", "physician", "operator")


@dataclass
class Known:
    """Keyed hashes of identifiers; the key stays with them, and both are as secret as the source.

    Attributes:
        key: 32 secret bytes. hashes: 64-bit hashes by kind.
        address_words: Numbers of words of the addresses.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    hashes: dict[str, set[int]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    address_words: set[int] = field(default_factory=set)

    def digest(self, kind: str, normal: str) -> int:
        """The hash of a normal form, as one of a kind."""
        person = kind.encode().ljust(16, b"\0")[:16]
        return int.from_bytes(
            hashlib.blake2b(normal.encode(), key=self.key, person=person, digest_size=8).digest(), "big"
        )

    def counts(self) -> dict[str, int]:
        """How many are known of each kind."""
        return {kind: len(found) for kind, found in self.hashes.items() if found}

    def _put(self, kind: str, normal: str) -> None:
        self.hashes[kind].add(self.digest(kind, normal))

    def add_number(self, text: str) -> None:
        """Takes a number of a record, an account or a study, or an id."""
        normal = compact(text)
        if len(normal) >= MIN_NUMBER and any(ch.isdigit() for ch in normal):
            self._put(NUMBER, normal)

    def add_subjects(self, subjects: Iterable[int]) -> None:
        """Takes ids of subjects, but small ones: those are counted up from 1, and those of twins may be so, too."""
        for subject in subjects:
            if subject >= SMALLEST_SUBJECT:
                self.add_number(str(subject))

    def add_name(self, *parts: str) -> None:
        """Takes a person's name: family and given names, in any order."""
        words = [word for part in parts for word in words_of(part) if word not in PLACEHOLDERS]
        for word in words:
            if len(word) >= MIN_NAME:
                self._put(NAME_PART, word)
        for first in words:
            for second in words:
                if first != second and min(len(first), len(second)) > 1:
                    self._put(NAME, f"{first} {second}")

    def add_address(self, line: str) -> None:
        """Takes a line of an address with a number in it, as in 12 Main Street."""
        words = words_of(line)
        if len(words) >= 2 and any(word.isdigit() for word in words) and len("".join(words)) >= MIN_INSIDE:
            self.address_words.add(len(words))
            self._put(ADDRESS, " ".join(words))

    def add_contact(self, text: str) -> None:
        """Takes a telephone number or an e-mail address."""
        for email in emails_in(text):
            self._put(EMAIL, email)
        for phone in phones_in(text) if "@" not in text else ():
            self._put(PHONE, phone)

    def add_uid(self, uid: str) -> None:
        """Takes a DICOM UID."""
        self._put(UID, uid.strip().strip("\0").removeprefix("urn:oid:"))

    def add_birth_date(self, iso: str) -> None:
        """Takes a whole date of birth, as in 1950-02-03."""
        if len(iso) >= 10:
            self._put(BIRTH_DATE, iso[:10])

    def add_text(self, text: str) -> None:
        """Takes what somebody wrote about one patient: every run of `TEXT_WORDS` words of it."""
        for run in runs(words_of(text), TEXT_WORDS):
            self._put(TEXT, run)

    def is_birth_date(self, iso: str) -> bool:
        """Whether somebody of the source was born on a day."""
        return self.digest(BIRTH_DATE, iso[:10]) in self.hashes[BIRTH_DATE]

    def found_in(self, text: str, field_name: str = "", *, is_number: bool = False) -> Iterator[tuple[str, str]]:
        """The identifiers of the source in a text: kind, and the part in its normal form.

        Args:
            text: Of one field of a file.
            field_name: What the field is called: where names or ids belong, shorter ones count.
            is_number: The text stands for a quantity; only what is long enough to be no quantity is looked for.
        """
        if is_uuid(text):
            yield from self._matches(NUMBER, [compact(text)])
            return
        if text in (uids := uids_in(text)):
            yield from self._matches(UID, uids)
            return
        words = words_of(text)
        yield from self._numbers_in(text, words, field_name.lower(), is_number=is_number)
        if is_number:
            return
        yield from self._names_in(words, field_name.lower())
        for length in self.address_words:
            yield from self._matches(ADDRESS, runs(words, length))
        yield from self._matches(PHONE, phones_in(text) if self.hashes[PHONE] else ())
        yield from self._matches(EMAIL, emails_in(text))
        yield from self._matches(UID, uids_in(text))
        if self.hashes[TEXT]:
            yield from self._matches(TEXT, runs(words, TEXT_WORDS))

    def _matches(self, kind: str, normals: Iterable[str]) -> Iterator[tuple[str, str]]:
        hashes = self.hashes[kind]
        for normal in dict.fromkeys(normals) if hashes else ():
            if self.digest(kind, normal) in hashes:
                yield kind, normal

    def _numbers_in(
        self, text: str, words: tuple[str, ...], field_name: str, *, is_number: bool
    ) -> Iterator[tuple[str, str]]:
        """A number may be the whole text, a part of it between spaces and slashes, or some words of it in a row."""
        is_id = not is_number and field_name.rpartition(".")[2].endswith(_ID_FIELDS)
        parts = ["".join(words)]
        inside: list[str] = []
        if len(words) > 1:
            parts += [compact(part) for part in _APART.split(text)] if _APART.search(text) else []
            joined = [run.replace(" ", "") for length in (2, 3) for run in runs(words, length)]
            inside = [*words, *(one for one in joined if not one.isdigit())]
        found = [one for one in parts if len(one) >= (MIN_NUMBER if is_id else MIN_INSIDE)]
        found += [one for one in inside if len(one) >= MIN_INSIDE]
        yield from self._matches(NUMBER, (one for one in found if any(ch.isdigit() for ch in one)))

    def _names_in(self, words: tuple[str, ...], field_name: str) -> Iterator[tuple[str, str]]:
        pairs = list(self._matches(NAME, runs(words, 2)))
        yield from pairs
        if not pairs and any(part in field_name for part in _NAME_FIELDS) and len(words) <= 4:
            yield from self._matches(NAME_PART, (word for word in words if len(word) >= MIN_NAME))

    def save(self, path: Path) -> None:
        """Writes a file that its owner alone may read."""
        pairs = [(kind, value) for kind in KINDS for value in sorted(self.hashes[kind])]
        table = pa.table({"kind": [one[0] for one in pairs], "hash": pa.array([one[1] for one in pairs], pa.uint64())})
        words = ",".join(map(str, sorted(self.address_words)))
        table = table.replace_schema_metadata({"medtwin": "identifiers", "key": self.key.hex(), "address_words": words})
        with atomic_file(path) as file:
            os.fchmod(file.fileno(), 0o600)
            pq.write_table(table, file, compression="zstd")

    @staticmethod
    def load(path: Path) -> Known:
        """Reads what `save` wrote.

        Raises:
            ConfigError: If the file is none.
        """
        wanted = f"identifiers={path} must be a file that `medtwin scan source=... known=` wrote"
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ConfigError(wanted) from error
        told = table.schema.metadata or {}
        if told.get(b"medtwin") != b"identifiers":
            raise ConfigError(wanted)
        known = Known(bytes.fromhex(told[b"key"].decode()))
        for kind, value in zip(table["kind"].to_pylist(), table["hash"].to_pylist(), strict=True):
            known.hashes[kind].add(value)
        known.address_words = {int(one) for one in told[b"address_words"].decode().split(",") if one}
        return known
