"""Values, origin, direction and spacing agree with SimpleITK (GDCM)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_files

from medtwin.core.sources import Ledger
from medtwin.dicom import Series, read_folder
from tests.dicom.enhanced_samples import enhanced_ct
from tests.dicom.samples import ct, save

sitk = pytest.importorskip("SimpleITK")


def geometry(image: Any) -> NDArray[np.float64]:
    """The 4 x 4 affine of an image: SimpleITK's axes are DICOM's."""
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def read_stack(series: Series) -> Any:
    """The files of a series in the order that GDCM gives them."""
    first = series.instances[0]
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(first.path.parent), series.header.series_uid)
    assert len(names) == len(series.instances)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader.Execute()


def check(series: Series, image: Any) -> None:
    """Compares; GDCM may stack from the other end."""
    ours, theirs = series.affine(), geometry(image)
    assert ours is not None
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert np.array_equal(series.pixels(), sitk.GetArrayFromImage(image).astype(np.float32))


@pytest.mark.parametrize(
    "orientation",
    [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [0.8, 0.6, 0, -0.6, 0.8, 0], [-1, 0, 0, 0, 1, 0]],
)
def test_a_stack_of_any_orientation(tmp_path: Path, orientation: list[float]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    for number, index in enumerate((2, 0, 3, 1)):
        position = [float(value) for value in np.array([-10, -20, 5]) + 2.5 * index * normal]
        save(
            tmp_path / f"{number}.dcm",
            ct(index, ImagePositionPatient=position, ImageOrientationPatient=orientation, SliceThickness=2.5),
        )
    (series,) = read_folder(tmp_path, Ledger())
    check(series, read_stack(series))


def test_an_enhanced_object(tmp_path: Path) -> None:
    dataset = enhanced_ct()
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [-10, -20, 5 + 2.5 * index]
        group.PixelValueTransformationSequence[0].RescaleSlope = 1  # SimpleITK takes that of the first for all frames
    path = save(tmp_path / "e.dcm", dataset)
    (series,) = read_folder(tmp_path, Ledger())
    check(series, sitk.ReadImage(str(path)))


@pytest.mark.real
def test_the_mr_series(public_data: Path) -> None:
    folder = public_data / "mr_t1_studyforrest"
    if not folder.is_dir():
        pytest.skip("needs the public data set mr_t1_studyforrest")
    (series,) = read_folder(folder, Ledger())
    check(series, read_stack(series))


NAMES = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "693_J2KI.dcm",
]


@pytest.mark.parametrize("name", NAMES)
def test_files_that_pydicom_brings(tmp_path: Path, name: str) -> None:
    source = next(Path(found) for found in get_testdata_files(name) if Path(found).name == name)
    (tmp_path / name).write_bytes(source.read_bytes())
    (series,) = read_folder(tmp_path, Ledger())
    image = sitk.ReadImage(str(source))
    instance = series.instances[0]
    assert instance.position == pytest.approx(image.GetOrigin(), abs=1e-6)
    affine, theirs = series.affine(), geometry(image)
    assert affine is not None
    assert affine[:, :2] == pytest.approx(theirs[:, :2], abs=1e-6)
    assert affine[:3, 2] / np.linalg.norm(affine[:3, 2]) == pytest.approx(
        theirs[:3, 2] / np.linalg.norm(theirs[:3, 2]), abs=1e-6
    )
    if name != "693_J2KI.dcm":  # lossy: two decoders may round differently
        assert np.array_equal(series.pixels(), sitk.GetArrayFromImage(image).astype(np.float32))
