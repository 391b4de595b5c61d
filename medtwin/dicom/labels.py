"""Images with a label table (PNG, JPEG or npz): who and what each one shows, by a mapping in configs/labels/."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError, SourceError
from medtwin.core.sources import Ledger, Reject

OLDEST_STATED_AGE = 90.0


class RowError(Exception):
    """A row that cannot be used: a stable rule name, and a reason without the row's values."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


@dataclass(frozen=True)
class LabelledImage:
    """One image and what its label row says.

    Attributes:
        file: Path relative to the source. line: Row of the label table, or index in the array.
        subject: Who it shows, as the source names them. study: Names the examination within the source.
        sex: M, F, O or None. age_years: At imaging, at most 90.
        labels: Findings as `SYSTEM//code`, sorted; empty: stated to have none; None: not stated.
        spacing_mm: Row and column spacing of the stored pixels; None: unknown.
        pixels: (rows, columns) uint8 or uint16.
    """

    file: str
    line: int
    subject: str
    study: str
    modality: str
    body_part: str
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    time: datetime | None = None
    labels: list[str] | None = None
    spacing_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class LabelTable:
    """Columns of a CSV that says who and what is on each image file.

    Attributes:
        file: Column with the file name; `file_suffix` is added to it.
        subject: Column that names the person. study: Columns that together name the examination.
        modality, body_part: DICOM Modality and BodyPartExamined of every image.
        sex, view: `{column, values}`: the column, and what its values mean in DICOM; an empty cell is unknown.
        age_years: Column with the age. time: `{column, format}` of the examination's date (strptime format).
        findings: `{column, separator, none, codes}`: findings of a cell, and the code of each.
        spacing_mm: `{row, column}` columns with the pixel spacing; with `original_rows` and `original_columns`, that of
            the original size, rescaled to the stored one.

    Raises:
        ConfigError: If a group lacks one of its keys.
    """

    file: str
    subject: str
    study: Sequence[str]
    modality: str
    body_part: str
    file_suffix: str = ""
    sex: Mapping[str, Any] | None = None
    view: Mapping[str, Any] | None = None
    age_years: str | None = None
    time: Mapping[str, str] | None = None
    findings: Mapping[str, Any] | None = None
    spacing_mm: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        needed = {
            "sex": ("column", "values"),
            "view": ("column", "values"),
            "time": ("column", "format"),
            "findings": ("column", "separator", "none", "codes"),
            "spacing_mm": ("row", "column"),
        }
        for name, keys in needed.items():
            group = getattr(self, name)
            missing = [key for key in keys if group is not None and key not in group]
            if missing:
                raise ConfigError(f"{name} needs {', '.join(missing)}")

    def columns(self) -> list[str]:
        """Every column that the table must have."""
        names = [self.file, self.subject, *self.study]
        names += [group["column"] for group in (self.sex, self.view, self.time, self.findings) if group]
        names += [self.age_years] if self.age_years else []
        names += list(self.spacing_mm.values()) if self.spacing_mm else []
        return list(dict.fromkeys(names))

    def read(self, images: Path, labels: Path | None, ledger: Ledger) -> Iterator[LabelledImage]:
        """The images that the table names, in its order; what cannot be used is rejected.

        Raises:
            SourceError: If the folder or table is missing, empty, or lacks a column.
        """
        rows = _read_csv(labels, self.columns())
        used: set[str] = set()
        for line, row in rows:
            ledger.read["image"] += 1
            name = row[self.file] + self.file_suffix
            try:
                if name in used:
                    raise RowError("duplicate-image", "an earlier row names the same file")
                image = self._image(images, name, line, row)
            except RowError as error:
                ledger.reject(Reject(_table_name(labels), line, "image", error.rule, str(error)))
                continue
            used.add(name)
            ledger.carried["image"] += 1
            yield image
        named = {row[self.file] + self.file_suffix for _, row in rows}
        for _ in _image_files(images) - named:
            ledger.read["image"] += 1
            ledger.not_carried["image"] += 1
            ledger.flags["image-without-label-row"] += 1

    def _image(self, folder: Path, name: str, line: int, row: Mapping[str, str]) -> LabelledImage:
        if not row[self.subject].strip():
            raise RowError("no-subject", f"column {self.subject} is empty")
        pixels = read_pixels(folder, name)
        return LabelledImage(
            file=name,
            line=line,
            subject=row[self.subject].strip(),
            study="/".join(row[column] for column in self.study),
            modality=self.modality,
            body_part=self.body_part,
            pixels=pixels,
            sex=_mapped(self.sex, row, "sex"),
            view=_mapped(self.view, row, "view"),
            age_years=self._age(row),
            time=self._time(row),
            labels=self._labels(row),
            spacing_mm=self._spacing(row, pixels.shape),
        )

    def _age(self, row: Mapping[str, str]) -> float | None:
        text = row[self.age_years].strip() if self.age_years else ""
        if not text:
            return None
        age = _number(text, "age")
        if not 0 <= age <= 130:
            raise RowError("bad-age", f"column {self.age_years} must be an age in years from 0 to 130")
        return min(age, OLDEST_STATED_AGE)

    def _time(self, row: Mapping[str, str]) -> datetime | None:
        text = row[self.time["column"]].strip() if self.time else ""
        if not self.time or not text:
            return None
        try:
            return datetime.strptime(text, self.time["format"])  # noqa: DTZ007 (a floating local time)
        except ValueError as error:
            raise RowError(
                "bad-date", f"column {self.time['column']} must have the form {self.time['format']}"
            ) from error

    def _labels(self, row: Mapping[str, str]) -> list[str] | None:
        if not self.findings:
            return None
        group = self.findings
        codes = {**group["codes"], group["none"]: None}
        return parse_findings(row[group["column"]], group["separator"], codes, f"column {group['column']}")

    def _spacing(self, row: Mapping[str, str], shape: tuple[int, ...]) -> tuple[float, float] | None:
        if not self.spacing_mm or not row[self.spacing_mm["row"]].strip():
            return None
        group = self.spacing_mm
        vertical, horizontal = _number(row[group["row"]], "spacing"), _number(row[group["column"]], "spacing")
        if "original_rows" in group:
            vertical *= _number(row[group["original_rows"]], "size") / shape[0]
            horizontal *= _number(row[group["original_columns"]], "size") / shape[1]
        if not (vertical > 0 and horizontal > 0):
            raise RowError("bad-spacing", "the spacing must be positive")
        return vertical, horizontal


@dataclass(frozen=True)
class ArrayTable:
    """An npz file of images, one person each.

    Its arrays are `<name>_images` (n, rows, columns) uint8 or uint16, and `<name>_labels` (n,) or (n, 1).

    Attributes:
        arrays: Array name to the split that the publisher calls it; names study and subject.
        classes: The findings (`SYSTEM//code`) of each class number.
    """

    arrays: Mapping[str, str]
    classes: Sequence[Sequence[str]]
    modality: str
    body_part: str
    view: str | None = None

    def read(self, images: Path, labels: Path | None, ledger: Ledger) -> Iterator[LabelledImage]:
        """Every image of the arrays that are there.

        Raises:
            SourceError: If the file is no npz, or holds none of the arrays, or labels and images differ in number.
        """
        if labels is not None:
            raise SourceError("source.labels: this mapping reads labels from the npz itself")
        arrays = _read_npz(images)
        names = [name for name in self.arrays if f"{name}_images" in arrays and f"{name}_labels" in arrays]
        if not names:
            raise SourceError(f"{images} must hold arrays such as {next(iter(self.arrays))}_images and _labels")
        for name in names:
            pixels, classes = arrays[f"{name}_images"], arrays[f"{name}_labels"].reshape(-1)
            if pixels.ndim != 3 or len(pixels) != len(classes) or pixels.dtype not in (np.uint8, np.uint16):
                raise SourceError(f"{images}: {name}_images must be (n, rows, columns) uint8 or uint16, with n labels")
            for index, (image, number) in enumerate(zip(pixels, classes, strict=True)):
                ledger.read["image"] += 1
                if not 0 <= int(number) < len(self.classes):
                    reason = f"the class must be 0 to {len(self.classes) - 1}"
                    ledger.reject(Reject(images.name, index + 1, "image", "unknown-class", reason))
                    continue
                ledger.carried["image"] += 1
                yield LabelledImage(
                    file=images.name,
                    line=index + 1,
                    subject=f"{self.arrays[name]}-{index}",
                    study=f"{self.arrays[name]}-{index}",
                    modality=self.modality,
                    body_part=self.body_part,
                    view=self.view,
                    pixels=np.ascontiguousarray(image),
                    labels=sorted(self.classes[int(number)]),
                )


def parse_findings(text: str, separator: str, codes: Mapping[str, str | None], where: str) -> list[str] | None:
    """The codes of the findings that a text names, sorted; empty: it names none; None: it is empty.

    Args:
        text: Findings with a separator between them.
        separator: That separator.
        codes: Finding to its code; None as the code of what states that there is none.
        where: The column or attribute, for the message.

    Raises:
        RowError: If the text holds something that `codes` lacks.

    >>> parse_findings("Mass| Edema", "|", {"Mass": "A//1", "Edema": "A//2", "No Finding": None}, "findings")
    ['A//1', 'A//2']
    """
    names = [name for part in text.split(separator) if (name := part.strip())]
    if not names:
        return None
    if any(name not in codes for name in names):
        raise RowError("unknown-finding", f"{where} holds a finding that the mapping lacks")
    return sorted({code for name in names if (code := codes[name]) is not None})


def read_pixels(folder: Path, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The pixels of a grey PNG or JPEG, (rows, columns).

    Raises:
        RowError: If the file is outside the folder, missing, unreadable, or in colour.
    """
    from PIL import Image, UnidentifiedImageError

    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise RowError("outside-source", "the file name leads out of the source folder")
    if not path.is_file():
        raise RowError("missing-image", "there is no such file in the source folder")
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode not in ("L", "I;16", "I;16B"):
                raise RowError("not-grey", "the image must be 8 or 16 bit grey: colour has no modality value")
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RowError("unreadable-image", "the file is no complete PNG or JPEG") from error
    return pixels.astype(np.uint8) if pixels.dtype == np.uint8 else pixels.astype(np.uint16)


def _image_files(folder: Path) -> set[str]:
    suffixes = (".png", ".jpg", ".jpeg")
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in suffixes}


def _read_csv(path: Path | None, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    if path is None:
        raise SourceError("source.images needs source.labels=CSV with this mapping")
    if not path.is_file():
        raise SourceError(f"source.labels: {path} is no file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            found = list(reader.fieldnames or [])
            rows = [(reader.line_num, {key: value or "" for key, value in row.items() if key}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"source.labels: {path} is no UTF-8 CSV file") from error
    if missing := [column for column in columns if column not in found]:
        raise SourceError(
            f"source.labels: {path} lacks the columns {', '.join(missing)}; choose another labels= mapping"
        )
    if not rows:
        raise SourceError(f"source.labels: {path} has no rows")
    return rows


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise SourceError(f"source.images: {path} is no npz file, which this mapping reads")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise SourceError(f"source.images: {path} is no readable npz file") from error


def _table_name(path: Path | None) -> str:
    return path.name if path else ""


def _mapped(group: Mapping[str, Any] | None, row: Mapping[str, str], what: str) -> str | None:
    text = row[group["column"]].strip() if group else ""
    if not group or not text:
        return None
    values = {str(key): value for key, value in group["values"].items()}
    if text not in values:
        raise RowError(f"unknown-{what}", f"column {group['column']} holds a value that the mapping lacks")
    return str(values[text])


def _number(text: str, what: str) -> float:
    if not re.fullmatch(r"\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*", text) or not math.isfinite(float(text)):
        raise RowError(f"bad-{what}", f"the {what} must be a number")
    return float(text)
