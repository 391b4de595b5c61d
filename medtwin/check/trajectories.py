"""The course of numbers, and the rate of events, around index events: admission, diagnosis, procedure, death."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Measure
from medtwin.check.findings import TrajectoryRow
from medtwin.check.labs import common_labs
from medtwin.check.records import UNDATED, US_PER_HOUR, Records
from medtwin.check.resample import Draws, Plan, Sums, average, compare, weighted_sums
from medtwin.check.values import Key, Series, num_needed, numbers, rows_by_key, series

MAX_INDEX_EVENTS = 10
"""Index events besides the start of the record."""
MAX_LABS = 15
NUM_BINS = 5
"""Stretches of time before, and as many after, an index event, with equal numbers of real values."""
MAX_REPEATS = 20
"""Times that a subject with it has a code on average, above which it is a routine and its first time no event."""
SAME = 0.9
"""Share of first times in common from which on two codes are one event: death, and discharge as dead."""
TAIL = 0.01
"""Values beyond the real 1 and 99 % quantiles are pulled in to them."""
START = "start"
ROUTINE = frozenset(
    {
        *("DiagnosticReport", "ImagingStudy", "Immunization", "MedicationAdministration", "MedicationDispense"),
        *("MedicationRequest", "MedicationStatement", "Observation", "ServiceRequest", "Specimen"),
    }
)
"""FHIR types whose first time is an index event only where conditions, procedures and encounters are too few."""
ONSET = frozenset({"Condition", "Procedure"})
"""FHIR types whose first time is an event however often they are noted again."""

_TITLES = {
    "trajectories.error": "Mean of numbers around index events: mean absolute error, real standard deviations",
    "trajectories.change": "Mean change of numbers from the subject's mean around index events: mean absolute error",
    "trajectories.events": "Events per subject around index events: mean absolute log ratio",
}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Index:
    """An index event: the number of its code, or None for the start of the record; its name; what it is."""

    code: int | None
    name: str
    title: str


@dataclass(frozen=True)
class _Scale:
    """Centre and robust standard deviation of a lab, and what its values are pulled in to."""

    centre: float
    unit: float
    low: float
    high: float

    def score(self, value: Floats) -> Floats:
        return np.asarray((np.clip(value, self.low, self.high) - self.centre) / self.unit)


@dataclass(frozen=True)
class _Side:
    """The records of one side and its labs: step, number of the lab and standardised value, (values,) each.

    change: The value less the mean of all the subject's values of the lab.
    """

    records: Records
    step: Ints
    lab: Ints
    value: Floats
    change: Floats


@dataclass(frozen=True)
class _Curves:
    """What one index event gives: the distances for every draw, by measure, and the rows."""

    draws: dict[str, Draws]
    rows: list[TrajectoryRow]


def trajectory_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan, descriptions: Mapping[str, str]
) -> tuple[list[Measure], list[TrajectoryRow]]:
    """The error of the mean course of numbers, and of the rate of events, around index events, and their curves.

    Index events are found in the real data (`index_events`). The time around each is cut into stretches with equal
    numbers of real values; in each, the mean over subjects of the subject's mean is compared, and that of its change
    from the mean of all the subject's values, which tells courses apart where levels differ much between subjects. A
    mean that one side lacks counts as one real standard deviation off.
    """
    needed = num_needed(plan)
    labs = common_labs(real, MAX_LABS, needed)
    scales = [_scale(numbers(real, row)) for row in labs.values()]
    sides = [_side(records, list(labs), scales) for records in (real, synthetic, control) if records is not None]
    names = real.vocabulary.names
    courses: list[_Curves] = []
    rates: list[_Curves] = []
    for code in index_events(real, needed):
        name = START if code is None else names[code]
        index = _Index(code, name, "start of the record" if code is None else descriptions.get(name) or name)
        starts = [first_times(side.records, code) for side in sides]
        courses += _course(index, sides, starts, plan, list(labs), scales, descriptions)
        rates += _rate(index, sides, starts, plan)
    has_steps = bool(len(real.steps.subject))
    measures = [
        _measure(name, curves, plan, is_applicable=has_steps and (bool(labs) or curves is rates))
        for name, curves in (
            ("trajectories.error", courses),
            ("trajectories.change", courses),
            ("trajectories.events", rates),
        )
    ]
    return measures, [row for curves in (*courses, *rates) for row in curves.rows]


def _measure(name: str, curves: list[_Curves], plan: Plan, *, is_applicable: bool) -> Measure:
    if not curves:
        reason = f"no stretch of time around an event has values of {num_needed(plan)} real subjects"
        return Measure(name, _TITLES[name], None, 0, "lower", reason, is_applicable)
    sizes = [len(one.rows) for one in curves]
    draws = average([one.draws[name] for one in curves], sizes)
    return Measure(name, _TITLES[name], draws.estimate(plan), sum(sizes))


def index_events(real: Records, num_needed: int) -> list[int | None]:
    """Numbers of the codes whose first time is an event worth looking around, the start of the record (None) first.

    They are dated codes without numbers of at least `num_needed` subjects, no routine (`MAX_REPEATS`), and not at the
    same times as one that more subjects have (`SAME`); conditions, procedures and encounters before requests, reports
    and drugs (`ROUTINE`), otherwise those of most subjects.
    """
    steps, num_codes = real.steps, len(real.vocabulary.codes)
    has_number = np.bincount(real.code[~np.isnan(real.value)], minlength=num_codes) > 0
    row = np.flatnonzero(~has_number[real.code[steps.event]])
    code = real.code[steps.event[row]]
    times, subjects = (
        np.bincount(np.unique(whose * num_codes + code) % num_codes, minlength=num_codes)
        for whose in (steps.step[row], steps.subject[steps.step[row]])
    )
    kinds = real.vocabulary.kind_names
    candidates = [
        one
        for one in np.flatnonzero(subjects >= max(num_needed, 1)).tolist()
        if kinds[one] in ONSET or times[one] <= MAX_REPEATS * subjects[one]
    ]
    candidates.sort(key=lambda one: (kinds[one] in ROUTINE, -subjects[one], one))
    chosen: list[int | None] = [None]
    seen = [first_times(real, None)]
    for one in candidates:
        if len(chosen) > MAX_INDEX_EVENTS:
            break
        first = first_times(real, one)
        if not any(_share_in_common(first, other) >= SAME for other in seen):
            chosen.append(one)
            seen.append(first)
    return chosen


def _share_in_common(first: Ints, second: Ints) -> float:
    """Share of the subjects with either event who have both at one time."""
    either = (first != UNDATED) | (second != UNDATED)
    return float(np.mean(first[either] == second[either])) if either.any() else 0.0


def first_times(records: Records, code: int | None) -> Ints:
    """First time of a code in microseconds, (subjects,); `UNDATED` where there is none. None: of the record."""
    steps = records.steps
    step = steps.step if code is None else steps.step[records.code[steps.event] == code]
    times = np.full(records.num_subjects, UNDATED)
    times[steps.subject[step[::-1]]] = steps.time_us[step[::-1]]  # ascending before: the first one stays
    return times


def _scale(value: Floats) -> _Scale:
    low, first, centre, third, high = np.quantile(value, [TAIL, 0.25, 0.5, 0.75, 1 - TAIL])
    unit = (third - first) / 1.349 or float(np.std(np.clip(value, low, high))) or 1.0
    return _Scale(float(centre), float(unit), float(low), float(high))


def _side(records: Records, labs: list[Key], scales: list[_Scale]) -> _Side:
    rows, none = rows_by_key(records), np.zeros(0, np.int64)
    lines = [series(records, rows.get(key, none), scale.score) for key, scale in zip(labs, scales, strict=True)]
    lab = np.repeat(np.arange(len(labs)), [len(one.step) for one in lines])
    step = np.concatenate([none, *(one.step for one in lines)])
    changes = [_change(one, records.num_subjects) for one in lines]
    values, change = (np.concatenate([np.zeros(0), *parts]) for parts in ([one.value for one in lines], changes))
    return _Side(records, step, lab, values, change)


def _change(one: Series, num_subjects: int) -> Floats:
    """The values less the subject's mean, (values,)."""
    num = np.bincount(one.subject, minlength=num_subjects)
    mean = np.bincount(one.subject, one.value, num_subjects) / np.maximum(num, 1)
    return np.asarray(one.value - mean[one.subject])


def _hours(records: Records, start: Ints) -> Floats:
    """Hours of each step from the index event of its subject, (steps,); NaN where the subject has none."""
    begin = start[records.steps.subject]
    hours = (records.steps.time_us - np.where(begin == UNDATED, 0, begin)) / US_PER_HOUR
    return np.asarray(np.where(begin == UNDATED, np.nan, hours))


def stretches(hours: Floats) -> Floats:
    """Where one stretch of time ends and the next begins, hours, ascending; the event itself, 0, begins one.

    >>> stretches(np.array([-8.0, -4.0, -2.0, 0.0, 5.0, 10.0, 15.0, 20.0, 25.0])).round(1).tolist()
    [-6.4, -4.8, -3.6, -2.8, 0.0, 5.0, 10.0, 15.0, 20.0]
    """
    share = np.linspace(0, 1, NUM_BINS + 1)[1:-1]
    parts = [np.quantile(part, share) for part in (hours[hours < 0], hours[hours >= 0]) if len(part)]
    return np.unique(np.concatenate([np.zeros(1), *parts]))


def _course(
    index: _Index,
    sides: list[_Side],
    starts: list[Ints],
    plan: Plan,
    labs: list[Key],
    scales: list[_Scale],
    descriptions: Mapping[str, str],
) -> list[_Curves]:
    """The course of all labs around one index event; nothing where there are too few values."""
    hours = [_hours(side.records, start)[side.step] for side, start in zip(sides, starts, strict=True)]
    edges = stretches(hours[0][~np.isnan(hours[0])])
    cells = [_cell_means(side, one, edges, len(labs)) for side, one in zip(sides, hours, strict=True)]
    num = [has.sum(axis=0) for _, _, has in cells]
    kept = np.flatnonzero(num[0] >= num_needed(plan))
    if not len(kept):
        return []
    draws = {}
    for name, which in (("trajectories.change", 1), ("trajectories.error", 0)):
        features = [np.column_stack([one[which][:, kept], one[2][:, kept]]) for one in cells]
        draws[name] = compare(plan, features[0], features[1], features[2] if len(features) > 2 else None, _mean_error)
    means = [_means(weighted_sums(np.ones((1, len(one)), np.float32), one))[0] for one in features[:2]]
    middles = _middles(hours[0], np.searchsorted(edges, hours[0], "right"), len(edges) + 1)
    codes, units = sides[0].records.vocabulary.names, list(sides[0].records.vocabulary.units)
    rows = []
    for cell, first, second in zip(kept.tolist(), *means, strict=True):
        (code, unit), scale = labs[cell // (len(edges) + 1)], scales[cell // (len(edges) + 1)]
        name = codes[code]
        row = TrajectoryRow(
            *(index.name, index.title, name, units[unit], descriptions.get(name) or name),
            hours=float(middles[cell % (len(edges) + 1)]),
            real=float(scale.centre + scale.unit * first),
            synthetic=None if np.isnan(second) else float(scale.centre + scale.unit * second),
            num_real=int(num[0][cell]),
            num_synthetic=int(num[1][cell]),
        )
        rows.append(row)
    return [_Curves(draws, rows)]


def _cell_means(
    side: _Side, hours: Floats, edges: Floats, num_labs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Each subject's mean value and mean change, and whether there is one, (subjects, labs * stretches) each."""
    known = np.flatnonzero(~np.isnan(hours))
    width = num_labs * (len(edges) + 1)
    where = side.lab[known] * (len(edges) + 1) + np.searchsorted(edges, hours[known], "right")
    flat = side.records.steps.subject[side.step[known]] * width + where
    size = side.records.num_subjects * width
    num = np.bincount(flat, minlength=size)
    shape = (side.records.num_subjects, width)
    mean, change = (
        (np.bincount(flat, one[known], minlength=size) / np.maximum(num, 1)).reshape(shape).astype(np.float32)
        for one in (side.value, side.change)
    )
    return mean, change, (num > 0).reshape(shape).astype(np.float32)


def _means(sums: Sums) -> Floats:
    """Means over subjects, (draws, cells), of sums of means and of their number; NaN of nobody."""
    total, num = np.split(sums, 2, axis=1)
    return np.where(num > 0, total / np.maximum(num, 1), np.nan)


def _mean_error(first: Sums, second: Sums) -> Floats:
    gap = np.abs(_means(first) - _means(second))
    return np.asarray(np.where(np.isnan(gap), 1.0, gap).mean(axis=1))


def _middles(hours: Floats, stretch: Ints, num_stretches: int) -> list[float]:
    """Median hours of each stretch; NaN where it is empty."""
    known = ~np.isnan(hours)
    hours, stretch = hours[known], stretch[known]
    order = np.argsort(stretch, kind="stable")
    parts = np.split(hours[order], np.searchsorted(stretch[order], np.arange(1, num_stretches)))
    return [float(np.median(part)) if len(part) else float("nan") for part in parts]


def _rate(index: _Index, sides: list[_Side], starts: list[Ints], plan: Plan) -> list[_Curves]:
    """Events per subject with the index event, by stretch of time; the index event itself does not count."""
    hours = [_hours(side.records, start) for side, start in zip(sides, starts, strict=True)]
    edges = stretches(hours[0][~np.isnan(hours[0])])
    counts = [_event_counts(side.records, index.code, one, edges) for side, one in zip(sides, hours, strict=True)]
    kept = np.flatnonzero((counts[0] > 0).sum(axis=0) >= num_needed(plan))
    if not len(kept):
        return []
    bearers = [(start != UNDATED).astype(np.float32) for start in starts]
    features = [np.column_stack([one[:, kept], has]) for one, has in zip(counts, bearers, strict=True)]
    draws = compare(plan, features[0], features[1], features[2] if len(features) > 2 else None, _log_ratio)
    middles = _middles(hours[0], np.searchsorted(edges, hours[0], "right"), len(edges) + 1)
    num = [int(has.sum()) for has in bearers]
    rows = [
        TrajectoryRow(
            *(index.name, index.title, "", "events", "all events"),
            hours=middles[cell],
            real=float(counts[0][:, cell].sum() / max(num[0], 1)),
            synthetic=float(counts[1][:, cell].sum() / num[1]) if num[1] else None,
            num_real=num[0],
            num_synthetic=num[1],
        )
        for cell in kept.tolist()
    ]
    return [_Curves({"trajectories.events": draws}, rows)]


def _event_counts(records: Records, code: int | None, hours: Floats, edges: Floats) -> NDArray[np.float32]:
    """Events of each subject by stretch, (subjects, stretches), without the index event itself."""
    steps = records.steps
    num = np.bincount(steps.step, minlength=len(hours)).astype(np.float64)
    if code is not None:
        own = np.bincount(steps.step[records.code[steps.event] == code], minlength=len(hours))
        num -= np.where(hours == 0, own, 0)
    known = np.flatnonzero(~np.isnan(hours))
    width = len(edges) + 1
    flat = steps.subject[known] * width + np.searchsorted(edges, hours[known], "right")
    counts = np.bincount(flat, num[known], minlength=records.num_subjects * width)
    return counts.reshape(records.num_subjects, width).astype(np.float32)


def _log_ratio(first: Sums, second: Sums) -> Floats:
    """Mean absolute log ratio of events per subject, (draws,); no event counts as half a one, nobody as one subject."""
    rates = [np.log(np.maximum(side[:, :-1], 0.5) / np.maximum(side[:, -1:], 1)) for side in (first, second)]
    return np.asarray(np.abs(rates[0] - rates[1]).mean(axis=1))
