"""What z has in common with the attributes: taken out before a prior is fitted, put back when z is drawn.

The prior of training is independent of the attributes, the posteriors of real subjects are not quite: part of what sex,
age and facts do to a record is told by z. Drawn apart from them, z would take that part of their effect away. So z of a
new subject is what its attributes let expect, by linear regression of the posterior means, and a residual of which the
prior is the law. A counterfactual keeps the residual (noise transport).

Source: ridge regression, Hoerl & Kennard 1970; keeping the residual, Pearl 2009, section 7.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtwin.core.files import atomic_file
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.profile import ProfileLaw

Floats = NDArray[np.float64]
FILE = "shift.npz"
_RIDGE = 5.0  # subjects that the penalty towards no effect counts as
_NARROWEST = 0.05  # of the spread of a dimension


@dataclass(frozen=True)
class LatentShift:
    """A regression of z on F features of the attributes.

    Attributes:
        weights: (F, latent).
        centre: (F,) mean features of training subjects.
        mean: (latent,) mean posterior mean.
        spread: (latent,) standard deviation of the residual, the posteriors' own spread included.
    """

    weights: Floats
    centre: Floats
    mean: Floats
    spread: Floats

    def expected(self, law: ProfileLaw, attributes: Sequence[Attributes]) -> Floats:
        """The z that attributes let expect, (n, latent)."""
        return np.asarray(self.mean + (law.features(attributes) - self.centre) @ self.weights)

    def place(
        self, law: ProfileLaw, attributes: Sequence[Attributes], residual: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The z, (n, latent), of subjects whose standardised residuals (n, latent) were drawn."""
        return np.asarray(self.expected(law, attributes) + self.spread * residual, dtype=np.float32)

    def move(
        self,
        law: ProfileLaw,
        latent: NDArray[np.float32],
        before: Sequence[Attributes],
        after: Sequence[Attributes],
    ) -> NDArray[np.float32]:
        """The z, (n, latent), with its residual kept while the attributes change."""
        change = self.expected(law, after) - self.expected(law, before)
        return np.asarray(latent + change, dtype=np.float32)

    def residual(
        self, law: ProfileLaw, attributes: Sequence[Attributes], mean: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Standardised residuals, (n, latent), of posterior means."""
        return np.asarray((mean - self.expected(law, attributes)) / self.spread, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Writes shift.npz."""
        with atomic_file(folder / FILE) as file:
            np.savez(file, allow_pickle=False, **asdict(self))


def load_shift(folder: Path) -> LatentShift | None:
    """What `save` wrote; None where there is none."""
    if not (folder / FILE).is_file():
        return None
    with np.load(folder / FILE, allow_pickle=False) as arrays:
        return LatentShift(*(arrays[name] for name in ("weights", "centre", "mean", "spread")))


def fit_shift(
    law: ProfileLaw, attributes: Sequence[Attributes], mean: NDArray[np.float32], log_var: NDArray[np.float32]
) -> LatentShift:
    """The regression of training subjects.

    Args:
        law: Of attributes.
        attributes: (n,) of the subjects.
        mean: (n, latent) posterior means.
        log_var: (n, latent) posterior log variances.
    """
    features, z = law.features(attributes), mean.astype(np.float64)
    centre, middle = features.mean(axis=0), z.mean(axis=0)
    x = features - centre
    weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (z - middle))
    left = z - middle - x @ weights
    spread = np.sqrt(left.var(axis=0) + np.exp(log_var.astype(np.float64)).mean(axis=0))
    return LatentShift(weights, centre, middle, np.maximum(spread, _NARROWEST))
