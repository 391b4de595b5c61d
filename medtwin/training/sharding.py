"""Training whose weights, gradients and optimizer state are divided among processes (FSDP), not repeated in each.

A part of a model that is sharded gathers its weights for as long as it computes with them. Everything that reads or
writes weights by name works with shards: of a tensor `whole` gives all of it, `take_` sets it. Both talk to the other
processes: all of them must call them, in the same order.

Sources: Zhao et al. 2023 (PyTorch FSDP); PyTorch's `fully_shard`, which also works on CPUs, so that it is tested there.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for `fully_shard` over all processes; checkpoints are single files, as of any other run.

    The module says in `configure_model` what is sharded; without that it is refused.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **settings)

    def setup_environment(self) -> None:
        """Makes the mesh of processes: one row of them all."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Divides a module's parameters, in place; entries of its lists of modules gather theirs one after the other.

    Args:
        module: Called, as those entries are, by `forward`, before which weights are gathered; nothing else uses them.
        mesh: The processes, one-dimensional.
    """
    for part in (*_entries(module), module):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def _entries(module: nn.Module) -> list[nn.Module]:
    """What stands in lists of modules and holds no such list itself, with parameters."""
    found = [part for each in module.modules() if isinstance(each, nn.ModuleList) for part in each]
    return [
        part
        for part in found
        if any(True for _ in part.parameters()) and not any(isinstance(each, nn.ModuleList) for each in part.modules())
    ]


def is_sharded(module: nn.Module) -> bool:
    """Whether any parameter of it is divided."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, detached, on every process; itself where it is not divided."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def take_(tensor: Tensor, values: Tensor) -> None:
    """Sets a tensor, divided or not, to values that every process has whole."""
    with torch.no_grad():
        if isinstance(tensor, DTensor):
            values = distribute_tensor(values.to(tensor), tensor.device_mesh, tensor.placements)
        tensor.copy_(values)
