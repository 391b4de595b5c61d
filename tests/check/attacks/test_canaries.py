from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from medtwin.check.attacks.canaries import audit, epsilon_bound


def test_bound_by_its_definition() -> None:
    epsilon = epsilon_bound(100, 80)
    assert binom.sf(79, 100, 1 / (1 + np.exp(-epsilon))) == pytest.approx(0.05, abs=1e-6)
    assert epsilon_bound(100, 50) == 0
    assert epsilon_bound(100, 58) == 0  # not more than chance
    assert epsilon_bound(10**9, 10**9) == pytest.approx(19.5, abs=0.6)
    with pytest.raises(ValueError, match="right must be between 0 and guesses=5"):
        epsilon_bound(5, 6)


def test_audit_finds_a_leak_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        is_member = rng.random(200) < 0.5
        alarms += audit(rng.normal(size=200), is_member).epsilon_low > 0
    assert alarms <= 9  # 5 % by chance at most
    is_member = rng.random(200) < 0.5
    found = audit(is_member * 3 + rng.normal(size=200), is_member)
    assert 1 < found.epsilon_low <= found.epsilon_most
    assert found.guesses == 40
    assert found.told.area is not None
    assert found.told.area > 0.9


def test_audit_holds_under_randomised_response() -> None:
    """Scores that are epsilon-private by construction are not said to leak more, but for 5 %."""
    rng = np.random.default_rng(3)
    epsilon, beyond = 1.0, 0
    for _ in range(200):
        is_member = rng.random(300) < 0.5
        is_honest = rng.random(300) < 1 / (1 + np.exp(-epsilon))
        beyond += audit(np.where(is_honest, is_member, ~is_member) + 0.1 * rng.random(300), is_member).epsilon_low > 1
    assert beyond <= 18


def test_audit_refuses() -> None:
    with pytest.raises(ValueError, match="at least 20 canaries"):
        audit(np.zeros(5), np.zeros(5, bool))
    with pytest.raises(ValueError, match="num_guesses must be between 2 and 50 canaries"):
        audit(np.zeros(50), np.zeros(50, bool), num_guesses=51)
