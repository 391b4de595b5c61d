from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.check.attack_rows import Risk
from medtwin.check.attacks.inference import guess, guess_blindly, inference, inference_by_attribute
from medtwin.check.attacks.table import People
from tests.check.attacks.laws import Leak, leak


def risks(sides: Leak) -> tuple[Risk, list[Risk]]:
    guesses = [guess(side, sides.synthetic) for side in (sides.train, sides.control)]
    blind = guess_blindly(sides.train, sides.synthetic, seed=0)
    return inference(guesses[0], guesses[1], blind, seed=0), inference_by_attribute(guesses[0], guesses[1], blind)


def test_guesses_by_hand() -> None:
    twins = People(("sex", "age"), np.array([[0.0, 20], [1, 60]]), np.array([True, False]))
    known = People(("sex", "age"), np.array([[0.0, 21], [1, 30], [1, np.nan]]), np.array([True, False]))
    found = guess(known, twins)
    assert found.is_known.tolist() == [[True, True], [True, True], [True, False]]
    # sex of the nearest in age: 0, 0, and of an unknown age the first; age of the same sex: 20 and 60
    assert found.is_right.tolist() == [[True, True], [False, False], [False, False]]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_risk_is_the_share_that_was_copied(share: float) -> None:
    everything, by_attribute = risks(leak(share, 9))
    assert everything.low <= share <= everything.high
    assert everything.risk == pytest.approx(share, abs=0.03)
    assert (everything.low > 0) == (share > 0)
    assert sum(one.low <= share <= one.high for one in by_attribute) >= 8


def test_what_holds_of_everybody_is_no_risk() -> None:
    sides = leak(0, 3)

    def follows(people: People) -> People:  # race follows from ward, in train and out of it
        values = people.values.copy()
        values[:, 2] = values[:, 1]
        return replace(people, values=values)

    everything, by_attribute = risks(Leak(*(follows(side) for side in (sides.train, sides.synthetic, sides.control))))
    assert by_attribute[2].control.rate == 1  # it can be guessed of anybody
    assert by_attribute[2].reason == "it finds everybody without the twins"
    assert everything.risk == pytest.approx(0, abs=0.03)


def test_nobody_known() -> None:
    sides = leak(0, 3, number=60, num_control=60)
    values = sides.synthetic.values.copy()
    values[:, 4] = np.nan
    _, by_attribute = risks(replace(sides, synthetic=replace(sides.synthetic, values=values)))
    assert by_attribute[4].risk is None
    assert by_attribute[4].reason == "nothing could be tried"
