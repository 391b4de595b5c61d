"""Hospitals to check, and ways to break them: each breaks one thing and leaves the others alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.check.images import Picture
from medtwin.core.codes import BIRTH, CHILD_PREFIX, DEATH
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.dataset_writer import EventSpill, write_dataset_metadata, write_events
from medtwin.core.events import EVENT_SCHEMA, events_to_table, sort_events
from medtwin.core.files import write_manifest
from medtwin.hospital import draw_picture, simulate_hospital
from medtwin.hospital.thorax import Radiograph

MICROSECONDS_PER_DAY = 86_400_000_000


def hospital_table(num_subjects: int, seed: int) -> pa.Table:
    """The events of a hospital without the details of events, which `check` does not read."""
    rows = [event for record in simulate_hospital(num_subjects, seed) for event in record.events]
    return sort_events(events_to_table(event for event in rows if not event.code.startswith(CHILD_PREFIX)))


def write_dataset(folder: Path, table: pa.Table, origin: str, *, held_out: float = 0.0) -> Dataset:
    """A finished dataset of a table; the last share of subjects is held out."""
    spill = EventSpill(folder.with_name(f"{folder.name}-spill"), 2)
    spill.add(table)
    subjects = np.unique(table["subject_id"].to_numpy())
    first_held_out = subjects[min(int(len(subjects) * (1 - held_out)), len(subjects) - 1)] if held_out else np.inf
    write_events(folder, spill.close(), split_of=lambda one: "held_out" if one >= first_held_out else "train")
    write_dataset_metadata(folder, "test", origin)
    write_manifest(folder)
    return open_dataset(folder)


def dated(table: pa.Table) -> np.ndarray:
    """Rows that happened at a time, birth and death left out."""
    fixed = pc.is_in(table["code"], value_set=pa.array([BIRTH, DEATH]))
    return np.flatnonzero(np.asarray(pc.and_(pc.is_valid(table["time"]), pc.invert(fixed))))


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(name), EVENT_SCHEMA.field(name), values)


def permuted(table: pa.Table, names: list[str], rows: np.ndarray, seed: int = 0) -> pa.Table:
    """The table with some columns permuted together among some rows."""
    order = np.arange(len(table))
    order[rows] = np.random.default_rng(seed).permutation(rows)
    for name in names:
        table = with_column(table, name, table[name].take(order).combine_chunks())
    return table


def shuffled_codes(table: pa.Table) -> pa.Table:
    """Codes with their values dealt anew over all events of all subjects: every marginal stays, nothing belongs."""
    return permuted(table, ["code", "numeric_value", "unit"], dated(table))


def shuffled_times(table: pa.Table) -> pa.Table:
    """Times dealt anew over all events of all subjects."""
    return without_identity(sort_events(permuted(table, ["time"], dated(table))))


def shuffled_times_within(table: pa.Table) -> pa.Table:
    """Times dealt anew over the events of each subject: gaps and lengths stay."""
    rows = dated(table)
    subject = table["subject_id"].to_numpy()[rows]
    order = np.arange(len(table))
    order[rows] = rows[np.lexsort((np.random.default_rng(0).random(len(rows)), subject))]
    return without_identity(sort_events(with_column(table, "time", table["time"].take(order).combine_chunks())))


def permuted_values(table: pa.Table) -> pa.Table:
    """Numbers dealt anew over all codes."""
    return permuted(table, ["numeric_value"], np.flatnonzero(np.asarray(pc.is_valid(table["numeric_value"]))))


def swapped_units(table: pa.Table) -> pa.Table:
    """Two numbers in another unit under the old name: weights in pounds, haemoglobin in g/L."""
    value = table["numeric_value"].to_numpy().copy()
    for code, factor in (("LOINC//29463-7", 2.2046), ("LOINC//718-7", 10.0)):
        value[np.asarray(pc.equal(table["code"], code))] *= factor
    return with_column(table, "numeric_value", pa.array(value, pa.float32(), from_pandas=True))


def renamed_codes(table: pa.Table) -> pa.Table:
    """A tenth of the codes under invented names."""
    names = sorted(set(table["code"].to_pylist()) - {BIRTH, DEATH})[::10]
    code = table["code"].to_pylist()
    return with_column(table, "code", pa.array([f"LOCAL//{one}" if one in names else one for one in code]))


def without_identity(table: pa.Table) -> pa.Table:
    """Without ids of events, which must not stand twice, and ends, which belong to the old times."""
    for name in ("encounter_id", "event_id", "parent_id", "end_time"):
        table = with_column(table, name, pa.nulls(len(table), EVENT_SCHEMA.field(name).type))
    return table


def subject_rows(table: pa.Table, subject: int) -> pa.Table:
    return table.filter(pc.equal(table["subject_id"], subject))


def copied(table: pa.Table, real: pa.Table, share: float) -> pa.Table:
    """The first share of subjects replaced by real ones under their own ids, dates moved by whole weeks."""
    mine, theirs = (np.unique(side["subject_id"].to_numpy()) for side in (table, real))
    num_copies = round(share * len(mine))
    parts = [table.filter(pc.is_in(table["subject_id"], value_set=pa.array(mine[num_copies:])))]
    for number in range(num_copies):
        source = subject_rows(real, int(theirs[number % len(theirs)]))
        encounters = [None if one is None else f"{one}/{number}" for one in source["encounter_id"].to_pylist()]
        rows = with_column(without_identity(source), "encounter_id", pa.array(encounters, pa.string()))
        time = rows["time"].cast(pa.int64()).to_pylist()
        shift = 7 * (number + 1) * MICROSECONDS_PER_DAY
        moved = pa.array([None if one is None else one + shift for one in time], pa.int64()).cast(pa.timestamp("us"))
        rows = with_column(rows, "time", moved)
        parts.append(with_column(rows, "subject_id", pa.array(np.full(len(rows), mine[number]))))
    return sort_events(pa.concat_tables(parts))


def collapsed(table: pa.Table) -> pa.Table:
    """One subject, as many times as there are subjects."""
    subjects, count = np.unique(table["subject_id"].to_numpy(), return_counts=True)
    one = without_identity(subject_rows(table, int(subjects[np.argsort(count)[len(count) // 2]])))
    copies = [with_column(one, "subject_id", pa.array(np.full(len(one), subject))) for subject in subjects]
    return pa.concat_tables(copies)


def pictures(num_subjects: int, seed: int, *, size: int = 64) -> list[Picture]:
    """The frontal radiographs of a hospital's subjects, box-averaged to `size`, as `check` reads them."""
    found = []
    for record in simulate_hospital(num_subjects, seed):
        for order in record.image_orders:
            drawn = draw_picture(order, seed)
            if isinstance(drawn, Radiograph) and drawn.view == "PA":
                step = drawn.pixels.shape[0] // size
                unit = drawn.pixels.astype(np.float32) / (2**drawn.bits_stored - 1)
                small = unit.reshape(size, step, size, step).mean(axis=(1, 3))
                found.append(picture(seed * 10_000 + order.index, small))
    return found


def picture(subject_id: int, pixels: np.ndarray) -> Picture:
    small = np.asarray(pixels, np.float32)
    return Picture(subject_id, "CR PA", small, small.tobytes(), min(small.shape))
