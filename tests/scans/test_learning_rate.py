from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medtwin.scans.module import LearningRate, ScanDiffusionModule, ScanTraining
from tests.scans.test_unet import small


@pytest.mark.parametrize("limit", ["time", "steps", "none"])
def test_the_rate_has_fallen_when_steps_or_time_are_over(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    shares = iter(np.linspace(0, 1, 9) if limit == "time" else np.zeros(9))
    monkeypatch.setattr("medtwin.scans.module.time_spent", lambda _: next(shares))
    torch.manual_seed(0)
    training = ScanTraining(learning_rate=LearningRate(decay_share=0.5, floor=0.1))
    module = ScanDiffusionModule(
        small(), partial(torch.optim.SGD, lr=0.1), size=[8, 8], condition_widths=[1], training=training
    )
    stub: Any = SimpleNamespace(estimated_stepping_batches=8 if limit == "steps" else float("inf"))
    module._trainer = stub
    made = module.configure_optimizers()
    rates = []
    for _ in range(8):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.1] * 8 if limit == "none" else [0.1] * 5 + [0.075, 0.05, 0.025])
