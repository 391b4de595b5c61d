"""Probes: what of age, sex and facts can be read off z by a linear model, on subjects that it was not fitted to.

z is meant to say who somebody is beyond the attributes, which the decoder is told besides. What a probe reads off z is
what a change of the attribute with z held leaves behind. Every probe stands beside the same probe with the attributes
shuffled among the subjects: what that one scores is chance.

Source: Alain & Bengio 2017 (arXiv 1610.01644); ridge and logistic regression as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from medtwin.core.seeds import generator
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.batches import Batch
from medtwin.timelines.reading.spec import TimelineSpec
from medtwin.training.threads import torch_threads

Floats = NDArray[np.float64]
MIN_CASES = 10
"""Subjects of either kind, in both halves, below which an attribute is not probed."""
_DRAWS = 200  # of the bootstrap
_LEVEL = 0.95


@dataclass(frozen=True)
class Probe:
    """What a probe reads off z.

    Attributes:
        attribute: `age`, `sex` or the code of a fact.
        score: `r2` of ridge regression (0: nothing, 1: all), or `auroc` of logistic regression (0.5: nothing).
        value: On held-out subjects.
        low, high: Percentile interval over resampled held-out subjects, at `level`.
        shuffled: The score where the attribute is shuffled among the subjects.
        num_subjects: Held-out subjects.
    """

    attribute: str
    score: Literal["r2", "auroc"]
    value: float
    low: float
    high: float
    shuffled: float
    num_subjects: int
    level: float = _LEVEL


@dataclass(frozen=True)
class Probed:
    """Posterior means and attributes of subjects.

    Attributes:
        latent: (n, latent).
        age: (n,) years at the start, nan if unknown. sex: (n,) index. facts: (n, K).
    """

    latent: Floats
    age: Floats
    sex: NDArray[np.int64]
    facts: NDArray[np.int64]


def encode_all(net: TemporalVAE, groups: Iterable[Batch]) -> Probed:
    """Posterior means and attributes of the subjects of some groups (`GroupedTimelines` is such)."""
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in ("latent", "age_start_years", "sex", "facts")}
    with torch.inference_mode(), torch_threads(1):
        for batch in groups:
            columns["latent"].append(net.encode(batch).mean.numpy())
            for name in ("age_start_years", "sex", "facts"):
                columns[name].append(batch[name].numpy())
    latent, age, sex, facts = (np.concatenate(parts) for parts in columns.values())
    return Probed(latent.astype(np.float64), age.astype(np.float64), sex.astype(np.int64), facts.astype(np.int64))


def probe(train: Probed, held_out: Probed, spec: TimelineSpec, *, seed: int = 0) -> list[Probe]:
    """The probes of age, of sex, and of every fact that enough subjects have and have not; none without a latent.

    Args:
        train: The probes are fitted to these.
        held_out: Scored on these, who are others.
        spec: Of the run.
        seed: Decides the shuffling and the bootstrap.
    """
    if not train.latent.shape[1]:
        return []
    found = []
    aged, aged_held = np.isfinite(train.age), np.isfinite(held_out.age)
    if min(aged.sum(), aged_held.sum()) >= 2 * MIN_CASES:
        found.append(_linear(train, held_out, (train.age, held_out.age), (aged, aged_held), seed))
    known, known_held = train.sex > 0, held_out.sex > 0
    if known.any() and known_held.any():
        first = np.bincount(train.sex[known]).argmax()
        labels = (train.sex == first).astype(int), (held_out.sex == first).astype(int)
        found += _logistic("sex", train, held_out, labels, (known, known_held), seed)
    everyone = np.ones(len(train.sex), dtype=bool), np.ones(len(held_out.sex), dtype=bool)
    for index, code in enumerate(spec.profile.facts):
        found += _logistic(code, train, held_out, (train.facts[:, index], held_out.facts[:, index]), everyone, seed)
    return found


def probes_record(probes: Iterable[Probe]) -> dict[str, Any]:
    """The probes as probes.json holds them."""
    return {"probes": [asdict(each) for each in probes]}


def _linear(
    train: Probed,
    held_out: Probed,
    ages: tuple[Floats, Floats],
    kept: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    seed: int,
) -> Probe:
    x, new = train.latent[kept[0]], held_out.latent[kept[1]]
    y, true = ages[0][kept[0]], ages[1][kept[1]]
    shuffled = generator(seed, "probe", "age").permutation(y)
    said, chance = (Ridge(alpha=1.0).fit(x, labels).predict(new) for labels in (y, shuffled))

    def r2(rows: NDArray[np.int64], guess: Floats) -> float:
        return 1 - float(((true - guess)[rows] ** 2).mean() / max(true[rows].var(), 1e-12))

    everyone = np.arange(len(true))
    draws = [r2(rows, said) for rows in _resampled("age", everyone, seed)]
    low, high = np.quantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()
    return Probe("age", "r2", r2(everyone, said), low, high, r2(everyone, chance), len(true))


def _logistic(
    name: str,
    train: Probed,
    held_out: Probed,
    labels: tuple[NDArray[np.int64], NDArray[np.int64]],
    kept: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    seed: int,
) -> list[Probe]:
    """One probe, or none where too few have or have not what is probed."""
    x, new = train.latent[kept[0]], held_out.latent[kept[1]]
    y, true = labels[0][kept[0]], labels[1][kept[1]]
    if min(min(np.bincount(part, minlength=2)) for part in (y, true)) < MIN_CASES:
        return []
    shuffled = generator(seed, "probe", name).permutation(y)
    said, chance = (LogisticRegression(max_iter=1000).fit(x, each).decision_function(new) for each in (y, shuffled))
    everyone = np.arange(len(true))
    rows_of = [rows for rows in _resampled(name, everyone, seed) if 0 < true[rows].sum() < len(rows)]
    draws = [float(roc_auc_score(true[rows], said[rows])) for rows in rows_of]
    low, high = np.quantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()
    value, by_chance = (float(roc_auc_score(true, guess)) for guess in (said, chance))
    return [Probe(name, "auroc", value, low, high, by_chance, len(true))]


def _resampled(name: str, rows: NDArray[np.int64], seed: int) -> Iterable[NDArray[np.int64]]:
    rng = generator(seed, "probe", "bootstrap", name)
    return (rng.choice(rows, len(rows)) for _ in range(_DRAWS))


__all__ = ["Probe", "Probed", "encode_all", "probe", "probes_record"]
