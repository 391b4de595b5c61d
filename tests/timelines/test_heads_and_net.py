from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from medtwin.timelines.batches import collate
from medtwin.timelines.generate import TimelineModel
from medtwin.timelines.heads import mixture_log_prob, sample_categories, sample_mixture
from medtwin.timelines.net import PAD, TemporalVAE
from medtwin.timelines.sequences import EVENT, STEP, Sequences
from medtwin.timelines.spec import TimelineSpec
from tests.timelines.conftest import sizes_of, small_net

PARAMETERS = torch.tensor([0.3, -0.2, 0.0, -1.0, 0.5, 2.0, -0.5, 0.1, -1.0])


def test_a_mixture_is_a_density() -> None:
    grid = torch.linspace(-12, 12, 40_001)
    density = mixture_log_prob(PARAMETERS.expand(len(grid), 9), grid).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-4)


def test_truncated_samples_follow_the_truncated_mixture() -> None:
    number, low, high = 20_000, -1.5, 1.0
    uniforms = torch.from_numpy(np.random.default_rng(0).random((number, 2)))
    drawn = sample_mixture(
        PARAMETERS.expand(number, 9), uniforms, torch.full((number,), low), torch.full((number,), high)
    ).numpy()
    weights, means, widths = torch.softmax(PARAMETERS[:3], 0), PARAMETERS[3:6], PARAMETERS[6:].exp()
    normals = [stats.norm(float(m), float(w)) for m, w in zip(means, widths, strict=True)]

    def cdf(x: np.ndarray) -> np.ndarray:
        parts = list(zip(weights.tolist(), normals, strict=True))
        total = sum(w * (n.cdf(np.clip(x, low, high)) - n.cdf(low)) for w, n in parts)
        return total / sum(w * (n.cdf(high) - n.cdf(low)) for w, n in parts)

    assert stats.kstest(drawn, cdf).pvalue > 0.01
    assert stats.kstest(drawn + 0.05, cdf).pvalue < 1e-4  # the control


def test_categories_have_their_probabilities_and_zero_is_never_drawn() -> None:
    mass = torch.tensor([0.0, 2.0, 0.0, 6.0, 0.0]).expand(4000, 5)
    drawn = sample_categories(mass, torch.from_numpy(np.random.default_rng(0).random(4000))).numpy()
    assert set(drawn) == {1, 3}
    assert np.mean(drawn == 3) == pytest.approx(0.75, abs=0.03)
    edges = sample_categories(mass[:2], torch.tensor([0.0, 1.0 - 1e-12], dtype=torch.float64))
    assert edges.tolist() == [1, 3]


def test_a_position_knows_nothing_of_later_ones(model: TimelineModel, sequences: Sequences) -> None:
    batch = collate(sequences, [0, 1, 2], model.spec.gaps)
    z = torch.zeros(3, model.net.latent_dim)
    with torch.no_grad():
        before = model.net.decode(batch, z)
        changed = {**batch, "token": batch["token"].clone(), "value": batch["value"].clone()}
        changed["token"][:, 20:] = 1
        changed["value"][:, 20:] = 3.0
        after = model.net.decode(changed, z)
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-6)
    assert not torch.allclose(before[:, 21:], after[:, 21:], atol=1e-3)


def test_step_by_step_decoding_equals_decoding_at_once(model: TimelineModel, sequences: Sequences) -> None:
    batch = collate(sequences, [3, 4], model.spec.gaps)
    net = model.net
    z = torch.randn(2, net.latent_dim, generator=torch.Generator().manual_seed(0))
    names = ("kind", "token", "value", "has_value", "minute", "gap_minutes", "open_minutes")
    person = {name: v for name, v in batch.items() if v.dim() == 1 or name == "conditions"}
    with torch.no_grad():
        whole, bag = net.decode(batch, z), net.history(batch)
        caches = net.new_caches(2, batch["kind"].shape[1])
        for position in range(40):
            here = {**person, **{name: batch[name][:, position : position + 1] for name in names}}
            step = net.decode_step(here, bag[:, position], z, caches, position)
            assert torch.allclose(step, whole[:, position], atol=1e-5)


def test_the_probabilities_of_what_can_follow_sum_to_one(model: TimelineModel, sequences: Sequences) -> None:
    """Every record is possible: its types and codes have positive probability under the order of the vocabulary."""
    batch = collate(sequences, list(range(len(sequences))), model.spec.gaps)
    net = model.net
    z = torch.zeros(len(sequences), net.latent_dim)
    with torch.no_grad():
        parts = net.log_prob(batch, net.decode(batch, z), z)
    assert all(torch.isfinite(part).all() for part in parts)
    kind = torch.tensor([STEP, EVENT, EVENT])
    token = torch.tensor([0, 0, len(model.spec.vocabulary) - 1])
    allowed = net.allowed_codes(kind, token)
    assert allowed[0].equal(net.is_root)
    assert allowed[2].sum() <= allowed[1].sum()
    assert not net.allowed_types(kind, token)[0, -1]  # a step is never empty
    assert net.allowed_types(kind, token)[1:, -1].all()


def test_children_follow_only_their_open_group(model: TimelineModel) -> None:
    vocabulary, net = model.spec.vocabulary, model.net
    pressure = next(i for i, t in enumerate(vocabulary.tokens) if t.code == "LOINC//85354-9")
    systolic = next(i for i, t in enumerate(vocabulary.tokens) if t.code == "LOINC//8480-6")
    other = next(i for i, t in enumerate(vocabulary.tokens) if t.type == "Encounter" and t.parent is None)
    after = net.allowed_codes(torch.tensor([EVENT, EVENT, EVENT]), torch.tensor([pressure, systolic, other]))
    assert after[:, systolic].tolist() == [True, False, False]
    assert not after[0, other]


def test_padding_changes_nothing(model: TimelineModel, sequences: Sequences) -> None:
    shortest = int(np.argmin(sequences.lengths))
    longest = int(np.argmax(sequences.lengths))
    net, gaps = model.net, model.spec.gaps
    alone, both = collate(sequences, [shortest], gaps), collate(sequences, [shortest, longest], gaps)
    assert (both["kind"][0] == PAD).any()
    z = torch.ones(2, net.latent_dim)
    with torch.no_grad():
        own = net.log_prob(alone, net.decode(alone, z[:1]), z[:1]).total()
        padded = net.log_prob(both, net.decode(both, z), z).total()
        assert torch.allclose(net.encode(alone).mean[0], net.encode(both).mean[0], atol=1e-5)
    assert float(padded[0]) == pytest.approx(float(own[0]), rel=1e-5)


def test_a_net_without_latent_is_the_same_decoder(spec: TimelineSpec, sequences: Sequences) -> None:
    net = TemporalVAE(sizes=sizes_of(spec), latent_dim=0, width=16, num_heads=2)
    net.bind(spec)
    batch = collate(sequences, [0], spec.gaps)
    posterior = net.encode(batch)
    assert posterior.kl().sum() == 0
    assert torch.isfinite(net.log_prob(batch, net.decode(batch, posterior.sample()), posterior.sample()).total()).all()


def test_sizes_are_demanded_by_name(spec: TimelineSpec) -> None:
    with pytest.raises(ValueError, match="sizes must name num_codes"):
        TemporalVAE(sizes={"num_codes": 3})
    with pytest.raises(ValueError, match="width must be a multiple"):
        TemporalVAE(sizes=sizes_of(spec), width=10, num_heads=4)
    assert small_net(spec, 1).type_of.tolist() == spec.vocabulary.type_of.tolist()
