"""The attributes of a subject: what the temporal VAE is given of a record before it says the first event."""

from __future__ import annotations

from dataclasses import dataclass

MINUTES_PER_YEAR = 525_960.0


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is given of one subject. Sex, age, start and the static facts are roots; the rest follows from them.

    Attributes:
        sex: Index into `ProfileLaw.sexes`; 0 is unknown.
        age_start_years: Age when first seen; nan if unknown.
        start_minute: When the subject was first seen, minutes since 1970.
        window_minutes: For how long the record is looked at; until death, where it names it.
        facts: (K,) 1 where the record ever names the fact.
    """

    sex: int
    age_start_years: float
    start_minute: int
    window_minutes: int
    facts: tuple[int, ...] = ()
