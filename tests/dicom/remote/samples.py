"""Objects to send: made by pydicom alone, marked as synthetic, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from medtwin.dicom.network import files_below
from tests.dicom.samples import ROOT, ct, pixels, save

NAME = "Müller^Zoë"


def write_objects(folder: Path, count: int, *, per_series: int = 50, marked: bool = True, edge: int = 16) -> Path:
    """CT slices of one study in series of some, with their pixels 100 * index + 0, 1, 2 ..."""
    for index in range(count):
        series = index // per_series
        values = (pixels(index % 300, (edge, edge)) + series).astype(np.int16)
        more = {"SyntheticData": "YES"} if marked else {}
        dataset = ct(
            index,
            values,
            syntax=ExplicitVRLittleEndian,
            SpecificCharacterSet="ISO_IR 192",
            PatientName=NAME,
            StudyInstanceUID=f"{ROOT}.77",
            SeriesInstanceUID=f"{ROOT}.77.{series + 1}",
            SOPInstanceUID=f"{ROOT}.77.{series + 1}.{index + 1}",
            **more,
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        save(folder / f"s{series}" / f"{index:04d}.dcm", dataset)
    return folder


def listed(folder: Path) -> list[tuple[Path, str]]:
    """The files as a sender takes them."""
    return files_below(folder)
