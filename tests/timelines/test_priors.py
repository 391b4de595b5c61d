from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medtwin.config import build
from medtwin.core.errors import ConfigError
from medtwin.core.paths import config_dir
from medtwin.timelines.priors import (
    DensityPrior,
    FitFlow,
    FitGan,
    FitMixture,
    FitNormal,
    FlowPrior,
    GanPrior,
    MixturePrior,
    NormalPrior,
    PhenotypePrior,
    Prior,
    energy_distance,
    load_prior,
    save_prior,
)
from medtwin.timelines.priors.flow import WEIGHTS
from medtwin.timelines.priors.posteriors import Affine, Posteriors, nearest_gaussian

Floats = np.ndarray[Any, np.dtype[np.float64]]
Law = Callable[[int, np.random.Generator], Floats]
SPREAD = 0.3  # of every posterior in the laws below


def three_groups(n: int, rng: np.random.Generator, dim: int = 8) -> Floats:
    """Means of posteriors: 60 %, 30 % and 10 % of the subjects around three places that are six spreads apart."""
    centres = np.zeros((3, dim))
    centres[:, :2] = (-2, -2), (3, 0), (0, 3)
    return centres[rng.choice(3, n, p=[0.6, 0.3, 0.1])] + 0.5 * rng.standard_normal((n, dim))


def ring(n: int, rng: np.random.Generator, dim: int = 8) -> Floats:
    angle, radius = rng.uniform(0, 2 * np.pi, n), 1.8 + 0.1 * rng.standard_normal(n)
    z = rng.standard_normal((n, dim))
    z[:, 0], z[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    return z


def standard(n: int, rng: np.random.Generator, dim: int = 8) -> Floats:
    """With the posteriors' spread the aggregated posterior is exactly N(0, I)."""
    return np.sqrt(1 - SPREAD**2) * rng.standard_normal((n, dim))


def posteriors_of(law: Law, n: int, seed: int = 0) -> tuple[Any, Any]:
    mean = law(n, np.random.default_rng(seed)).astype(np.float32)
    return mean, np.full_like(mean, 2 * np.log(SPREAD))


def fresh(law: Law, n: int, seed: int) -> Floats:
    rng = np.random.default_rng([9, seed])
    mean = law(n, rng)
    return mean + SPREAD * rng.standard_normal(mean.shape)


def rngs(n: int, seed: int = 1) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(n)]


def drawn(prior: Prior, n: int, seed: int = 1) -> Floats:
    return prior.draw_many(rngs(n, seed)).astype(np.float64)


def random_flow(dim: int = 5) -> FlowPrior:
    """One that nobody trained: no spline is the identity."""
    rng = np.random.default_rng(3)
    kept, width, out = dim // 2, 7, (dim - dim // 2) * 11
    shapes = ((kept, width), (width,), (width, width), (width,), (width, out), (out,))
    weights = {name: 0.5 * rng.standard_normal((3, *shape)) for name, shape in zip(WEIGHTS, shapes, strict=True)}
    order = np.array([rng.permutation(dim) for _ in range(3)])
    return FlowPrior(Affine(rng.standard_normal(dim), np.tril(rng.random((dim, dim))) + np.eye(dim)), order, weights)


def random_gan(dim: int = 5) -> GanPrior:
    rng = np.random.default_rng(4)
    shapes = ((dim, 7), (7,), (7, 7), (7,), (7, dim), (dim,))
    return GanPrior(Affine(np.ones(dim), 2 * np.eye(dim)), *(rng.standard_normal(shape) for shape in shapes))


def two_components() -> MixturePrior:
    return MixturePrior(
        np.array([0.75, 0.25]),
        np.array([[-2.0, 0.0], [3.0, 1.0]]),
        np.array([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 0.5]]]),
    )


PRIORS: tuple[Prior, ...] = (NormalPrior(3), two_components(), random_flow(), random_gan())


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_a_draw_depends_on_its_own_generator_alone(prior: Prior, tmp_path: Path) -> None:
    many = prior.draw_many(rngs(257))
    assert many.dtype == np.float32
    assert many.shape == (257, prior.dim)
    for index in (0, 100, 256):
        assert np.array_equal(prior.draw(np.random.default_rng([1, index])), many[index])
    assert np.array_equal(prior.draw_many(rngs(257)[50:83]), many[50:83])
    assert prior.draw_many([]).shape == (0, prior.dim)
    assert len(np.unique(many, axis=0)) == 257

    save_prior(prior, tmp_path / "prior.npz")
    loaded = load_prior(tmp_path / "prior.npz")
    assert type(loaded) is type(prior)
    assert np.array_equal(loaded.draw_many(rngs(257)), many)
    save_prior(loaded, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "prior.npz").read_bytes()


def test_what_a_prior_can_do_is_told_by_its_type() -> None:
    assert [isinstance(prior, DensityPrior) for prior in PRIORS] == [True, True, True, False]
    assert [isinstance(prior, PhenotypePrior) for prior in PRIORS] == [False, True, False, False]
    assert all(isinstance(prior, Prior) for prior in PRIORS)
    for prior in PRIORS:
        if not isinstance(prior, PhenotypePrior):
            with pytest.raises(ConfigError, match="has no components, only prior=gmm has"):
                prior.draw(np.random.default_rng(0), component=0)


def test_a_file_that_is_no_prior_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prior.npz"
    with pytest.raises(ConfigError, match="is no prior"):
        load_prior(file)
    file.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is no prior"):
        load_prior(file)
    kind = np.frombuffer(b"gmm", np.uint8)
    np.savez(file, kind=kind, weights=np.ones(1), means=np.zeros((1, 2)), scales=np.zeros((1, 2, 3)))
    with pytest.raises(ConfigError, match=r"weights, means and scales must be"):
        load_prior(file)
    np.savez(file, kind=kind, weights=np.ones(1), means=np.full((1, 2), np.nan), scales=np.eye(2)[None])
    with pytest.raises(ConfigError, match="a number is not finite"):
        load_prior(file)
    np.savez(file, kind=np.frombuffer(b"vamp", np.uint8))
    with pytest.raises(ConfigError, match="is no prior"):
        load_prior(file)
    np.savez(file, kind=np.array([{}], dtype=object))
    with pytest.raises(ConfigError, match="is no prior"):
        load_prior(file)


def test_a_mixture_is_what_its_parameters_say() -> None:
    from scipy.stats import multivariate_normal

    prior = two_components()
    z = np.array([[0.0, 0.0], [3.0, 2.0], [-5.0, 1.0]])
    covariance = prior.scales @ prior.scales.transpose(0, 2, 1)
    parts = np.stack(
        [w * multivariate_normal(m, c).pdf(z) for w, m, c in zip(prior.weights, prior.means, covariance, strict=True)],
        axis=1,
    )
    assert prior.log_prob(z) == pytest.approx(np.log(parts.sum(axis=1)))
    assert prior.responsibilities(z) == pytest.approx(parts / parts.sum(axis=1, keepdims=True))

    z = drawn(prior, 5000)
    assert z.mean(axis=0) == pytest.approx([0.75 * -2 + 0.25 * 3, 0.25], abs=0.12)
    second = prior.draw_many(rngs(5000), component=1).astype(np.float64)
    assert second.mean(axis=0) == pytest.approx([3, 1], abs=0.12)
    assert np.cov(second.T) == pytest.approx(np.array([[4.0, 2.0], [2.0, 1.25]]), abs=0.25)
    of_second = prior.responsibilities(z)[:, 1].mean()
    assert of_second == pytest.approx(0.25, abs=0.02)
    with pytest.raises(ConfigError, match="component must be 0 to 1, got 2"):
        prior.draw(np.random.default_rng(0), component=2)


def test_the_place_within_a_component_is_kept_when_another_is_asked_for() -> None:
    prior = two_components()
    first, second = (prior.draw(np.random.default_rng(5), component=k).astype(np.float64) for k in (0, 1))
    noise = [np.linalg.solve(prior.scales[k], z - prior.means[k]) for k, z in enumerate((first, second))]
    assert noise[0] == pytest.approx(noise[1], abs=1e-5)


def test_one_component_has_the_moments_of_the_aggregated_posterior() -> None:
    rng = np.random.default_rng(0)
    mean, log_var = rng.standard_normal((50, 2)) @ np.array([[1.0, 0.5], [0.0, 0.3]]), rng.uniform(-3, 0, (50, 2))
    prior = FitMixture(1, pseudo_subjects=0, min_variance=0).fit(mean, log_var, seed=0)
    covariance = np.cov(mean.T, bias=True) + np.diag(np.exp(log_var).mean(axis=0))
    assert prior.means[0] == pytest.approx(mean.mean(axis=0))
    assert prior.scales[0] @ prior.scales[0].T == pytest.approx(covariance)
    # The penalty towards the pooled variances, worth 10 of 60 subjects.
    prior = FitMixture(1, pseudo_subjects=10, min_variance=0).fit(mean, log_var, seed=0)
    expected = (50 * covariance + 10 * np.diag(np.diag(covariance))) / 60
    assert prior.scales[0] @ prior.scales[0].T == pytest.approx(expected)


@pytest.mark.parametrize(("covariance", "theirs"), [("full", "full"), ("diagonal", "diag")])
@pytest.mark.parametrize("log_var", [-np.inf, -30.0])
def test_agrees_with_scikit_learn_where_posteriors_are_points(covariance: Any, theirs: str, log_var: float) -> None:
    from sklearn.mixture import GaussianMixture

    mean = three_groups(1500, np.random.default_rng(0), dim=3)
    settings = FitMixture(3, covariance=covariance, pseudo_subjects=0, min_variance=1e-6, tolerance=1e-8)
    prior = settings.fit(mean, np.full_like(mean, log_var), seed=0)
    other = GaussianMixture(3, covariance_type=theirs, reg_covar=1e-6, tol=1e-8, random_state=0).fit(mean)
    order = np.argsort(-other.weights_)
    assert prior.weights == pytest.approx(other.weights_[order], abs=1e-5)
    assert prior.means == pytest.approx(other.means_[order], abs=1e-4)
    z = fresh(lambda n, rng: three_groups(n, rng, 3), 200, 1)
    assert prior.log_prob(z) == pytest.approx(other.score_samples(z), abs=5e-3)


def test_a_component_is_never_a_few_people() -> None:
    mean, log_var = posteriors_of(three_groups, 600)
    mean[:5] += 40  # five people far from all others
    everyone = FitMixture(6, min_subjects=2, pseudo_subjects=1).fit(mean, log_var, seed=0)
    assert everyone.weights.min() * 600 < 20
    assert np.abs(everyone.means).max() > 30
    prior = FitMixture(6, min_subjects=20).fit(mean, log_var, seed=0)
    assert prior.weights.min() * 600 >= 20
    assert prior.weights.sum() == pytest.approx(1)
    assert (np.diff(prior.weights) <= 0).all()
    with pytest.raises(ConfigError, match=r"prior\.min_subjects must be at most the 30"):
        FitMixture(min_subjects=31).fit(mean[:30], log_var[:30], seed=0)


def test_the_number_of_components_is_found_and_components_are_the_groups() -> None:
    prior = FitMixture(max_components=6).fit(*posteriors_of(three_groups, 1000), seed=0)
    assert prior.weights == pytest.approx([0.6, 0.3, 0.1], abs=0.04)
    asked = prior.draw_many(rngs(50), component=2)
    assert asked[:, :2].mean(axis=0) == pytest.approx([0, 3], abs=0.4)
    one = FitMixture(max_components=6).fit(*posteriors_of(standard, 1000), seed=0)
    assert len(one.weights) == 1


def test_posteriors_widen_what_is_fitted_by_their_spread() -> None:
    mean = np.random.default_rng(0).standard_normal((400, 2))
    points = FitMixture(1).fit(mean, np.full_like(mean, -np.inf), seed=0)
    wide = FitMixture(1).fit(mean, np.zeros_like(mean), seed=0)
    ratio = np.diag(wide.scales[0] @ wide.scales[0].T) / np.diag(points.scales[0] @ points.scales[0].T)
    assert ratio == pytest.approx(1 + 1 / mean.var(axis=0), rel=1e-3)


@pytest.mark.parametrize("dim", [2, 5])
def test_the_density_of_a_flow_is_that_of_its_draws(dim: int) -> None:
    """By the change of variables: draws are made in numpy by the inverse, the density in torch by the forward map."""
    prior, step = random_flow(dim), 1e-6
    u = 1.5 * np.random.default_rng(0).standard_normal((40, dim))
    u[0] = 7.0  # beyond the splines
    z = prior.from_noise(u)
    moved = [(prior.from_noise(u + d) - prior.from_noise(u - d)) / (2 * step) for d in step * np.eye(dim)]
    _, log_det = np.linalg.slogdet(np.stack(moved, axis=2))
    assert np.ptp(log_det) > 1
    assert prior.log_prob(z) == pytest.approx(NormalPrior(dim).log_prob(u) - log_det, abs=1e-3)
    assert np.array_equal(
        prior.draw_many(rngs(3)),
        prior.from_noise(np.array([r.standard_normal(dim) for r in rngs(3)])).astype(np.float32),
    )


@pytest.mark.parametrize("factory", [FitFlow(max_epochs=2, num_layers=2, width=8), FitGan(num_steps=4, check_every=2)])
def test_fitting_repeats_and_leaves_the_global_generators_alone(factory: FitFlow | FitGan) -> None:
    mean, log_var = posteriors_of(three_groups, 200)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first, again, other = (factory.fit(mean, log_var, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert np.array_equal(drawn(first, 9), drawn(again, 9))
    assert not np.array_equal(drawn(first, 9), drawn(other, 9))


def test_the_nearest_gaussian_is_as_simple_as_held_out_subjects_want() -> None:
    def base(law: Law) -> Affine:
        train, held = Posteriors.of(*posteriors_of(law, 1000)).split(0.1, np.random.default_rng(0))
        return nearest_gaussian(train, held)

    assert np.array_equal(base(standard).scale, np.eye(8))
    stretched = base(lambda n, rng: 3 * standard(n, rng))
    assert np.count_nonzero(stretched.scale) == 8
    assert np.count_nonzero(base(three_groups).scale) == 36


@pytest.mark.parametrize("option", ["normal", "gmm", "flow", "gan"])
def test_every_option_builds_as_its_defaults(option: str) -> None:
    config = yaml.safe_load((config_dir() / "prior" / f"{option}.yaml").read_text())
    factory = build(config, "prior")
    assert factory == {"normal": FitNormal(), "gmm": FitMixture(), "flow": FitFlow(), "gan": FitGan()}[option]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitMixture(0), "num_components must be null, or 1 or more, got 0"),
        (lambda: FitMixture(min_subjects=1), "min_subjects must be 2 or more"),
        (lambda: FitMixture(covariance="tied"), "covariance must be full or diagonal"),  # type: ignore[arg-type]
        (lambda: FitMixture(pseudo_subjects=float("nan")), "pseudo_subjects must be 0 or more"),
        (lambda: FitMixture(held_out=1), "held_out must be above 0 and below 1"),
        (lambda: FitFlow(num_layers=1), "num_layers must be 2 or more"),
        (lambda: FitFlow(learning_rate=0), "learning_rate must be above 0"),
        (lambda: FitGan(critic_steps=0), "critic_steps must be 1 or more"),
        (lambda: FitGan(gradient_penalty=0), "gradient_penalty must be above 0"),
        (lambda: NormalPrior(0), "dim must be 1 or more"),
        (lambda: NormalPrior(2).log_prob(np.zeros((1, 3))), r"z must have shape \(n, 2\)"),
    ],
)
def test_a_wrong_number_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("factory", [FitMixture(), FitFlow(), FitGan()])
def test_posteriors_that_are_none_are_refused(factory: FitMixture | FitFlow | FitGan) -> None:
    mean = np.zeros((30, 2), np.float32)
    with pytest.raises(ValueError, match=r"must be \(n, dim\) both"):
        factory.fit(mean, mean[:, :1], seed=0)
    with pytest.raises(ValueError, match="must be finite"):
        factory.fit(mean, np.full_like(mean, np.inf), seed=0)
    with pytest.raises(ConfigError, match="20 training subjects or more, got 19: use prior=normal"):
        factory.fit(mean[:19], mean[:19], seed=0)


def test_a_flow_needs_two_dimensions() -> None:
    with pytest.raises(ConfigError, match="2 or more dimensions"):
        FitFlow().fit(np.zeros((30, 1)), np.zeros((30, 1)), seed=0)
    one = FitMixture(1).fit(np.arange(30.0)[:, None], np.zeros((30, 1)), seed=0)
    assert one.dim == 1


def test_training_that_makes_no_progress_keeps_the_gaussian() -> None:
    """Of N(0, I) nothing is to be learned; a rate that wrecks the networks shows that what is kept is the start."""
    mean, log_var = posteriors_of(standard, 300)
    flow = FitFlow(max_epochs=3, learning_rate=0.5, num_layers=2, width=8).fit(mean, log_var, seed=0)
    z = fresh(standard, 100, 1)
    assert flow.log_prob(z) == pytest.approx(
        NormalPrior(8).log_prob(flow.affine.whiten(z)) - flow.affine.log_det, abs=1e-4
    )
    gan = FitGan(num_steps=20, check_every=5, learning_rate=0.5).fit(mean, log_var, seed=0)
    assert drawn(gan, 9) == pytest.approx(gan.affine.colour(drawn(NormalPrior(8), 9)), abs=1e-5)


def test_energy_distance_tells_laws_apart_and_one_law_not() -> None:
    first, second = fresh(three_groups, 1000, 1), fresh(three_groups, 1000, 2)
    other = fresh(ring, 1000, 3)
    assert abs(energy_distance(first, second)) < 0.01
    assert energy_distance(first, other) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("law", [three_groups, ring], ids=["groups", "ring"])
def test_fitted_priors_are_nearer_to_the_aggregated_posterior_than_the_normal(law: Law) -> None:
    mean, log_var = posteriors_of(law, 4000)
    real, other = (fresh(law, 3000, seed) for seed in range(2))

    def apart(z: Floats) -> float:
        """From the law, in the two dimensions that are not normal: the others would hide what these do together."""
        return energy_distance(z[:, :2], real[:, :2])

    likelihood, distance = {}, {}
    for name, factory in (("normal", FitNormal()), ("gmm", FitMixture()), ("flow", FitFlow()), ("gan", FitGan())):
        prior = factory.fit(mean, log_var, seed=0)
        distance[name] = apart(drawn(prior, 3000))
        if isinstance(prior, DensityPrior):
            likelihood[name] = float(prior.log_prob(real).mean())
    assert min(likelihood["gmm"], likelihood["flow"]) > likelihood["normal"] + 0.4
    # Dimensions that are each right but know nothing of one another are the control that must be told apart.
    shuffled = other.copy()
    shuffled[:, 0] = np.random.default_rng(0).permutation(shuffled[:, 0])
    assert max(distance["gmm"], distance["flow"]) < 0.5 * apart(shuffled)
    assert abs(apart(other)) < 0.5 * apart(shuffled)
    assert distance["gan"] < 0.6 * distance["normal"]
