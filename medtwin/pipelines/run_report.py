"""The page of a run: the twins beside their source, how far to trust them, and the trial simulated on them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtwin.check import GateResult
from medtwin.check.compare import reference_splits
from medtwin.core.dataset import Dataset
from medtwin.core.files import read_json
from medtwin.core.verdict import read_verdict
from medtwin.pipelines.check_report import timelines_section, verdict_section
from medtwin.pipelines.check_timelines import sample_images
from medtwin.pipelines.learned_laws import LawCheck, check_laws
from medtwin.report import Page, Section, SideBySide, Table, write_page
from medtwin.report.page import Part

NUM_IMAGES = 12
_FILES = (
    ("dataset/", "what the models learned from, in the form of docs/conventions.md"),
    ("runs/", "the trained models: config.yaml, model.ckpt, metrics.csv, TensorBoard events"),
    ("twins/", "the synthetic twins, in the same form as the dataset"),
    ("check/report.html", "every measure of the twins, with baselines and intervals"),
    ("export/fhir/", "the twins as FHIR R4"),
    ("export/dicom/", "the scans of the same twins as DICOM"),
    ("trial/report.html", "the trial in full: eligibility, bounds, operating characteristics"),
)


def write_run_report(folder: Path, dataset: Dataset, twins: Dataset) -> None:
    """Writes report.html.

    Args:
        folder: Of the run: check/, trial/, twins/counts.json, and source/truth.json where the source is the embedded
            hospital.
        dataset: What was learned.
        twins: What was made.
    """
    gates = [GateResult(**gate) for gate in read_json(folder / "check" / "findings.json")["gates"]]
    refusals = read_verdict(folder / "check").refusals()
    counts = read_json(folder / "twins" / "counts.json")
    sections: list[Section | None] = [
        timelines_section(dataset, twins),
        _images(dataset, twins),
        verdict_section(gates),
        _laws(folder / "source" / "truth.json", twins),
        _trial(folder / "trial"),
        _made(counts),
        _files(folder),
    ]
    page = Page(
        "Synthetic twins",
        "Patients who never existed, learned from "
        f"{'the embedded hospital' if dataset.origin == 'simulated' else 'the source given'}: their records, the scans "
        "that those records call for, how far both can be trusted, and a trial simulated on them.",
        [section for section in sections if section is not None],
        _summary(counts, gates),
        banner="The check lets the twins leave (profile research)."
        if not refusals
        else f"The check refuses the twins: {', '.join(refusals)}. They were not exported.",
        state="bad" if refusals else "good",
    )
    write_page(folder / "report.html", page)


def _summary(counts: Mapping[str, Any], gates: Sequence[GateResult]) -> list[tuple[str, str]]:
    passed = sum(gate.outcome == "passed" for gate in gates)
    judged = sum(gate.outcome in ("passed", "failed") for gate in gates)
    return [
        ("twins", f"{counts['twins']:,}"),
        ("events", f"{counts['events']:,}"),
        ("scans", f"{sum(counts['scans made'].values()):,}"),
        ("twins with a scan", f"{counts['twins with a scan']:,}"),
        ("gates passed", f"{passed} of {judged}"),
    ]


def _images(dataset: Dataset, twins: Dataset) -> Section | None:
    made = sample_images(twins, list(twins.splits), number=NUM_IMAGES, seed=0)
    if made is None:
        return None
    if dataset.origin != "simulated":
        return Section("Scans", ["Images of real patients are not shown: this page may leave the house."], [made])
    reference = sample_images(dataset, reference_splits(dataset)[0], number=NUM_IMAGES, seed=0)
    part: Part = made if reference is None else SideBySide("the source's images", reference, "the twins' images", made)
    return Section("Scans", ["Each image is of a patient, and shows what the patient's record says."], [part])


def _laws(truth: Path, twins: Dataset) -> Section | None:
    """What is known of the embedded hospital, and whether the twins obey it."""
    if not truth.is_file():
        return None
    rows = [_law_row(check) for check in check_laws(twins, truth)]
    columns = ["law", "twins", "95 % interval", "truth", "p (one-sided)", "n", "obeyed"]
    note = "Slopes: fixed measurements of the pixels, regressed on what the record says; no part of them is learned."
    text = "The embedded hospital obeys laws that are known exactly, so that what was learned can be told."
    return Section("Known laws", [text], [Table(columns, rows, note=note)])


def _law_row(check: LawCheck) -> list[str | int | float | None]:
    interval = "" if check.low is None or check.high is None else f"{check.low:.3g} to {check.high:.3g}"
    truth = "above 0" if check.truth is None else f"{check.truth:.3g}"
    p_value = "" if check.p_value is None else f"{check.p_value:.2g}"
    obeyed = {True: "yes", False: "no", None: "too few to tell"}[check.holds]
    estimate = None if check.estimate != check.estimate else check.estimate
    return [check.law, estimate, interval, truth, p_value, " / ".join(map(str, check.sizes)), obeyed]


def _trial(folder: Path) -> Section:
    with (folder / "operating_characteristics.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    shown = [row for row in found if row["scenario"] in ("alternative", "null") and not row["look"]]
    rows: list[list[str | int | float | None]] = [
        [
            "no effect" if row["scenario"] == "null" else f"hazard ratio {float(row['hazard_ratio']):g}",
            row["characteristic"],
            float(row["estimate"]),
            f"{float(row['low']):.4g} to {float(row['high']):.4g}",
            float(row["analytical"]) if row["analytical"] else None,
        ]
        for row in shown
    ]
    columns = ["truth", "characteristic", "simulated", "95 % Monte-Carlo interval", "by theory"]
    text = "A two-arm group-sequential trial, its patients drawn from the eligible twins. More in trial/report.html."
    return Section("The trial", [text], [Table(columns, rows)])


def _made(counts: Mapping[str, Any]) -> Section:
    rows: list[list[str | int | float | None]] = []
    for name, value in counts.items():
        if isinstance(value, Mapping):
            rows += [[f"{name}: {kind}", number] for kind, number in value.items()]
        else:
            rows.append([name, f"{value:.2%}" if isinstance(value, float) else value])
    return Section("What was made", parts=[Table(["what", "number"], rows)])


def _files(folder: Path) -> Section:
    rows: list[list[str | int | float | None]] = [[name, what] for name, what in _FILES if (folder / name).exists()]
    return Section("Where it is", parts=[Table(["beside this page", "what it is"], rows)])
