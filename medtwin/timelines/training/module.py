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

from medtwin.timelines.network.net import Batch, Forgetting, Posterior, TemporalVAE
from medtwin.timelines.reading.data import TimelineDataModule
from medtwin.timelines.training.collapse import Collapse, LatentUse
from medtwin.training.averaging import Averaging
from medtwin.training.time_limit import time_spent

_STEADY = 0.98  # weight of the past in the running mean of the posterior means


@dataclass(frozen=True)
class WarmupCosine:
    """A learning rate that rises linearly, then falls along a cosine.

    Attributes:
        warmup_steps: Steps over which it rises.
        decay_steps: The step at which it has fallen to a tenth; it has so too when the time is over, where that is
            limited.
    """

    warmup_steps: int
    decay_steps: int

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or self.decay_steps < 1:
            raise ValueError("warmup_steps must be 0 or more and decay_steps 1 or more")

    def __call__(self, step: int, spent: float = 0.0) -> float:
        """Share of the full rate at a step, when a share of the time that is allowed was spent: what is over first."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        done = min(1.0, max(step / self.decay_steps, spent))
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Hidden:
    """What the decoder is not told in training, so that the latent and the person's traits must do for it.

    Attributes:
        events: Share of events that it does not see. numbers: Share of subjects whose earlier numbers it does not see.
    """

    events: float = 0.15
    numbers: float = 0.25

    def __post_init__(self) -> None:
        for name in ("events", "numbers"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)!r}")

    def draw(self, batch: Batch) -> Forgetting:
        """What is hidden of a batch."""
        events, people = batch["event_value"], batch["sex"]
        return Forgetting(
            torch.rand(len(events), device=events.device) < self.events,
            torch.rand(len(people), device=people.device) < self.numbers,
        )


@dataclass(frozen=True)
class Objective:
    """What is minimised: -log p(x | z, a) + beta max(KL, free bits) + bag_weight bag-of-codes.

    Attributes:
        free_bits: Nats per latent dimension that cost nothing (Kingma et al. 2016, section C.8), granted to the share
            of the KL that differences between the means make. Granted to all of it they would be spent on a small
            variance, or on a mean that is everybody's: neither tells the decoder anything, and N(0, I) would not be
            what the decoder has learned to read.
        beta_steps: Steps over which beta rises from 0 to 1.
        bag_weight: Weight of the bag-of-codes head.
        shrinkage: Share that `TemporalVAE.shrink` takes away in a step, times the learning rate: steps in a direction
            that few people tell of are small beside it (Loshchilov & Hutter 2019).
    """

    free_bits: float = 0.1
    beta_steps: int = 200
    bag_weight: float = 0.3
    shrinkage: float = 0.3

    def __post_init__(self) -> None:
        for name in ("free_bits", "beta_steps", "bag_weight", "shrinkage"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}")

    def beta(self, step: int) -> float:
        """Weight of the KL at step 0, 1, ..."""
        return min(1.0, (step + 1) / max(self.beta_steps, 1))


def paid_kl(posterior: Posterior, free_bits: float, centre: Tensor | float = 0.0) -> Tensor:
    """The KL in nats per subject that counts, (): free bits hold per dimension, for the means, on average over a group.

    Args:
        posterior: Of the group.
        free_bits: As in `Objective`.
        centre: (latent,) mean of everybody's means, which no free bits are granted to.

    >>> still = Posterior(torch.zeros(4, 1), torch.zeros(4, 1))
    >>> telling = Posterior(torch.tensor([[-0.6], [0.6], [-0.6], [0.6]]), torch.zeros(4, 1))
    >>> narrow = Posterior(torch.zeros(4, 1), torch.full((4, 1), -1.4))
    >>> [round(float(paid_kl(each, 0.25)), 2) for each in (still, telling, narrow)]
    [0.25, 0.25, 0.57]
    >>> alike = Posterior(torch.full((4, 1), 0.6), torch.zeros(4, 1))
    >>> round(float(paid_kl(alike, 0.25, centre=0.6)), 2)
    0.43
    """
    of_means = 0.5 * (posterior.mean - centre) ** 2
    return ((posterior.kl() - of_means).mean(dim=0) + of_means.mean(dim=0).clamp(min=free_bits)).sum()


def num_positions(group: Batch) -> int:
    """Steps and events of a group."""
    return int(group["step_valid"].sum()) + len(group["event_token"])


class TemporalVAEModule(LightningModule):
    """Trains the temporal VAE by its evidence lower bound.

    Args:
        net: A `TemporalVAE`.
        optimizer: Factory: parameters to optimizer.
        objective: What is minimised, per position.
        forgetting: What the decoder is not told in training.
        schedule: Of the learning rate; null: it stays.
        averaging: Of the weights.
        collapse: When a latent that says nothing stops the run.

    Attributes:
        average: The moving average of the net: what validates and generates.
    """

    num_averaged: Tensor
    centre: Tensor

    def __init__(
        self,
        net: TemporalVAE,
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        *,
        objective: Objective | None = None,
        forgetting: Hidden | None = None,
        schedule: WarmupCosine | None = None,
        averaging: Averaging | None = None,
        collapse: Collapse | None = None,
    ) -> None:
        super().__init__()
        self.net, self.optimizer_factory = net, optimizer
        self.objective = objective or Objective()
        self.forgetting = forgetting or Hidden()
        self.schedule, self.averaging, self.collapse = schedule, averaging or Averaging(), collapse or Collapse()
        self.average = copy.deepcopy(net).requires_grad_(False)
        self.register_buffer("num_averaged", torch.zeros((), dtype=torch.long))
        self.register_buffer("centre", torch.zeros(net.latent_dim))
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
            read = self.net.read(group)
            posterior = self.net.encode(group, read)
            z = posterior.sample()
            forgetting = self.forgetting.draw(group)
            states = self.net.decode(group, read, z, forgetting)
            log_prob = self.net.log_prob(group, read, states, z, forgetting).total()
            self.centre += (1 - _STEADY) * (posterior.mean.detach().mean(dim=0) - self.centre)
            paid = paid_kl(posterior, objective.free_bits, self.centre) * len(z)
            bag = self.net.bag_of_codes_loss(group, z).sum() if objective.bag_weight else 0.0
            losses.append(-log_prob.sum() + beta * paid + objective.bag_weight * bag)
            kls.append(posterior.kl().sum(dim=-1).mean())
            positions += num_positions(group)
        loss = torch.stack(losses).sum() / positions
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=1)
        self.log("train/kl", torch.stack(kls).mean(), on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch: list[Batch], batch_idx: int) -> None:
        """Logs the bound of the average, nats per position, and measures what the latent is worth."""
        net = self.average
        for group in batch:
            read = net.read(group)
            posterior = net.encode(group, read)
            z, anyone = posterior.sample(), torch.randn_like(posterior.mean)
            own, other = (net.log_prob(group, read, net.decode(group, read, each), each) for each in (z, anyone))
            positions = num_positions(group)
            loss = (-own.total().sum() + posterior.kl().sum()) / positions
            self.log("val/loss", loss, prog_bar=True, on_epoch=True, on_step=False, batch_size=positions)
            for name, part in own._asdict().items():
                self.log(f"val/{name}", -part.sum() / positions, on_epoch=True, on_step=False, batch_size=positions)
            self._validated.append((posterior.kl(), posterior.mean, own.total() - other.total()))

    def on_validation_epoch_end(self) -> None:
        """Logs KL by dimension, active units and the latent-swap gap: the nats that anybody's z costs.

        Raises:
            TrainingError: If the latent has collapsed.
        """
        if not self._validated:
            return
        parts, self._validated = self._validated, []
        if self.net.latent_dim == 0:
            return
        use = LatentUse.of(parts)
        self.log("val/kl", use.kl.sum())
        self.log("val/active_units", float(use.num_active))
        self.log("val/swap_gap", use.swap_gap)
        for index, kl in enumerate(use.kl):
            self.log(f"val/kl_{index:02d}", kl)
        if not self.trainer.sanity_checking:
            self.collapse.judge(use, self.global_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step of the optimizer, the shrinkage, then a step of the average."""
        super().optimizer_step(*args, **kwargs)
        self.net.shrink(self.objective.shrinkage * args[2].param_groups[0]["lr"])
        self.num_averaged += 1
        self.averaging.move(self.average, self.net, int(self.num_averaged))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, with its schedule per step."""
        optimizer, schedule = self.optimizer_factory(self.net.parameters()), self.schedule
        scheduler = LambdaLR(optimizer, lambda step: schedule(step, time_spent(self._trainer)) if schedule else 1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
