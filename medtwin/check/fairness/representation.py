"""Whether every group of patients is among the twins as often as in the source, or in the population that is stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Estimate, Measure
from medtwin.check.fairness.frames import interval_around
from medtwin.check.fairness.groups import ONE_GROUP, Division, below_floor
from medtwin.check.fairness.settings import Fairness
from medtwin.check.fairness.shortfall import NUM_DEALS, furthest, usual_shortfalls, usual_shortfalls_of
from medtwin.check.group_rows import OF_SOURCE, OF_TARGET, FairnessRow
from medtwin.check.resample import Plan, Sums, weighted_sums
from medtwin.core.seeds import generator

SOURCE, TARGET = "fairness.representation", "fairness.target"
TITLES = {
    SOURCE: "Part of its share in the source that the group lacks which is furthest short",
    TARGET: "Part of its share in the stated population that the group lacks which is furthest short",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Cell:
    """A group of a division, and what its share should be; of the source that is unknown beforehand."""

    division: Division
    group: str
    share: float | None = None


def missing_share(real: Sums, synthetic: Sums) -> Floats:
    """The part of its share that a group lacks, (draws, groups), negative where it has more than its share.

    Args:
        real: People in all, and of each group, (draws, 1 + groups).
        synthetic: The same of the twins.

    >>> missing_share(np.array([[100.0, 50.0]]), np.array([[200.0, 60.0]])).round(3).tolist()
    [[0.4]]
    """
    shares = [side[:, 1:] / np.maximum(side[:, :1], 1e-12) for side in (real, synthetic)]
    return np.asarray(1 - shares[1] / np.maximum(shares[0], 1e-12))


def source_representation(
    divisions: Sequence[Division], plan: Plan, settings: Fairness, *, seed: int
) -> tuple[Measure, list[FairnessRow]]:
    """The groups' shares against the source, the measure of the one that is furthest short, and a row per group.

    A group is judged from the floor on of real patients, however few twins it has: that it has none is what is looked
    for. Divisions for which a target is stated are held against that instead.

    Args:
        divisions: Of reference, twins and, where there is one, control.
        plan: How subjects are drawn.
        settings: Floor and target.
        seed: Decides what chance explains.
    """
    cells = [_Cell(one, group) for one in divisions if one.name not in settings.target for group in one.groups]
    is_judged = np.array([cell.division.size(cell.group, 0) >= settings.floor for cell in cells], np.bool_)
    judged = [cell for cell, is_one in zip(cells, is_judged, strict=True) if is_one]
    if not judged:
        reason = f"no group has {settings.floor} patients" if divisions else ONE_GROUP
        return _unmeasured(SOURCE, reason, applicable=bool(cells)), _rows(cells, OF_SOURCE, settings)
    sums = weighted_sums(plan.synthetic, _indicators(judged, 1))
    missing = missing_share(weighted_sums(plan.real, _indicators(judged, 0)), sums)
    told = _told(judged, OF_SOURCE, sums[:, 1:] / sums[:, :1], missing)
    real, twins = (_indicators(cells, side)[:, 1:] > 0 for side in (0, 1))
    usual = usual_shortfalls(real, twins, settings.floor, generator(seed, "check", "fairness", "source"))
    usual = usual[is_judged]
    control = None
    if len(divisions[0].levels) > 2 and plan.control_scale is not None:
        known, other = (_indicators(judged, side).sum(axis=0, keepdims=True, dtype=np.float64) for side in (0, 2))
        control = missing_share(known, other)[0] * plan.control_scale
    return _measure(SOURCE, judged, missing, usual, control), _rows(cells, OF_SOURCE, settings, told)


def target_representation(
    divisions: Sequence[Division], plan: Plan, settings: Fairness, *, seed: int
) -> tuple[Measure, list[FairnessRow]]:
    """The groups' shares against the stated population, the measure of the one that is furthest short, and their rows.

    What chance explains is of as many people drawn at random from that population. A group that nobody should be of
    has no share to be short of, and is told of by its row.

    Args:
        divisions: Of reference, twins and, where there is one, control.
        plan: How subjects are drawn.
        settings: Floor and target.
        seed: Decides what chance explains.
    """
    if not settings.target:
        return _unmeasured(TARGET, "no population is stated", applicable=False), []
    by_name = {one.name: one for one in divisions}
    num_twins = plan.synthetic.shape[1]
    cells = []
    for division, shares in settings.target.items():
        one = by_name.get(division)
        if one is None:
            return _unmeasured(TARGET, f"the patients and the twins are all of one group of {division}"), []
        cells += [_Cell(one, group, shares.get(group, 0.0)) for group in sorted({*one.groups, *shares})]
    judged = [cell for cell in cells if (cell.share or 0.0) * num_twins >= settings.floor]
    if not judged:
        reason = f"no group would have {settings.floor} twins"
        return _unmeasured(TARGET, reason), _rows(cells, OF_TARGET, settings)
    wanted = np.array([cell.share for cell in judged], np.float64)
    sums = weighted_sums(plan.synthetic, _indicators(judged, 1))
    found = sums[:, 1:] / sums[:, :1]
    missing = 1 - found / wanted
    usual = usual_shortfalls_of(wanted, _drawn(settings, judged, num_twins, seed), num_twins)
    told = _told(judged, OF_TARGET, found, missing)
    return _measure(TARGET, judged, missing, usual), _rows(cells, OF_TARGET, settings, told)


def _drawn(settings: Fairness, judged: Sequence[_Cell], num_twins: int, seed: int) -> Floats:
    """Shares of the judged groups among people drawn from the target, (draws, groups)."""
    rng = generator(seed, "check", "fairness", "target")
    shares: dict[tuple[str, str], Floats] = {}
    for division, target in settings.target.items():
        wanted = np.array(list(target.values()), np.float64)
        drawn = rng.multinomial(num_twins, wanted / wanted.sum(), NUM_DEALS) / num_twins
        shares |= {(division, group): column for group, column in zip(target, drawn.T, strict=True)}
    return np.column_stack([shares[cell.division.name, cell.group] for cell in judged])


def _measure(
    name: str, judged: Sequence[_Cell], missing: Floats, usual: Floats, control: Floats | None = None
) -> Measure:
    """That of the group which is furthest short.

    Args:
        name: Of the measure.
        judged: The groups.
        missing: Part of its share that each lacks, as it is and of resampled people, (draws, groups).
        usual: What each may lack by chance, (groups,).
        control: What each lacks among the control, (groups,); None: there is none.
    """
    index = furthest(missing[0], usual)
    most = max(float(missing[0, index]), 0.0)
    low, high = interval_around(most, missing[1:, index])
    of_control = None if control is None else max(float(control[index]), 0.0)
    estimate = Estimate(most, max(low, 0.0), high, 0.0, float(usual[index]), of_control)
    cell = judged[index]
    return Measure(name, f"{TITLES[name]} ({cell.division.name}: {cell.group})", estimate, len(judged))


def _indicators(cells: Sequence[_Cell], side: int) -> NDArray[np.float32]:
    """(people, 1 + groups): one, and whether a person is of each group."""
    columns = [cell.division.levels[side] == cell.group for cell in cells]
    return np.column_stack([np.ones(len(columns[0])), *columns]).astype(np.float32)


def _unmeasured(name: str, reason: str, *, applicable: bool = True) -> Measure:
    return Measure(name, TITLES[name], None, 0, reason=reason, applicable=applicable)


def _told(judged: Sequence[_Cell], metric: str, shares: Floats, missing: Floats) -> list[FairnessRow]:
    """The rows of judged cells, from their shares and what is missing of them, (draws, cells) each."""
    return [_row(cell, metric, *of_cell) for cell, *of_cell in zip(judged, shares.T, missing.T, strict=True)]


def _rows(
    cells: Sequence[_Cell], metric: str, settings: Fairness, judged: Sequence[FairnessRow] = ()
) -> list[FairnessRow]:
    """A row per cell, the judged ones as they are."""
    told = {(row.division, row.group): row for row in judged}
    return [told.get((cell.division.name, cell.group)) or _unjudged(cell, metric, settings) for cell in cells]


def _row(cell: _Cell, metric: str, shares: Floats, missing: Floats) -> FairnessRow:
    division, group = cell.division, cell.group
    value = float(shares[0])
    reference = float(np.mean(division.levels[0] == group)) if cell.share is None else cell.share
    low, high = interval_around(value, shares[1:])
    gap = 1 - value / reference
    return FairnessRow(
        metric,
        division.name,
        group,
        division.size(group, 0),
        division.size(group, 1),
        value,
        max(low, 0.0),
        min(high, 1.0),
        reference,
        gap,
        *interval_around(gap, missing[1:]),
    )


def _unjudged(cell: _Cell, metric: str, settings: Fairness) -> FairnessRow:
    sizes = cell.division.size(cell.group, 0), cell.division.size(cell.group, 1)
    if cell.share is None:
        reason = below_floor(sizes[0], settings.floor)
    elif cell.share:
        reason = f"not judged: fewer than {settings.floor} twins would be of it"
    else:
        reason = "not judged: the stated population has nobody of it"
    return FairnessRow(metric, cell.division.name, cell.group, *sizes, reference=cell.share, reason=reason)
