"""The settings of `medtwin export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medtwin.core.errors import ConfigError
from medtwin.dicom.remote.settings import PacsSettings
from medtwin.fhir.remote.settings import BulkSettings, ServerSettings
from medtwin.pipelines.dicom_settings import DicomSettings
from medtwin.pipelines.table_settings import MedsSettings, OmopSettings

FORMATS = ("fhir", "dicom", "csv")


@dataclass(frozen=True)
class FhirSettings:
    """The `fhir` group of configs/export.yaml."""

    form: Literal["ndjson", "collection", "transaction"] = "ndjson"
    profile: Literal["r4", "us-core-6.1"] = "r4"
    check: Literal["sample", "all", "none"] = "sample"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"fhir.workers must be 1 or more, got {self.workers}")


@dataclass(frozen=True)
class Override:
    """The `override` group: why something refused may happen all the same, and who says so."""

    reason: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class ExportSettings:
    """The settings of configs/export.yaml."""

    dataset: Path
    out: Path
    to: Literal["files", "fhir_server", "bulk_import", "dimse", "dicomweb", "omop", "meds"] = "files"
    formats: tuple[str, ...] = FORMATS
    fhir: FhirSettings = field(default_factory=FhirSettings)
    dicom: DicomSettings = field(default_factory=DicomSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    bulk: BulkSettings = field(default_factory=BulkSettings)
    pacs: PacsSettings = field(default_factory=PacsSettings)
    omop: OmopSettings = field(default_factory=OmopSettings)
    meds: MedsSettings = field(default_factory=MedsSettings)
    check: Path | None = None
    identifiers: Path | None = None
    override: Override = field(default_factory=Override)
    overwrite: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ConfigError(f"formats must be some of {', '.join(FORMATS)}, got {', '.join(unknown) or 'none'}")
