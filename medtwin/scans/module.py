"""Training of the denoiser, as a LightningModule; the weights that count are their moving average."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict, cast

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from medtwin.scans.autoencoder_net import AutoencoderNet
from medtwin.scans.balance import ExpectedError
from medtwin.scans.codec import LatentCodec
from medtwin.scans.denoiser import Denoiser, Net
from medtwin.training.averaging import Averaging
from medtwin.training.sharding import is_sharded, shard
from medtwin.training.time_limit import time_spent

_VAL_SEED = 20221001


class ScanBatch(TypedDict):
    """Images and their conditions.

    Attributes:
        image: (batch, 1, *size), -1 to 1.
        values, known: See `conditions.Encoded`.
    """

    image: Tensor
    values: Tensor
    known: Tensor


@dataclass(frozen=True)
class NoiseDistribution:
    """The noise levels of training: sigma is log-normal (Karras et al. 2022, section 5).

    Attributes:
        mean, deviation: Of ln sigma.
    """

    mean: float = -0.5
    deviation: float = 1.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and self.deviation > 0):
            raise ValueError(f"deviation must be positive and mean finite, got {self.deviation!r} and {self.mean!r}")

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Sigmas from torch's global generator, stratified: one from each of `count` equal parts of probability."""
        u = (torch.arange(count) + torch.rand(count)) / count
        return self.at(u[torch.randperm(count)].clamp(1e-4, 1 - 1e-4)).to(device)

    def at(self, probability: Tensor) -> Tensor:
        """The sigma below which that share of the noise levels lies."""
        return (self.mean + self.deviation * math.sqrt(2) * torch.erfinv(2 * probability - 1)).exp()


@dataclass(frozen=True)
class Augmentation:
    """Small changes of position and exposure, drawn anew for each image and step.

    They are differences between visits, so that the images drawn have them too. To mirror the images would move the
    heart to the right; what may change sides is by how much an image differs from the mean image under its conditions.

    Attributes:
        shift: Most pixels to each side. degrees: Most rotation. brightness: Most change, of the range -1 to 1.
        mirror: Share of images whose difference from their mean is mirrored.
    """

    shift: float = 0.0
    degrees: float = 0.0
    brightness: float = 0.0
    mirror: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1:
            raise ValueError(f"mirror must be from 0 to 1, got {self.mirror!r}")
        for name in ("shift", "degrees", "brightness"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}")

    def __call__(self, images: Tensor, means: Tensor) -> Tensor:
        """Changed images; volumes are shifted and rotated within their slices.

        Args:
            images: (batch, channels, *size).
            means: The mean image under the conditions of each, of the same shape.
        """
        if self.mirror:
            chosen = (torch.rand(len(images)) < self.mirror).to(images.device).reshape(-1, *(1,) * (images.ndim - 1))
            images = torch.where(chosen, (means + (images - means).flip(-1)).clamp(-1, 1), images)
        if self.shift or self.degrees:
            images = self._moved(images)
        if self.brightness:
            change = self.brightness * _spread(len(images), images)
            images = (images + change.reshape(-1, *(1,) * (images.ndim - 1))).clamp(-1, 1)
        return images

    def _moved(self, images: Tensor) -> Tensor:
        plane = images.flatten(1, -3)  # slices, if any, move together
        angle = math.radians(self.degrees) * _spread(len(plane), plane)
        theta = plane.new_zeros(len(plane), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
        theta[:, 0, 1], theta[:, 1, 0] = -angle.sin(), angle.sin()
        rows, columns = plane.shape[2:]
        theta[:, 0, 2] = self.shift * 2 / columns * _spread(len(plane), plane)
        theta[:, 1, 2] = self.shift * 2 / rows * _spread(len(plane), plane)
        grid = functional.affine_grid(theta, list(plane.shape), align_corners=False)
        moved = functional.grid_sample(plane, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return moved.reshape(images.shape)


@dataclass(frozen=True)
class LearningRate:
    """How the optimizer's rate goes: a linear start, a constant, and a linear end.

    The end is that of the steps, or of the time where `trainer.max_time` limits it: what is over first.

    Attributes:
        warmup_steps: Until the rate is full. decay_share: Share of the whole, its end, over which the rate falls.
        floor: To which share of the full rate it falls.
    """

    warmup_steps: int = 0
    decay_share: float = 0.0
    floor: float = 0.02

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or not 0 <= self.decay_share <= 1 or not 0 <= self.floor <= 1:
            raise ValueError("warmup_steps must be 0 or more, decay_share and floor from 0 to 1")

    def factor(self, step: int, total_steps: float, spent: float = 0.0) -> float:
        """Of the rate, at step 0, 1, ...; where neither steps (inf) nor time are limited it never falls.

        Args:
            step: Steps done.
            total_steps: Of the whole training.
            spent: Share of the time that is allowed, 0 to 1.

        >>> rate = LearningRate(warmup_steps=1, decay_share=0.5, floor=0.1)
        >>> [round(rate.factor(step, 4), 2) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
        >>> [round(rate.factor(9, math.inf, spent), 2) for spent in (0.0, 0.5, 0.75, 1.0)]
        [1.0, 1.0, 0.5, 0.1]
        """
        rising = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if not self.decay_share:
            return rising
        done = max(step / total_steps, spent)
        return rising * min(1.0, max(self.floor, (1 - done) / max(self.decay_share, 1 / total_steps)))


@dataclass(frozen=True)
class ScanTraining:
    """How the denoiser is trained.

    Attributes:
        noise: Noise levels. averaging: Of the weights. learning_rate: Its course. augmentation: None: none.
        condition_dropout: Share of images that lose a condition, for each condition by itself.
        joint_dropout: Share of images that lose all: what guidance compares with.
        learned_weights: Whether noise levels count as their error is uncertain (`balance.py`), or all alike.
        val_noise_levels: Noise levels at which each validation image is denoised.
    """

    noise: NoiseDistribution = NoiseDistribution()
    averaging: Averaging = field(default_factory=Averaging)
    learning_rate: LearningRate = LearningRate()
    augmentation: Augmentation | None = None
    condition_dropout: float = 0.1
    joint_dropout: float = 0.1
    learned_weights: bool = False
    val_noise_levels: int = 8

    def __post_init__(self) -> None:
        for name in ("condition_dropout", "joint_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be 0 or more and below 1, got {getattr(self, name)!r}")
        if self.val_noise_levels < 1:
            raise ValueError(f"val_noise_levels must be 1 or more, got {self.val_noise_levels!r}")

    def kept(self, count: int, num_conditions: int) -> Tensor:
        """Which conditions stay, (count, num_conditions) of 1 and 0, from torch's global generator."""
        alone = torch.rand(count, num_conditions) >= self.condition_dropout
        together = torch.rand(count, 1) >= self.joint_dropout
        return (alone & together).float()


class ScanDiffusionModule(lightning.LightningModule):
    """Learns to denoise images under conditions; checkpoints hold the weights and their moving average.

    All randomness of a step comes from torch's global generator.

    Attributes:
        denoiser: What is trained. average: Its moving average: what validates and generates.
        codec: Makes latents of images and images of latents, where it is latents that are denoised; None: it is images.
        takes_steps: Whether the network is told how far a step goes (`shortcut.py`).
        training_type: What says how it is trained, with its defaults.
    """

    takes_steps: ClassVar[bool] = False
    training_type: ClassVar[type[ScanTraining]] = ScanTraining
    num_averaged: Tensor

    def __init__(  # noqa: PLR0913 - settings of a configuration, each by its name
        self,
        net: Net,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        size: Sequence[int],
        condition_widths: Sequence[int],
        training: ScanTraining | None = None,
        rank: int = 0,
        parameterization: str = "edm",
        autoencoder: AutoencoderNet | None = None,
    ) -> None:
        """Wraps a network for training.

        Args:
            net: The network.
            optimizer: Makes the optimizer of the parameters that it is given.
            size: Of the images; from the data.
            condition_widths: Numbers of each condition; from the data.
            training: How it is trained, of the module's `training_type`; None: the defaults.
            rank: Principal components of the Gaussian model (`gaussian.py`); 0: none.
            parameterization: What the network predicts: edm, v or flow.
            autoencoder: Whose latents are denoised in the place of images; its weights are loaded, not trained.

        Raises:
            ValueError: If a number is out of its range, the training is of another type, or the parts do not fit.
        """
        super().__init__()
        self.options = self.training_type() if training is None else training
        if not isinstance(self.options, self.training_type):
            raise ValueError(f"training must be {self.training_type.__name__}, got {type(training).__name__}")
        self.image_size = tuple(size)
        self.codec = None if autoencoder is None else LatentCodec(autoencoder, size)
        _require_fit(net, self.codec, self.options)
        shape = size if self.codec is None else self.codec.size
        self.denoiser = Denoiser(
            net, condition_widths, shape, rank=rank, parameterization=parameterization, takes_steps=self.takes_steps
        )
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.register_buffer("num_averaged", torch.zeros((), dtype=torch.long))
        self.optimizer_factory = optimizer
        self.expected_error = ExpectedError() if self.options.learned_weights else None

    def setup(self, stage: str) -> None:
        """Measures the training images, unless a checkpoint that is about to be loaded will say what was measured."""
        images = getattr(getattr(self.trainer, "datamodule", None), "images_to_measure", None)
        if stage == "fit" and images is not None and not int(self.num_averaged):
            self.measure(images())

    def configure_model(self) -> None:
        """Divides the weights among the processes, where the strategy is `training.sharding.Sharded`."""
        mesh = self._device_mesh
        if mesh is None or is_sharded(self.denoiser):
            return
        parts: list[nn.Module | None] = [self.expected_error]
        for denoiser in (self.denoiser, self.average):
            parts += [cast(nn.Module, denoiser.net), denoiser.embedding, denoiser.step_features]
        for part in parts:
            if part is not None:
                shard(part, mesh["data_parallel"])

    def measure(self, images: ScanBatch) -> None:
        """Measures the effects of conditions, mean, components and spectrum of the training images."""
        image, values, known = (images[name].to(self.device) for name in ("image", "values", "known"))
        if self.codec is not None:
            image = self.codec.measure(image)
        self.denoiser.measure(image, values, known)
        self.average.load_state_dict(self.denoiser.state_dict())

    def coded(self, images: Tensor) -> Tensor:
        """What the denoiser sees of images, (n, 1, *image_size): themselves, or their latents."""
        return images if self.codec is None else self.codec.posterior(images).mean

    def decoded(self, x: Tensor) -> Tensor:
        """The images, (n, 1, *image_size), of what the denoiser made."""
        return x if self.codec is None else self.codec.decode(x)

    def training_step(self, batch: ScanBatch, batch_idx: int) -> Tensor:
        """The weighted denoising error of a batch at random noise levels; logs train/loss."""
        return self.denoising_loss(self.varied(batch))

    def varied(self, batch: ScanBatch) -> ScanBatch:
        """A batch with its images augmented and encoded, and some of its conditions dropped."""
        options, images, values, known = self.options, batch["image"], batch["values"], batch["known"]
        if options.augmentation is not None:
            means = images if self.codec is not None else self.denoiser.mean_image(values, known)
            images = options.augmentation(images, means)
        if self.codec is not None:
            images = self.codec.posterior(images).sample()
        known = known * options.kept(len(images), known.shape[1]).to(images.device)
        return {"image": images, "values": values, "known": known}

    def denoising_loss(self, batch: ScanBatch) -> Tensor:
        """The weighted denoising error at random noise levels; logs train/loss."""
        images = batch["image"]
        sigma = self.options.noise.draw(len(images), images.device)
        noise = torch.randn(images.shape).to(images.device)
        error = _error(self.denoiser, images, batch["values"], batch["known"], sigma, noise)
        self.log("train/loss", error.detach().mean(), on_step=True, on_epoch=True, batch_size=len(images))
        return error.mean() if self.expected_error is None else self.expected_error.balanced(error, sigma)

    def validation_step(self, batch: ScanBatch, batch_idx: int) -> None:
        """The error of the average; logs val/loss."""
        error = self.validation_error(batch, batch_idx)
        self.log("val/loss", error, on_epoch=True, batch_size=len(batch["image"]), sync_dist=True)

    def validation_error(self, batch: ScanBatch, batch_idx: int) -> Tensor:
        """The weighted denoising error of the average, a scalar, at noise that is the same in every validation."""
        images, count = self.coded(batch["image"]), self.options.val_noise_levels
        generator = torch.Generator().manual_seed(_VAL_SEED + batch_idx)
        levels = self.options.noise.at((torch.arange(count) + 0.5) / count)
        losses = [
            _error(
                self.average,
                images,
                batch["values"],
                batch["known"],
                level.to(images.device).expand(len(images)),
                torch.randn(images.shape, generator=generator).to(images.device),
            ).mean()
            for level in levels
        ]
        return torch.stack(losses).mean()

    def configure_optimizers(self) -> Any:
        """The optimizer, and the course of its rate by steps and time."""
        trained = [self.denoiser, *([] if self.expected_error is None else [self.expected_error])]
        optimizer = self.optimizer_factory([parameter for part in trained for parameter in part.parameters()])
        rate, total = self.options.learning_rate, float(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate.factor(step, total, time_spent(self._trainer))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step of the optimizer, then one of the average."""
        super().optimizer_step(*args, **kwargs)
        self.num_averaged += 1
        self.options.averaging.move(self.average, self.denoiser, int(self.num_averaged))


def _require_fit(net: Net, codec: LatentCodec | None, training: ScanTraining) -> None:
    if codec is None:
        if net.in_channels != 1:
            raise ValueError(f"net.in_channels must be 1, as images have one channel, got {net.in_channels!r}")
        return
    if net.in_channels != codec.channels:
        raise ValueError(
            f"net.in_channels must be {codec.channels}, as the autoencoder's latents have, got {net.in_channels!r}"
        )
    if net.spatial_dims != codec.net.spatial_dims:
        raise ValueError(
            f"net.spatial_dims must be {codec.net.spatial_dims}, as the autoencoder's, got {net.spatial_dims!r}"
        )
    if training.augmentation is not None and training.augmentation.mirror:
        raise ValueError(
            f"training.augmentation.mirror must be 0 with an autoencoder: it needs the mean image, not that of the "
            f"latents, got {training.augmentation.mirror!r}"
        )


def _error(denoiser: Denoiser, images: Tensor, values: Tensor, known: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The weighted denoising error of each image, (batch,)."""
    noisy = images + sigma.reshape(-1, *(1,) * (images.ndim - 1)) * noise
    x0, weight = denoiser.denoise_and_weight(noisy, sigma, denoiser.embed(values, known))
    return (weight * (x0 - images).square()).flatten(1).mean(dim=1)


def _spread(count: int, like: Tensor) -> Tensor:
    """Numbers from -1 to 1 from torch's global generator, (count,)."""
    return (2 * torch.rand(count) - 1).to(like)
