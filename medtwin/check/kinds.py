"""By kind of event (a FHIR type, or a code system): gaps between the events of a kind, and how many a subject has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Measure
from medtwin.check.findings import KindRow
from medtwin.check.marginals import Observations, ks_distance, shared_support
from medtwin.check.records import US_PER_HOUR, Records
from medtwin.check.resample import Draws, Plan, average, compare, worst
from medtwin.core.codes import DEATH

MIN_SUBJECTS = 20
"""Real subjects below which the distribution of a kind is noise."""
MAX_KINDS = 30
"""Kinds considered: those that most real subjects have. Codes that name no system are kinds of their own."""

Ints = NDArray[np.int64]

_TITLES = {
    "length_by_kind.ks": "Events of one kind per subject: mean KS distance over kinds",
    "length_by_kind.worst_ks": "Events of one kind per subject: KS distance of the worst kind",
    "gaps_by_kind.ks": "Gaps between the times of a subject with one kind: mean KS distance over kinds",
    "gaps_by_kind.worst_ks": "Gaps between the times of a subject with one kind: KS distance of the worst kind",
}


@dataclass(frozen=True)
class KindEvents:
    """The dated events of one kind.

    Attributes:
        gaps: Hours from one time with such an event to the subject's next.
        lengths: Events of the kind of every subject, 0 included.
    """

    gaps: Observations
    lengths: Observations

    @property
    def num_subjects(self) -> int:
        """Subjects with at least one."""
        return int((self.lengths.value > 0).sum())

    @property
    def mean_length(self) -> float:
        """Mean events per subject."""
        return float(np.mean(self.lengths.value)) if len(self.lengths.value) else 0.0

    @property
    def median_gap(self) -> float | None:
        """Median gap in hours; None where there is none."""
        return float(np.median(self.gaps.value)) if len(self.gaps.value) else None


def kind_events(records: Records) -> dict[str, KindEvents]:
    """The dated events by kind; birth and death, which survival tells of, are none."""
    vocabulary, steps = records.vocabulary, records.steps
    kinds = sorted(set(vocabulary.kind_names))
    number = {kind: i for i, kind in enumerate(kinds)}
    kind_of = np.array([number[kind] for kind in vocabulary.kind_names], np.int64)
    alive = records.code[steps.event] != vocabulary.codes.get(DEATH, -1)
    event, step = steps.event[alive], steps.step[alive]
    kind = kind_of[records.code[event]] if len(event) else event
    order = np.argsort(kind, kind="stable")
    bounds = np.searchsorted(kind[order], np.arange(len(kinds) + 1)).tolist()
    return {
        name: _events_of(records, step[order[start:stop]])
        for name, (start, stop) in zip(kinds, pairwise(bounds), strict=True)
        if stop > start
    }


def _events_of(records: Records, step: Ints) -> KindEvents:
    """The events of a kind that stand in these steps, ascending, one number for each event."""
    steps = records.steps
    at = np.unique(step)
    subject, time = steps.subject[at], steps.time_us[at]
    same = subject[1:] == subject[:-1]
    hours = np.diff(time)[same] / US_PER_HOUR
    everybody = np.arange(records.num_subjects)
    length = np.bincount(steps.subject[step], minlength=records.num_subjects).astype(np.float64)
    return KindEvents(
        Observations(subject[1:][same], hours, records.num_subjects),
        Observations(everybody, length, records.num_subjects),
    )


def _no_events(num_subjects: int) -> KindEvents:
    nothing = Observations(np.zeros(0, np.int64), np.zeros(0), num_subjects)
    return KindEvents(nothing, Observations(np.arange(num_subjects), np.zeros(num_subjects), num_subjects))


def kind_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[KindRow]]:
    """The measures of gaps and lengths by kind, and one row per kind that 20 real subjects have, the worst first.

    A kind whose gaps the real subjects have and no twin has is wrong altogether (KS 1).
    """
    sides = [real, synthetic, *([control] if control is not None else [])]
    found = [kind_events(side) for side in sides]
    num_codes = _num_codes(real, synthetic)
    lengths: dict[str, Draws] = {}
    gaps: dict[str, Draws] = {}
    rows: list[KindRow] = []
    for kind in _frequent_kinds(found[0]):
        of_kind = [one.get(kind) or _no_events(side.num_subjects) for one, side in zip(found, sides, strict=True)]
        lengths[kind] = _ks([one.lengths for one in of_kind], plan)
        if len(np.unique(of_kind[0].gaps.subject)) >= MIN_SUBJECTS:
            gaps[kind] = _ks([one.gaps for one in of_kind], plan)
        rows.append(
            KindRow(
                kind,
                num_codes[kind],
                of_kind[0].num_subjects,
                of_kind[1].num_subjects,
                of_kind[0].mean_length,
                of_kind[1].mean_length,
                of_kind[0].median_gap if kind in gaps else None,
                of_kind[1].median_gap if kind in gaps else None,
                lengths[kind].estimate(plan),
                gaps[kind].estimate(plan) if kind in gaps else None,
            )
        )
    measures = [*_summary("length_by_kind", lengths, plan), *_summary("gaps_by_kind", gaps, plan)]
    return measures, sorted(rows, key=lambda row: (-_worst_of(row), row.kind))


def _worst_of(row: KindRow) -> float:
    return max(row.length.value, row.gaps.value if row.gaps is not None else 0.0)


def _frequent_kinds(found: Mapping[str, KindEvents]) -> list[str]:
    often = [kind for kind, one in found.items() if one.num_subjects >= MIN_SUBJECTS]
    return sorted(often, key=lambda kind: (-found[kind].num_subjects, kind))[:MAX_KINDS]


def _num_codes(*sides: Records) -> Counter[str]:
    """Codes by kind among the dated events of some records of one vocabulary."""
    used = np.unique(np.concatenate([side.code[side.steps.event] for side in sides]))
    names = sides[0].vocabulary.kind_names
    return Counter(names[code] for code in used)


def _ks(sides: Sequence[Observations], plan: Plan) -> Draws:
    """KS distance; a control without any observation says nothing."""
    support = shared_support([side.value for side in sides])
    histograms = [side.histogram(support) for side in sides]
    control = histograms[2] if len(sides) > 2 and len(sides[2].value) else None
    return compare(plan, histograms[0], histograms[1], control, ks_distance)


def _summary(family: str, draws: Mapping[str, Draws], plan: Plan) -> list[Measure]:
    names = f"{family}.ks", f"{family}.worst_ks"
    if not draws:
        reason = f"no kind of event is borne by {MIN_SUBJECTS} real subjects" + (
            " twice" if family == "gaps_by_kind" else ""
        )
        return [Measure(name, _TITLES[name], None, 0, reason=reason) for name in names]
    every = list(draws.values())
    return [
        Measure(name, _TITLES[name], one.estimate(plan), len(every))
        for name, one in zip(names, (average(every), worst(every)), strict=True)
    ]
