"""Copies of real subjects: long verbatim runs, duplicates among the twins, and the distance to the closest record.

A record is a sequence of tokens (code, value to 3 digits, hours since the event before). Two records share a run where
so many tokens in a row are equal; a gap instead of a date makes that blind to shifted dates and to a cut beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medtwin.check.findings import CopyRow
from medtwin.check.hashes import GOLDEN, Hashes, mix
from medtwin.check.near_copies import near_copy_row
from medtwin.check.records import US_PER_HOUR, Records
from medtwin.core.seeds import generator

RUN_LENGTHS = (4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512)
"""Lengths of runs that are looked for, in events; each about 1.4 times the one before."""
MIN_RUN = 16
"""A run shorter than this is never called a copy, whatever real subjects reach."""
MARGIN = 1.5
QUANTILE = 0.99
"""A copy shares a run that is `MARGIN` times longer than the longest runs of 99 % of real subjects with other ones. Not
of all: one patient who stands in the data under two names must not lift the limit for everybody."""
MIN_EVENTS = 8
"""Shorter records are equal by chance; they are not looked at."""
NUM_HALVES = 5

Ints = NDArray[np.int64]
_BASE = 0xD1342543DE82EF95
_INVERSE = pow(_BASE, -1, 2**64)
_TABLE_BITS = 24


@dataclass(frozen=True)
class Tokens:
    """The hashed tokens of some subjects, in order, (events,), and whose they are."""

    token: Hashes
    subject: Ints
    num_subjects: int

    def length(self) -> Ints:
        """Tokens of each subject, (subjects,)."""
        return np.bincount(self.subject, minlength=self.num_subjects).astype(np.int64)

    @cached_property
    def rolling(self) -> tuple[Hashes, Hashes]:
        """Powers of an odd number, (events + 1,), and running sums of token times inverse power, (events + 1,)."""
        powers, inverses = (
            np.cumprod(np.r_[np.uint64(1), np.full(len(self.token), base, np.uint64)], dtype=np.uint64)
            for base in (_BASE, _INVERSE)
        )
        sums = np.cumsum(self.token * inverses[:-1], dtype=np.uint64)
        return powers, np.r_[np.uint64(0), sums]

    def choose(self, chosen: NDArray[np.bool_]) -> Tokens:
        """The tokens of the chosen subjects only, (subjects,) bool; the numbers of subjects stay."""
        kept = chosen[self.subject]
        return Tokens(self.token[kept], self.subject[kept], self.num_subjects)


def tokens_of(records: Records) -> Tokens:
    """The dated events as tokens; events of one instant are sorted, so that their order says nothing."""
    event = records.steps.event
    subject, time = records.subject[event], records.time_us[event]
    value = records.value[event].astype(np.float64)
    digits = np.where(np.isnan(value), -1.0, round_to_digits(np.nan_to_num(value)))
    code = records.code[event]
    order = np.lexsort((digits, code, time, subject))
    subject, time, code, digits = subject[order], time[order], code[order], digits[order]
    gap = np.zeros(len(time), np.int64)
    same = subject[1:] == subject[:-1]
    gap[1:][same] = np.rint(np.diff(time)[same] / US_PER_HOUR).astype(np.int64)
    token = mix(code.astype(np.uint64))
    for part in (digits.view(np.uint64), gap.astype(np.uint64)):
        token = mix(token ^ mix(part + GOLDEN))
    return Tokens(token, subject, records.num_subjects)


def round_to_digits(value: NDArray[np.float64], digits: int = 3) -> NDArray[np.float64]:
    """The values to so many significant digits.

    >>> round_to_digits(np.array([123.4, 0.012345, 0.0])).tolist()
    [123.0, 0.0123, 0.0]
    """
    size = np.floor(np.log10(np.where(value == 0, 1.0, np.abs(value))))
    unit = 10.0 ** (digits - 1 - size)
    return np.asarray(np.rint(value * unit) / unit)


def run_hashes(tokens: Tokens, length: int) -> tuple[Hashes, Ints]:
    """The hash of every run of this length within one subject, and whose it is.

    A polynomial in an odd number modulo 2^64 from differences of running sums, whatever the length (Karp & Rabin 1987).
    """
    if len(tokens.token) < length:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    power, sums = tokens.rolling
    value = (sums[length:] - sums[:-length]) * power[: len(sums) - length]
    inside = tokens.subject[: len(value)] == tokens.subject[length - 1 :]
    return mix(value[inside]), tokens.subject[: len(value)][inside]


def is_among(mine: Hashes, theirs: Hashes) -> NDArray[np.bool_]:
    """Which hashes are among the others, (mine,).

    A table of the first bits leaves out most that are not, on both sides; only the rest is sorted.
    """
    seen = np.zeros(2**_TABLE_BITS, dtype=bool)
    shift = np.uint64(64 - _TABLE_BITS)
    seen[theirs >> shift] = True
    found = seen[mine >> shift]
    seen[:] = False
    seen[mine[found] >> shift] = True
    rest = np.sort(theirs[seen[theirs >> shift]])
    if len(rest):
        which = np.flatnonzero(found)
        place = np.minimum(np.searchsorted(rest, mine[which]), len(rest) - 1)
        found[which] = rest[place] == mine[which]
    return np.asarray(found)


def longest_runs(of: Tokens, among: Tokens) -> Ints:
    """Length of the longest run that each subject shares with one of the others, (subjects of the first,).

    Lengths are those of `RUN_LENGTHS`, rounded down; 0 where not even the shortest is shared.
    """
    longest = np.zeros(of.num_subjects, np.int64)
    for length in RUN_LENGTHS:
        mine, whose = run_hashes(of, length)
        theirs, _ = run_hashes(among, length)
        shared = np.unique(whose[is_among(mine, theirs)])
        if not len(shared):
            break
        longest[shared] = length
        chosen = np.zeros(of.num_subjects, dtype=bool)
        chosen[shared] = True
        of = of.choose(chosen)  # who shares no run of this length shares no longer one
    return longest


def copy_rows(
    real: Records, synthetic: Records, control: Records | None, *, seed: int
) -> tuple[list[CopyRow], dict[str, float]]:
    """Copies of real records, duplicates among the twins, and the distances to the closest record (never a gate)."""
    sides = tokens_of(real), tokens_of(synthetic)
    long = sides[1].length() >= MIN_EVENTS
    runs = longest_runs(sides[1], sides[0])[long]
    ordinary = _ordinary_runs(sides[0], control, seed)
    limit = max(MIN_RUN, MARGIN * float(np.quantile(ordinary, QUANTILE)) if len(ordinary) else 0.0)
    copied = runs > limit
    notes = {
        "longest shared run of a twin, events": float(runs.max(initial=0)),
        "longest shared run of two real subjects, events": float(ordinary.max(initial=0)),
        **_closest(real, synthetic, control),
    }
    return [
        near_copy_row(real, synthetic, control, seed=seed),
        CopyRow(
            "copies.subjects",
            "Twins that share a long verbatim run with a real subject",
            limit,
            int(copied.sum()),
            int(long.sum()),
            float(copied.mean()) if len(copied) else 0.0,
            float(np.mean(ordinary > limit)) if len(ordinary) else 0.0,
            "events in a row with equal code, value and gap; the limit is "
            f"{MARGIN:g} times what two real subjects reach, at least {MIN_RUN}",
        ),
        _duplicates(sides[1], sides[0]),
    ], notes


def _ordinary_runs(real: Tokens, control: Records | None, seed: int) -> Ints:
    """The longest runs that real subjects share with others: halves against each other, control against train."""
    rng = generator(seed, "check", "copies")
    long = real.length() >= MIN_EVENTS
    runs = []
    for _ in range(NUM_HALVES):
        chosen = rng.permutation(real.num_subjects) < real.num_subjects // 2
        runs.append(longest_runs(real.choose(chosen), real.choose(~chosen))[long & chosen])
    if control is not None:
        tokens = tokens_of(control)
        runs.append(longest_runs(tokens, real)[tokens.length() >= MIN_EVENTS])
    return np.concatenate(runs)


def _duplicates(synthetic: Tokens, real: Tokens) -> CopyRow:
    share = [_repeated(side) for side in (synthetic, real)]
    return CopyRow(
        "duplicates.subjects",
        "Twins that equal another twin event by event",
        1.0,
        int(share[0].sum()),
        len(share[0]),
        float(share[0].mean()) if len(share[0]) else 0.0,
        float(share[1].mean()) if len(share[1]) else 0.0,
        f"records of {MIN_EVENTS} events and more",
    )


def _repeated(tokens: Tokens) -> NDArray[np.bool_]:
    """Whether each long record equals another one, (long records,)."""
    length = tokens.length()
    starts = np.cumsum(length) - length
    key = np.zeros(tokens.num_subjects, np.uint64)
    position = np.arange(len(tokens.token)) - starts[tokens.subject]
    np.add.at(key, tokens.subject, mix(tokens.token + mix(position.astype(np.uint64))))
    key = key[length >= MIN_EVENTS]
    _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
    return np.asarray(count[inverse] > 1)


def _closest(real: Records, synthetic: Records, control: Records | None) -> dict[str, float]:
    """Median Jaccard distance of the sets of codes to the closest real subject: a description, not a privacy test."""
    num_codes = len(real.vocabulary.codes)
    known = _sets(real, num_codes)
    notes = {
        "closest record of a twin, median Jaccard distance": float(
            np.median(_nearest(_sets(synthetic, num_codes), known))
        )
    }
    if control is not None and control.num_subjects:
        distances = _nearest(_sets(control, num_codes), known)
        notes["closest record of a control subject, median Jaccard distance"] = float(np.median(distances))
    return notes


def _sets(records: Records, num_codes: int) -> NDArray[np.float32]:
    counts = records.counts
    dense = np.zeros((records.num_subjects, num_codes), np.float32)
    rows, columns = counts.nonzero()
    dense[rows, columns] = 1
    return dense


def _nearest(of: NDArray[np.float32], among: NDArray[np.float32]) -> NDArray[np.float64]:
    sizes = among.sum(axis=1)
    found = []
    for start in range(0, len(of), 500):
        block = of[start : start + 500]
        both = block @ among.T
        union = block.sum(axis=1)[:, None] + sizes - both
        found.append((1 - both / np.maximum(union, 1)).min(axis=1))
    return np.concatenate(found).astype(np.float64)
