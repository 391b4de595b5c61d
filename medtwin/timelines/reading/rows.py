"""Reads an event table as token rows: which token each row is, what number it carries, and whose child it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH, CHILD_PREFIX
from medtwin.timelines.reading.vocabulary import Number, Token

# Said by the attributes of a subject, or by medtwin itself; never tokens.
GENDER_PREFIX = "GENDER//"
_NOT_TOKENS = (BIRTH, "MEDTWIN//age-capped", "DECEASED//true")
_COLUMNS = [
    "subject_id",
    "time",
    "code",
    "numeric_value",
    "text_value",
    "unit",
    "encounter_id",
    "event_id",
    "parent_id",
    "end_time",
    "status",
    "time_precision",
    "source_code",
    "resource",
]
KEY = ["resource", "code", "text", "unit", "number", "parent"]
_MICROSECONDS_PER_MINUTE = 60_000_000
_ABSENT = "\x1f"


@dataclass(frozen=True)
class ShardRows:
    """The rows of one shard.

    Attributes:
        rows: Token rows: subject_id, minute (since 1970; static facts: 0), is_static, encounter_id, instance (row
            number of the event that they belong to), row (their own), the columns of `KEY`, value (a number, or nan).
            What is dated before the subject was first seen (at an encounter, or by the clock) is history: a static
            fact whose number says how long ago it was.
        children: Every other child row: parent_row (row number of its event or component), code, text_value,
            numeric_value, unit, target (code of the event that `text_value` refers to, or None), subject_id.
        frame: All rows as they stand, with a default index that the row numbers mean.
    """

    rows: pd.DataFrame
    children: pd.DataFrame
    frame: pd.DataFrame


def read_rows(table: pa.Table, details: Sequence[str]) -> ShardRows:
    """The token rows of an event table.

    Args:
        table: Events with every column of `EVENT_SCHEMA`, sorted by subject and time.
        details: Element paths whose child rows are tokens, such as `DiagnosticReport.conclusionCode`.
    """
    frame = table.select(_COLUMNS).to_pandas()
    frame["resource"] = frame["resource"].fillna("")
    code, parent_id, event_id = frame["code"], frame["parent_id"], frame["event_id"]
    is_event = parent_id.isna() & ~code.isin(_NOT_TOKENS) & ~code.str.startswith(GENDER_PREFIX)
    is_child = parent_id.notna()
    is_component = is_child & event_id.notna() & ~code.str.startswith(CHILD_PREFIX)
    named = frame.index[event_id.notna()]
    row_of = pd.Series(named, index=event_id[named])
    parent_row = parent_id.map(row_of)
    is_of_event = parent_row.notna() & parent_id.map(pd.Series(is_event.to_numpy()[named], index=event_id[named])).eq(
        True
    )
    number, names = pd.factorize(code)  # the paths of the distinct codes: strings are slow
    has_path = np.array([name.removeprefix(CHILD_PREFIX).split("//", 1)[0] in details for name in names], dtype=bool)
    is_detail = is_child & ~is_component & is_of_event & pd.Series(has_path[number], index=frame.index)
    is_token = is_event | (is_component & is_of_event) | is_detail
    rows = _token_rows(frame[is_token], parent_row[is_token], frame, is_detail[is_token])
    rest = is_child & ~is_component & ~is_detail & parent_row.notna()
    children = frame.loc[rest, ["subject_id", "code", "text_value", "numeric_value", "unit"]].copy()
    children["parent_row"] = parent_row[rest].astype(np.int64)
    target = children["text_value"].map(row_of)
    children["target"] = target.map(code).astype(object).where(target.notna(), None)
    return ShardRows(rows, children, frame)


def _first_seen(frame: pd.DataFrame, is_event: pd.Series[bool]) -> pd.Series[Any]:
    """Per subject: the first time at an encounter or by the clock; else that of the first dated event."""
    dated = frame[is_event & frame["time"].notna()]
    precision = dated["time_precision"]
    exact = dated["encounter_id"].notna() | precision.isna() | precision.str.startswith("second").eq(True)
    first = dated.groupby("subject_id")["time"].min()
    return dated[exact].groupby("subject_id")["time"].min().combine_first(first)


def _token_rows(
    chosen: pd.DataFrame, parent_row: pd.Series[float], frame: pd.DataFrame, is_detail: pd.Series[bool]
) -> pd.DataFrame:
    time = chosen["time"].to_numpy("datetime64[us]")
    first = _first_seen(frame, frame["parent_id"].isna() & (frame["code"] != BIRTH))
    seen = first.reindex(chosen["subject_id"])
    ago = (seen.to_numpy("datetime64[us]") - time).astype("timedelta64[m]").astype(np.float64)
    ago[np.isnat(time)] = np.nan
    is_static = np.isnat(time) | (ago > 0)
    minute = np.where(is_static, 0, time.astype(np.int64) // _MICROSECONDS_PER_MINUTE)
    end = chosen["end_time"].to_numpy("datetime64[us]")
    has_parent = parent_row.notna().to_numpy()
    has_numeric = (chosen["numeric_value"].notna() & ~is_detail).to_numpy()
    is_past = ~has_numeric & ~has_parent & (ago > 0)
    has_duration = ~has_numeric & ~has_parent & ~np.isnat(end) & ~is_static
    length = (end - time).astype("timedelta64[m]").astype(np.float64)
    kinds = [has_numeric, has_duration, is_past]
    value = np.select(kinds, [chosen["numeric_value"].to_numpy(np.float64), length, ago], np.nan)
    parent = parent_row.map(frame["code"]).astype(object)
    return pd.DataFrame(
        {
            "subject_id": chosen["subject_id"],
            "minute": minute,
            "is_static": is_static,
            "encounter_id": chosen["encounter_id"].astype(object).where(chosen["encounter_id"].notna(), None),
            "instance": parent_row.fillna(pd.Series(chosen.index, index=chosen.index)).astype(np.int64),
            "row": chosen.index,
            "resource": chosen["resource"],
            "code": chosen["code"],
            "text": chosen["text_value"].astype(object).where(chosen["text_value"].notna(), None),
            "unit": chosen["unit"].astype(object).where(has_numeric & chosen["unit"].notna(), None),
            "number": np.select(kinds, ["numeric", "duration", "ago"], "none"),
            "parent": parent.where(parent.notna(), None),
            "value": value,
        }
    )


def row_tokens(rows: pd.DataFrame) -> tuple[list[Token], NDArray[np.int64]]:
    """The distinct tokens of some rows, and the index of each row's token among them, (rows,)."""
    keys = rows[KEY].fillna(_ABSENT)
    group = keys.groupby(KEY, sort=True, observed=True).ngroup().to_numpy()
    first = np.unique(group, return_index=True)[1]
    tokens = [_token(*row) for row in keys.iloc[first].itertuples(index=False, name=None)]
    return tokens, np.asarray(group, dtype=np.int64)


def _token(resource: str, code: str, text: str, unit: str, number: Number, parent: str) -> Token:
    known = [None if value == _ABSENT else value for value in (text, unit, parent)]
    return Token(resource, code, known[0], known[1], number, known[2])
