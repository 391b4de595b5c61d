from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import medtwin.scans.cache
from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError, SourceError
from medtwin.core.files import read_json
from medtwin.scans.conditions import CONDITIONS, ConditionSpec, ScanRequest
from medtwin.scans.data import ScanDataModule
from medtwin.scans.generate import ScanDescription
from medtwin.scans.spacings import SpacingTable
from tests.scans.samples import BIG, RARE, Spec, disc, write_dataset


def attached(tmp_path: Path, specs: list[Spec], latents=None, **settings) -> ScanDataModule:
    data = ScanDataModule(**{"batch_size": 4, "size": 16, "min_count": 2, **settings})
    dataset = write_dataset(tmp_path / "dataset", specs)
    data.attach(dataset, seed=3, cache=tmp_path / "cache", latents=latents and latents(dataset))
    return data


def some(count: int = 10, **changes) -> list[Spec]:
    return [Spec(labels=(BIG,) if i % 2 else (), **changes) for i in range(count)]


def test_batches_hold_every_training_image_once(tmp_path) -> None:
    data = attached(tmp_path, [*some(), *some(3, split="tuning"), *some(2, split="held_out")])
    batches = list(data.train_dataloader())
    assert [len(b["image"]) for b in batches] == [4, 4, 2]
    images = torch.cat([b["image"] for b in batches])
    assert images.shape == (10, 1, 16, 16)
    assert images.dtype == torch.float32
    assert -1.0 <= float(images.min()) < -0.8
    assert 0.8 < float(images.max()) <= 1.0
    assert len({image.numpy().tobytes() for image in images}) == 10
    (validation,) = data.val_dataloader()
    assert sum(len(b["image"]) for b in validation) == 3
    assert data.num_images == {"train": 10, "tuning": 3}


def test_conditions_go_with_their_images(tmp_path) -> None:
    data = attached(tmp_path, some())
    start = sum(data.spec.widths[: CONDITIONS.index("findings")])
    for batch in data.train_dataloader():
        is_big = batch["values"][:, start] == 1.0
        area = (batch["image"] > 0).sum(dim=(1, 2, 3))
        assert torch.equal(is_big, area > 50)


def test_images_are_laid_on_a_template_of_the_training_images(tmp_path) -> None:
    plain = attached(tmp_path / "plain", [*some(), *some(3, split="tuning")])
    data = attached(tmp_path / "laid", [*some(), *some(3, split="tuning")], align=True)
    before, after = plain.images_to_measure()["image"], data.images_to_measure()["image"]
    assert float(after.var(dim=0).mean()) < float(before.var(dim=0).mean())
    assert sum(len(batch["image"]) for batch in data.val_dataloader()[0]) == 3
    again = attached(tmp_path / "again", [*some(), *some(3, split="tuning")], align=True)
    assert torch.equal(after, again.images_to_measure()["image"])
    data.save(tmp_path)
    law = ScanDescription.from_json(read_json(tmp_path / "scans.json")).poses
    assert law is not None
    assert law.to_json() == data.poses.to_json()
    assert attached(tmp_path / "none", some(), align=True).val_dataloader() == []


def test_sizes_are_those_of_the_data(tmp_path) -> None:
    data = attached(tmp_path, some())
    assert data.sizes == {"model": {"size": [16, 16], "condition_widths": [1, 1, 1, 1, 1, 3, 1, 0]}}


def test_what_only_tuning_and_held_out_hold_is_nowhere(tmp_path) -> None:
    planted = [Spec(labels=(RARE,), view="LL", sex="M", age_years=88.0, split=s) for s in ("tuning", "held_out")] * 6
    data, control = attached(tmp_path / "a", [*some(), *planted]), attached(tmp_path / "b", some())
    data.save(tmp_path / "a" / "out")
    control.save(tmp_path / "b" / "out")
    text = (tmp_path / "a" / "out" / "scans.json").read_text()
    assert text == (tmp_path / "b" / "out" / "scans.json").read_text()
    assert RARE not in text
    assert torch.equal(data.images_to_measure()["image"], control.images_to_measure()["image"])
    everywhere = attached(tmp_path / "c", [*some(), *[Spec(labels=(RARE,))] * 3])
    everywhere.save(tmp_path / "c" / "out")
    assert RARE in (tmp_path / "c" / "out" / "scans.json").read_text()


def test_saved_description_is_complete(tmp_path) -> None:
    data = attached(tmp_path, some())
    data.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "scans.json").read_text())
    assert ConditionSpec.from_json(saved["conditions"]) == data.spec
    assert SpacingTable.from_json(saved["spacings"]) == data.spacings
    assert saved["size"] == 16
    assert data.spacings.draw(ScanRequest("k", "CR", "CHEST"), seed=0) == (4.0, 4.0)  # 2 mm, 32 to 16 pixels


def test_the_cache_is_read_instead_of_the_files(tmp_path, monkeypatch) -> None:
    data = attached(tmp_path, some())
    monkeypatch.setattr("medtwin.scans.cache.load_image", lambda *_: pytest.fail("read again"))
    again = ScanDataModule(batch_size=4, size=16, min_count=2)
    again.attach(Dataset(tmp_path / "dataset", "simulated"), seed=3, cache=tmp_path / "cache")
    assert torch.equal(again.images_to_measure()["image"], data.images_to_measure()["image"])


def test_a_killed_reading_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("medtwin.scans.cache.CHUNK", 4)
    whole = attached(tmp_path / "a", some())
    calls, load = [], medtwin.scans.cache.load_image

    def dies(*args):
        calls.append(args)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return load(*args)

    monkeypatch.setattr("medtwin.scans.cache.load_image", dies)
    with pytest.raises(KeyboardInterrupt):
        attached(tmp_path / "b", some())
    data = ScanDataModule(batch_size=4, size=16, min_count=2)
    data.attach(Dataset(tmp_path / "b" / "dataset", "simulated"), seed=3, cache=tmp_path / "b" / "cache")
    assert len(calls) == 7 + 6  # the first chunk of 4 was kept
    assert torch.equal(data.images_to_measure()["image"], whole.images_to_measure()["image"])


def test_latents_become_a_condition(tmp_path) -> None:
    def write(dataset) -> Path:
        uids = dataset.images()["series_uid"].to_pylist()[:-1]
        latents = [[float(i), -float(i)] for i in range(len(uids))]
        pq.write_table(pa.table({"series_uid": uids, "latent": latents}), tmp_path / "z.parquet")
        return tmp_path / "z.parquet"

    data = attached(tmp_path, some(), write)
    assert data.spec.latent_width == 2
    batches = list(data.train_dataloader())
    assert sum(float(b["known"][:, CONDITIONS.index("latent")].sum()) for b in batches) == 9
    assert max(float(b["values"][:, -2].max()) for b in batches) == 8.0


def test_rare_findings_can_be_shown_more_often(tmp_path) -> None:
    data = attached(tmp_path, [*some(20), *[Spec(labels=(RARE,))] * 2], balance=1.0, batch_size=200)
    seen = torch.cat([b["values"] for _ in range(40) for b in data.train_dataloader()])
    start = sum(data.spec.widths[: CONDITIONS.index("findings")])
    assert float(seen[:, start + 1].mean()) > 0.2  # 2 of 22 without


def test_refuses_what_cannot_be_learned(tmp_path) -> None:
    with pytest.raises(DatasetError, match="8 training images or more of MR, got 0"):
        attached(tmp_path / "a", some(), modalities=["MR"])
    with pytest.raises(DatasetError, match="is missing"):
        attached(tmp_path / "b", some(), lambda _: tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="slices"):
        ScanDataModule(batch_size=1, size=8, slices="all")


def test_images_of_one_constant_are_refused_by_name(tmp_path) -> None:
    dataset = write_dataset(tmp_path / "dataset", some(), [np.full((16, 16), 7, np.uint16)] * 10)
    with pytest.raises(DatasetError, match=r"dataset: the training images of CR/12 bits must not be one constant"):
        ScanDataModule(batch_size=4, size=16).attach(dataset, seed=0, cache=tmp_path / "cache")


def test_a_corrupt_series_stops_it_by_name(tmp_path) -> None:
    dataset = write_dataset(tmp_path / "dataset", some())
    path = next((dataset.path / "images" / "3").rglob("*.dcm"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="images/3/"):
        ScanDataModule(batch_size=4, size=16).attach(dataset, seed=0, cache=tmp_path / "cache")


def test_spacings_are_drawn_as_often_as_they_are_seen() -> None:
    images = [ScanRequest("k", "CR", "CHEST", spacing_mm=(1.0, 1.0))] * 3 + [ScanRequest("k", "CR", "HAND")]
    table = SpacingTable.fit(images)
    drawn = [table.draw(ScanRequest(str(i), "CR"), 0) for i in range(400)]
    assert np.mean([spacing == (1.0, 1.0) for spacing in drawn]) == pytest.approx(0.75, abs=0.07)
    assert set(drawn) == {(1.0, 1.0), None}
    assert table.draw(ScanRequest("0", "CR", "HAND"), 0) is None  # not invented
    assert table.draw(ScanRequest("0", "CR", "HAND", spacing_mm=(3.0, 3.0)), 0) == (3.0, 3.0)


def test_disc_is_what_the_samples_say() -> None:
    assert disc(6.0).max() == 3800
