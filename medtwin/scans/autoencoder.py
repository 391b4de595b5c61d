"""An autoencoder of images: a few channels of a coarser grid that say what is on them, for diffusion on large volumes.

MONAI's AutoencoderKL learns to give images back from a normal posterior of latents; what it gives back is also judged,
patch by patch, by MONAI's PatchDiscriminator, so that it is not blurred. No perceptual loss: that would need a network
that others trained.

Sources: Rombach et al. 2022 (section 3.1 and appendix G); Esser et al. 2021 (patch discriminator); Mao et al. 2017
(least squares); Kingma & Welling 2014 (KL divergence).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import lightning
import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from medtwin.scans.autoencoder_net import AutoencoderNet, at_once
from medtwin.scans.module import LearningRate, ScanBatch
from medtwin.training.checkpoints import TrainingError
from medtwin.training.time_limit import time_spent

MIN_EXPLAINED = 0.1
"""Share of the variance of unseen images below which reconstructions say nothing of them; a mean image explains 0."""
MIN_ACTIVE_VARIANCE = 0.01
"""Of the posterior mean over images, above which a latent number is active. Source: Burda et al. 2016, section 3."""


@dataclass(frozen=True)
class AutoencoderTraining:
    """How an autoencoder is trained.

    Attributes:
        kl_weight: Of the KL divergence (nats, the mean over the latent numbers), beside the mean absolute error.
        adversarial_weight: Of what the discriminator says; 0: it is not asked.
        adversarial_start: Steps after which it counts; it learns from the first one on.
        critic_channels: Of its first layer, twice as many after each. critic_layers: Further layers; each but the last
            halves the size.
        gradient_clip: Most norm of the gradient of the autoencoder, and of the discriminator.
        learning_rate: Its course, for both.
    """

    kl_weight: float = 1e-3
    adversarial_weight: float = 0.01
    adversarial_start: int = 200
    critic_channels: int = 32
    critic_layers: int = 2
    gradient_clip: float = 1.0
    learning_rate: LearningRate = field(default_factory=LearningRate)

    def __post_init__(self) -> None:
        for name in ("kl_weight", "adversarial_weight", "adversarial_start"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}")
        for name in ("critic_channels", "critic_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)!r}")
        if not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip must be positive, got {self.gradient_clip!r}")

    def critic(self, size: Sequence[int]) -> PatchDiscriminator:
        """The discriminator of images of a size.

        Raises:
            ValueError: If nothing would be left of an image after so many layers.
        """
        if min(size) // 2**self.critic_layers < 3:
            raise ValueError(
                f"size must be {3 * 2**self.critic_layers} or more each way with critic_layers={self.critic_layers}, "
                f"got {list(size)}"
            )
        return PatchDiscriminator(
            spatial_dims=len(size),
            channels=self.critic_channels,
            in_channels=1,
            num_layers_d=self.critic_layers,
            norm="INSTANCE",  # an image is judged alone, whatever else is in its batch
        )


class ScanAutoencoderModule(lightning.LightningModule):
    """Learns `AutoencoderNet`; all randomness of a step comes from torch's global generator.

    One optimizer steps autoencoder and discriminator, each on a gradient of its own: the same as a step of one and then
    one of the other on the reconstructions of before, and a step of the trainer counts once.

    Args:
        net: The network.
        optimizer: Makes the optimizer of the parameters that it is given.
        size: Of the images; from the data.
        condition_widths: From the data; conditions are not looked at.
        training: How it is trained; None: the defaults.

    Raises:
        ValueError: If the images have another number of dimensions than the net, or are too small for it.
    """

    def __init__(
        self,
        net: AutoencoderNet,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        size: Sequence[int],
        condition_widths: Sequence[int] = (),
        training: AutoencoderTraining | None = None,
    ) -> None:
        super().__init__()
        if len(size) != net.spatial_dims:
            raise ValueError(f"size must have {net.spatial_dims} numbers, as the net has dimensions, got {list(size)}")
        if min(size) < net.factor:
            raise ValueError(f"size must be {net.factor} or more each way, a pixel of the latents, got {list(size)}")
        self.automatic_optimization = False
        self.options = training or AutoencoderTraining()
        self.net, self.optimizer_factory = net, optimizer
        self.critic = self.options.critic(size)
        self.judge = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def setup(self, stage: str) -> None:
        """Refuses what two gradients clipped one by one cannot be computed in.

        Raises:
            TrainingError: In half precision, whose gradients are scaled.
        """
        if str(self.trainer.precision) in ("16-mixed", "16-true"):
            raise TrainingError(f"trainer.precision must be bf16-mixed or 32-true here, got {self.trainer.precision}")

    def training_step(self, batch: ScanBatch, batch_idx: int) -> None:
        """A step of both; logs train/loss, train/reconstruction, train/kl and train/critic (1/4: it cannot tell)."""
        images, options = batch["image"], self.options
        posterior = self.net.encode(images)
        made = self.net.decode(posterior.sample(), images.shape[2:])
        reconstruction, kl = (made - images).abs().mean(), posterior.kl().mean()
        loss = reconstruction + options.kl_weight * kl
        found = {"train/reconstruction": reconstruction, "train/kl": kl}
        if options.adversarial_weight:
            if self.global_step >= options.adversarial_start:
                loss = loss + options.adversarial_weight * self._fooled(made)
            found["train/critic"] = self._told_apart(images, made.detach())
        found["train/loss"] = loss
        self._step(loss + found.get("train/critic", 0.0))
        for name, value in found.items():
            self.log(name, value.detach(), on_step=True, on_epoch=True, batch_size=len(images))

    def _fooled(self, made: Tensor) -> Tensor:
        """How little reconstructions pass for real; no gradient reaches the discriminator."""
        with _frozen(self.critic):
            return cast(Tensor, self.judge(self.critic(made)[-1], target_is_real=True, for_discriminator=False))

    def _told_apart(self, images: Tensor, made: Tensor) -> Tensor:
        """The error of the discriminator."""
        errors = [
            self.judge(self.critic(each)[-1], target_is_real=is_real, for_discriminator=True)
            for each, is_real in ((images, True), (made, False))
        ]
        return cast(Tensor, 0.5 * (errors[0] + errors[1]))

    def _step(self, loss: Tensor) -> None:
        optimizer = cast(Any, self.optimizers())
        optimizer.zero_grad()
        self.manual_backward(loss)
        for part in (self.net, self.critic):
            nn.utils.clip_grad_norm_(part.parameters(), self.options.gradient_clip)
        optimizer.step()
        cast(Any, self.lr_schedulers()).step()

    def validation_step(self, batch: ScanBatch, batch_idx: int) -> None:
        """The error of reconstruction from posterior means, and the divergence as it counts; logs val/loss."""
        images = batch["image"]
        posterior = self.net.encode(images)
        error = (self.net.decode(posterior.mean, images.shape[2:]) - images).abs().mean()
        kl = posterior.kl().mean()
        values = {"val/loss": error + self.options.kl_weight * kl, "val/reconstruction": error, "val/kl": kl}
        self.log_dict(values, on_epoch=True, batch_size=len(images), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer of both, and the course of its rate by steps and time."""
        trained = (self.net, self.critic) if self.options.adversarial_weight else (self.net,)
        optimizer = self.optimizer_factory([parameter for part in trained for parameter in part.parameters()])
        rate, total = self.options.learning_rate, float(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate.factor(step, total, time_spent(self._trainer))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


@dataclass(frozen=True)
class Reconstruction:
    """What an autoencoder keeps of images.

    Attributes:
        explained: Share of their variance about the mean training image; 0: no more than that says, 1: all.
        mean_absolute_error: Of a pixel, in the scale of the network, -1 to 1.
        kl: Nats of a latent number, from the standard normal.
        active: Share of the latent numbers whose posterior mean varies over the images.
        num_images: So many.
    """

    explained: float
    mean_absolute_error: float
    kl: float
    active: float
    num_images: int

    @property
    def is_collapsed(self) -> bool:
        """Whether the latents, or what is made of them, say next to nothing of the images."""
        return not (self.explained >= MIN_EXPLAINED and self.active > 0)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "collapsed": self.is_collapsed}


@torch.inference_mode()
def reconstruction_of(net: AutoencoderNet, images: Tensor, mean_image: Tensor) -> Reconstruction:
    """What a network keeps of images, through their posterior means.

    Args:
        net: Trained.
        images: (n, 1, *size), 2 or more.
        mean_image: Of the training images, (1, *size).
    """
    lost = whole = absolute = kl = 0.0
    means = []
    for part in torch.split(images, at_once(images.shape[2:])):
        posterior = net.encode(part)
        made = net.decode(posterior.mean, part.shape[2:])
        lost += float((made - part).double().square().sum())
        whole += float((part - mean_image).double().square().sum())
        absolute += float((made - part).double().abs().sum())
        kl += float(posterior.kl().double().flatten(1).mean(dim=1).sum())
        means.append(posterior.mean)
    active = torch.cat(means).var(dim=0) > MIN_ACTIVE_VARIANCE
    explained = 1 - lost / whole if whole else math.nan
    return Reconstruction(
        explained, absolute / images.numel(), kl / len(images), float(active.float().mean()), len(images)
    )
