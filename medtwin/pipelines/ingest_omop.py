"""The part of `medtwin ingest` that reads an OMOP CDM."""

from __future__ import annotations

from pathlib import Path

from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.fhir.terms import is_result_word, is_unit_word
from medtwin.omop import OmopReader, OmopSource, Words, is_cdm


def find_omop(path: Path) -> Path | None:
    """Where the CDM is: the path itself, or the folder omop/ of an export; None if there is none."""
    return next((place for place in (path, path / "omop") if is_cdm(place)), None)


def omop_reader(path: Path, pseudonyms: Pseudonyms, ledger: Ledger, vocab: Path | None) -> OmopReader:
    """A reader of a CDM; texts pass by the same closed vocabularies as those of FHIR.

    Raises:
        SourceError: If it cannot be read.
    """
    return OmopReader(OmopSource(path), pseudonyms, ledger, Words(is_result_word, is_unit_word), vocab)
