"""Datasets into files, each whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.filereader import read_file_meta_info

from medtwin.core.errors import DatasetError
from medtwin.dicom.values import quiet
from medtwin.dicom.writing.encode import READ_ERRORS
from medtwin.dicom.writing.secondary import to_secondary_capture
from medtwin.dicom.writing.study import Patient, Study
from medtwin.dicom.writing.syntaxes import TRANSFER_SYNTAXES, LossError, compress, require_codec
from medtwin.dicom.writing.volume import Volume, volume_to_files


def write_series(folder: Path, datasets: Iterable[FileDataset]) -> list[Path]:
    """Writes datasets as `<index:04d>.dcm`, each file whole or not at all; gives their paths.

    Args:
        folder: Is made.
        datasets: Ready to write, such as `volume_to_datasets` or `deidentify_series` give; taken one at a time.
    """
    return _write_all(folder, map(_bytes_of, datasets))


def write_volume(folder: Path, volume: Volume, patient: Patient, study: Study) -> list[Path]:
    """Writes the slices of a volume; the same files as `write_series` of `volume_to_datasets`, several times faster.

    Args:
        folder: Is made.
        volume: The pixels.
        patient: Who it is of.
        study: What it belongs to.
    """
    return _write_all(folder, volume_to_files(volume, patient, study))


def rewrite_file(source: Path, target: Path, *, iod: str = "source", transfer_syntax: str) -> bool:
    """Writes an image of a dataset in another class or encoding, whole or not at all.

    Args:
        source: A file that we wrote, of one grey frame.
        target: Where to; its folder is there.
        iod: `source`, or `sc` for Secondary Capture.
        transfer_syntax: A name of `TRANSFER_SYNTAXES`.

    Returns:
        Whether it has that transfer syntax; else its pixels cannot be encoded so without loss, and it is of Explicit VR
        Little Endian.

    Raises:
        ConfigError: If the encoder is not installed.
        DatasetError: If the file is missing or cannot be read.
    """
    require_codec(transfer_syntax)
    try:
        with quiet():
            content, is_encoded = _rewritten(source, iod, transfer_syntax)
    except READ_ERRORS as error:
        raise DatasetError(
            f"{_name_of(source)} cannot be written as DICOM ({type(error).__name__}): it must be a file that medtwin "
            "wrote; make the dataset again"
        ) from error
    _place(target, content)
    return is_encoded


def _rewritten(source: Path, iod: str, transfer_syntax: str) -> tuple[bytes | Path, bool]:
    """The bytes of the file, or the file that has them, and whether they are encoded as wanted."""
    if iod == "source" and read_file_meta_info(source).get("TransferSyntaxUID") == TRANSFER_SYNTAXES[transfer_syntax]:
        return source, True
    dataset = pydicom.dcmread(source)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    if iod == "sc":
        dataset = to_secondary_capture(dataset)
    try:
        compress(dataset, transfer_syntax)
    except LossError:
        return _bytes_of(dataset), False
    return _bytes_of(dataset), True


def has_syntax(path: Path, transfer_syntax: str) -> bool:
    """Whether a file has a transfer syntax, a name of `TRANSFER_SYNTAXES`.

    Raises:
        DatasetError: If the file is missing or is not DICOM.
    """
    try:
        with quiet():
            return bool(read_file_meta_info(path).get("TransferSyntaxUID") == TRANSFER_SYNTAXES[transfer_syntax])
    except READ_ERRORS as error:
        raise DatasetError(f"{_name_of(path)} cannot be read as DICOM ({type(error).__name__})") from error


def _name_of(path: Path) -> str:
    """A file by its last folders, without its place on this machine."""
    return "/".join(path.parts[-3:])


def _bytes_of(dataset: FileDataset) -> bytes:
    buffer = BytesIO()  # pydicom writes element by element, which is slow on a file
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _write_all(folder: Path, files: Iterable[bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, content in enumerate(files):
        path = folder / f"{index:04d}.dcm"
        _place(path, content)
        paths.append(path)
    return paths


def _place(path: Path, content: bytes | Path) -> None:
    """Puts bytes, or those of a file, at a path in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if isinstance(content, Path):
            shutil.copyfile(content, partial)
        else:
            partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
