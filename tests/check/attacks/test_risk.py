from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from medtwin.check.attack_rows import Attempts
from medtwin.check.attacks.risk import excess_risk


def test_wilson_by_hand() -> None:
    z = NormalDist().inv_cdf(0.975)
    n, p = 50, 0.1
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert Attempts(5, 50).wilson() == pytest.approx((middle - half, middle + half))
    assert Attempts(0, 0).wilson() == (0.0, 1.0)
    assert Attempts(10, 10).wilson()[1] == 1.0


def test_risk_counts_off_what_the_control_has() -> None:
    one = excess_risk("x", "", Attempts(37, 100), Attempts(10, 100))
    assert one.risk == pytest.approx((0.37 - 0.1) / 0.9)
    doubled = excess_risk("x", "", Attempts(37, 100), Attempts(10, 100), scale=2.0)
    assert doubled.risk == pytest.approx(0.6)
    assert excess_risk("x", "", Attempts(0, 0), Attempts(1, 2)).risk is None
    assert excess_risk("x", "", Attempts(5, 5), Attempts(5, 5)).reason == "it finds everybody without the twins"
    with pytest.raises(ValueError, match="hits must be between 0 and tried=3"):
        Attempts(4, 3)


@pytest.mark.parametrize(("train", "control"), [(0.02, 0.02), (0.3, 0.05), (0.6, 0.5), (0.003, 0.0)])
def test_interval_covers(train: float, control: float) -> None:
    rng = np.random.default_rng(1)
    truth = (train - control) / (1 - control)
    hits = rng.binomial(300, [train, control], size=(1000, 2))
    risks = [excess_risk("x", "", Attempts(a, 300), Attempts(b, 300)) for a, b in hits.tolist()]
    covered = np.mean([one.low <= truth <= one.high for one in risks if one.low is not None and one.high is not None])
    assert covered >= 0.93
    assert np.mean([one.low > truth + 0.05 for one in risks if one.low is not None]) < 0.02
