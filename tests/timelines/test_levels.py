from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from medtwin.timelines.heads import sample_mixture
from medtwin.timelines.network.event_heads import NUM_COMPONENTS, ValueHead
from medtwin.timelines.reading.heaps import Heaps
from medtwin.timelines.reading.levels import NUM_LEVELS, FirstNumbers, fit_mixture
from medtwin.timelines.reading.scales import Scale, fit_scale


def enzymes(num: int) -> np.ndarray:
    """Most near the norm and some far above it, units per litre."""
    rng = np.random.default_rng(3)
    return np.where(rng.random(num) < 0.8, rng.lognormal(3.2, 0.4, num), rng.lognormal(5.5, 0.9, num)).round()


def cdf(mixture: np.ndarray, at: np.ndarray) -> np.ndarray:
    logs, means, log_widths = mixture.reshape(3, -1)
    return np.exp(logs) @ stats.norm.cdf((at - means[:, None]) / np.exp(log_widths)[:, None])


def test_a_mixture_has_the_shape_of_its_numbers() -> None:
    values = np.log(enzymes(2000))
    mixture = fit_mixture(values)
    assert stats.kstest(values, lambda at: cdf(mixture, at)).statistic < 0.03
    assert stats.kstest(values, stats.norm(values.mean(), values.std()).cdf).statistic > 0.1  # the control
    assert np.array_equal(mixture, fit_mixture(values[::-1]))


@pytest.mark.parametrize("values", [np.zeros(60), np.r_[np.zeros(59), 1e3], np.arange(50.0)])
def test_a_mixture_of_odd_numbers_is_finite_and_none_narrow(values: np.ndarray) -> None:
    logs, means, log_widths = fit_mixture(values).reshape(3, -1)
    assert np.isfinite([logs, means, log_widths]).all()
    assert np.exp(logs).sum() == pytest.approx(1)
    assert np.exp(log_widths).min() >= 0.15 - 1e-9


def test_first_numbers_are_kept_by_token_and_only_of_those_that_many_have() -> None:
    first, scale = FirstNumbers(), Scale("linear", 0.0, 1.0, -9.0, 9.0, 2)
    rng = np.random.default_rng(5)
    for _ in range(3):
        token = np.repeat([0, 1, 3], [3000, 10, 40])
        first.add(token, (rng.standard_normal(len(token)) + token).astype(np.float32), 4)
    mixtures = first.mixtures([scale, scale, scale, scale])
    assert np.isfinite(mixtures).all(axis=1).tolist() == [True, False, False, True]
    middle = [np.exp(row[:NUM_LEVELS]) @ row[NUM_LEVELS : 2 * NUM_LEVELS] for row in mixtures[[0, 3]]]
    assert middle == pytest.approx([0.0, 3.0], abs=0.3)  # of 4,000 and 120
    assert np.isnan(FirstNumbers().mixtures([scale])).all()
    assert np.isnan(first.mixtures([None, scale, scale, scale])[0]).all()


def test_an_untrained_head_draws_first_numbers_as_they_are() -> None:
    """Kolmogorov-Smirnov distance below 0.06 before the first step; that of a head that was told nothing is far."""
    raw = enzymes(3000)
    scale = fit_scale(raw)
    levels = np.full((1, 3 * NUM_COMPONENTS), np.nan)
    distances = []
    for known in (levels, fit_mixture(scale.encode(raw))[None]):
        torch.manual_seed(0)
        head = ValueHead(1, 4, 8)
        head.bind(torch.arange(1), ([scale], [Heaps()], known, np.full(1, np.nan)))
        memory = (
            torch.zeros(3000),
            torch.zeros(3000, 3),
            torch.zeros(3000),
            torch.full((3000,), torch.inf),
            torch.zeros(3000),
        )
        of_person = (torch.zeros(3000, head.loading.embedding_dim), torch.zeros(3000, 16))
        with torch.no_grad():
            law = head(torch.zeros(3000, dtype=torch.long), torch.zeros(3000, 8), memory, of_person)
        bounds = (torch.full((3000,), limit, dtype=torch.float64) for limit in (scale.low, scale.high))
        uniforms = torch.from_numpy(np.random.default_rng(1).random((3000, 2)))
        drawn = scale.decode(sample_mixture(law, uniforms, *bounds).numpy())
        distances.append(stats.ks_2samp(drawn, raw).statistic)
    assert distances[1] < 0.06 < 0.15 < distances[0]
