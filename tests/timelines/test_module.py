from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.network.net import Forgetting, Posterior
from medtwin.timelines.reading.batches import Batch, GroupedTimelines
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.training.collapse import Collapse, LatentUse
from medtwin.timelines.training.module import Hidden, Objective, TemporalVAEModule, WarmupCosine, num_positions, paid_kl
from medtwin.training.averaging import Averaging
from medtwin.training.callbacks import TrainingError
from tests.timelines.conftest import lively, read_decoded, small_net

pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|smaller than)")


@pytest.fixture(scope="module")
def groups(short_model: TimelineModel, short: Sequences) -> list[Batch]:
    grouped = GroupedTimelines(short, short_model.spec.gaps, 300, seed=0)
    return [grouped[index] for index in range(3)]


def module_of(model: TimelineModel, **options: Any) -> TemporalVAEModule:
    torch.manual_seed(0)
    options = {"averaging": Averaging(half_life_steps=1.0, ramp=1e9), "forgetting": Hidden(0.0, 0.0), **options}
    return TemporalVAEModule(small_net(model.spec), partial(torch.optim.SGD, lr=0.1), **options).train()


def trainer_of(steps: int, folder: Path | None = None) -> Trainer:
    return Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip


def loader(groups: list[Batch], steps: int = 1) -> DataLoader:
    return DataLoader(groups[:1] * steps, batch_size=1, collate_fn=list)


def fit(module: TemporalVAEModule, groups: list[Batch], steps: int) -> Trainer:
    trainer = trainer_of(steps)
    module.train()
    trainer.fit(module, loader(groups, steps), loader(groups))
    return trainer


def test_the_average_lags_behind_and_is_in_the_checkpoint(short_model: TimelineModel, groups: list[Batch]) -> None:
    module = module_of(short_model)
    start = module.net.times.stop.bias.detach().clone()
    fit(module, groups, 1)
    assert not torch.equal(module.net.times.stop.bias, start)
    assert torch.allclose(module.average.times.stop.bias, (start + module.net.times.stop.bias) / 2)
    assert {"average.times.stop.bias", "net.times.stop.bias", "num_averaged"} <= module.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in module.average.parameters())


def test_the_average_is_what_validates(short_model: TimelineModel, groups: list[Batch]) -> None:
    module, losses = module_of(short_model), []
    bias = module.average.codes.type_out.bias
    with torch.no_grad():
        bias.add_(torch.linspace(-30, 30, len(bias)))
    for swapped in (False, True):
        if swapped:
            module.average.load_state_dict(module.net.state_dict())
        torch.manual_seed(1)
        losses.append(trainer_of(1).validate(module, loader(groups), verbose=False)[0])
    assert losses[0]["val/loss"] > losses[1]["val/loss"] + 0.1
    parts = sum(losses[1][f"val/{name}"] for name in ("stop", "gap", "type", "code", "value"))
    positions = num_positions(groups[0]) / len(groups[0]["sex"])
    assert losses[1]["val/loss"] == pytest.approx(parts + losses[1]["val/kl"] / positions, rel=1e-4)
    assert losses[1]["val/kl"] == pytest.approx(sum(losses[1][f"val/kl_{index:02d}"] for index in range(4)), rel=1e-4)


def test_the_loss_falls(short_model: TimelineModel, groups: list[Batch]) -> None:
    module = module_of(short_model)
    module.optimizer_factory = partial(torch.optim.Adam, lr=0.003)
    before = float(fit(module, groups, 1).callback_metrics["train/loss"])
    after = float(fit(module, groups, 20).callback_metrics["train/loss"])
    assert after < before - 0.4


def test_the_loss_is_that_of_the_definition(short_model: TimelineModel, groups: list[Batch]) -> None:
    module = module_of(short_model, objective=Objective(free_bits=0.1, beta_steps=0, bag_weight=0.5))
    group, net = groups[0], module.net
    module.log = lambda *given, **options: None  # type: ignore[method-assign]
    module._trainer = trainer_of(1)
    with torch.no_grad():
        torch.manual_seed(4)
        posterior = net.encode(group)
        z = posterior.sample()
        # Without forgetting numbers are blurred by their rounding, here too.
        half = {**group, "event_half": torch.zeros_like(group["event_half"])}
        bag = net.bag_of_codes_loss(group, z).sum()
        wanted = (
            -read_decoded(net, group, z).total().sum() + len(z) * paid_kl(posterior, 0.1, module.centre) + 0.5 * bag
        )
        torch.manual_seed(4)
        loss = module.training_step([half], 0)
    assert float(loss) == pytest.approx(float(wanted) / num_positions(group), rel=1e-4)
    assert num_positions(group) == int(group["step_valid"].sum()) + len(group["event_token"])


def test_what_is_forgotten_is_not_heard(short_model: TimelineModel, groups: list[Batch]) -> None:
    """With all numbers of the past hidden the decoder's states do not depend on them; codes and times stay."""
    net, group = lively(small_net(short_model.spec)), groups[0]
    z = torch.zeros(len(group["sex"]), net.latent_dim)
    other = {**group, "event_value": group["event_value"] + 2.0, "event_memory": group["event_memory"] + 1.0}
    hidden = Forgetting(torch.zeros(len(group["event_value"])) > 0, torch.ones(len(group["sex"])) > 0)
    with torch.no_grad():
        one, two = (net.decode(each, net.read(each), z, hidden)[1] for each in (group, other))
        free, changed = (net.decode(each, net.read(each), z)[1] for each in (group, other))
    valid = group["step_valid"]
    assert torch.allclose(one[valid], two[valid], atol=1e-5)
    assert not torch.allclose(free[valid], changed[valid], atol=1e-3)


def test_shares_are_hidden_of_events_and_of_subjects(groups: list[Batch]) -> None:
    torch.manual_seed(0)
    drawn = [Hidden(0.3, 0.6).draw(groups[0]) for _ in range(200)]
    assert float(torch.cat([one.events for one in drawn]).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(torch.cat([one.numbers for one in drawn]).float().mean()) == pytest.approx(0.6, abs=0.03)
    nothing = Hidden(0.0, 0.0).draw(groups[0])
    assert not nothing.events.any()
    assert not nothing.numbers.any()


def test_free_bits_cost_the_same_below_and_full_above() -> None:
    def paid(mean: float, log_var: float = 0.0, bits: float = 0.2) -> float:
        means = torch.tensor([[mean], [-mean]])
        return float(paid_kl(Posterior(means, torch.full((2, 1), log_var)), bits))

    assert paid(0.0) == pytest.approx(0.2)
    assert paid(0.3) == pytest.approx(0.2)
    assert paid(1.0) == pytest.approx(0.5)
    assert paid(0.0, -2.0) == pytest.approx(0.2 + 0.5 * (torch.exp(torch.tensor(-2.0)) + 1.0))
    assert paid(1.0, bits=0.0) == pytest.approx(0.5)
    mean = torch.tensor([[0.1], [-0.1]], requires_grad=True)
    paid_kl(Posterior(mean, torch.zeros(2, 1)), 0.2).backward()
    assert not mean.grad.any()  # below, nothing pulls


def test_beta_rises_to_one_and_no_steps_mean_at_once() -> None:
    assert [Objective(beta_steps=4).beta(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert Objective(beta_steps=0).beta(0) == 1.0


def test_the_rate_rises_then_falls() -> None:
    rate = WarmupCosine(warmup_steps=4, decay_steps=100)
    rates = [rate(step) for step in range(140)]
    assert rates[0] == pytest.approx(0.25)
    assert max(rates) == rates[3] > 0.99
    assert (torch.diff(torch.tensor(rates[3:])) <= 0).all()
    assert rates[100:] == pytest.approx([0.1] * 40)
    assert [rate(50, spent) for spent in (0.0, 0.5, 1.0)] == pytest.approx([rates[50], rates[50], 0.1])


def test_the_rate_has_fallen_when_the_time_is_over(
    short_model: TimelineModel, groups: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(short_model, schedule=WarmupCosine(warmup_steps=1, decay_steps=10**6))
    trainer = Trainer(
        accelerator="cpu", max_steps=-1, max_epochs=-1, max_time={"seconds": 2}, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    rates = []
    step = module.optimizer_step

    def noted(*given: Any, **options: Any) -> None:
        rates.append(given[2].param_groups[0]["lr"])
        step(*given, **options)

    monkeypatch.setattr(module, "optimizer_step", noted)
    trainer.fit(module, loader(groups, 20), loader(groups))
    assert len(rates) > 5
    assert rates[0] == pytest.approx(0.1, rel=0.1)
    assert rates[-1] < 0.3 * rates[0]
    assert (np.diff(rates) <= 1e-12).all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((partial(Objective, **{name: -1}), name) for name in ("free_bits", "beta_steps", "bag_weight")),
        *((partial(Hidden, **{name: 1.0}), name) for name in ("events", "numbers")),
        *((partial(Collapse, **{name: -1}), name) for name in ("after_steps", "min_active_units")),
        (partial(WarmupCosine, -1, 5), "warmup_steps"),
    ],
)
def test_refuses_settings_out_of_range(make: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()


def use_of(active: int) -> LatentUse:
    means = torch.zeros(50, 4)
    means[::2, :active] = 1.0
    kl, gaps = torch.full((50, 4), 0.1), torch.ones(50)
    return LatentUse.of([(kl[part], means[part], gaps[part]) for part in (slice(30), slice(30, 50))])


def test_use_of_a_latent_is_measured_over_all_subjects() -> None:
    use = use_of(2)
    assert use.is_active.tolist() == [True, True, False, False]
    assert use.num_active == 2
    assert use.kl.tolist() == pytest.approx([0.1] * 4)
    assert use.swap_gap == pytest.approx(1.0)


def test_a_collapsed_latent_stops_the_run_with_a_reason(short_model: TimelineModel, groups: list[Batch]) -> None:
    guard = Collapse(after_steps=10, min_active_units=2)
    guard.judge(use_of(1), 9)
    guard.judge(use_of(2), 10)
    with pytest.raises(TrainingError, match="the latent has collapsed: 1 of 4 dimensions are active at step 10"):
        guard.judge(use_of(1), 10)
    module = module_of(short_model, collapse=Collapse(after_steps=1))
    with torch.no_grad():
        for net in (module.net, module.average):
            net.posterior.weight.zero_()
    module.net.posterior.requires_grad_(False)
    with pytest.raises(TrainingError, match=r"Raise model\.objective\.free_bits"):
        fit(module, groups, 1)
    module.collapse = Collapse(after_steps=1, min_active_units=0)
    fit(module, groups, 1)


def test_a_net_without_latent_trains_and_is_no_collapse(short_model: TimelineModel, groups: list[Batch]) -> None:
    module = TemporalVAEModule(
        small_net(short_model.spec, latent_dim=0), partial(torch.optim.SGD, lr=0.1), collapse=Collapse(0)
    )
    metrics = fit(module, groups, 2).callback_metrics
    assert float(metrics["train/kl"]) == 0.0
    assert "val/active_units" not in metrics
    assert torch.isfinite(metrics["val/loss"])


def test_what_ties_one_feature_to_one_number_is_shrunk_and_nothing_else(
    short_model: TimelineModel, groups: list[Batch]
) -> None:
    weights = []
    for shrinkage in (0.0, 0.5):
        module = module_of(short_model, objective=Objective(shrinkage=shrinkage))
        fit(module, groups, 1)
        weights.append({name: parameter.detach().clone() for name, parameter in module.net.named_parameters()})
    free, shrunk = weights
    direct = ("values.trait", "values.loading", "values.effect", "values.rhythm")
    for name, weight in free.items():
        kept = torch.tensor(1 - 0.5 * 0.1 if name.removesuffix(".weight").endswith(direct) else 1.0)  # the rate is 0.1
        if name == "values.trait.weight":
            first = short_model.net.num_sexes + short_model.net.num_facts
            kept = kept.repeat(weight.shape[1])
            kept[first : first + short_model.net.latent_dim] = 1.0
        assert torch.allclose(shrunk[name], kept * weight, atol=1e-7), name


def test_a_mean_that_is_everybodys_is_paid_for_once_it_is_known(
    short_model: TimelineModel, groups: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(short_model)
    monkeypatch.setattr(module, "log", lambda *given, **options: None)
    module._trainer = trainer_of(1)
    with torch.no_grad():
        for parameter in module.net.posterior.parameters():
            parameter.zero_()
        module.net.posterior.bias[: short_model.net.latent_dim] = 0.7
    for _ in range(300):
        module.training_step([groups[0]], 0)
    assert torch.allclose(module.centre, torch.full_like(module.centre, 0.7), atol=0.01)
    alike = Posterior(torch.full((5, short_model.net.latent_dim), 0.7), torch.zeros(5, short_model.net.latent_dim))
    assert float(paid_kl(alike, 0.2, module.centre)) == pytest.approx(
        float(alike.kl().sum(dim=-1).mean()) + 0.8, abs=0.01
    )
