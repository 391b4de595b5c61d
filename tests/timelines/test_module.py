from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from medtwin.timelines.batches import collate
from medtwin.timelines.generate import TimelineModel
from medtwin.timelines.module import Forgetting, Objective, TemporalVAEModule
from medtwin.timelines.sequences import Sequences
from medtwin.training.averaging import Averaging
from tests.timelines.conftest import small_net

pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|smaller than)")


@pytest.fixture
def module(model: TimelineModel) -> TemporalVAEModule:
    torch.manual_seed(0)
    return TemporalVAEModule(
        small_net(model.spec),
        partial(torch.optim.SGD, lr=0.1),
        averaging=Averaging(half_life_steps=1.0, ramp=1e9),
        forgetting=Forgetting(0.0, 0.0),
    ).train()


def trainer_of(steps: int) -> Trainer:
    return Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


def loader(model: TimelineModel, sequences: Sequences, steps: int = 1) -> DataLoader:
    group = collate(sequences, [0, 1, 2], model.spec.gaps)
    return DataLoader([group] * steps, batch_size=1, collate_fn=list)


def fit(module: TemporalVAEModule, model: TimelineModel, sequences: Sequences, steps: int) -> Trainer:
    trainer = trainer_of(steps)
    trainer.fit(module, loader(model, sequences, steps), loader(model, sequences))
    return trainer


def test_the_average_lags_behind_and_is_in_the_checkpoint(
    module: TemporalVAEModule, model: TimelineModel, sequences: Sequences
) -> None:
    start = module.net.stop.bias.detach().clone()
    fit(module, model, sequences, 1)
    assert not torch.equal(module.net.stop.bias, start)
    assert torch.allclose(module.average.stop.bias, (start + module.net.stop.bias) / 2)
    assert {"average.stop.bias", "net.stop.bias", "num_averaged"} <= module.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in module.average.parameters())


def test_the_average_is_what_validates(module: TemporalVAEModule, model: TimelineModel, sequences: Sequences) -> None:
    with torch.no_grad():
        module.average.type_out.bias.add_(torch.linspace(-30, 30, len(module.average.type_out.bias)))
    losses = []
    for swapped in (False, True):
        if swapped:
            module.average.load_state_dict(module.net.state_dict())
        torch.manual_seed(1)
        losses.append(trainer_of(1).validate(module, loader(model, sequences), verbose=False)[0])
    assert losses[0]["val/loss"] > losses[1]["val/loss"] + 0.1


def test_the_loss_falls(module: TemporalVAEModule, model: TimelineModel, sequences: Sequences) -> None:
    before = float(fit(module, model, sequences, 1).callback_metrics["train/loss"])
    after = float(fit(module, model, sequences, 20).callback_metrics["train/loss"])
    assert after < before - 0.2


def test_beta_rises_to_one_and_no_steps_mean_at_once() -> None:
    assert [Objective(beta_steps=4).beta(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert Objective(beta_steps=0).beta(0) == 1.0


@pytest.mark.parametrize("name", ["free_bits", "beta_steps", "bag_weight"])
def test_refuses_negative_weights(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Objective(**{name: -1})
