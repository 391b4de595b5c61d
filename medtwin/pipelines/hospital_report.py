"""The page of a hospital: who is in it, its laws beside what was drawn, and its pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medtwin.core.files import read_json
from medtwin.dicom import open_series
from medtwin.report import Figure, ImageGrid, Page, Section, Table, write_page
from medtwin.report.plots import interval_plot

NUM_PICTURES = 12
_BANDS = {"18-39": (18.0, 40.0), "40-59": (40.0, 60.0), "60-85": (60.0, 86.0)}
_COURSES = ("hypertension", "diabetes", "ckd", "heart_failure", "copd", "osteoarthritis")


def write_hospital_report(folder: Path, *, is_selected: bool) -> None:
    """Writes report.html of a hospital.

    Args:
        folder: The hospital: counts.json, truth.json, subjects.parquet, dicom/.
        is_selected: Whether `keep` chose its patients: then they need not obey the laws of everybody.
    """
    counts = read_json(folder / "counts.json")
    subjects = pq.ParquetFile(folder / "subjects.parquet").read().to_pylist()
    sections = []
    if pictures := _pictures(folder):
        sections.append(Section("Pictures", ["Drawn from each patient's own thorax, with noise."], [pictures]))
    if not is_selected:
        sections.append(_laws(subjects, read_json(folder / "truth.json")))
    sections.append(_made(counts))
    page = Page(
        "The embedded hospital",
        "Simulated patients and their scans. Nobody here ever lived; what is true of them is in truth.json.",
        sections,
        [
            ("patients", f"{len(subjects):,}"),
            ("resources", f"{sum(n for name, n in counts.items() if name != 'DICOM files'):,}"),
            ("DICOM files", f"{counts.get('DICOM files', 0):,}"),
            ("died in the record", f"{sum(row['death_age'] is not None for row in subjects):,}"),
        ],
    )
    write_page(folder / "report.html", page)


def _made(counts: Mapping[str, int]) -> Section:
    rows: list[list[str | int | float | None]] = [
        [name, number] for name, number in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return Section("What was made", parts=[Table(["kind", "number"], rows)])


def _laws(subjects: Sequence[Mapping[str, Any]], truth: Mapping[str, Any]) -> Section:
    expected = truth["expected"]["prevalence_at_start"]
    figures = []
    for course in _COURSES:
        labels, shares, intervals, laws = [], [], [], []
        for sex in ("F", "M"):
            for name, (low, high) in _BANDS.items():
                group = [s for s in subjects if s["sex"] == sex and low <= s["age_at_start"] < high]
                if len(group) < 5:
                    continue
                hits = sum(_has(subject, course) for subject in group)
                labels.append(f"{'women' if sex == 'F' else 'men'} {name} (n = {len(group)})")
                shares.append(100 * hits / len(group))
                intervals.append(wilson_interval(hits, len(group)))
                laws.append(100 * expected[course][f"{sex} {name}"]["mean"])
        if labels:
            plot = interval_plot(labels, shares, intervals, laws, x_label="affected at the start of the record, %")
            figures.append(Figure(plot, course.replace("_", " "), alt=f"prevalence of {course} by sex and age"))
    text = "Each mark is what the laws imply, each line what was drawn, with its 95 % Wilson interval."
    return Section("Laws and draws", [text], figures)


def _has(subject: Mapping[str, Any], course: str) -> bool:
    onset = subject[f"{course}_onset_age"]
    return onset is not None and onset <= subject["age_at_start"]


def wilson_interval(hits: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share, in percent. Source: Wilson 1927, J Am Stat Assoc 22:209.

    >>> [round(bound, 1) for bound in wilson_interval(5, 10)]
    [23.7, 76.3]
    """
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0)


def _pictures(folder: Path) -> ImageGrid | None:
    captions = _captions(folder / "fhir")
    images: list[NDArray[np.float32]] = []
    texts: list[str] = []
    for path in sorted((folder / "dicom").glob("*/*/*"))[: 3 * NUM_PICTURES]:
        if len(images) == NUM_PICTURES:
            break
        series = open_series(path)
        pixels = series.pixels()
        images.append(pixels[len(pixels) // 2])
        header = series.header
        who = f"{header.sex}, {header.age_years or 0:.0f} years, {header.modality} {header.view or ''}".strip()
        texts.append(f"{who}: {captions.get(path.parent.name, 'no report')}")
    return ImageGrid(images, texts) if images else None


def _captions(folder: Path) -> dict[str, str]:
    """What the reports of a hospital conclude, by study UID."""
    from medtwin.hospital import DESCRIPTIONS

    studies, path = {}, folder / "ImagingStudy.ndjson"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        study = json.loads(line)
        studies[f"ImagingStudy/{study['id']}"] = study["identifier"][0]["value"].removeprefix("urn:oid:")
    captions = {}
    path = folder / "DiagnosticReport.ndjson"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        report = json.loads(line)
        codes = [concept["coding"][0]["code"] for concept in report.get("conclusionCode", [])]
        names = [DESCRIPTIONS.get(f"SNOMED//{code}", code) for code in codes]
        for reference in report.get("imagingStudy", []):
            captions[studies.get(reference["reference"], "")] = ", ".join(names)
    return captions
