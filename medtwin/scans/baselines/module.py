"""A baseline of images as a Lightning module, so that a run directory holds it like any other model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from lightning import LightningModule
from torch import Tensor

from medtwin.scans.drawing import Tile
from medtwin.scans.module import ScanBatch
from medtwin.training.threads import torch_threads


class BaselineLaw(Protocol):
    """What a network of the `net` group is for `model=scan_gmm` and `scan_gan`: a torch module with these."""

    def shape_for(self, condition_widths: Sequence[int], size: Sequence[int]) -> None:
        """Makes what depends on the data's sizes, before anything is fitted or loaded."""
        ...

    def fit(self, batch: ScanBatch, seed: int) -> None:
        """Learns the law of the training images."""
        ...

    def draw(self, tile: Tile) -> Tensor:
        """The images of a tile, (tile, 1, *size)."""
        ...


class ScanBaselineModule(LightningModule):
    """Holds a law that is fitted by itself; no optimizer of the run ever sees it.

    Args:
        net: The law.
        size: Of the images; from the data.
        condition_widths: Numbers of each condition; from the data.
    """

    def __init__(self, net: Any, *, size: Sequence[int], condition_widths: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.net.shape_for(condition_widths, size)

    def count(self, data: Any, seed: int) -> None:
        """Fits the law to the training images of data that are attached."""
        with torch_threads(1):
            self.net.fit(data.images_to_measure(), seed)

    def draw(self, tile: Tile) -> Tensor:
        """The images of a tile, (tile, 1, *size), in the scale of the network."""
        self.eval()
        with torch.inference_mode():
            images: Tensor = self.net.draw(tile)
        return images.clamp(-1, 1)
