"""The matrix of all measures and all faults: what must move does, what must not does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from medtwin.check.compare import compare_records
from medtwin.check.controls import BREAKS
from medtwin.check.estimates import Estimate, Measure
from medtwin.check.findings import CopyRow, Findings
from medtwin.check.options import DEFAULT_OPTIONS, Options
from medtwin.check.records import Records
from medtwin.core.seeds import generator

FRESH = "independent real draw"
"""No fault: other real subjects, in the place of the twins. It must move nothing."""
MARGIN = 1.5
"""A number has moved where it is beyond so many times what 95 % of real-versus-real comparisons stay within."""

Watch = Callable[[Sequence[str]], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One number under one fault.

    Attributes:
        measure, fault: Names. value, baseline_worst: As in `Estimate`, lower being better; None where not measured.
        moved: Whether it is beyond `MARGIN` times the real-versus-real value.
    """

    measure: str
    fault: str
    value: float | None
    baseline_worst: float | None
    moved: bool


def fault_matrix(
    real: Records,
    fresh: Records,
    control: Records | None = None,
    options: Options = DEFAULT_OPTIONS,
    *,
    faults: Sequence[str] = (FRESH, *BREAKS),
    watch: Watch = lambda names: names,
) -> list[Cell]:
    """Every measure of records under every fault.

    Args:
        real: The reference.
        fresh: Real subjects who are not in the reference, of the same vocabulary: they are what is broken.
        control: Further real subjects.
        options: Of the measuring. Its seed also decides the faults.
        faults: Which ones, by name.
        watch: Wraps the names of the faults; a place for a progress bar.
    """
    cells: list[Cell] = []
    for name in watch(list(faults)):
        rng = generator(options.seed, "check", "fault", name)
        broken = fresh if name == FRESH else BREAKS[name](fresh, real, rng)
        cells += cells_of(name, compare_records(real, broken, control, options))
    return cells


def cells_of(fault: str, findings: Findings) -> list[Cell]:
    """The cells of one fault."""
    return [
        *(_of_measure(fault, one) for one in findings.measures),
        *(_of_copies(fault, one) for one in findings.copies),
    ]


def _of_measure(fault: str, measure: Measure) -> Cell:
    estimate = measure.estimate
    if estimate is None:
        return Cell(measure.name, fault, None, None, False)
    if measure.better == "higher":
        estimate = estimate.complement()
    return Cell(measure.name, fault, estimate.value, estimate.baseline_worst, has_moved(estimate))


def has_moved(estimate: Estimate) -> bool:
    """Whether a number, lower being better, is beyond what real data reaches by chance.

    >>> has_moved(Estimate(0.2, 0.1, 0.3, 0.05, 0.1)), has_moved(Estimate(0.14, 0.1, 0.2, 0.05, 0.1))
    (True, False)
    """
    return estimate.value > MARGIN * max(estimate.baseline_worst, 0.0) + 1e-9


def _of_copies(fault: str, row: CopyRow) -> Cell:
    usual = max(row.baseline, row.tolerated)
    return Cell(row.name, fault, row.share, usual, row.share > MARGIN * usual + 1e-9)


def surprises(
    cells: Sequence[Cell], moves: Mapping[str, Sequence[str]], stays: Mapping[str, Sequence[str]]
) -> list[str]:
    """What is not as it must be: a measure that stays where it must move, or moves where it must not.

    Args:
        cells: Of `fault_matrix`.
        moves: The faults that must move each measure.
        stays: Those that must not.
    """
    found = []
    for cell in cells:
        if cell.fault in moves.get(cell.measure, ()) and not cell.moved:
            found.append(
                f"{cell.measure} must move under {cell.fault}, and stays: {cell.value} of {cell.baseline_worst}"
            )
        if cell.fault in stays.get(cell.measure, ()) and cell.moved:
            found.append(
                f"{cell.measure} must stay under {cell.fault}, and moves: {cell.value} of {cell.baseline_worst}"
            )
    return found
