from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.heads import (
    FINE,
    abduct_category,
    abduct_mixture,
    mixture_log_prob,
    sample_categories,
    sample_mixture,
)
from medtwin.timelines.network.event_heads import NUM_COMPONENTS, NumberMemory, ValueHead
from medtwin.timelines.network.history import above_expected
from medtwin.timelines.network.net import Forgetting, TemporalVAE
from medtwin.timelines.network.time_heads import GAIN
from medtwin.timelines.reading.batches import Batch, collate
from medtwin.timelines.reading.sequences import Sequences
from tests.timelines.conftest import lively, read_decoded, small_net

PARAMETERS = torch.tensor([0.3, -0.2, 0.0, -1.0, 0.5, 2.0, -0.5, 0.1, -1.0])
PARTS = st.floats(1e-6, 1 - 1e-6)


def truncated_cdf(x: np.ndarray, low: float, high: float) -> np.ndarray:
    weights, means, widths = torch.softmax(PARAMETERS[:3], 0), PARAMETERS[3:6], PARAMETERS[6:].exp()
    parts = [(float(w), stats.norm(float(m), float(s))) for w, m, s in zip(weights, means, widths, strict=True)]
    total = sum(w * (n.cdf(np.clip(x, low, high)) - n.cdf(low)) for w, n in parts)
    return total / sum(w * (n.cdf(high) - n.cdf(low)) for w, n in parts)


def test_a_mixture_is_a_density() -> None:
    grid = torch.linspace(-12, 12, 40_001)
    density = mixture_log_prob(PARAMETERS.expand(len(grid), 9), grid).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-4)


def test_truncated_samples_follow_the_truncated_mixture_and_are_abducted_to_fresh_noise() -> None:
    number, low, high = 20_000, -1.5, 1.0
    rng = np.random.default_rng(0)
    law = PARAMETERS.expand(number, 9), torch.full((number,), low), torch.full((number,), high)
    drawn = sample_mixture(law[0], torch.from_numpy(rng.random((number, 2))), *law[1:])
    assert stats.kstest(drawn.numpy(), truncated_cdf, (low, high)).pvalue > 0.01
    assert stats.kstest(drawn.numpy() + 0.05, truncated_cdf, (low, high)).pvalue < 1e-4  # the control
    noise = abduct_mixture(law[0], drawn, torch.from_numpy(rng.random((number, 2))), *law[1:])
    assert torch.allclose(sample_mixture(law[0], noise, *law[1:]), drawn, atol=1e-6)
    for column in noise.unbind(-1):
        assert stats.kstest(column.numpy(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(noise.numpy().T)[0, 1]) < 0.03


@given(
    st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    st.lists(st.floats(-4, 2), min_size=3, max_size=3),
    st.lists(PARTS, min_size=4, max_size=4),
    st.floats(-4, 3),
    st.floats(0.01, 6),
)
def test_abducting_a_mixture_inverts_sampling(
    logits: list[float], widths: list[float], parts: list[float], low: float, size: float
) -> None:
    parameters = torch.tensor([*logits, *widths])
    bounds = torch.tensor(low), torch.tensor(low + size)
    value = sample_mixture(parameters, torch.tensor(parts[:2]).double(), *bounds)
    assert bounds[0] <= value <= bounds[1]
    noise = abduct_mixture(parameters, value, torch.tensor(parts[2:]).double(), *bounds)
    assert (noise[1] >= -1e-9) & (noise[0] >= -3) & (noise <= 1).all()
    assert float(sample_mixture(parameters, noise, *bounds)) == pytest.approx(float(value), abs=2e-3)


def test_values_far_out_in_either_tail_are_abducted_to_noise_that_gives_them_back() -> None:
    """Ten and thirty standard deviations out, beyond 53 bits below 1; and of a component that next to never is."""
    law = torch.tensor([0.0, -40.0, 0.0, -60.0, 0.0, 0.0]).expand(4, 6)
    bounds = torch.full((4,), -50.0), torch.full((4,), 50.0)
    value = torch.tensor([-30.0, -10.0, 10.0, 30.0])
    noise = abduct_mixture(law, value, torch.full((4, 2), 0.5), *bounds)
    assert torch.allclose(sample_mixture(law, noise, *bounds).float(), value, atol=1e-3)
    assert (noise[2:, 1] < 0).all()
    rare = law.clone()
    rare[:, 3] = 30.0
    noise = abduct_mixture(rare, value, torch.full((4, 2), 0.5), *bounds)
    assert noise[:, 0].tolist() == pytest.approx([0.5, 0.5, 0.5, -2.0])
    assert torch.allclose(sample_mixture(rare, noise, *bounds).float(), value, atol=1e-3)
    beyond = torch.full((4,), 9.0), torch.full((4,), 9.5)  # and bounds in the tail leave something between them
    drawn = sample_mixture(law[:, [0, 2, 4]], torch.tensor([[0.5, part] for part in (0.01, 0.3, 0.6, 0.99)]), *beyond)
    assert (np.diff(drawn.numpy()) > 0).all()
    assert 9.0 < drawn[0] < 9.01 < drawn[3] < 9.5


@given(st.lists(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 40.0]), min_size=1, max_size=9), PARTS, st.data())
def test_abducting_a_category_inverts_sampling(masses: list[float], part: float, data: st.DataObject) -> None:
    possible = [index for index, mass in enumerate(masses) if mass > 0]
    if not possible:
        return
    index = torch.tensor(data.draw(st.sampled_from(possible)))
    noise = abduct_category(torch.tensor(masses), index, torch.tensor(part))
    assert sample_categories(torch.tensor(masses), noise) == index


def test_categories_have_their_probabilities_and_zero_is_never_drawn() -> None:
    mass = torch.tensor([0.0, 2.0, 0.0, 6.0, 0.0]).expand(4000, 5)
    drawn = sample_categories(mass, torch.from_numpy(np.random.default_rng(0).random(4000))).numpy()
    assert set(drawn) == {1, 3}
    assert np.mean(drawn == 3) == pytest.approx(0.75, abs=0.03)
    edges = sample_categories(mass[:2], torch.tensor([0.0, 1.0 - 1e-12], dtype=torch.float64))
    assert edges.tolist() == [1, 3]


def up_to(batch: Batch, decision: int) -> Batch:
    """The batch of one patient of which only the first decisions, and the ends of steps among them, count."""
    kept = {name: batch[name][: decision + 1] for name in batch if name.startswith("decision_")}
    num_ended = int((kept["decision_target"] < 0).sum())
    stop = batch["stop"].clone()
    stop[:, num_ended:] = -1
    return {**batch, **kept, "stop": stop}


def with_another_future(batch: Batch, event: int, step: int) -> Batch:
    """Other events from an index on, and other times of the steps from an index on."""
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["event_token"][event:] = (other["event_token"][event:] + 1) % 5
    other["event_value"][event:] += 1.5
    other["event_memory"][event:] += 1.0
    other["event_has_value"][event:] = ~other["event_has_value"][event:]
    other["event_is_first"][event:] = ~other["event_is_first"][event:]
    other["minute"][:, step:] += 1234
    other["gap_minutes"][:, step:] += 77
    other["open_minutes"][:, max(step - 1, 0) :] += 5.0
    other["open_before"][:, step:] += 9.0
    return other


def test_a_decision_knows_nothing_of_later_events_and_steps(short_model: TimelineModel, short: Sequences) -> None:
    net = short_model.net
    batch = collate(short.take(np.array([6])), short_model.spec.gaps)
    z = torch.randn(1, net.latent_dim, generator=torch.Generator().manual_seed(0))
    targets = batch["decision_target"]
    changes = []
    with torch.no_grad():
        whole = read_decoded(net, batch, z).total()
        for decision in range(1, len(targets), 4):
            is_end, event = targets[decision] < 0, int(batch["decision_event"][decision])
            # What is said here may be heard from here on; where a step ends, its own open encounter has been heard.
            step = int(batch["decision_step"][decision]) + 1
            part = up_to(batch, decision)
            future = with_another_future(part, event if is_end else event + 1, step + int(is_end))
            past = with_another_future(part, max(event - 1, 0), step)
            own, same, other = (read_decoded(net, each, z).total() for each in (part, future, past))
            assert torch.allclose(own, same, rtol=1e-5, atol=1e-4)
            changes.append(abs(float(own - other)))
        assert torch.allclose(read_decoded(net, up_to(batch, len(targets) - 1), z).total(), whole, rtol=1e-6)
    assert min(changes) > 1e-3  # the control: the past is heard


def test_a_decision_remembers_what_stands_far_back(short_model: TimelineModel, short: Sequences) -> None:
    net, batch = short_model.net, collate(short.take(np.array([6])), short_model.spec.gaps)
    z = torch.zeros(1, net.latent_dim)
    with torch.no_grad():
        read = net.read(batch)
        other = {**batch, "event_value": batch["event_value"].clone()}
        first = int(torch.nonzero(batch["event_has_value"])[0])
        other["event_value"][first] += 1.0
        here, there = (net.decode(each, net.read(each), z)[1] for each in (batch, other))
    assert read.steps.shape[1] == batch["minute"].shape[1]
    assert (here[0, -1] - there[0, -1]).abs().max() > 1e-4


def test_padding_and_company_change_nothing(short_model: TimelineModel, short: Sequences) -> None:
    net, gaps = short_model.net, short_model.spec.gaps
    rows = np.array([3, 0, 6, 11, 2])
    packed = collate(short.take(rows), gaps)
    assert not packed["step_valid"].all()
    z = torch.randn(5, net.latent_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together, posterior = read_decoded(net, packed, z), net.encode(packed)
        bag = net.bag_of_codes_loss(packed, z)
        for place, row in enumerate(rows):
            alone = collate(short.take(np.array([row])), gaps)
            own = z[place : place + 1]
            for part, whole in zip(read_decoded(net, alone, own), together, strict=True):
                assert float(part[0]) == pytest.approx(float(whole[place]), rel=1e-4, abs=1e-4)
            assert torch.allclose(net.encode(alone).mean[0], posterior.mean[place], atol=1e-5)
            assert torch.allclose(net.encode(alone).log_var[0], posterior.log_var[place], atol=1e-5)
            assert torch.allclose(net.bag_of_codes_loss(alone, own)[0], bag[place], rtol=1e-5)


def loss_of(net: TemporalVAE, batch: Batch, z: torch.Tensor) -> torch.Tensor:
    posterior = net.encode(batch)
    bound = read_decoded(net, batch, posterior.mean + z).total() - posterior.kl().sum(dim=-1)
    return (net.bag_of_codes_loss(batch, z) - bound).sum()


def test_gradients_of_a_group_are_the_sum_of_its_patients(short_model: TimelineModel, short: Sequences) -> None:
    """Ready for DP-SGD: nobody's gradient depends on who else is in the group."""
    net, gaps = lively(small_net(short_model.spec, 3)), short_model.spec.gaps
    rows = np.array([1, 4, 6])
    z = torch.randn(3, net.latent_dim, generator=torch.Generator().manual_seed(2))
    names = [name for name, _ in net.named_parameters()]
    whole = torch.autograd.grad(loss_of(net, collate(short.take(rows), gaps), z), net.parameters())
    total = [torch.zeros_like(gradient) for gradient in whole]
    for place, row in enumerate(rows):
        alone = loss_of(net, collate(short.take(np.array([row])), gaps), z[place : place + 1])
        for kept, gradient in zip(total, torch.autograd.grad(alone, net.parameters()), strict=True):
            kept += gradient
    for name, one, other in zip(names, whole, total, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()) + 1e-5), name
    assert sum(float(gradient.abs().max()) > 0 for gradient in whole) >= len(whole) - 3


def test_every_parameter_is_of_a_layer_that_treats_patients_apart(short_model: TimelineModel) -> None:
    layers = (nn.Linear, nn.Embedding, nn.LayerNorm)
    own = {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, layer in short_model.net.named_modules()
        if not isinstance(layer, layers)
        for name, _ in layer.named_parameters(recurse=False)
    }
    assert own == {"begin", "none_before"}
    assert not any(
        "norm" in type(m).__name__.lower() and not isinstance(m, nn.LayerNorm) for m in short_model.net.modules()
    )


def test_what_may_follow_within_a_step_has_probability_one(short_model: TimelineModel) -> None:
    """Summed over every next token and the end, for a step of static facts and for a later one."""
    codes = short_model.net.codes
    num, width = len(short_model.spec.vocabulary), short_model.net.width
    previous = torch.arange(-1, num)
    state = torch.randn(len(previous), width, generator=torch.Generator().manual_seed(0))
    sizes = (codes.num_types + 1, num)
    habits = tuple(torch.randn(len(previous), size, generator=torch.Generator().manual_seed(size)) for size in sizes)
    for is_static in (True, False):
        for row, before in enumerate(previous.tolist()):
            of_type = codes.type_of == (codes.type_of[before] if before >= 0 else -1)
            allowed = codes.allowed_codes(torch.tensor([before]), slice(None))[0]
            later = codes.type_of > codes.type_of[before] if before >= 0 else torch.ones(num, dtype=torch.bool)
            says = torch.nonzero(allowed & (later | of_type))[:, 0]
            can_end = is_static or before >= 0
            chosen = torch.cat([says, torch.tensor([-1])]) if can_end else says
            size = len(chosen)
            decision = (torch.full((size,), row), torch.full((size,), before), chosen)
            ends = torch.full((size,), can_end)
            with torch.no_grad():
                types, own = codes.log_prob(state[row].expand(size, -1), habits, (*decision, ends))
            total = float((types + own).exp().sum())
            # The type of the token before stays possible though none of its tokens may be left.
            is_open = before < 0 or bool((allowed & of_type).any())
            assert total == pytest.approx(1.0, abs=1e-5) if is_open else total < 1


def test_the_order_of_the_vocabulary_holds(short_model: TimelineModel) -> None:
    vocabulary, codes = short_model.spec.vocabulary, short_model.net.codes
    place = {token.code: index for index, token in enumerate(vocabulary.tokens)}
    pressure, systolic, visit = (place[code] for code in ("LOINC//85354-9", "LOINC//8480-6", "SNOMED//185349003"))
    after = codes.allowed_codes(torch.tensor([pressure, systolic, visit, -1]), slice(None))
    assert after[:, systolic].tolist() == [True, False, False, False]
    assert not after[0, visit]
    assert after[3].equal(codes.is_root)
    types = codes.allowed_types(torch.tensor([-1, pressure]), torch.tensor([False, True]))
    assert types[:, -1].tolist() == [False, True]
    assert types[0, :-1].all()
    assert not types[1, : codes.type_of[pressure]].any()


def test_a_net_without_latent_is_the_same_decoder(short_model: TimelineModel, short: Sequences) -> None:
    net = small_net(short_model.spec, latent_dim=0)
    batch = collate(short.take(np.array([0, 1])), short_model.spec.gaps)
    posterior = net.encode(batch)
    assert posterior.kl().shape == (2, 0)
    total = read_decoded(net, batch, posterior.sample()).total()
    assert torch.isfinite(total).all()
    (-total.sum()).backward()
    assert torch.isfinite(net.begin.grad).all()


def test_the_window_is_told_only_where_asked_for(short_model: TimelineModel, short: Sequences) -> None:
    batch = collate(short.take(np.array([2])), short_model.spec.gaps)
    longer = {**batch, "window_minutes": batch["window_minutes"] * 3}
    with torch.no_grad():
        for sees in (True, False):
            net = TemporalVAE(sizes=short_model.spec.sizes, width=16, num_heads=2, sees_window=sees)
            net.bind(short_model.spec)
            one, other = (net.time_features(each, "open_minutes") for each in (batch, longer))
            assert torch.equal(one, other) is not sees


def test_sizes_are_demanded_by_name(short_model: TimelineModel) -> None:
    sizes = short_model.spec.sizes
    with pytest.raises(ValueError, match=r"sizes must name num_codes, .* got none of num_ancestors"):
        TemporalVAE(sizes={"num_codes": 3})
    with pytest.raises(ValueError, match="width must be a multiple"):
        TemporalVAE(sizes=sizes, width=10, num_heads=4)
    assert small_net(short_model.spec, 1).codes.type_of.tolist() == short_model.spec.vocabulary.type_of.tolist()


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
    memory = (torch.zeros(3), above, torch.zeros(3), torch.full((3,), torch.inf))
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


def test_what_is_still_to_be_diagnosed_presses_the_more_the_less_time_is_left(short_model: TimelineModel) -> None:
    net = short_model.net
    given = torch.ones(1, net.num_sexes + net.num_facts + net.latent_dim)
    nothing, everything = torch.zeros(1, net.num_facts), torch.ones(1, net.num_facts)

    def pressing(named: torch.Tensor, left: float) -> list[float]:
        whole = net.known_person(given, named, torch.tensor([left]), torch.tensor([1e6]))
        assert whole.shape == (1, net.codes.of_person.in_features)
        return whole[0, -net.num_facts :].tolist()

    far, near, over = (pressing(nothing, left) for left in (1e6, 1e4, -5.0))
    assert all(0 < a < b < c == 1.0 for a, b, c in zip(far, near, over, strict=True))
    assert pressing(everything, 0.0) == [0.0] * net.num_facts


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
                token, torch.zeros(num, net.width), NumberMemory(torch.zeros(num), above, last, torch.zeros(num)), known
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
        for level in (values.out, values.recall):
            level.weight.zero_()
        values.fading.weight.copy_(torch.tensor([0.0, 0.5, 0.0]) / GAIN)  # half of it, for a week
        memory = (torch.zeros(4), above, torch.zeros(4), since)
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


def test_roots_begin_at_how_often_they_are_told_for_the_first_time_and_again(short_model: TimelineModel) -> None:
    """The odds between two roots of a type are those of the training subjects, before they had them and after."""
    spec = short_model.spec
    told = spec.told_again.copy()
    codes = small_net(spec).codes
    roots = torch.nonzero(codes.is_root)[:2, 0]
    told[roots.numpy()] = [[[10_000, 20], [400, 200]], [[10_000, 400], [400, 8]]]
    with torch.no_grad():
        codes.begin_at(torch.full((len(spec.vocabulary),), 5.0), torch.from_numpy(told))
        nobody = torch.zeros(1, codes.of_person.in_features)
        never = torch.full((1, len(spec.vocabulary)), float("inf"))
        had = never.clone()
        had[0, roots] = 1e12
        first, again = (codes.code_out.bias + codes.habits(since, nobody)[0] for since in (never, had))
    wanted = [float(np.log(20 / 9980) - np.log(400 / 9600)), float(np.log(200 / 200) - np.log(8 / 392))]
    found = [float(logits[roots[0]] - logits[roots[1]]) for logits in (first, again)]
    assert found == pytest.approx(wanted, abs=0.1)
