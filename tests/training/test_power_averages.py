from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medtwin.training.power_averages import PowerAverage, Profile, combined, gamma_of, products, shares_of


class Number(nn.Module):
    """One weight, which is set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1, dtype=torch.float64))


def averaged(course: np.ndarray, width: float, stored_at: list[int]) -> dict[int, dict[str, torch.Tensor]]:
    module = Number()
    average, kept = PowerAverage(module, width), {}
    for step, value in enumerate(course, start=1):
        module.value.data.fill_(value)
        average.move(module, step)
        if step in stored_at:
            kept[step] = {name: weight.clone() for name, weight in average.weights.items()}
    return kept


@pytest.mark.parametrize("width", [0.05, 0.15, 0.25])
def test_the_profile_has_the_width_that_was_asked_for(width: float) -> None:
    """Read off the average of a course that is 1 at one step and 0 elsewhere, for every step."""
    steps = 60
    weight = np.array([averaged(np.eye(steps)[i], width, [steps])[steps]["value"].item() for i in range(steps)])
    assert weight.sum() == pytest.approx(1.0)
    place = (np.arange(steps) + 0.5) / steps
    mean = (weight * place).sum()
    assert np.sqrt((weight * (place - mean) ** 2).sum()) == pytest.approx(width, rel=0.03)


def test_inner_products_are_those_of_the_functions() -> None:
    profiles, time = [Profile(40, 0.05), Profile(100, 0.1), Profile(100, 0.2)], (np.arange(200_000) + 0.5) / 2000
    values = []
    for profile in profiles:
        gamma = gamma_of(profile.width)
        values.append(
            np.where(time < profile.step, (gamma + 1) * time**gamma / float(profile.step) ** (gamma + 1), 0.0)
        )
    wanted = np.array([[np.mean(a * b) * 100 for b in values] for a in values])
    assert products(profiles, profiles) == pytest.approx(wanted, rel=1e-3)


def test_an_average_that_was_not_kept_is_put_together_from_two_that_were() -> None:
    rng, steps = np.random.default_rng(0), 1000
    course = np.cumsum(rng.normal(size=steps)) / 10 + 5
    at = list(range(50, steps + 1, 50))
    profiles, states = [], []
    for width in (0.05, 0.1):
        for step, state in averaged(course, width, at).items():
            profiles.append(Profile(step, width))
            states.append(state)
    for step, width in ((1000, 0.075), (1000, 0.15), (700, 0.1)):
        true = averaged(course[:step], width, [step])[step]["value"].item()
        made = combined(states, shares_of(profiles, Profile(step, width)))["value"].item()
        assert made == pytest.approx(true, abs=0.005)
        others = [averaged(course[:step], other, [step])[step]["value"].item() for other in (0.05, 0.2)]
        assert min(abs(other - true) for other in others) > 0.02  # another width would show
    last = combined(states[-1:], np.ones(1))["value"].item()
    assert last == states[-1]["value"].item()


@pytest.mark.parametrize("width", [0.0, 0.3, float("nan")])
def test_refuses_a_width_that_no_profile_has(width: float) -> None:
    with pytest.raises(ValueError, match="width must be above 0 and below"):
        gamma_of(width)


def test_refuses_a_step_that_nothing_reaches() -> None:
    with pytest.raises(ValueError, match="up to step 9"):
        shares_of([Profile(8, 0.1)], Profile(9, 0.1))
