"""What looks like an identifier, whoever's it is: patterns that data made by medtwin never matches."""

from __future__ import annotations

import re
from collections.abc import Iterator

# SSA: no area 000, 666 or 9xx, no group 00, no serial 0000.
_SSN = re.compile(r"(?<![\w.-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w.-])")
_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+%-]+@(?!example\.(?:com|org|net)\b)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"
)
# North American numbers with separators, and international ones after +.
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}(?![\w.-])"
    r"|(?<![\w:])\+[1-9]\d{7,14}(?!\d|[.:]\d)"
    r"|\btel:\+?[\d(][\d ().-]{5,}"
)
_DATE = (
    r"(?:\d{4}-\d{2}-\d{2}|\d{1,2}[/.]\d{1,2}[/.](?:19|20)\d{2}"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d{1,2},? (?:19|20)\d{2})"
)
_BIRTH = re.compile(rf"\b(?:dob|d\.o\.b\.?|date of birth|born(?: on)?|birth ?date)\W{{1,4}}{_DATE}", re.IGNORECASE)
_DATE_IN_TEXT = re.compile(rf"(?<![\w./:-]){_DATE}(?![\w/-])", re.IGNORECASE)
_RECORD = re.compile(
    r"\b(?:mrn|medical record(?: number| no\.?)?|patient (?:id|number)|ssn|passport|accession(?: number)?)\b"
    r"\W{0,3}(?:no\.?\W{0,2})?[A-Z]{0,3}\d[\dA-Z-]{3,}",
    re.IGNORECASE,
)
_TITLE = re.compile(r"(?<!\w)(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? [A-Z][a-z]{2,}(?:[ -][A-Z][a-z]{2,})?\b")
_WORDY = re.compile(r"[A-Za-z]{3,}.*\s.*[A-Za-z]{3,}")

PATTERNS = {
    "social security number": _SSN,
    "e-mail address": _EMAIL,
    "telephone number": _PHONE,
    "date of birth": _BIRTH,
    "number of a record": _RECORD,
    "name with a title": _TITLE,
}
DATE_IN_TEXT = "date in a text"


def patterns_in(text: str) -> Iterator[tuple[str, str]]:
    """What looks like an identifier in a text: its kind, and the part of the text.

    >>> list(patterns_in("call Dr. Watson"))
    [('name with a title', 'Dr. Watson')]
    """
    for kind, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            yield kind, match.group()
    if _WORDY.search(text):
        for match in _DATE_IN_TEXT.finditer(text):
            yield DATE_IN_TEXT, match.group()
