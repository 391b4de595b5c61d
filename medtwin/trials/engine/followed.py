"""Patients of simulated trials at any calendar time, in whole numbers small enough to be sorted fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.analysis.event_shares import EXPERIMENTAL, EventShares

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Keys = NDArray[np.int32]
ROWS = 100  # trials that are worked on together: small enough for the cache of a core
_BITS = 2
_PAST = 1.01  # months beyond the horizon are told apart from those within it, not from each other
_TICKS = 2**29
# A time is cut to whole ticks and a look comes 2 ticks late, so that the event which brings it is seen: the order of
# two times that are more than 3 ticks apart is certain.
_LATE, _CERTAIN = 2, 4 << _BITS


@dataclass(frozen=True)
class Followed:
    """Trials whose patients' times are known as numbers of ticks; (trials, patients) each.

    A key is a patient's time, negative, times four, plus bits for an event and for the experimental arm. The greater of
    a patient's two keys is that of what comes first, leaving or the look.

    Attributes:
        enrolled: Key of the calendar time of enrolment.
        leaves: Key of the time from enrolment to the event or dropout.
        ticks: (trials,) in a month.
    """

    enrolled: Keys
    leaves: Keys
    ticks: Floats

    @staticmethod
    def of(enrolled: Floats, leaves: Floats, is_event: Bools, arm: Ints, horizon: float) -> Followed:
        """Those of patients.

        Args:
            enrolled: (trials, patients) calendar month.
            leaves: (trials, patients) months from enrolment to the event or dropout.
            is_event: (trials, patients) which it is.
            arm: (trials, patients) 1 experimental.
            horizon: Months; looks come by then.
        """
        ticks = (_TICKS - 2**8) / (_PAST * horizon)
        arms = np.multiply(arm, EXPERIMENTAL, dtype=np.int32, casting="unsafe")
        came = _keys(enrolled, ticks, _PAST * horizon)
        came |= arms
        left = _keys(leaves, -ticks, _PAST * horizon)
        arms += is_event
        left |= arms
        return Followed(came, left, np.full(len(came), ticks))

    @staticmethod
    def join(parts: Sequence[Followed]) -> Followed:
        """The trials, one after the other."""
        return Followed(*(np.concatenate([getattr(part, name) for part in parts]) for name in Followed.__annotations__))

    def at(self, rows: Ints, months: Floats) -> tuple[EventShares, Bools]:
        """The risk sets at a calendar month of each trial, and where they are uncertain, (trials,).

        They are uncertain where two times lie closer to each other than ticks can tell.

        Args:
            rows: (some,) which trials.
            months: (some,) by the horizon.
        """
        look = (months * self.ticks[rows]).astype(np.int32)
        look += _LATE
        look <<= _BITS
        count = self.leaves.shape[1]
        latest = np.arange(1, count + 1, dtype=np.int32) << 8
        found = EventShares.empty(len(rows), count)
        is_unclear = np.empty(len(rows), dtype=np.bool_)
        for start in range(0, len(rows), ROWS):
            here = slice(start, start + ROWS)
            chosen = rows[here]
            keys = self.enrolled[chosen]
            keys -= look[here, None]
            np.minimum(keys, latest, out=keys)  # patients who are not yet enrolled come last, apart from each other
            np.maximum(keys, self.leaves[chosen], out=keys)
            least = found.fill(here, keys)
            np.less(least, _CERTAIN, out=is_unclear[here])
        return found, is_unclear


def _keys(months: Floats, ticks: float, most: float) -> Keys:
    scaled = np.minimum(months, most)
    scaled *= ticks
    keys = scaled.astype(np.int32)
    keys <<= _BITS
    return keys
