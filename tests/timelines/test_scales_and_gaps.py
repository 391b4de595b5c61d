from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtwin.timelines.gaps import GapLaw, fit_gaps
from medtwin.timelines.scales import fit_scale


@given(st.lists(st.integers(1, 9999), min_size=2, max_size=60), st.integers(0, 3))
def test_decoding_inverts_encoding_with_the_precision_of_the_source(numbers: list[int], decimals: int) -> None:
    values = np.array(numbers, dtype=np.float64) / 10**decimals
    scale = fit_scale(values)
    assert scale.decode(scale.encode(values)) == pytest.approx(values, abs=0.51 * 10**-scale.decimals)
    assert scale.decimals <= decimals


def test_a_skewed_positive_value_gets_a_log_scale_and_a_symmetric_one_does_not() -> None:
    rng = np.random.default_rng(0)
    assert fit_scale(np.exp(rng.normal(0, 1.2, 500))).form == "log"
    assert fit_scale(rng.normal(100, 5, 500)).form == "linear"


def test_bounds_leave_out_the_extremes_of_single_people() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(100, 5, 2000), [900.0]])
    scale = fit_scale(values)
    assert scale.decode(np.array([scale.high]))[0] < 150


def test_a_constant_stays_a_constant() -> None:
    scale = fit_scale(np.full(9, 15.0))
    assert scale.low == scale.high == 0.0
    assert scale.decode(np.zeros(1))[0] == 15.0


def test_what_is_never_negative_stays_so() -> None:
    scale = fit_scale(np.array([0.0, 1, 1, 2, 2, 3, 30]))
    assert scale.decode(np.array([scale.low]))[0] >= 0


LAW = GapLaw((5, 60), (365,))
DAY = 1440


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (0, 0, 0),
        (100, 105, 1),
        (100, 160, 2),
        (100, 365 * DAY + 600, 3),
        (100, 107, LAW.short_class),
        (100, 3 * DAY + 600, LAW.long_class),
    ],
)
def test_a_gap_has_one_class_and_comes_back(before: int, after: int, wanted: int) -> None:
    classes, size, clock = LAW.encode(np.array([before]), np.array([after]))
    assert classes[0] == wanted
    back = LAW.decode(before, int(classes[0]), float(size[0]), int(clock[0]), part=0.0)
    assert back == after


def test_recurring_intervals_become_point_masses_and_chance_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    before = np.arange(300) * 1000 * DAY
    minutes = np.where(rng.random(300) < 0.5, 5, rng.integers(20, 1400, 300))
    law = fit_gaps(before, before + minutes)
    assert law.minute_points == (5,)
    assert law.day_points == ()


def test_a_long_gap_never_goes_back() -> None:
    assert LAW.decode(DAY + 1439, LAW.long_class, 0.0, 0, 0.0) > DAY + 1439
