"""Samplers without a network: the score of a law of pixel values that is known is exact.

Pixels are of air, fat, soft tissue and bone, in units of 1,024 HU, each normal (notes/images.md has the first form of
this test). The expected clean pixel given a noisy one has a closed form, so that what is wrong with the pixels drawn is
the sampler's alone: the Wasserstein distance of 20,000 of them from 200,000 of the law. MONAI's schedulers get the same
denoiser, as the noise or the velocity that they ask for, and clip nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, RFlowScheduler
from pages import said_lines
from scipy import stats
from torch import Tensor

from medtwin.scans.samplers import SAMPLERS, NoiseSchedule, num_steps_of

UNIT_HU = 1024.0
WEIGHTS = torch.tensor([0.45, 0.15, 0.3, 0.1], dtype=torch.float64)
MEANS = torch.tensor([-0.95, -0.1, 0.04, 0.6], dtype=torch.float64)
DEVIATIONS = torch.tensor([0.03, 0.03, 0.05, 0.2], dtype=torch.float64)
NUM, NUM_TRUE = 20_000, 200_000
EVALUATIONS = (5, 10, 20, 50)
GOAL_HU = 12.0
_TRAINED = 1000  # steps of MONAI's schedules
Draw = Callable[[int, int], Tensor]


def exact(x: Tensor, sigma: float) -> Tensor:
    """The expected clean pixels, (n,), given x = x0 + sigma noise."""
    total = DEVIATIONS**2 + sigma**2
    log_share = WEIGHTS.log() - 0.5 * total.log() - 0.5 * (x[:, None] - MEANS) ** 2 / total
    share = log_share.softmax(dim=1)
    return (share * (MEANS + DEVIATIONS**2 / total * (x[:, None] - MEANS))).sum(dim=1)


def true_pixels(num: int, seed: int) -> np.ndarray:
    """Pixels of the law, (num,)."""
    rng = np.random.default_rng(seed)
    which = rng.choice(len(WEIGHTS), size=num, p=WEIGHTS.numpy())
    return rng.normal(MEANS.numpy()[which], DEVIATIONS.numpy()[which])


def _noise(seed: int) -> Tensor:
    return torch.randn(NUM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(name: str, schedule: NoiseSchedule) -> Draw:
    """A sampler of medtwin."""

    def draw(evaluations: int, seed: int) -> Tensor:
        sigmas = schedule.sigmas(num_steps_of(name, evaluations))
        start = (WEIGHTS * MEANS).sum() + sigmas[0] * _noise(1_000 * seed)
        return SAMPLERS[name](exact, start, sigmas, lambda step: _noise(1_000 * seed + 1 + step))

    return draw


def monai_diffusion(kind: type[DDPMScheduler] | type[DDIMScheduler], schedule: str) -> Draw:
    """MONAI's DDPM or DDIM, told the exact noise."""

    def draw(evaluations: int, seed: int) -> Tensor:
        scheduler = kind(num_train_timesteps=_TRAINED, schedule=schedule, clip_sample=False)
        scheduler.set_timesteps(evaluations)
        kept = scheduler.alphas_cumprod.double()
        x, generator = _noise(1_000 * seed), torch.Generator().manual_seed(seed)
        for step in scheduler.timesteps.tolist():
            share = float(kept[int(step)])
            clean = exact(x / share**0.5, ((1 - share) / share) ** 0.5)
            noise = (x - share**0.5 * clean) / (1 - share) ** 0.5
            more = {"generator": generator} if kind is DDPMScheduler else {}
            x = scheduler.step(noise[:, None], int(step), x[:, None], **more)[0][:, 0]  # it wants a channel
        return x

    return draw


def monai_flow(evaluations: int, seed: int) -> Tensor:
    """MONAI's rectified flow, told the exact velocity."""
    scheduler = RFlowScheduler(num_train_timesteps=_TRAINED, use_discrete_timesteps=False)
    scheduler.set_timesteps(num_inference_steps=evaluations)
    times = [float(t) for t in scheduler.timesteps]
    x = _noise(1_000 * seed)
    for now, after in zip(times, [*times[1:], 0.0], strict=True):
        t = min(now / _TRAINED, 1 - 1e-6)
        clean = exact(x / (1 - t), t / (1 - t))
        velocity = clean - (x - (1 - t) * clean) / t
        x = scheduler.step(velocity[:, None], now, x[:, None], after)[0][:, 0]
    return x


def cases() -> dict[str, Draw]:
    """What is measured, by title."""
    shipped = NoiseSchedule()
    mine = {f"medtwin {name}": ours(name, shipped) for name in ("dpmpp_2m", "dpmpp_2m_sde", "heun", "euler")}
    monai = {
        f"MONAI {kind.__name__.removesuffix('Scheduler')}, {schedule}": monai_diffusion(kind, schedule)
        for kind in (DDPMScheduler, DDIMScheduler)
        for schedule in ("linear_beta", "scaled_linear_beta", "cosine")
    }
    return {**mine, **monai, "MONAI RFlow": monai_flow}


def _cell(distances: Sequence[float]) -> str:
    return f"{np.mean(distances):.1f} ({min(distances):.1f} to {max(distances):.1f})"


def page(seeds: int, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    truth = true_pixels(NUM_TRUE, 1)
    floor = [UNIT_HU * stats.wasserstein_distance(true_pixels(NUM, 100 + seed), truth) for seed in range(seeds)]
    shipped = NoiseSchedule()
    lines = [
        "# Samplers with an exact denoiser",
        "",
        f"Command: `scripts/bench/scans.py samplers --seeds {seeds}`. Wasserstein distance from the law in HU, mean "
        f"(least to most) over {seeds} seeds, by evaluations of the denoiser; {NUM:,} pixels drawn. As many pixels of "
        f"the law itself: {_cell(floor)}. medtwin on its shipped grid, sigma {shipped.sigma_max:g} to "
        f"{shipped.sigma_min:g}, rho {shipped.rho:g}; heun evaluates twice a step.",
        "",
    ]
    lines += said_lines(known)
    lines += [
        f"| sampler | {' | '.join(str(n) for n in EVALUATIONS)} |",
        f"|---|{'---|' * len(EVALUATIONS)}",
    ]
    for title, draw in cases().items():
        found = {
            n: [UNIT_HU * stats.wasserstein_distance(draw(n, seed).numpy(), truth) for seed in range(seeds)]
            for n in EVALUATIONS
        }
        lines.append(f"| {title} | {' | '.join(_cell(found[n]) for n in EVALUATIONS)} |")
        if title == "medtwin dpmpp_2m":
            goal = f"Goal: dpmpp_2m at 20 evaluations within {GOAL_HU:g} HU: " + (
                "met." if np.mean(found[20]) <= GOAL_HU else "**not met**."
            )
    return "\n".join([*lines, "", goal]) + "\n"
