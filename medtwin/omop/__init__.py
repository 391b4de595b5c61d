"""OMOP CDM 5.4 out, 5.3 and 5.4 in: a dataset as tables, tables as events."""

from medtwin.omop.database import write_database
from medtwin.omop.read import OmopReader, Words
from medtwin.omop.source import OmopSource, is_cdm
from medtwin.omop.vocabulary import Vocabulary, load_vocabulary
from medtwin.omop.write import Books, OmopOptions, export_omop

__all__ = [
    "Books",
    "OmopOptions",
    "OmopReader",
    "OmopSource",
    "Vocabulary",
    "Words",
    "export_omop",
    "is_cdm",
    "load_vocabulary",
    "write_database",
]
