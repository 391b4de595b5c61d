"""Rejections of the families' tests that another programme finds on other trials, for trials_errors_means_rates.py.

R's own functions on R's own patients, in pieces that a state file keeps, or statistics drawn from their joint law.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

import numpy as np
from trials_errors_designs import FRACTIONS, designs
from trials_errors_families import Family, Statistics
from trials_errors_law_of_t import CHUNK
from trials_errors_store import Store

Counts = dict[str, int]
HERE = Path(__file__).resolve().parent
PIECE, DRAWS = 2500, 400_000  # trials of one run of R; draws from a law


@dataclass(frozen=True)
class Independent:
    """What another programme found.

    Attributes:
        source: R or law. trials: Of it. counts: Rejections by test and design.
    """

    source: str
    trials: int
    counts: Counts


def rejections(z: Statistics) -> Counts:
    """Trials that reject, by test and design; designs whose looks are not computed are left out."""
    found = {}
    for test, values in z.items():
        seen = np.asarray(~np.isnan(values).all(axis=0))
        for design in designs():
            if seen[list(design.columns)].all():
                found[f"{test}|{design.name}"] = int(design.rejects(values).sum())
    return found


def from_law(family: Family, store: Store) -> Independent | None:
    """Of statistics that are drawn from their law; None where the family has none."""
    if family.law is None:
        return None
    if store.get("law", family.name, DRAWS) is None:
        rng, counts = np.random.default_rng([store.seed, 29, zlib.crc32(family.name.encode())]), Counter[str]()
        for _ in range(DRAWS // CHUNK):
            counts.update(rejections(_at_looks(family, family.law(rng, CHUNK), CHUNK)))
        store.add(dict(counts), "law", family.name, DRAWS)
    return Independent("law", DRAWS, store.get("law", family.name, DRAWS))


def from_r(family: Family, trials: int, store: Store) -> Independent | None:
    """Of R's functions: so many trials at least, and what the store has; None where no R knows the law."""
    for piece in range(math.ceil(trials / PIECE)):
        num = min(PIECE, trials - piece * PIECE)
        command = _command(family, num, 1000 * store.seed + piece)
        if command is None or shutil.which("Rscript") is None:
            break
        if store.get("R", family.name, piece) is None:
            store.add([num, _run(family, command, num)], "R", family.name, piece)
    kept = list(takewhile(bool, (store.get("R", family.name, piece) for piece in count())))
    counts = Counter[str]()
    for _, some in kept:
        counts.update(some)
    return Independent("R", sum(num for num, _ in kept), dict(counts)) if kept else None


def _at_looks(family: Family, z: Statistics, trials: int) -> Statistics:
    """Columns of nan for the looks that a family leaves out."""
    found = {test: np.full((trials, len(FRACTIONS)), np.nan) for test in z}
    for test, values in z.items():
        found[test][:, list(family.looks)] = values
    return found


def _command(family: Family, trials: int, seed: int) -> list[str] | None:
    """How R is called for a family, or None if it does not know the law."""
    looks = ",".join(str(round(FRACTIONS[look] * family.patients)) for look in family.looks)
    if "visits" in family.name:
        return [str(HERE / "trials_errors_visits.R"), str(family.patients), str(trials), str(seed), looks]
    effect, sd, theta = "0", "1", "Inf"
    if family.name.startswith("means"):
        law = "means"
        effect = "0.52" if "0.52" in family.name else "0"
        sd = "1.5" if "sd 1.5" in family.name else "1"
    elif family.name.startswith("non-inferior means at the margin"):
        law = "adjusted"  # the margin added to the experimental arm, in which the mean is then that of the controls
    elif family.name.startswith("logistic"):
        law = "logistic"
    elif "counts" in family.name:
        law, theta = "counts", "1" if "theta 1" in family.name else "Inf"
    else:
        return None
    numbers = [str(each) for each in (family.patients, family.ratio, trials, seed)]
    return [str(HERE / "trials_errors_means_rates.R"), law, *numbers, effect, sd, theta, looks]


def _run(family: Family, command: list[str], trials: int) -> Counts:
    done = subprocess.run(["Rscript", *command], capture_output=True, text=True, check=True)
    header, *lines = done.stdout.splitlines()
    names = [each.strip('"') for each in re.findall(r'"[^"]*"', header)][1:]
    table = np.array([[float("nan") if v == "NA" else float(v) for v in line.split(",")[1:]] for line in lines])
    z = {name: table[:, number].reshape(trials, len(family.looks)) for number, name in enumerate(names)}
    with np.errstate(invalid="ignore"):
        return rejections(_at_looks(family, z, trials))
