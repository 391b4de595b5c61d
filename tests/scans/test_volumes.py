from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.files import read_json
from medtwin.dicom import Patient, Study, open_series, validate_folder, write_volume
from medtwin.pipelines.generate_scans import volume_of
from medtwin.scans.conditions import CONDITIONS, ScanRequest
from medtwin.scans.generate import GeneratedScan, ScanDescription
from medtwin.scans.reader import load_image
from medtwin.scans.volume_data import VolumeDataModule
from medtwin.scans.volumes import Oriented, VolumeGrid, along_patient
from tests.scans.volume_samples import BONE_AT, RADII, VolumeSpec, bone_of, volume, write_volumes

STUDY = Study("2.25.1", "2.25.2", "synthetic", body_part="CHEST")
SCANNERS = [
    VolumeSpec(),
    VolumeSpec(plane="coronal", shape=(30, 44, 36), spacing_mm=(5.0, 4.0, 4.0)),
    VolumeSpec(plane="sagittal", shape=(25, 50, 32), spacing_mm=(6.0, 3.5, 4.5)),
]


def written(folder: Path, spec: VolumeSpec) -> Path:
    write_volume(folder, volume(spec), Patient("p"), STUDY)
    return folder


@pytest.mark.parametrize("spec", SCANNERS, ids=lambda spec: spec.plane)
@pytest.mark.parametrize("grid", [VolumeGrid((24, 24, 24)), VolumeGrid((12, 24, 24), 2.0, "crop")], ids=["pad", "crop"])
def test_a_body_is_the_same_whatever_way_it_was_scanned(tmp_path, spec, grid) -> None:
    image = load_image(written(tmp_path / "s", spec), grid.form().transform)
    assert image.values.shape == grid.size
    assert image.spacing_mm is not None
    step = image.spacing_mm[0]
    extents = [n * mm for n, mm in zip(spec.shape, spec.spacing_mm, strict=True)]
    by_plane = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (1, 2, 0)}[spec.plane]
    factors = [extents[axis] / n for axis, n in zip(by_plane, (grid.size[0] * grid.ratio, *grid.size[1:]), strict=True)]
    assert step == pytest.approx(max(factors) if grid.fit == "pad" else min(factors))
    middle, radius = bone_of(image.values, (step * grid.ratio, step, step))
    assert np.abs(middle - BONE_AT).max() < 0.1 * step
    assert radius == pytest.approx(RADII[False], abs=0.6)


def test_what_is_turned_wrongly_would_show() -> None:
    image = volume(VolumeSpec())
    right, radius = bone_of(image.values, (8.0, 4.0, 4.0))
    assert np.abs(right - BONE_AT).max() < 0.5
    assert radius == pytest.approx(RADII[False], abs=0.6)
    for turned in (image.values[::-1], image.values[:, ::-1], image.values[:, :, ::-1], image.values.swapaxes(1, 2)):
        assert np.abs(bone_of(turned, (8.0, 4.0, 4.0))[0] - BONE_AT).max() > 20


def test_means_are_kept_and_nothing_is_stretched() -> None:
    values = np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32)
    placed, step = VolumeGrid((4, 8, 8)).place(Oriented(values, (1.0, 1.0, 1.0)))
    assert step == 2.0
    assert np.allclose(placed, values.reshape(4, 2, 8, 2, 8, 2).mean(axis=(1, 3, 5)), atol=1e-6)
    same, step = VolumeGrid((8, 16, 16), 2.5).place(Oriented(values, (5.0, 2.0, 2.0)))
    assert step == 2.0
    assert np.array_equal(same, values)
    padded, step = VolumeGrid((16, 16, 16)).place(Oriented(values, (1.0, 1.0, 1.0)))
    assert step == 1.0
    assert np.array_equal(padded[4:12], values)
    assert (padded[:4] == values.min()).all()


def test_axes_that_are_not_at_right_angles_have_no_volume() -> None:
    values, tilted = np.zeros((2, 3, 4), np.float32), np.diag([1.0, 1.0, 1.0, 1.0])
    assert along_patient(values, tilted) is not None
    tilted[1, 2] = 0.1
    assert along_patient(values, tilted) is None
    assert along_patient(values, None) is None


def change(folder: Path, number: int, **values) -> None:
    path = sorted(folder.glob("*.dcm"))[number]
    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


@pytest.mark.parametrize("fault", ["gap", "tilt", "one"])
def test_a_series_that_is_no_volume_has_no_spacing(tmp_path, fault) -> None:
    folder = written(tmp_path / "s", VolumeSpec(shape=(6, 10, 10), spacing_mm=(20.0, 15.0, 15.0)))
    files = sorted(folder.glob("*.dcm"))
    if fault == "gap":
        files[2].unlink()
    elif fault == "one":
        for file in files[1:]:
            file.unlink()
    else:
        for number, file in enumerate(files):
            x, y, z = pydicom.dcmread(file).ImagePositionPatient
            change(folder, number, ImagePositionPatient=[x, y + 5 * number, z])
    assert load_image(folder, VolumeGrid((4, 8, 8)).form().transform).spacing_mm is None


def some(count: int = 10, **changes) -> list[VolumeSpec]:
    few = {"shape": (8, 16, 16), "spacing_mm": (20.0, 10.0, 10.0), **changes}
    return [VolumeSpec(is_big=bool(i % 2), shift_mm=(float(i), 0.0, 0.0), **few) for i in range(count)]


def data_of(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "dataset", "simulated")


def attached(tmp_path: Path, specs: list[VolumeSpec], **settings) -> VolumeDataModule:
    data = VolumeDataModule(**{"batch_size": 4, "size": [8, 16, 16], "voxel_ratio": 2.0, "min_count": 2, **settings})
    data.attach(write_volumes(tmp_path / "dataset", specs), seed=3, cache=tmp_path / "cache")
    return data


def test_volumes_come_in_batches_with_their_conditions_from_a_cache(tmp_path, monkeypatch) -> None:
    data = attached(
        tmp_path, [*some(), *some(2, split="tuning"), *some(1, split="held_out"), VolumeSpec(shape=(2, 8, 8))]
    )
    assert data.num_images == {"train": 10, "tuning": 2}
    assert data.sizes["model"]["size"] == [8, 16, 16]
    start = sum(data.spec.widths[: CONDITIONS.index("findings")])
    for batch in data.train_dataloader():
        assert batch["image"].shape[1:] == (1, 8, 16, 16)
        for image, is_big in zip(batch["image"], batch["values"][:, start], strict=True):
            hu = (image[0].numpy() + 1) / 2 * 4095 - 1024
            assert bone_of(hu, (20.0, 10.0, 10.0))[1] == pytest.approx(RADII[bool(is_big)], abs=2.5)
    data.save(tmp_path)
    described = ScanDescription.from_json(read_json(tmp_path / "scans.json"))
    assert (described.size, described.voxel_ratio) == ((8, 16, 16), 2.0)
    spacing = described.spacings.draw(ScanRequest("k", "CT", "CHEST"), 0)
    assert (spacing, described.slice_spacing_mm(spacing)) == ((10.0, 10.0), 20.0)
    monkeypatch.setattr("medtwin.scans.cache.load_image", lambda *_: pytest.fail("read again"))
    again = VolumeDataModule(batch_size=4, size=[8, 16, 16], voxel_ratio=2.0, min_count=2)
    again.attach(data_of(tmp_path), seed=3, cache=tmp_path / "cache")
    assert torch.equal(again.images_to_measure()["image"], data.images_to_measure()["image"])


def test_soft_tissue_is_shown_larger_and_drawn_back_as_it_was(tmp_path) -> None:
    plain = attached(tmp_path / "plain", some())
    soft = attached(tmp_path / "soft", some(), hu_softening=150.0)
    soft.save(tmp_path)
    intensity = ScanDescription.from_json(read_json(tmp_path / "scans.json")).intensity
    seen = [data.images_to_measure()["image"].numpy() for data in (plain, soft)]
    assert np.array_equal(intensity.to_stored(seen[1], "CT"), plain.intensity.to_stored(seen[0], "CT"))
    softened, linear = (
        [float(np.diff(data.intensity.to_model(np.array([[40.0, hu]], np.float32), "CT", 12))[0, 0]) for hu in (100, 0)]
        for data in (soft, plain)
    )
    assert softened[0] > 4 * linear[0] > 0 > 4 * linear[1] > softened[1]
    with pytest.raises(ValueError, match="hu_softening must be null or Hounsfield units above 0"):
        attached(tmp_path / "none", some(), hu_softening=0.0)


def test_what_is_no_volume_is_left_out_and_counted(tmp_path) -> None:
    data = attached(tmp_path / "a", some(9))
    folder = tmp_path / "a" / "dataset"
    next((folder / "images" / "4").rglob("0003.dcm")).unlink()
    again = VolumeDataModule(batch_size=4, size=[8, 16, 16], voxel_ratio=2.0, min_count=2)
    again.attach(data_of(tmp_path / "a"), seed=3, cache=tmp_path / "a" / "cache")
    assert again.num_images["train"] == 8
    everything, rest = (one.images_to_measure()["image"] for one in (data, again))
    assert torch.equal(rest, everything[[0, 1, 2, 3, 5, 6, 7, 8]])
    again.save(tmp_path)
    assert read_json(tmp_path / "scans.json")["num_left_out"] == {"train": 1, "tuning": 0}
    next((folder / "images" / "5").rglob("0003.dcm")).unlink()
    with pytest.raises(DatasetError, match="8 training images or more of CT, got 7: 2 more cannot be used"):
        again.attach(data_of(tmp_path / "a"), seed=3, cache=tmp_path / "a" / "cache")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": [8, 8]}, "slices, rows and columns"),
        ({"size": [8, 0, 8]}, "1 or more slices"),
        ({"voxel_ratio": 0.0}, "voxel_ratio must be positive"),
        ({"voxel_ratio": float("nan")}, "voxel_ratio must be positive"),
        ({"min_slices": 1}, "min_slices must be 2 or more"),
        ({"modalities": ["CR"]}, "modalities must be of CT, MR"),
        ({"fit": "stretch"}, "fit must be pad or crop"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_refuses_settings_that_make_no_volume(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeDataModule(**{"batch_size": 1, "size": [8, 8, 8], **settings})


def drawn(**changes) -> GeneratedScan:
    """A drawn volume that is the body itself."""
    values = np.rint(volume(VolumeSpec()).values).astype(np.int16)
    settings = {"spacing_mm": (4.0, 4.0), "modality": "CT", "slice_spacing_mm": 8.0, **changes}
    return GeneratedScan("k", values, body_part="CHEST", view=None, **settings)


def test_a_drawn_volume_is_a_valid_series_of_slices_that_reads_back_as_it_was(tmp_path) -> None:
    scan = drawn()
    write_volume(tmp_path / "s", volume_of(scan), Patient("1", sex="F"), STUDY)
    validation = validate_folder(tmp_path)
    assert validation.findings() == []
    assert validation.num_objects == {"ct-image": 20}
    slices = [pydicom.dcmread(file) for file in sorted((tmp_path / "s").glob("*.dcm"))]
    assert len({one.FrameOfReferenceUID for one in slices}) == len({one.SeriesInstanceUID for one in slices}) == 1
    assert [one.InstanceNumber for one in slices] == list(range(1, 21))
    assert len({one.SOPInstanceUID for one in slices}) == 20
    heights = [float(one.ImagePositionPatient[2]) for one in slices]
    assert np.allclose(np.diff(heights), 8.0)
    assert sum(heights) == pytest.approx(0)
    assert {(one.SliceThickness, one.SpacingBetweenSlices, *one.PixelSpacing) for one in slices} == {
        (8.0, 8.0, 4.0, 4.0)
    }
    assert all([*one.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0] for one in slices)
    assert np.array_equal(open_series(tmp_path / "s").pixels(), scan.pixels)
    image = load_image(tmp_path / "s", VolumeGrid((20, 40, 40), 2.0).form().transform)
    assert image.spacing_mm == (4.0, 4.0)
    assert np.array_equal(image.values, scan.pixels)


def test_a_volume_of_unknown_spacing_is_not_written() -> None:
    for unknown in ({"spacing_mm": None}, {"slice_spacing_mm": None}):
        with pytest.raises(ValueError, match="must have a spacing"):
            volume_of(drawn(**unknown))
