"""Ages over 89, which identify a person: such births are moved, so that the subject is 90 at the last event."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medtwin.core.codes import AGE_CAPPED, BIRTH
from medtwin.core.encoded import append_events
from medtwin.core.events import EVENT_SCHEMA, Event, events_to_table
from medtwin.core.text_columns import rows_with_text

_DAYS_PER_YEAR = 365.25


def cap_ages(table: pa.Table, max_age_years: int = 90) -> tuple[pa.Table, int]:
    """Moves the birth of subjects older than 89 at their last event, so that they are 90 there.

    Returns:
        The table, with a static row `MEDTWIN//age-capped` for each such subject, and the number of rows dropped because
        they would now stand before birth.

    Source: 45 CFR 164.514(b)(2)(i)(C), ages over 89 in one category.
    """
    old, births = _moved_births(table, np.timedelta64(int(_DAYS_PER_YEAR * max_age_years), "D"))
    if not len(old):
        return table, 0
    birth_of_row = _per_row(table["subject_id"].to_numpy(), old, births)
    is_birth = rows_with_text(table["code"], BIRTH)
    time = _times(table["time"])
    is_dropped = (time < birth_of_row) & ~is_birth
    is_moved = is_birth & ~np.isnat(birth_of_row)
    capped = _with_times(table, np.where(is_moved, birth_of_row, time))
    if is_dropped.any():
        capped = capped.filter(pa.array(~is_dropped))
    flags = events_to_table(Event(int(subject), None, AGE_CAPPED, resource="Patient") for subject in np.unique(old))
    return append_events(capped, flags), int(is_dropped.sum())


def _moved_births(table: pa.Table, max_age: np.timedelta64) -> tuple[NDArray[np.int64], NDArray[np.datetime64]]:
    """Subjects of at least this age at their last event, and the midnight at which each is to be born."""
    is_birth = rows_with_text(table["code"], BIRTH)
    moments = table.select(["subject_id", "time"])
    births = moments.filter(pa.array(is_birth))
    last_events = moments.filter(pa.array(~is_birth)).group_by("subject_id").aggregate([("time", "max")])
    joined = births.join(last_events, "subject_id")
    birth, last = _times(joined["time"]), _times(joined["time_max"])
    is_old = last - birth >= max_age
    midnights = (last[is_old] - max_age).astype("datetime64[D]").astype("datetime64[us]")
    return joined["subject_id"].to_numpy()[is_old], midnights


def _per_row(
    subject_of_row: NDArray[np.int64], subjects: NDArray[np.int64], births: NDArray[np.datetime64]
) -> NDArray[np.datetime64]:
    """The birth of each row's subject, NaT where it is not among `subjects`."""
    order = np.argsort(subjects)
    known, births = subjects[order], births[order]
    place = np.minimum(np.searchsorted(known, subject_of_row), len(known) - 1)
    return np.where(known[place] == subject_of_row, births[place], np.datetime64("NaT", "us"))


def _times(column: pa.ChunkedArray) -> NDArray[Any]:
    """Times as datetime64[us], NaT for null."""
    return np.asarray(column.to_numpy(), dtype="datetime64[us]")


def _with_times(table: pa.Table, time: NDArray[Any]) -> pa.Table:
    column = pa.array(time, pa.timestamp("us"), from_pandas=True)
    return table.set_column(table.column_names.index("time"), EVENT_SCHEMA.field("time"), column)
