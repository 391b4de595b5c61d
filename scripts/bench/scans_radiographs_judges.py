"""Judges of radiographs: linear models of view, sex, pneumonia and age on features that nobody trained.

They learn from the real training images, or from synthetic ones, and are tested on real images of patients whom no
model and no judge has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scans_radiographs import PNEUMONIA
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medtwin.check.image_features import Encoded
from medtwin.check.image_labels import concordance
from medtwin.check.pictures import Picture, subjects_of
from medtwin.check.two_sample import bootstrap_weights

NUM_RESAMPLES = 500
LEVEL = (2.5, 97.5)
Floats = NDArray[np.float64]
Scores = Callable[[Encoded], Floats]


def some(side: Encoded, rows: NDArray[Any]) -> Encoded:
    """Some images."""
    return Encoded([side.pictures[row] for row in rows], side.features[rows])


def together(sides: Sequence[Encoded]) -> Encoded:
    """The images of several sides."""
    return Encoded([one for side in sides for one in side.pictures], np.concatenate([side.features for side in sides]))


@dataclass(frozen=True)
class Target:
    """Something to see in an image; `of` gives 1 or 0, or years."""

    name: str
    of: Callable[[Picture], float | None]
    is_binary: bool = True

    @property
    def measures(self) -> tuple[str, str]:
        """Area under the ROC curve and share that is right; correlation with what was asked, and slope on it."""
        return ("area", "accuracy") if self.is_binary else ("r", "slope")

    def known(self, side: Encoded) -> tuple[Encoded, Floats]:
        """The images of which it is known, and what is known."""
        values = np.array([np.nan if (value := self.of(one)) is None else value for one in side.pictures], np.float64)
        rows = np.flatnonzero(~np.isnan(values))
        return some(side, rows), values[rows]

    def varies(self, side: Encoded) -> bool:
        """Whether there is anything to tell apart."""
        return len(np.unique(self.known(side)[1])) > 1


VIEW = Target("view", lambda one: {"PA": 1.0, "AP": 0.0}.get(one.view or ""))
SEX = Target("sex", lambda one: {"M": 1.0, "F": 0.0}.get(one.sex or ""))
ILL = Target("pneumonia", lambda one: None if one.labels is None else float(PNEUMONIA in one.labels))
AGE = Target("age", lambda one: one.age_years, is_binary=False)


def judge(target: Target, side: Encoded) -> Scores:
    """A linear model of the target on 64 principal components; what it makes of other images."""
    known, values = target.known(side)
    last = LogisticRegression(C=0.01, max_iter=2000) if target.is_binary else Ridge(alpha=100.0)
    model = make_pipeline(StandardScaler(), PCA(64, whiten=True, random_state=0), last)
    model.fit(known.features, values)

    def seen(other: Encoded) -> Floats:
        shown = model.decision_function(other.features) if target.is_binary else model.predict(other.features)
        return np.asarray(shown, np.float64)

    return seen


def seen_in(target: Target, see: Scores, side: Encoded) -> tuple[float, float]:
    """What a judge sees in some images: the two numbers that `Target.measures` names."""
    known, truth = target.known(side)
    scores = see(known)
    if target.is_binary:
        return float(roc_auc_score(truth, scores)), float(((scores > 0) == (truth > 0.5)).mean())
    return float(np.corrcoef(truth, scores)[0, 1]), float(np.polyfit(truth, scores, 1)[0])


@dataclass(frozen=True)
class Learned:
    """Pneumonia as learned from real images and from others, tested on the same real images.

    Attributes:
        area, accuracy: Of the classifier of real images and of the other one. loss: Of area, with its 95 % interval.
    """

    area: tuple[float, float]
    accuracy: tuple[float, float]
    loss: float
    low: float
    high: float

    def verdict(self, margin: float) -> str:
        """Whether the other classifier is not inferior by more than a margin."""
        return "non-inferior" if self.high < margin else "inferior" if self.low > margin else "undecided"


def learned_from(made: Encoded, real: Encoded, test: Encoded, views: Sequence[str]) -> Learned:
    """Pneumonia learned from some images against learned from real ones; tested within some views.

    The interval is that of a paired bootstrap of patients: both classifiers are tested on the same ones.
    """
    known, truth = ILL.known(test)
    view = np.array([one.view or "" for one in known.pictures])
    rows = np.flatnonzero(np.isin(view, list(views)))
    known, truth, view = some(known, rows), truth[rows], view[rows]
    scores = [judge(ILL, side)(known) for side in (real, made)]
    right = [float(((score > 0) == (truth > 0.5)).mean()) for score in scores]
    weights = bootstrap_weights(subjects_of(known.pictures), NUM_RESAMPLES, np.random.default_rng(0))
    areas = [concordance(score, truth, view, weights) for score in scores]
    losses = areas[0] - areas[1]
    low, high = np.nanpercentile(losses[1:], LEVEL)
    return Learned((areas[0][0], areas[1][0]), (right[0], right[1]), float(losses[0]), float(low), float(high))


def dealt_anew(side: Encoded) -> Encoded:
    """The images with each other's findings: what a judge learns of them is nothing."""
    order = np.random.default_rng(0).permutation(len(side.pictures))
    dealt = [replace(one, labels=side.pictures[i].labels) for one, i in zip(side.pictures, order, strict=True)]
    return Encoded(dealt, side.features)
