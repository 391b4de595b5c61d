"""`medtwin export to=meds`: a plain MEDS 0.4 dataset, checked with the schemas of the `meds` package."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medtwin import __version__
from medtwin.core.codes import CHILD_PREFIX
from medtwin.core.dataset import SPLITS, Dataset
from medtwin.core.dataset_writer import CodeCounts
from medtwin.core.errors import DatasetError
from medtwin.core.events import EVENT_SCHEMA, MEDS_COLUMNS, with_all_columns
from medtwin.core.files import write_json, write_table
from medtwin.core.meds_source import code_metadata
from medtwin.core.output import Output
from medtwin.core.provenance import creation_time
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import progress
from medtwin.pipelines.table_settings import MedsSettings

_MEDS_VERSION = "0.4.1"
_CODE_COLUMNS = ("code", "description", "parent_codes")


def write_meds(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, int]:
    """Writes meds/data and meds/metadata; returns how many rows were written and dropped.

    Every file is checked against the schemas of the `meds` package before it is written.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    wanted = chosen.meds
    folder = output.path / "meds"
    if not output.is_done("meds"):
        shutil.rmtree(folder, ignore_errors=True)
        output.mark_done("meds", _write(dataset, wanted, folder))
    return output.result("meds")


def _write(dataset: Dataset, wanted: MedsSettings, folder: Path) -> dict[str, int]:
    counts: Counter[str] = Counter()
    codes = CodeCounts()
    subjects: set[int] = set()
    for path in progress(dataset.shards(), "MEDS", unit="shard"):
        table = with_all_columns(_read(path))
        kept = _without_details(table) if wanted.details == "drop" else table
        counts["rows"] += len(kept)
        counts["details dropped"] += len(table) - len(kept)
        codes.add(kept)
        subjects.update(pc.unique(kept["subject_id"]).to_pylist())
        shown = kept.select(list(MEDS_COLUMNS)) if wanted.columns == "meds" else kept
        _write_checked(folder / path.relative_to(dataset.path), shown, "DataSchema")
    descriptions, parents = code_metadata(dataset)
    table = codes.table(descriptions, parents)
    shown = table.select(list(_CODE_COLUMNS)) if wanted.columns == "meds" else table
    _write_checked(folder / "metadata" / "codes.parquet", shown, "CodeMetadataSchema")
    counts["codes"], counts["subjects"] = len(table), len(subjects)
    counts["subjects with a split"] = _write_splits(dataset, subjects, folder)
    _write_description(dataset, wanted, folder)
    return dict(counts)


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is not a readable shard of events") from error


def _without_details(table: pa.Table) -> pa.Table:
    is_detail = pc.starts_with(table["code"], CHILD_PREFIX).to_numpy()
    return table.filter(pa.array(~np.asarray(is_detail)))


def _write_checked(path: Path, table: pa.Table, schema: str) -> None:
    """Writes a table that the `meds` package accepts.

    Raises:
        DatasetError: If it does not: the dataset breaks the rules of MEDS.
    """
    import meds
    from flexible_schema import SchemaValidationError

    try:
        getattr(meds, schema).validate(table)
    except (SchemaValidationError, ValueError, TypeError) as error:
        raise DatasetError(f"{path.name} would be no valid MEDS 0.4 file ({schema}): {error}") from error
    write_table(path, table)


def _write_splits(dataset: Dataset, subjects: set[int], folder: Path) -> int:
    """Writes subject_splits.parquet where the dataset says the splits; returns how many subjects have one."""
    stated = {subject: split for subject, split in dataset.subject_splits().items() if split in SPLITS}
    chosen = sorted(subjects & set(stated))
    if not chosen:
        return 0
    schema = pa.schema([pa.field("subject_id", pa.int64()), pa.field("split", pa.string())])
    table = pa.table({"subject_id": chosen, "split": [stated[each] for each in chosen]}, schema=schema)
    _write_checked(folder / "metadata" / "subject_splits.parquet", table, "SubjectSplitSchema")
    return len(chosen)


def _write_description(dataset: Dataset, wanted: MedsSettings, folder: Path) -> None:
    from meds import DatasetMetadataSchema

    ours = [name for name in EVENT_SCHEMA.names if name not in MEDS_COLUMNS]
    record: dict[str, Any] = {
        "dataset_name": dataset.path.name,
        "dataset_version": "1",
        "etl_name": "medtwin",
        "etl_version": __version__,
        "meds_version": _MEDS_VERSION,
        "created_at": creation_time().isoformat(timespec="seconds"),
    }
    if wanted.columns == "all":
        record |= {"code_modifier_columns": ["unit"], "other_extension_columns": [n for n in ours if n != "unit"]}
    DatasetMetadataSchema.validate(record)
    # Beyond MEDS, whose tools leave it alone: whether the subjects are people. `source.meds=` reads it back.
    write_json(folder / "metadata" / "dataset.json", {**record, "origin": dataset.origin})
