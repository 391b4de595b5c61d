"""What every room speaks: datasets, events, images, codes, units, pseudonyms, seeds, findings, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtwin.core.dataset import Dataset, open_dataset
    from medtwin.core.errors import MedtwinError
    from medtwin.core.findings import Finding

__all__ = ["Dataset", "Finding", "MedtwinError", "open_dataset"]

# Resolved on first use: `medtwin --help` reads medtwin.core.errors and must not wait for pyarrow.
_HOME = {"Dataset": "dataset", "open_dataset": "dataset", "MedtwinError": "errors", "Finding": "findings"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
