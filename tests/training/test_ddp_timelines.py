"""The temporal VAE on two processes, and stopped and continued: the weights that come out."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from medtwin.core.dataset import open_dataset
from medtwin.core.events import events_to_table, sort_events
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.data import TimelineDataModule
from medtwin.timelines.training.module import TemporalVAEModule
from tests.timelines.conftest import course
from tests.training.processes import STEPS, KillAt, Seen, run_on_two, trained, weights


@pytest.fixture(scope="module")
def meds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meds")
    table = sort_events(events_to_table([event for subject in range(1, 37) for event in course(subject)]))
    for split, keep in (("train", pc.less(table["subject_id"], 30)), ("tuning", pc.greater(table["subject_id"], 29))):
        path = folder / "data" / split / "0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table.filter(keep), path)
    return folder


def prepared(meds: Path, folder: Path) -> tuple[TimelineDataModule, TemporalVAEModule]:
    data = TimelineDataModule(tokens_per_group=120)
    data.attach(open_dataset(meds), seed=1, cache=folder / "cache")
    torch.manual_seed(5)
    net = TemporalVAE(**data.sizes["net"], latent_dim=2, width=8, num_heads=2, num_layers=1, dropout=0.1)
    return data, TemporalVAEModule(net, partial(torch.optim.AdamW, lr=0.01))


def train(meds: Path, folder: Path, *extra: Callback, devices: int = 1) -> Trainer:
    data, module = prepared(meds, folder)
    return trained(module, data, folder, *extra, devices=devices)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(meds: Path, tmp_path: Path) -> None:
    whole = weights(train(meds, tmp_path / "whole"))
    for step in (2, 5):
        with pytest.raises(RuntimeError, match="killed"):
            train(meds, tmp_path / "struck", KillAt(step))
    again = weights(train(meds, tmp_path / "struck"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    other = weights(train(meds, tmp_path / "other", KillAt(STEPS)))  # the control of nothing: no kill
    assert all(torch.equal(value, other[name]) for name, value in whole.items())


class Starts(Seen):
    """By the minutes at which the records start."""

    def names(self, batch: list, module: TemporalVAEModule) -> list[str]:
        return [str(minute) for group in batch for minute in group["start_minute"].tolist()]


@pytest.mark.slow
def test_two_processes_read_different_subjects_and_end_with_the_same_weights(meds: Path, tmp_path: Path) -> None:
    train(meds, tmp_path / "one")  # its cache is what both processes read
    first = run_on_two("tests.training.test_ddp_timelines", meds, tmp_path, timeout_s=300)
    start = prepared(meds, tmp_path / "one")[1].state_dict()
    moved = [name for name, value in first.items() if name.startswith("net.") and not torch.equal(value, start[name])]
    assert len(moved) > 40


if __name__ == "__main__":
    where = Path(sys.argv[2])
    train(Path(sys.argv[1]), where / "two", Starts(where), devices=2)
