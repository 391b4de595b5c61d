"""The two classifiers of the utility protocol, tuned by cross-validation over subjects on the training data at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtwin.core.seeds import generator

ModelName = Literal["boosting", "logistic"]
MODELS: tuple[ModelName, ...] = ("boosting", "logistic")
GRIDS: dict[ModelName, tuple[Mapping[str, Any], ...]] = {
    "boosting": tuple({"max_leaf_nodes": 4, "max_iter": number} for number in (15, 40, 100)),
    "logistic": ({"C": 0.0003}, {"C": 0.001}, {"C": 0.01}, {"C": 0.1}),
}
"""Hyper-parameters that are tried, the simplest first; of equal ones the first is taken. Of boosting only the number of
trees: the first ones of a longer fit are those of a shorter one."""
NUM_FOLDS = 3
MAX_TUNING_ROWS = 20_000
"""Hyper-parameters are chosen on so many rows, of whole subjects; the model itself is fitted to all."""
CLIP = (0.01, 0.99)
"""Logistic regression sees no value beyond these quantiles of its training data: records hold a pH of 735."""

Matrix = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Predict = Callable[[Matrix], NDArray[np.float64]]


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier.

    Attributes:
        model: Which. setting: Its hyper-parameters.
        predict: Probabilities (rows,) of features (rows, columns).
        loss: Cross-validated log loss of the setting, nats per row; nan where nothing was tuned.
    """

    model: ModelName
    setting: Mapping[str, Any]
    predict: Predict
    loss: float = float("nan")


def tune(model: ModelName, features: Matrix, label: Bools, subject: Ints, *, seed: int) -> Fitted:
    """The classifier with the hyper-parameters of least cross-validated log loss, fitted to everything.

    Args:
        model: Which.
        features: (rows, columns), NaN where missing.
        label: (rows,).
        subject: (rows,); a subject's rows stand in one fold.
        seed: Decides the folds.
    """
    rows, fold = folds_of(label, subject, seed=seed)
    losses = np.zeros(len(GRIDS[model]))
    for one in range(NUM_FOLDS):
        inside, outside = rows[fold != one], rows[fold == one]
        if label[inside].all() or not label[inside].any():
            continue  # nothing to learn from, whatever the setting
        prepared = _prepare(model, features[inside])
        mine, theirs = prepared(features[inside]), prepared(features[outside])
        for number, p in enumerate(_candidates(model, mine, label[inside], theirs, seed)):
            p = np.clip(p, 1e-15, 1 - 1e-15)
            losses[number] -= np.log(np.where(label[outside], p, 1 - p)).sum()
    best = int(losses.argmin())
    fitted = fit(model, GRIDS[model][best], features, label, seed=seed)
    return Fitted(model, fitted.setting, fitted.predict, float(losses[best] / len(rows)))


def fit(model: ModelName, setting: Mapping[str, Any], features: Matrix, label: Bools, *, seed: int) -> Fitted:
    """The classifier with these hyper-parameters, fitted to (rows, columns) and (rows,) of both classes."""
    prepared = _prepare(model, features)
    estimator = _estimator(model, setting, seed).fit(prepared(features), label)

    def predict(more: Matrix) -> NDArray[np.float64]:
        return np.asarray(estimator.predict_proba(prepared(more))[:, 1], np.float64)

    return Fitted(model, setting, predict)


def folds_of(label: Bools, subject: Ints, *, seed: int) -> tuple[Ints, Ints]:
    """Rows for tuning and the fold of each, (rows,) both: whole subjects, those with a positive dealt evenly."""
    rng = generator(seed, "utility", "folds")
    _, place = np.unique(subject, return_inverse=True)
    count = np.bincount(place)
    has_positive = np.bincount(place, weights=label) > 0
    order = rng.permutation(len(count))
    order = order[np.argsort(~has_positive[order], kind="stable")]
    fold = np.empty(len(count), np.int64)
    fold[order] = np.arange(len(count)) % NUM_FOLDS
    if len(label) > MAX_TUNING_ROWS:
        queue = rng.permutation(len(count))
        fold[queue[np.cumsum(count[queue]) > MAX_TUNING_ROWS]] = -1
    rows = np.flatnonzero(fold[place] >= 0)
    return rows, fold[place][rows]


def _candidates(model: ModelName, training: Any, label: Bools, other: Any, seed: int) -> list[NDArray[np.float64]]:
    """Probabilities of other rows by every setting of the grid, each (rows,)."""
    if model == "boosting":
        longest = _estimator(model, GRIDS[model][-1], seed).fit(training, label)
        wanted = {setting["max_iter"] for setting in GRIDS[model]}
        return [p[:, 1] for number, p in enumerate(longest.staged_predict_proba(other), start=1) if number in wanted]
    return [
        _estimator(model, setting, seed).fit(training, label).predict_proba(other)[:, 1] for setting in GRIDS[model]
    ]


def _estimator(model: ModelName, setting: Mapping[str, Any], seed: int) -> Any:
    if model == "boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(
            learning_rate=0.1, max_bins=63, early_stopping=False, random_state=seed, **setting
        )
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=5000, **setting)


def _prepare(model: ModelName, training: Matrix) -> Callable[[Matrix], Any]:
    """What a model does to features first, learned from its training rows.

    It takes the columns that vary; for logistic regression clipped, the median where missing, in standard deviations.
    """
    is_finite = np.isfinite(training)
    low = np.where(is_finite, training, np.inf).min(axis=0)
    high = np.where(is_finite, training, -np.inf).max(axis=0)
    columns = np.flatnonzero(high > low)
    if model == "boosting":
        return lambda features: features[:, columns]
    if not len(columns):
        return lambda features: np.zeros((len(features), 1))
    low, middle, high = np.nanquantile(training[:, columns], [CLIP[0], 0.5, CLIP[1]], axis=0).astype(np.float64)

    def filled(features: Matrix) -> NDArray[np.float64]:
        bounded = np.clip(features[:, columns].astype(np.float64), low, high)
        return np.where(np.isnan(bounded), middle, bounded)

    mine = filled(training)
    mean, sd = mine.mean(axis=0), mine.std(axis=0)
    sd[sd < 1e-9 * np.maximum(np.abs(mean), 1)] = 1
    return lambda features: (filled(features) - mean) / sd
