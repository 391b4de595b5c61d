"""The Lightning module of the temporal VAE: its loss, and what is logged of the latent."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medtwin.timelines.data import TimelineDataModule
from medtwin.timelines.net import Batch, Posterior, TemporalVAE
from medtwin.training.averaging import Averaging

ACTIVE_VARIANCE = 0.01
"""A dimension of the latent is active if its posterior means vary by more. Source: Burda et al. 2016, section 5.2."""


@dataclass(frozen=True)
class WarmupCosine:
    """A learning rate that rises linearly, then falls along a cosine.

    Attributes:
        warmup_steps: Steps over which it rises.
        decay_steps: The step at which it has fallen to a tenth.
    """

    warmup_steps: int
    decay_steps: int

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or self.decay_steps < 1:
            raise ValueError("warmup_steps must be 0 or more and decay_steps 1 or more")

    def __call__(self, step: int) -> float:
        """Share of the full rate at a step."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        done = min(1.0, step / self.decay_steps)
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Forgetting:
    """What the decoder is not told in training, so that the latent and the person's traits must do for it.

    Attributes:
        events: Share of events that it does not see. values: Share of values told without what was measured before.
    """

    events: float = 0.15
    values: float = 0.15

    def __post_init__(self) -> None:
        for name in ("events", "values"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Objective:
    """What is minimised: -log p(x | z, a) + beta max(KL, free bits) + bag_weight bag-of-codes.

    Attributes:
        free_bits: Nats per latent dimension that cost nothing (Kingma et al. 2016, section C.8), granted to the share
            of the KL that the means make, mean^2 / 2. Granted to all of it they would be spent on a small variance
            that tells the decoder nothing, and N(0, I) would not be what the decoder has learned to read.
        beta_steps: Steps over which beta rises from 0 to 1.
        bag_weight: Weight of the bag-of-codes head.
    """

    free_bits: float = 0.1
    beta_steps: int = 200
    bag_weight: float = 0.3

    def __post_init__(self) -> None:
        for name in ("free_bits", "beta_steps", "bag_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}")

    def beta(self, step: int) -> float:
        """Weight of the KL at step 0, 1, ..."""
        return min(1.0, (step + 1) / max(self.beta_steps, 1))


def paid_kl(posterior: Posterior, free_bits: float) -> Tensor:
    """The KL in nats per subject that counts, (): free bits hold per dimension, for the means, on average over a group.

    >>> still = Posterior(torch.zeros(4, 1), torch.zeros(4, 1))
    >>> telling = Posterior(torch.tensor([[-0.6], [0.6], [-0.6], [0.6]]), torch.zeros(4, 1))
    >>> narrow = Posterior(torch.zeros(4, 1), torch.full((4, 1), -1.4))
    >>> [round(float(paid_kl(each, 0.25)), 2) for each in (still, telling, narrow)]
    [0.25, 0.25, 0.57]
    """
    of_means = 0.5 * posterior.mean**2
    return ((posterior.kl() - of_means).mean(dim=0) + of_means.mean(dim=0).clamp(min=free_bits)).sum()


class TemporalVAEModule(LightningModule):
    """Trains the temporal VAE by its evidence lower bound.

    Args:
        net: A `TemporalVAE`.
        optimizer: Factory: parameters to optimizer.
        objective: What is minimised, per position.
        forgetting: What the decoder is not told in training.
        schedule: Of the learning rate; null: it stays.
        averaging: Of the weights.

    Attributes:
        average: The moving average of the net: what validates and generates.
    """

    num_averaged: Tensor

    def __init__(
        self,
        net: TemporalVAE,
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        *,
        objective: Objective | None = None,
        forgetting: Forgetting | None = None,
        schedule: WarmupCosine | None = None,
        averaging: Averaging | None = None,
    ) -> None:
        super().__init__()
        self.net, self.optimizer_factory = net, optimizer
        self.objective, self.forgetting = objective or Objective(), forgetting or Forgetting()
        self.schedule, self.averaging = schedule, averaging or Averaging()
        self.average = copy.deepcopy(net).requires_grad_(False)
        self.register_buffer("num_averaged", torch.zeros((), dtype=torch.long))
        self._validated: list[tuple[Tensor, Tensor, Tensor]] = []

    def setup(self, stage: str) -> None:
        """Binds the net to the vocabulary when training begins."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, TimelineDataModule):
            self.net.bind(data.spec)
            self.average.load_state_dict(self.net.state_dict())

    def training_step(self, batch: list[Batch], batch_idx: int) -> Tensor:
        """The loss of some groups, nats per position."""
        objective, beta = self.objective, self.objective.beta(self.global_step)
        losses, kls, positions = [], [], 0
        for group in batch:
            posterior = self.net.encode(group)
            z = posterior.sample()
            hidden = self.net.decode(group, z, self.forgetting.events)
            log_prob = self.net.log_prob(group, hidden, z, self.forgetting.values).total()
            paid = paid_kl(posterior, objective.free_bits) * len(z)
            bag = self.net.bag_of_codes_loss(group, z).sum()
            losses.append(-log_prob.sum() + beta * paid + objective.bag_weight * bag)
            kls.append(posterior.kl().sum(dim=-1).mean())
            positions += int((group["kind"] != 0).sum())
        loss = torch.stack(losses).sum() / positions
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=1)
        self.log("train/kl", torch.stack(kls).mean(), on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch: list[Batch], batch_idx: int) -> None:
        """Logs the bound of the average, nats per position, and measures what the latent is worth."""
        net = self.average
        for group in batch:
            posterior = net.encode(group)
            z = posterior.sample()
            own = net.log_prob(group, net.decode(group, z), z).total()
            anyone = torch.randn_like(z)
            other = net.log_prob(group, net.decode(group, anyone), anyone).total()
            positions = int((group["kind"] != 0).sum())
            loss = (-own.sum() + posterior.kl().sum()) / positions
            self.log("val/loss", loss, prog_bar=True, on_epoch=True, on_step=False, batch_size=positions)
            self._validated.append((posterior.kl(), posterior.mean, own - other))

    def on_validation_epoch_end(self) -> None:
        """Logs KL, active units and the latent-swap gap: the nats that anybody's z costs."""
        if not self._validated:
            return
        kls, means, gaps = (torch.cat(parts) for parts in zip(*self._validated, strict=True))
        self._validated.clear()
        self.log("val/kl", kls.sum(dim=1).mean())
        self.log("val/active_units", (means.var(dim=0, correction=0) > ACTIVE_VARIANCE).float().sum())
        self.log("val/swap_gap", gaps.mean())

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step of the optimizer, then one of the average."""
        super().optimizer_step(*args, **kwargs)
        self.num_averaged += 1
        self.averaging.move(self.average, self.net, int(self.num_averaged))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, with its schedule per step."""
        optimizer = self.optimizer_factory(self.net.parameters())
        scheduler = LambdaLR(optimizer, self.schedule or (lambda step: 1.0))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
