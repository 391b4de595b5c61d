"""What every room speaks: datasets, events, images, codes, units, pseudonyms, seeds, findings, errors."""

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import MedtwinError
from medtwin.core.findings import Finding

__all__ = ["Dataset", "Finding", "MedtwinError", "open_dataset"]
