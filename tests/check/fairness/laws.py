"""People of two sexes and three wards with four numbers each, as records; groups may be broken by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from medtwin.check.fairness.groups import Division
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.strata import Stratification, stratifications_from
from medtwin.core.events import EVENT_SCHEMA

STRATA: tuple[Stratification, ...] = stratifications_from({"sex": ["GENDER//"], "ward": ["WARD//"]})
NUM_NUMBERS = 4
_DAY = 86_400_000_000


def people(number: int, seed: int, words: Vocabulary) -> Records:
    """An independent draw; half are women, and wards A, B, C have 5, 3 and 2 of ten."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["GENDER//F", "GENDER//M"], number)
    ward = rng.choice(["WARD//A", "WARD//B", "WARD//C"], number, p=[0.5, 0.3, 0.2])
    value = rng.normal(size=(number, 1)) + rng.normal(size=(number, NUM_NUMBERS))
    numbers = np.tile([f"LOINC//{one}" for one in range(NUM_NUMBERS)], (number, 1))
    code = np.column_stack([sex, ward, np.full(number, "MEDS_BIRTH"), numbers])
    days = np.array([np.nan, np.nan, 0, *(15_000 + np.arange(NUM_NUMBERS))])
    width = code.shape[1]
    time = [None if np.isnan(day) else int(day) * _DAY for day in days] * number
    columns = {
        "subject_id": pa.array(np.repeat(np.arange(number), width), pa.int64()),
        "time": pa.array(time, pa.int64()).cast(pa.timestamp("us")),
        "code": pa.array(code.ravel().tolist(), pa.string()),
        "numeric_value": pa.array(
            np.column_stack([np.full((number, 3), np.nan), value]).ravel(), pa.float32(), from_pandas=True
        ),
    }
    arrays = [columns.get(field.name, pa.nulls(number * width, field.type)).cast(field.type) for field in EVENT_SCHEMA]
    return tables_to_records([pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)], words)


def members(records: Records, code: str) -> np.ndarray:
    return np.flatnonzero(records.has(code))


def without(records: Records, code: str, share: float, seed: int) -> Records:
    """The records without a share of a group."""
    mine = members(records, code)
    gone = np.random.default_rng(seed).permutation(mine)[: round(share * len(mine))]
    return records.take(np.setdiff1d(np.arange(records.num_subjects), gone))


def moved_group(records: Records, code: str, *, amount: float = 1.0) -> Records:
    """The numbers of a group moved by so much, as by another unit; their standard deviation is 1.4."""
    moved = np.where(records.has(code)[records.subject], records.value + amount, records.value)
    return replace(records, value=moved.astype(np.float32))


def divisions(*sides: Records) -> list[Division]:
    return [Division(one.name, tuple(one.levels(side) for side in sides)) for one in STRATA]
