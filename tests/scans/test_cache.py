from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

import medtwin.scans.cache
from medtwin.core.dataset import Dataset
from medtwin.core.files import write_manifest
from medtwin.core.images import table_to_images
from medtwin.scans.cache import CachedImages, read_cached
from tests.scans.samples import Spec, disc, write_dataset


def _read(dataset: Dataset, folder: Path, size: int = 8, **settings) -> CachedImages:
    return read_cached(dataset, table_to_images(dataset.images()), folder, size=size, **settings)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    specs = [Spec(spacing_mm=None if i == 1 else (2.0, 1.0), shape=(16, 32)) for i in range(6)]
    return write_dataset(tmp_path / "dataset", specs)


def test_holds_images_and_spacings(dataset: Dataset, tmp_path: Path) -> None:
    found = _read(dataset, tmp_path / "cache")
    assert len(found) == 6
    assert found.values(5).shape == (8, 8)
    assert list(found.spacings()) == [(4.0, 4.0), None, *[(4.0, 4.0)] * 4]
    with pytest.raises(ValueError, match="read-only"):
        found.values(0)[0] = 1


def test_another_dataset_of_the_same_files_is_read_from_the_cache_and_a_changed_one_is_not(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _read(dataset, tmp_path / "cache")
    shutil.copytree(dataset.path, tmp_path / "copy")
    write_manifest(tmp_path / "copy")  # finished: digests come from the manifest
    calls: list[Path] = []
    load = medtwin.scans.cache.load_image
    monkeypatch.setattr("medtwin.scans.cache.load_image", lambda *args: (calls.append(args[0]), load(*args))[1])
    again = _read(Dataset(tmp_path / "copy", "simulated"), tmp_path / "cache")
    assert calls == []
    assert all(np.array_equal(first.values(i), again.values(i)) for i in range(6))
    _read(dataset, tmp_path / "cache", fit="crop")
    _read(dataset, tmp_path / "cache", size=4)
    assert len(calls) == 12
    changed = write_dataset(tmp_path / "new", [Spec(shape=(16, 32))] * 6, [disc(3 + i, (16, 32)) for i in range(6)])
    shutil.rmtree(dataset.path)
    changed.path.rename(dataset.path)  # the same place, other images
    assert not np.array_equal(_read(dataset, tmp_path / "cache").values(5), first.values(5))


@pytest.mark.parametrize("damage", [lambda file: file[:100], lambda file: file[:-8], lambda _: b""])
def test_a_damaged_file_is_made_again(dataset: Dataset, tmp_path: Path, damage) -> None:
    first = np.array(_read(dataset, tmp_path / "cache").values(2))
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(_read(dataset, tmp_path / "cache").values(2), first)


def _in_a_process(dataset: Dataset, folder: Path, start, found) -> None:
    start.wait()
    found.put(float(_read(dataset, folder).values(3).sum()))


def test_two_runs_that_start_at_once_share_one_file(dataset: Dataset, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(2), context.Queue()
    both = [context.Process(target=_in_a_process, args=(dataset, tmp_path / "cache", start, found)) for _ in range(2)]
    for one in both:
        one.start()
    sums = [found.get(timeout=60) for _ in both]
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0]
    assert sums == [float(_read(dataset, tmp_path / "cache").values(3).sum())] * 2
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]
