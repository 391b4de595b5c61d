"""Reads folders of DICOM files: every file is part of a series, or in the ledger with a reason."""

from __future__ import annotations

from pathlib import Path

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger, Reject
from medtwin.dicom.reading.faults import NotDicomError, NotImageError, UnfitError
from medtwin.dicom.reading.headers import Colour, ImageFile, read_image_file
from medtwin.dicom.reading.media import DICOM_SUFFIXES, find_files, has_dicom
from medtwin.dicom.reading.series import Series
from medtwin.dicom.reading.stacks import stack_series

__all__ = ["KIND", "has_dicom", "open_series", "read_folder"]

KIND = "DICOM"


def read_folder(folder: Path, ledger: Ledger, colour: Colour = "refuse", scratch: Path | None = None) -> list[Series]:
    """The image series below a folder, whatever its files are called, sorted by patient, study, series and part.

    Counts images in the ledger, kind `DICOM`: `read` every DICOM file, and each frame of a multi-frame file that is
    read; `rejected` those that are corrupt or cannot be carried, `not_carried` objects without an image. Those that are
    in a series are for the caller to count as `carried`. Flags begin with `DICOM.`; other files are counted by the flag
    `DICOM.ignored-file`.

    Args:
        folder: The source.
        ledger: Takes the counts.
        colour: `refuse` rejects colour images; `grey` reads them as their luminance.
        scratch: Folder to unpack zip archives into, needed as long as the pixels are; None leaves them packed.

    Raises:
        SourceError: If the folder does not exist.
        ValueError: If `colour` is another word.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder: name the folder that holds the DICOM files")
    if colour not in ("refuse", "grey"):
        raise ValueError(f"colour must be refuse or grey, got {colour!r}")
    images: list[ImageFile] = []
    seen: set[str] = set()
    for path, file in find_files(folder, ledger, scratch):
        try:
            found = _read_file(path, file, ledger, colour)
            if found and found[0].instance.sop_uid in seen:
                raise UnfitError("duplicate-instance", "another file has the same SOPInstanceUID: the first is kept")
        except UnfitError as error:
            ledger.reject(Reject(file, 0, KIND, error.rule, str(error)))
            continue
        ledger.read[KIND] += max(len(found) - 1, 0)
        images += found
        seen.update(image.instance.sop_uid for image in found)
        for image in found:
            ledger.flags.update({f"{KIND}.{name}": count for name, count in image.flags.items() if count})
    series = stack_series(images)
    for one in series:
        ledger.flags.update(f"{KIND}.{finding.rule}" for finding in one.findings)
    return series


def open_series(folder: Path) -> Series:
    """The one series that a folder of a dataset holds.

    Raises:
        SourceError: If a file in it cannot be read, or it holds no series or several.
    """
    ledger = Ledger()
    series = read_folder(folder, ledger)
    if ledger.rejects:
        first = ledger.rejects[0]
        raise SourceError(f"{folder / first.file}: {first.reason} [{first.rule}]")
    if len(series) != 1:
        raise SourceError(f"{folder} must hold one DICOM series, got {len(series)}")
    return series[0]


def _read_file(path: Path, file: str, ledger: Ledger, colour: Colour) -> list[ImageFile]:
    """The images of a file; none where it is no DICOM file, or a DICOM object without an image."""
    found: list[ImageFile] = []
    try:
        found = read_image_file(path, file, colour)
    except NotDicomError:
        if Path(file).suffix.lower() not in DICOM_SUFFIXES:
            ledger.flags[f"{KIND}.ignored-file"] += 1
            return []
        ledger.read[KIND] += 1
        raise UnfitError("not-dicom", "the file is named like DICOM but is empty or something else") from None
    except NotImageError as error:
        ledger.not_carried[KIND] += 1
        ledger.elements_not_carried[f"{KIND}.{error}"] += 1
    except UnfitError:
        ledger.read[KIND] += 1
        raise
    ledger.read[KIND] += 1
    return found
