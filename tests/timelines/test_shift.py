from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medtwin.core.seeds import generator
from medtwin.timelines.generation.generate import draw_people
from medtwin.timelines.generation.tile import TimelineModel
from medtwin.timelines.priors.shift import LatentShift, fit_shift, load_shift
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.spec import TimelineSpec
from medtwin.timelines.steering.counterfactual import moved

DIM = 4


@pytest.fixture(scope="module")
def people(spec: TimelineSpec) -> list[Attributes]:
    return spec.profile.draw(generator(0, "people").random((600, spec.profile.num_uniforms)))


def latents(spec: TimelineSpec, people: list[Attributes]) -> np.ndarray:
    """Posterior means of which the first tells the sex, and the second the age; the others nothing."""
    z = 0.5 * generator(0, "z").standard_normal((len(people), DIM))
    z[:, 0] += np.array([one.sex == 1 for one in people])
    z[:, 1] += np.array([one.age_start_years for one in people]) / 40
    return z.astype(np.float32)


@pytest.fixture(scope="module")
def shift(spec: TimelineSpec, people: list[Attributes]) -> LatentShift:
    z = latents(spec, people)
    return fit_shift(spec.profile, people, z, np.full_like(z, np.log(0.11)))


def test_what_z_tells_of_sex_and_age_is_found_and_nothing_else(
    spec: TimelineSpec, people: list[Attributes], shift: LatentShift
) -> None:
    expected = shift.expected(spec.profile, people)
    is_first = np.array([one.sex == 1 for one in people])
    ages = np.array([one.age_start_years for one in people])
    assert expected[is_first, 0].mean() - expected[~is_first, 0].mean() == pytest.approx(1, abs=0.15)
    assert np.corrcoef(expected[:, 1], ages)[0, 1] > 0.95
    assert (expected[:, 2:].std(axis=0) < 0.15).all()
    assert shift.spread == pytest.approx(np.full(DIM, np.sqrt(0.25 + 0.11)), rel=0.1)


def test_dealt_to_others_attributes_let_expect_nothing(spec: TimelineSpec, people: list[Attributes]) -> None:
    z = latents(spec, people)[generator(1, "deal").permutation(len(people))]
    dealt = fit_shift(spec.profile, people, z, np.zeros_like(z))
    assert (dealt.expected(spec.profile, people).var(axis=0) < 0.1 * z.var(axis=0)).all()


def test_residuals_and_back(spec: TimelineSpec, people: list[Attributes], shift: LatentShift) -> None:
    z = latents(spec, people)
    residual = shift.residual(spec.profile, people, z)
    assert shift.place(spec.profile, people, residual) == pytest.approx(z, abs=1e-5)


def test_a_change_moves_what_follows_from_it_and_holds_the_rest(
    spec: TimelineSpec, people: list[Attributes], shift: LatentShift, model: TimelineModel
) -> None:
    z = latents(spec, people)[:50]
    before = people[:50]
    after = [Attributes(3 - one.sex if one.sex else 0, *_rest(one)) for one in before]
    steered = TimelineModel(model.net, spec, model.masks, shift)
    now = moved(steered, z, before, after)
    told = np.array([one.sex == 1 for one in before])
    change = (now - z)[:, 0]
    assert change[told].mean() == pytest.approx(-1, abs=0.2)
    assert shift.residual(spec.profile, after, now) == pytest.approx(shift.residual(spec.profile, before, z), abs=1e-4)
    assert np.array_equal(moved(steered, z, before, before), z)
    assert moved(model, z, before, after) is z


def _rest(one: Attributes) -> tuple[float, int, int, tuple[int, ...]]:
    return one.age_start_years, one.start_minute, one.window_minutes, one.facts


def test_new_subjects_have_the_z_that_their_attributes_let_expect(
    spec: TimelineSpec, shift: LatentShift, model: TimelineModel
) -> None:
    steered = TimelineModel(model.net, spec, model.masks, shift)
    plain, new = (draw_people(one, 0, 200, seed=3) for one in (model, steered))
    assert list(plain.attributes) == list(new.attributes)
    assert new.latent == pytest.approx(shift.place(spec.profile, new.attributes, plain.latent))
    is_first = np.array([one.sex == 1 for one in new.attributes])
    assert new.latent[is_first, 0].mean() - new.latent[~is_first, 0].mean() > 0.7


def test_it_comes_back_from_disk(shift: LatentShift, tmp_path: Path) -> None:
    assert load_shift(tmp_path) is None
    shift.save(tmp_path)
    again = load_shift(tmp_path)
    assert again is not None
    for name in ("weights", "centre", "mean", "spread"):
        assert np.array_equal(getattr(again, name), getattr(shift, name))
    assert torch.is_grad_enabled()
