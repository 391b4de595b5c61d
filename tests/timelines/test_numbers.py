"""The numbers of events: what is expected of them, what is carried on, and what teaches it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.heads import (
    FINE,
)
from medtwin.timelines.network.event_heads import NUM_COMPONENTS, NumberMemory, ValueHead
from medtwin.timelines.network.history import above_expected
from medtwin.timelines.network.net import Forgetting
from medtwin.timelines.network.time_heads import GAIN
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.sequences import Sequences


def test_values_are_read_with_the_rounding_of_the_source(short_model: TimelineModel, short: Sequences) -> None:
    """In training a number is anything that rounds to it; without forgetting it is the number itself."""
    net, batch = short_model.net, collate(short.take(np.array([6])), short_model.spec.gaps)
    z, read = torch.zeros(1, net.latent_dim), net.read(batch)
    states = net.decode(batch, read, z)
    nothing = Forgetting(torch.zeros(len(read.events), dtype=torch.bool), torch.zeros(1, dtype=torch.bool))
    with torch.no_grad():
        plain = [net.log_prob(batch, read, states, z).value for _ in range(2)]
        torch.manual_seed(0)
        blurred = [net.log_prob(batch, read, states, z, nothing).value for _ in range(2)]
        exact = net.log_prob({**batch, "event_half": 0 * batch["event_half"]}, read, states, z, nothing).value
    assert torch.equal(*plain)
    assert torch.equal(exact, plain[0])
    assert not torch.equal(*blurred)


def test_what_follows_hidden_numbers_is_no_first_number(
    short_model: TimelineModel, short: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = short_model.net, collate(short.take(np.array([6, 0, 3])), short_model.spec.gaps)
    z, read = torch.zeros(3, net.latent_dim), net.read(batch)
    nobody, one = (torch.tensor([hidden, False, False]) for hidden in (False, True))
    found: list[torch.Tensor] = []
    plain = ValueHead.forward

    def watched(self: ValueHead, token: torch.Tensor, state: torch.Tensor, memory: Any, known: Any) -> torch.Tensor:
        found.append(memory[1])
        return plain(self, token, state, memory, known)

    monkeypatch.setattr(ValueHead, "forward", watched)
    with torch.no_grad():
        for numbers in (nobody, one):
            forgetting = Forgetting(torch.zeros(len(read.events), dtype=torch.bool), numbers)
            net.log_prob(batch, read, net.decode(batch, read, z, forgetting), z, forgetting)
    heard, hidden = found
    told = batch["event_has_value"]
    mine = (batch["event_row"][told] == 0) & (heard[:, 2] > 0)
    assert mine.any()
    assert ((batch["event_row"][told] == 0) & (heard[:, 2] == 0)).any()  # first numbers, which stay that
    assert torch.equal(hidden[mine], torch.tensor([0.0, 0.0, -1.0]).repeat(int(mine.sum()), 1))
    assert torch.allclose(hidden[~mine], heard[~mine])


def test_a_level_after_hidden_numbers_is_of_training_alone(short_model: TimelineModel) -> None:
    values, width = copy.deepcopy(short_model.net.values), short_model.net.width
    above = torch.tensor([[0.0, 0.0, count] for count in (0.0, 1.0, -1.0)])
    memory = (torch.zeros(3), above, torch.zeros(3), torch.full((3,), torch.inf), torch.zeros(3))
    known = torch.zeros(3, values.loading.embedding_dim), torch.zeros(3, 2 * width)
    laws = []
    with torch.no_grad():
        for level, spread in ((0.0, 0.0), (0.3, 0.05)):
            values.forgotten.weight.fill_(level / GAIN)
            values.spread.weight[:, 2] = spread
            laws.append(values(torch.zeros(3, dtype=torch.long), torch.zeros(3, width), memory, known))
    assert torch.equal(laws[0][:2], laws[1][:2])
    assert not torch.allclose(laws[0][2], laws[1][2], atol=0.1)


def test_what_lies_above_the_expected_is_counted_over_earlier_numbers_of_the_token_alone(
    short_model: TimelineModel, short: Sequences
) -> None:
    batch = collate(short.take(np.array([6, 0, 3])), short_model.spec.gaps)
    told = torch.nonzero(batch["event_has_value"])[:, 0]
    expected = torch.randn(len(told), generator=torch.Generator().manual_seed(0))
    memory, value = batch["event_memory"][told], batch["event_value"][told]
    above = above_expected(batch, told, memory, expected)
    keys = list(zip(batch["event_row"][told].tolist(), batch["event_token"][told].tolist(), strict=True))
    assert max(keys.count(key) for key in keys) > 2
    for place, key in enumerate(keys):
        before = [other for other in range(place) if keys[other] == key]
        left = [float(value[other] - expected[other]) for other in before]
        wanted = [left[-1], np.mean(left)] if left else [0.0, 0.0]
        assert above[place].tolist() == pytest.approx([*wanted, np.log1p(len(left))], abs=1e-5)


def test_numbers_follow_from_what_happens_and_not_from_what_is_measured(short_model: TimelineModel) -> None:
    spec, net = short_model.spec, short_model.net
    causes = spec.causes(4)
    tokens = [spec.vocabulary.tokens[index] for index in causes]
    assert all(token.parent is None and token.number != "numeric" for token in tokens)
    assert all(spec.static_counts[causes, 1] > 0)
    share = spec.sex_counts.sum(axis=1) / spec.sex_totals.sum()
    others = [i for i, t in enumerate(spec.vocabulary.tokens) if t.parent is None and t.number != "numeric"]
    others = [i for i in others if i not in causes and spec.static_counts[i, 1] > 0]
    assert (share * (1 - share))[causes].min() >= max([(share[i] * (1 - share[i])) for i in others], default=0)
    assert set(causes) <= set(net.values.causes.tolist())
    since = torch.full((1, len(spec.vocabulary)), float("inf"))
    since[0, causes[0]] = 0.0
    began = torch.full((1, len(net.values.causes)), float("inf"))
    began[net.values.causes[None] == int(causes[1])] = 10 * 1440.0
    said = net.values.said(since, began).view(5, -1)
    assert said[:, net.values.causes == int(causes[0])].tolist() == [[1.0], [0.0], [0.0], [1.0], [1.0]]
    new = said[:, net.values.causes == int(causes[1])]
    assert new.flatten().tolist() == pytest.approx([0.0, 1.0, np.exp(-1), 0.0, 0.0])  # its effect is still rising
    assert float(said.sum()) == pytest.approx(4.0 + np.exp(-1))


def test_a_number_that_is_charted_again_rounds_to_what_it_was(short_model: TimelineModel) -> None:
    """The repeating component: none before there is a number, then as wide as the rounding of the source."""
    spec, net = short_model.spec, short_model.net
    values = net.values
    tokens = [i for i, scale in enumerate(spec.scales) if scale is not None and spec.vocabulary.has_number[i]]
    assert {spec.scales[i].form for i in tokens} >= {"linear", "log1p"}
    token, num = torch.tensor(tokens), len(tokens)
    raw = [float(spec.scales[i].decode(np.array([0.3]))[0]) for i in tokens]
    last = torch.tensor([float(spec.scales[i].encode(np.array([x]))[0]) for i, x in zip(tokens, raw, strict=True)])
    with torch.no_grad():
        for count in (0.0, 1.0):
            above = torch.zeros(num, 3)
            above[:, 2] = count
            of_step = torch.zeros(num, 2 * net.width)
            known = (torch.zeros(num, values.loading.embedding_dim), of_step)
            parameters = values(
                token,
                torch.zeros(num, net.width),
                NumberMemory(torch.zeros(num), above, last, torch.zeros(num), torch.full((num,), 50.0)),
                known,
            )
            logits, means, widths = (part[:, NUM_COMPONENTS] for part in parameters.chunk(3, dim=-1))
            assert (logits < -30).all() if not count else (logits > -10).all()
            assert torch.equal(means, last)
    for index, x, mean, width in zip(tokens, raw, means.tolist(), widths.exp().tolist(), strict=True):
        half = float(spec.scales[index].half_width(np.array([x]))[0])
        assert width == pytest.approx(max(half / 2, np.exp(FINE)), rel=1e-3)
        drawn = spec.scales[index].decode(stats.norm(mean, width).ppf(np.linspace(0.005, 0.995, 100)))
        assert np.isclose(drawn, x, rtol=1e-5).mean() >= 0.9, spec.vocabulary.tokens[index]


def test_what_a_number_lay_above_the_expected_is_carried_on_less_the_longer_ago_it_was(
    short_model: TimelineModel,
) -> None:
    net, values = short_model.net, copy.deepcopy(short_model.net.values)
    since = torch.tensor([0.0, 7 * 1440.0, 700 * 1440.0, torch.inf])
    above = torch.tensor([[2.0, 0.0, 1.0]]).repeat(4, 1)
    with torch.no_grad():
        values.out.weight.zero_()
        values.recall.weight.zero_()
        values.fading.weight.copy_(torch.tensor([0.0, 0.5, 0.0]) / GAIN)  # half of it, for a week
        memory = (torch.zeros(4), above, torch.zeros(4), since, torch.zeros(4))
        known = torch.zeros(4, values.loading.embedding_dim), torch.zeros(4, 2 * net.width)
        parameters = values(torch.zeros(4, dtype=torch.long), torch.zeros(4, net.width), memory, known)
    means = parameters.chunk(3, dim=-1)[1][:, 0]
    assert torch.allclose(means - means[3], torch.tensor([1.0, np.exp(-1.0), 0.0, 0.0]).float(), atol=1e-6)


def test_only_who_is_compared_with_an_earlier_self_teaches_what_begins(short_model: TimelineModel) -> None:
    """Who is given a drug differs from who is not: with earlier numbers hidden its weights are left alone.

    Of two causes the first began in the record, and the second was there before.
    """
    values = copy.deepcopy(short_model.net.values)
    num_causes = len(values.causes)
    said = torch.ones(2, 5, num_causes)
    said[:, 1:3, 1] = 0.0
    known = torch.ones(2, values.trait.embedding_dim), torch.ones(2, values.rhythm.embedding_dim), said.flatten(1)
    token, now = torch.tensor([0, 1]), torch.ones(2, num_causes)
    for compares, taught in ((None, [True, True]), (torch.tensor([False, True]), [False, True])):
        values.zero_grad()
        expected = values.expected(token, now, known, compares)
        assert torch.allclose(expected, values.expected(token, now, known), atol=1e-5)
        expected.sum().backward()
        weights = values.effect.weight.grad[:2].unflatten(-1, (6, num_causes))
        assert [bool((one[:, 0] != 0).all()) for one in weights] == taught
        assert [bool((one[:, 0] != 0).any()) for one in weights] == taught
        assert (weights[:, [0, 1, 4, 5], 1] != 0).all()
        assert (values.trait.weight.grad[:2] != 0).all()


def test_numbers_with_an_earlier_one_that_is_hidden_compare_nobody(
    short_model: TimelineModel, short: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batch = short_model.net, collate(short.take(np.array([6, 0, 3])), short_model.spec.gaps)
    z, read = torch.zeros(3, net.latent_dim), net.read(batch)
    found: list[torch.Tensor] = []
    plain = ValueHead.expected

    def watched(self: ValueHead, token: torch.Tensor, now: torch.Tensor, known: Any, compares: torch.Tensor) -> Any:
        found.append(compares)
        return plain(self, token, now, known, compares)

    monkeypatch.setattr(ValueHead, "expected", watched)
    forgetting = Forgetting(torch.zeros(len(read.events), dtype=torch.bool), torch.tensor([True, False, False]))
    with torch.no_grad():
        net.log_prob(batch, read, net.decode(batch, read, z, forgetting), z, forgetting)
        net.log_prob(batch, read, net.decode(batch, read, z), z)
    told = batch["event_has_value"]
    hidden = (batch["event_row"][told] == 0) & (batch["event_memory"][told][:, 2] > 0)
    assert 0 < int(hidden.sum()) < len(hidden)
    assert torch.equal(found[0], ~hidden)
    assert found[1].all()
