"""The normal form in which identifiers are compared: case, accents, punctuation and order of names do not matter."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+")
_PHONE = re.compile(r"(?<![\w.])\+?\(?\d[\d ().-]{5,18}\d(?![\w.])")
_EMAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_UID = re.compile(r"(?<![\w.])[0-2](?:\.(?:0|[1-9]\d*)){4,}(?![\w.])")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
PHONE_DIGITS = 10
MIN_PHONE_DIGITS = 7


@lru_cache(maxsize=200_000)
def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers of a text in order, without case and accents.

    >>> words_of("GARCÍA^José, 12-B")
    ('garcia', 'jose', '12', 'b')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() if not text.isascii() else text
    found = _WORD.findall(plain.casefold())
    return tuple(found) if found or plain else tuple(_WORD.findall(text.casefold()))


def compact(text: str) -> str:
    """The letters and digits of a text, without case: how numbers of records are compared.

    >>> compact(" MRN 0012-34 ")
    'mrn001234'
    """
    return "".join(words_of(text))


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID and nothing else: it is looked for as a whole, and holds nothing else.

    >>> is_uuid("a1234567-89ab-4cde-8f01-23456789abcd")
    True
    """
    return len(text) == 36 and _UUID.fullmatch(text) is not None


def phones_in(text: str) -> list[str]:
    """The last ten digits of everything that is written like a telephone number.

    >>> phones_in("call +1 (555) 010-2233 now"), phones_in("2020-01-01T10:00:00")
    (['5550102233'], [])
    """
    found = []
    for match in _PHONE.finditer(text):
        digits = "".join(ch for ch in match.group() if ch.isdigit())
        if MIN_PHONE_DIGITS <= len(digits) <= 15:
            found.append(digits[-PHONE_DIGITS:])
    return found


def emails_in(text: str) -> list[str]:
    """Every e-mail address, without case."""
    return [one.casefold() for one in _EMAIL.findall(text)] if "@" in text else []


def uids_in(text: str) -> list[str]:
    """Every DICOM UID or OID of five numbers and more."""
    return _UID.findall(text) if text.count(".") >= 4 else []


def runs(words: tuple[str, ...], length: int) -> list[str]:
    """Every run of so many words, joined by spaces."""
    return [" ".join(words[at : at + length]) for at in range(len(words) - length + 1)]
