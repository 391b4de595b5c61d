"""An encoder of images for `check`, learned without labels on the real training images: content and wear.

Half of what it learns is content: two views of an image (cropped, turned, moved, lit otherwise) should have the same
embedding, all numbers of which vary and none of which repeats another (VICReg: Bardes, Ponce & LeCun 2022, ICLR). Of
the ways to learn without labels it asks least of a few hundred images: SimCLR needs many negatives in a batch, and
counts two images of one patient among them; BYOL needs a second network that lags behind; a masked autoencoder is made
for transformers and many images. That an embedding has collapsed can be seen in the loss.

The other half is wear: views alone would teach it not to see what generators do wrong. So it also tells by how much an
image was blurred, made grainy and darkened, with features that `check` then compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from medtwin.scans.data import ScanDataModule
from medtwin.scans.features import moved
from medtwin.scans.intensity import HU_RANGE, IntensityMap, Window
from medtwin.scans.module import ScanBatch

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""Weights of the three terms. Source: Bardes et al. 2022, section 4.2."""
MAX_ANGLE, MAX_SHIFT, MIN_SIDE, MAX_GAMMA = 0.14, 0.12, 0.7, 0.2
"""Radians, half image widths, least side of a crop, and log of the exponent of light, by which two views differ."""
MAX_BLUR, MAX_GRAIN, MAX_DARK = 1.5, 0.06, 0.4
"""Pixels, share of the range, and share of the light lost: the most wear that is told."""
_VAL_SEED = 20220128


class EncoderNet(nn.Module):
    """Convolutions of stride 2; the mean response of each layer's filters over the image is a feature.

    Args:
        widths: Filters of each layer; their sum is the number of features.
        embedding: Numbers of the embedding that content is learned by.
    """

    def __init__(self, *, widths: Sequence[int] = (32, 64, 96, 128), embedding: int = 256) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1 or embedding < 2:
            raise ValueError(f"widths must be 2 or more numbers, embedding 2 or more, got {widths!r}, {embedding!r}")
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in zip((1, *widths[:-1]), widths, strict=True)
        )
        self.num_features = sum(widths)
        self.expander = nn.Sequential(
            nn.Linear(self.num_features, embedding),
            nn.BatchNorm1d(embedding),
            nn.ReLU(),
            nn.Linear(embedding, embedding),
        )
        self.wear = nn.Linear(self.num_features, 3)

    def forward(self, images: Tensor) -> Tensor:
        """(images, 1, size, size), 0 to 1, to (images, features)."""
        x, means = images - 0.5, []
        for layer in self.layers:
            x = layer(x)
            means.append(x.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


class Terms(NamedTuple):
    """The parts of the content loss, scalars: 0, 0, 0 of views that agree and embeddings that vary independently."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor

    @property
    def total(self) -> Tensor:
        """Their weighted sum."""
        return INVARIANCE * self.invariance + VARIANCE * self.variance + COVARIANCE * self.covariance


def content_terms(first: Tensor, second: Tensor) -> Terms:
    """How far two views' embeddings are apart, how little each number varies, and how much one repeats another.

    Args:
        first: (images, numbers), at least 2 images.
        second: Of the other views, in the same order.

    Source: Bardes et al. 2022, equations 1 to 6.

    >>> one = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    >>> [round(float(term), 2) for term in content_terms(one, one)]  # the two numbers repeat each other
    [0.0, 0.0, 8.0]
    """
    variance, covariance = first.new_zeros(()), first.new_zeros(())
    for side in (first, second):
        centred = side - side.mean(dim=0)
        variance = variance + functional.relu(1 - (centred.var(dim=0) + 1e-4).sqrt()).mean()
        found = centred.T @ centred / (len(side) - 1)
        covariance = covariance + (found.square().sum() - found.diagonal().square().sum()) / side.shape[1]
    return Terms(functional.mse_loss(first, second), variance, covariance)


def random_view(images: Tensor, draws: torch.Generator) -> Tensor:
    """Each image cropped, turned, moved and lit at random, (images, 1, size, size); not mirrored, blurred or grainy."""
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=draws)

    angle, side = uniform(-MAX_ANGLE, MAX_ANGLE), uniform(MIN_SIDE, 1.05)
    reach = (1 - side).clamp(min=0) + MAX_SHIFT
    down, across = (reach * uniform(-1, 1) for _ in range(2))
    seen = moved(images, angle, side, across, down)
    exponent = torch.exp(uniform(-MAX_GAMMA, MAX_GAMMA))[:, None, None, None]
    return seen.clamp(1e-4, 1) ** exponent


def worn(images: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images blurred, made grainy and darkened by random amounts, and the amounts, each from 0 to 1, (images, 3).

    A third of the images keeps each quality as it is.
    """
    amounts = torch.rand(len(images), 3, generator=draws)
    amounts = amounts * (torch.rand(amounts.shape, generator=draws) > 1 / 3)
    blur, grain, dark = (amounts[:, i, None, None, None] for i in range(3))
    size = images.shape[-1]
    place = torch.arange(size, dtype=images.dtype)
    distance = (place[:, None] - place[None]).square()
    kernels = torch.exp(-distance / (2 * (MAX_BLUR * blur[..., 0, 0] + 1e-2).square()[..., None]))
    kernels = kernels / kernels.sum(dim=2, keepdim=True)  # each row: what a pixel takes of the others
    soft = (kernels @ images[:, 0] @ kernels.transpose(1, 2))[:, None]
    noisy = soft + MAX_GRAIN * grain * torch.randn(images.shape, generator=draws)
    return noisy * (1 - MAX_DARK * dark), amounts


class ScanEncoderModule(lightning.LightningModule):
    """Learns `EncoderNet`; all randomness of a step comes from torch's global generator.

    Args:
        net: The network.
        optimizer: Makes the optimizer of the parameters that it is given.
        size: Rows and columns of the images that it learns and later sees; from the data.
        condition_widths: From the data; conditions are not looked at.
        wear_weight: Of the squared error of the told wear, beside the content.
    """

    def __init__(
        self,
        net: EncoderNet,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        size: Sequence[int],
        condition_widths: Sequence[int] = (),
        wear_weight: float = 100.0,
    ) -> None:
        super().__init__()
        if not wear_weight >= 0:
            raise ValueError(f"wear_weight must be 0 or more, got {wear_weight!r}")
        self.net, self.optimizer_factory = net, optimizer
        self.size, self.wear_weight = tuple(size), wear_weight

    def forward(self, images: Tensor) -> Tensor:
        """(images, 1, rows, columns) of any size, 0 to 1, to (images, features)."""
        if tuple(images.shape[2:]) != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        features: Tensor = self.net(images)
        return features

    def losses(self, images: Tensor, draws: torch.Generator) -> tuple[Terms, Tensor]:
        """The parts of the content loss, and the squared error of the told wear, of images from 0 to 1."""
        views = [self.net.expander(self.net(random_view(images, draws))) for _ in range(2)]
        changed, amounts = worn(images, draws)
        return content_terms(views[0], views[1]), functional.mse_loss(self.net.wear(self.net(changed)), amounts)

    def training_step(self, batch: ScanBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; logs train/loss, train/collapse (1: the embedding is one point) and train/wear."""
        terms, wear = self.losses(_unit(batch["image"]), torch.default_generator)
        loss = terms.total + self.wear_weight * wear
        number = len(batch["image"])
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=True, batch_size=number)
        self.log("train/collapse", terms.variance.detach() / 2, on_step=False, on_epoch=True, batch_size=number)
        self.log("train/wear", wear.detach(), on_step=False, on_epoch=True, batch_size=number)
        return loss

    def validation_step(self, batch: ScanBatch, batch_idx: int) -> None:
        """The loss of tuning images under views that are the same in every validation; logs val/loss."""
        draws = torch.Generator().manual_seed(_VAL_SEED + batch_idx)
        images = _unit(batch["image"])
        terms, wear = self.losses(images if len(images) > 1 else images.repeat(2, 1, 1, 1), draws)
        self.log("val/loss", terms.total + self.wear_weight * wear, on_epoch=True, batch_size=len(images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer."""
        return self.optimizer_factory(self.parameters())


class EncoderDataModule(ScanDataModule):
    """The images of `ScanDataModule` in shares of their whole stored range, as `check` sees them, scaled to -1 to 1."""

    softens = False

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of one size: of a few images nothing could be told about how an embedding varies."""
        return self.train_batches(min(self.batch_size, self.num_images["train"]), drop_last=True)

    def fit_intensity(self, images: Iterable[tuple[NDArray[np.float32], str, int]]) -> IntensityMap:
        """A window for each modality and number of bits: all that they can store."""
        windows = {}
        for modality, bits in sorted({(modality, bits) for _, modality, bits in images}):
            low, high = HU_RANGE if modality == "CT" else (0.0, float(2**bits - 1))
            windows[f"{modality}/{bits}"] = Window(low, high, bits)
        return IntensityMap(windows, {name.partition("/")[0]: name for name in windows})


def _unit(images: Tensor) -> Tensor:
    return (images + 1) / 2
