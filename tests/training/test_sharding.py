"""Weights that are divided among processes, here among one: what goes in comes out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from medtwin.training.power_averages import PowerAverage
from medtwin.training.quiet import quiet
from medtwin.training.sharding import is_sharded, shard, take_, whole
from tests.scans.test_unet import small


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def test_a_sharded_net_computes_and_is_read_and_set_as_before(mesh: DeviceMesh) -> None:
    torch.manual_seed(0)
    net = small()
    torch.nn.init.normal_(net.out.weight)
    other = copy.deepcopy(net)
    given = torch.randn(2, 1, 16, 16), torch.randn(2), torch.randn(2, net.cond_channels)
    expected = net(*given)
    expected.square().mean().backward()
    shard(other, mesh)
    assert is_sharded(other)
    assert not is_sharded(net)
    with quiet():
        found = other(*given)
    torch.testing.assert_close(found, expected)
    found.square().mean().backward()
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(whole(theirs), mine.detach()), name
        torch.testing.assert_close(whole(theirs.grad), mine.grad, msg=name)

    average = PowerAverage(other, 0.1)
    for name, value in average.weights.items():
        take_(value, torch.zeros_like(whole(value)))
        assert whole(value).abs().sum() == 0, name
    average.move(other, 1)  # the average after one step is what was reached by it
    for name, mine in net.named_parameters():
        torch.testing.assert_close(whole(average.weights[name]), mine.detach(), msg=name)


def test_whole_tensors_are_themselves() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    assert whole(parameter).data_ptr() == parameter.data_ptr()
    assert not whole(parameter).requires_grad
    take_(parameter, torch.ones(3))
    assert parameter.sum() == 3
