"""Eligibility once more, by hand: one subject and one day at a time, from events, with True, False and None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from medtwin.core.events import Event
from medtwin.trials.population.propositions import (
    And,
    Attribute,
    InRange,
    Not,
    Occurrence,
    OneOf,
    Or,
    Proposition,
    Quantity,
    Series,
    Time,
    Window,
)

EPOCH = datetime(1970, 1, 1)
RACES = {"2106-3": "white", "2054-5": "black", "2028-9": "asian"}
BELOW = {"E11": ["SNOMED//44054006"]}
FACTORS = {("%", "%"): 1.0, ("1", "%"): 100.0, (None, "%"): 1.0}


def day_of(event: Event) -> int:
    assert event.time is not None
    return (event.time - EPOCH).days


@dataclass(frozen=True)
class Record:
    """The events of one subject, as of a day."""

    events: Sequence[Event]
    today: int

    def says(self, proposition: Proposition) -> bool | None:
        match proposition:
            case And(parts):
                found = [self.says(part) for part in parts]
                return False if False in found else None if None in found else True
            case Or(parts):
                found = [self.says(part) for part in parts]
                return True if True in found else None if None in found else False
            case Not(of):
                inner = self.says(of)
                return None if inner is None else not inner
            case Attribute("sex", values):
                sexes = [e.code[-1] for e in self.events if e.code in ("GENDER//F", "GENDER//M")]
                return sexes[0] in values if sexes else None
            case Attribute(_, values):
                races = [RACES[e.code[6:]] for e in self.events if e.code[:6] == "RACE//" and e.code[6:] in RACES]
                return any(race in values for race in races) if races else None
            case Occurrence():
                return bool(self.rows(proposition))
            case OneOf(quantity, values):
                number = self.number(quantity)
                return None if number is None else number in values
            case InRange(quantity, low, high, includes_low, includes_high):
                number = self.number(quantity)
                if number is None:
                    return None
                return (low < number or (includes_low and low == number)) and (
                    number < high or (includes_high and high == number)
                )

    def number(self, quantity: Quantity) -> float | None:
        if isinstance(quantity, Time):
            return self.time(quantity.clock)
        rows = self.rows(quantity.of)
        if quantity.aggregate == "days":
            return len({day_of(row) for row in rows})
        if quantity.aggregate == "count":
            return len(rows)
        assert isinstance(quantity.of, Series)
        values = [
            None
            if (factor := FACTORS.get((row.unit, quantity.of.unit or "%"))) is None
            else round(factor * (row.numeric_value or 0.0), 9)
            for row in rows
        ]
        if quantity.aggregate in ("first", "last"):
            return values[0 if quantity.aggregate == "first" else -1] if values else None
        if not values or None in values:
            return None
        known = [value for value in values if value is not None]
        if quantity.aggregate == "mean":
            return math.fsum(known) / len(known)
        return min(known) if quantity.aggregate == "min" else max(known)

    def time(self, clock: str) -> float | None:
        dated = [day_of(e) for e in self.events if e.time is not None and e.code != "MEDS_BIRTH"]
        births = [day_of(e) for e in self.events if e.code == "MEDS_BIRTH"]
        deaths = [day_of(e) for e in self.events if e.code == "MEDS_DEATH"]
        if clock == "age":
            return math.floor((self.today - births[0]) / 365.25) if births else None
        if clock == "followed":
            if deaths:
                return -math.inf if deaths[0] <= self.today else math.inf
            return max(dated) - self.today
        return max(self.today - min(dated), 0) if dated else None

    def rows(self, source: Series | Occurrence) -> list[Event]:
        codes = {below for code in source.codes for below in (*BELOW.get(code.pattern, ()), code.pattern)}
        codes |= {f"SNOMED//{code}" for code in codes if "//" not in code}
        window: Window = source.window
        return [
            e
            for e in self.events
            if e.code in codes
            and e.time is not None
            and (isinstance(source, Occurrence) or e.numeric_value is not None)
            and (source.codes[0].resources == () or e.resource in source.codes[0].resources)
            and (window.start is None or day_of(e) - self.today >= window.start)
            and day_of(e) - self.today <= window.end
        ]
