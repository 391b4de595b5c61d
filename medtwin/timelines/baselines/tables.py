"""Arrays that the data size, as the state of a module: a checkpoint brings their sizes along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Tables(nn.Module):
    """Named arrays, empty until they are filled or loaded.

    Args:
        names: Of the arrays.

    >>> tables = Tables(["counts"])
    >>> tables.fill({"counts": np.array([1.0, 2.0])})
    >>> again = Tables(["counts"])
    >>> again.load_state_dict(tables.state_dict())
    <All keys matched successfully>
    >>> again["counts"]
    array([1., 2.])
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in names:
            self.register_buffer(name, torch.zeros(0))

    def fill(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes arrays over, all that it has names for.

        Raises:
            ValueError: If their names are others.
        """
        if set(arrays) != set(self.names):
            raise ValueError(f"tables must be {', '.join(self.names)}, got {', '.join(arrays)}")
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))

    def __getitem__(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = getattr(self, name).numpy()
        return array

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them."""
        return {name: self[name] for name in self.names}

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in self.names:
            if (value := state_dict.get(prefix + name)) is not None:
                self.register_buffer(name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *rest)
