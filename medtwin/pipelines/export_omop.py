"""`medtwin export to=omop`: a dataset as OMOP CDM 5.4, parquet and DuckDB, and the account of what was left."""

from __future__ import annotations

import shutil
from pathlib import Path

from medtwin.core.dataset import Dataset
from medtwin.core.files import write_json
from medtwin.core.output import Output
from medtwin.omop.database import require_duckdb, write_database
from medtwin.omop.write import Books, export_omop
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import progress
from medtwin.pipelines.table_settings import OmopSettings

LOSS = "loss.json"
DATABASE = "cdm.duckdb"


def write_omop(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, int]:
    """Writes omop/<table>.parquet, omop/cdm.duckdb if it is wanted, and loss.json; returns the rows of each table.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    wanted = chosen.omop
    if wanted.duckdb:
        require_duckdb("omop.duckdb=true")
    folder = output.path / "omop"
    if not output.is_done("omop"):
        shutil.rmtree(folder, ignore_errors=True)
        output.mark_done("omop", _write(dataset, wanted, folder, output.path / LOSS))
    if wanted.duckdb and not output.is_done("duckdb"):
        (folder / DATABASE).unlink(missing_ok=True)
        write_database(folder, folder / DATABASE)
        output.mark_done("duckdb")
    return output.result("omop")


def _write(dataset: Dataset, wanted: OmopSettings, folder: Path, loss: Path) -> dict[str, int]:
    steps = export_omop(dataset, folder, wanted.options())
    for step in progress(steps, "OMOP", unit="shard", total=len(dataset.shards()) + 1):
        if isinstance(step, Books):
            told = step.as_dict()
            write_json(loss, told)
            tables = {f"table {name}": count for name, count in told["table_rows"].items() if count}
            left = sum(told["not_carried"].values())
            return {**tables, "rows of the dataset": step.event_rows, "rows not carried (loss.json)": left}
    raise AssertionError("export_omop ends with its books")
