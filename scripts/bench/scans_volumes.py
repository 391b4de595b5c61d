"""Small volumes of a body whose geometry is known: does the three-dimensional model draw them in the right place?

A phantom is 32 x 32 x 32 voxels (slice, row, column) in Hounsfield units: air, a body with a rim of fat, two lungs, a
spine through every slice, and on the left of the image's middle an organ whose radius is 5 voxels with a finding and
3.5 without. Nothing of it is alike under a swap of axes or a flip of one, so that a model that has mixed them up shows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import torch
from head_commit import head_commit
from numpy.typing import NDArray
from pages import said_lines
from torch.utils.data import DataLoader, Dataset

from medtwin.scans.conditions import ConditionSpec, ScanRequest
from medtwin.scans.generate import ScanDescription, ScanModel
from medtwin.scans.intensity import IntensityMap
from medtwin.scans.module import LearningRate, NoiseDistribution, ScanBatch, ScanDiffusionModule, ScanTraining
from medtwin.scans.spacings import SpacingTable
from medtwin.scans.unet import UNet, UNetShape
from medtwin.training.averaging import Averaging

SIZE = 32
FINDING = "SNOMED//1"
TISSUES = {"air": -1000.0, "lung": -800.0, "fat": -100.0, "soft tissue": 40.0, "organ": 300.0, "bone": 700.0}
RADII = {True: 5.0, False: 3.5}
ORGAN, SPINE = (12.0, 12.0, 20.0), (22.0, 15.5)  # slice, row, column; row, column
_NOISE_HU = 8.0
_SOFTENING_HU = 150.0
_BIN_HU = 4.0
_NEAR_HU = 60.0
Volume = NDArray[np.float32]


def phantom(rng: np.random.Generator, has_finding: bool) -> Volume:
    """A volume in HU, (SIZE, SIZE, SIZE); edges are one voxel wide."""
    z, y, x = np.meshgrid(*[np.arange(SIZE, dtype=np.float64)] * 3, indexing="ij")
    volume = np.full((SIZE,) * 3, TISSUES["air"])

    def fill(tissue: str, distance: NDArray[np.float64]) -> None:  # voxels inside, above 0
        share = np.clip(distance + 0.5, 0, 1)
        volume[...] = volume * (1 - share) + TISSUES[tissue] * share

    wide, deep = 14 * (1 + 0.03 * rng.normal()), 11 * (1 + 0.03 * rng.normal())
    inside = deep * (1 - np.hypot((x - 15.5) / wide, (y - 15.5) / deep))
    fill("fat", inside)
    fill("soft tissue", inside - 1.7)
    for middle in (9.0, 22.0):
        fill("lung", 4 * (1 - np.sqrt(((z - 12) / 9) ** 2 + ((y - 14) / 5.5) ** 2 + ((x - middle) / 4) ** 2)))
    shift = 0.4 * rng.normal(size=3)
    radius = RADII[has_finding] + 0.25 * rng.normal()
    fill("organ", radius - np.sqrt(sum((a - c - d) ** 2 for a, c, d in zip((z, y, x), ORGAN, shift, strict=True))))
    fill("bone", 2.5 - np.hypot(y - SPINE[0] - shift[1], x - SPINE[1] - shift[2]))
    return (volume + _NOISE_HU * rng.normal(size=volume.shape)).astype(np.float32)


@dataclass(frozen=True)
class Geometry:
    """What is measured of volumes, each a mean over them in voxels or HU.

    Attributes:
        organ: Centre of mass, (slice, row, column), (n, 3). radius: Of a ball of its volume, (n,).
        spine: Row and column of its middle, (n, 2). spine_slices: Share of slices in which it is seen, (n,).
        lung_voxels: (n,). of_no_tissue: Share of voxels that are more than 60 HU from all tissues, (n,).
        peaks: Of the tissues in HU, by name; nan where there is none.
    """

    organ: NDArray[np.float64]
    radius: NDArray[np.float64]
    spine: NDArray[np.float64]
    spine_slices: NDArray[np.float64]
    lung_voxels: NDArray[np.float64]
    of_no_tissue: NDArray[np.float64]
    peaks: dict[str, float]


def measure(volumes: Volume) -> Geometry:
    """Measures volumes in HU, (n, SIZE, SIZE, SIZE)."""
    z, y, x = np.meshgrid(*[np.arange(SIZE, dtype=np.float64)] * 3, indexing="ij")
    organ, radius, spine, slices, lungs, between = [], [], [], [], [], []
    for volume in volumes.astype(np.float64):
        is_organ = (volume > 170) & (volume < 430) & (y < 18)
        organ.append([a[is_organ].mean() if is_organ.any() else np.nan for a in (z, y, x)])
        radius.append((3 * is_organ.sum() / (4 * np.pi)) ** (1 / 3))
        is_bone = volume > 500
        spine.append([a[is_bone].mean() if is_bone.any() else np.nan for a in (y, x)])
        slices.append((is_bone.sum(axis=(1, 2)) >= 5).mean())
        lungs.append(((volume < -450) & (np.hypot((x - 15.5) / 11, (y - 15.5) / 8.5) < 1)).sum())
        between.append((np.abs(volume[..., None] - list(TISSUES.values())).min(axis=-1) > _NEAR_HU).mean())
    peaks = {name: peak(volumes, value) for name, value in TISSUES.items()}
    return Geometry(*(np.array(each) for each in (organ, radius, spine, slices, lungs, between)), peaks)


def peak(volumes: Volume, value: float) -> float:
    """The commonest HU near a tissue's, by a histogram smoothed over five bins."""
    return commonest(counts_near(volumes, value), value)


def counts_near(volumes: Volume, value: float) -> NDArray[np.int64]:
    """How many values lie in each bin near a tissue's, (bins,)."""
    edges = np.arange(value - _NEAR_HU, value + _NEAR_HU + _BIN_HU, _BIN_HU)
    return np.histogram(volumes, edges)[0]


def commonest(counts: NDArray[np.int64], value: float) -> float:
    """The middle of the bin that holds most, of `counts_near`; nan where none holds any."""
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    place = int(smooth[2:-2].argmax()) + 2
    return float(value - _NEAR_HU + (place + 0.5) * _BIN_HU) if smooth[place] > 0 else float("nan")


class Phantoms(Dataset[Any]):
    """Training volumes with their conditions, every second one with the finding."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.hu = np.stack([phantom(rng, bool(i % 2)) for i in range(count)])
        self.requests = [request(str(i), bool(i % 2)) for i in range(count)]
        self.intensity = IntensityMap.fit([(self.hu[0], "CT", 16)], hu_softening=_SOFTENING_HU)
        self.spec = ConditionSpec.fit(self.requests, min_count=1)
        self._encoded = self.spec.encode(self.requests)

    def __len__(self) -> int:
        return len(self.hu)

    def __getitems__(self, indices: list[int]) -> ScanBatch:
        """The batch of some indices; torch's loaders ask for it in this way."""
        image = torch.from_numpy(self.intensity.to_model(self.hu[indices], "CT", 16)[:, None])
        return {
            "image": image,
            "values": torch.from_numpy(self._encoded.values[indices]),
            "known": torch.from_numpy(self._encoded.known[indices]),
        }

    def model(self, module: ScanDiffusionModule) -> ScanModel:
        """What draws, as of a run that has learned these volumes."""
        description = ScanDescription(SIZE, self.spec, self.intensity, SpacingTable.fit(self.requests))
        return ScanModel(module, description)


def request(key: str, has_finding: bool) -> ScanRequest:
    """Asks for a volume."""
    return ScanRequest(key, "CT", "CHEST", labels=(FINDING,) if has_finding else (), spacing_mm=(10.0, 10.0))


def untrained(data: Phantoms, rank: int) -> ScanDiffusionModule:
    """The model with what is measured on the volumes, and no more.

    Args:
        data: Volumes to measure.
        rank: Principal components that are measured; 0: one mean volume and one variance, so that all else is learned.
    """
    torch.manual_seed(0)
    shape = UNetShape(cond_channels=64)
    net = UNet(spatial_dims=3, channels=(64, 96), attention_levels=(False, True), patch=4, gain=True, shape=shape)
    training = ScanTraining(
        noise=NoiseDistribution(-0.8, 1.4),
        averaging=Averaging(half_life_steps=30.0),
        learning_rate=LearningRate(warmup_steps=20, decay_share=0.4),
    )
    optimizer = partial(torch.optim.AdamW, lr=2e-3, betas=(0.9, 0.99))
    widths = list(data.spec.widths)
    module = ScanDiffusionModule(net, optimizer, size=[SIZE] * 3, condition_widths=widths, training=training, rank=rank)
    module.measure(data.__getitems__(list(range(len(data)))))
    return module


def train(module: ScanDiffusionModule, data: Phantoms, steps: int, minutes: float | None) -> int:
    """Trains on batches of eight until the steps or the minutes are over; returns the steps done."""
    from lightning.pytorch import Trainer

    generator = torch.Generator().manual_seed(1)
    loader: DataLoader[Any] = DataLoader(data, batch_size=8, shuffle=True, generator=generator, collate_fn=_as_it_is)
    trainer = Trainer(
        max_steps=steps, max_time=None if minutes is None else timedelta(minutes=minutes), accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        gradient_clip_val=1.0, num_sanity_val_steps=0, log_every_n_steps=10_000,
    )  # fmt: skip
    trainer.fit(module, loader)
    return trainer.global_step


def drawn(model: ScanModel, count: int, seed: int = 0) -> tuple[Volume, Volume]:
    """So many volumes with the finding, and as many without, in HU."""
    asked = [request(f"drawn {i}", has) for i in range(count) for has in (True, False)]
    pixels = np.stack([scan.pixels for scan in model.sample(asked, seed=seed, tile=8, batch_size=8)]).astype(np.float32)
    return pixels[::2], pixels[1::2]


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass(frozen=True)
class Tolerances:
    """How far what is drawn may be from phantoms that were not trained on, for its geometry to count as right.

    Attributes:
        voxels: Of the organ's middle and the spine's, along each axis, and of the organ's mean radius of either kind.
        lung_share: Of the volume of the lungs. spine_slices: Least share of slices in which the spine is seen.
        hu: Of the peak of each tissue.
    """

    voxels: float = 0.5
    lung_share: float = 0.05
    spine_slices: float = 0.95
    hu: float = 15.0


def faults(big: Volume, little: Volume, true_big: Volume, true_little: Volume, most: Tolerances) -> list[str]:
    """What of the geometry of volumes is wrong, in words; nothing where it is right.

    Args:
        big: With the finding, in HU.
        little: Without.
        true_big: Phantoms that were not trained on, with the finding.
        true_little: Without.
        most: What is tolerated.
    """
    found, true = (measure(np.concatenate(pair)) for pair in ((big, little), (true_big, true_little)))
    radii = [[measure(each).radius.mean() for each in pair] for pair in ((big, little), (true_big, true_little))]

    def off(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.abs(_middle(a) - _middle(b)).max())

    lungs = found.lung_voxels.mean() / true.lung_voxels.mean() - 1
    is_right = {
        "organ's middle": off(found.organ, true.organ) <= most.voxels,
        "radius with finding": abs(radii[0][0] - radii[1][0]) <= most.voxels,
        "radius without": abs(radii[0][1] - radii[1][1]) <= most.voxels,
        "spine's middle": off(found.spine, true.spine) <= most.voxels,
        "slices with spine": found.spine_slices.mean() >= most.spine_slices,
        "lung volume": abs(lungs) <= most.lung_share,
        **{f"{name} peak": abs(found.peaks[name] - true.peaks[name]) <= most.hu for name in TISSUES},
    }
    return [name for name, right in is_right.items() if not right]


def _middle(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean place, (axes,); nan where it was seen in none, which is within no tolerance."""
    seen = places[~np.isnan(places).any(axis=1)]
    return seen.mean(axis=0) if len(seen) else np.full(places.shape[1], np.nan)


def row(title: str, big: Volume, little: Volume, fresh: Phantoms) -> str:
    """A row of the table: what was measured of both kinds together, the radius of each, and what of it is wrong."""
    whole, radii = measure(np.concatenate([big, little])), [measure(each).radius for each in (big, little)]
    wrong = faults(big, little, fresh.hu[1::2], fresh.hu[::2], Tolerances())
    cells = [
        " ".join(f"{value:.1f}" for value in _middle(whole.organ)),
        *(f"{each.mean():.2f} ± {each.std():.2f}" for each in radii),
        " ".join(f"{value:.1f}" for value in _middle(whole.spine)),
        f"{whole.spine_slices.mean():.2f}",
        f"{whole.lung_voxels.mean():.0f}",
        f"{whole.of_no_tissue.mean():.3f}",
        *(f"{whole.peaks[name]:.0f}" for name in TISSUES),
        ", ".join(wrong) or "nothing",
    ]
    return f"| {title} | {' | '.join(cells)} |"


def page(steps: int, minutes: float | None = None, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    start = time.process_time()
    data, fresh = Phantoms(160, seed=0), Phantoms(32, seed=1)
    module = untrained(data, rank=0)
    rows = [row("nothing learned: one mean, one variance", *drawn(data.model(module), 8), fresh)]
    done = train(module, data, steps, minutes)
    rows.append(row(f"learned in {done} steps", *drawn(data.model(module), 16), fresh))
    measured = untrained(data, rank=24)
    rows.append(row("measured: mean, effects, 24 components", *drawn(data.model(measured), 8), fresh))
    done = train(measured, data, steps // 3, minutes)
    rows.append(row(f"measured, and learned in {done} steps", *drawn(data.model(measured), 16), fresh))
    turned = (each.transpose(0, 3, 2, 1) for each in (fresh.hu[1::2], fresh.hu[::2]))
    rows.append(row("phantoms, axes reversed", *turned, fresh))
    rows.append(row("phantoms, findings exchanged", fresh.hu[::2], fresh.hu[1::2], fresh))
    names, most = " | ".join(f"{name}, HU" for name in TISSUES), Tolerances()
    asked = f"--steps {steps}" + ("" if minutes is None else f" --minutes {minutes:g}")
    lines = [
        "# A small volume model",
        "",
        f"Command: `scripts/bench/scans.py volumes {asked}`; commit {head_commit()}; "
        f"{time.process_time() - start:.0f} s of CPU, one thread. 160 phantoms of {SIZE}^3 voxels to learn from; drawn "
        "by 20 evaluations of dpmpp_2m, half of them with the finding; means over volumes, in voxels (slice row "
        "column) or HU.",
        "",
        f"Wrong is what differs from phantoms that were not trained on by more than {most.voxels} voxels (middles "
        f"along each axis, mean radii), {most.lung_share:.0%} of the volume of the lungs, {most.hu:g} HU (peaks), or "
        f"by a spine in fewer than {most.spine_slices:.0%} of the slices.",
        "",
        *said_lines(known),
        "## Drawn",
        "",
        "| | organ's middle | radius with finding | without | spine's middle | slices with spine | lung voxels "
        f"| of no tissue | {names} | wrong |",
        f"|---|{'---|' * (8 + len(TISSUES))}",
        row("32 phantoms not trained on", fresh.hu[1::2], fresh.hu[::2], fresh),
        *rows,
    ]
    return "\n".join(lines) + "\n"
