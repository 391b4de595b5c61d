from __future__ import annotations

import pytest
import torch

from medtwin.scans.denoiser import Denoiser
from medtwin.scans.effects import ConditionEffects
from tests.scans.test_unet import small

NUM = 100
PATTERN = torch.ones(8, 8).triu()


def study(strength: float = 0.5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images with noise of 0.1, a pattern where the first number is 1; the second number says nothing; some unknown."""
    g = torch.Generator().manual_seed(0)
    values = torch.stack([(torch.arange(NUM) % 2).float(), torch.randn(NUM, generator=g)], dim=1)
    known = torch.ones(NUM, 2)
    known[::10, 1] = 0.0
    values[::10, 1] = 0.0
    noise = 0.1 * torch.randn(NUM, 1, 8, 8, generator=g)
    return 0.2 + strength * values[:, 0, None, None, None] * PATTERN + noise, values, known


def measured(*data: torch.Tensor) -> tuple[ConditionEffects, torch.Tensor]:
    effects = ConditionEffects([1, 1], (1, 8, 8))
    return effects, effects.measure(*data)


def test_finds_what_a_condition_does_and_that_the_other_does_nothing() -> None:
    effects, left = measured(*study())
    one, zero = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    difference = effects(one, torch.ones(1, 2)) - effects(zero, torch.ones(1, 2))
    assert float((difference - 0.5 * PATTERN).abs().max()) < 0.1
    assert float(effects.slopes[1].abs().max()) < 0.05
    assert float(left.mean(dim=0).mean()) == pytest.approx(0.2 + 0.25 * 36 / 64, abs=0.01)  # the mean image stays
    assert float(left.std(dim=0).mean()) == pytest.approx(0.1, abs=0.01)


def test_what_is_missing_is_at_its_mean() -> None:
    effects, _ = measured(*study())
    values, none, first = torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    assert not effects(values, none).any()
    assert torch.equal(effects(values, first), effects(torch.tensor([[1.0, -9.0]]), first))


def test_conditions_that_say_nothing_do_nothing() -> None:
    images, values, known = study()
    shuffled = torch.randperm(NUM, generator=torch.Generator().manual_seed(3))
    effects, left = measured(images, values[shuffled], known[shuffled])
    assert float(effects.slopes.abs().max()) < 0.1  # 0.5 where they are not shuffled
    assert float(left.var(dim=0).sum()) > 0.95 * float(images.var(dim=0).sum())


def test_each_image_is_judged_by_a_fit_without_it() -> None:
    """As many numbers as images would fit every image exactly."""
    g = torch.Generator().manual_seed(1)
    images, values = torch.randn(20, 1, 8, 8, generator=g), torch.randn(20, 20, generator=g)
    left = ConditionEffects([20], (1, 8, 8)).measure(images, values, torch.ones(20, 1))
    assert float(left.var(dim=0).mean()) > 0.9


def test_the_denoiser_draws_under_conditions_before_any_training() -> None:
    images, values, known = study()
    model = Denoiser(small(), [1, 1], (8, 8), rank=2)
    model.measure(images, values, known)
    with torch.no_grad():
        guess = model.denoise(20.0 * torch.ones(NUM, 1, 8, 8), torch.full((NUM,), 1e4), model.embed(values, known))
    assert float((guess - images).std()) == pytest.approx(0.1, abs=0.02)
    assert model.prior.sigma_data == pytest.approx(0.1, abs=0.01)


def test_refuses_other_numbers_of_conditions() -> None:
    images, values, known = study()
    with pytest.raises(ValueError, match="as many"):
        measured(images, values[:-1], known)
