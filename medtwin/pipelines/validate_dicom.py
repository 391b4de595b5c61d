"""`medtwin validate dicom=`: every rule that DICOM files break, one by one and together."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from medtwin.core.errors import DatasetError, OutputError, SourceError
from medtwin.core.files import atomic_file, write_json
from medtwin.core.findings import Finding
from medtwin.dicom.validate import FolderValidation, dicom_files
from medtwin.pipelines.say import progress, tell, tell_counts

_SHOWN = 40
_HEADER = ("file", "severity", "rule", "message", "count")


class _Rows(Protocol):
    def writerow(self, row: Sequence[object], /) -> object: ...


def validate_dicom(paths: Sequence[Path], out: Path | None = None) -> FolderValidation:
    """Checks DICOM files, tells what was found and writes the report.

    Args:
        paths: Folders or files.
        out: A report to write: `.csv` has a row for each finding of each file, anything else is JSON with each kind of
            finding once.

    Raises:
        DatasetError: If a file is not valid, or could not be read.
        SourceError: If there is nothing, or nothing of it is DICOM.
        OutputError: If the report cannot be written.
    """
    validation = FolderValidation()
    with _report_rows(out) as rows:
        for path in paths:
            head = f"{path.name}/" if len(paths) > 1 and path.is_dir() else ""
            for file, name in progress(dicom_files(path), "validate", unit=" files"):
                _enter(rows, validation.add(file, head + name))
        _enter(rows, validation.finish())
        for reject in validation.rejects:
            rows.writerow((reject.file, "error", reject.rule, reject.reason, 1))
    if out is not None and out.suffix.lower() != ".csv":
        _write_summary(out, validation)
    _tell(validation)
    num_objects = sum(validation.num_objects.values())
    if validation.num_errors or validation.rejects:
        raise DatasetError(
            f"{num_objects:,} objects of DICOM are not valid: {validation.num_errors:,} errors, "
            f"{len(validation.rejects):,} unreadable"
        )
    if not num_objects:
        raise SourceError("no file there is DICOM: name the folder that holds the files")
    tell(f"{num_objects:,} objects of DICOM are valid")
    return validation


def _enter(rows: _Rows, findings: Sequence[Finding]) -> None:
    for each in findings:
        rows.writerow((each.where, each.severity, each.rule, each.message, each.count))


class _Nothing:
    def writerow(self, row: Sequence[object], /) -> None:
        """Takes a row and forgets it."""


@contextmanager
def _report_rows(out: Path | None) -> Iterator[_Rows]:
    """What takes the rows of a .csv report, which appears when it is whole; or what forgets them."""
    if out is None or out.suffix.lower() != ".csv":
        yield _Nothing()
        return
    try:
        with atomic_file(out, "w") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            yield writer
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}; choose another out=") from error


def _write_summary(out: Path, validation: FolderValidation) -> None:
    report: dict[str, Any] = {
        "objects": dict(sorted(validation.num_objects.items())),
        "ignored_files": validation.num_ignored,
        "dicomdir_files": validation.num_media,
        "errors": validation.num_errors,
        "findings": [
            {
                "severity": each.severity,
                "rule": each.rule,
                "message": each.message,
                "count": each.count,
                "files": validation.num_files[each.rule, each.severity, each.message],
                "first": each.where,
            }
            for each in validation.findings()
        ],
        "unreadable": [{"file": each.file, "rule": each.rule, "reason": each.reason} for each in validation.rejects],
    }
    try:
        write_json(out, report)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}; choose another out=") from error


def _tell(validation: FolderValidation) -> None:
    findings = validation.findings()
    for finding in findings[:_SHOWN]:
        tell(str(finding))
    for reject in validation.rejects[:_SHOWN]:
        tell(f"error: {reject.file}: {reject.reason} [{reject.rule}]")
    left = max(len(findings) - _SHOWN, 0) + max(len(validation.rejects) - _SHOWN, 0)
    if left:
        tell(f"... and {left} more: out=report.csv lists all")
    rows = [{"iod": iod, "objects": count} for iod, count in sorted(validation.num_objects.items())]
    tell_counts("checked", rows)
    if validation.num_ignored or validation.num_media:
        tell(f"{validation.num_ignored:,} other files and {validation.num_media:,} DICOMDIR were passed over")
