from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.attacks.linkability import blind_links, linkability, links
from tests.check.attacks.laws import leak


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_risk_is_the_share_that_was_copied(share: float) -> None:
    sides = leak(share, 4)
    linked = [links(side, sides.synthetic, seed=0) for side in (sides.train, sides.control)]
    found = linkability(linked[0], linked[1], blind_links(1000, 1000, seed=0))
    assert found.risk == pytest.approx(share, abs=0.02)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= share <= found.high
    assert (found.low > 0) == (share > 0)
    assert found.naive is not None
    assert found.naive.rate < 0.01


def test_links_by_hand() -> None:
    sides = leak(0, 6, number=40)
    every = links(sides.train, sides.synthetic, seed=0, num_neighbours=40)
    assert every.all()  # all twins are among the neighbours of both halves
    assert links(sides.synthetic, sides.synthetic, seed=0).all()  # a twin leads to itself
    few, more = (links(sides.train, sides.synthetic, seed=0, num_neighbours=n) for n in (1, 5))
    assert (more | ~few).all()
    assert not np.array_equal(links(sides.train, sides.synthetic, seed=1, num_neighbours=5), more)
