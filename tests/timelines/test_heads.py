"""What is drawn from: mixtures and categories, as densities, draws and abducted noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medtwin.timelines.heads import (
    abduct_category,
    abduct_mixture,
    mixture_log_prob,
    sample_categories,
    sample_mixture,
)

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
