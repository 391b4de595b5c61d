from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medtwin.timelines.generation.tile import ScaleTable
from medtwin.timelines.network.time_heads import DAYS, TimeHeads
from medtwin.timelines.reading.gaps import GapCounts, GapLaw
from medtwin.timelines.reading.scales import Scale, fit_scale

NUMBERS = st.lists(st.integers(1, 9999), min_size=2, max_size=60)


@given(NUMBERS, st.integers(0, 3))
def test_decoding_inverts_encoding_with_the_precision_of_the_source(numbers: list[int], decimals: int) -> None:
    values = np.array(numbers, dtype=np.float64) / 10**decimals
    scale = fit_scale(values)
    assert scale.decode(scale.encode(values)) == pytest.approx(values, abs=0.51 * 10**-scale.decimals)
    assert scale.decimals <= decimals


@given(st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=4), st.integers(0, 3))
def test_a_table_of_scales_decodes_as_each_of_them(given_values: list[tuple[list[int], bool]], decimals: int) -> None:
    values = [np.array(numbers, dtype=np.float64) / 10**decimals for numbers, _ in given_values]
    scales = [fit_scale(v, is_duration=is_long) for v, (_, is_long) in zip(values, given_values, strict=True)]
    token = np.repeat(np.arange(len(scales)), [len(v) for v in values])
    raw = np.concatenate(values)
    scaled = np.concatenate([scale.encode(v) for scale, v in zip(scales, values, strict=True)])
    table = ScaleTable([*scales, None])
    assert table.encode(token, raw) == pytest.approx(scaled)
    wanted = np.concatenate([scale.decode(scale.encode(v)) for scale, v in zip(scales, values, strict=True)])
    decoded, again = table.decode(token, scaled)
    assert decoded == pytest.approx(wanted)
    assert table.decode(token, again)[0] == pytest.approx(wanted)
    assert table.is_known.tolist() == [True] * len(scales) + [False]


def test_a_skewed_positive_value_gets_a_log_scale_and_a_symmetric_one_does_not() -> None:
    rng = np.random.default_rng(0)
    assert fit_scale(np.exp(rng.normal(0, 1.2, 500))).form == "log"
    assert fit_scale(rng.normal(100, 5, 500)).form == "linear"


def test_bounds_leave_out_the_extremes_of_single_people() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(100, 5, 2000), [900.0]])
    scale = fit_scale(values)
    assert scale.decode(np.array([scale.high]))[0] < 150


def test_the_most_that_many_have_is_the_most_that_can_be() -> None:
    """No saturation is above 100 %; what only one has is no such end."""
    values = np.random.default_rng(0).normal(97, 2, 2000).round()
    scale = fit_scale(np.minimum(values, 100))
    assert scale.decode(np.array([scale.high]))[0] == 100
    free = fit_scale(np.append(values[values < 101], 101))
    assert free.decode(np.array([free.high]))[0] > 100


def test_a_constant_stays_a_constant() -> None:
    scale = fit_scale(np.full(9, 15.0))
    assert scale.low == scale.high == 0.0
    assert scale.decode(np.zeros(1))[0] == 15.0


def test_what_is_never_negative_stays_so() -> None:
    scale = fit_scale(np.array([0.0, 1, 1, 2, 2, 3, 30]))
    assert scale.decode(np.array([scale.low]))[0] >= 0


@pytest.mark.parametrize("form", ["linear", "log", "log1p"])
def test_half_a_width_is_half_of_the_rounding(form: str) -> None:
    scale = Scale(form, 1.0, 0.5, -9.0, 9.0, 1)
    values = np.array([2.0, 7.5, 40.0])
    edges = (scale.encode(values + 0.05) - scale.encode(values - 0.05)) / 2
    assert scale.half_width(values) == pytest.approx(edges, rel=0.01)


LAW = GapLaw((5, 60), (365,))
DAY = 1440
FAR = 10**9


def there_and_back(law: GapLaw, before: list[int], after: list[int], end: list[int]) -> tuple[list[int], list[int]]:
    """Classes of some gaps, and the times that they come back as."""
    times = [np.array(part) for part in (before, after, end)]
    classes, size, clock = law.encode(*times)
    part = (times[1] % 5 + 0.5) / 5
    return classes.tolist(), law.decode(times[0], classes, size.astype(np.float64), clock, part, times[2]).tolist()


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (0, 0, 0),
        (100, 105, 1),
        (100, 160, 2),
        (100, 365 * DAY + 603, 3),
        (100, 107, LAW.short_class),
        (100, 3 * DAY + 601, LAW.long_class),
        (DAY - 5, 2 * DAY - 6, LAW.short_class),
    ],
)
def test_a_gap_has_one_class_and_comes_back(before: int, after: int, wanted: int) -> None:
    assert there_and_back(LAW, [before], [after], [FAR]) == ([wanted], [after])


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_every_gap_comes_back(pairs: list[tuple[int, int]]) -> None:
    before, after = [start for start, _ in pairs], [start + gap for start, gap in pairs]
    end = [time + 7 * (index % 2) for index, time in enumerate(after)]
    classes, back = there_and_back(LAW, before, after, end)
    assert back == after
    for one, start, then, last in zip(classes, before, after, end, strict=True):
        is_near = then - start >= 360 and last - then <= 0.1 * (last - start)
        assert (one == LAW.end_class) == (then > start and (then == last or is_near))


def test_a_long_gap_to_about_the_end_of_the_window_is_of_the_last_class() -> None:
    stay = 9 * DAY
    before, after = [2 * DAY] * 3 + [100] * 2, [stay - 45, stay - DAY, stay, 470, 400]
    classes, back = there_and_back(LAW, before, after, [stay, stay, stay, 480, 420])
    assert [one == LAW.end_class for one in classes] == [True, False, True, True, False]
    assert back == after


def test_the_gap_until_the_window_ends_is_a_class_of_its_own() -> None:
    assert there_and_back(LAW, [100, 100, 100], [105, 105, 100], [105, 106, 100]) == (
        [LAW.end_class, 1, 0],
        [105, 105, 100],
    )
    assert LAW.num_classes == 7
    assert np.flatnonzero(LAW.has_clock).tolist() == [3, LAW.long_class]


def counted(before: np.ndarray, after: np.ndarray, parts: int = 1) -> GapLaw:
    counts = GapCounts()
    for first, second in zip(np.array_split(before, parts), np.array_split(after, parts), strict=True):
        counts.add(first, second)
    return counts.law()


def test_recurring_intervals_become_point_masses_and_chance_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    before = np.arange(600) * 1000 * DAY
    minutes = np.where(rng.random(600) < 0.5, 5, rng.integers(20, 1400, 600))
    minutes[::3] = np.where(rng.random(200) < 0.5, 90, rng.integers(2, 900, 200)) * DAY
    law = counted(before, before + minutes)
    assert law.minute_points == (5,)
    assert law.day_points == (90,)
    assert law == counted(before, before + minutes, parts=7)
    assert GapLaw.from_json(law.to_json()) == law


def test_the_grain_is_that_of_the_clock() -> None:
    before = np.arange(50) * DAY * 10
    assert counted(before, before + 2 * DAY + 600).grain == 5
    assert counted(before, before + 2 * DAY + 603).grain == 1
    assert counted(before, before + 3).grain == 1  # nothing is known of clocks
    assert GapCounts().law() == GapLaw((), (), 1)


def test_a_long_gap_never_goes_back() -> None:
    one = np.array([DAY + 1439])
    zero = np.zeros(1)
    after = LAW.decode(one, np.array([LAW.long_class]), zero, np.zeros(1, int), zero, np.array([FAR]))
    assert after[0] > DAY + 1439


@given(st.integers(1, 400), st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_any_size_with_the_weekday_is_decoded_to_the_day(days: int, today: int, part: float) -> None:
    """What training takes a gap for is what generation makes of it."""
    heads = TimeHeads(8, LAW.num_classes)
    heads.kind[LAW.long_class] = DAYS
    gap_class = torch.tensor([LAW.long_class])
    with patch.object(torch, "rand_like", lambda x: torch.full_like(x, 0.0005 + 0.999 * part)):
        size = heads.any_size(gap_class, torch.log(torch.tensor([float(days)])))
    before, clock = np.array([today * DAY + 700]), np.array([30])
    weekday = np.array([(today + days) % 7])
    given = (before, gap_class.numpy(), size.double().numpy(), clock, np.zeros(1))
    after = LAW.decode(*given, np.array([(today + days + 20) * DAY]), weekday)
    assert after.tolist() == [(today + days) * DAY + 150]
    assert LAW.decode(*given, np.array([(today + days) * DAY + 200]), weekday).tolist() == after.tolist()


def test_sizes_of_other_classes_are_what_they_are() -> None:
    heads = TimeHeads(8, LAW.num_classes)
    heads.kind[LAW.long_class] = DAYS
    size = torch.tensor([1.5, 2.5])
    assert torch.equal(heads.any_size(torch.tensor([LAW.short_class, LAW.end_class]), size), size)
