"""Features of images for `check`, without downloaded weights: random convolutions, or contrastive training on the spot.

Weights learned elsewhere judge medical images unreliably (Woodland et al. 2023, arXiv 2311.13717), and no run may wait
for a download. Random convolutions see the faults that trained ones see (docs/results/encoders.md), need no training,
and are the same everywhere.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator

BLOCK = 128
MIN_SIZE = 16
MIN_TRAIN_IMAGES = 32
SMALLEST = 1e-2
"""Added to a mean response, at most about 1, before its logarithm: where there is nothing, nothing matters."""
TEMPERATURE = 0.2
BATCH_SIZE = 64
LEARNING_RATE = 1e-3
WIDTHS = (32, 64, 96, 128)
MAX_ANGLE, MAX_SHIFT, MAX_ZOOM = 0.14, 0.12, 0.12
"""Radians, half image widths, and share by which two views of an image differ: what positioning may change."""
MAX_GAMMA, MAX_GAIN, MAX_NOISE = 0.3, 0.15, 0.02

Pixels = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureEncoder:
    """Maps images to features.

    Attributes:
        name: What it is, for the report.
        net: (images, 1, size, size) to (images, features), in evaluation mode.
        sha256: Of its weights.
    """

    name: str
    net: nn.Module
    sha256: str

    def __call__(self, images: Pixels) -> Floats:
        """Features of images from 0 to 1, (images, size, size) -> (images, features).

        Raises:
            ValueError: If there are no images or they are smaller than `MIN_SIZE`.
        """
        if images.ndim != 3 or not len(images) or min(images.shape[1:]) < MIN_SIZE:
            raise ValueError(f"images must be (1 or more, {MIN_SIZE} or more, ...), got {images.shape}")
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), BLOCK):
                block = torch.from_numpy(np.ascontiguousarray(images[start : start + BLOCK], np.float32))
                parts.append(self.net(block[:, None]).flatten(1).double().numpy())
        return np.concatenate(parts)


class RandomConvolutions(nn.Module):
    """Mean responses to two layers of random filters at three scales, in each quarter of the image, as logarithms.

    Filters have mean 0 and length 1, so that a flat image has no response; the mean intensity is another measure's.

    Sources: Saxe et al. 2011, ICML (random convolutions select frequency and place); Jarrett et al. 2009, ICCV.
    """

    def __init__(self, *, seed: int = 0, num_filters: int = 16, num_scales: int = 3, grid: int = 2) -> None:
        """Draws the filters.

        Args:
            seed: Decides them.
            num_filters: Of each layer.
            num_scales: Each half as fine as the one before.
            grid: Rows and columns of the fields that a response is averaged over.
        """
        super().__init__()
        self.grid = grid
        rng = generator(seed, "random convolutions")
        for scale in range(num_scales):
            self.register_buffer(f"first_{scale}", _filters(rng, (num_filters, 1, 5, 5)))
            self.register_buffer(f"second_{scale}", _filters(rng, (num_filters, num_filters, 3, 3)))
        self.num_scales = num_scales

    def forward(self, images: Tensor) -> Tensor:
        """(images, 1, size, size) to (images, 2 layers x scales x filters x fields)."""
        responses = []
        for scale in range(self.num_scales):
            if scale:
                images = functional.avg_pool2d(images, 2)
            first = _respond(images, self.get_buffer(f"first_{scale}"))
            second = _respond(functional.avg_pool2d(first, 2), self.get_buffer(f"second_{scale}"))
            responses += [functional.adaptive_avg_pool2d(layer, self.grid).flatten(1) for layer in (first, second)]
        return torch.log(torch.cat(responses, dim=1) + SMALLEST)


def _filters(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    values = rng.standard_normal(shape).astype(np.float32)
    values -= values.mean(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy(values / np.linalg.norm(values.reshape(shape[0], -1), axis=1)[:, None, None, None])


def _respond(images: Tensor, filters: Tensor) -> Tensor:
    reach = filters.shape[-1] // 2
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    return functional.relu(functional.conv2d(padded, filters))


def random_encoder(seed: int = 0) -> FeatureEncoder:
    """Random convolutions, 384 features: nothing is trained."""
    return as_encoder("random convolutions", RandomConvolutions(seed=seed))


class ContrastiveNet(nn.Module):
    """Four convolutions of stride 2 and the mean over the image: 128 features."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(images, 1, size, size) to (images, 128)."""
        features: Tensor = self.body(images - 0.5)
        return features.mean(dim=(2, 3))


def contrastive_encoder(images: Pixels, *, seed: int = 0, num_steps: int = 200) -> FeatureEncoder:
    """Trains a small network to tell images apart however they are turned, moved, zoomed, lit and grained.

    Args:
        images: Real images of the train split alone, (images, size, size), 0 to 1.
        seed: Decides first weights, batches and views.
        num_steps: Of `BATCH_SIZE` images; 200 take about 40 s on one core at 64 x 64.

    Raises:
        ValueError: If there are fewer than `MIN_TRAIN_IMAGES` images, they are smaller than `MIN_SIZE`, or no steps.

    Source: Chen, Kornblith, Norouzi & Hinton 2020, ICML (SimCLR).
    """
    if len(images) < MIN_TRAIN_IMAGES or min(images.shape[1:]) < MIN_SIZE or num_steps < 1:
        raise ValueError(
            f"contrastive training needs {MIN_TRAIN_IMAGES} images of {MIN_SIZE} pixels and a step, "
            f"got {images.shape} and {num_steps}"
        )
    rng = generator(seed, "contrastive encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        net = ContrastiveNet()
        head = nn.Sequential(nn.Linear(WIDTHS[-1], 128), nn.ReLU(), nn.Linear(128, 64))
    draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=LEARNING_RATE, weight_decay=1e-4)
    everything = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
    net.train()
    for _ in range(num_steps):
        batch = everything[torch.randperm(len(everything), generator=draws)[:BATCH_SIZE]]
        views = torch.cat([random_view(batch, draws), random_view(batch, draws)])
        loss = contrastive_loss(head(net(views)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return as_encoder(f"contrastive, {len(images)} real images, {num_steps} steps", net.eval())


def random_view(images: Tensor, draws: torch.Generator) -> Tensor:
    """Each image turned, moved, zoomed, lit and grained at random, (images, 1, size, size); never mirrored."""
    count = len(images)

    def uniform(most: float) -> Tensor:
        return (2 * torch.rand(count, generator=draws) - 1) * most

    angle, zoom = uniform(MAX_ANGLE), 1 + uniform(MAX_ZOOM)
    seen = moved(images, angle, zoom, uniform(MAX_SHIFT), uniform(MAX_SHIFT))
    lit = seen.clamp(1e-4, 1) ** torch.exp(uniform(MAX_GAMMA))[:, None, None, None]
    lit = lit * (1 + uniform(MAX_GAIN))[:, None, None, None]
    grain = MAX_NOISE * torch.rand(count, 1, 1, 1, generator=draws)
    return lit + grain * torch.randn(lit.shape, generator=draws)


def moved(images: Tensor, angle: Tensor, zoom: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Images turned, zoomed and moved, (images, 1, size, size); what lies beyond the border repeats it.

    Args:
        images: (images, 1, size, size).
        angle: Radians, (images,).
        zoom: Share of the image's side that is seen, (images,).
        across: Half image widths, (images,).
        down: Half image heights, (images,).
    """
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [torch.stack([cosine, -sine, across], 1), torch.stack([sine, cosine, down], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def contrastive_loss(embedded: Tensor) -> Tensor:
    """Normalised temperature-scaled cross-entropy, nats: which of all other rows is the same image's other view.

    Args:
        embedded: (2 x images, numbers), the second views after the first.

    Source: Chen et al. 2020, ICML, equation 1.
    """
    unit = functional.normalize(embedded, dim=1)
    similarity = unit @ unit.T / TEMPERATURE
    similarity = similarity.masked_fill(torch.eye(len(unit), dtype=torch.bool), -math.inf)
    half = len(unit) // 2
    return functional.cross_entropy(similarity, torch.cat([torch.arange(half) + half, torch.arange(half)]))


def load_encoder(path: Path) -> FeatureEncoder:
    """Your own network as TorchScript: (images, 1, size, size), 0 to 1, to (images, features). Never a pickle.

    TorchScript is a program: load what you trust.

    Raises:
        ConfigError: If the file is no TorchScript, or does not map images to features.
    """
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            net = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            found = net(torch.zeros(2, 1, 64, 64))
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"encoder must be a TorchScript file that takes (images, 1, 64, 64), got {path}") from error
    if not isinstance(found, Tensor) or found.shape[:1] != (2,):
        raise ConfigError(f"encoder must give (images, features), got another shape from {path}")
    return FeatureEncoder(path.name, net, hashlib.sha256(content).hexdigest())


def as_encoder(name: str, net: nn.Module) -> FeatureEncoder:
    """A network of images from 0 to 1 as an encoder, its weights hashed and frozen."""
    digest = hashlib.sha256()
    for key, value in sorted(net.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return FeatureEncoder(name, net.requires_grad_(False).eval(), digest.hexdigest())
