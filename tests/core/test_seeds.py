from __future__ import annotations

import numpy as np
import pytest

from medtwin.core.seeds import generator, uniform_of


def test_a_subject_depends_on_its_seed_and_index_only() -> None:
    alone = generator(3, "subject", 41).normal(size=4)
    crowd = [generator(3, "subject", i).normal(size=4) for i in range(50)]
    assert np.array_equal(crowd[41], alone)
    assert not np.array_equal(generator(4, "subject", 41).normal(size=4), alone)


def test_purposes_are_independent_and_not_confused_by_their_spelling() -> None:
    assert generator(0, "a", "b").integers(2**62) != generator(0, "ab").integers(2**62)
    draws = np.array([generator(0, "x", i).uniform() for i in range(2000)])
    assert abs(draws.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 2000)


def test_uniform_of_is_uniform_and_stable() -> None:
    draws = np.array([uniform_of(0, "split", i) for i in range(4000)])
    assert abs((draws < 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / 4000)
    assert uniform_of(0, "split", 7) == uniform_of(0, "split", 7)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        generator(-1)
