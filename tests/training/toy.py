"""A small model and data module that use all that training promises: dropout, noise, schedules, weighted batches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.files import write_json
from medtwin.training.batches import ResumableBatches, ResumableLoader

Optimizers = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


class ToyNet(nn.Module):
    def __init__(self, *, num_features: int, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_features, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(-1)


class ToyModule(LightningModule):
    """Regression with noise on its input, an epoch-wise schedule and a plateau schedule of the rate."""

    def __init__(
        self, net: nn.Module, optimizer: Optimizers, *, scale: float, noise: float = 0.1, plateau: bool = False,
        poison_step: int | None = None, log_validation: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.optimizer_factory = net, optimizer
        self.scale, self.noise, self.plateau = scale, noise, plateau
        self.poison_step, self.log_validation = poison_step, log_validation

    def loss(self, batch: list[Tensor]) -> Tensor:
        x, y, _ = batch
        return ((self.net(x + self.noise * torch.randn_like(x)) - y / self.scale) ** 2).mean()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if folder := os.environ.get("TOY_SEEN"):  # which examples each process sees
            with (Path(folder) / f"{self.current_epoch}-{self.global_rank}").open("a") as file:
                file.write(" ".join(map(str, batch[2].tolist())) + "\n")
        time.sleep(float(os.environ.get("TOY_STEP_S", "0")))
        loss = self.loss(batch)
        if self.poison_step == self.global_step:
            loss = loss * float("nan")
        self.log("train/loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        self.log("train/most", loss, on_step=False, on_epoch=True, reduce_fx=torch.max, sync_dist=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        if self.log_validation:
            self.log("val/loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_factory(self.parameters())
        if not self.plateau:
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)]
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val/loss"}}


class ToyData(LightningDataModule):
    """Counts of each subject's codes, to predict their number of events."""

    def __init__(self, *, batch_size: int, num_workers: int = 0, weighted: bool = False) -> None:
        super().__init__()
        self.batch_size, self.num_workers, self.weighted = batch_size, num_workers, weighted
        self.codes: list[str] = []
        self.tensors: dict[str, tuple[Tensor, Tensor]] = {}
        self.seed = 0

    def attach(self, dataset: Dataset, *, seed: int, cache: Path, latents: Path | None = None) -> None:
        self.seed = seed
        train = dataset.events("train")
        self.codes = sorted(set(train["code"].to_pylist()))
        for split in ("train", "tuning"):
            if split in dataset.splits:
                self.tensors[split] = _features(dataset.events(split), self.codes)
        if not len(self.tensors["train"][0]):
            raise DatasetError("the train split has no subject to learn from")
        cache.mkdir(parents=True, exist_ok=True)

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        return {"net": {"num_features": len(self.codes)}, "model": {"scale": float(self.tensors["train"][1].std())}}

    def save(self, folder: Path) -> None:
        write_json(folder / "codes.json", {"codes": self.codes})

    def train_dataloader(self) -> ResumableLoader:
        x, y = self.tensors["train"]
        weights = np.arange(1.0, len(x) + 1) if self.weighted else None
        batches = ResumableBatches(len(x), self.batch_size, self.seed, weights=weights)
        return ResumableLoader(TensorDataset(x, y, torch.arange(len(x))), batches, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        if "tuning" not in self.tensors:
            return []
        x, y = self.tensors["tuning"]
        return DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_size=self.batch_size)


def _features(events: pa.Table, codes: list[str]) -> tuple[Tensor, Tensor]:
    subjects = {subject: row for row, subject in enumerate(sorted(set(events["subject_id"].to_pylist())))}
    x = torch.zeros(len(subjects), len(codes))
    for subject, code in zip(events["subject_id"].to_pylist(), events["code"].to_pylist(), strict=True):
        if code in codes:
            x[subjects[subject], codes.index(code)] += 1
    return x, x.sum(1)


def write_meds(folder: Path, *, train: int = 40, tuning: int = 8) -> Path:
    """A bare MEDS dataset of subjects with a few events."""
    rng = np.random.default_rng(0)
    first = 0
    for split, number in (("train", train), ("tuning", tuning)):
        if not number:
            continue
        rows = [
            {"subject_id": first + i, "time": None, "code": f"C//{code}", "numeric_value": None}
            for i in range(number)
            for code in sorted(rng.integers(0, 5, rng.integers(2, 12)).tolist())
        ]
        kinds = {"subject_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string()}
        schema = pa.schema({**kinds, "numeric_value": pa.float32()})
        path = folder / "data" / split / "0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
        first += number
    return folder
