"""Where MONAI's PydicomReader is wrong without a word, beside ours: right, or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger
from medtwin.dicom import open_series, read_folder
from tests.dicom.enhanced_samples import enhanced_ct
from tests.dicom.samples import ROOT, cr, ct, pixels, save, save_ct

image_reader = pytest.importorskip("monai.data.image_reader")
pytestmark = pytest.mark.filterwarnings("ignore")


def monai(folder: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """What PydicomReader gives: (columns, rows, slices), and the metadata."""
    reader = image_reader.PydicomReader()
    values, meta = reader.get_data(reader.read(str(folder)))
    return np.asarray(values), meta


def step_mm(affine: NDArray[Any]) -> float:
    """The slice distance that an affine states."""
    return float(np.linalg.norm(np.asarray(affine)[:3, 2]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    place = tmp_path / "series"
    place.mkdir()
    return place


def test_instance_number_absent(folder: Path) -> None:
    for index in (2, 0, 1):
        save(folder / f"{9 - index}", ct(index, InstanceNumber=None))
    with pytest.raises((ValueError, TypeError, AttributeError)):
        monai(folder)
    series = open_series(folder)
    assert np.array_equal(series.pixels(), np.stack([pixels(index) for index in range(3)]) - 1024.0)


def test_two_series_in_one_folder(folder: Path) -> None:
    save_ct(folder, 4)
    for index in range(2):
        other = ct(index, SeriesInstanceUID=f"{ROOT}.99", SOPInstanceUID=f"{ROOT}.98.{index}")
        other.ImagePositionPatient = [-10, -20, 100 + 2.5 * index]
        save(folder / f"x{index}", other)
    values, _ = monai(folder)
    assert values.shape[-1] == 6  # one volume of both
    assert sorted(len(one.instances) for one in read_folder(folder, Ledger())) == [2, 4]
    with pytest.raises(SourceError, match="must hold one DICOM series, got 2"):
        open_series(folder)


def test_a_missing_slice(folder: Path) -> None:
    for index in (0, 1, 2, 4, 5):
        save(folder / f"{index}", ct(index))
    _, meta = monai(folder)
    assert step_mm(meta["affine"]) == pytest.approx(3.125)  # 12.5 mm over 4 steps: all slices are moved
    series = open_series(folder)
    assert [(finding.rule, finding.count) for finding in series.findings] == [("missing-slices", 1)]
    assert series.geometry.slice_spacing_mm == 2.5
    assert series.affine() is None


def test_monochrome1(folder: Path) -> None:
    stored = np.array([[0, 10], [200, 255]], np.uint8)
    save(folder / "a", cr(stored, PhotometricInterpretation="MONOCHROME1"))
    values, _ = monai(folder / "a")
    assert np.array_equal(np.squeeze(values).T, stored)  # black where white should be
    series = open_series(folder)
    assert series.pixels(invert_monochrome1=True)[0].tolist() == [[255, 245], [55, 0]]
    assert series.instances[0].photometric == "MONOCHROME1"


def test_imager_pixel_spacing(folder: Path) -> None:
    save(folder / "a", cr())
    _, meta = monai(folder / "a")
    assert np.allclose(np.linalg.norm(np.asarray(meta["affine"])[:3, :3], axis=0), 1)  # a millimetre each, made up
    geometry = open_series(folder).geometry
    assert (geometry.pixel_spacing_row_mm, geometry.pixel_spacing_column_mm) == (0.2, 0.3)
    assert geometry.spacing_source == "ImagerPixelSpacing"


def test_enhanced_multi_frame(folder: Path) -> None:
    save(folder / "a", enhanced_ct())
    values, meta = monai(folder / "a")
    affine = np.asarray(meta["affine"])
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), 1)  # no spacing
    assert np.allclose(affine[:3, 3], 0)  # and no place
    assert values.max() < 1000  # and no rescale: stored values
    series = open_series(folder)
    expected = np.stack([(frame + 1.0) * pixels(frame) - 1000 for frame in (2, 1, 0)])
    assert np.array_equal(series.pixels(), expected)
    affine = series.affine()
    assert affine is not None
    assert affine[:3].tolist() == [[0.75, 0, 0, -10], [0, 0.5, 0, -20], [0, 0, 2.5, 0]]
