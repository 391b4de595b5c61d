"""A fitted prior as one .npz file, without pickles."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from medtwin.core.errors import ConfigError
from medtwin.timelines.priors.flow import FlowPrior
from medtwin.timelines.priors.gan import GanPrior
from medtwin.timelines.priors.mixture import MixturePrior
from medtwin.timelines.priors.normal import NormalPrior
from medtwin.timelines.priors.prior import Prior

_KIND = "kind"
_KINDS: dict[str, type[NormalPrior | MixturePrior | FlowPrior | GanPrior]] = {
    "normal": NormalPrior,
    "gmm": MixturePrior,
    "flow": FlowPrior,
    "gan": GanPrior,
}


def save_prior(prior: Prior, path: Path) -> None:
    """Writes a prior as an .npz file; the same prior gives the same bytes.

    Raises:
        TypeError: If it is a prior of somebody else's making.
    """
    kinds = [name for name, kind in _KINDS.items() if type(prior) is kind]
    if not kinds:
        raise TypeError(f"prior must be one of {', '.join(_KINDS)}, got {type(prior).__name__}")
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_KIND: np.frombuffer(kinds[0].encode(), np.uint8), **prior.to_arrays()})


def load_prior(path: Path) -> Prior:
    """The prior that `save_prior` wrote.

    Raises:
        ConfigError: If there is no such file, or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise ValueError("a number is not finite")
        return _KINDS[arrays.pop(_KIND).tobytes().decode()].from_arrays(arrays)
    except (OSError, EOFError, KeyError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is no prior that medtwin wrote: {error}") from error
