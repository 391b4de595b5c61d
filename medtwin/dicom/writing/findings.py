"""The report on a series of which files are at hand: what its labels say, on exactly those images."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.dataset import FileDataset

from medtwin.core.errors import DatasetError
from medtwin.dicom.values import quiet
from medtwin.dicom.writing.derived import Maker
from medtwin.dicom.writing.encode import READ_ERRORS
from medtwin.dicom.writing.report import labels_to_report


class Finding(NamedTuple):
    """A label `SYSTEM//code`, and its words, where they are known."""

    code: str
    meaning: str | None


def report_of(images: Sequence[Path], findings: Sequence[Finding], time: datetime | None = None) -> FileDataset | None:
    """A structured report (TID 1500) on the images of a series; None where neither they nor `time` give it a date.

    Args:
        images: The files, all of one series; their pixels are not read.
        findings: What is present; empty: nothing was found.
        time: When that was said, of images without a date.

    Raises:
        DatasetError: If a file cannot be read.
    """
    try:
        with quiet():
            sources = [pydicom.dcmread(image, stop_before_pixels=True) for image in images]
    except READ_ERRORS as error:
        name = "/".join(images[0].parts[-3:-1])
        raise DatasetError(f"{name} cannot be read as DICOM ({type(error).__name__})") from error
    if time is None and not any(sources[0].get(f"{name}Date") for name in ("Content", "Series", "Study")):
        return None
    meanings = {code: meaning for code, meaning in findings if meaning}
    maker = Maker(description="findings", time=time)
    return labels_to_report(sources, [code for code, _ in findings], meanings=meanings, maker=maker)
