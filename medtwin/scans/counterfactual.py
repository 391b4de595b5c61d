"""The same patient under other conditions: older, or with a finding that was not there.

An image is carried back along the probability-flow ODE, under what is known of it, to the noise that a deterministic
sampler would have made it of; from that noise images are drawn under the old conditions and under the new ones, and
their difference is added to the image. So an image whose conditions do not change comes back as it was, and what the
model cannot say of the patient stays. Of an image that the model itself has drawn no inversion is needed: the same key
and seed under other conditions are the same noise (`generate.ScanModel.sample`).

Such an image says what the model associates with a change, not what the change would cause.

Sources: Song et al. 2021 (probability-flow ODE; encoding by it); Su et al. 2023 (dual diffusion bridges).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medtwin.scans.conditions import ScanRequest
from medtwin.scans.drawing import DenoiserDrawer, Tile
from medtwin.scans.generate import ScanModel
from medtwin.scans.module import ScanDiffusionModule
from medtwin.scans.pose import find_poses, inverse, warp
from medtwin.scans.samplers import Denoise
from medtwin.training.threads import torch_threads

Images = NDArray[np.float32]
_DETERMINISTIC = ("dpmpp_2m", "heun", "euler")


@dataclass(frozen=True)
class Counterfactuals:
    """Images (n, *size), in the scale of the network.

    Attributes:
        images: Under the conditions that were asked for.
        reconstructed: Drawn from the same noise under their own: how far these are from the images that were given is
            how much of them the model cannot say.
    """

    images: Images
    reconstructed: Images


def counterfactuals(
    model: ScanModel,
    images: Images,
    own: Sequence[ScanRequest],
    asked: Sequence[ScanRequest],
    *,
    num_steps: int = 64,
    guidance: float = 1.0,
    tile: int = 16,
) -> Counterfactuals:
    """What images would be under other conditions.

    Args:
        model: Trained; its sampler must be deterministic. Where it lays images on a template, each is laid on it, and
            moved back as it lay.
        images: (n, *size), in the scale of the network (`IntensityMap.to_model`).
        own: What is known of each.
        asked: The conditions that each is wanted under.
        num_steps: Evaluations of the denoiser each way.
        guidance: Exaggeration of what the findings do that are asked for; 1: none.
        tile: Images that the network sees at once.

    Raises:
        ValueError: If there are not as many of each, the images are of another size, or the model draws at random or is
            no denoiser.
    """
    if not len(images) == len(own) == len(asked) or not len(images) or tile < 1:
        raise ValueError(f"images, own and asked must be as many, got {len(images)}, {len(own)} and {len(asked)}")
    if not isinstance(model.module, ScanDiffusionModule) or model.sampling.sampler not in _DETERMINISTIC:
        raise ValueError(f"the model must be a denoiser whose sampler is one of {', '.join(_DETERMINISTIC)}")
    size = model.module.image_size
    if images.shape[1:] != size:
        raise ValueError(f"images must be of {size} pixels, got {images.shape[1:]}")
    found = []
    with torch_threads(1), torch.inference_mode():
        for start in range(0, len(images), tile):
            chosen = slice(start, start + tile)
            given = torch.from_numpy(np.ascontiguousarray(images[chosen], np.float32))[:, None]
            tiles = [model.tile(part[chosen], 0, len(given)) for part in (own, asked)]
            found.append(_of_tile(model, model.module, given, tiles[0], tiles[1], num_steps, guidance))
    changed, same = (torch.cat(parts)[:, 0].numpy() for parts in zip(*found, strict=True))
    return Counterfactuals(changed, same)


def _of_tile(
    model: ScanModel,
    module: ScanDiffusionModule,
    images: Tensor,
    own: Tile,
    asked: Tile,
    num_steps: int,
    guidance: float,
) -> tuple[Tensor, Tensor]:
    denoiser = module.average.eval()
    laid, poses, mean = images, None, denoiser.prior.mean
    if model.description.poses is not None:
        poses = find_poses(images, module.decoded(mean[None]).cpu())
        laid = warp(images, poses)
    plain, guided = (DenoiserDrawer(denoiser, model.sampling, num_steps, g) for g in (1.0, guidance))
    noisy = invert(plain.denoise(own), module.coded(laid.to(mean.device)), plain.sigmas)
    centred = noisy - plain.centre(own)
    same = module.decoded(plain.solve(own, noisy))
    changed = module.decoded(guided.solve(asked, guided.centre(asked) + centred))
    change = (changed - same).float().cpu()
    same = same.float().cpu()
    if poses is not None:
        back = inverse(poses)
        change, same = warp(change, back), warp(same, back)
    return (images + change).clamp(-1, 1), same.clamp(-1, 1)


def invert(denoise: Denoise, images: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The noisy images at sigmas[0] from which the ODE leads to some images; second order, as `samplers.heun` back.

    Args:
        denoise: The clean image expected at (x, sigma), under what is known of the images.
        images: (n, channels, *size); they count as having the least noise of the grid.
        sigmas: Of the sampler: falling, the last one 0.
    """
    x = images
    for sigma, after in pairwise(sigmas[-2::-1]):
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (after - sigma) * slope
        x = x + (after - sigma) * 0.5 * (slope + (ahead - denoise(ahead, after)) / after)
    return x


def share_identified(before: NDArray[np.floating], after: NDArray[np.floating]) -> float:
    """Share of images whose counterfactual is nearer to their own original than to any other; of chance 1 / n.

    What the change does to all alike is taken away first: the mean of either.

    Args:
        before: Originals or features of them, (n, ...).
        after: Their counterfactuals, in that order.

    Raises:
        ValueError: If there are fewer than two, or the shapes differ.

    >>> share_identified(np.array([[0.0], [1.0], [2.0]]), np.array([[5.0], [6.0], [6.9]]))
    1.0
    """
    if before.shape != after.shape or len(before) < 2:
        raise ValueError(f"before and after must be 2 or more of one shape, got {before.shape} and {after.shape}")
    x, y = (each.reshape(len(each), -1).astype(np.float64) for each in (before, after))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    squared = (x**2).sum(axis=1)[None] - 2 * y @ x.T
    return float((squared.argmin(axis=1) == np.arange(len(x))).mean())


__all__ = ["Counterfactuals", "counterfactuals", "invert", "share_identified"]
