"""The few-step model beside the model it starts from, on images whose law is known, by evaluations of the network.

An image is a soft disc on 16 x 16 pixels: its radius is 3 or 5 pixels, as often, its middle lies about that
of the image. How far drawn images are from the law is said in three ways: the energy distance of pixels, the
Wasserstein distance of radii, and the share of pixels that no disc of that area and middle explains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist
from timelines_report import SAID, said_in
from torch import Tensor

from medtwin.scans.drawing import SHORTCUT, Sampling, Tile, drawer_of
from medtwin.scans.module import LearningRate, NoiseDistribution, ScanBatch, ScanDiffusionModule, ScanTraining
from medtwin.scans.shortcut import ScanShortcutModule, ShortcutTraining
from medtwin.scans.unet import UNet, UNetShape
from medtwin.training.averaging import Averaging

SIZE, RADII, NUM = 16, (3.0, 5.0), 256
WIDTHS = [0] * 8
Images = NDArray[np.float64]


def discs(count: int, rng: np.random.Generator) -> Images:
    """Images of the law, (count, SIZE, SIZE), -1 to 1."""
    radius = rng.choice(RADII, size=count) + 0.15 * rng.normal(size=count)
    return disc(radius, 0.7 * rng.normal(size=(count, 2)))


def disc(radius: NDArray[np.float64], middle: NDArray[np.float64]) -> Images:
    """Soft discs, (n, SIZE, SIZE), by radius (n,) and middle (n, 2) in pixels."""
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    down, across = axis[None, :, None] - middle[:, :1, None], axis[None, None] - middle[:, 1:, None]
    return 2 * np.clip(radius[:, None, None] - np.hypot(down, across) + 0.5, 0, 1) - 1


def radii(images: Images) -> NDArray[np.float64]:
    """From areas, (n,)."""
    return np.sqrt(((images + 1) / 2).clip(0, 1).sum(axis=(1, 2)) / np.pi)


@dataclass(frozen=True)
class Distance:
    """How far images are from the law: energy distance, pixels of radius, share of pixels."""

    energy: float
    radius: float
    off: float


def distance(images: Images, truth: Images) -> Distance:
    """Of drawn images from some of the law."""
    x, y = (each.reshape(len(each), -1) for each in (images, truth))
    n, m = len(x), len(y)
    within = cdist(x, x).sum() / (n * (n - 1)) + cdist(y, y).sum() / (m * (m - 1))
    mass = ((images + 1) / 2).clip(0, 1) + 1e-9
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    down, across = (np.einsum(f"nrc,{a}->n", mass, axis) / mass.sum(axis=(1, 2)) for a in ("r", "c"))
    wanted = disc(radii(images), np.stack([down, across], axis=1))
    return Distance(
        float(2 * cdist(x, y).mean() - within),
        float(stats.wasserstein_distance(radii(images), radii(truth))),
        float((np.abs(images - wanted) > 0.5).mean()),
    )


class _Batches:
    """Batches of the law, an endless number."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, count: int) -> ScanBatch:
        image = torch.from_numpy(discs(count, self.rng)[:, None]).float()
        return {"image": image, "values": torch.zeros(count, 0), "known": torch.ones(count, len(WIDTHS))}


def _net() -> UNet:
    torch.manual_seed(0)
    return UNet(channels=(32, 48), attention_levels=(False, True), patch=2, shape=UNetShape(cond_channels=64))


def _fit(module: ScanDiffusionModule, batches: _Batches, steps: int) -> float:
    """Trains without a Trainer; returns seconds of CPU time a step."""
    torch.manual_seed(1)
    module.log = lambda *given, **more: None  # type: ignore[method-assign]
    optimizer, rate = module.optimizer_factory(module.denoiser.parameters()), module.options.learning_rate
    start, full = time.process_time(), optimizer.param_groups[0]["lr"]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = full * rate.factor(step, steps)
        module.denoiser.train()
        optimizer.zero_grad()
        module.training_step(batches(32), step).backward()
        torch.nn.utils.clip_grad_norm_(module.denoiser.parameters(), 1.0)
        optimizer.step()
        module.num_averaged += 1
        module.options.averaging.move(module.average, module.denoiser, int(module.num_averaged))
    return (time.process_time() - start) / max(steps, 1)


def models(steps: int, seed: int) -> tuple[ScanDiffusionModule, ScanShortcutModule, ScanShortcutModule]:
    """The denoiser; the few-step model that starts from it, trained as long; and the same before it is trained."""
    batches = _Batches(seed)
    more: dict[str, Any] = {"size": [SIZE] * 2, "condition_widths": WIDTHS, "rank": 16}
    optimizer = partial(torch.optim.AdamW, lr=3e-3, betas=(0.9, 0.99))
    how: dict[str, Any] = {
        "noise": NoiseDistribution(-0.7, 1.3), "averaging": Averaging(half_life_steps=20.0),
        "learning_rate": LearningRate(warmup_steps=10, decay_share=0.4),
    }  # fmt: skip
    denoiser = ScanDiffusionModule(_net(), optimizer, training=ScanTraining(**how), **more)
    denoiser.measure(batches(512))
    _fit(denoiser, batches, steps)

    def few() -> ScanShortcutModule:
        made = ScanShortcutModule(_net(), optimizer, training=ShortcutTraining(**how, halvings=5), **more)
        made.load_state_dict(denoiser.state_dict())
        return made

    trained, untrained = few(), few()
    _fit(trained, batches, steps)
    return denoiser, trained, untrained


def draw(law: Any, sampler: str, evaluations: int, seed: int) -> tuple[Images, float]:
    """Images, and seconds of CPU time for each."""
    generator = torch.Generator().manual_seed(seed)

    def noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(NUM, *shape, generator=generator)

    tile = Tile(torch.zeros(NUM, 0), torch.ones(NUM, len(WIDTHS)), noise)
    drawer, start = drawer_of(law, Sampling(sampler=sampler), evaluations, 1.0), time.process_time()
    with torch.inference_mode():
        images = drawer(tile)
    return images[:, 0].numpy().astype(np.float64), (time.process_time() - start) / NUM


def page(steps: int, seeds: int, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    truth = discs(2000, np.random.default_rng(10_000))
    rows: dict[str, list[Distance]] = {}
    seconds: dict[str, list[float]] = {}

    def add(title: str, made: Callable[[], tuple[Images, float]]) -> None:
        images, spent = made()
        rows.setdefault(title, []).append(distance(images, truth))
        seconds.setdefault(title, []).append(1e3 * spent)

    for seed in range(seeds):
        denoiser, few, before = models(steps, seed)
        add("the law itself", lambda seed=seed: (discs(NUM, np.random.default_rng(20_000 + seed)), 0.0))
        for n in (1, 2, 4):
            add(f"shortcut, {n}", lambda n=n, few=few, seed=seed: draw(few, SHORTCUT, n, seed))
        for n in (1, 2, 4):
            add(f"shortcut untrained, {n}", lambda n=n, before=before, seed=seed: draw(before, SHORTCUT, n, seed))
        for sampler, n in (("euler", 2), ("euler", 4), ("dpmpp_2m", 4), ("dpmpp_2m", 20)):
            add(f"{sampler}, {n}", lambda s=sampler, n=n, law=denoiser, seed=seed: draw(law, s, n, seed))
    lines = [
        "# A model of few steps",
        "",
        f"Command: `scripts/bench/scans.py few-steps --steps {steps} --seeds {seeds}`. Discs of {SIZE}^2 pixels; "
        f"the denoiser is trained for {steps} steps, the few-step model that starts from it for as many more; {NUM} "
        f"images of each, mean (least to most) over {seeds} seeds. After the comma: evaluations for an image.",
        "",
        *([SAID, "", said, ""] if (said := said_in(known)) else []),
        "| | energy distance | radii, pixels | pixels off a disc | CPU ms an image |",
        "|---|---|---|---|---|",
    ]
    for title, found in rows.items():
        cells = [_cell([getattr(each, name) for each in found]) for name in ("energy", "radius", "off")]
        lines.append(f"| {title} | {' | '.join(cells)} | {np.mean(seconds[title]):.2f} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
