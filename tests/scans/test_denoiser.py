from __future__ import annotations

import pytest
import torch
from torch import nn

from medtwin.scans.conditions import CONDITIONS
from medtwin.scans.denoiser import Condition, ConditionEmbedding, Denoiser
from medtwin.scans.gaussian import GaussianModel
from medtwin.scans.parameterizations import PARAMETERIZATIONS

SIGMAS = torch.tensor([0.01, 0.3, 1.0, 5.0, 50.0])


class Oracle(nn.Module):
    """A network that knows the clean image and gives exactly what a parameterisation wants predicted."""

    cond_channels, spatial_dims, in_channels = 4, 2, 1

    def __init__(self, target, gain: float = 0.0, *, sees_noisy: bool = False) -> None:
        super().__init__()
        self.target, self.gain, self.sees_noisy = target, gain, sees_noisy

    def forward(self, x, noise_level, cond):
        return torch.cat([self.target(x), torch.full_like(x, self.gain)], dim=1)


def denoiser(target, parameterization: str, rank: int = 0) -> Denoiser:
    return Denoiser(Oracle(target), [2], (8, 8), parameterization=parameterization, rank=rank)


def unconditional(count: int) -> Condition:
    return Condition(torch.zeros(count, 4), torch.zeros(count, 1, 8, 8), torch.zeros(count, 0))


@pytest.fixture
def images() -> torch.Tensor:
    """64 images: a gradient, plus one strong pattern, plus weak noise."""
    g = torch.Generator().manual_seed(3)
    ramp = torch.linspace(-0.5, 0.5, 8).expand(8, 8)
    pattern = torch.ones(8, 8).triu()
    strength = torch.randn(64, 1, 1, 1, generator=g)
    return ramp + 0.3 * strength * pattern + 0.02 * torch.randn(64, 1, 8, 8, generator=g)


@pytest.mark.parametrize("name", ["v", "flow"])
@pytest.mark.parametrize("sigma_data", [1.0, 0.3])
def test_the_papers_targets_give_the_clean_image(name: str, sigma_data: float) -> None:
    g = torch.Generator().manual_seed(0)
    x0, n = torch.randn(5, 1, 8, 8, generator=g), torch.randn(5, 1, 8, 8, generator=g)
    s = SIGMAS[:, None, None, None]
    phi = torch.atan(s / sigma_data)
    target = phi.cos() * n - phi.sin() * x0 / sigma_data if name == "v" else n - x0 / sigma_data
    model = denoiser(lambda x: target, name)
    model.prior.total.fill_(sigma_data**2)
    out = model.denoise(x0 + s * n, SIGMAS, unconditional(5))
    assert torch.allclose(out, x0, atol=2e-4)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_gain_of_minus_one_takes_noise_away_and_keeps_edges(images, rank: int) -> None:
    """Of an even place only noise is kept by the linear estimate; what is larger than noise stays but for the reach."""
    model = Denoiser(Oracle(torch.zeros_like, gain=-1.0), [2], (8, 8), rank=rank)
    plain = Denoiser(Silent(), [2], (8, 8), rank=rank)
    for one in (model, plain):
        one.prior.measure(images)
    sigma, g = torch.full((64,), 0.02), torch.Generator().manual_seed(6)
    mean = model.prior.mean
    noise = mean + 0.02 * torch.randn(64, 1, 8, 8, generator=g)
    shrunk, kept = (one.denoise(noise, sigma, unconditional(64)) - mean for one in (model, plain))
    assert float(shrunk.std()) < 0.05 * float(kept.std())
    edge = noise.clone()
    edge[:, :, 2:5, 2:5] += 0.8
    shrunk, kept = (one.denoise(edge, sigma, unconditional(64)) - mean for one in (model, plain))
    lost, error = (kept - shrunk)[:, :, 2:5, 2:5], plain.denoise_and_weight(edge, sigma, unconditional(64))[1] ** -0.5
    assert float(lost.max()) <= 3.01 * float(error.max())
    assert float(shrunk[:, :, 2:5, 2:5].mean()) > 0.8 * float(kept[:, :, 2:5, 2:5].mean())


@pytest.mark.parametrize("rank", [0, 4])
def test_what_was_measured_keeps_its_precision_in_mixed_precision(images, rank: int) -> None:
    model = Denoiser(Silent(), [int(name == "sex") for name in CONDITIONS], (8, 8), rank=rank)
    values, known = (torch.arange(64) % 2).float()[:, None], torch.ones(64, len(CONDITIONS))
    model.measure(images, values, known)
    found = []
    for is_mixed in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
            cond = model.embed(values, known)
            found.append(model.denoise(images, torch.full((64,), 0.1), cond))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["edm", "v"])
def test_the_network_sees_unit_variance_and_is_asked_for_it(images, name: str) -> None:
    seen = []
    model = denoiser(lambda x: seen.append(x) or torch.zeros_like(x), name)
    model.prior.measure(images)
    g = torch.Generator().manual_seed(1)
    for sigma in SIGMAS:
        level = sigma.expand(64)
        noisy = images + sigma * torch.randn(images.shape, generator=g)
        out, weight = model.denoise_and_weight(noisy, level, unconditional(64))
        assert float(seen[-1].square().mean()) == pytest.approx(1.0, abs=0.1)
        assert float((weight * (out - images) ** 2).mean()) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("rank", [0, 4])
def test_the_network_sees_the_noisy_image_where_it_asks_to(images, rank: int) -> None:
    """Beside the linear estimate, which hides what is finer than the noise: of the first, in unit variance."""
    seen = []
    net = Oracle(lambda x: seen.append(x) or torch.zeros_like(x[:, :1]), sees_noisy=True)
    model = Denoiser(net, [2], (8, 8), rank=rank)
    model.prior.measure(images)
    g = torch.Generator().manual_seed(1)
    for sigma in SIGMAS:
        noisy = images + sigma * torch.randn(images.shape, generator=g)
        model.denoise(noisy, sigma.expand(64), unconditional(64))
        estimate, also = seen[-1][:, :1], seen[-1][:, 1:]
        assert float(also.square().mean()) == pytest.approx(1.0, abs=0.1)
        scaled = (noisy - model.prior.mean) / also  # the same factor everywhere
        assert float(scaled.std()) < 1e-4 * float(scaled.mean())
        if not rank:
            assert torch.allclose(estimate / estimate.std(), also / also.std(), atol=1e-4)


def test_every_parameterisation_gives_the_same_image_for_perfect_networks(images) -> None:
    noisy = images[:5] + SIGMAS[:, None, None, None] * torch.randn(
        5, 1, 8, 8, generator=torch.Generator().manual_seed(2)
    )
    for name in PARAMETERIZATIONS:
        for rank in (0, 4) if name == "edm" else (0,):
            model = denoiser(lambda x: torch.zeros_like(x), name, rank)
            model.prior.measure(images)
            start, weight = model.denoise_and_weight(noisy, SIGMAS, unconditional(5))
            wanted = (images[:5] - start) * weight.sqrt()
            sign = -1 if name in ("v", "flow") else 1
            model.net.target = lambda x, wanted=wanted, sign=sign: sign * wanted
            assert torch.allclose(model.denoise(noisy, SIGMAS, unconditional(5)), images[:5], atol=1e-4)


@pytest.mark.parametrize("finding", [0.0, 0.3, 1.0])
def test_the_gaussian_skip_is_the_posterior_mean(images, finding: float) -> None:
    prior = GaussianModel((1, 8, 8), rank=3, num_findings=1)
    prior.measure(images)
    prior.spread.copy_(torch.tensor([[[0.5, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.0]]]))
    basis, flat = prior.components, torch.eye(64).reshape(64, 1, 8, 8)
    fourier = torch.fft.fftn(flat, dim=(2, 3))
    rest = torch.fft.ifftn(prior.variance * fourier, dim=(2, 3)).real.reshape(64, 64)
    outside = torch.eye(64) - basis.T @ basis
    covariance = prior.covariance + finding * prior.spread[0]
    for sigma in (0.05, 0.5, 3.0):
        s2 = torch.tensor([sigma**2])
        gain = torch.linalg.solve((rest + s2 * torch.eye(64)).T, rest.T).T
        posterior = covariance @ torch.linalg.inv(covariance + s2 * torch.eye(3))
        expected = basis.T @ posterior @ basis + gain @ outside
        given, error = prior.filter(flat, s2.sqrt().expand(64), torch.full((64, 1), finding))
        assert torch.allclose(given.reshape(64, 64).T, expected, atol=1e-4)
        # The error of the posterior mean of white noise filtered so: sigma^2 times the mean gain.
        mean_gain = (posterior.diagonal().sum() + 64 * gain.diagonal().mean()) / 64
        assert float(error[0] ** 2) == pytest.approx(float(s2 * mean_gain), rel=1e-3)


def test_the_gaussian_model_explains_what_is_there(images) -> None:
    prior = GaussianModel((1, 8, 8), rank=8)
    prior.measure(images)
    assert prior.sigma_data == pytest.approx(float((images - images.mean(0)).std()), rel=0.02)
    assert float(prior.covariance[0, 0]) == pytest.approx(36 * 0.09, rel=0.4)  # 36 pixels of 0.3^2
    assert torch.allclose(prior.components @ prior.components.T, torch.eye(8), atol=1e-5)
    assert float(prior.variance.mean()) == pytest.approx(0.02**2, rel=0.25)
    left = prior.filter(images[:2] - prior.mean, torch.tensor([0.02, 1e3]))[1]
    assert float(left[1]) == pytest.approx(prior.sigma_data, rel=0.05)
    assert float(left[0]) < 0.02


def test_the_rest_is_measured_on_images_that_the_components_have_not_seen() -> None:
    """Of pure noise every component is chance: the rest must keep the whole variance."""
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    prior = GaussianModel((1, 8, 8), rank=16)
    prior.measure(noise)
    inside = (noise - prior.mean).flatten(1)
    kept = inside - (inside @ prior.components.T) @ prior.components
    assert float(kept.square().mean()) < 0.55  # within the sample the components seem to explain half
    assert float(prior.variance.mean()) > 0.65


class Silent(Oracle):
    """A network that adds nothing: what is left is what was measured."""

    def __init__(self) -> None:
        super().__init__(torch.zeros_like)


def test_a_finding_on_either_side_widens_what_is_denoised() -> None:
    """Its mean over both sides is no image: only the covariance can say that something is there."""
    g = torch.Generator().manual_seed(4)
    widths = [int(name == "findings") for name in CONDITIONS]
    has = (torch.arange(160) % 4 == 0).float()[:, None]
    known = torch.ones(160, len(CONDITIONS))
    side = torch.sign(torch.randn(160, 1, 1, 1, generator=g)) * torch.cat([torch.ones(4), -torch.ones(4)])
    images = 0.1 * torch.randn(160, 1, 8, 8, generator=g) + 0.4 * side * has[:, :, None, None]
    model = Denoiser(Silent(), widths, (8, 8), rank=8)
    model.measure(images, has, known)
    noisy = torch.full((1, 1, 8, 8), 0.3) * torch.cat([torch.ones(4), -torch.ones(4)])
    kept = []
    for value, is_known in ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        cond = model.embed(torch.tensor([[value]]), torch.full((1, len(CONDITIONS)), is_known))
        assert float(cond.present) == pytest.approx(value if is_known else 0.25)
        middle = model.denoise(torch.zeros(1, 1, 8, 8), torch.ones(1), cond)
        kept.append(float((model.denoise(noisy, torch.ones(1), cond) - middle).std() / noisy.std()))
    assert kept[0] < 0.5 < 0.8 < kept[2]
    assert kept[0] < kept[1] < kept[2]


def test_few_images_give_few_components() -> None:
    prior = GaussianModel((1, 8, 8), rank=16)
    prior.measure(torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert int((prior.covariance.diagonal() > 0).sum()) == 3


@pytest.mark.parametrize("bad", [torch.zeros(1, 1, 8, 8), torch.zeros(9, 1, 8, 8), torch.zeros(9, 1, 8, 9)])
def test_refuses_images_that_say_nothing(bad) -> None:
    with pytest.raises(ValueError, match="images"):
        GaussianModel((1, 8, 8), rank=2).measure(bad)


def test_what_is_missing_leaves_no_trace() -> None:
    embedding = ConditionEmbedding([2, 3], 4)
    values = torch.tensor([[1.0, 0, 5, 6, 7], [0, 1.0, 5, 6, 7], [1.0, 0, 0, 0, 1]])
    none, first = torch.zeros(3, 2), torch.tensor([[1.0, 0]] * 3)
    out = embedding(values, none)
    assert torch.equal(out[0], out[1])
    out = embedding(values, first)
    assert torch.equal(out[0], out[2])
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(embedding(values, none)[0], out[0])


def test_refuses_an_unknown_parameterisation() -> None:
    with pytest.raises(ValueError, match="edm, v, flow"):
        denoiser(None, "eps")


@pytest.mark.parametrize("name", ["v", "flow"])
def test_refuses_a_gaussian_model_that_would_not_be_used(name: str) -> None:
    with pytest.raises(ValueError, match=f"rank must be 0 with parameterization={name}, got 4"):
        denoiser(None, name, rank=4)
