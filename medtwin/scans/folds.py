"""Folds of neighbours: images of one subject follow each other, so that they mostly stay together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_FOLDS = 5


def folds(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Five folds of `count` images: the indices of each, and which images are not in it, (count,) of bool."""
    for fold in torch.arange(count).tensor_split(min(_FOLDS, count)):
        others = torch.ones(count, dtype=torch.bool)
        others[fold] = False
        yield fold, others
