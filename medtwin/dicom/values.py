"""Reads header values as they come: what is malformed becomes None and is counted, never guessed and never raised.

Formats: DICOM PS3.5-2023, Table 6.2-1 (AS, DA, TM, DT, DS, IS).
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.valuerep import format_number_as_ds

MAX_AGE_YEARS = 90.0
"""Ages over 89 are one class: HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)."""

_OLDEST_AGE_YEARS = 130.0
_DAYS_PER_YEAR = 365.25
_AGE_UNIT_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / _DAYS_PER_YEAR, "D": 1 / _DAYS_PER_YEAR}
_AGE = re.compile(r"(\d{1,3})([YMWD]?)")
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)")
_TIME = re.compile(r"(\d\d):?(?:(\d\d):?(?:(\d\d)(?:\.(\d{1,6}))?)?)?")
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)")

PARSE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    BytesLengthException,
)
"""What pydicom raises on a malformed value."""


@contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keeps pydicom's warnings about bad values off the screen and out of logs; gives them as a list to count.

    They quote the values, which may name a patient.
    """
    logger = logging.getLogger("pydicom")

    def refuse(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(refuse)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logger.removeFilter(refuse)


def parse_age(text: str) -> tuple[float | None, bool]:
    """Age in years, at most 90, and whether the text was a valid AS; None where it is no age at all.

    >>> parse_age("006M"), parse_age("42"), parse_age("093Y"), parse_age("forty")
    ((0.5, True), (42.0, False), (90.0, True), (None, False))
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None, False
    years = int(match[1]) * _AGE_UNIT_YEARS[match[2] or "Y"]
    if years > _OLDEST_AGE_YEARS:
        return None, False
    is_valid = len(match[1]) == 3 and bool(match[2])
    return (MAX_AGE_YEARS if years >= MAX_AGE_YEARS else years), is_valid


def format_age(years: float) -> str:
    """An AS string: years from two years on, else months, weeks below three months; over 89 it is 090Y.

    Raises:
        ValueError: If the age is negative or not finite.

    >>> format_age(42.9), format_age(0.5), format_age(0.1), format_age(97)
    ('042Y', '006M', '005W', '090Y')
    """
    if not math.isfinite(years) or years < 0:
        raise ValueError(f"age must be 0 or more years, got {years!r}")
    if years >= 2:
        return f"{int(min(years, MAX_AGE_YEARS)):03d}Y"
    if years >= 0.25:
        return f"{int(years * 12 + 1e-9):03d}M"
    return f"{int(years * _DAYS_PER_YEAR / 7 + 1e-9):03d}W"


def parse_date(text: str) -> date | None:
    """A DA value, also in the dotted form of before 1993; None where it is no date."""
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return date(*(int(group) for group in match.groups() if group is not None))
    except ValueError:
        return None


def parse_time(text: str) -> time | None:
    """A TM value, whole or cut after hours or minutes; None where it is no time of day."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, second = (int(group or 0) for group in match.groups()[:3])
    try:
        return time(hour, minute, second, int((match[4] or "0").ljust(6, "0")))
    except ValueError:
        return None


def parse_offset(text: str) -> timezone | None:
    """A TimezoneOffsetFromUTC such as +0100 (C.12.1.1: -1200 to +1400); None where it is none."""
    match = _OFFSET.fullmatch(text.strip())
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    if int(match[3]) > 59 or not -720 <= (minutes := minutes if match[1] == "+" else -minutes) <= 840:
        return None
    return timezone(timedelta(minutes=minutes))


def format_ds(number: float) -> str:
    """A decimal string of at most 16 characters: the shortest that reads back, else rounded to fit.

    >>> format_ds(2.5), format_ds(0.666666686534882), format_ds(-1024.0)
    ('2.5', '0.66666668653488', '-1024')
    """
    text = str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(float(number))
    return text if len(text) <= 16 else str(format_number_as_ds(float(number)))


class Values:
    """The values of one dataset by keyword; `bad` counts those that could not be read."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.bad: Counter[str] = Counter()

    def has(self, keyword: str) -> bool:
        """Whether an attribute is present with a value, or a sequence with an item."""
        return keyword in self._dataset and not self._dataset[keyword].is_empty

    def missing(self, keywords: tuple[str, ...]) -> list[str]:
        """Those of some attributes that are absent or empty."""
        return [keyword for keyword in keywords if self.text(keyword) is None]

    def text(self, keyword: str) -> str | None:
        """A text without outer spaces; None where it is absent or empty. Several values are joined by a backslash."""
        values = self._values(keyword)
        text = "\\".join(str(value).strip() for value in values).strip(" \0")
        return text or None

    def numbers(self, keyword: str, count: int = 1) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers; None (and counted, unless absent) otherwise."""
        values = self._values(keyword)
        if not values:
            return None
        try:
            numbers = tuple(float(value) for value in values)
        except PARSE_ERRORS:
            numbers = ()
        if len(numbers) != count or not all(map(math.isfinite, numbers)):
            self.bad[keyword] += 1
            return None
        return numbers

    def number(self, keyword: str) -> float | None:
        """One finite number."""
        numbers = self.numbers(keyword)
        return numbers[0] if numbers else None

    def first_number(self, keyword: str) -> float | None:
        """The first of one or more numbers."""
        values = self._values(keyword)
        try:
            number = float(values[0]) if values else None
        except PARSE_ERRORS:
            number = math.nan
        if number is not None and not math.isfinite(number):
            self.bad[keyword] += 1
            return None
        return number

    def integer(self, keyword: str) -> int | None:
        """One whole number."""
        number = self.number(keyword)
        if number is not None and number != int(number):
            self.bad[keyword] += 1
            return None
        return None if number is None else int(number)

    def term(self, keyword: str, terms: frozenset[str]) -> str | None:
        """A coded value of a closed list, in upper case; any other is counted and left out."""
        text = self.text(keyword)
        if text is not None and text.upper() not in terms:
            self.bad[keyword] += 1
            return None
        return text.upper() if text else None

    def age_years(self) -> float | None:
        """PatientAge, else from PatientBirthDate to StudyDate; at most 90."""
        text = self.text("PatientAge")
        years = None
        if text is not None:
            years, is_valid = parse_age(text)
            if not is_valid:
                self.bad["PatientAge"] += 1
        birth, study = self.date("PatientBirthDate"), self.date("StudyDate")
        if years is None and birth is not None and study is not None and birth <= study:
            years = min((study - birth).days / _DAYS_PER_YEAR, MAX_AGE_YEARS)
        return years

    def date(self, keyword: str) -> date | None:
        """A date."""
        text = self.text(keyword)
        value = parse_date(text) if text else None
        if text and value is None:
            self.bad[keyword] += 1
        return value

    def time(self, keyword: str) -> time | None:
        """A time of day."""
        text = self.text(keyword)
        value = parse_time(text) if text else None
        if text and value is None:
            self.bad[keyword] += 1
        return value

    def study_time(self) -> datetime | None:
        """StudyDate with StudyTime (midnight without one): a UTC instant where the offset is known, else floating."""
        day = self.date("StudyDate")
        if day is None:
            return None
        moment = datetime.combine(day, self.time("StudyTime") or time())
        offset_text = self.text("TimezoneOffsetFromUTC")
        offset = parse_offset(offset_text) if offset_text else None
        if offset_text and offset is None:
            self.bad["TimezoneOffsetFromUTC"] += 1
        return moment if offset is None else moment.replace(tzinfo=offset).astimezone(UTC)

    def _values(self, keyword: str) -> list[Any]:
        try:
            value = self._dataset.get(keyword)
        except PARSE_ERRORS:
            self.bad[keyword] += 1
            return []
        if value is None or value == "":
            return []
        return list(value) if isinstance(value, MultiValue | list | tuple) else [value]
