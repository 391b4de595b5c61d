"""An adversarial prior: a network that turns noise into latents which a critic cannot tell from the posteriors'.

z = shift + scale (u + g(u)) with u from N(0, I), shift and scale those of the Gaussian that held-out subjects fit best
(N(0, I) is one of the candidates), and g a network that starts at 0. Training is that of Wasserstein GANs with a
gradient penalty; what is kept is the average of the generator's weights at the moment when its draws were nearest to
held-out subjects by energy distance, the untrained generator included. Such a prior has no density.

Source: Gulrajani et al. 2017 (arXiv 1704.00028, WGAN-GP); Makhzani et al. 2015 (arXiv 1511.05644, adversarial matching
of the aggregated posterior); Yazici et al. 2019 (arXiv 1806.04498, averaged weights); Szekely & Rizzo 2013, J Stat Plan
Inference 143:1249 (energy distance).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn import functional

from medtwin.core.seeds import generator
from medtwin.timelines.priors.posteriors import Affine, Posteriors, nearest_gaussian, one_thread
from medtwin.timelines.priors.prior import Arrays, Draws, Floats, refuse_component, standard_noise

_LEAK = 0.2
_MAX_HELD = 1000  # held-out draws that the energy distance is taken to


@dataclass(frozen=True, eq=False)
class GanPrior:
    """A generator of z. It has no `log_prob`: an adversarial law has no density to tell.

    Attributes:
        affine: What makes a Gaussian of the noise.
        w1, b1, w2, b2, w3, b3: Of the generator, (dim, width), (width,), (width, width), (width,), (width, dim) and
            (dim,).

    Raises:
        ValueError: If shapes do not fit.
    """

    affine: Affine
    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats
    w3: Floats
    b3: Floats

    def __post_init__(self) -> None:
        width = self.w2.shape[-1]
        wanted = ((self.dim, width), (width,), (width, width), (width,), (width, self.dim), (self.dim,))
        if tuple(values.shape for values in self._weights()) != wanted:
            raise ValueError("weights of the generator do not fit one another")

    def _weights(self) -> tuple[Floats, ...]:
        return self.w1, self.b1, self.w2, self.b2, self.w3, self.b3

    @property
    def dim(self) -> int:
        """Numbers of z."""
        return len(self.affine.shift)

    def draw(self, rng: np.random.Generator, component: int | None = None) -> Draws:
        """One subject's z, (dim,); see `Prior`."""
        z: Draws = self.draw_many([rng], component)[0]
        return z

    def draw_many(self, rngs: Sequence[np.random.Generator], component: int | None = None) -> Draws:
        """One z for each generator, (len(rngs), dim); see `Prior`."""
        refuse_component(self, component)
        u = standard_noise(rngs, self.dim)
        # (n, 1, width) times a matrix is one product per row: the same sums whatever n is.
        hidden = _leaky(np.matmul(u[:, None, :], self.w1) + self.b1)
        hidden = _leaky(np.matmul(hidden, self.w2) + self.b2)
        w = u + (np.matmul(hidden, self.w3) + self.b3)[:, 0, :]
        return self.affine.colour(w).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Whitening and weights."""
        names = ("w1", "b1", "w2", "b2", "w3", "b3")
        return {
            "shift": self.affine.shift, "scale": self.affine.scale, **dict(zip(names, self._weights(), strict=True))
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> GanPrior:
        """What `to_arrays` gave.

        Raises:
            KeyError, ValueError: If it is something else.
        """
        affine = Affine(arrays["shift"], arrays["scale"])
        return cls(affine, *(arrays[name] for name in ("w1", "b1", "w2", "b2", "w3", "b3")))


def _leaky(x: Floats) -> Floats:
    return np.asarray(np.maximum(x, _LEAK * x))


def energy_distance(x: Floats, y: Floats) -> float:
    """Energy distance of two samples (n, dim) and (m, dim): 2 E|X - Y| - E|X - X'| - E|Y - Y'|; 0 for one law.

    Of pairs of different rows, hence free of bias, and below 0 at times.

    Source: Szekely & Rizzo 2013, J Stat Plan Inference 143:1249.

    >>> energy_distance(np.array([[0.0], [0.0]]), np.array([[1.0], [3.0]]))
    2.0
    """
    n, m = len(x), len(y)
    within = cdist(x, x).sum() / (n * (n - 1)) + cdist(y, y).sum() / (m * (m - 1))
    return float(2 * cdist(x, y).mean() - within)


@dataclass(frozen=True)
class FitGan:
    """Fits a `GanPrior` against a critic on fresh draws of the posteriors.

    Attributes:
        width: Of the generator and of the critic.
        num_steps: Of the generator.
        critic_steps: Of the critic before each of them.
        batch_size: Subjects of a step.
        learning_rate: Of Adam; falls in a straight line to nothing.
        gradient_penalty: Weight of (|gradient of the critic| - 1)^2.
        average: Weight of the past in the running average of the generator's weights.
        check_every: Steps between looks at the held-out subjects.
        held_out: Share of the subjects that choose the moment.

    Raises:
        ValueError: If a number is out of its range.
    """

    width: int = 128
    num_steps: int = 1000
    critic_steps: int = 3
    batch_size: int = 128
    learning_rate: float = 0.001
    gradient_penalty: float = 1.0
    average: float = 0.98
    check_every: int = 100
    held_out: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("num_steps", 0), ("critic_steps", 1), ("batch_size", 2), ("check_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)!r}")
        for name in ("learning_rate", "held_out"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0 and below 1, got {getattr(self, name)!r}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be 0 or more and below 1, got {self.average!r}")
        if not self.gradient_penalty > 0:
            raise ValueError(f"gradient_penalty must be above 0, got {self.gradient_penalty!r}")

    def fit(self, mean: NDArray[np.floating[Any]], log_var: NDArray[np.floating[Any]], *, seed: int) -> GanPrior:
        """The generator; see `PriorFactory`.

        Raises:
            ValueError: If the arrays are not a mean and a log variance for every subject.
            ConfigError: If there are too few subjects.
        """
        posteriors = Posteriors.of(mean, log_var)
        with one_thread():
            train, held = posteriors.split(self.held_out, generator(seed, "prior", "gan", "split"))
            affine = nearest_gaussian(train, held)
            per_subject = max(2, min(_MAX_HELD // len(held), 4))
            z = held.sample(per_subject, generator(seed, "prior", "gan", "held out"))
            weights = self._train(train, affine, affine.whiten(z)[:_MAX_HELD], seed)
        return GanPrior(affine, *(values.double().numpy() for values in weights))

    def _train(self, train: Posteriors, affine: Affine, held: Floats, seed: int) -> list[Tensor]:
        dim, rng = train.dim, generator(seed, "prior", "gan", "train")
        maker = _initial(dim, self.width, dim, rng)
        maker[4].zero_()  # the generator starts as the Gaussian
        critic = _initial(dim, self.width, 1, rng)
        averaged = [values.clone() for values in maker]
        optimizers = [_adam(weights, self.learning_rate) for weights in (maker, critic)]
        check_noise = rng.standard_normal((len(held), dim)).astype(np.float32)
        best, best_distance = [values.clone() for values in averaged], _distance(averaged, check_noise, held)
        for step in range(self.num_steps):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.num_steps)
            for _ in range(self.critic_steps):
                w = affine.whiten(train.take(rng.integers(len(train), size=self.batch_size)).sample(1, rng))
                real = torch.from_numpy(w).float()
                noise = torch.from_numpy(rng.standard_normal(real.shape)).float()
                share = torch.from_numpy(rng.random((len(real), 1))).float()
                _step(optimizers[1], self._critic_loss(critic, real, _make(maker, noise).detach(), share))
            noise = torch.from_numpy(rng.standard_normal((self.batch_size, dim))).float()
            _step(optimizers[0], -_network(critic, _make(maker, noise)).mean())
            for mean, values in zip(averaged, maker, strict=True):
                mean.lerp_(values.detach(), 1 - self.average)
            if (step + 1) % self.check_every == 0:
                distance = _distance(averaged, check_noise, held)
                if distance < best_distance:
                    best, best_distance = [values.clone() for values in averaged], distance
        return best

    def _critic_loss(self, critic: list[Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        between = torch.lerp(fake, real, share).requires_grad_()
        (slope,) = torch.autograd.grad(_network(critic, between).sum(), between, create_graph=True)
        penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
        distance = _network(critic, real).mean() - _network(critic, fake).mean()
        loss: Tensor = self.gradient_penalty * penalty - distance
        return loss


def _initial(size_in: int, width: int, size_out: int, rng: np.random.Generator) -> list[Tensor]:
    """Weights and biases of three layers."""
    weights: list[Tensor] = []
    for rows, columns in ((size_in, width), (width, width), (width, size_out)):
        weights.append(torch.from_numpy(rng.standard_normal((rows, columns)) * math.sqrt(2 / rows)).float())
        weights.append(torch.zeros(columns))
    return weights


def _adam(weights: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam([values.requires_grad_() for values in weights], lr=learning_rate, betas=(0.0, 0.9))


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _network(weights: list[Tensor], x: Tensor) -> Tensor:
    w1, b1, w2, b2, w3, b3 = weights
    hidden = functional.leaky_relu(x @ w1 + b1, _LEAK)
    out: Tensor = functional.leaky_relu(hidden @ w2 + b2, _LEAK) @ w3 + b3
    return out


def _make(weights: list[Tensor], noise: Tensor) -> Tensor:
    made: Tensor = noise + _network(weights, noise)
    return made


def _distance(weights: list[Tensor], noise: NDArray[np.float32], held: Floats) -> float:
    with torch.inference_mode():
        made = _make(weights, torch.from_numpy(noise)).double().numpy()
    return energy_distance(made, held)
