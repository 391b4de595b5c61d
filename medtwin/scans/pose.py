"""Where the body lies in an image: an affine map onto a template, found for each training image, drawn for a new one.

No two patients stand alike before the detector. Most of what tells two radiographs apart, pixel by pixel, is that one
is shifted, turned or larger, and a model of a few hundred images spends itself on that. So images are laid on a
template before they are learned (Lucas & Kanade 1981; Baker & Matthews 2004, forward additive), and what is drawn is
moved again, by a pose from the distribution of the training images under the same conditions.

A pose is (a, b, tx, c, d, ty): the template's point (x, y), each from -1 to 1, lies in the image at
(x + a x + b y + tx, y + c x + d y + ty).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from medtwin.scans.effects import ConditionEffects

NUM_PARAMETERS = 6
_ROUNDS, _STEPS = 4, 8  # of the template; of each image onto it
_LARGEST = 0.3  # of any parameter
_STEP = 0.05  # most that a parameter changes in a step
_RIDGE = 0.02  # times the pixels: how strongly a pose is drawn to none, in units of the image's range
_SMOOTHING = 5  # pixels of a side
_MAX_FOR_TEMPLATE = 1024
_CHUNK = 256


def warp(images: Tensor, poses: Tensor, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Images as seen on the template, (n, channels, rows, columns); what lies outside is the nearest border's.

    Args:
        images: (n, channels, rows, columns).
        poses: (n, 6).
        mode: How pixels are interpolated.
    """
    matrices = poses.reshape(-1, 2, 3) + torch.eye(2, 3, dtype=poses.dtype, device=poses.device)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def inverse(poses: Tensor) -> Tensor:
    """The poses that undo some poses, (n, 6).

    >>> pose = torch.tensor([[0.1, 0.0, 0.2, 0.0, -0.1, 0.0]])
    >>> [round(value, 3) for value in inverse(pose)[0].tolist()]
    [-0.091, 0.0, -0.182, 0.0, 0.111, 0.0]
    """
    matrices = poses.reshape(-1, 2, 3) + torch.eye(2, 3, dtype=poses.dtype, device=poses.device)
    linear = torch.linalg.inv(matrices[:, :, :2])
    moved = torch.cat([linear, -linear @ matrices[:, :, 2:]], dim=2)
    return (moved - torch.eye(2, 3, dtype=poses.dtype, device=poses.device)).flatten(1)


def find_template(images: Tensor) -> Tensor:
    """The mean of images that lie on each other, (1, 1, rows, columns), found by turns: their poses, then their mean.

    Args:
        images: (n, 1, rows, columns); thinned out evenly beyond 1024.
    """
    images = images[:: -(-len(images) // _MAX_FOR_TEMPLATE)]
    poses = images.new_zeros(len(images), NUM_PARAMETERS)
    for _ in range(_ROUNDS):
        poses = _refined(images, warp(images, poses).mean(dim=0, keepdim=True), poses)
        poses = poses - poses.mean(dim=0)  # the template lies as images do on average
    return warp(images, poses).mean(dim=0, keepdim=True)


def find_poses(images: Tensor, template: Tensor) -> Tensor:
    """The pose of each image, (n, 6); none where it would resemble the template no better than the image itself does.

    Args:
        images: (n, 1, rows, columns).
        template: Of `find_template`.
    """
    if not len(images):
        return images.new_zeros(0, NUM_PARAMETERS)
    return torch.cat([_found(chunk, template) for chunk in torch.split(images, _CHUNK)])


def _found(images: Tensor, template: Tensor) -> Tensor:
    poses = images.new_zeros(len(images), NUM_PARAMETERS)
    for _ in range(2):
        poses = _refined(images, template, poses)
    is_better = _resemblance(warp(images, poses), template) > _resemblance(images, template)
    return torch.where(is_better[:, None], poses, torch.zeros_like(poses))


def _refined(images: Tensor, template: Tensor, poses: Tensor) -> Tensor:
    """Some Gauss-Newton steps of the squared difference, brightness and contrast of the template being free."""
    rows, columns = images.shape[2:]
    y, x = torch.meshgrid(_axis(rows, images), _axis(columns, images), indexing="ij")
    goal = _smooth(template).flatten(1)
    free = torch.stack([torch.ones_like(goal), goal], dim=-1).expand(len(images), -1, -1)
    penalty = torch.full((NUM_PARAMETERS + 2,), 1e-6 * rows * columns).to(images)
    penalty[:NUM_PARAMETERS] = _RIDGE * rows * columns
    for _ in range(_STEPS):
        seen = _smooth(warp(images, poses))
        dx, dy = _slope(seen, 3) * columns / 4, _slope(seen, 2) * rows / 4  # per unit of -1 to 1
        by_pose = torch.stack([dx * x, dx * y, dx, dy * x, dy * y, dy], dim=-1).flatten(1, 3)
        jacobian = torch.cat([by_pose, free], dim=-1)
        wanted = (jacobian.transpose(1, 2) @ (goal - seen.flatten(1))[..., None])[..., 0]
        wanted[:, :NUM_PARAMETERS] -= penalty[:NUM_PARAMETERS] * poses
        step = torch.linalg.solve(jacobian.transpose(1, 2) @ jacobian + torch.diag(penalty), wanted)
        poses = (poses + step[:, :NUM_PARAMETERS].clamp(-_STEP, _STEP)).clamp(-_LARGEST, _LARGEST)
    return poses


def _axis(size: int, like: Tensor) -> Tensor:
    return (torch.arange(size, dtype=like.dtype, device=like.device) * 2 + 1) / size - 1


def _smooth(images: Tensor) -> Tensor:
    margin = _SMOOTHING // 2
    padded = functional.pad(images, (margin,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, _SMOOTHING, 1)


def _slope(images: Tensor, axis: int) -> Tensor:
    """The difference of the next pixel and the one before."""
    after = torch.cat([images.narrow(axis, 1, images.shape[axis] - 1), images.narrow(axis, -1, 1)], dim=axis)
    before = torch.cat([images.narrow(axis, 0, 1), images.narrow(axis, 0, images.shape[axis] - 1)], dim=axis)
    return after - before


def _resemblance(images: Tensor, template: Tensor) -> Tensor:
    """The correlation of each image with the template, both smoothed, (n,)."""
    one, other = (_smooth(part).flatten(1) for part in (images, template))
    one, other = (part - part.mean(dim=1, keepdim=True) for part in (one, other))
    scale = (one.square().sum(dim=1) * other.square().sum(dim=1)).sqrt().clamp(min=1e-9)
    return (one * other).sum(dim=1) / scale


@dataclass(frozen=True)
class PoseLaw:
    """The poses of the training images: normal, about a mean that the conditions move linearly.

    Attributes:
        mean: (6,). root: Of the covariance, lower triangular, (6, 6). effects: What conditions do to the mean.
    """

    mean: Tensor
    root: Tensor
    effects: ConditionEffects

    @classmethod
    def fit(cls, poses: Tensor, values: Tensor, known: Tensor, condition_widths: Sequence[int]) -> PoseLaw:
        """From the poses of training images, (n, 6), and their conditions (`conditions.Encoded`)."""
        effects = ConditionEffects(condition_widths, (NUM_PARAMETERS,))
        left = effects.measure(poses, values, known)
        centred = (left - left.mean(dim=0)).double()
        covariance = centred.T @ centred / len(centred) + 1e-9 * torch.eye(NUM_PARAMETERS, dtype=torch.float64)
        return cls(poses.mean(dim=0), torch.linalg.cholesky(covariance).to(poses), effects)

    def draw(self, noise: Tensor, values: Tensor, known: Tensor) -> Tensor:
        """Poses under some conditions, (n, 6), from standard normal numbers, (n, 6)."""
        poses: Tensor = self.mean + self.effects(values, known) + noise @ self.root.T
        return poses.clamp(-_LARGEST, _LARGEST)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "mean": self.mean.tolist(),
            "root": self.root.tolist(),
            "centre": self.effects.centre.tolist(),
            "slopes": self.effects.slopes.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], condition_widths: Sequence[int]) -> PoseLaw:
        """The inverse of `to_json`."""
        effects = ConditionEffects(condition_widths, (NUM_PARAMETERS,))
        effects.centre.copy_(torch.tensor(value["centre"]))
        effects.slopes.copy_(torch.tensor(value["slopes"]).reshape(effects.slopes.shape))
        return cls(torch.tensor(value["mean"]), torch.tensor(value["root"]), effects)
