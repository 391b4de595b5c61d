"""FHIR dates and instants as event times: UTC or floating, with the precision and the offset that the source wrote."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# Outside of these years a date is a mistake; MIMIC's shifted dates are in 2100 to 2200.
FIRST_YEAR, LAST_YEAR = 1850, 2300
_MAX_OFFSET = timedelta(hours=14)
_PRECISION_OF_LENGTH = {4: "year", 7: "month", 10: "day"}


class BadDateError(ValueError):
    """A text that is no FHIR date, or one that nobody alive can have."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A date or an instant.

    Attributes:
        time: UTC, or the floating first day at midnight.
        precision: `year`, `month`, `day`, or `second` followed by the offset of the source, such as `second-05:00`.
    """

    time: datetime
    precision: str

    def moved(self, shift: timedelta) -> Moment:
        """The moment some whole weeks later; years and months stay at their first day."""
        time = self.time + shift
        if self.precision == "year":
            time = time.replace(month=1, day=1)
        elif self.precision == "month":
            time = time.replace(day=1)
        return Moment(time, self.precision)

    def __str__(self) -> str:
        return format_moment(self.time, self.precision)


def parse_moment(text: str) -> Moment:
    """The moment of a FHIR date, dateTime or instant.

    Raises:
        BadDateError: If it is none, or its year is before 1850 or after 2300.

    >>> parse_moment("2012-01-31T23:30:00-05:00")
    Moment(time=datetime.datetime(2012, 2, 1, 4, 30), precision='second-05:00')
    """
    precision = _PRECISION_OF_LENGTH.get(len(text))
    try:
        if precision is not None:
            return _parse_date(text, precision)
        if text[4] != "-" or text[7] != "-" or text[10] != "T":
            raise BadDateError
        local = datetime.fromisoformat(text)
    except (ValueError, IndexError, OverflowError):
        raise BadDateError from None
    if not FIRST_YEAR <= local.year <= LAST_YEAR:
        raise BadDateError
    offset = local.utcoffset()
    if offset is None:
        return Moment(local, "second")
    if abs(offset) > _MAX_OFFSET or offset.seconds % 60:
        raise BadDateError
    return Moment(local.astimezone(UTC).replace(tzinfo=None), f"second{_offset_text(offset)}")


def _parse_date(text: str, precision: str) -> Moment:
    if not text.replace("-", "").isdecimal() or not text.isascii():
        raise BadDateError
    if precision == "day" and (text[4] != "-" or text[7] != "-"):
        raise BadDateError
    year, month, day = int(text[:4]), int(text[5:7] or 1), int(text[8:10] or 1)
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise BadDateError
    return Moment(datetime(year, month, day), precision)


def _offset_text(offset: timedelta) -> str:
    minutes = int(offset.total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _offset_of(precision: str) -> timedelta:
    """The offset after the word of a precision; zero without one."""
    sign, digits = precision[-6:-5], precision[-5:]
    if sign not in ("+", "-"):
        return timedelta(0)
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[3:]))
    return -size if sign == "-" else size


def format_moment(time: datetime, precision: str | None) -> str:
    """The FHIR date or instant of an event time; without a precision an instant in UTC.

    >>> format_moment(datetime(2012, 2, 1, 4, 30), "second-05:00"), format_moment(datetime(2012, 2, 1), "month")
    ('2012-01-31T23:30:00-05:00', '2012-02')
    """
    word = precision or "second+00:00"
    offset = _offset_of(word)
    local = time + offset
    date = f"{local.year:04d}-{local.month:02d}-{local.day:02d}"
    if not word.startswith("second"):
        return date[: {"year": 4, "mont": 7}.get(word[:4], 10)]
    fraction = ""
    if local.microsecond:
        digits = f"{local.microsecond:06d}"
        fraction = "." + (digits[:3] if digits.endswith("000") else digits)
    return f"{date}T{local.hour:02d}:{local.minute:02d}:{local.second:02d}{fraction}{_offset_text(offset)}"


def join_period(start: Moment, end: Moment) -> tuple[datetime, str | None]:
    """The end of a period that began at `start`, and its precision where it is not that of the start.

    An end that is coarser than the start and covers it (from 10:30 until the same day) stands at the start.

    Raises:
        BadDateError: If the end lies before the start.
    """
    if end.time >= start.time:
        return end.time, None if end.precision == start.precision else end.precision
    offset = start.precision[6:] if start.precision.startswith("second") else ""
    covering = f"{end.precision}{offset}"
    if not end.precision.startswith("second") and format_moment(start.time, covering) == str(end):
        return start.time, covering
    raise BadDateError
