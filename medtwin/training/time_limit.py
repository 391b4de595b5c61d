"""How much of the time that training may take is over."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer


def time_spent(trainer: Trainer | None) -> float:
    """The share of `trainer.max_time` that was spent, 0 to 1, the same in all processes; 0 where there is no limit."""
    timer = next((one for one in getattr(trainer, "callbacks", []) if isinstance(one, Timer)), None)
    if trainer is None or timer is None or (left := timer.time_remaining()) is None:
        return 0.0
    spent = timer.time_elapsed()
    share = min(1.0, spent / max(spent + left, 1e-9))
    return float(trainer.strategy.broadcast(share)) if trainer.world_size > 1 else share
