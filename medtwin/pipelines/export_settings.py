"""The settings of `medtwin export`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medtwin.core.errors import ConfigError

FORMATS = ("fhir", "dicom", "csv")


@dataclass(frozen=True)
class FhirSettings:
    """The `fhir` group of configs/export.yaml."""

    form: Literal["ndjson", "collection", "transaction"] = "ndjson"
    check: Literal["sample", "all", "none"] = "sample"


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
    to: Literal["files", "fhir_server", "bulk_import", "omop", "meds"] = "files"
    formats: tuple[str, ...] = FORMATS
    fhir: FhirSettings = field(default_factory=FhirSettings)
    server: Mapping[str, Any] = field(default_factory=dict)
    bulk: Mapping[str, Any] = field(default_factory=dict)
    omop: Mapping[str, Any] = field(default_factory=dict)
    meds: Mapping[str, Any] = field(default_factory=dict)
    check: Path | None = None
    override: Override = field(default_factory=Override)
    overwrite: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ConfigError(f"formats must be some of {', '.join(FORMATS)}, got {', '.join(unknown) or 'none'}")
