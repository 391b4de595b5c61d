"""Is the latent used? What is measured of it, and the stop of a run in which it says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medtwin.training.callbacks import TrainingError

ACTIVE_VARIANCE = 0.01
"""A dimension of the latent is active if its posterior means vary by more. Source: Burda et al. 2016, section 5.2."""


@dataclass(frozen=True)
class LatentUse:
    """What a latent is worth to the subjects of a validation.

    Attributes:
        kl: (latent,) mean KL of every dimension, nats.
        is_active: (latent,) which dimensions are active.
        swap_gap: Mean nats per record that anybody else's z costs.
    """

    kl: Tensor
    is_active: Tensor
    swap_gap: float

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> LatentUse:
        """From KL (n, latent), posterior means (n, latent) and swap gaps (n,) of groups of subjects."""
        kl, means, gaps = (torch.cat(columns) for columns in zip(*parts, strict=True))
        active = means.var(dim=0, correction=0) > ACTIVE_VARIANCE if len(means) else torch.zeros(means.shape[1]) > 0
        return cls(kl.mean(dim=0), active, float(gaps.mean()))

    @property
    def num_active(self) -> int:
        """Active dimensions."""
        return int(self.is_active.sum())


@dataclass(frozen=True)
class Collapse:
    """When a run stops because the decoder has learned to do without the latent.

    Attributes:
        after_steps: Steps of training before which nothing is judged.
        min_active_units: Fewer active dimensions are a collapse; 0: never stop.
    """

    after_steps: int = 500
    min_active_units: int = 1

    def __post_init__(self) -> None:
        for name in ("after_steps", "min_active_units"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}")

    def judge(self, use: LatentUse, step: int) -> None:
        """Looks at a validation.

        Raises:
            TrainingError: If the latent has collapsed.
        """
        if step >= self.after_steps and use.num_active < self.min_active_units:
            raise TrainingError(
                f"the latent has collapsed: {use.num_active} of {len(use.kl)} dimensions are active at step {step} "
                f"(KL {float(use.kl.sum()):.3g} nats, another patient's z costs {use.swap_gap:.3g} nats a record). "
                "Raise model.objective.free_bits, bag_weight or beta_steps, or model.forgetting.events; "
                "model.collapse.min_active_units=0 goes on all the same, net.latent_dim=0 does without a latent"
            )
