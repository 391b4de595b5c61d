"""Every sampler against an exact score, without a network: a mixture of four tissues in units of 1024 HU."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from medtwin.core.errors import ConfigError
from medtwin.pipelines import generate_settings
from medtwin.scans.drawing import SHORTCUT
from medtwin.scans.samplers import SAMPLERS, NoiseSchedule, dpmpp_2m, no_noise, num_steps_of

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))

from scans_samplers import MEANS, NUM, NUM_TRUE, WEIGHTS, exact, true_pixels


def truth() -> np.ndarray:
    return true_pixels(NUM_TRUE, 1)


def added(step: int) -> Tensor:
    return torch.randn(NUM, generator=torch.Generator().manual_seed(1 + step), dtype=torch.float64)


def error(sampler, sigmas, denoise=exact) -> float:
    """Wasserstein distance from the truth; the start has the spread and mean that the prior has at sigma_max."""
    mean = (WEIGHTS * MEANS).sum()
    noise = torch.randn(NUM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = sampler(denoise, mean + sigmas[0] * noise, sigmas, added)
    return float(stats.wasserstein_distance(made.numpy(), truth()))


@pytest.mark.parametrize(
    ("name", "evaluations", "limit"),
    [
        ("dpmpp_2m", 20, 0.02),
        ("dpmpp_2m", 60, 0.008),
        ("dpmpp_2m_sde", 60, 0.01),
        ("heun", 60, 0.008),
        ("euler", 20, 0.05),
        ("euler", 200, 0.01),
    ],
)
def test_reaches_the_distribution(name: str, evaluations: int, limit: float) -> None:
    calls = []

    def counted(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return exact(x, sigma)

    sigmas = NoiseSchedule(sigma_max=20.0, sigma_min=0.002).sigmas(num_steps_of(name, evaluations))
    assert error(SAMPLERS[name], sigmas, counted) < limit
    assert evaluations - 1 <= len(calls) <= evaluations
    assert min(calls) > 0


def test_twenty_evaluations_of_the_shipped_schedule_are_within_twelve_hounsfield_units() -> None:
    assert 1024 * error(dpmpp_2m, NoiseSchedule().sigmas(20)) < 12


def test_the_sde_forgets_an_error_that_the_ode_keeps() -> None:
    """A start with too little spread: half of what it should have."""
    sigmas = NoiseSchedule(sigma_max=1.0, sigma_min=0.01).sigmas(60)
    start = (WEIGHTS * MEANS).sum() + 0.5 * added(-1)
    ode, sde = (
        float(stats.wasserstein_distance(SAMPLERS[name](exact, start, sigmas, added).numpy(), truth()))
        for name in ("dpmpp_2m", "dpmpp_2m_sde")
    )
    assert sde < 0.5 * ode


def test_only_the_sde_asks_for_noise() -> None:
    sigmas = NoiseSchedule().sigmas(4)
    for name in ("dpmpp_2m", "heun", "euler"):
        SAMPLERS[name](exact, torch.ones(3, dtype=torch.float64), sigmas, no_noise)
    with pytest.raises(ValueError, match="needs noise"):
        SAMPLERS["dpmpp_2m_sde"](exact, torch.ones(3, dtype=torch.float64), sigmas, no_noise)


def test_the_second_order_is_worth_it() -> None:
    sigmas = NoiseSchedule(sigma_max=20.0, sigma_min=0.002).sigmas(20)
    assert error(dpmpp_2m, sigmas) < 0.5 * error(SAMPLERS["euler"], sigmas)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_wrong_grid_fails(name: str) -> None:
    """A denoiser that is told the next noise level instead of this one, as with a grid that is off by one."""
    sigmas = NoiseSchedule(sigma_max=20.0, sigma_min=0.002).sigmas(num_steps_of(name, 20))
    after = dict(zip(sigmas[:-1], [*sigmas[1:-1], sigmas[-2]], strict=True))
    assert error(SAMPLERS[name], sigmas, lambda x, sigma: exact(x, after[sigma])) > 0.05


def test_a_grid_that_stops_early_fails() -> None:
    sigmas = NoiseSchedule(sigma_max=20.0, sigma_min=0.2).sigmas(20)[:-1]
    assert error(SAMPLERS["euler"], sigmas) > 0.05


def test_grid_is_exact() -> None:
    sigmas = NoiseSchedule(sigma_max=80.0, sigma_min=0.002, rho=7.0).sigmas(18)
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == (80.0, 0.002, 0.0)
    assert sigmas[1] == pytest.approx(57.586, abs=1e-3)  # (80^(1/7) + 1/17 (0.002^(1/7) - 80^(1/7)))^7
    assert all(a > b for a, b in itertools.pairwise(sigmas))


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.0, 1.0), (2.0, 1.0)])
def test_refuses_a_schedule_that_does_not_fall(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="sigma_min"):
        NoiseSchedule(sigma_min=low, sigma_max=high)


def test_the_settings_of_generate_know_every_sampler() -> None:
    assert set(generate_settings.SAMPLERS) == {*SAMPLERS, SHORTCUT}
    with pytest.raises(ConfigError, match=r"sampling\.sampler must be dpmpp_2m, .*, got 'ddim'"):
        generate_settings.SamplingSettings(sampler="ddim")
