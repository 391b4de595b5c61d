"""FHIR dates and instants as event times: UTC or floating, with the precision and the offset that the source wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import orjson

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


_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_WHOLE_SECOND = re.compile(rb'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"')


def micros_of(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def moment_of(micros: int, precision: str) -> Moment:
    """The moment at so many microseconds since 1970."""
    return Moment(_EPOCH + timedelta(microseconds=micros), precision)


class InstantParts:
    """Reads instants fast: each date, time of day and offset is parsed once, and there are few of each.

    What it has not seen yet `parse_moment` reads, which alone says what an instant is.
    """

    def __init__(self) -> None:
        self._days: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}
        self._offsets: dict[bytes, tuple[int, str]] = {}
        self._others: dict[bytes, tuple[int, str]] = {}

    def read(self, text: bytes) -> tuple[int, str]:
        """Microseconds since 1970 and the precision of a FHIR date or instant.

        Args:
            text: JSON text of a string.

        Raises:
            BadDateError: If `parse_moment` raises it.
        """
        if len(text) == 27:
            try:
                offset, precision = self._offsets[text[20:]]
                return self._days[text[:11]] + self._times[text[11:20]] - offset, precision
            except KeyError:
                pass
        elif (known := self._others.get(text)) is not None:
            return known
        return self._learn(text)

    def _learn(self, text: bytes) -> tuple[int, str]:
        moment = parse_moment(orjson.loads(text))
        micros = micros_of(moment.time)
        if _WHOLE_SECOND.fullmatch(text):
            local = datetime.fromisoformat(text[1:20].decode())
            midnight = datetime(local.year, local.month, local.day)
            self._days[text[:11]] = micros_of(midnight)
            self._times[text[11:20]] = (local - midnight) // _MICROSECOND
            self._offsets[text[20:]] = micros_of(local) - micros, moment.precision
        else:
            if len(self._others) >= _MAX_OTHERS:
                self._others.clear()
            self._others[text] = micros, moment.precision
        return micros, moment.precision


_MAX_OTHERS = 1 << 16
INSTANTS = InstantParts()
_WEEK = timedelta(weeks=1)
# What `format_moment` writes itself, but for the day: the same text some weeks later differs in its date alone.
_CANONICAL = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(?!-00:00)[+-]\d\d:\d\d)?")


@lru_cache(maxsize=1 << 16)
def _moved_date(text: str, weeks: int) -> str:
    return (date.fromisoformat(text) + timedelta(weeks=weeks)).isoformat()


def moved_text(text: str, shift: timedelta) -> tuple[str, int, str]:
    """A FHIR date or instant some whole weeks later as text, in microseconds since 1970, and its precision.

    Raises:
        BadDateError: If it is none.

    >>> moved_text("2020-03-01T10:00:00+01:00", timedelta(weeks=1))
    ('2020-03-08T10:00:00+01:00', 1583658000000000, 'second+01:00')
    """
    micros, precision = INSTANTS.read(orjson.dumps(text))
    weeks, rest = divmod(shift, _WEEK)
    if rest or _CANONICAL.fullmatch(text) is None:
        moment = moment_of(micros, precision).moved(shift)
        return str(moment), micros_of(moment.time), precision
    return _moved_date(text[:10], weeks) + text[10:], micros + weeks * (_WEEK // _MICROSECOND), precision


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
    day = f"{local.year:04d}-{local.month:02d}-{local.day:02d}"
    if not word.startswith("second"):
        return day[: {"year": 4, "mont": 7}.get(word[:4], 10)]
    fraction = ""
    if local.microsecond:
        digits = f"{local.microsecond:06d}"
        fraction = "." + (digits[:3] if digits.endswith("000") else digits)
    return f"{day}T{local.hour:02d}:{local.minute:02d}:{local.second:02d}{fraction}{_offset_text(offset)}"


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
