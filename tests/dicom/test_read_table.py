"""The table in docs/dicom_reading.md says of every file that pydicom brings what the reader makes of it.

Written anew by `python -m tests.dicom.test_read_table` where pydicom's files or the reader have changed.
"""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.data import get_testdata_files
from pydicom.uid import UID

from medtwin.dicom.reading.faults import NotImageError, UnfitError
from medtwin.dicom.reading.headers import read_image_file
from medtwin.dicom.reading.media import is_dicom
from medtwin.dicom.values import quiet

DOCS = Path(__file__).resolve().parents[2] / "docs" / "dicom_reading.md"
BEGIN, END = "<!-- table: tests/dicom/test_read_table.py -->", "<!-- end of table -->"


def bundled() -> list[tuple[str, Path]]:
    """Name and place of the files in the package; those that pydicom downloads into a cache do not count."""
    folder = Path(str(pydicom.__file__)).parent
    paths = [Path(name) for name in set(get_testdata_files()) if Path(name).is_file()]
    names = {
        path.relative_to(folder / "data" / "test_files").as_posix(): path for path in paths if folder in path.parents
    }
    return sorted(names.items())


def verdict(path: Path) -> tuple[str, str]:
    """What the reader makes of a file, and the rule or shape."""
    try:
        images = read_image_file(path, path.name)
    except NotImageError as error:
        return "no image", str(error)
    except UnfitError as error:
        return "rejected", f"`{error.rule}`: {error}"
    instance = images[0].instance
    values = instance.stored()
    assert values.shape == (instance.pixel.rows, instance.pixel.columns)
    frames = f"{len(images)} frames of " if instance.frame is not None else ""
    shape = f"{frames}{instance.pixel.rows} x {instance.pixel.columns}, {instance.pixel.bits_stored} bits"
    return "read", f"{shape}, {UID(instance.transfer_syntax).name}"


def table() -> str:
    """The table in Markdown."""
    rows = ["| file | | what |", "|---|---|---|"]
    for name, path in bundled():
        if is_dicom(path):
            kind, what = verdict(path)
            rows.append(f"| {name} | {kind} | {what} |")
    return "\n".join(rows)


def test_the_table_in_the_docs_is_what_is_found() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    written = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert written.splitlines() == table().splitlines()


def test_what_is_read_has_the_pixels_that_pydicom_decodes() -> None:
    compared = 0
    for _, path in bundled():
        if not is_dicom(path) or verdict(path)[0] != "read":
            continue
        for image in read_image_file(path, path.name):
            with quiet():
                dataset = pydicom.dcmread(path, force=True)
                truth = dataset.pixel_array
            assert (image.instance.stored() == truth).all(), path.name
            compared += 1
    assert compared > 40


if __name__ == "__main__":
    old = DOCS.read_text(encoding="utf-8")
    new = f"{old[: old.index(BEGIN)]}{BEGIN}\n\n{table()}\n\n{old[old.index(END) :]}"
    temporary = DOCS.with_suffix(".new")
    temporary.write_text(new, encoding="utf-8")
    temporary.replace(DOCS)
