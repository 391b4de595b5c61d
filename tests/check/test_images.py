from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medtwin.check import Findings, Profile, Rule, judge
from medtwin.check.images import MIN_IMAGES, Picture, image_measures, radial_power, read_pictures, resample
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import DatasetError
from medtwin.core.files import write_manifest, write_table
from medtwin.core.images import ImageRow, image_path, images_to_table
from medtwin.dicom import Patient, ProjectionImage, Study, projection_to_dataset, write_series
from tests.check import samples

Shipped = tuple[dict[str, Profile], tuple[Rule, ...]]
Pictures = list[Picture]


def outcomes(real: Pictures, twins: Pictures, shipped: Shipped, profile: str = "research") -> dict[str, str]:
    measures, groups, copies = image_measures(real, twins, [], seed=0, num_resamples=30)
    found = Findings(100, 100, 0, tuple(measures), (), (), (), (), (), (), tuple(groups), (), tuple(copies))
    chosen = shipped[0][profile]
    known = {one.name for one in (*measures, *copies)}
    gates = tuple(gate for gate in chosen.gates if gate.metric in known)
    return {one.name.removeprefix("image-"): one.outcome for one in judge(found, replace(chosen, gates=gates))}


def changed(pictures: Pictures, how: Callable[[np.ndarray], np.ndarray]) -> Pictures:
    return [samples.picture(one.subject_id, how(one.pixels)) for one in pictures]


@pytest.mark.parametrize("profile", ["research", "partner", "public"])
def test_an_independent_draw_passes(
    real_pictures: Pictures, fresh_pictures: Pictures, shipped: Shipped, profile: str
) -> None:
    assert set(outcomes(real_pictures, fresh_pictures, shipped, profile).values()) == {"passed"}


def _noise(pixels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(int(1e6 * pixels.sum())).permutation(pixels.ravel()).reshape(pixels.shape)


@pytest.mark.parametrize(
    ("how", "failed", "passed"),
    [
        (_noise, {"spectrum", "diversity"}, {"intensity", "copies", "duplicates"}),
        (lambda pixels: gaussian_filter(pixels, 1), {"spectrum"}, {"intensity", "diversity", "copies"}),
        (lambda pixels: pixels * 0.7, {"intensity"}, {"copies", "duplicates"}),
    ],
    ids=["noise", "blur", "dark"],
)
def test_broken_images_fail_the_gate_that_looks_for_it(
    real_pictures: Pictures,
    fresh_pictures: Pictures,
    shipped: Shipped,
    how: Callable[[np.ndarray], np.ndarray],
    failed: set[str],
    passed: set[str],
) -> None:
    found = outcomes(real_pictures, changed(fresh_pictures, how), shipped)
    assert {name for name in failed if found[name] != "failed"} == set()
    assert {name for name in passed if found[name] != "passed"} == set()


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_copied_images_fail_whether_to_the_pixel_or_with_noise(
    real_pictures: Pictures, fresh_pictures: Pictures, shipped: Shipped, noise: float
) -> None:
    rng = np.random.default_rng(0)
    stolen = [
        samples.picture(99_000 + i, one.pixels + noise * rng.standard_normal(one.pixels.shape))
        for i, one in enumerate(real_pictures[:3])
    ]
    twins = [*fresh_pictures[3:], *stolen]
    _, _, copies = image_measures(real_pictures, twins, [], seed=0, num_resamples=20)
    assert copies[0].num_copies == 3
    found = outcomes(real_pictures, twins, shipped)
    assert found["near-copies"] == "failed"
    assert found["copies"] == ("passed" if noise else "failed")


def test_one_image_over_and_over_fails_diversity_and_duplicates(
    real_pictures: Pictures, fresh_pictures: Pictures, shipped: Shipped
) -> None:
    twins = [samples.picture(i, fresh_pictures[0].pixels) for i in range(len(fresh_pictures))]
    found = outcomes(real_pictures, twins, shipped)
    assert (found["diversity"], found["duplicates"]) == ("failed", "failed")


def test_too_few_or_no_images_are_never_passed(real_pictures: Pictures, shipped: Shipped) -> None:
    measures, groups, _ = image_measures(real_pictures, real_pictures[: MIN_IMAGES - 1], [], seed=0, num_resamples=20)
    assert groups == []
    assert all(one.estimate is None and one.applicable for one in measures)
    none, _, copies = image_measures(real_pictures, [], [], seed=0, num_resamples=20)
    assert copies == []
    assert not any(one.applicable for one in none)
    assert set(outcomes(real_pictures, [], shipped).values()) == {"not_applicable"}


def test_resampling_averages_so_that_nothing_aliases() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 1.0
    assert resample(board.astype(np.float32), 16) == pytest.approx(np.full((16, 16), 0.5))
    ramp = np.arange(8, dtype=np.float32).repeat(8).reshape(8, 8)
    assert resample(ramp, 4)[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert resample(ramp, 8) is ramp


def test_power_stands_at_the_frequency_of_a_wave() -> None:
    wave = np.sin(2 * np.pi * 9 * np.arange(64) / 64)[None].repeat(64, axis=0).astype(np.float32)
    power = radial_power(wave[None])[0]
    assert len(power) == 31
    assert int(np.argmax(power)) + 1 == 9
    louder = radial_power(10 * wave[None])[0]
    assert louder[8] - power[8] == pytest.approx(2, abs=1e-4)  # ten times the amplitude, a hundred times the power


def image_dataset(folder: Path, stored: np.ndarray) -> Dataset:
    """Three simulated subjects, the first with one radiograph."""
    samples.write_dataset(folder, samples.hospital_table(3, seed=4), "synthetic")
    (folder / "manifest.json").unlink()
    subject = min(open_dataset(folder).subject_splits())
    place = image_path(subject, "2.25.2")
    image = ProjectionImage(stored, 12, "PA", (1.0, 1.0))
    study = Study("2.25.1", "2.25.2", "synthetic")
    write_series(folder / place, [projection_to_dataset(image, Patient(str(subject)), study)])
    rows, columns = stored.shape
    row = ImageRow(
        subject, None, "CR", "CHEST", "PA", rows, columns, 1, 1.0, 1.0, "ImagerPixelSpacing", None, None, None,
        "MONOCHROME2", 12, None, None, [], "2.25.1", "2.25.2", place,
    )  # fmt: skip
    write_table(folder / "images.parquet", images_to_table([row]))
    write_manifest(folder)
    return open_dataset(folder)


def test_pictures_are_read_from_dicom_in_shares_of_the_stored_range(tmp_path: Path) -> None:
    stored = np.zeros((20, 30), np.uint16)
    stored[:, :15] = 4095
    dataset = image_dataset(tmp_path / "twins", stored)
    found = list(read_pictures(dataset, list(dataset.splits), seed=0))
    assert [(one.group, one.size, one.pixels.shape) for one in found] == [("CR PA", 20, (20, 20))]
    assert (found[0].pixels.min(), found[0].pixels.max()) == (0, 1)
    assert found[0].pixels.mean() == pytest.approx(1 / 3)  # half of what is not padded: nothing is stretched
    assert list(read_pictures(dataset, ["held_out"], seed=0)) == []


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    dataset = image_dataset(tmp_path / "twins", np.zeros((8, 8), np.uint16))
    for path in (dataset.path / "images").rglob("*.dcm"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"images/.* cannot be read"):
        list(read_pictures(dataset, list(dataset.splits), seed=0))
