"""Where the files that ship with medtwin are, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def _shipped(name: str) -> Path:
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"medtwin was installed without its {name}/ folder: reinstall it")


def config_dir() -> Path:
    """The folder of Hydra configurations."""
    return _shipped("configs")


def schema_dir() -> Path:
    """The folder of JSON schemas."""
    return _shipped("schemas")
