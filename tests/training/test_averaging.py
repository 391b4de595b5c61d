from __future__ import annotations

import pytest
import torch
from torch import nn

from medtwin.training.averaging import Averaging


def test_the_first_weights_are_forgotten() -> None:
    assert Averaging(50.0, 0.1).share(10) == pytest.approx(0.5)  # half-life 1 at step 10
    assert Averaging(50.0, 0.1).share(10_000) == pytest.approx(1 - 0.5 ** (1 / 50))
    assert Averaging(0.0).share(1) == 1.0


def test_an_average_moves_by_its_share_and_leaves_buffers() -> None:
    trained, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        trained.weight.fill_(3.0)
    trained.running_mean.fill_(7.0)
    Averaging(half_life_steps=1.0, ramp=1e9).move(average, trained, step=1)
    assert average.weight.tolist() == [2.0, 2.0]
    assert average.running_mean.tolist() == [0.0, 0.0]


def test_a_half_life_halves_what_is_left() -> None:
    trained, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(trained.weight, 0.0)
    nn.init.constant_(average.weight, 1.0)
    for step in range(1, 21):
        Averaging(half_life_steps=10.0, ramp=1e9).move(average, trained, step)
    assert average.weight.item() == pytest.approx(0.25)


@pytest.mark.parametrize("bad", [{"ramp": 0.0}, {"half_life_steps": -1.0}])
def test_refuses_numbers_out_of_range(bad) -> None:
    with pytest.raises(ValueError, match="half_life_steps"):
        Averaging(**bad)
