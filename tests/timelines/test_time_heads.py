"""When the next step is: what the heads learn of weekdays is what `GapLaw.decode` makes of their draws."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from medtwin.timelines.heads import sample_categories, sample_mixture
from medtwin.timelines.network.layers import NUM_TIME_FEATURES
from medtwin.timelines.network.time_heads import DAYS, TimeHeads
from medtwin.timelines.reading.gaps import GapLaw

DAY, NUM, WIDTH = 1440, 3000, 8
LAW = GapLaw((5,), (365,))
CLOSED = (2, 3)  # days since 1970 modulo 7: Saturday and Sunday


def visits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Days of visits and of the next: a third comes back the next open day, the others in weeks, none when closed."""
    open_days = np.flatnonzero(~np.isin(np.arange(4000) % 7, CLOSED))
    before = rng.choice(open_days[:-200], NUM)
    wished = before + np.where(rng.random(NUM) < 0.3, 1, rng.integers(15, 80, NUM))
    return before, open_days[np.searchsorted(open_days, wished)]


def trained(before: np.ndarray, after: np.ndarray) -> tuple[TimeHeads, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    heads = TimeHeads(WIDTH, LAW.num_classes)
    heads.kind[LAW.long_class] = DAYS
    week = 2 * torch.pi * torch.from_numpy(before % 7) / 7
    hidden = torch.zeros(NUM, WIDTH)
    hidden[:, 0], hidden[:, 1] = week.sin(), week.cos()
    clock = torch.zeros(NUM, NUM_TIME_FEATURES)
    minutes = before * DAY + 600, after * DAY + 600
    classes, sizes, clocks = (torch.from_numpy(x) for x in LAW.encode(*minutes, np.full(NUM, 10**9)))
    target = {"stop": torch.zeros(NUM), "gap_class": classes, "clock": clocks}
    target |= {"weekday": torch.from_numpy(after % 7), "today": torch.from_numpy(before % 7)}
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
    for _ in range(200):
        stop, gap = heads.log_prob(hidden, clock, {**target, "gap_size": heads.any_size(classes, sizes)})
        optimizer.zero_grad()
        (-(stop + gap).mean()).backward()
        optimizer.step()
    return heads, hidden, clock


def test_visits_fall_on_open_days_and_the_next_day_is_the_next_day() -> None:
    rng = np.random.default_rng(0)
    before, after = visits(rng)
    heads, hidden, clock = trained(before, after)
    gap_class, far = torch.full((NUM,), LAW.long_class), np.full(NUM, 10**9)
    with torch.no_grad():
        state = heads.state(hidden, clock)
        bounds = (torch.zeros(NUM), torch.full((NUM,), 12.0))
        size = sample_mixture(heads.size_parameters(state, gap_class), torch.from_numpy(rng.random((NUM, 2))), *bounds)
        logits = heads.weekday_logits(state, gap_class, size, torch.from_numpy(before % 7))
        weekday = sample_categories(functional.softmax(logits.double(), -1), torch.from_numpy(rng.random(NUM))).numpy()
    given = (before * DAY + 600, gap_class.numpy(), size.numpy(), np.full(NUM, 120), np.zeros(NUM), far)
    made, plain = (LAW.decode(*given, told) // DAY for told in (weekday, None))
    assert np.isin(after % 7, CLOSED).sum() == 0
    assert np.isin(made % 7, CLOSED).mean() < 0.03
    assert np.isin(plain % 7, CLOSED).mean() > 0.15  # the control: sizes alone know of no weekday
    soon, due = (np.mean(then - before <= 3) for then in (made, after))
    assert abs(soon - due) < 0.05
    later, wanted = (np.median((then - before)[then - before > 7]) for then in (made, after))
    assert abs(later - wanted) < 10
