"""The few-step model beside the denoiser that it starts from, on a law that is known, by evaluations of the network.

The law is that of `scans_samplers.py`: pixels of air, fat, soft tissue and bone, in units of 1,024 HU. The denoiser is
learned, by a small network on fresh pixels, so that the page says what a model of few steps loses or gains beside the
sampler of many; how far drawn pixels are from the law is their Wasserstein distance in HU.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from pages import said_lines
from scans_samplers import NUM_TRUE, UNIT_HU, true_pixels
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from medtwin.scans.drawing import SHORTCUT, Sampling, Tile, drawer_of
from medtwin.scans.module import LearningRate, NoiseDistribution, ScanBatch, ScanDiffusionModule, ScanTraining
from medtwin.scans.shortcut import ScanShortcutModule, ShortcutTraining
from medtwin.scans.unet import NoiseFeatures
from medtwin.training.averaging import Averaging

WIDTHS = [0] * 8
BATCH, NUM = 256, 4000
_WIDTH = 64


class PixelNet(nn.Module):
    """A network of single pixels behind the interface of the U-Net, scaled and shifted by the noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.cond_channels, self.spatial_dims, self.in_channels = _WIDTH, 2, 1
        self.noise_features = NoiseFeatures(_WIDTH)
        self.first, self.second = nn.Linear(2, 2 * _WIDTH), nn.Linear(2 * _WIDTH, 2 * _WIDTH)
        self.film = nn.Linear(_WIDTH, 8 * _WIDTH)
        self.out = nn.Linear(2 * _WIDTH, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Tensor) -> Tensor:
        """Of the shape of `x`, (batch, 1, 1, 1)."""
        scale1, shift1, scale2, shift2 = self.film(functional.silu(self.noise_features(noise_level) + cond)).chunk(4, 1)
        flat = x.flatten(1)
        h = functional.silu(self.first(torch.cat([flat, torch.tanh(4 * flat)], dim=1)) * (1 + scale1) + shift1)
        h = functional.silu(self.second(h) * (1 + scale2) + shift2)
        return cast(Tensor, self.out(h).reshape(x.shape))


@dataclass
class Batches:
    """Batches of the law, an endless number."""

    seed: int
    count: int = field(default=0)

    def __call__(self, size: int) -> ScanBatch:
        """The next one."""
        self.count += 1
        pixels = true_pixels(size, 1_000_003 * (self.seed + 1) + self.count)
        image = torch.from_numpy(pixels).float().reshape(-1, 1, 1, 1)
        return {"image": image, "values": torch.zeros(size, 0), "known": torch.ones(size, len(WIDTHS))}


def fit(module: ScanDiffusionModule, batches: Batches, steps: int) -> None:
    """Trains without a Trainer."""
    warnings.filterwarnings("ignore", r".*self\.log\(\)` but the `self\.trainer` reference is not registered")
    optimizer, rate = module.optimizer_factory(module.denoiser.parameters()), module.options.learning_rate
    full = optimizer.param_groups[0]["lr"]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = full * rate.factor(step, steps)
        optimizer.zero_grad()
        torch.autograd.backward(module.training_step(batches(BATCH), step))
        torch.nn.utils.clip_grad_norm_(module.denoiser.parameters(), 1.0)
        optimizer.step()
        module.num_averaged += 1
        module.options.averaging.move(module.average, module.denoiser, int(module.num_averaged))


def models(steps: int, seed: int) -> tuple[ScanDiffusionModule, ScanShortcutModule, ScanShortcutModule]:
    """The denoiser; the few-step model that starts from it, trained as long; and the same before it is trained."""
    torch.manual_seed(seed)
    batches = Batches(seed)
    more: dict[str, Any] = {"size": [1, 1], "condition_widths": WIDTHS}
    optimizer = partial(torch.optim.AdamW, lr=2e-3, betas=(0.9, 0.99))
    how: dict[str, Any] = {
        "noise": NoiseDistribution(-1.0, 1.5), "averaging": Averaging(half_life_steps=100.0),
        "learning_rate": LearningRate(warmup_steps=20, decay_share=0.4),
    }  # fmt: skip
    denoiser = ScanDiffusionModule(PixelNet(), optimizer, training=ScanTraining(**how), **more)
    denoiser.measure(batches(4000))
    fit(denoiser, batches, steps)

    def few() -> ScanShortcutModule:
        made = ScanShortcutModule(PixelNet(), optimizer, training=ShortcutTraining(**how), **more)
        made.load_state_dict(denoiser.state_dict())
        return made

    trained, untrained = few(), few()
    fit(trained, batches, steps)
    return denoiser, trained, untrained


def draw(law: ScanDiffusionModule, sampler: str, evaluations: int, seed: int) -> np.ndarray:
    """Pixels, (NUM,)."""
    generator = torch.Generator().manual_seed(seed)

    def noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(NUM, *shape, generator=generator)

    tile = Tile(torch.zeros(NUM, 0), torch.ones(NUM, len(WIDTHS)), noise)
    with torch.inference_mode():
        return drawer_of(law, Sampling(sampler=sampler), evaluations, 1.0)(tile).flatten().numpy()


def error_hu(pixels: np.ndarray, truth: np.ndarray) -> float:
    """The Wasserstein distance of drawn pixels from the law's, HU."""
    return float(UNIT_HU * stats.wasserstein_distance(pixels, truth))


def page(steps: int, seeds: int, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    truth, found, start = true_pixels(NUM_TRUE, 1), dict[str, list[float]](), time.process_time()
    for seed in range(seeds):
        denoiser, few, before = models(steps, seed)
        made = {"the law itself | -": true_pixels(NUM, 20_000 + seed)}
        made |= {f"few-step model | {n}": draw(few, SHORTCUT, n, seed) for n in (1, 2, 4, 8)}
        made |= {f"the same, untrained | {n}": draw(before, SHORTCUT, n, seed) for n in (1, 2, 4, 8)}
        made |= {f"euler | {n}": draw(denoiser, "euler", n, seed) for n in (2, 4, 8, 20)}
        made |= {f"dpmpp_2m | {n}": draw(denoiser, "dpmpp_2m", n, seed) for n in (2, 4, 8, 20)}
        for title, pixels in made.items():
            found.setdefault(title, []).append(error_hu(pixels, truth))
    lines = [
        "# A model of few steps",
        "",
        f"Command: `scripts/bench/scans.py few-steps --steps {steps} --seeds {seeds}`. Distance from the law in "
        f"HU (Wasserstein), mean (least to most) over {seeds} seeds, {NUM:,} pixels of each. Denoiser: {steps} "
        f"steps of training; the few-step model, from it, as many more. {time.process_time() - start:.0f} s of CPU.",
        "",
        *said_lines(known),
        "| | evaluations | HU |",
        "|---|---|---|",
        *(f"| {title} | {np.mean(hu):.1f} ({min(hu):.1f} to {max(hu):.1f}) |" for title, hu in found.items()),
    ]
    return "\n".join(lines) + "\n"
