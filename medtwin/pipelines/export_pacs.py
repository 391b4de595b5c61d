"""`medtwin export to=dimse` and `to=dicomweb`: the images of a dataset, sent to a PACS."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError, DatasetError, OutputError
from medtwin.core.output import Output
from medtwin.dicom.network import Sender, SendReport, check_pacs, write_failures
from medtwin.pipelines.export_dicom import dicom_files
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import progress

_REJECTED = "rejected/rejected.csv"
_STAGE = "dicom"


def check_dimse(chosen: ExportSettings) -> None:
    """Refuses settings and a PACS that cannot be used, before anything is made: C-ECHO.

    Raises:
        MedtwinError: If the PACS is not named, cannot be reached, or rejects us.
    """
    if chosen.pacs.host is None:
        raise ConfigError("pacs.host=... is required: where the PACS listens for associations")
    check_pacs(chosen.pacs, "dimse")


def check_dicomweb(chosen: ExportSettings) -> None:
    """Refuses settings and a server that cannot be used, before anything is made: QIDO-RS for one study.

    Raises:
        MedtwinError: If the server is not named, cannot be reached, or is no DICOMweb server.
    """
    if chosen.pacs.url is None:
        raise ConfigError(
            "pacs.url=... is required: the DICOMweb base of the server, such as https://pacs.example.org/dicom-web"
        )
    check_pacs(chosen.pacs, "dicomweb")


def write_dimse(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, int]:
    """Sends the images by C-STORE; see `write_dicomweb`."""
    return _send(dataset, chosen, output, "dimse")


def write_dicomweb(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, int]:
    """Sends the images by STOW-RS; what a killed or stopped run sent is not sent again.

    The output keeps `journal.jsonl`, which says what became of each object, and `rejected/rejected.csv`, where the PACS
    refused something; the objects themselves do not stay.

    Args:
        dataset: Whose images.
        chosen: The settings; those of the PACS are its group `pacs`, those of the files its group `dicom`.
        output: The directory in the making.

    Returns:
        Objects by what became of them.

    Raises:
        MedtwinError: If the PACS cannot be used, or refuses objects and allow_failures is not set.
    """
    return _send(dataset, chosen, output, "dicomweb")


def _send(dataset: Dataset, chosen: ExportSettings, output: Output, by: Literal["dimse", "dicomweb"]) -> dict[str, int]:
    pacs = chosen.pacs
    scratch = output.scratch(_STAGE)
    paths = progress(dicom_files(dataset, chosen.dicom, scratch), "DICOM", unit="file")
    files = [(path, _name(path, (dataset.path, scratch))) for path in paths]
    if not files:
        raise DatasetError(f"{dataset.path} has no images to send")
    with Sender(files, pacs, by, output.path / "journal.jsonl") as sender:
        try:
            _follow(sender.steps(), "sending", len(sender))
            if pacs.verify:
                _follow(sender.verify(), "asking for", len(sender))
        finally:
            report = sender.report()
            _write_rejected(output.path / _REJECTED, report)
    if report.failures and not pacs.allow_failures:
        raise OutputError(
            f"{len(report.failures):,} objects are not in the PACS: {output.path / _REJECTED} says which and why. The "
            "same command tries them again, and nothing else; pacs.allow_failures=true finishes without them"
        )
    return {**report.counts, "sent or asked again": report.num_retries}


def _follow(steps: Iterable[int], what: str, total: int) -> None:
    one_by_one = (number for step in steps for number in range(step))
    for _ in progress(one_by_one, what, total=total, unit="object"):
        pass


def _name(path: Path, roots: Iterable[Path]) -> str:
    """A file as messages call it: relative to the dataset, or to where it was converted."""
    return next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), path.name)


def _write_rejected(path: Path, report: SendReport) -> None:
    if report.failures:
        write_failures(path, report.failures)
    else:
        shutil.rmtree(path.parent, ignore_errors=True)
