"""What made a directory: verb, inputs, configuration, seed, versions, privacy measures, human decisions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from medtwin.core.errors import DatasetError
from medtwin.core.files import MANIFEST, manifest_hash, read_json, write_json
from medtwin.core.paths import schema_dir

Origin = Literal["real", "simulated", "synthetic"]
ORIGINS: tuple[Origin, ...] = ("real", "simulated", "synthetic")
PROVENANCE = "provenance.json"
_PACKAGES = ("numpy", "pyarrow", "pydicom", "fhir.resources", "torch", "monai", "lightning")


@dataclass(frozen=True)
class Input:
    """One thing that a verb read: its role and name, and the manifest hash where it was a finished directory."""

    role: str
    name: str
    manifest_sha256: str | None = None
    lineage_depth: int = 0


@dataclass(frozen=True)
class Provenance:
    """The record that stands as provenance.json in every directory (schemas/provenance.schema.json).

    Attributes:
        verb: The verb that made it.
        origin: `real`, `simulated` (the embedded hospital, Synthea) or `synthetic` (a trained model).
        config: The resolved configuration.
        seed: The seed, or None where nothing was random.
        inputs: What was read.
        lineage_depth: 0 for a source; for generated data 1 + the deepest of what it was trained on.
        privacy: What was done: pseudonym key fingerprint, date shift, ages.
        human_decisions: Overrides and signatures: who, when, why.
        training_subjects: How many subjects a run learned from, or the run that made these twins; None: not told.
    """

    verb: str
    origin: Origin
    config: Mapping[str, Any]
    seed: int | None = None
    inputs: Sequence[Input] = ()
    lineage_depth: int = 0
    privacy: Mapping[str, Any] = field(default_factory=dict)
    human_decisions: Sequence[Mapping[str, str]] = ()
    training_subjects: int | None = None


def as_origin(text: object, where: str) -> Origin:
    """The text as an origin.

    Raises:
        DatasetError: If it is none; names `where` it stands.
    """
    for origin in ORIGINS:
        if text == origin:
            return origin
    raise DatasetError(f"{where}: origin must be {', '.join(ORIGINS)}, got {text!r}")


def describe_input(role: str, path: Path) -> Input:
    """An input as provenance records it: the folder's own name, never its place on this machine.

    A folder inside a finished directory, such as the fhir/ of a hospital, is named by that directory's manifest. A
    dataset that says that it is synthetic has a lineage depth of 1 at least, whatever else is known of it.
    """
    least = int(_says_synthetic(path))
    home = next((folder for folder in (path, path.parent) if (folder / MANIFEST).is_file()), None)
    if home is None:
        return Input(role, path.resolve().name, lineage_depth=least)
    depth = int(read_json(home / PROVENANCE).get("lineage_depth", 0)) if (home / PROVENANCE).is_file() else 0
    return Input(role, path.resolve().name, manifest_hash(home), max(depth, least))


def _says_synthetic(folder: Path) -> bool:
    told = folder / "metadata" / "dataset.json"
    return told.is_file() and read_json(told).get("origin") == "synthetic"


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Writes provenance.json, checked against its schema. SOURCE_DATE_EPOCH fixes the time, for reproducible builds.

    Raises:
        DatasetError: If the record does not match the schema.
    """
    record = json.loads(json.dumps(asdict(provenance), default=str))
    if record["training_subjects"] is None:
        del record["training_subjects"]
    record.update(version=1, created=creation_time().isoformat(timespec="seconds"), software=software_versions())
    errors = list(_validator().iter_errors(record))
    if errors:
        raise DatasetError(f"provenance does not match its schema: {errors[0].json_path}: {errors[0].message}")
    write_json(folder / PROVENANCE, record)


def read_provenance(folder: Path) -> dict[str, Any]:
    """The record of a directory, checked against its schema.

    Raises:
        DatasetError: If it is missing or does not match the schema.
    """
    record = read_json(folder / PROVENANCE)
    errors = list(_validator().iter_errors(record))
    if errors:
        raise DatasetError(f"{folder / PROVENANCE}: {errors[0].json_path}: {errors[0].message}")
    return record


def training_subjects(folder: Path) -> int | None:
    """How many subjects a run learned from, or the run that made these twins; None where nobody recorded it."""
    if not (folder / PROVENANCE).is_file():
        return None
    found: int | None = read_provenance(folder).get("training_subjects")
    return found


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(read_json(schema_dir() / "provenance.schema.json"))


def creation_time() -> datetime:
    """Now, in UTC; or the time that SOURCE_DATE_EPOCH fixes, so that a build can be repeated to the byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)


def software_versions() -> dict[str, str]:
    """The versions of medtwin, of Python and of the packages that matter, as provenance records them."""
    versions = {"medtwin": _version("medtwin") or "unknown", "python": platform.python_version()}
    versions.update({name: found for name in _PACKAGES if (found := _version(name))})
    return versions


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
