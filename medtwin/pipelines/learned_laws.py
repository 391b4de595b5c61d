"""Whether twins of the embedded hospital obey laws that are known: each with an interval, and the truth beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from medtwin.core.codes import DEATH
from medtwin.core.dataset import Dataset
from medtwin.core.files import read_json
from medtwin.dicom import open_series
from medtwin.hospital import codes
from medtwin.hospital.measure import cardiothoracic_ratio, lung_opacity

_PREGNANCY = (
    codes.PREGNANCY,
    codes.GESTATIONAL_DIABETES,
    codes.PRENATAL_VISIT,
    codes.POSTNATAL_VISIT,
    codes.VAGINAL_DELIVERY,
    codes.CESAREAN,
)
_LEVEL = 0.95
MIN_GROUP = 3
"""Subjects or images that each of two groups needs to be compared."""


@dataclass(frozen=True)
class LawCheck:
    """One law, measured.

    Attributes:
        law: What is claimed. estimate: The measured number, its unit in `law`.
        low, high: 95 % interval; None of a count.
        truth: What the laws imply; None where only the sign is known.
        p_value: One-sided, of no effect; None of a count or where the truth is known.
        holds: Whether the twins obey; None where there are too few.
        sizes: Subjects or images per group.
    """

    law: str
    estimate: float
    low: float | None
    high: float | None
    truth: float | None
    p_value: float | None
    holds: bool | None
    sizes: tuple[int, ...]


def check_laws(twins: Dataset, truth: Path) -> list[LawCheck]:
    """The laws in the records and radiographs of twins.

    Args:
        twins: A dataset learned from the embedded hospital.
        truth: The hospital's truth.json.
    """
    events = pa.concat_tables([_slim(table) for table in twins.iter_events()])
    implied = read_json(truth)["expected"]["hba1c_at_start"]["difference"]
    return [
        _difference_of_a1c(events, implied["mean"]),
        _count("men with a code of pregnancy", _pregnant_men(events)),
        _count("events after death", _after_death(events)),
        *_picture_laws(twins, events),
    ]


def _slim(table: pa.Table) -> pa.Table:
    return table.select(["subject_id", "time", "code", "numeric_value", "parent_id"])


def _count(law: str, number: int) -> LawCheck:
    return LawCheck(law, float(number), None, None, 0.0, None, number == 0, ())


def _difference_of_a1c(events: pa.Table, truth: float) -> LawCheck:
    """First HbA1c of each subject, with diabetes by then minus without; Welch's interval.

    The interval must hold the truth and not 0: one that is wide enough for both has shown nothing.
    """
    onset = _first_times(events, codes.DIABETES)
    values = events.filter(pc.and_(pc.equal(events["code"], codes.A1C), pc.is_valid(events["numeric_value"])))
    first: dict[int, tuple[Any, float]] = {}
    for row in values.select(["subject_id", "time", "numeric_value"]).to_pylist():
        kept = first.get(row["subject_id"])
        if row["time"] is not None and (kept is None or row["time"] < kept[0]):
            first[row["subject_id"]] = (row["time"], row["numeric_value"])
    groups: dict[bool, list[float]] = {True: [], False: []}
    for subject, (time, value) in first.items():
        groups[subject in onset and onset[subject] <= time].append(value)
    law = "HbA1c with diabetes minus without, %"
    sizes = (len(groups[True]), len(groups[False]))
    if min(sizes) < MIN_GROUP:
        return LawCheck(law, float("nan"), None, None, truth, None, None, sizes)
    test = stats.ttest_ind(groups[True], groups[False], equal_var=False)
    low, high = test.confidence_interval(_LEVEL)
    difference = float(np.mean(groups[True]) - np.mean(groups[False]))
    holds = bool(low <= truth <= high and not low <= 0.0 <= high)
    return LawCheck(law, difference, float(low), float(high), truth, None, holds, sizes)


def _first_times(events: pa.Table, code: str) -> dict[int, Any]:
    """First time at which each subject has a code."""
    rows = events.filter(pc.and_(pc.equal(events["code"], code), pc.is_valid(events["time"])))
    table = rows.group_by("subject_id").aggregate([("time", "min")])
    return dict(zip(table["subject_id"].to_pylist(), table["time_min"].to_pylist(), strict=True))


def _pregnant_men(events: pa.Table) -> int:
    men = events.filter(pc.equal(events["code"], "GENDER//M"))["subject_id"]
    pregnant = events.filter(pc.is_in(events["code"], value_set=pa.array(_PREGNANCY)))["subject_id"]
    return len(set(men.to_pylist()) & set(pregnant.to_pylist()))


def _after_death(events: pa.Table) -> int:
    deaths = _first_times(events, DEATH)
    died = events.filter(pc.is_in(events["subject_id"], value_set=pa.array(sorted(deaths), pa.int64())))
    rows = died.select(["subject_id", "time"]).to_pylist()
    return sum(row["time"] is not None and row["time"] > deaths[row["subject_id"]] for row in rows)


def _picture_laws(twins: Dataset, events: pa.Table) -> list[LawCheck]:
    """Fixed measurements of the radiographs against what the records say."""
    rows = [row for row in twins.images().to_pylist() if row["modality"] in ("CR", "DX")]
    heart_failure = _first_times(events, codes.HEART_FAILURE)
    pixels = [open_series(twins.path / row["path"]).pixels(invert_monochrome1=True)[0] for row in rows]
    failing = [_is_known(heart_failure, row) for row in rows]
    reported = [(image, row["labels"]) for image, row in zip(pixels, rows, strict=True) if row["labels"] is not None]
    return [
        _slope("cardiothoracic ratio with heart failure", map(cardiothoracic_ratio, pixels), failing),
        _slope(
            "lung opacity with the consolidation of pneumonia, where the findings are known",
            (lung_opacity(image) for image, _ in reported),
            [codes.CONSOLIDATION in labels for _, labels in reported],
        ),
    ]


def _is_known(onset: Mapping[int, Any], row: Mapping[str, Any]) -> bool:
    since = onset.get(row["subject_id"])
    return since is not None and row["time"] is not None and since <= row["time"]


def _slope(law: str, measured: Iterable[float], present: Sequence[bool]) -> LawCheck:
    """Slope of a measurement on presence (0, 1), with its interval and one-sided p-value; what is nan is left out."""
    values, flags = np.fromiter(measured, np.float64), np.array(present, dtype=bool)
    known = np.isfinite(values)
    values, flags = values[known], flags[known]
    sizes = (int(flags.sum()), int((~flags).sum()))
    if min(sizes) < MIN_GROUP:
        return LawCheck(law, float("nan"), None, None, None, None, None, sizes)
    fit = stats.linregress(flags.astype(np.float64), values, alternative="greater")
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, len(values) - 2) * fit.stderr)
    slope = float(fit.slope)
    return LawCheck(law, slope, slope - half, slope + half, None, float(fit.pvalue), bool(fit.pvalue < 0.01), sizes)
