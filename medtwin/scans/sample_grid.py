"""Grids of images that are drawn as training goes on, from the same noise each time."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from medtwin.core.files import atomic_file
from medtwin.scans.drawing import DenoiserDrawer, Sampling, Tile
from medtwin.scans.module import ScanDiffusionModule
from medtwin.training.batches import torch_seed
from medtwin.training.loggers import run_folder
from medtwin.training.sharding import is_sharded


class SampleGrid(Callback):
    """Draws a grid after each so-many-th validation; writes `samples/<step>.png`, and to TensorBoard where it logs.

    The images are drawn under the conditions of training images, those that lie evenly in their order. Nothing of the
    training depends on it: its noise has a generator of its own.

    Args:
        every_validations: Validations between grids.
        side: Images of a row and of a column.
        num_steps: Evaluations of the denoiser for an image, by dpmpp_2m.
        seed: Of the noise.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(self, *, every_validations: int = 1, side: int = 4, num_steps: int = 20, seed: int = 0) -> None:
        for name, value in (("every_validations", every_validations), ("side", side)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        if num_steps < 2:
            raise ValueError(f"num_steps must be 2 or more, got {num_steps!r}")
        self._every, self._side, self._num_steps, self._seed = every_validations, side, num_steps, seed

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, if it is time."""
        if trainer.sanity_checking or not isinstance(pl_module, ScanDiffusionModule):
            return
        every = self._every * (trainer.check_val_every_n_epoch or 1)
        if (trainer.current_epoch + 1) % every:
            return
        if not trainer.is_global_zero and not is_sharded(pl_module.average):
            return
        images = self._drawn(pl_module, cast(Any, trainer).datamodule)
        if not trainer.is_global_zero:  # it only lent its share of the weights
            return
        pixels = grid_of(images, self._side)
        path = run_folder(trainer) / "samples" / f"{trainer.global_step:09d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            Image.fromarray(pixels).save(file, format="PNG")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", pixels, trainer.global_step, dataformats="HW")

    @torch.no_grad()
    def _drawn(self, module: ScanDiffusionModule, data: Any) -> Tensor:
        batch, count = data.images_to_measure(), self._side**2
        chosen = torch.linspace(0, len(batch["image"]) - 1, count).round().long()
        values, known = (batch[name][chosen].to(module.device) for name in ("values", "known"))

        def noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
            generator = torch.Generator().manual_seed(torch_seed(self._seed, "sample grid", purpose))
            return torch.randn(count, *shape, generator=generator).to(module.device)

        was_training = module.average.training
        drawer = DenoiserDrawer(module.average.eval(), Sampling(), self._num_steps, 1.0)
        images = module.decoded(drawer(Tile(values, known, noise))).float().cpu()
        module.average.train(was_training)
        return images


def grid_of(images: Tensor, side: int) -> NDArray[np.uint8]:
    """Images (side^2, channels, *size), -1 to 1, in rows and columns, 8 bits; of volumes the middle slices.

    >>> grid_of(torch.tensor([-1.0, 1.0, 0.0, 2.0]).reshape(4, 1, 1, 1), 2).tolist()
    [[0, 255], [128, 255]]
    """
    flat = images[:, 0]
    while flat.ndim > 3:
        flat = flat[:, flat.shape[1] // 2]
    rows, columns = flat.shape[1:]
    table = flat.reshape(side, side, rows, columns).permute(0, 2, 1, 3).reshape(side * rows, side * columns)
    pixels: NDArray[np.uint8] = ((table.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    return pixels


__all__ = ["SampleGrid", "grid_of"]
