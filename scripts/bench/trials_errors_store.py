"""Finished work of trials_errors_means_rates.py in a file, a line of JSON each, so that it is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Counts = dict[str, int]


class State:
    """Finished blocks, programmes of R and measured scores of one seed.

    Attributes:
        blocks: Trials and rejections by family and block. independent: The same in R, by family.
        scores: Numbers by name and trials.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self.blocks: dict[tuple[str, int], tuple[int, Counts]] = {}
        self.independent: dict[str, tuple[int, Counts]] = {}
        self.scores: dict[tuple[str, int], list[float]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            each = json.loads(line)
            if each["seed"] != seed:
                continue
            if "score" in each:
                self.scores[each["score"], each["trials"]] = each["numbers"]
            elif "block" in each:
                self.blocks[each["family"], each["block"]] = each["trials"], each["counts"]
            else:
                self.independent[each["family"]] = each["trials"], each["counts"]

    def add(self, **work: object) -> None:
        """Writes finished work down at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"seed": self.seed, **work}) + "\n")

    def once(self, score: str, trials: int, numbers: Callable[[], list[float]]) -> list[float]:
        """Numbers of a score, computed if they are not in the file."""
        if (score, trials) not in self.scores:
            self.scores[score, trials] = numbers()
            self.add(score=score, trials=trials, numbers=self.scores[score, trials])
        return self.scores[score, trials]
