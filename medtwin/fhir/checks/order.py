"""Whether one FHIR value comes before another, where that is certain: dates of any precision, quantities, numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

# A date without an offset may be meant anywhere on earth: UTC+14 sees it first, UTC-12 last.
_EAST, _WEST = timedelta(hours=14), timedelta(hours=12)


class UndecidedError(ValueError):
    """Precision, offset or unit leave it open which of two values is less."""


@lru_cache(maxsize=65536)
def moment_bounds(text: str) -> tuple[datetime, datetime] | None:
    """The first and last instant, in UTC, that a date, dateTime or instant can mean; None if it is none of them."""
    try:
        if len(text) > 10:
            at = datetime.fromisoformat(text.replace(":60", ":59", 1) if ":60" in text[16:19] else text)
            if at.tzinfo is not None:
                at = at.astimezone(UTC)
                return at, at
            return at.replace(tzinfo=UTC) - _EAST, at.replace(tzinfo=UTC) + _WEST
        first, last = _span(text)
        return first.replace(tzinfo=UTC) - _EAST, last.replace(tzinfo=UTC) + _WEST
    except (ValueError, OverflowError):
        return None


def _span(text: str) -> tuple[datetime, datetime]:
    """The first and last second of a year, a month or a day."""
    if len(text) not in (4, 7, 10):
        raise ValueError("no date")
    year, month, day = int(text[:4]), int(text[5:7] or 1), int(text[8:10] or 1)
    first = datetime(year, month, day)
    if len(text) == 10:
        return first, first + timedelta(hours=23, minutes=59, seconds=59)
    after = datetime(year + month // 12, month % 12 + 1, 1) if len(text) == 7 else datetime(year + 1, 1, 1)
    return first, after - timedelta(seconds=1)


def is_certainly_before(first: str, second: str) -> bool:
    """Whether every instant that the first text can mean lies before every one of the second.

    >>> is_certainly_before("2020-01-01", "2020-01-02"), is_certainly_before("2020", "2020-05-01")
    (True, False)
    >>> is_certainly_before("2020-11-01T01:52:00-04:00", "2020-11-01T01:07:00-05:00")
    True
    """
    if len(first) <= 10 and len(second) <= 10:  # two floating dates, as far as both are precise
        length = min(len(first), len(second))
        return first[:length] < second[:length]
    one, other = moment_bounds(first), moment_bounds(second)
    return one is not None and other is not None and one[1] < other[0]


def is_ordered(low: Any, high: Any) -> bool:
    """Whether `low <= high`.

    Raises:
        UndecidedError: If that depends on what the values do not say.
    """
    if _is_number(low) and _is_number(high):
        return bool(low <= high)
    if isinstance(low, str) and isinstance(high, str):
        if low == high:
            return True
        if is_certainly_before(high, low):
            return False
        if is_certainly_before(low, high):
            return True
        raise UndecidedError
    if isinstance(low, dict) and isinstance(high, dict):
        return _is_ordered_quantity(low, high)
    raise UndecidedError


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_ordered_quantity(low: dict[str, Any], high: dict[str, Any]) -> bool:
    if _unit(low) != _unit(high) or not (_is_number(low.get("value")) and _is_number(high.get("value"))):
        raise UndecidedError
    return bool(low["value"] <= high["value"])


def _unit(quantity: dict[str, Any]) -> tuple[Any, Any]:
    return quantity.get("system"), quantity.get("code", quantity.get("unit"))
