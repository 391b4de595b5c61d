"""A normalising flow: an invertible map from the latent to standard normal noise, with an exact density.

The latent is first whitened by the Gaussian that held-out subjects fit best (N(0, I) is one of the candidates), then
passes coupling layers. Each permutes the dimensions, leaves the first half as it is, and bends every one of the others
by a monotone rational-quadratic spline on [-BOUND, BOUND] whose knots a small network reads from the first half. At the
start every layer is the identity, so that the flow is never worse than that Gaussian on the held-out subjects.

Training and density use torch; draws are made by the inverse in numpy, one row at a time.

Source: Durkan et al. 2019 (arXiv 1906.04032, splines); Dinh et al. 2017 (arXiv 1605.08803, coupling); Rezende & Mohamed
2015 (flows).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.timelines.priors.posteriors import Affine, Posteriors, nearest_gaussian, one_thread
from medtwin.timelines.priors.prior import Arrays, Draws, Floats, as_rows, refuse_component, standard_noise
from medtwin.training.batches import torch_seed

BOUND = 5.0
"""Whitened coordinates beyond it are left as they are."""
_MIN_BIN = 1e-3  # smallest width and height of a bin as a share of the interval
_MIN_SLOPE = 1e-3
_SLOPE_SHIFT = math.log(math.expm1(1 - _MIN_SLOPE))  # softplus of it, plus the smallest slope, is 1
_HELD_DRAWS = 4
WEIGHTS = ("w1", "b1", "w2", "b2", "w3", "b3")


@dataclass(frozen=True, eq=False)
class FlowPrior:
    """A normalising flow over z.

    Attributes:
        affine: The whitening.
        order: Of the dimensions in each layer, (layers, dim), permutations.
        weights: Of the networks, all layers stacked: w1 (layers, kept, width), b1 (layers, width), w2 (layers, width,
            width), b2 (layers, width), w3 (layers, width, bent * (3 bins - 1)), b3; kept is dim // 2, bent the rest.

    Raises:
        ValueError: If shapes do not fit.
    """

    affine: Affine
    order: NDArray[np.int64]
    weights: dict[str, Floats]

    def __post_init__(self) -> None:
        layers, dim, kept = len(self.order), self.dim, self.dim // 2
        if self.order.shape != (layers, dim) or not (np.sort(self.order, axis=1) == np.arange(dim)).all():
            raise ValueError(f"order must hold permutations of {dim} dimensions")
        if sorted(self.weights) != sorted(WEIGHTS):
            raise ValueError(f"weights must be {', '.join(WEIGHTS)}, got {', '.join(sorted(self.weights))}")
        width, out = self.weights["w2"].shape[-1], self.weights["w3"].shape[-1]
        shapes = ((kept, width), (width,), (width, width), (width,), (width, out), (out,))
        if any(self.weights[name].shape != (layers, *shape) for name, shape in zip(WEIGHTS, shapes, strict=True)):
            raise ValueError("weights of the networks do not fit one another")
        if out % (dim - kept) or (out // (dim - kept) + 1) % 3:
            raise ValueError(f"w3 must give 3 bins - 1 numbers for {dim - kept} dimensions, got {out}")

    @property
    def dim(self) -> int:
        """Numbers of z."""
        return len(self.affine.shift)

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(values) for name, values in self.weights.items()}

    def draw(self, rng: np.random.Generator, component: int | None = None) -> Draws:
        """One subject's z, (dim,); see `Prior`."""
        z: Draws = self.draw_many([rng], component)[0]
        return z

    def draw_many(self, rngs: Sequence[np.random.Generator], component: int | None = None) -> Draws:
        """One z for each generator, (len(rngs), dim); see `Prior`."""
        refuse_component(self, component)
        return self.from_noise(standard_noise(rngs, self.dim)).astype(np.float32)

    def from_noise(self, u: Floats) -> Floats:
        """z, (n, dim), of standard normal noise u (n, dim): the inverse of the map whose density `log_prob` is."""
        w, kept = u, self.dim // 2
        for layer in reversed(range(len(self.order))):
            first = w[:, :kept]
            rest = _unbend(w[:, kept:], self._knots(layer, first))
            w = np.empty_like(w)
            w[:, self.order[layer, :kept]] = first
            w[:, self.order[layer, kept:]] = rest
        return self.affine.colour(w)

    def _knots(self, layer: int, first: Floats) -> Floats:
        """What the network of a layer says of each bent dimension, (n, bent, 3 bins - 1); every row alone."""
        net = {name: values[layer] for name, values in self.weights.items()}
        # (n, 1, width) times a matrix is one product per row: the same sums whatever n is.
        hidden = np.maximum(np.matmul(first[:, None, :], net["w1"]) + net["b1"], 0)
        hidden = np.maximum(np.matmul(hidden, net["w2"]) + net["b2"], 0)
        knots = np.matmul(hidden, net["w3"]) + net["b3"]
        bent = self.dim - self.dim // 2
        return np.asarray(knots.reshape(len(first), bent, knots.shape[-1] // bent))

    def log_prob(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Log density in nats, (n,), at z (n, dim)."""
        w = torch.from_numpy(self.affine.whiten(as_rows(z, self.dim)))
        with torch.inference_mode():
            return np.asarray(flow_log_prob(w, self.order, self._tensors).numpy() - self.affine.log_det)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Whitening, order and weights."""
        return {"shift": self.affine.shift, "scale": self.affine.scale, "order": self.order, **self.weights}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FlowPrior:
        """What `to_arrays` gave.

        Raises:
            KeyError, ValueError: If it is something else.
        """
        affine = Affine(arrays["shift"], arrays["scale"])
        return cls(affine, arrays["order"], {name: arrays[name] for name in WEIGHTS})


def flow_log_prob(w: Tensor, order: NDArray[np.int64], weights: dict[str, Tensor]) -> Tensor:
    """Log density in nats, (n,), of whitened latents w (n, dim) under the coupling layers; see `FlowPrior`."""
    kept = w.shape[1] // 2
    log_det = w.new_zeros(len(w))
    for layer, permutation in enumerate(torch.from_numpy(order)):
        net = {name: values[layer] for name, values in weights.items()}
        first, rest = w[:, permutation[:kept]], w[:, permutation[kept:]]
        hidden = functional.relu(first @ net["w1"] + net["b1"])
        hidden = functional.relu(hidden @ net["w2"] + net["b2"])
        bent, log_slope = bend(rest, (hidden @ net["w3"] + net["b3"]).reshape(*rest.shape, -1))
        w = torch.cat([first, bent], dim=1)
        log_det = log_det + log_slope.sum(dim=1)
    return log_det - 0.5 * (w**2).sum(dim=1) - 0.5 * w.shape[1] * math.log(2 * math.pi)


def bend(x: Tensor, knots: Tensor) -> tuple[Tensor, Tensor]:
    """The spline at x, and the logarithm of its slope, both of the shape of x.

    Args:
        x: (n, bent).
        knots: (n, bent, 3 bins - 1): widths and heights of the bins before softmax, slopes before softplus.

    Source: Durkan et al. 2019, equations 4 and 5.
    """
    bins = (knots.shape[-1] + 1) // 3
    edges = [
        functional.pad(
            torch.cumsum(_MIN_BIN + (1 - _MIN_BIN * bins) * functional.softmax(part, dim=-1), dim=-1), (1, 0)
        )
        * (2 * BOUND)
        - BOUND
        for part in (knots[..., :bins], knots[..., bins : 2 * bins])
    ]
    slopes = functional.pad(_MIN_SLOPE + functional.softplus(knots[..., 2 * bins :] + _SLOPE_SHIFT), (1, 1), value=1.0)
    inside = x.clamp(-BOUND, BOUND)
    place = torch.searchsorted(edges[0][..., 1:-1].contiguous(), inside[..., None], right=True)
    x_k, x_next, y_k, y_next, d_k, d_next = (
        part.gather(-1, place + step).squeeze(-1) for part in (*edges, slopes) for step in (0, 1)
    )
    s_k = (y_next - y_k) / (x_next - x_k)
    xi = (inside - x_k) / (x_next - x_k)
    denominator = s_k + (d_next + d_k - 2 * s_k) * xi * (1 - xi)
    y = y_k + (y_next - y_k) * (s_k * xi**2 + d_k * xi * (1 - xi)) / denominator
    numerator = d_next * xi**2 + 2 * s_k * xi * (1 - xi) + d_k * (1 - xi) ** 2
    log_slope = 2 * torch.log(s_k) + torch.log(numerator) - 2 * torch.log(denominator)
    outside = x.abs() >= BOUND
    return torch.where(outside, x, y), torch.where(outside, torch.zeros_like(x), log_slope)


def _unbend(y: Floats, knots: Floats) -> Floats:
    """The inverse of `bend`, (n, bent). Source: Durkan et al. 2019, equations 6 to 8."""
    bins = (knots.shape[-1] + 1) // 3
    parts = knots[..., : 2 * bins].reshape(*y.shape, 2, bins)
    shares = np.exp(parts - parts.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    table = np.zeros((*y.shape, 3, bins + 1))  # edges in x, edges in y, slopes
    np.cumsum(_MIN_BIN + (1 - _MIN_BIN * bins) * shares, axis=-1, out=table[..., :2, 1:])
    table[..., :2, :] = table[..., :2, :] * (2 * BOUND) - BOUND
    table[..., 2, :] = 1
    table[..., 2, 1:-1] = _MIN_SLOPE + np.logaddexp(0, knots[..., 2 * bins :] + _SLOPE_SHIFT)
    inside = np.clip(y, -BOUND, BOUND)
    place = (inside[..., None] >= table[..., 1, 1:-1]).sum(axis=-1)
    place += 3 * (bins + 1) * np.arange(y.size).reshape(y.shape)
    flat = table.ravel()
    x_k, x_next, y_k, y_next, d_k, d_next = (
        flat[place + row * (bins + 1) + step] for row in range(3) for step in (0, 1)
    )
    height, rise = y_next - y_k, inside - y_k
    s_k = height / (x_next - x_k)
    bent = d_next + d_k - 2 * s_k
    a = height * (s_k - d_k) + rise * bent
    b = height * d_k - rise * bent
    c = -s_k * rise
    xi = 2 * c / (-b - np.sqrt(np.maximum(b**2 - 4 * a * c, 0)))
    return np.where(np.abs(y) >= BOUND, y, x_k + xi * (x_next - x_k))


@dataclass(frozen=True)
class FitFlow:
    """Fits a `FlowPrior` by maximum likelihood on fresh draws of the posteriors, with Adam and averaged weights.

    Attributes:
        num_layers: Coupling layers, 2 or more: one bends half of the dimensions.
        width: Of the networks.
        num_bins: Of the splines.
        learning_rate: Of Adam; falls as a cosine to nothing over `max_epochs`.
        weight_decay: Of AdamW.
        average: Weight of the past in the running average of the weights, which is what is kept.
        batch_size: Subjects of a step.
        max_epochs: Passes over the subjects, a new draw of each every time.
        patience: Passes without progress on the held-out subjects after which it ends.
        held_out: Share of the subjects that end the training.

    Raises:
        ValueError: If a number is out of its range.
    """

    num_layers: int = 6
    width: int = 64
    num_bins: int = 8
    learning_rate: float = 0.002
    weight_decay: float = 0.01
    average: float = 0.98
    batch_size: int = 256
    max_epochs: int = 60
    patience: int = 10
    held_out: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("num_layers", 2), ("width", 1), ("num_bins", 2), ("batch_size", 1), ("patience", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)!r}")
        if self.max_epochs < 0:
            raise ValueError(f"max_epochs must be 0 or more, got {self.max_epochs!r}")
        for name in ("learning_rate", "held_out"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0 and below 1, got {getattr(self, name)!r}")
        for name in ("average", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be 0 or more and below 1, got {getattr(self, name)!r}")

    def fit(self, mean: NDArray[np.floating[Any]], log_var: NDArray[np.floating[Any]], *, seed: int) -> FlowPrior:
        """The flow; see `PriorFactory`.

        Raises:
            ValueError: If the arrays are not a mean and a log variance for every subject.
            ConfigError: If there are too few subjects, or z has one dimension only.
        """
        posteriors = Posteriors.of(mean, log_var)
        if posteriors.dim < 2:
            raise ConfigError("prior=flow needs a latent of 2 or more dimensions")
        with one_thread():
            train, held = posteriors.split(self.held_out, generator(seed, "prior", "flow", "split"))
            affine = nearest_gaussian(train, held)
            order = self._order(posteriors.dim, generator(seed, "prior", "flow", "order"))
            z = held.sample(_HELD_DRAWS, generator(seed, "prior", "flow", "held out"))
            weights = self._train(train, affine, order, torch.from_numpy(affine.whiten(z)).float(), seed)
        return FlowPrior(affine, order, {name: values.double().numpy() for name, values in weights.items()})

    def _order(self, dim: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Random halves in every other layer; the layer between them exchanges the halves."""
        return np.array([rng.permutation(dim) if layer % 2 == 0 else np.arange(dim)[::-1]
                         for layer in range(self.num_layers)])  # fmt: skip

    def _initial(self, dim: int, rng: np.random.Generator) -> dict[str, Tensor]:
        kept, out = dim // 2, (dim - dim // 2) * (3 * self.num_bins - 1)
        shapes = ((kept, self.width), (self.width,), (self.width, self.width), (self.width,), (self.width, out), (out,))
        weights = {name: np.zeros((self.num_layers, *shape)) for name, shape in zip(WEIGHTS, shapes, strict=True)}
        for name in ("w1", "w2"):  # w3 stays zero: the identity
            weights[name] = rng.standard_normal(weights[name].shape) * math.sqrt(2 / weights[name].shape[1])
        return {name: torch.from_numpy(values).float() for name, values in weights.items()}

    def _train(
        self, train: Posteriors, affine: Affine, order: NDArray[np.int64], held: Tensor, seed: int
    ) -> dict[str, Tensor]:
        weights = self._initial(train.dim, generator(seed, "prior", "flow", "initial weights"))
        averaged = {name: values.clone() for name, values in weights.items()}
        parameters = [values.requires_grad_() for values in weights.values()]
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(self.max_epochs, 1))
        rng = generator(seed, "prior", "flow", "draws")
        shuffle = torch.Generator().manual_seed(torch_seed(seed, "prior", "flow", "shuffle"))
        best, best_score, best_epoch = dict(averaged), _score(held, order, averaged), -1
        for epoch in range(self.max_epochs):
            w = torch.from_numpy(affine.whiten(train.sample(1, rng))).float()
            for rows in torch.split(torch.randperm(len(w), generator=shuffle), self.batch_size):
                loss = -flow_log_prob(w[rows], order, weights).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, 5.0)
                optimizer.step()
                for name, values in weights.items():
                    averaged[name] = torch.lerp(averaged[name], values.detach(), 1 - self.average)
            schedule.step()
            if (score := _score(held, order, averaged)) > best_score:
                best, best_score, best_epoch = dict(averaged), score, epoch
            elif epoch - best_epoch >= self.patience:
                break
        return best


def _score(held: Tensor, order: NDArray[np.int64], weights: dict[str, Tensor]) -> float:
    with torch.inference_mode():
        return float(flow_log_prob(held, order, weights).mean())
