"""Sample timelines and sample images of a dataset, for the report of a check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.check.images import group_of, read_picture
from medtwin.core.codes import BIRTH, DEATH, is_clinical
from medtwin.core.dataset import Dataset
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.seeds import generator
from medtwin.hospital import DESCRIPTIONS
from medtwin.report import ImageGrid
from medtwin.report.comparisons import Timeline

LANES = {
    "Encounter": "visits",
    "Condition": "conditions",
    "Observation": "labs, vitals",
    "MedicationRequest": "medication",
    "MedicationAdministration": "medication",
    "MedicationStatement": "medication",
    "MedicationDispense": "medication",
    "Procedure": "procedures",
    "Immunization": "vaccines",
    "ImagingStudy": "imaging",
}
OTHER = "events"
NAMED = ("Condition", "Procedure")
_SEX = {"GENDER//F": "Woman", "GENDER//M": "Man"}
_DAYS_PER_YEAR = 365.25


def sample_timelines(
    dataset: Dataset, splits: Sequence[str], *, number: int, seed: int, kinds: Mapping[str, str], who: str
) -> list[tuple[Timeline, float]]:
    """Some subjects' timelines and their lengths in days: short, middling and long records, chosen by the seed.

    Args:
        dataset: Whose subjects; the first shards are enough.
        splits: Names of splits.
        number: How many.
        seed: Decides which.
        kinds: FHIR resource type by code, for rows that do not say.
        who: What a subject is called, such as `twin`.
    """
    table = _first_rows(dataset, splits)
    timed = table.filter(pc.and_(pc.is_valid(table["time"]), pc.invert(pc.equal(table["code"], BIRTH))))
    subjects, count = np.unique(timed["subject_id"].to_numpy(), return_counts=True)
    order = subjects[np.argsort(count, kind="stable")]
    rng = generator(seed, "check", "timelines")
    parts = np.array_split(order[len(order) // 10 : len(order) - len(order) // 20], number)
    chosen = [int(rng.choice(part)) for part in parts if len(part)]
    descriptions = _texts(dataset)
    return [
        _timeline(table.filter(pc.equal(table["subject_id"], one)), f"{who} {number}", kinds, descriptions)
        for number, one in enumerate(chosen, start=1)
    ]


def _first_rows(dataset: Dataset, splits: Sequence[str], num_subjects: int = 200) -> pa.Table:
    tables, seen = [], 0
    for split in splits:
        for table in dataset.iter_events(split):
            tables.append(table.select(["subject_id", "time", "code", "resource", "parent_id"]))
            seen += len(pc.unique(table["subject_id"]))
            if seen >= num_subjects:
                return pa.concat_tables(tables)
    return pa.concat_tables(tables)


def _texts(dataset: Dataset) -> dict[str, str]:
    """Descriptions by code: those of the dataset, and of the findings that our own hospital knows."""
    table = dataset.codes()
    if "description" not in table.column_names:
        return dict(DESCRIPTIONS)
    texts = zip(table["code"].to_pylist(), table["description"].to_pylist(), strict=True)
    return DESCRIPTIONS | {code: text for code, text in texts if text}


def kinds_of(*datasets: Dataset) -> dict[str, str]:
    """FHIR resource type by code, from the code tables."""
    kinds = {}
    for dataset in datasets:
        table = dataset.codes()
        if "resource" in table.column_names:
            pairs = zip(table["code"].to_pylist(), table["resource"].to_pylist(), strict=True)
            kinds.update({code: resource for code, resource in pairs if resource})
    return kinds


def _timeline(
    table: pa.Table, title: str, kinds: Mapping[str, str], descriptions: Mapping[str, str]
) -> tuple[Timeline, float]:
    rows = [row for row in table.to_pylist() if is_clinical(row["code"])]
    birth = next((row["time"] for row in rows if row["code"] == BIRTH), None)
    sex = next((_SEX[row["code"]] for row in rows if row["code"] in _SEX), "Patient")
    dated = [row for row in rows if row["time"] is not None and row["code"] != BIRTH]
    # A condition may begin decades before the record: the record starts with the first thing that is no condition.
    starts = [row["time"] for row in dated if (row["resource"] or kinds.get(row["code"])) != "Condition"]
    start = min(starts, default=dated[0]["time"])
    lanes: dict[str, list[float]] = {}
    named: list[tuple[float, str]] = []
    end = None
    for row in dated:
        days = max((row["time"] - start).total_seconds() / 86400, 0.0)
        if row["code"] == DEATH:
            end = days
            continue
        resource = row["resource"] or kinds.get(row["code"], "")
        if lane := LANES.get(resource, "" if resource else OTHER):
            lanes.setdefault(lane, []).append(days)
        text = descriptions.get(row["code"])
        if resource in NAMED and text and text not in {name for _, name in named}:
            named.append((days, text))
    named = [(days, re.sub(r" \([a-z/ ]+\)$", "", text)) for days, text in named]
    age = "" if birth is None else f", {int((start - birth).days / _DAYS_PER_YEAR)} years"
    last = max((max(times) for times in lanes.values()), default=0.0)
    about = f"{title}: {sex.lower()}{age}, {len(dated):,} events"
    return Timeline(about[0].upper() + about[1:], lanes, named, end), max(last, end or 0.0)


def on_one_scale(found: Sequence[tuple[Timeline, float]]) -> tuple[list[Timeline], str]:
    """The timelines in years, or days where none lasts a year, with the same lanes; and the name of the unit."""
    longest = max((days for _, days in found), default=1.0)
    unit, size = ("years", _DAYS_PER_YEAR) if longest > 1.5 * _DAYS_PER_YEAR else ("days", 1.0)
    order = [*dict.fromkeys(LANES.values()), OTHER]
    used = [lane for lane in order if any(lane in one.lanes for one, _ in found)]
    lines = [
        Timeline(
            one.title,
            {lane: [time / size for time in one.lanes.get(lane, ())] for lane in used},
            [(time / size, name) for time, name in one.named],
            None if one.end is None else one.end / size,
        )
        for one, _ in found
    ]
    return lines, f"{unit} since the first visit or measurement"


def sample_images(dataset: Dataset, splits: Sequence[str], *, number: int, seed: int) -> ImageGrid | None:
    """Some images of a dataset, as many of each modality and view as there is room for; None where there are none."""
    chosen_splits, split_of = set(splits), dataset.subject_splits()
    rows = [row for row in table_to_images(dataset.images()) if split_of.get(row.subject_id, "data") in chosen_splits]
    groups: dict[str, list[ImageRow]] = {}
    for index in generator(seed, "check", "sample images").permutation(len(rows)):
        groups.setdefault(group_of(rows[index]), []).append(rows[index])
    chosen: list[ImageRow] = []
    while len(chosen) < number and any(groups.values()):
        chosen += [groups[name].pop() for name in sorted(groups) if groups[name]]
    chosen = sorted(chosen[:number], key=group_of)
    if not chosen:
        return None
    texts = _texts(dataset)
    captions = [_caption(row, texts) for row in chosen]
    return ImageGrid([read_picture(dataset, row).pixels for row in chosen], captions)


def _caption(row: ImageRow, texts: Mapping[str, str]) -> str:
    found = [re.sub(r" \([a-z/ ]+\)$", "", texts.get(label, label)) for label in row.labels or ()]
    what = ", ".join(found) if found else "no finding" if row.labels is not None else "not labelled"
    sex = {"F": "woman", "M": "man"}.get(row.sex or "", "")
    age = "" if row.age_years is None else f"{row.age_years:.0f}"
    return f"{group_of(row)}, {' '.join(part for part in (sex, age) if part) or 'unknown'}: {what}"
