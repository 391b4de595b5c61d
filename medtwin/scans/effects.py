"""What the conditions do to the mean image: a ridge regression of every pixel on the conditions, measured, not trained.

A large heart is a brighter rim around the heart; linear regression finds that in a hundred images and a second, where
a network needs many thousand steps. The network is left with what is not linear in the conditions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medtwin.scans.folds import folds

_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, float("inf"))  # times the images; inf: conditions do nothing


class ConditionEffects(nn.Module):
    """How much the mean image under some conditions differs from the mean image.

    A condition that is missing counts as at its mean. The penalty is the one that predicts best in five folds, each of
    neighbours, so that images of one subject mostly stay together; it may be that conditions predict nothing.

    Attributes:
        centre: Mean of each number where it is known, (values,).
        slopes: Change of the image by one unit of each number, (values, channels * pixels); 0 until `measure`.
    """

    condition_of_value: Tensor
    centre: Tensor
    slopes: Tensor

    def __init__(self, condition_widths: Sequence[int], shape: Sequence[int]) -> None:
        """No effects yet.

        Args:
            condition_widths: Numbers of each condition.
            shape: Of an image, (channels, *size).
        """
        super().__init__()
        owners = [index for index, n in enumerate(condition_widths) for _ in range(n)]
        self.shape = tuple(shape)
        self.register_buffer("condition_of_value", torch.tensor(owners, dtype=torch.long), persistent=False)
        self.register_buffer("centre", torch.zeros(len(owners)))
        self.register_buffer("slopes", torch.zeros(len(owners), int(torch.Size(shape).numel())))

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        """(batch, values) and (batch, conditions) of 0 and 1, to (batch, channels, *size)."""
        given = (values - self.centre) * known[:, self.condition_of_value]
        with torch.autocast(given.device.type, enabled=False):
            return (given @ self.slopes).reshape(-1, *self.shape)

    @torch.no_grad()
    def measure(self, images: Tensor, values: Tensor, known: Tensor) -> Tensor:
        """Measures the effects; returns the images less the effects, as found without each image's own fold.

        Args:
            images: (n, channels, *size).
            values: Numbers of their conditions, (n, values).
            known: Which conditions are known, (n, conditions) of 1 and 0.

        Raises:
            ValueError: If the numbers of images and conditions differ.
        """
        if not len(images) == len(values) == len(known):
            raise ValueError(f"images and conditions must be as many, got {len(images)} and {len(values)}")
        is_known = known[:, self.condition_of_value]
        count = is_known.sum(dim=0).clamp(min=1)
        self.centre.copy_((values * is_known).sum(dim=0) / count)
        given = (values - self.centre) * is_known
        spread = (given.square().sum(dim=0) / count).sqrt()
        spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
        given, flat = (given / spread).double(), images.flatten(1)
        left = {penalty: _left_out(given, flat, penalty) for penalty in _PENALTIES}
        best = min(_PENALTIES, key=lambda penalty: float(left[penalty].square().sum()))
        slopes = _ridge(given, flat - flat.mean(dim=0), best)
        self.slopes.copy_(slopes / spread[:, None])
        return left[best].reshape(images.shape) + images.mean(dim=0)


def _left_out(given: Tensor, flat: Tensor, penalty: float) -> Tensor:
    """What the other folds do not predict of each image less the mean image."""
    centred = flat - flat.mean(dim=0)
    rest = torch.empty_like(centred)
    for fold, others in folds(len(flat)):
        rest[fold] = centred[fold] - given[fold].to(flat) @ _ridge(given[others], centred[others], penalty)
    return rest


def _ridge(given: Tensor, centred: Tensor, penalty: float) -> Tensor:
    """Slopes of the pixels on numbers of mean 0 and deviation 1, (values, pixels)."""
    if penalty == float("inf"):
        return centred.new_zeros(given.shape[1], centred.shape[1])
    gram = given.T @ given + penalty * len(given) * torch.eye(given.shape[1], dtype=given.dtype, device=given.device)
    slopes: Tensor = torch.linalg.solve(gram, given.T @ centred.double()).to(centred)
    return slopes
