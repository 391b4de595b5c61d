"""The net: what a decision knows, and what it may say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.batches import Batch, collate
from medtwin.timelines.reading.sequences import Sequences
from tests.timelines.conftest import lively, read_decoded, small_net


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
