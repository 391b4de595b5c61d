from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer

from medtwin.training.time_limit import time_spent


def trainer(spent: float, left: float | None, *, world_size: int = 1, told: float = 0.5) -> Any:
    timer: Any = Timer(duration={"hours": 1})
    timer.time_elapsed = lambda *_: spent
    timer.time_remaining = lambda *_: left
    strategy = SimpleNamespace(broadcast=lambda _: told)
    return SimpleNamespace(callbacks=[timer], world_size=world_size, strategy=strategy)


@pytest.mark.parametrize(("spent", "left", "share"), [(0, 60, 0.0), (15, 45, 0.25), (61, -1, 1.0), (5, None, 0.0)])
def test_share_of_the_time(spent: float, left: float | None, share: float) -> None:
    assert time_spent(trainer(spent, left)) == pytest.approx(share)


def test_all_processes_say_what_the_first_says_and_no_limit_is_none() -> None:
    assert time_spent(trainer(15, 45, world_size=2)) == 0.5
    unlimited: Any = SimpleNamespace(callbacks=[])
    assert time_spent(unlimited) == time_spent(None) == 0.0
