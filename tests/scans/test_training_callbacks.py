"""What watches the training of images: averages chosen afterwards, a count of operations, grids of what is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from medtwin.scans.sample_grid import SampleGrid
from medtwin.training.callbacks import StepSeeds
from medtwin.training.flops import FlopUse
from medtwin.training.loggers import MetricsTable
from medtwin.training.snapshots import FOLDER, Snapshots, average_of
from tests.scans.test_module import Batches, batch, module

pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|smaller than)")
STEPS = 6


class Data(lightning.LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(Batches(), batch_size=None)

    def val_dataloader(self):
        return [torch.utils.data.DataLoader(Batches(), batch_size=None)]

    def images_to_measure(self):
        return batch(16)


def trained(folder: Path, *callbacks: Callback):
    model, table = module(), MetricsTable(folder)
    trainer = Trainer(
        max_steps=STEPS, accelerator="cpu", logger=table, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, default_root_dir=folder,
        callbacks=[StepSeeds(0), *callbacks], limit_val_batches=1,
    )  # fmt: skip
    trainer.fit(model, datamodule=Data())
    return model, [line for line in table._journal.read_text().splitlines() if line]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    snapshots = Snapshots(every_steps=2, tried_widths=(0.05, 0.25))
    model, lines = trained(folder, snapshots, FlopUse(), SampleGrid(side=2, num_steps=3))
    return folder, model, lines, snapshots


def test_the_average_that_validates_best_is_taken_and_others_can_be_made_later(run) -> None:
    folder, model, lines, _ = run
    assert [path.name for path in sorted((folder / FOLDER).glob("*.pt"))] == [f"{n:09d}.pt" for n in (2, 4, 6)]
    said = next(line for line in lines if "average/width" in line)
    scores = json.loads(said)
    losses = {float(name.rsplit("_", 1)[1]): v for name, v in scores.items() if name.startswith("average/val_loss")}
    assert set(losses) == {0.0, 0.05, 0.25}
    assert scores["average/width"] == min(losses, key=losses.get)
    wide, narrow = (average_of(folder / FOLDER, STEPS, width) for width in (0.25, 0.05))
    now = dict(model.denoiser.named_parameters())
    name = "net.out.weight"
    assert (narrow[name] - now[name]).abs().sum() < (wide[name] - now[name]).abs().sum()


def test_a_checkpoint_holds_the_averages(run) -> None:
    state = run[3].state_dict()
    again = Snapshots(every_steps=2)
    again.load_state_dict(state)
    again.on_train_start(None, module())
    assert all(
        torch.equal(mine.weights[name], theirs.weights[name])
        for mine, theirs in zip(again._averages, run[3]._averages, strict=True)
        for name in mine.weights
    )


def test_operations_are_counted_and_a_share_of_the_machine(run) -> None:
    logged = {name: value for line in run[2] for name, value in json.loads(line).items()}
    model = module()
    model.log = lambda *given, **more: None
    with FlopCounterMode(display=False) as counter:
        model.training_step(batch(), 0).backward()
    assert logged["time/gflop_per_step"] == pytest.approx(counter.get_total_flops() / 1e9, rel=0.01)
    assert 0 < logged["time/flop_utilisation"] < 1
    per_second = logged["time/gflop_per_step"] * logged["time/steps_per_s"]
    assert logged["time/gflops_per_s"] == pytest.approx(per_second, rel=1e-3)


def test_a_grid_shows_what_is_drawn_and_changes_nothing_of_the_training(run, tmp_path) -> None:
    path = sorted((run[0] / "samples").glob("*.png"))[-1]
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (16, 16)
    assert pixels.std() > 5
    plain, _ = trained(tmp_path, Snapshots(every_steps=2, tried_widths=(0.05, 0.25)))
    same = zip(plain.state_dict().values(), run[1].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Snapshots(every_steps=0),
        lambda: Snapshots(kept_widths=(0.1,)),
        lambda: Snapshots(tried_widths=(0.5,)),
        lambda: SampleGrid(side=0),
        lambda: SampleGrid(num_steps=1),
    ],
)
def test_refuses_numbers_out_of_range(make) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
