"""`medtwin export to=files`: FHIR, DICOM files and CSV, each in a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError
from medtwin.core.events import EVENT_SCHEMA
from medtwin.core.output import Output
from medtwin.pipelines.export_fhir import write_fhir
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import progress

# These keep what a killed run wrote of them, series by series.
_RESUMED = {"dicom"}


def check_files(chosen: ExportSettings) -> None:
    """Refuses what the images of the dataset cannot be, before anything is made.

    Raises:
        MedtwinError: If a DICOMDIR is wanted, and there is no image, or one without a date.
    """
    if "dicom" not in chosen.formats or not chosen.dicom.dicomdir:
        return
    times = open_dataset(chosen.dataset).images()["time"]
    if not len(times):
        raise ConfigError("dicom.dicomdir=true needs images, and the dataset has none: leave it out")
    if times.null_count:
        raise ConfigError(
            f"dicom.dicomdir=true needs a date of every study, and {times.null_count} series have none: leave it out"
        )


def write_files(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, dict[str, int]]:
    """Writes each format as a stage of its own: what a killed run completed is kept."""
    writers = {"fhir": write_fhir, "dicom": _write_dicom, "csv": _write_csv}
    counts = {}
    for name in chosen.formats:
        if not output.is_done(name):
            folder = output.path / name
            if name not in _RESUMED:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            output.mark_done(name, writers[name](dataset, chosen, folder))
        counts[name] = output.result(name)
    return counts


def _write_dicom(dataset: Dataset, chosen: ExportSettings, folder: Path) -> dict[str, int]:
    """Writes the images as DICOM files."""
    from medtwin.pipelines.export_dicom import write_dicom  # pydicom takes a while to load

    return write_dicom(dataset, chosen.dicom, folder)


def _write_csv(dataset: Dataset, chosen: ExportSettings, folder: Path) -> dict[str, int]:
    """Writes events.csv, images.csv and codes.csv, with the columns of the dataset's tables."""
    num_rows = 0
    with pa_csv.CSVWriter(folder / "events.csv", EVENT_SCHEMA) as writer:
        for table in progress(dataset.iter_events(), "CSV", total=len(dataset.shards()), unit="shard"):
            writer.write_table(table)
            num_rows += len(table)
    images = dataset.images()
    labels = [None if codes is None else " | ".join(codes) for codes in images["labels"].to_pylist()]
    flat = images.set_column(images.column_names.index("labels"), "labels", pa.array(labels, pa.string()))
    pa_csv.write_csv(flat, folder / "images.csv")
    codes = dataset.codes()
    plain = [name for name in codes.column_names if not pa.types.is_nested(codes.schema.field(name).type)]
    pa_csv.write_csv(codes.select(plain), folder / "codes.csv")
    return {"event rows": num_rows, "image rows": len(images), "codes": len(codes)}
