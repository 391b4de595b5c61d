"""People of a known law, and twins of whom a known share is copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtwin.check.attacks.table import People

NAMES = ("sex", "ward", "race", "age", "weight", "height", "count", "marker", "stays")
IS_CATEGORY = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0], bool)


def draw(number: int, rng: np.random.Generator) -> People:
    """Three categories and six numbers, which go together."""
    z = rng.normal(size=(number, 3))
    noise = rng.normal(size=(number, 3))
    values = [
        rng.integers(0, 2, number),
        rng.integers(0, 5, number),
        rng.integers(0, 8, number),
        np.floor(60 + 15 * z[:, 0]),
        z[:, 0] + 0.7 * noise[:, 0],
        2 * z[:, 1] + noise[:, 1],
        rng.poisson(20, number),
        np.exp(z[:, 2]),
        z[:, 1] + z[:, 2] + noise[:, 2],
    ]
    return People(NAMES, np.column_stack(values).astype(np.float64), IS_CATEGORY)


@dataclass(frozen=True)
class Leak:
    """Train, twins and control, each drawn by itself but for a share of the twins that are copies of train."""

    train: People
    synthetic: People
    control: People


def leak(share: float, seed: int, *, number: int = 1000, num_control: int = 1000) -> Leak:
    """Such sides; the copied subjects of train are drawn at random."""
    rng = np.random.default_rng(seed)
    train, synthetic, control = (draw(size, rng) for size in (number, number, num_control))
    num_copies = round(share * number)
    values = synthetic.values.copy()
    values[:num_copies] = train.values[rng.permutation(number)[:num_copies]]
    return Leak(train, People(NAMES, values, IS_CATEGORY), control)
