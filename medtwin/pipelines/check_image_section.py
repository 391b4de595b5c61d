"""The section of a check's page about images."""

from __future__ import annotations

from medtwin.check import Findings
from medtwin.check.compare import reference_splits
from medtwin.core.dataset import Dataset
from medtwin.pipelines.check_timelines import sample_images
from medtwin.pipelines.report_text import Cells, interval, interval_of, percent, short
from medtwin.report import Figure, Section, SideBySide, Table
from medtwin.report.comparisons import Curves, Panel, curve_multiples, histogram_multiples
from medtwin.report.page import Part

NUM_IMAGES = 12


def images_section(findings: Findings, real: Dataset, synthetic: Dataset, *, show_real: bool) -> Section | None:
    """Images side by side, their brightness and their sharpness."""
    twins = sample_images(synthetic, list(synthetic.splits), number=NUM_IMAGES, seed=0)
    if twins is None:
        return None
    parts: list[Part] = []
    if real.origin == "simulated" or show_real:
        reference = sample_images(real, reference_splits(real)[0], number=NUM_IMAGES, seed=0)
        if reference is not None:
            parts.append(SideBySide("reference images", reference, "synthetic images", twins))
    note = "" if parts else "Images of real patients are not shown (show_real=true shows them)."
    if not parts:
        parts.append(twins)
    if groups := findings.image_groups:
        panels = [
            Panel(
                f"{one.name} ({one.num_real} real, {one.num_synthetic} synthetic)",
                one.intensities.label,
                one.intensities.support,
                one.intensities.cdf_real,
                one.intensities.cdf_synthetic,
            )
            for one in groups
        ]
        parts.append(Figure(histogram_multiples(panels, columns=min(len(panels), 3)), "Brightness of pixels"))
        curves = [
            Curves(one.name, "cycles per image", "log10 power", one.frequency, one.power_real, one.power_synthetic)
            for one in groups
        ]
        note_of_spectrum = (
            "Left coarse, right fine. A synthetic curve that falls below is too smooth; one that stays above is too "
            "noisy. Larger images were averaged down to the smaller size first."
        )
        parts.append(Figure(curve_multiples(curves), "Sharpness: power by spatial frequency", note_of_spectrum))
    if findings.image_labels:
        parts.append(_label_table(findings))
    if findings.image_strata:
        parts.append(_stratum_table(findings))
    parts.append(_memory_table(findings))
    return Section("Images", [note] if note else [], parts)


def _label_table(findings: Findings) -> Table:
    names = {row.code: short(row.description, 40) for row in findings.codes}
    kinds = {"tstr": "learned from twins, tested on real", "adherence": "learned from real, tested on twins"}
    rows: list[Cells] = [
        [
            names.get(row.target, row.target),
            kinds[row.kind],
            row.area,
            interval(row.low, row.high),
            row.ceiling,
            row.floor,
            row.loss.value,
            row.loss.baseline_worst,
        ]
        for row in findings.image_labels
    ]
    note = (
        "Area under the ROC curve; of age, the share of pairs in the right order. Ceiling: with real images instead of "
        "twins. Floor: what 95 % of permuted labels stay below. Lost: ceiling less area, and what real images lose."
    )
    columns = ["what is seen", "", "area", "interval", "ceiling", "floor", "lost", "real lose"]
    return Table(columns, rows, "Do images show what they should?", note)


def _memory_table(findings: Findings) -> Table:
    of_memory = [one for one in findings.measures if one.name.startswith("images.memory")]
    rows: list[Cells] = []
    for one in of_memory:
        space, estimate = one.title.rpartition(": ")[2], one.estimate
        if estimate is None:
            rows.append([space, None, one.reason, None])
        else:
            rows.append([space, estimate.value, interval_of(estimate), estimate.baseline_worst])
    note = (
        "Of how much nearer images lie to one real patient than to the next: the share that lies with training "
        "patients rather than with others, beyond their number. 0: as real images of others; 1: all. Beside it what "
        "95 % of deals of the patients to training and control stay within."
    )
    return Table(["by", "value", "interval", "chance within"], rows, "Are training images remembered?", note)


def _stratum_table(findings: Findings) -> Table:
    rows: list[Cells] = [
        [
            row.stratum,
            percent(row.share_real),
            percent(row.share_synthetic),
            None if row.intensity is None else row.intensity.value,
            None if row.intensity is None else row.intensity.baseline_worst,
            None if row.frechet is None else row.frechet.value,
            None if row.frechet is None else row.frechet.baseline_worst,
        ]
        for row in findings.image_strata
    ]
    note = (
        "A wrong mixture of views or ages is one fault, wrong images another: shares tell the first, distances within "
        "the second. Beside each distance what 95 % of real halves stay within. A dash: too few images."
    )
    columns = ["images of", "reference", "twins", "intensity", "real within", "Frechet", "real within"]
    return Table(columns, rows, "By view, sex and age", note)
