from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medtwin.timelines.heads import FINE, mixture_log_prob, sample_mixture
from medtwin.timelines.network.event_heads import GAIN, NUM_COMPONENTS, NumberMemory, ValueHead
from medtwin.timelines.reading.heaps import DAYS, MAX_HEAPS, HeapCounts, Heaps, find_heaps
from medtwin.timelines.reading.scales import Scale, fit_scale

OXYGEN = np.array([0.21, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0])
SHARES = np.array([0.05, 0.05, 0.35, 0.3, 0.08, 0.04, 0.03, 0.1])


def counted(scale: Scale, raw: NDArray[np.float64], subject: NDArray[np.int64], num_parts: int = 3) -> Heaps:
    counts = HeapCounts()
    value = scale.encode(raw).astype(np.float32)
    for part in np.array_split(np.arange(len(raw)), num_parts):
        counts.add(subject[part], np.zeros(len(part), np.int64), value[part])
    return counts.heaps([scale])[0]


def test_settings_of_a_machine_are_heaps_and_smooth_numbers_are_none() -> None:
    rng = np.random.default_rng(0)
    raw = np.where(rng.random(4000) < 0.8, rng.choice(OXYGEN, 4000, p=SHARES), rng.uniform(0.21, 1, 4000).round(2))
    scale = fit_scale(raw)
    found = scale.decode(np.array(counted(scale, raw, np.arange(4000)).values))
    assert set(OXYGEN[SHARES >= 0.05]) <= set(found.round(4)) <= set(OXYGEN)
    smooth = rng.normal(120, 15, 4000).round()
    assert counted(fit_scale(smooth), smooth, np.arange(4000)) == Heaps()


def test_few_distinct_values_are_all_heaps() -> None:
    raw = np.random.default_rng(1).choice([3.0, 7.0, 8.0, 14.0, 15.0], 3000, p=[0.1, 0.1, 0.1, 0.2, 0.5])
    scale = fit_scale(raw)
    assert scale.decode(np.array(counted(scale, raw, np.arange(3000)).values)).tolist() == [3, 7, 8, 14, 15]


def test_what_one_subject_has_many_times_is_no_heap() -> None:
    rng = np.random.default_rng(2)
    raw = np.concatenate([rng.normal(80, 12, 3000).round(1), np.full(500, 83.7)])
    own = np.concatenate([np.arange(3000), np.full(500, 3000)])
    assert counted(fit_scale(raw), raw, own, num_parts=1) == Heaps()
    several = np.concatenate([np.arange(3000), 3000 + np.arange(500)])  # the control
    assert counted(fit_scale(raw), raw, several, num_parts=1).values


def test_parts_do_not_matter_and_there_are_never_too_many() -> None:
    rng = np.random.default_rng(3)
    raw = np.where(rng.random(60_000) < 0.5, 10 * rng.integers(1, 80, 60_000), rng.uniform(5, 800, 60_000).round())
    scale = fit_scale(raw)
    once, often = (counted(scale, raw, np.arange(len(raw)), parts) for parts in (1, 7))
    assert once == often
    assert len(once.values) == MAX_HEAPS == len(once.log_odds)
    assert (scale.decode(np.array(once.values)) % 10 == 0).all()
    assert np.all(np.diff(once.values) > 0)


def test_values_beyond_what_may_be_generated_are_no_heaps() -> None:
    values, counts = np.array([0.0, 1.0, 9.0]), np.array([100, 100, 100])
    assert find_heaps(values, counts, Scale("linear", 0.0, 1.0, -2.0, 2.0, 0)).values == (0.0, 1.0)
    assert find_heaps(np.zeros(0), np.zeros(0, np.int64), Scale("linear", 0.0, 1.0, -2.0, 2.0, 0)) == Heaps()


def test_nothing_at_all_is_a_heap_too() -> None:
    """No urine in an hour: 0, the least that may be generated, is found and drawn as 0."""
    rng = np.random.default_rng(6)
    raw = np.where(rng.random(5000) < 0.1, 0.0, rng.gamma(2, 15, 5000).round())
    scale = fit_scale(raw)
    assert scale.form == "linear"
    heaps = counted(scale, raw, np.arange(5000))
    assert scale.decode(np.array(heaps.values))[0] == 0.0
    law = torch.tensor([0.0, heaps.values[0], np.log(scale.half_width(np.zeros(1))[0] / 2)]).expand(500, 3)
    bounds = (torch.full((500,), limit, dtype=torch.float64) for limit in (scale.low, scale.high))
    drawn = scale.decode(sample_mixture(law, torch.from_numpy(rng.random((500, 2))), *bounds).numpy())
    assert drawn.min() == 0.0
    assert np.mean(drawn == 0) > 0.95


def bound(heaps: Heaps, scale: Scale) -> ValueHead:
    torch.manual_seed(0)
    head = ValueHead(2, 4, 8)
    nothing = np.full((2, 3 * NUM_COMPONENTS), np.nan)
    head.bind(torch.arange(2), ([scale, None], [heaps, Heaps()], nothing, nothing[:, 0]))
    return head


def parameters_of(head: ValueHead, num: int, token: int = 0, age_start: torch.Tensor | None = None) -> torch.Tensor:
    known = (torch.zeros(num, head.loading.embedding_dim), torch.zeros(num, 16))
    ages = torch.full((num,), torch.nan, dtype=torch.float64) if age_start is None else age_start
    memory = NumberMemory(torch.zeros(num), torch.zeros(num, 3), torch.zeros(num), torch.zeros(num), ages)
    return head(torch.full((num,), token), torch.zeros(num, 8), memory, known)


def test_a_heap_takes_in_proportion_to_the_smooth_density_there() -> None:
    scale = Scale("linear", 0.5, 0.2, -5.0, 5.0, 2)
    heaps = Heaps((-0.5, 0.0, 2.5), (1.0, 2.0, -1.0))
    head = bound(heaps, scale)
    with torch.no_grad():
        logits, means, widths = parameters_of(head, 1)[0].chunk(3)
    k, at = NUM_COMPONENTS, torch.tensor(heaps.values)
    smooth = mixture_log_prob(torch.cat([logits[:k], means[:k], widths[:k]])[None], at)
    cell = 2 * float(scale.half_width(np.zeros(1))[0])
    mine = logits[k + 1 : k + 4]
    assert torch.logsumexp(logits[:k], 0).item() == pytest.approx(0.0, abs=1e-5)
    heaping = mine - smooth - np.log(cell) - torch.tensor(heaps.log_odds)  # of the event, the same for all
    assert heaping.tolist() == pytest.approx([float(heaping[0])] * 3, abs=1e-4)
    assert abs(float(heaping[0])) < 0.1
    assert torch.equal(means[k + 1 : k + 4], at)
    assert (logits[k + 4 :] < -30).all()
    with torch.no_grad():
        assert (parameters_of(head, 1, token=1)[0].chunk(3)[0][k + 1 :] < -30).all()


def test_heaps_are_learned_and_drawn() -> None:
    """Trained on settings of oxygen, the head draws them; without heaps the same training does not come near."""
    rng = np.random.default_rng(4)
    raw = rng.choice(OXYGEN, 4000, p=SHARES)
    scale = fit_scale(raw)
    errors = []
    for heaps in (counted(scale, raw, np.arange(len(raw))), Heaps()):
        head = bound(heaps, scale)
        optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
        value, half = (torch.from_numpy(x).float() for x in (scale.encode(raw), scale.half_width(raw)))
        generator = torch.Generator().manual_seed(5)
        for _ in range(150):
            noisy = value + (2 * torch.rand(len(value), generator=generator) - 1) * half
            loss = -mixture_log_prob(parameters_of(head, len(raw)), noisy).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        uniforms = torch.from_numpy(rng.random((4000, 2)))
        bounds = (torch.full((4000,), limit, dtype=torch.float64) for limit in (scale.low, scale.high))
        with torch.no_grad():
            drawn = scale.decode(sample_mixture(parameters_of(head, 4000), uniforms, *bounds).numpy())
        shares = np.array([np.isclose(drawn, x).mean() for x in OXYGEN])
        errors.append(float(np.abs(shares - SHARES).sum()) / 2)  # total variation, what lies elsewhere apart
        assert GAIN * float(head.heaped.weight.detach().abs().max()) < 10
    assert errors[0] < 0.06
    assert errors[1] > 3 * errors[0]


def test_a_history_heaps_at_the_age_at_which_it_began() -> None:
    """A fifth are told of what began when they came of age: the same day of all lives."""
    rng = np.random.default_rng(7)
    start = rng.uniform(25.0, 70.0, 1500)
    coming_of_age = rng.random(1500) < 0.2
    began = np.where(coming_of_age, 6574.0, np.rint(rng.uniform(19.0, start) * 365.25))  # days
    ago = np.rint(start * 525_960 - began * 1440)
    scale = fit_scale(ago, is_duration=True)
    assert counted(scale, ago, np.arange(1500)) == Heaps()  # not how long ago
    days = counted(DAYS, began, np.arange(1500))
    heaps = Heaps(tuple(DAYS.decode(np.array(days.values)).tolist()), days.log_odds, are_ages=True)
    assert heaps.values == (6574.0,)

    value, age = torch.from_numpy(scale.encode(ago)).float(), torch.from_numpy(start)
    half = torch.from_numpy(scale.half_width(ago)).float()
    bounds = [torch.full((1500,), limit, dtype=torch.float64) for limit in (scale.low, scale.high)]
    uniforms = torch.from_numpy(rng.random((1500, 2)))
    shares = []
    for known in (heaps, Heaps()):
        head = bound(known, scale)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        for _ in range(150):
            law = parameters_of(head, 1500, age_start=age)
            loss = -mixture_log_prob(law, value + (2 * torch.rand(1500) - 1) * half, FINE).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            law = parameters_of(head, 1500, age_start=age)
            drawn = scale.decode(sample_mixture(law, uniforms, *bounds, least=FINE).numpy())
        shares.append(np.mean(np.abs(start * 365.25 - drawn / 1440 - 6574.0) < 0.5))
    assert shares[0] == pytest.approx(0.2, abs=0.04)
    assert shares[1] < 0.05  # the control
    unknown = parameters_of(bound(heaps, scale), 2, age_start=torch.tensor([torch.nan, 17.0], dtype=torch.float64))
    assert torch.isfinite(unknown).all()
    assert (unknown.chunk(3, dim=-1)[0][:, NUM_COMPONENTS + 1 :] < -30).all()  # nobody is told of what is to come
