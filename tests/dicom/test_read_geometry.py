from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtwin.core.sources import Ledger
from medtwin.dicom import Series, read_folder
from tests.dicom.samples import cr, ct, save, save_ct


def read_one(folder: Path) -> Series:
    (series,) = read_folder(folder, Ledger())
    return series


def test_affine_by_hand(tmp_path: Path) -> None:
    save_ct(tmp_path)
    affine = read_one(tmp_path).affine()
    assert affine is not None
    # column step is the second value of PixelSpacing, row step the first (C.7.6.2.1.1)
    assert affine.tolist() == [[0.75, 0, 0, -10], [0, 0.5, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="read-only"):
        affine[0, 0] = 1


def test_affine_of_a_sagittal_stack(tmp_path: Path) -> None:
    for index in range(3):
        position = [2.0 * index, 3, 4]
        save(
            tmp_path / f"{index}", ct(index, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=position)
        )
    affine = read_one(tmp_path).affine()
    assert affine is not None
    assert affine[:3].tolist() == [[0, 0, -2, 4], [0.75, 0, 0, 3], [0, -0.5, 0, 4]]
    assert np.linalg.det(affine[:3, :3]) > 0


def test_affine_of_one_slice_is_its_thickness_along_the_normal(tmp_path: Path) -> None:
    save(tmp_path / "0", ct(0))
    affine = read_one(tmp_path).affine()
    assert affine is not None
    assert affine[:3, 2].tolist() == [0, 0, 3]


def test_affine_of_a_tilted_stack_is_sheared_and_the_tilt_is_said(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / f"{index}", ct(index, ImagePositionPatient=[0, 2.5 * index, 2.5 * index]))
    series = read_one(tmp_path)
    assert [finding.rule for finding in series.findings] == ["tilted-stack"]
    assert "45.0 degrees" in series.findings[0].message
    affine = series.affine()
    assert affine is not None
    assert affine[:3, 2].tolist() == [0, 2.5, 2.5]


@pytest.mark.parametrize(
    "change",
    [
        {"ImagePositionPatient": [-10, -20, 5.0]},
        {"ImagePositionPatient": [-10, -20, 12.5]},
        {"ImagePositionPatient": [-10, -20, 10.4]},
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
    ],
)
def test_there_is_no_affine_where_none_is_true(tmp_path: Path, change: dict[str, object]) -> None:
    for index in range(3):
        save(tmp_path / f"{index}", ct(index, **(change if index == 2 else {})))
    for series in read_folder(tmp_path, Ledger()):
        assert series.affine() is None or len(series.instances) != 3


def test_a_projection_has_no_affine(tmp_path: Path) -> None:
    save(tmp_path / "a", cr())
    assert read_one(tmp_path).affine() is None


@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 5)] * 3),
    order=st.permutations(range(4)),
)
@settings(max_examples=25, deadline=None)
def test_affine_takes_each_slice_to_its_position(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    order: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("affine")
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    direction = [round(float(value), 12) for value in (*rotation[:, 0], *rotation[:, 1])]
    for number, index in enumerate(order):
        position = [round(float(value), 6) for value in rotation[:, 2] * spacing[2] * index + [1, 2, 3]]
        more = {"PixelSpacing": [round(spacing[0], 6), round(spacing[1], 6)]}
        save(
            folder / f"{number}",
            ct(index, ImagePositionPatient=position, ImageOrientationPatient=direction, **more),
        )
    series = read_one(folder)
    affine = series.affine()
    assert affine is not None
    for index, instance in enumerate(series.instances):
        assert affine @ [0, 0, index, 1] == pytest.approx([*instance.position, 1], abs=1e-5)
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx([spacing[1], spacing[0], spacing[2]], abs=1e-5)


def test_aspect_ratio_is_kept_where_the_spacing_is_unknown(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(ImagerPixelSpacing=None, PixelAspectRatio=[2, 1]))
    geometry = read_one(tmp_path).geometry
    assert (geometry.pixel_spacing_row_mm, geometry.spacing_source, geometry.pixel_aspect_ratio) == (None, None, (2, 1))


def test_aspect_ratio_is_nothing_where_the_spacing_is_known(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(PixelAspectRatio=[2, 1]))
    assert read_one(tmp_path).geometry.pixel_aspect_ratio is None


def test_a_wrong_aspect_ratio_is_counted(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(ImagerPixelSpacing=None, PixelAspectRatio=[0, 1]))
    ledger = Ledger()
    (series,) = read_folder(tmp_path, ledger)
    assert series.geometry.pixel_aspect_ratio is None
    assert ledger.flags == {"DICOM.bad-value.PixelAspectRatio": 1}


def test_magnification_is_said_and_not_applied(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(EstimatedRadiographicMagnificationFactor="1.25"))
    series = read_one(tmp_path)
    geometry = series.geometry
    assert (geometry.pixel_spacing_row_mm, geometry.spacing_source, geometry.magnification) == (
        *(0.2, "ImagerPixelSpacing", 1.25),
    )
    assert [(finding.rule, finding.severity) for finding in series.findings] == [
        ("magnified-projection", "information")
    ]


def test_scanned_film_has_the_spacing_of_its_scan(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(ImagerPixelSpacing=None, NominalScannedPixelSpacing=[0.1, 0.2]))
    geometry = read_one(tmp_path).geometry
    assert (geometry.pixel_spacing_column_mm, geometry.spacing_source) == (0.2, "NominalScannedPixelSpacing")


@given(
    bits=st.integers(1, 16),
    is_signed=st.booleans(),
    slope=st.sampled_from([1, 1, 2, 0.5, -1.5]),
    intercept=st.one_of(st.integers(-40_000, 40_000), st.sampled_from([0, 0.5, -1024, 1e9, 32767, -32768])),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_values_are_slope_times_stored_plus_intercept_in_float32(
    tmp_path_factory: pytest.TempPathFactory,
    bits: int,
    is_signed: bool,
    slope: float,
    intercept: float,
    seed: int,
) -> None:
    cells = np.random.default_rng(seed).integers(0, 65536, (4, 5)).astype(np.uint16)
    change = {"BitsStored": bits, "HighBit": bits - 1, "RescaleSlope": slope, "RescaleIntercept": intercept}
    folder = tmp_path_factory.mktemp("values")
    save(folder / "0", ct(0, cells.view(np.int16) if is_signed else cells, **change))
    stored = cells.astype(np.int64) & ((1 << bits) - 1)
    if is_signed:
        stored -= (stored >> (bits - 1)) << bits
    expected = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    (series,) = read_folder(folder, Ledger())
    assert np.array_equal(series.pixels()[0], expected)
    assert np.array_equal(series.pixels()[0], expected)  # nothing of the first call is left behind
    assert np.array_equal(series.instances[0].stored(), stored)
