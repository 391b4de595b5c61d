"""Usefulness of twins for a prediction task: reads the datasets, measures, and makes the report's section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path

from medtwin.check.compare import reference_splits
from medtwin.check.disclosure import shareable_groups
from medtwin.check.estimates import Measure
from medtwin.check.options import DEFAULT_OPTIONS, Options
from medtwin.check.records import Vocabulary, read_records
from medtwin.check.tasks import Labels, Task, read_labels
from medtwin.check.utility import NUM_SEEDS, Watch, utility_findings
from medtwin.check.utility_rows import UtilityFindings, UtilityRow, shareable_sides
from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.pipelines.report_text import FEW, Cells
from medtwin.report import Figure, Section, Table
from medtwin.report.arm_plots import ArmPanel, arm_plot
from medtwin.report.page import Part

NUM_IMPORTANCES = 12
_SCORES = {
    "auroc": "AUROC",
    "auprc": "average precision",
    "calibration_slope": "calibration slope",
}


def measure_utility(
    real: Dataset,
    synthetics: Sequence[Dataset],
    task: Task,
    options: Options = DEFAULT_OPTIONS,
    *,
    watch: Watch = lambda stages: stages,
) -> UtilityFindings:
    """Everything that is measured of one task.

    The train split of `real` is what twins are compared with, its held_out split the test; tuning, which the generator
    has seen, is the test only where there is no held_out.

    Args:
        real: What the twins were learned from.
        synthetics: Twins of the same generator, one dataset per seed; all splits.
        task: The rule of prediction times and labels.
        options: Seed, resamples of test subjects, divisions of subjects, and from how many on a group is judged.
        watch: Wraps the names of the stages; a place for a progress bar.

    Raises:
        DatasetError: If `real` has no test split, or its label file is none.
    """
    training, others = reference_splits(real)
    test = "held_out" if "held_out" in others else next(iter(others), None)
    if test is None:
        raise DatasetError(
            f"real={real.path} must have a held_out split: a task needs patients that the generator has not seen"
        )
    vocabulary = Vocabulary()
    sides = read_records(real, vocabulary, training), read_records(real, vocabulary, [test])
    twins = [read_records(one, vocabulary, list(one.splits)) for one in synthetics]
    labels, note = _labels(real, task)
    found = utility_findings(task, sides, twins, options, labels=labels, watch=watch)
    notes = [*found.notes, *([note] if note else [])]
    if test != "held_out":
        notes.append(f"tested on the split {test}, which the generator may have seen: there is no held_out")
    found = replace(found, task=without_path(task), notes=tuple(notes))
    if real.origin != "real":
        return found
    return replace(found, sides=shareable_sides(found.sides), groups=shareable_groups(found.groups))


def without_path(task: Task) -> Task:
    """The task with its label file by its last name: what is written leaves the machine."""
    return task if task.labels is None else replace(task, labels=Path(task.labels).name)


def _labels(real: Dataset, task: Task) -> tuple[Labels | None, str]:
    """The label file of a task, or why there is none."""
    if task.labels is None:
        return None, ""
    path = Path(task.labels)
    if not path.is_absolute():
        path = real.path / path
        if not path.exists():
            return None, f"the real dataset has no {task.labels} to compare the rule with"
    return read_labels(path), ""


def utility_section(findings: UtilityFindings, descriptions: Mapping[str, str] | None = None) -> Section:
    """What the report shows of one task: the arms, what is lost, what matters to the models, hazard ratios.

    Args:
        findings: Of `measure_utility`.
        descriptions: Texts of codes.
    """
    texts = descriptions or {}
    task = findings.task
    text = [
        f"{task.title}. A model learned from twins is tested on real patients that nothing has seen, beside one that "
        "learned from as many real patients (the ceiling) and one that learned from permuted labels (the floor). "
        f"Labels and features come from every timeline by the same rule. Source of the task: {task.source}."
    ]
    if findings.agreement is not None and findings.agreement.num_compared:
        one = findings.agreement
        text.append(
            f"Of {one.num_compared:,} labels of the label file that the rule gives as well, {one.share:.2%} are equal; "
            f"of the rule's {one.num_times:,} prediction times the file has {one.num_times_in_file:,}."
        )
    if findings.reason:
        text.append(f"Not measured: {findings.reason}.")
    text += [f"{note[0].upper()}{note[1:]}." for note in findings.notes]
    parts: list[Part] = []
    if findings.rows:
        parts += [_arm_figure(findings), _arm_table(findings)]
    parts += [_measure_table(findings.measures), _side_table(findings)]
    if findings.importances:
        parts.append(_importance_table(findings, texts))
    if findings.hazards:
        parts.append(_hazard_table(findings, texts))
    return Section(f"Are the twins useful? {task.title}", text, parts)


def _arms(findings: UtilityFindings) -> dict[str, str]:
    return {row.arm: row.title for row in findings.rows}


def _arm_figure(findings: UtilityFindings) -> Figure:
    arms = _arms(findings)
    table = {(row.arm, row.model, row.score): row for row in findings.rows}
    models = list(dict.fromkeys(row.model for row in findings.rows))
    panels = []
    for score in ("auroc", "auprc"):
        values = {model: [_triple(table.get((arm, model, score))) for arm in arms] for model in models}
        panels.append(ArmPanel(_SCORES[score], values, {"chance": 0.5} if score == "auroc" else {}))
    note = "Trained on what the line says. 95 % intervals: patients resampled, and the spread between generator seeds."
    return Figure(arm_plot(list(arms.values()), panels), "How well models predict", note, "scores by training data")


def _triple(row: UtilityRow | None) -> tuple[float, float, float] | None:
    if row is None or row.value is None or row.low is None or row.high is None:
        return None
    return row.value, row.low, row.high


def _arm_table(findings: UtilityFindings) -> Table:
    table = {(row.arm, row.score): row for row in findings.rows if row.model == findings.best}
    rows: list[Cells] = []
    for arm, title in _arms(findings).items():
        if (first := table.get((arm, "auroc"))) is None:
            continue
        auroc, auprc, slope = (_with_interval(table[arm, score]) for score in _SCORES)
        rows.append([title, first.num_subjects, first.num_positive, auroc, _difference(first), auprc, slope])
    first_score, *others = _SCORES.values()
    columns = ["trained on", "patients", "positive", first_score, "AUROC gained", *others]
    note = (
        f"The classifier that real training data prefer: {findings.best}; both, and calibration in the large, are in "
        "tables/utility.csv. Gained: against the ceiling, or against the same share of real patients without twins, on "
        "the same test patients. The twins were learned from all training patients: a gain over a share of them is no "
        "sign that so few are enough. "
        f"Spread between generator seeds is in the intervals from two seeds on; {NUM_SEEDS} are needed to trust it."
    )
    return Table(columns, rows, "Trained on one, tested on the other", note)


def _with_interval(row: UtilityRow) -> str | None:
    if row.value is None or row.low is None or row.high is None:
        return None
    return f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})"


def _difference(row: UtilityRow) -> str | None:
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return None
    return f"{row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f})"


def _measure_table(measures: Sequence[Measure]) -> Table:
    rows: list[Cells] = []
    for one in measures:
        if (e := one.estimate) is None:
            rows.append([one.title, None, one.reason, None, None])
            continue
        rows.append([one.title, e.value, f"{e.low:.3g} to {e.high:.3g}", e.baseline, e.baseline_worst])
    columns = ["measure", "value", "interval", "real against real", "95 % of real within"]
    note = (
        "Real against real: models of two random halves of the real training patients. Rank correlations and shares "
        "are of halves as they are, differences of scores are scaled to the sizes compared."
    )
    return Table(columns, rows, "Twins against real", note)


def _side_table(findings: UtilityFindings) -> Table:
    counts = ("num_subjects", "num_eligible", "num_rows", "num_positive")
    left_out = ("no_anchor", "record_over", "already_happened", "unknown", "not_drawn")
    rows: list[Cells] = [
        [side.side, *(FEW if (n := getattr(side, name)) is None else n for name in (*counts, *left_out))]
        for side in findings.sides
    ]
    columns = [
        "", "patients", "eligible", "predictions", "positive", "without the start", "record over", "had it already",
        "outcome unknown", "not drawn",
    ]  # fmt: skip
    return Table(columns, rows, "Who is predicted for")


def _importance_table(findings: UtilityFindings, texts: Mapping[str, str]) -> Table:
    ordered = sorted(findings.importances, key=lambda row: -max(row.real, row.synthetic))[:NUM_IMPORTANCES]
    rows: list[Cells] = [[texts.get(row.code, row.code), f"{row.real:.4f}", f"{row.synthetic:.4f}"] for row in ordered]
    note = "The fall of AUROC on real test patients when what a code says is dealt anew among them."
    return Table(["code", "model of real", "model of twins"], rows, "What the models look at", note)


def _hazard_table(findings: UtilityFindings, texts: Mapping[str, str]) -> Table:
    rows: list[Cells] = []
    for row in findings.hazards:
        mine = _ratio(row.real, row.real_low, row.real_high)
        theirs = _ratio(row.synthetic, row.synthetic_low, row.synthetic_high)
        overlap = None if row.overlap is None else f"{row.overlap:.0%}"
        difference = None if row.difference is None else f"{row.difference:+.2f}"
        rows.append([texts.get(row.covariate, row.covariate), mine, theirs, difference, overlap, row.reason])
    columns = ["covariate", "real", "twins", "difference in SE", "overlap of intervals", ""]
    note = "Cox regression from the first prediction on, all covariates together, per real standard deviation."
    return Table(columns, rows, "Hazard ratios", note)


def _ratio(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None or low is None or high is None:
        return None
    return f"{exp(value):.2f} ({exp(low):.2f} to {exp(high):.2f})"


def utility_tables(findings: UtilityFindings) -> Mapping[str, Sequence[object]]:
    """Rows for tables/*.csv by name."""
    return {
        "utility": findings.rows,
        "utility_sides": findings.sides,
        "utility_importance": findings.importances,
        "utility_hazards": findings.hazards,
        "utility_groups": findings.groups,
    }
