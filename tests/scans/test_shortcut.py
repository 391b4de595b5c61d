from __future__ import annotations

from functools import partial

import pytest
import torch

from medtwin.scans.denoiser import Condition, Denoiser
from medtwin.scans.module import ScanDiffusionModule, ScanTraining
from medtwin.scans.samplers import NoiseSchedule, even_sigmas, heun, no_noise, shortcut
from medtwin.scans.shortcut import ScanShortcutModule, ShortcutTraining
from tests.scans.test_denoiser import Silent
from tests.scans.test_unet import small

SIZE = (8, 8)
SGD = partial(torch.optim.SGD, lr=0.1)
WIDTHS = [0, 0, 0, 0, 1, 0, 0, 0]  # one finding


def gaussian_images(count: int) -> torch.Tensor:
    """Images that are Gaussian: a strong pattern and white noise."""
    g = torch.Generator().manual_seed(1)
    strength = 0.5 * torch.randn(count, 1, 1, 1, generator=g)
    return strength * torch.ones(8, 8).triu() + 0.1 * torch.randn(count, 1, 8, 8, generator=g)


def untold(rank: int, parameterization: str = "edm") -> Denoiser:
    """A model whose network says nothing, of images that are Gaussian."""
    made = Denoiser(Silent(), WIDTHS, SIZE, rank=rank, parameterization=parameterization, takes_steps=True)
    images = gaussian_images(200)
    made.measure(images, torch.zeros(200, 1), torch.ones(200, 8))
    return made


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_step_of_any_length_lands_where_the_ode_does(rank: int, num_steps: int) -> None:
    """Of Gaussian images that is known without training, for one direction (rank 0) and for all of them."""
    model, sigmas = untold(rank), even_sigmas(num_steps, sigma_max=30.0, sigma_data=0.3)
    cond = model.embed(torch.zeros(3, 1), torch.zeros(3, 8))
    start = model.prior.mean + 30 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))

    def level(sigma: float) -> torch.Tensor:
        return torch.full((3,), sigma)

    def exact(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return model.denoise(x, level(sigma), cond)

    made = shortcut(lambda x, s, u: model.denoise_to(x, level(s), level(u), cond), start, sigmas)
    wanted = heun(exact, start, NoiseSchedule().sigmas(80), no_noise)
    assert torch.allclose(made, wanted, atol=1e-2)  # what is measured of components and of the rest leaks a little
    crude = heun(exact, start, even_sigmas(2, sigma_max=30.0, sigma_data=0.3), no_noise)
    assert not torch.allclose(crude, wanted, atol=5e-2)  # a step that is not told is not that good


@pytest.mark.parametrize("parameterization", ["edm", "v", "flow"])
def test_a_step_of_no_length_is_the_denoiser(parameterization: str) -> None:
    model = untold(0, parameterization)
    model.net.target = lambda x: 0.3 * x
    x, sigma = gaussian_images(4), torch.tensor([0.02, 0.3, 2.0, 30.0])
    cond = model.embed(torch.zeros(4, 1), torch.zeros(4, 8))
    assert torch.allclose(model.denoise_to(x, sigma, sigma, cond), model.denoise(x, sigma, cond), atol=1e-6)


def test_the_mean_velocity_of_a_flow_is_the_step_in_its_own_time() -> None:
    model, s, u = untold(0, "flow"), torch.tensor([3.0]), torch.tensor([0.2])
    velocity = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    model.net.target = lambda x: velocity
    x, data = model.prior.mean + torch.randn(1, 1, 8, 8), model.prior.sigma_data
    cond = model.embed(torch.zeros(1, 1), torch.zeros(1, 8))
    r = u / s
    landed = r * x + (1 - r) * model.denoise_to(x, s, u, cond)
    z = (x - model.prior.mean) / (s + data) + (u / (u + data) - s / (s + data)) * velocity
    assert torch.allclose(landed, model.prior.mean + (u + data) * z, atol=1e-5)


def test_the_grid_of_twice_as_many_steps_has_every_noise_level() -> None:
    coarse, fine = (even_sigmas(n, sigma_max=30.0, sigma_data=0.3) for n in (4, 8))
    assert fine[::2] == pytest.approx(coarse)
    assert even_sigmas(1, sigma_max=30.0, sigma_data=0.3) == [30.0, 0.0]
    with pytest.raises(ValueError, match="num_steps must be 1 or more"):
        even_sigmas(0, sigma_max=30.0, sigma_data=0.3)


def module(**changes) -> ScanShortcutModule:
    torch.manual_seed(0)
    training = ShortcutTraining(condition_dropout=0.0, joint_dropout=0.0, **changes)
    made = ScanShortcutModule(small(), SGD, size=SIZE, condition_widths=WIDTHS, training=training, rank=4)
    made.measure(batch(64))
    made.log = lambda *given, **more: None
    return made


def batch(count: int) -> dict[str, torch.Tensor]:
    return {"image": gaussian_images(count), "values": torch.ones(count, 1), "known": torch.ones(count, 8)}


@torch.no_grad()
def test_of_gaussian_images_there_is_nothing_to_learn() -> None:
    """What two half steps give is what one step gives; not so where what is measured does not know of steps."""
    torch.manual_seed(3)
    told, blind = module(halvings=3), module(halvings=3)
    for each in (told, blind):
        drawn = each._draw_levels
        each._draw_levels = lambda count, drawn=drawn: (drawn(count)[0], torch.zeros(count, dtype=torch.bool))
    assert float(told.step_error(batch(32)).max()) < 0.03
    for part in (blind.denoiser, blind.average):
        known = part.prior.filter
        part.prior.filter = lambda x, sigma, present, after, known=known: known(x, sigma, present)
    assert float(blind.step_error(batch(32)).max()) > 0.1


def test_starts_from_a_model_that_was_not_told_of_steps() -> None:
    torch.manual_seed(1)
    before = ScanDiffusionModule(small(), SGD, size=SIZE, condition_widths=WIDTHS, rank=4)
    torch.nn.init.normal_(before.average.net.out.weight, std=0.2)
    after = module()
    after.load_state_dict(before.state_dict())
    x, sigma = gaussian_images(2), torch.tensor([0.1, 2.0])
    cond = [each.average.embed(torch.ones(2, 1), torch.ones(2, 8)) for each in (before, after)]
    same = [each.average.eval().denoise(x, sigma, c) for each, c in zip((before, after), cond, strict=True)]
    assert torch.equal(*same)
    with pytest.raises(RuntimeError, match="Missing key"):
        after.load_state_dict({name: value for name, value in before.state_dict().items() if "prior" not in name})


def test_refuses_the_training_of_a_denoiser() -> None:
    with pytest.raises(ValueError, match="training must be ShortcutTraining, got ScanTraining"):
        ScanShortcutModule(small(), SGD, size=SIZE, condition_widths=WIDTHS, training=ScanTraining())


def test_guidance_is_learned_where_the_denoiser_steps() -> None:
    torch.manual_seed(4)
    made, x = module(guidance=3.0, guidance_from=0.1, guidance_to=2.0), gaussian_images(3)
    is_last, sigma = torch.tensor([True, True, False]), torch.tensor([0.5, 5.0, 0.5])
    null = Condition(torch.zeros(3, 16), torch.zeros(3, 1, 8, 8), torch.ones(3, 1))
    aimed = torch.ones(3, 1, 8, 8)
    guided = made._guided(x, sigma, aimed, is_last, null)
    plain = made.average.denoise(x, sigma, null)
    assert torch.allclose(guided[0], plain[0] + 3 * (1 - plain[0]), atol=1e-5)
    assert torch.equal(guided[1:], aimed[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_share": 0.0}, "step_share"),
        ({"joint_dropout": 1.0}, "joint_dropout"),
        ({"halvings": 0}, "halvings"),
        ({"guidance_from": 3.0}, "guidance_from"),
    ],
)
def test_refuses_numbers_out_of_range(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        ShortcutTraining(**changes)
