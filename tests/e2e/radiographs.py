"""A collection of radiographs as NIH ChestX-ray14 has it: PNG files and a table of labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMNS = (
    "image",
    "findings",
    "followup",
    "patient_id",
    "age",
    "sex",
    "view",
    "orig_w",
    "orig_h",
    "spacing_x",
    "spacing_y",
)
Radiograph = tuple[NDArray[np.floating], int, int, bool, int, str]


def write_collection(folder: Path, radiographs: Iterator[Radiograph]) -> Path:
    """Writes PA radiographs: pixels from 0 to 255, patient, visit, whether there is pneumonia, age and sex."""
    rows = []
    for pixels, patient, visit, ill, age, sex in radiographs:
        name = f"{patient:08d}_{visit:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        finding = "Pneumonia" if ill else "No Finding"
        rows.append([name, finding, visit, patient, age, sex, "PA", 2048, 2048, 0.168, 0.168])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder
