"""Whether the twins of every group are as much like its patients as all other twins are like all other patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medtwin.check.attacks.table import Attributes, People, attributes_of, people_of
from medtwin.check.estimates import Measure
from medtwin.check.fairness.frames import group_and_rest, interval_around
from medtwin.check.fairness.groups import ONE_GROUP, Division, Ints, too_few
from medtwin.check.fairness.settings import Fairness
from medtwin.check.group_rows import OF_RECORDS, FairnessRow
from medtwin.check.records import Records
from medtwin.check.resample import MIN_CONTROL, Draws, Plan, Sums, compare, worst

NAME = "fairness.fidelity"
TITLE = "Standardised difference from its patients, beyond that of all others, in the group that is furthest off"
NUM_PARTS = 5
"""Parts that a number is divided into, at equal shares of the reference."""
LEAST_SHARE = 0.05
"""Differences are in standard deviations of a part with at least this share, rarer ones being all noise; attributes
that vary less are left out."""

Floats = NDArray[np.float64]
Table = NDArray[np.float32]


@dataclass(frozen=True)
class Parts:
    """How attributes become parts, decided on the reference: categories as they are, numbers in fifths.

    Attributes:
        edges: Of each attribute: bounds of the fifths, or the categories.
        is_category: (attributes,).
        variance: Of each part in the reference, (parts,). weight: Of each part, (parts,): the same in all of every
            attribute that varies.
    """

    attributes: Attributes
    edges: tuple[Floats, ...]
    is_category: NDArray[np.bool_]
    variance: Floats
    weight: Floats

    @staticmethod
    def of(real: Records) -> Parts:
        """Those of a reference."""
        attributes = attributes_of(real)
        people = people_of(real, attributes)
        edges = []
        for column, values in enumerate(people.values.T):
            known = values[~np.isnan(values)]
            if people.is_category[column]:
                edges.append(np.unique(known))
            else:
                inner = np.linspace(0, 1, NUM_PARTS + 1)[1:-1]
                edges.append(np.unique(np.quantile(known, inner)) if len(known) else known)
        parts = Parts(attributes, tuple(edges), people.is_category, np.zeros(0), np.zeros(0))
        share = parts._table(people).mean(axis=0).astype(np.float64)
        variance, least = share * (1 - share), LEAST_SHARE * (1 - LEAST_SHARE)
        width = [len(bounds) + 1 for bounds in edges]
        starts = np.cumsum([0, *width[:-1]])
        varies = np.maximum.reduceat(variance, starts) >= least
        weight = np.repeat(varies / (np.array(width) * max(int(varies.sum()), 1)), width)
        return replace(parts, variance=np.maximum(variance, least), weight=weight)

    def table(self, records: Records) -> Table:
        """Which part each subject is in, (subjects, parts), 0 or 1; in none of an attribute that is unknown."""
        return self._table(people_of(records, self.attributes))

    def _table(self, people: People) -> Table:
        columns = []
        for column, values in enumerate(people.values.T):
            bounds, known = self.edges[column], ~np.isnan(values)
            if self.is_category[column]:
                part = np.where(np.isin(values, bounds), np.searchsorted(bounds, values), len(bounds))
            else:
                part = np.searchsorted(bounds, values, side="left")
            columns.append((part[:, None] == np.arange(len(bounds) + 1)) & known[:, None])
        return np.concatenate(columns, axis=1).astype(np.float32)

    def difference(self, real: Sums, synthetic: Sums) -> Floats:
        """Root mean square of the standardised differences of the parts' shares, noise taken out, (draws,).

        What two samples of one law differ by is taken off each square, so that a small group is not blamed for being
        small; 0 where that leaves nothing.

        Args:
            real: People, and those in each part, (draws, 1 + parts).
            synthetic: The same of the twins.

        Source: Austin 2009, Stat Med 28:3083 (standardised differences of shares).
        """
        sizes = [np.maximum(side[:, :1], 2.0) for side in (real, synthetic)]
        p, q = (side[:, 1:] / size for side, size in zip((real, synthetic), sizes, strict=True))
        noise = p * (1 - p) / (sizes[0] - 1) + q * (1 - q) / (sizes[1] - 1)
        squares = ((p - q) ** 2 - noise) / self.variance
        return np.asarray(np.sqrt(np.maximum(squares @ self.weight, 0.0)))


def fidelity_by_group(
    sides: Sequence[Records], divisions: Sequence[Division], plan: Plan, settings: Fairness
) -> tuple[Measure, list[FairnessRow]]:
    """The difference of every group beside that of all others, the measure of the group that is furthest off, and rows.

    Args:
        sides: Reference, twins and, where there is one, control.
        divisions: Of these sides.
        plan: How subjects are drawn.
        settings: The floor, on both sides, of the group and of all others.
    """
    parts = Parts.of(sides[0])
    tables = [np.column_stack([np.ones(side.num_subjects, np.float32), parts.table(side)]) for side in sides]
    rows: list[FairnessRow] = []
    gaps: list[Draws] = []
    names: list[str] = []
    for division in divisions:
        for group in division.groups:
            sizes = division.size(group, 0), division.size(group, 1)
            if reason := too_few(division, group, (settings.floor, settings.floor), ("patients", "twins")):
                rows.append(FairnessRow(OF_RECORDS, division.name, group, *sizes, reason=reason))
                continue
            own, rest = (
                _compared(plan, tables, [who(group, side) for side in range(len(sides))], parts)
                for who in (division.members, division.others)
            )
            gaps.append(_less(own, rest))
            names.append(f"{division.name}: {group}")
            value, reference = _by_metric_frame(parts, tables, division, group)
            low, high = interval_around(value, own.bootstrap[1:])
            ends = interval_around(value - reference, gaps[-1].bootstrap[1:])
            numbers = value, max(low, 0.0), high, reference, value - reference, *ends
            rows.append(FairnessRow(OF_RECORDS, division.name, group, *sizes, *numbers))
    if not gaps:
        reason = f"no group has {settings.floor} patients and twins, beside as many" if divisions else ONE_GROUP
        return Measure(NAME, TITLE, None, 0, reason=reason, applicable=bool(divisions)), rows
    furthest = int(np.argmax([gap.bootstrap[0] for gap in gaps]))
    return Measure(NAME, f"{TITLE} ({names[furthest]})", worst(gaps).estimate(plan), len(gaps)), rows


def _by_metric_frame(parts: Parts, tables: Sequence[Table], division: Division, group: str) -> tuple[float, float]:
    """The difference in a group and of all others; rows are people of the reference and twins."""
    table = np.concatenate(tables[:2])
    is_twin = np.repeat([False, True], [len(tables[0]), len(tables[1])])

    def difference(rows: NDArray[np.int64], twin: NDArray[np.bool_]) -> float:
        chosen, mine = table[np.asarray(rows)], np.asarray(twin, bool)
        sums = [chosen[part].sum(axis=0, keepdims=True, dtype=np.float64) for part in (~mine, mine)]
        return float(parts.difference(sums[0], sums[1])[0])

    return group_and_rest(difference, np.arange(len(table)), is_twin, np.concatenate(division.levels[:2]) == group)


def _compared(plan: Plan, tables: Sequence[Table], members: Sequence[Ints], parts: Parts) -> Draws:
    """The difference within some people of each side, drawn as everybody is."""
    mine = replace(
        plan,
        real=plan.real[:, members[0]],
        synthetic=plan.synthetic[:, members[1]],
        half_a=plan.half_a[:, members[0]],
        half_b=plan.half_b[:, members[0]],
    )
    own = [table[which] for table, which in zip(tables, members, strict=True)]
    control = own[2] if len(own) > 2 and len(own[2]) >= MIN_CONTROL else None
    return compare(mine, own[0], own[1], control, parts.difference)


def _less(first: Draws, second: Draws) -> Draws:
    control = None if first.control is None or second.control is None else first.control - second.control
    return Draws(first.bootstrap - second.bootstrap, first.halves - second.halves, control)
