"""Finished work of trials_errors_means_rates.py and trials_errors_survival.py on disk, so that it is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Store:
    """Results of one seed by key: a line of JSON each, of which the last under a key counts.

    A line that is half written, by a run that was killed, or of another form is not read.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self._found: dict[tuple[str | int, ...], Any] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "key" in record and record["seed"] == seed:
                self._found[tuple(record["key"])] = record["result"]

    def get(self, *key: str | int) -> Any:
        """The result, numbers or words in lists and dictionaries, or None."""
        return self._found.get(key)

    def add(self, result: object, *key: str | int) -> None:
        """Writes a result down at once, on a line of its own even after one that is half written."""
        self._found[key] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as stream:
            stream.write("\n" + json.dumps({"seed": self.seed, "key": key, "result": result}))

    def once(self, make: Callable[[], list[float]], *key: str | int) -> list[float]:
        """Numbers, computed if they are not in the file."""
        if key not in self._found:
            self.add(make(), *key)
        return list(self._found[key])
