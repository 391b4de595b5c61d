from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from medtwin.core.errors import SourceError
from medtwin.dicom import (
    Patient,
    ProjectionImage,
    Study,
    Volume,
    projection_to_dataset,
    volume_to_datasets,
    write_series,
)
from medtwin.scans.reader import LoadSeriesd, SeriesReader, image_transform, load_image
from tests.scans.samples import disc

PATIENT, STUDY = Patient("p"), Study("2.25.1", "2.25.2", "simulated", body_part="CHEST")


def write(folder: Path, pixels: np.ndarray, spacing_mm=(2.0, 2.0), **header) -> Path:
    dataset = projection_to_dataset(ProjectionImage(pixels, pixel_spacing_mm=spacing_mm), PATIENT, STUDY)
    for name, value in header.items():
        setattr(dataset, name, value)
    write_series(folder, [dataset])
    return folder


def test_reads_values_and_spacing_through_monai(tmp_path) -> None:
    pixels = disc(5, (12, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = LoadSeriesd("image")({"image": str(write(tmp_path / "s", pixels, (0.5, 0.5)))})["image"]
    assert np.array_equal(np.asarray(image)[0], pixels)
    assert image.meta["pixel_spacing_mm"] == (0.5, 0.5)
    assert (image.meta["modality"], image.meta["bits_stored"]) == ("CR", 12)
    assert SeriesReader().verify_suffix(tmp_path)


def test_monochrome1_is_turned_round(tmp_path) -> None:
    pixels = disc(5, (16, 16))
    inverse = write(tmp_path / "s", (4095 - pixels).astype(np.uint16), PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(load_image(inverse, image_transform(16)).values, pixels)


def test_shrinking_averages_and_keeps_the_extent(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (32, 32)).astype(np.uint16)
    image = load_image(write(tmp_path / "s", pixels, (0.5, 0.5)), image_transform(8))
    assert np.allclose(image.values, pixels.reshape(8, 4, 8, 4).mean(axis=(1, 3)))
    assert image.spacing_mm == (2.0, 2.0)


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (40, 33)])
def test_is_not_squashed_nor_cut(tmp_path, shape) -> None:
    image = load_image(write(tmp_path / "s", disc(8, shape)), image_transform(20))
    assert image.values.shape == (20, 20)
    bright = image.values > 2000
    assert abs(int(bright.any(axis=0).sum()) - int(bright.any(axis=1).sum())) <= 1  # round as before
    assert bright.any(axis=0).sum() == pytest.approx(8, abs=1)
    assert image.spacing_mm == (4.0, 4.0)
    assert image.values[0, 0] == pytest.approx(200, abs=1)  # padded with what is darkest


def test_pixels_that_are_not_square_become_square(tmp_path) -> None:
    image = load_image(write(tmp_path / "s", disc(8, (20, 40))[:, ::2], (1.0, 2.0)), image_transform(20))
    bright = image.values > 2000
    assert abs(int(bright.any(axis=0).sum()) - int(bright.any(axis=1).sum())) <= 2
    assert image.spacing_mm == (2.0, 2.0)


def test_pixels_of_known_ratio_become_square_and_their_spacing_stays_unknown(tmp_path) -> None:
    folder = write(tmp_path / "s", disc(8, (20, 40))[:, ::2], None, PixelAspectRatio=[1, 2])
    image = load_image(folder, image_transform(20))
    bright = image.values > 2000
    assert abs(int(bright.any(axis=0).sum()) - int(bright.any(axis=1).sum())) <= 2
    assert image.spacing_mm is None


def test_the_affine_is_in_the_metadata(tmp_path) -> None:
    values = np.stack([np.full((8, 8), hu) for hu in (-1000, 0, 1000)])
    volume = Volume(values, "CT", pixel_spacing_mm=(1.0, 2.0), slice_spacing_mm=5.0)
    write_series(tmp_path / "s", list(volume_to_datasets(volume, PATIENT, STUDY)))
    image = LoadSeriesd("image")({"image": str(tmp_path / "s")})["image"]
    affine = image.meta["affine_lps"]
    assert np.linalg.norm(affine[:3, :3], axis=0).tolist() == [2, 1, 5]


def test_small_images_are_enlarged_and_unknown_spacing_stays_unknown(tmp_path) -> None:
    image = load_image(write(tmp_path / "s", disc(3, (10, 10)), None), image_transform(20))
    assert image.values.shape == (20, 20)
    assert image.spacing_mm is None
    assert (image.values > 2000).any(axis=0).sum() == pytest.approx(12, abs=2)


def test_the_middle_slice_in_space(tmp_path) -> None:
    values = np.stack([np.full((8, 8), hu) for hu in (-1000, 0, 1000)])
    volume = Volume(values, "CT", pixel_spacing_mm=(1.0, 1.0), slice_spacing_mm=5.0)
    write_series(tmp_path / "s", reversed(list(volume_to_datasets(volume, PATIENT, STUDY))))
    image = load_image(tmp_path / "s", image_transform(4))
    assert np.array_equal(image.values, np.zeros((4, 4)))


def test_a_corrupt_series_is_named_and_not_left_to_another_reader(tmp_path) -> None:
    folder = write(tmp_path / "series-7", disc(5))
    path = next(folder.glob("*.dcm"))
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(SourceError, match="series-7"):
        load_image(folder, image_transform(16))
    with pytest.raises(SourceError, match="nothing"):
        load_image(tmp_path / "nothing", image_transform(16))
