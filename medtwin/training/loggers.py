"""The table of a run's metrics: rows merged by step, and put back exactly where a resumed run continues."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from medtwin.core.files import atomic_file


class MetricsTable(Logger):
    """Writes metrics.csv: one row per step, a column per metric, empty where a metric was not logged.

    What is logged goes to a journal first. `Checkpoints` stores how long the journal was, so that a run killed later
    drops what it had logged since and logs it again.

    Args:
        save_dir: The run directory.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._journal = self._folder / ".metrics.jsonl"

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self._folder

    @property
    def name(self) -> str:
        """Its name among loggers."""
        return "metrics"

    @property
    def version(self) -> str:
        """Empty: a run directory holds one run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds values, by metric, to the row of a step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step or 0, **metrics}) + "\n")

    def position(self) -> int:
        """Bytes of the journal."""
        return self._journal.stat().st_size if self._journal.is_file() else 0

    @rank_zero_only
    def rewind(self, position: int) -> None:
        """Forgets what was logged after a position."""
        if position < self.position():
            with self._journal.open("rb+") as file:
                file.truncate(position)

    def rows(self) -> list[dict[str, float]]:
        """The rows, by step; of values logged twice the last."""
        merged: dict[int, dict[str, float]] = {}
        for line in self._journal.read_text(encoding="utf-8").splitlines() if self._journal.is_file() else ():
            entry = json.loads(line)
            merged.setdefault(entry["step"], {}).update(entry)
        return [merged[step] for step in sorted(merged)]

    @rank_zero_only
    def write_table(self) -> None:
        """Writes metrics.csv, with as many digits as the numbers have."""
        rows = self.rows()
        first = [name for name in ("step", "epoch") if any(name in row for row in rows)]
        names = first + sorted({name for row in rows for name in row} - set(first))
        with atomic_file(self._folder / "metrics.csv", "w") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(names)
            table.writerows([_cell(row.get(name)) for name in names] for row in rows)

    @rank_zero_only
    def close(self) -> None:
        """Writes metrics.csv and removes the journal."""
        self.write_table()
        self._journal.unlink(missing_ok=True)


def _cell(value: float | None) -> str:
    return "" if value is None else str(value)


def run_folder(trainer: Trainer) -> Path:
    """Where a training leaves files that are to stay: the run directory, or the trainer's own folder without one."""
    tables = (logger.folder for logger in trainer.loggers if isinstance(logger, MetricsTable))
    return next(tables, Path(trainer.default_root_dir))
