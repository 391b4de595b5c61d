"""Every text of a DICOM file, private elements and sequences included, and where a file could hide something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medtwin.core.errors import SourceError
from medtwin.dicom.values import PARSE_ERRORS, quiet

_BINARY = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN", "OB or OW"})
_OVERLAY, _CURVE = 0x6000, 0x5000
_PIXELS = 0x7FE00010


def read_whole(file: Path | BinaryIO) -> Dataset:
    """Everything that a DICOM file holds, for `element_texts` and `hidden_places`.

    Raises:
        SourceError: If the file is no DICOM.
    """
    try:
        with quiet():
            return pydicom.dcmread(file)
    except (InvalidDicomError, OSError, *PARSE_ERRORS) as error:
        raise SourceError("the file cannot be read as DICOM") from error


def element_texts(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """Keyword or tag path, value representation and text of every value that is not binary."""
    for part in (dataset.file_meta, dataset):
        yield from _texts(part, "")


def hidden_places(dataset: Dataset) -> Iterator[str]:
    """Places of which an export has no use, where something could be hidden: never their content.

    Private elements, overlays, curves, a preamble that is not empty, elements behind the pixels, and a mark of
    burned-in annotation.
    """
    if getattr(dataset, "preamble", None) and any(dataset.preamble):
        yield "preamble"
    if str(dataset.get("BurnedInAnnotation", "NO")).upper() == "YES":
        yield "burned-in annotation"
    yield from _hidden(dataset)


def _texts(dataset: Dataset, place: str) -> Iterator[tuple[str, str, str]]:
    with quiet():
        for element in dataset:
            name = f"{place}{element.keyword or _tag(element.tag)}"
            if element.VR == "SQ":
                for item in element.value:
                    yield from _texts(item, f"{name}.")
            elif element.VR not in _BINARY and element.value not in (None, ""):
                several = isinstance(element.value, (list, tuple, pydicom.multival.MultiValue))
                for value in element.value if several else [element.value]:
                    yield name, str(element.VR), str(value)
            elif element.tag != _PIXELS and isinstance(element.value, bytes):
                text = element.value.decode("latin-1").strip("\0 ")
                if len(text) < 4096 and text.isprintable() and text:
                    yield name, str(element.VR), text


def _hidden(dataset: Dataset) -> Iterator[str]:
    with quiet():
        for element in dataset:
            group = element.tag.group
            if element.tag.is_private:
                yield f"private element {_tag(element.tag)}"
            elif _OVERLAY <= group <= 0x60FF:
                yield "overlay"
            elif _CURVE <= group <= 0x50FF:
                yield "curve"
            elif element.tag > _PIXELS:
                yield "element behind the pixels"
            elif element.VR == "SQ":
                for item in element.value:
                    yield from _hidden(item)


def _tag(tag: pydicom.tag.BaseTag) -> str:
    return f"({tag.group:04X},{tag.element:04X})"
