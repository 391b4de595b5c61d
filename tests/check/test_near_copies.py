from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy import sparse

from medtwin.check.controls import BREAKS
from medtwin.check.near_copies import MIN_RHYTHMS, WIDTH, closeness, near_copy_row, runs_of
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.core.events import Event, events_to_table

DAY = datetime(2020, 1, 1)


def people(number: int, seed: int, words: Vocabulary) -> Records:
    """Each has four tests, each again and again after gaps that nobody else has."""
    rng = np.random.default_rng(seed)
    events = []
    for subject in range(number):
        for code in range(4):
            hours = np.cumsum(rng.lognormal(3, 1.5, 25))
            events += [
                Event(subject, DAY + timedelta(hours=float(hour)), f"LOINC//{code}", numeric_value=float(rng.normal()))
                for hour in hours
            ]
    return tables_to_records([events_to_table(events)], words)


def test_rhythms_are_codes_with_two_gaps_to_three_percent() -> None:
    hours = {1: (0, 10, 30), 2: (500, 510.1, 530.2), 3: (0, 10, 40), 4: (0, 10)}
    events = [Event(subject, DAY + timedelta(hours=h), "A") for subject, times in hours.items() for h in times]
    events += [Event(4, DAY + timedelta(hours=h), "B") for h in (0, 10, 30)]
    events.append(Event(1, DAY + timedelta(hours=10), "A"))  # twice at one time counts once
    value, whose = runs_of(tables_to_records([events_to_table(events)], Vocabulary()))
    of = {int(subject): set(value[whose == subject].tolist()) for subject in range(4)}
    assert [len(of[subject]) for subject in range(4)] == [1, 1, 1, 1]
    assert of[0] == of[1]  # other dates, and gaps that differ by 1 %
    assert len({*of[0], *of[2], *of[3]}) == 3  # another gap, another code
    assert abs(np.log(10.1 / 10)) < WIDTH / 2


def test_closeness_by_hand() -> None:
    mine, theirs = np.zeros((2, 60), np.float32), np.zeros((3, 60), np.float32)
    mine[0, :40] = 1
    theirs[0, :10] = 1  # of what the first has, ten; five of them are the third's too
    theirs[1, 5:15] = 1
    theirs[2, 38:60] = 1  # two
    mine[1, : MIN_RHYTHMS - 1] = 1
    score = closeness(sparse.csr_array(mine), sparse.csr_array(theirs))
    one, two, none = np.log(4 / 2), np.log(4 / 3), np.log(4)
    total = (5 + 5 + 2) * one + 5 * two + 23 * none
    assert score[0] == pytest.approx((5 * one + 5 * two - 2 * one) / total)
    assert np.isnan(score[1])


def test_copies_with_other_values_other_dates_and_lost_events_are_found_and_fresh_draws_are_none() -> None:
    words = Vocabulary()
    real, fresh, control = (people(80, seed, words) for seed in (1, 2, 3))
    row = near_copy_row(real, fresh, control, seed=0)
    assert (row.num_copies, row.num_checked, row.baseline, row.limit) == (0, 80, 0, 0.25)
    rng = np.random.default_rng(0)
    for name, share in (("10 % copied", 0.1), ("100 % copied", 1.0)):
        broken = BREAKS[name](fresh, real, rng)
        kept = rng.random(len(broken.code)) > 0.05
        columns = ("subject", "time_us", "code", "unit", "value", "encounter")
        broken = replace(broken, **{column: getattr(broken, column)[kept] for column in columns})
        broken = replace(broken, value=broken.value + rng.normal(size=len(broken.value)).astype(np.float32))
        assert near_copy_row(real, broken, control, seed=0).share == pytest.approx(share, abs=0.02)


def test_what_is_regular_cannot_be_told_and_is_not_called_checked() -> None:
    events = [Event(subject, DAY + timedelta(hours=hour), "A") for subject in range(40) for hour in range(subject, 100)]
    records = tables_to_records([events_to_table(events)], Vocabulary())
    row = near_copy_row(records, records, None, seed=0)
    assert (row.num_copies, row.num_checked) == (0, 0)
    nobody = records.take(np.zeros(0, np.int64))
    assert near_copy_row(records, nobody, None, seed=0).num_checked == 0
