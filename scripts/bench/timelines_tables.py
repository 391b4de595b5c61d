"""Records as the flat tables that the peers of scripts/bench/timelines.py learn from, and such tables as datasets.

One context row a subject: sex and whatever else stands without a time, age at the first event in years, and the day of
the first event where it differs between subjects. One event row an event: minutes since the event before, code, value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH, SEPARATOR
from medtwin.core.dataset import Dataset
from medtwin.core.dataset_writer import EventSpill, write_dataset_metadata, write_events
from medtwin.core.events import EVENT_SCHEMA, is_event, shortest_decimal
from medtwin.core.files import write_manifest
from medtwin.core.seeds import generator

KEY = "key"
AGE, START = "age_years", "start_day"
DAYS_PER_YEAR = 365.25
US_PER_MINUTE = 60_000_000
US_PER_DAY = 24 * 60 * US_PER_MINUTE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Flat:
    """The tables of some subjects, and what it takes to turn such tables back.

    Attributes:
        context: `key`, `split`, static systems (a code or none), `AGE`, and `START` where it varies.
        events: `key`, `gap_minutes`, `code`, `value` (NaN: none), in the order of the records.
        statics: Names of the static systems.
        start_day: Day of the first event since 1970, where every subject has the same; else None.
        grain_minutes: The step of time: 1 where every time is a whole minute, else 1/60.
        units, resources: Most frequent unit and FHIR type by code.
        values: Training values by code, ascending; a code without any has none.
    """

    context: pd.DataFrame
    events: pd.DataFrame
    statics: tuple[str, ...]
    start_day: float | None
    grain_minutes: float
    units: Mapping[str, str]
    resources: Mapping[str, str]
    values: Mapping[str, Floats]

    @property
    def numeric_context(self) -> list[str]:
        """The context columns that are numbers."""
        return [name for name in (AGE, START) if name in self.context.columns]

    def part(self, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Context and events of a split."""
        context = self.context[self.context["split"] == split]
        return context, self.events[self.events[KEY].isin(set(context[KEY]))]


def to_tables(dataset: Dataset, splits: Sequence[str] = ("train", "tuning")) -> Flat:
    """The tables of some splits; child rows (`parent_id`) and texts are left out."""
    parts = []
    for split in splits:
        table = dataset.events(split)
        columns = ["subject_id", "time", "code", "numeric_value", "unit", "resource"]
        rows = table.filter(is_event(table)).select(columns).to_pandas()
        parts.append(rows.assign(split=split))
    rows = pd.concat(parts, ignore_index=True)
    rows[KEY] = "p" + rows["subject_id"].astype(str)
    is_birth = rows["code"] == BIRTH
    undated, dated = rows[rows["time"].isna() & ~is_birth], rows[rows["time"].notna() & ~is_birth]
    microseconds = dated["time"].to_numpy("datetime64[us]").astype(np.int64)
    events = pd.DataFrame({KEY: dated[KEY].to_numpy(), "time": microseconds, "code": dated["code"].to_numpy()})
    events["value"] = _decimals(dated["numeric_value"].to_numpy(np.float32))
    gaps = events.groupby(KEY, sort=False)["time"].diff().fillna(0) / US_PER_MINUTE
    events.insert(1, "gap_minutes", gaps)
    first = events.groupby(KEY, sort=False)["time"].first()
    context = rows.groupby(KEY, sort=False)["split"].first().to_frame()
    context = context.loc[first.index]
    statics = sorted({code.partition(SEPARATOR)[0] for code in undated["code"]})
    for name in statics:
        of_system = undated[undated["code"].str.startswith(name + SEPARATOR)]
        context[name] = of_system.groupby(KEY)["code"].first().reindex(context.index).fillna("none")
    births = rows[is_birth].groupby(KEY)["time"].first().reindex(context.index)
    born = births.to_numpy("datetime64[us]")
    age = (first.to_numpy().astype("datetime64[us]") - born) / np.timedelta64(1, "D") / DAYS_PER_YEAR
    context[AGE] = np.round(age, 3)
    days = first.to_numpy() / US_PER_DAY
    is_one_day = len(np.unique(days)) == 1
    if not is_one_day:
        context[START] = np.round(days, 4)
    train = events[events[KEY].isin(context.index[context["split"] == splits[0]])]
    numbers = train.dropna(subset="value").groupby("code")["value"]
    return Flat(
        context.reset_index(names=KEY),
        events.drop(columns="time"),
        tuple(statics),
        float(days[0]) if is_one_day else None,
        1.0 if (microseconds % US_PER_MINUTE == 0).all() else 1 / 60,
        _usual(dated, "unit"),
        _usual(dated, "resource"),
        {str(code): np.sort(group.to_numpy()) for code, group in numbers},
    )


def _decimals(values: NDArray[np.float32]) -> Floats:
    """The shortest decimals of float32 numbers: what a peer that models digits has to see."""
    distinct, place = np.unique(values, return_inverse=True)
    return np.array([shortest_decimal(float(one)) for one in distinct])[place]


def _usual(rows: pd.DataFrame, name: str) -> dict[str, str]:
    known = rows.dropna(subset=name)
    counts = known.groupby(["code", name]).size().sort_values(ascending=False, kind="stable")
    usual: dict[str, str] = {}
    for code, value in counts.index:
        usual.setdefault(str(code), str(value))
    return usual


def values_to_ranks(codes: NDArray[np.object_], values: Floats, known: Mapping[str, Floats]) -> Floats:
    """Each value's place among the training values of its code, in per cent, (rows,); NaN stays.

    Equal values share the middle of their places, so that `ranks_to_values` gives them back exactly.

    >>> known = {"a": np.array([1.0, 2.0, 2.0, 9.0])}
    >>> values_to_ranks(np.array(["a", "a"], object), np.array([2.0, 9.0]), known)
    array([50. , 87.5])
    """
    ranks = np.full(len(values), np.nan)
    for code, sorted_values in known.items():
        rows = np.flatnonzero((codes == code) & ~np.isnan(values))
        low, high = (np.searchsorted(sorted_values, values[rows], side=side) for side in ("left", "right"))
        ranks[rows] = 100 * (low + high) / 2 / len(sorted_values)
    return ranks


def ranks_to_values(codes: NDArray[np.object_], ranks: Floats, known: Mapping[str, Floats]) -> Floats:
    """The training value at each place, (rows,); NaN where a code has no training value, and where there is no rank.

    >>> known = {"a": np.array([1.0, 2.0, 2.0, 9.0])}
    >>> ranks_to_values(np.array(["a", "a", "b"], object), np.array([50.0, 87.5, 50.0]), known)
    array([ 2.,  9., nan])
    """
    values = np.full(len(ranks), np.nan)
    for code, sorted_values in known.items():
        rows = np.flatnonzero((codes == code) & ~np.isnan(ranks))
        place = np.floor(ranks[rows] / 100 * len(sorted_values)).astype(np.int64)
        values[rows] = sorted_values[np.clip(place, 0, len(sorted_values) - 1)]
    return values


def to_dataset(flat: Flat, context: pd.DataFrame, events: pd.DataFrame, folder: Path, name: str) -> dict[str, int]:
    """Writes tables as a finished dataset of origin synthetic; returns how many rows had to be mended or left out.

    Subjects are numbered from 1 on. A gap that is missing or negative counts as 0; a code that training does not have,
    and a subject without any event, is left out; a value of a code that never has one is dropped.

    Args:
        flat: Of the training data: units, types, the grain of time.
        context: As `Flat.context`, without `split`.
        events: As `Flat.events`; rows of a subject in order.
        folder: The directory to make.
        name: Of the dataset.
    """
    known = set(flat.events["code"])
    kept = events[events["code"].isin(known)]
    gap = kept["gap_minutes"].to_numpy(np.float64, na_value=np.nan)
    bad = ~(gap >= 0)
    numbers = {key: number for number, key in enumerate(context[KEY], start=1)}
    subject = kept[KEY].map(numbers).to_numpy(np.int64)
    order = np.argsort(subject, kind="stable")
    kept, gap, subject = kept.iloc[order], np.where(bad, 0, gap)[order], subject[order]
    since = _since_first(subject, np.round(gap / flat.grain_minutes) * flat.grain_minutes)
    start = np.array(context[START] if START in context else np.full(len(context), flat.start_day), np.float64)
    start_us = np.round(start * 24 * 60 / flat.grain_minutes) * flat.grain_minutes * US_PER_MINUTE
    time = (start_us[subject - 1] + since * US_PER_MINUTE).astype(np.int64)
    codes = kept["code"].to_numpy(object)
    has_value = np.isin(codes, list(flat.values))
    value = np.where(has_value, kept["value"].to_numpy(np.float64, na_value=np.nan), np.nan)
    table = _event_table(flat, subject, time, codes, value)
    with TemporaryDirectory() as scratch:
        spill = EventSpill(Path(scratch) / "spill", 4)
        for part in (_static_table(flat, context, start_us, np.unique(subject)), table):
            spill.add(part)
        written = write_events(folder, spill.close(), split_of=lambda one: "train")
    write_dataset_metadata(folder, name, "synthetic")
    write_manifest(folder)
    return {
        "gaps mended": int(bad.sum()),
        "rows left out": len(events) - len(kept),
        "subjects without events": len(context) - sum(written.num_subjects.values()),
        "second deaths left out": written.flags["further-death-dropped"],
    }


def _since_first(subject: NDArray[np.int64], gap: Floats) -> Floats:
    """Minutes since a subject's first event, (rows,); subjects ascending."""
    total = np.cumsum(gap)
    is_first = np.r_[True, subject[1:] != subject[:-1]] if len(subject) else np.zeros(0, bool)
    return np.asarray(total - np.repeat(total[is_first], np.diff(np.r_[np.flatnonzero(is_first), len(subject)])))


def _event_table(
    flat: Flat, subject: NDArray[np.int64], time: NDArray[np.int64], codes: NDArray[np.object_], value: Floats
) -> pa.Table:
    texts = pa.array(codes, pa.string())
    units, resources = (
        pa.array([table.get(code) for code in codes], pa.string()) for table in (flat.units, flat.resources)
    )
    numbers = pa.array(value.astype(np.float32), pa.float32())
    shown = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float32()), numbers)
    columns = {
        "subject_id": pa.array(subject),
        "time": pa.array(time, pa.timestamp("us")),
        "code": texts,
        "numeric_value": shown,
        "unit": pc.if_else(pc.is_valid(shown), units, pa.scalar(None, pa.string())),
        "resource": resources,
    }
    return _filled(columns, len(codes))


def _static_table(flat: Flat, context: pd.DataFrame, start_us: Floats, present: NDArray[np.int64]) -> pa.Table:
    """Births and static codes of the subjects that have events."""
    rows = present - 1
    age = context[AGE].to_numpy(np.float64)[rows]
    born = start_us[rows] - age * DAYS_PER_YEAR * US_PER_DAY
    dated = ~np.isnan(age)
    subject = [present[dated]]
    codes = [np.full(int(dated.sum()), BIRTH, object)]
    times: list[int | None] = born[dated].astype(np.int64).tolist()
    for name in flat.statics:
        code = context[name].to_numpy(object)[rows]
        has = np.array([isinstance(one, str) and one != "none" for one in code], bool)
        subject.append(present[has])
        codes.append(code[has])
        times += [None] * int(has.sum())
    columns = {
        "subject_id": pa.array(np.concatenate(subject)),
        "time": pa.array(times, pa.timestamp("us")),
        "code": pa.array(np.concatenate(codes), pa.string()),
    }
    return _filled(columns, len(times))


def _filled(columns: Mapping[str, pa.Array], length: int) -> pa.Table:
    """The columns, and nulls for the others of the event table."""
    full = [columns.get(field.name, pa.nulls(length, field.type)) for field in EVENT_SCHEMA]
    return pa.table([one.cast(field.type) for one, field in zip(full, EVENT_SCHEMA, strict=True)], schema=EVENT_SCHEMA)


def independent_events(flat: Flat, num_subjects: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The floor: contexts, numbers of events, codes, gaps and values drawn each by itself from the training subjects.

    Returns:
        Context and events of so many subjects.
    """
    rng = generator(seed, "timelines", "independent")
    context, events = flat.part("train")
    chosen = context.iloc[rng.integers(len(context), size=num_subjects)].drop(columns="split").reset_index(drop=True)
    chosen[KEY] = [f"s{number}" for number in range(num_subjects)]
    lengths = events.groupby(KEY).size().to_numpy()
    length = lengths[rng.integers(len(lengths), size=num_subjects)]
    total = int(length.sum())
    code = events["code"].to_numpy(object)[rng.integers(len(events), size=total)]
    drawn = pd.DataFrame({KEY: np.repeat(chosen[KEY].to_numpy(object), length)})
    drawn["gap_minutes"] = events["gap_minutes"].to_numpy()[rng.integers(len(events), size=total)]
    drawn["code"] = code
    drawn["value"] = ranks_to_values(code, rng.uniform(0, 100, total), flat.values)
    return chosen, drawn


def copied_events(flat: Flat, num_subjects: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What no model may be: training records as they are, each drawn once; the positive control of membership."""
    rng = generator(seed, "timelines", "copies")
    context, events = flat.part("train")
    chosen = context.iloc[rng.permutation(len(context))[:num_subjects]].drop(columns="split").reset_index(drop=True)
    return chosen, events[events[KEY].isin(set(chosen[KEY]))]
