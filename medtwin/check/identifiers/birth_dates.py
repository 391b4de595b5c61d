"""Whether dates of birth are those of the source, beyond what chance makes equal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from scipy.stats import binom

from medtwin.check.identifiers.known import Known

SHIFTS = tuple(sign * 7 * week for week in range(1, 27) for sign in (1, -1))
"""Days by which the dates are moved for a control: whole weeks, as births keep to weekdays."""
ALARM = 1e-4


def too_many_birth_dates(dates: Sequence[date], known: Known) -> int:
    """How many dates of birth are some source patient's, where that is more than chance; 0 otherwise.

    Of 5,000 patients almost every day of a century is somebody's birthday: one equal date says nothing. The same dates
    moved by weeks say how many are equal by chance.

    Args:
        dates: Different dates of birth in what is to leave: a person may stand in many files.
        known: The source's.
    """
    if not dates or not known.hashes["date of birth"]:
        return 0
    observed = sum(known.is_birth_date(day.isoformat()) for day in dates)
    moved = [sum(known.is_birth_date((day + timedelta(days=shift)).isoformat()) for day in dates) for shift in SHIFTS]
    by_chance = (sum(moved) + 1) / (len(SHIFTS) * len(dates) + 1)
    p = float(binom.sf(observed - 1, len(dates), by_chance))
    return observed if p < ALARM and observed > max(moved) else 0
