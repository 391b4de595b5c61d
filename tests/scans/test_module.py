from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from medtwin.scans.balance import ExpectedError
from medtwin.scans.module import (
    Augmentation,
    LearningRate,
    NoiseDistribution,
    ScanDiffusionModule,
    ScanTraining,
)
from medtwin.training.averaging import Averaging
from tests.scans.test_unet import small

WIDTHS = [2, 3]
SGD = partial(torch.optim.SGD, lr=0.1)


def module(**changes) -> ScanDiffusionModule:
    torch.manual_seed(0)
    return ScanDiffusionModule(
        small(), SGD, size=[8, 8], condition_widths=WIDTHS, training=ScanTraining(**changes), rank=2
    )


def batch(count: int = 4) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    image = torch.rand(count, 1, 8, 8, generator=g) * 2 - 1
    return {"image": image, "values": torch.ones(count, 5), "known": torch.ones(count, 2)}


class Batches(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index):
        return batch()


def trained(model: ScanDiffusionModule, steps: int) -> ScanDiffusionModule:
    loader = torch.utils.data.DataLoader(Batches(), batch_size=None)
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loader)
    return model


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(does not have many workers|LeafSpec|no `val_dataloader`|smaller than)"
)


def test_the_average_lags_behind_and_is_in_the_checkpoint() -> None:
    model = module(averaging=Averaging(half_life_steps=1.0, ramp=1e9))
    start = model.denoiser.net.out.bias.detach().clone()
    trained(model, 1)
    now, average = model.denoiser.net.out.bias, model.average.net.out.bias
    assert not torch.equal(now, start)
    assert torch.allclose(average, (start + now) / 2)  # a half-life of one step
    assert int(model.num_averaged) == 1
    names = model.state_dict().keys()
    assert {"average.net.out.bias", "denoiser.net.out.bias", "denoiser.prior.mean", "num_averaged"} <= names
    assert not any(parameter.requires_grad for parameter in model.average.parameters())


def test_equal_seeds_give_equal_steps_and_validation_needs_none() -> None:
    losses = []
    for seed in (7, 7, 8):
        model = module()
        model.log = lambda *args, **kwargs: None
        torch.manual_seed(seed)
        losses.append(float(model.training_step(batch(), 0).detach()))
    assert losses[0] == losses[1] != losses[2]
    values = []
    model.log = lambda name, value, **kwargs: values.append((name, float(value)))
    for seed in (1, 2):
        torch.manual_seed(seed)
        model.validation_step(batch(), 0)
    assert values[0] == values[1]
    assert values[0][0] == "val/loss"


def test_validation_is_of_the_average() -> None:
    model, values = module(), []
    model.log = lambda name, value, **kwargs: values.append(float(value))
    model.validation_step(batch(), 0)
    torch.nn.init.constant_(model.denoiser.net.out.bias, 3.0)
    model.validation_step(batch(), 0)
    torch.nn.init.constant_(model.average.net.out.bias, 3.0)
    model.validation_step(batch(), 0)
    assert values[0] == values[1] < values[2]


def test_training_measures_the_images_of_the_data_module() -> None:
    model = module()
    model.measure(batch(32))
    assert model.denoiser.prior.sigma_data == pytest.approx(0.577, abs=0.03)  # uniform from -1 to 1
    assert all(torch.equal(a, b) for a, b in zip(model.average.buffers(), model.denoiser.buffers(), strict=True))


def test_learned_weights_find_the_error_of_every_noise_level() -> None:
    """Errors that a network cannot lower, ten thousand times larger at some levels: all come to count alike."""
    torch.manual_seed(0)
    law = ExpectedError()
    assert not law(torch.tensor([0.01, 1.0, 30.0])).any()
    optimizer = torch.optim.Adam(law.parameters(), lr=0.02)

    def error(sigma: torch.Tensor) -> torch.Tensor:
        return 1e-4 * sigma**2 / (0.01 + 1e-4 * sigma**2) + 1e-4

    for _ in range(1500):
        sigma = NoiseDistribution(0.3, 1.5).draw(64, torch.device("cpu"))
        noisy = error(sigma) * torch.rand(64) * 2
        optimizer.zero_grad()
        law.balanced(noisy, sigma).backward()
        optimizer.step()
    levels = torch.tensor([0.1, 0.5, 1.5, 5.0, 20.0])
    assert torch.allclose(law(levels), error(levels).log(), atol=0.4)


def test_learned_weights_are_trained_and_leave_the_error_that_is_told() -> None:
    model, plain = module(learned_weights=True), module()
    said: list[float] = []
    model.log = plain.log = lambda name, value, **kwargs: said.append(float(value))
    losses = []
    for each in (model, plain):
        torch.manual_seed(3)
        losses.append(float(each.training_step(batch(), 0).detach()))
    assert said[0] == said[1] == pytest.approx(losses[1])
    assert losses[0] == pytest.approx(losses[1])  # nothing is learned yet
    del model.log, plain.log
    trained(model, 3)
    assert model.expected_error.out.bias.item() != 0
    assert plain.expected_error is None


def test_noise_levels_are_log_normal_and_stratified() -> None:
    torch.manual_seed(0)
    sigmas = NoiseDistribution(-0.5, 1.2).draw(1000, torch.device("cpu")).log()
    assert float(sigmas.mean()) == pytest.approx(-0.5, abs=0.01)
    assert float(sigmas.std()) == pytest.approx(1.2, abs=0.02)
    assert sorted(sigmas.tolist()) != sigmas.tolist()


def test_conditions_are_dropped_alone_and_together() -> None:
    torch.manual_seed(0)
    kept = ScanTraining(condition_dropout=0.2, joint_dropout=0.1).kept(20_000, 3)
    assert float(kept.mean()) == pytest.approx(0.72, abs=0.01)
    assert float((kept.sum(dim=1) == 0).float().mean()) == pytest.approx(0.1 + 0.9 * 0.008, abs=0.01)
    assert bool(ScanTraining(condition_dropout=0.0, joint_dropout=0.0).kept(5, 3).all())


def test_augmentation_moves_a_little() -> None:
    image = torch.full((200, 1, 32, 32), -1.0)
    image[:, :, 4:8, 4:8] = 1.0  # one corner
    torch.manual_seed(0)
    moved = Augmentation(shift=2.0)(image, image)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    mass = moved + 1
    centers = torch.stack([(mass * axis).sum(dim=(1, 2, 3)) / mass.sum(dim=(1, 2, 3)) for axis in (rows, columns)])
    assert float((centers - 5.5).abs().max()) < 2.1
    assert float(centers.std(dim=1).min()) > 0.8
    turned = Augmentation(degrees=5.0)(image, image)
    assert float(turned[:, :, 16:, 16:].max()) < -0.99
    assert torch.equal(Augmentation()(image, image), image)
    empty = torch.zeros(200, 1, 4, 4)
    brighter = Augmentation(brightness=0.1)(empty, empty)
    assert float(brighter.abs().max()) <= 0.1
    assert float(brighter.std()) > 0.04


def test_a_finding_changes_sides_and_the_heart_does_not() -> None:
    means = torch.full((400, 1, 4, 6), -0.5)
    means[..., 4] = 0.5  # the heart, on one side of everybody
    images = means.clone()
    images[:, :, 1, 0] = 0.9  # a finding
    torch.manual_seed(0)
    changed = Augmentation(mirror=0.5)(images, means)
    moved = changed[:, 0, 1, 5] > 0.5
    assert 0.4 < float(moved.float().mean()) < 0.6
    assert torch.equal(changed[~moved], images[~moved])
    assert float(changed[moved][:, :, 1, 0].max()) == -0.5
    assert torch.equal(changed[..., 4], images[..., 4])


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseDistribution(deviation=0.0),
        lambda: Augmentation(shift=-1.0),
        lambda: Augmentation(mirror=1.5),
        lambda: LearningRate(decay_share=2.0),
        lambda: ScanTraining(joint_dropout=1.0),
        lambda: ScanTraining(val_noise_levels=0),
    ],
)
def test_refuses_numbers_out_of_range(make) -> None:
    with pytest.raises(ValueError, match="must"):
        make()
