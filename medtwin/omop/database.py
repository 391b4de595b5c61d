"""One DuckDB file of a folder of CDM tables: types, NOT NULL and primary keys as in the CDM's DDL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medtwin.core.errors import ConfigError, SourceError
from medtwin.omop.tables import TABLES


def require_duckdb(setting: str) -> Any:
    """The duckdb module.

    Raises:
        ConfigError: If it is not installed; names the setting and the extra that brings it.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError(f"{setting} needs duckdb: pip install 'medtwin[omop]'") from error
    return duckdb


def write_database(folder: Path, path: Path) -> None:
    """Makes a DuckDB file of the parquet files of a folder, one table each.

    Args:
        folder: Holds `<table>.parquet` of every table.
        path: The file to make; it must not exist.

    Raises:
        ConfigError: If duckdb is not installed.
        SourceError: If a file is missing, or breaks the DDL.
    """
    duckdb = require_duckdb("omop.duckdb=true")
    if path.exists():
        raise SourceError(f"{path} exists already: it is not overwritten")
    with duckdb.connect(str(path)) as connection:
        for name, table in TABLES.items():
            connection.execute(table.ddl())
            file = str(folder / f"{name}.parquet").replace("'", "''")
            try:
                connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM read_parquet('{file}')")
            except duckdb.Error as error:
                raise SourceError(
                    f"{folder / name}.parquet cannot stand in a CDM 5.4 database: it breaks the DDL"
                ) from error
