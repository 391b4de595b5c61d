"""`medtwin validate`: every rule that a dataset directory breaks, or that FHIR or DICOM files break."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medtwin.config import settings
from medtwin.core.dataset import open_dataset
from medtwin.core.errors import ConfigError, DatasetError, OutputError, SourceError
from medtwin.core.files import write_json
from medtwin.core.findings import Finding, errors_in
from medtwin.core.sources import Reject
from medtwin.fhir.checks.documents import documents
from medtwin.fhir.reading.source import FhirSource
from medtwin.fhir.validate import Chronology, ReferenceBook, Validation
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.validate_dicom import validate_dicom

_SHOWN = 40


@dataclass(frozen=True)
class ValidateSettings:
    """The settings of configs/validate.yaml."""

    dataset: Path | None = None
    deep: bool = True
    fhir: tuple[Path, ...] | None = None
    layers: tuple[Literal["schema", "rules", "models"], ...] = ("schema", "rules")
    sample: int = 0
    references: Literal["error", "warning", "off"] = "warning"
    chronology: bool = True
    dicom: tuple[Path, ...] | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.dataset, self.fhir, self.dicom)) != 1:
            raise ConfigError("validate needs dataset=DIR or fhir=PATH or dicom=PATH, and only one of them")
        if not self.layers:
            raise ConfigError("layers must be some of schema, rules, models, got none")
        if self.sample < 0:
            raise ConfigError(f"sample must be 0 or more, got {self.sample}")


def main(config: Mapping[str, Any]) -> None:
    """Prints every finding.

    Raises:
        DatasetError: If one of them makes the dataset, a resource or a DICOM object invalid.
    """
    chosen = settings(ValidateSettings, config)
    if chosen.fhir is not None:
        validate_fhir(chosen)
    elif chosen.dicom is not None:
        validate_dicom(chosen.dicom, chosen.out)
    elif chosen.dataset is not None:
        _validate_dataset(chosen.dataset, deep=chosen.deep)


def _validate_dataset(path: Path, *, deep: bool) -> None:
    dataset = open_dataset(path)
    findings = dataset.validate(deep=deep)
    for finding in findings:
        tell(str(finding))
    if errors := errors_in(findings):
        raise DatasetError(f"{dataset.path} is not valid: {len(errors)} errors")
    num_subjects = len(dataset.subject_splits())
    tell(
        f"{dataset.path} is valid: {num_subjects:,} subjects, origin {dataset.origin}, {len(dataset.images()):,} series"
    )


def validate_fhir(chosen: ValidateSettings) -> Validation:
    """Checks FHIR files, tells what was found and writes the report.

    Raises:
        DatasetError: If a resource is not valid, or a file could not be read.
        SourceError: If nothing there is FHIR.
    """
    source = FhirSource(chosen.fhir or ())
    validation = Validation(layers=chosen.layers, sample=chosen.sample)
    if chosen.references != "off" and "rules" in chosen.layers:
        validation.book = ReferenceBook()
    chronology = _learn(source) if chosen.chronology else None
    rejects: list[Reject] = []
    for document in progress(documents(source), "validate", unit=" resources"):
        if isinstance(document, Reject):
            rejects.append(document)
            continue
        validation.add(document)
        for finding in chronology.check(document) if chronology else ():
            validation.enter(finding, finding.where.partition("/")[0])
    _enter_references(validation, chosen.references)
    if chosen.out is not None:
        _write_report(chosen.out, validation, rejects, chronology)
    _tell(validation, rejects)
    num_files = len(source.files)
    if validation.num_errors or rejects:
        raise DatasetError(
            f"{num_files} files of FHIR are not valid: {validation.num_errors:,} errors, {len(rejects):,} unreadable"
        )
    if not validation.num_resources:
        raise SourceError(f"the {num_files} files hold no resource: give a file or folder of FHIR JSON")
    tell(f"{num_files} files of FHIR are valid: {sum(validation.num_resources.values()):,} resources")
    return validation


def _learn(source: FhirSource) -> Chronology:
    chronology = Chronology()
    for document in progress(documents(source, only_lives=True), "patients and encounters", unit=" resources"):
        if isinstance(document, dict):
            chronology.learn(document)
    return chronology


def _enter_references(validation: Validation, severity: Literal["error", "warning", "off"]) -> None:
    """What the set as a whole shows. Ids that stand twice are errors; what is referred to may be in another file."""
    if validation.book is None or severity == "off":
        return
    message = "type and id must be unique"
    for kind, count in validation.book.duplicates().items():
        validation.enter(Finding("duplicate-id", message, "error", kind, count), kind)
    message = "a reference should lead to a resource of the set"
    for each in validation.book.dangling():
        first = f" (first: {', '.join(each.first)})" if each.first else ""
        finding = Finding("dangling-reference", message, severity, f"{each.place}{first}", each.count)
        validation.enter(finding, each.place)


def _write_report(path: Path, validation: Validation, rejects: list[Reject], chronology: Chronology | None) -> None:
    report = validation.to_dict()
    report["unreadable"] = [
        {"file": each.file, "line": each.line, "rule": each.rule, "reason": each.reason} for each in rejects
    ]
    if chronology is not None:
        compared, outside = chronology.num_compared, chronology.num_outside
        report["encounters"] = {
            kind: {"compared": compared[kind], "outside": outside[kind]} for kind in sorted(compared)
        }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; choose another out=") from error


def _tell(validation: Validation, rejects: list[Reject]) -> None:
    findings = validation.findings()
    for finding in _first(findings):
        tell(str(finding))
    for reject in _first(rejects):
        tell(f"error: {reject.file}:{reject.line}: {reject.reason} [{reject.rule}]")
    if validation.num_run:
        rows = [{"layer": layer, "resources": validation.num_run[layer]} for layer in sorted(validation.num_run)]
        tell_counts("checked", rows)


def _first(items: list[Any]) -> Iterable[Any]:
    yield from items[:_SHOWN]
    if len(items) > _SHOWN:
        tell(f"... and {len(items) - _SHOWN} more kinds: out=report.json lists all")
