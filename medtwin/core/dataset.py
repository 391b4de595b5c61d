"""The dataset directory: open one (or a bare MEDS dataset), validate it, write one without holding it in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medtwin.core.errors import DatasetError
from medtwin.core.events import validate_events, with_all_columns
from medtwin.core.files import MANIFEST, manifest_hash, read_json, verify_manifest
from medtwin.core.findings import Finding
from medtwin.core.images import IMAGE_SCHEMA, validate_images
from medtwin.core.provenance import PROVENANCE, Origin, as_origin, read_provenance

SPLITS = ("train", "tuning", "held_out")
CODES_SCHEMA = pa.schema(
    [
        pa.field("code", pa.string()),
        pa.field("description", pa.string()),
        pa.field("parent_codes", pa.list_(pa.string())),
        pa.field("unit", pa.string()),
        pa.field("resource", pa.string()),
        pa.field("num_events", pa.int64()),
        pa.field("num_subjects", pa.int64()),
    ]
)
# Who and where events refer to, by pseudonym.
ACTORS_SCHEMA = pa.schema(
    [
        pa.field("actor_id", pa.string()),
        pa.field("resource", pa.string()),
        pa.field("codes", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Dataset:
    """A dataset directory, read lazily.

    Attributes:
        path: The directory.
        origin: `real`, `simulated` or `synthetic`; a bare MEDS dataset that does not say counts as real.
    """

    path: Path
    origin: Origin

    @cached_property
    def splits(self) -> dict[str, str]:
        """Split name to folder name: those present, in the order of MEDS; a dataset without splits has one, `data`."""
        data = self.path / "data"
        named = [name for name in SPLITS if any((data / name).rglob("*.parquet"))]
        others = sorted(folder.name for folder in data.iterdir() if folder.is_dir() and folder.name not in SPLITS)
        found = {name: f"data/{name}" for name in [*named, *others]}
        return found or {"data": "data"}

    def shards(self, split: str | None = None) -> list[Path]:
        """The event files of a split, or of all, in a fixed order.

        Raises:
            DatasetError: If there is no such split.
        """
        if split is not None and split not in self.splits:
            raise DatasetError(f"split must be one of {', '.join(self.splits)}, got {split!r}")
        chosen = [self.splits[split]] if split is not None else list(self.splits.values())
        return [path for folder in chosen for path in sorted((self.path / folder).rglob("*.parquet"))]

    def iter_events(self, split: str | None = None) -> Iterator[pa.Table]:
        """The event tables, one shard at a time, each with every column of `EVENT_SCHEMA`."""
        for path in self.shards(split):
            yield with_all_columns(_read_parquet(path))

    def events(self, split: str | None = None) -> pa.Table:
        """All events of a split in one table; for datasets that fit in memory."""
        return pa.concat_tables(self.iter_events(split))

    def images(self) -> pa.Table:
        """The image table; empty where there are no images."""
        path = self.path / "images.parquet"
        return _read_parquet(path).cast(IMAGE_SCHEMA) if path.is_file() else IMAGE_SCHEMA.empty_table()

    def codes(self) -> pa.Table:
        """metadata/codes.parquet; empty where it is absent."""
        path = self.path / "metadata" / "codes.parquet"
        return _read_parquet(path) if path.is_file() else CODES_SCHEMA.empty_table()

    def actors(self) -> pa.Table:
        """metadata/actors.parquet, `ACTORS_SCHEMA`; empty where it is absent."""
        path = self.path / "metadata" / "actors.parquet"
        return _read_parquet(path) if path.is_file() else ACTORS_SCHEMA.empty_table()

    def subject_splits(self) -> dict[int, str]:
        """Split of every subject; from metadata, else from the folders."""
        path = self.path / "metadata" / "subject_splits.parquet"
        if path.is_file():
            table = _read_parquet(path)
            return dict(zip(table["subject_id"].to_pylist(), table["split"].to_pylist(), strict=True))
        return {
            subject: split
            for split in self.splits
            for shard in self.iter_events(split)
            for subject in pc.unique(shard["subject_id"]).to_pylist()
        }

    @property
    def is_finished(self) -> bool:
        """Whether it has a manifest; a bare MEDS dataset has none."""
        return (self.path / MANIFEST).is_file()

    def manifest_hash(self) -> str:
        """Names its exact content; raises DatasetError for a bare MEDS dataset."""
        return manifest_hash(self.path)

    def validate(self, *, deep: bool = True) -> list[Finding]:
        """Every rule that the directory breaks: event and image tables, splits, metadata, manifest.

        Args:
            deep: Also compare every file with the manifest.
        """
        findings = [f for path in self.shards() for f in self._shard_findings(path)]
        findings += _metadata_findings(self)
        if (self.path / "images.parquet").is_file():
            findings += validate_images(_read_parquet(self.path / "images.parquet"))
            findings += self._image_files()
        if self.is_finished and deep:
            findings += verify_manifest(self.path)
        if (self.path / PROVENANCE).is_file():
            try:
                read_provenance(self.path)
            except DatasetError as error:
                findings.append(Finding("provenance", str(error), where=PROVENANCE))
        return findings

    def _shard_findings(self, path: Path) -> list[Finding]:
        return validate_events(_read_parquet(path), path.relative_to(self.path).as_posix())

    def _image_files(self) -> list[Finding]:
        paths = self.images()["path"].to_pylist()
        missing = [path for path in paths if not any((self.path / path).glob("*.dcm"))]
        return [Finding("image-missing", "the series has no DICOM files", where=path) for path in missing]


def open_dataset(path: Path | str) -> Dataset:
    """Opens a dataset directory, ours or a bare MEDS one.

    Raises:
        DatasetError: If it is neither, or a run that has not finished.
    """
    folder = Path(path)
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        hint = f"; {partial} is unfinished: run its verb again" if partial.is_dir() else ""
        raise DatasetError(f"{folder} is not a directory{hint}")
    if not any((folder / "data").rglob("*.parquet")):
        raise DatasetError(f"{folder} is not a dataset: it has no data/**/*.parquet (DESIGN: the dataset directory)")
    return Dataset(folder, _origin(folder))


def _origin(folder: Path) -> Origin:
    path = folder / "metadata" / "dataset.json"
    return as_origin(read_json(path).get("origin", "real"), str(path)) if path.is_file() else "real"


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is not a readable parquet file") from error


def _metadata_findings(dataset: Dataset) -> list[Finding]:
    from flexible_schema import SchemaValidationError
    from meds import CodeMetadataSchema, SubjectSplitSchema

    findings = []
    for name, schema in (("codes", CodeMetadataSchema), ("subject_splits", SubjectSplitSchema)):
        path = dataset.path / "metadata" / f"{name}.parquet"
        if not path.is_file():
            findings.append(Finding("metadata-missing", f"metadata/{name}.parquet is missing", severity="warning"))
            continue
        columns = ["code", "description", "parent_codes"] if name == "codes" else None
        table = pq.ParquetFile(path).read(columns=columns)
        try:
            schema.validate(table)
        except (SchemaValidationError, ValueError, TypeError) as error:
            findings.append(Finding("meds-schema", f"not the MEDS schema: {error}", where=f"metadata/{name}.parquet"))
    findings += _split_findings(dataset)
    return findings


def _split_findings(dataset: Dataset) -> list[Finding]:
    stated = dataset.subject_splits()
    findings, seen = [], set[int]()
    for path in dataset.shards():
        split = path.relative_to(dataset.path / "data").parts[0]
        subjects = set(pq.ParquetFile(path).read(columns=["subject_id"])["subject_id"].unique().to_pylist())
        where = path.relative_to(dataset.path).as_posix()
        if twice := len(subjects & seen):
            findings.append(
                Finding("subject-in-two-shards", "a subject must stand in one shard", where=where, count=twice)
            )
        if split in SPLITS and (wrong := sum(stated.get(subject) != split for subject in subjects)):
            findings.append(Finding("wrong-split", "subject_splits.parquet says otherwise", where=where, count=wrong))
        seen |= subjects
    return findings
