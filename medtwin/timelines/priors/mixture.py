"""A Gaussian mixture fitted to the posteriors themselves; its components are phenotypes that can be asked for.

Every subject enters with its mean and its variances, not with a draw. With responsibilities r_ik of component k for
subject i, one round of expectation maximisation is

    r_ik  ~  weight_k exp(E_q(z|x_i) log N(z; mu_k, Sigma_k))
    mu_k  =  sum_i r_ik m_i / n_k,  n_k = sum_i r_ik
    Sigma_k = (nu Lambda + sum_i r_ik [(m_i - mu_k)(m_i - mu_k)^T + diag(v_i)]) / (n_k + nu)

which raises, up to the penalty of Lambda, a lower bound on the expected log density of the aggregated posterior, by
Jensen's inequality for the one component per subject. With variances v_i of 0 and nu = 0 it is the usual algorithm.

Source: Dempster, Laird & Rubin 1977, JRSS B 39:1 (EM); Fraley & Raftery 2007, J Classif 24:155 (the inverse-Wishart
penalty Lambda, the pooled variance over components^(2/dim)); Tomczak & Welling 2018, AISTATS (the mixture of posteriors
as a prior); Arthur & Vassilvitskii 2007 (k-means++, the start).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.timelines.priors.posteriors import Posteriors, one_thread
from medtwin.timelines.priors.prior import Arrays, Draws, Floats, as_rows, standard_noise

Covariance = Literal["full", "diagonal"]
_CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_PATIENCE = 2  # numbers of components in a row without progress that end the search
_START_ROUNDS = 5  # rounds of EM by which starts are compared
_HELD_DRAWS = 8  # draws of every held-out subject that a number of components is judged by


@dataclass(frozen=True, eq=False)
class MixturePrior:
    """A Gaussian mixture law of z.

    Attributes:
        weights: Shares of the components, (components,), the largest first; they sum to 1.
        means: (components, dim).
        scales: Cholesky factors of the covariances, (components, dim, dim), lower triangular.

    Raises:
        ValueError: If shapes do not fit, weights are no shares, or a scale is no Cholesky factor.
    """

    weights: Floats
    means: Floats
    scales: Floats

    def __post_init__(self) -> None:
        number = len(self.weights)
        if self.means.ndim != 2 or len(self.means) != number or self.scales.shape != (*self.means.shape, self.dim):
            raise ValueError(
                f"weights, means and scales must be (k,), (k, dim) and (k, dim, dim), got {self.weights.shape}, "
                f"{self.means.shape} and {self.scales.shape}"
            )
        if not (self.weights > 0).all() or abs(self.weights.sum() - 1) > 1e-6:
            raise ValueError("weights must be above 0 and sum to 1")
        if np.triu(self.scales, 1).any() or not (np.diagonal(self.scales, axis1=1, axis2=2) > 0).all():
            raise ValueError("scales must be lower triangular with a positive diagonal")

    @property
    def dim(self) -> int:
        """Numbers of z."""
        return int(self.means.shape[1])

    @cached_property
    def _inverses(self) -> Floats:
        return np.asarray(np.linalg.inv(self.scales), dtype=np.float64)

    def draw(self, rng: np.random.Generator, component: int | None = None) -> Draws:
        """One subject's z, (dim,); see `Prior`.

        The place within a component does not change with the component: the same generator gives the same noise.
        """
        z: Draws = self.draw_many([rng], component)[0]
        return z

    def draw_many(self, rngs: Sequence[np.random.Generator], component: int | None = None) -> Draws:
        """One z for each generator, (len(rngs), dim); see `Prior`."""
        if component is not None and not 0 <= component < len(self.weights):
            raise ConfigError(f"component must be 0 to {len(self.weights) - 1}, got {component!r}")
        uniform = np.array([rng.random() for rng in rngs])
        noise = standard_noise(rngs, self.dim)
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], uniform, side="right")
        if component is not None:
            chosen = np.full_like(chosen, component)
        z = self.means[chosen] + np.matmul(self.scales[chosen], noise[:, :, None])[:, :, 0]
        return np.asarray(z, dtype=np.float32)

    def joint_log_prob(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Log of weight times density of every component in nats, (n, components), at z (n, dim)."""
        rows = as_rows(z, self.dim)
        return _expected_joint(Posteriors(rows, np.zeros_like(rows)), np.log(self.weights), self.means, self._inverses)

    def log_prob(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Log density in nats, (n,), at z (n, dim)."""
        return _log_sum_exp(self.joint_log_prob(z))

    def responsibilities(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Probability of each component given z (n, dim), (n, components)."""
        joint = self.joint_log_prob(z)
        return np.asarray(np.exp(joint - _log_sum_exp(joint)[:, None]))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, means and scales."""
        return {"weights": self.weights, "means": self.means, "scales": self.scales}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> MixturePrior:
        """What `to_arrays` gave.

        Raises:
            KeyError, ValueError: If it is something else.
        """
        return cls(arrays["weights"], arrays["means"], arrays["scales"])


@dataclass(frozen=True)
class FitMixture:
    """Fits a `MixturePrior` by expectation maximisation on the posteriors.

    Attributes:
        num_components: How many; None: of 1, 2, 3, 4, 6, 8, 12, 16, ... what held-out subjects ask for. More must
            make them likelier by one standard error of the gain; the search ends after two in a row that do not.
        max_components: Bound of that search, at most 64.
        covariance: `full`, or `diagonal` (independent dimensions within a component).
        min_subjects: Components of fewer subjects (sum of responsibilities) are taken out, the smallest first, 2 or
            more: no component is one person.
        pseudo_subjects: How many subjects the penalty towards the pooled variances counts as, nu; 0 or more.
        min_variance: Added to every variance, 0 or more.
        held_out: Share of the subjects that judge the number of components.
        num_starts: Starts of k-means++, of which the likeliest goes on.
        max_iterations: Rounds of EM.
        tolerance: Rise of the mean objective in nats per subject below which it has converged.

    Raises:
        ValueError: If a number is out of its range.
    """

    num_components: int | None = None
    max_components: int = 16
    covariance: Covariance = "full"
    min_subjects: int = 20
    pseudo_subjects: float = 10.0
    min_variance: float = 1e-6
    held_out: float = 0.1
    num_starts: int = 5
    max_iterations: int = 200
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("max_components", "num_starts", "max_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)!r}")
        for name in ("pseudo_subjects", "min_variance", "tolerance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)!r}")
        if self.num_components is not None and self.num_components < 1:
            raise ValueError(f"num_components must be null, or 1 or more, got {self.num_components!r}")
        if self.covariance not in ("full", "diagonal"):
            raise ValueError(f"covariance must be full or diagonal, got {self.covariance!r}")
        if self.min_subjects < 2:
            raise ValueError(f"min_subjects must be 2 or more, got {self.min_subjects!r}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be above 0 and below 1, got {self.held_out!r}")

    def fit(self, mean: NDArray[np.floating[Any]], log_var: NDArray[np.floating[Any]], *, seed: int) -> MixturePrior:
        """The mixture; see `PriorFactory`.

        Raises:
            ValueError: If the arrays are not a mean and a log variance for every subject.
            ConfigError: If there are too few subjects.
        """
        posteriors = Posteriors.of(mean, log_var)
        if len(posteriors) < self.min_subjects:
            raise ConfigError(
                f"prior.min_subjects must be at most the {len(posteriors)} training subjects, got {self.min_subjects}"
            )
        with one_thread():
            number = self.num_components or self._choose(posteriors, seed)
            return self._fit(posteriors, number, seed)

    def _choose(self, posteriors: Posteriors, seed: int) -> int:
        train, held = posteriors.split(self.held_out, generator(seed, "prior", "mixture", "split"))
        z = held.sample(_HELD_DRAWS, generator(seed, "prior", "mixture", "held out"))
        most = min(self.max_components, len(train) // self.min_subjects)
        numbers = [number for number in _CANDIDATES if number <= most] or [1]
        best, best_scores, fails = 1, np.zeros(len(held)), 0
        for number in numbers:
            scores = self._fit(train, number, seed).log_prob(z).reshape(_HELD_DRAWS, len(held)).mean(axis=0)
            gain = scores - best_scores
            better = number == 1 or gain.mean() > gain.std() / math.sqrt(len(held))
            best, best_scores, fails = (number, scores, 0) if better else (best, best_scores, fails + 1)
            if fails == _PATIENCE:
                break
        return best

    def _fit(self, posteriors: Posteriors, number: int, seed: int) -> MixturePrior:
        rng = generator(seed, "prior", "mixture", "start", number)
        starts = [
            self._maximise(posteriors, _cluster(posteriors.mean, number, rng), _START_ROUNDS)
            for _ in range(self.num_starts)
        ]
        weights, means, covariances = max(starts, key=lambda start: start[0])[1]
        while True:
            joint = _expected_joint(posteriors, np.log(weights), means, _inverse_scales(covariances))
            _, (weights, means, covariances) = self._maximise(posteriors, _softmax(joint), self.max_iterations)
            smallest = int(np.argmin(weights))
            if len(weights) == 1 or weights[smallest] * len(posteriors) >= self.min_subjects:
                break
            kept = np.arange(len(weights)) != smallest
            weights, means, covariances = weights[kept] / weights[kept].sum(), means[kept], covariances[kept]
        order = np.argsort(-weights, kind="stable")
        return MixturePrior(weights[order], means[order], np.asarray(np.linalg.cholesky(covariances[order])))

    def _maximise(
        self, posteriors: Posteriors, shares: Floats, max_iterations: int
    ) -> tuple[float, tuple[Floats, Floats, Floats]]:
        """Rounds of EM from responsibilities (n, components): the objective per subject, and the parameters."""
        objective = -math.inf
        for _ in range(max_iterations):
            weights, means, covariances = self._moments(posteriors, shares)
            inverses = _inverse_scales(covariances)
            joint = _expected_joint(posteriors, np.log(weights), means, inverses)
            before, objective = objective, float(_log_sum_exp(joint).mean() - self._penalty(posteriors, inverses))
            if objective - before < self.tolerance:
                break
            shares = _softmax(joint)
        return objective, (weights, means, covariances)

    def _pooled(self, posteriors: Posteriors, number: int) -> Floats:
        variance = posteriors.mean.var(axis=0) + posteriors.var.mean(axis=0)
        return np.asarray(variance / number ** (2 / posteriors.dim))

    def _penalty(self, posteriors: Posteriors, inverses: Floats) -> float:
        """Penalty of the inverse-Wishart law per subject: nu / 2n sum_k [tr(Lambda Sigma_k^-1) + log det Sigma_k]."""
        traces = (inverses**2).sum(axis=1) @ self._pooled(posteriors, len(inverses))
        log_dets = -2 * np.log(np.diagonal(inverses, axis1=1, axis2=2)).sum(axis=1)
        return float(0.5 * self.pseudo_subjects * (traces + log_dets).sum() / len(posteriors))

    def _moments(self, posteriors: Posteriors, shares: Floats) -> tuple[Floats, Floats, Floats]:
        counts = shares.sum(axis=0) + 1e-9  # a component that lost everyone is kept finite until it is taken out
        means = shares.T @ posteriors.mean / counts[:, None]
        prior = self.pseudo_subjects * self._pooled(posteriors, len(counts))
        diagonals = prior + shares.T @ posteriors.var
        covariances = np.empty((*means.shape, posteriors.dim))
        for k, (mean, share, diagonal) in enumerate(zip(means, shares.T, diagonals, strict=True)):
            centred = posteriors.mean - mean
            scatter = (centred * share[:, None]).T @ centred
            if self.covariance == "diagonal":
                scatter = np.diag(np.diag(scatter))
            covariances[k] = (scatter + np.diag(diagonal)) / (counts[k] + self.pseudo_subjects)
        covariances += self.min_variance * np.eye(posteriors.dim)
        return counts / counts.sum(), means, covariances


def _expected_joint(posteriors: Posteriors, log_weights: Floats, means: Floats, inverses: Floats) -> Floats:
    """The terms log weight_k + E_q log N(z; mu_k, Sigma_k) in nats, (n, components)."""
    constant = log_weights - 0.5 * posteriors.dim * math.log(2 * math.pi)
    joint = np.empty((len(posteriors), len(means)))
    for k, (mean, inverse) in enumerate(zip(means, inverses, strict=True)):
        squares = (((posteriors.mean - mean) @ inverse.T) ** 2).sum(axis=1)
        squares += posteriors.var @ (inverse**2).sum(axis=0)
        joint[:, k] = constant[k] + np.log(np.diag(inverse)).sum() - 0.5 * squares
    return joint


def _inverse_scales(covariances: Floats) -> Floats:
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariances)))


def _log_sum_exp(joint: Floats) -> Floats:
    most = joint.max(axis=1)
    return np.asarray(most + np.log(np.exp(joint - most[:, None]).sum(axis=1)))


def _softmax(joint: Floats) -> Floats:
    return np.asarray(np.exp(joint - _log_sum_exp(joint)[:, None]))


def _cluster(points: Floats, number: int, rng: np.random.Generator) -> Floats:
    """Memberships, (n, components) of 0 and 1: k-means++ and ten rounds of Lloyd.

    Dimensions count by their own spread: one that the latent does not use has means near 0, which are noise.
    """
    centres = points[[rng.integers(len(points))]]
    nearest = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < number and nearest.sum() > 0:
        centres = np.vstack([centres, points[rng.choice(len(points), p=nearest / nearest.sum())]])
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(axis=1))
    for _ in range(10):
        # The square of the point is the same for every centre.
        member = np.argmin((centres**2).sum(axis=1) - 2 * points @ centres.T, axis=1)
        shares = (member[:, None] == np.arange(len(centres))).astype(np.float64)
        counts = shares.sum(axis=0)
        centres = np.where(counts[:, None] > 0, shares.T @ points / np.maximum(counts, 1)[:, None], centres)
    return np.asarray(shares)
