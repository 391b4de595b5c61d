"""The `omop` and `meds` groups of configs/export.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medtwin.core.errors import ConfigError
from medtwin.core.provenance import creation_time
from medtwin.omop.write import OmopOptions


@dataclass(frozen=True)
class OmopSettings:
    """How `to=omop` writes.

    Attributes:
        vocab: An unpacked Athena download (CONCEPT.csv, CONCEPT_RELATIONSHIP.csv); None: concept 0 with source values.
        systems: Code systems of the dataset, as its codes name them, and the vocabulary_id of each.
        gap_days: A gap longer than this ends an observation period; None: one period per person.
        details: `columns` or `observations`: what becomes of details that have no column.
        duckdb: Also one DuckDB file of all tables.
    """

    vocab: Path | None = None
    systems: Mapping[str, str] = field(default_factory=dict)
    gap_days: int | None = None
    details: Literal["columns", "observations"] = "columns"
    duckdb: bool = False

    def __post_init__(self) -> None:
        self.options()

    def options(self) -> OmopOptions:
        """How the dataset becomes OMOP, as `medtwin.omop` wants it."""
        return OmopOptions(self.vocab, dict(self.systems), self.gap_days, self.details, creation_time().date())


@dataclass(frozen=True)
class MedsSettings:
    """How `to=meds` writes.

    Attributes:
        columns: `meds`: the five of MEDS; `all`: ours too, which MEDS allows and its tools leave alone.
        details: `keep` rows `FHIR//...`, which detail an event, as codes of their own; or `drop` them. Components,
            which have clinical codes, always stay.

    Raises:
        ConfigError: If a value is none of these.
    """

    columns: Literal["meds", "all"] = "meds"
    details: Literal["keep", "drop"] = "drop"

    def __post_init__(self) -> None:
        for name, words in (("columns", ("meds", "all")), ("details", ("keep", "drop"))):
            if getattr(self, name) not in words:
                raise ConfigError(f"meds.{name} must be {' or '.join(words)}, got {getattr(self, name)!r}")
