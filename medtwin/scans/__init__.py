"""Images: MONAI loading, the U-Net diffusion model, its Lightning module, samplers, generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtwin.scans.conditions import ScanRequest
    from medtwin.scans.generate import GeneratedScan, ScanModel

__all__ = ["GeneratedScan", "ScanModel", "ScanRequest"]

# Resolved on first use: a request needs neither torch nor MONAI.
_HOME = {"ScanRequest": "conditions", "ScanModel": "generate", "GeneratedScan": "generate"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
