"""What is found of collapse: how each generation of twins does, and which rare codes they have lost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One number of one generation of twins.

    Attributes:
        generation: From 1 on, in order; 0: other real patients, as many, in the place of twins (the negative control).
        measure: As in `anchor perplexity`.
        value, low, high: The number and its 95 % interval, from leaving out groups of patients.
        change: By how much it is worse than in the first generation, of perplexities as natural logarithm; None of the
            first, and of real patients.
        limit: What the change may be: what chance and data that accumulate explain (`collapse.alarm`).
        alarm: Whether it is more.
    """

    generation: int
    measure: str
    value: float
    low: float
    high: float
    change: float | None = None
    limit: float | None = None
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class RareRow:
    """A rare code, and whether twins have it as often as real patients.

    Attributes:
        code: Its name.
        num_real, total_real: Real patients who have it, and all of them; rows of 1 to 10 do not leave the house.
        num_synthetic, total_synthetic: Twins.
        p: Of Fisher's exact test that twins have it no less often. adjusted: For the number of codes that are tested.
        is_lost: Whether `adjusted` is at most 5 %.
    """

    code: str
    num_real: int
    total_real: int
    num_synthetic: int
    total_synthetic: int
    p: float
    adjusted: float
    is_lost: bool
