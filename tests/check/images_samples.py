"""Small pictures with known content, and an encoder in numpy: fields of brightness and grain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medtwin.check.pictures import Picture

SPOT = "SNOMED//1"
SIZE = 32


def chest(rng: np.random.Generator, *, spot: bool, sex: str, age: float, view: str) -> np.ndarray:
    """A bright ellipse, wider in men, darker with age, on black in PA and on grey in AP; a finding is a spot on it."""
    y, x = (np.indices((SIZE, SIZE)) - (SIZE - 1) / 2) / (SIZE / 2)
    y, x = y - 0.05 * rng.normal(), x - 0.05 * rng.normal()
    width = (0.65 if sex == "M" else 0.45) + 0.04 * rng.normal()
    inside = 1 / (1 + np.exp(20 * (np.hypot(x / width, y / 0.75) - 1)))
    pixels = (0.1 if view == "PA" else 0.25) + (0.5 - 0.003 * (age - 50) + 0.02 * rng.normal()) * inside
    if spot:
        pixels = pixels + 0.25 * np.exp(-(((x - 0.2) / 0.15) ** 2) - ((y - 0.2) / 0.15) ** 2)
    return np.clip(pixels + 0.01 * rng.normal(size=pixels.shape), 0, 1).astype(np.float32)


def pictures(num_subjects: int, seed: int, *, share_ap: float = 0.4) -> list[Picture]:
    """One picture of each subject, two of every fifth."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num_subjects):
        sex, age = str(rng.choice(["F", "M"])), float(rng.uniform(20, 80))
        for _ in range(2 if number % 5 == 0 else 1):
            spot, view = bool(rng.random() < 0.45), "AP" if rng.random() < share_ap else "PA"
            pixels = chest(rng, spot=spot, sex=sex, age=age, view=view)
            labels = (SPOT,) if spot else ()
            subject = 10_000 * seed + number
            found.append(Picture(subject, f"CR {view}", pixels, pixels.tobytes(), SIZE, view, sex, age, labels))
    return found


def changed(sources: list[Picture], how: Callable[[np.ndarray], np.ndarray]) -> list[Picture]:
    """The same pictures with other pixels."""
    found = []
    for one in sources:
        pixels = np.asarray(how(one.pixels), np.float32)
        found.append(replace(one, pixels=pixels, digest=pixels.tobytes()))
    return found


def encode(images: np.ndarray) -> np.ndarray:
    """Mean, and mean absolute difference to the right neighbour, of 4 x 4 fields, (images, 32)."""
    step = images.shape[-1] // 4
    grain = np.abs(np.diff(images, axis=2, append=images[:, :, -1:]))
    fields = [
        one.reshape(len(one), 4, step, 4, step).mean(axis=(2, 4)).reshape(len(one), -1) for one in (images, grain)
    ]
    return np.concatenate([fields[0], np.log(fields[1] + 1e-3)], axis=1).astype(np.float64)
