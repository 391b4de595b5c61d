"""What a prior over the latent of a patient can do, and the making of one from the posteriors of the training subjects.

The VAE is trained with the divergence from N(0, I). What its encoder says of all training subjects together, the
aggregated posterior q(z) = mean of q(z | x_i), is another law wherever that divergence is not nil, and twins drawn from
N(0, I) then stand where no patient stood. A prior that is fitted to q(z) closes this hole.

Source: Makhzani et al. 2015 (arXiv 1511.05644); Tomczak & Welling 2018, AISTATS (the aggregated posterior is the prior
that maximises the evidence bound).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError

Arrays = Mapping[str, NDArray[Any]]
Draws = NDArray[np.float32]
Floats = NDArray[np.float64]


@runtime_checkable
class Prior(Protocol):
    """A law of z that twins are drawn from."""

    @property
    def dim(self) -> int:
        """Numbers of z."""

    def draw(self, rng: np.random.Generator, component: int | None = None) -> Draws:
        """One subject's z, (dim,), from its own generator and nothing else.

        Args:
            rng: Of the subject.
            component: Which phenotype it is of, from 0; None: any. Only a `PhenotypePrior` has them.

        Raises:
            ConfigError: If there is no such component.
        """

    def draw_many(self, rngs: Sequence[np.random.Generator], component: int | None = None) -> Draws:
        """The same as `draw` for each generator, to the last bit, (len(rngs), dim); faster for many.

        Raises:
            ConfigError: If there is no such component.
        """

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that it is made of; the class method `from_arrays` makes it again."""


@runtime_checkable
class DensityPrior(Prior, Protocol):
    """A prior whose density is known. `isinstance` tells, as it does for `PhenotypePrior`."""

    def log_prob(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Log density in nats, (n,), at z (n, dim)."""


@runtime_checkable
class PhenotypePrior(DensityPrior, Protocol):
    """A prior of components that can be asked for."""

    @property
    def weights(self) -> Floats:
        """Share of the subjects in each component, (components,), the largest first; they sum to 1."""

    def responsibilities(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Probability of each component given z (n, dim), (n, components)."""


class PriorFactory(Protocol):
    """Fits a prior: what an option of the config group `prior` names.

    What it fits is a function of the training subjects. Under differential privacy its fit counts too, unless it is
    `FitNormal`, which looks at nobody.
    """

    def fit(self, mean: NDArray[np.floating[Any]], log_var: NDArray[np.floating[Any]], *, seed: int) -> Prior:
        """A prior from what the encoder says of the training subjects, on one thread of the CPU.

        Args:
            mean: Posterior means, (n, dim).
            log_var: Logarithms of the posterior variances, (n, dim); -inf: the latent is known exactly.
            seed: Of the run, 0 or more; decides every random choice, and no global generator is used.

        Raises:
            ValueError: If the arrays are not a mean and a log variance for every subject.
            ConfigError: If there are too few subjects.
        """


def refuse_component(prior: Prior, component: int | None) -> None:
    """Says that a prior has no components to choose from.

    Raises:
        ConfigError: If one is asked for.
    """
    if component is not None:
        raise ConfigError(
            f"component must be null, got {component!r}: {type(prior).__name__} has no components, only prior=gmm has"
        )


def standard_noise(rngs: Sequence[np.random.Generator], dim: int) -> Floats:
    """Standard normal numbers, (len(rngs), dim), each row from a generator of its own."""
    return np.array([rng.standard_normal(dim) for rng in rngs], dtype=np.float64).reshape(len(rngs), dim)


def as_rows(z: NDArray[np.floating[Any]], dim: int) -> Floats:
    """Latents in double precision, (n, dim).

    Raises:
        ValueError: If z has another shape.
    """
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"z must have shape (n, {dim}), got {z.shape}")
    return np.asarray(z, dtype=np.float64)
