"""Do images show what is said of them? Classifiers of findings, view and sex, and a regression on age.

Train on synthetic, test on real (TSTR) asks whether the twins' findings look like real ones; adherence asks the
reverse: whether a classifier of real images finds in the twins' images what the twins are said to have. Both are areas
under the ROC curve within a modality and view: findings go with the view, and a classifier that knows the view alone is
worth nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.image_features import Encoded, equal_estimate
from medtwin.check.image_rows import ImageLabelRow
from medtwin.check.pictures import Picture, subjects_of
from medtwin.check.two_sample import bootstrap_weights, one_thread
from medtwin.core.seeds import generator

MIN_CLASS = 20
"""Images with and without a finding, in reference and twins, below which nothing is said of it."""
MIN_TEST = 15
"""The same in the control; below, the reference itself is tested, by classifiers that did not see the subject."""
MIN_SUBJECTS = 10
"""Subjects on either side of a label."""
MAX_FINDINGS = 10
MIN_AGES = 40
NUM_FOLDS = 5
NUM_HALVES = 10
NUM_FLOORS = 10
NUM_REFITS = 30
MAX_STEPS = 25
NUM_COMPONENTS = 64
PENALTY = 100.0
"""Of the squared weights, on whitened principal components: the area hardly moves from 10 to 1000 on 150 and on 400
radiographs of the embedded hospital and of NIH, and is larger than on the features as they are."""
TITLES = {
    "images.tstr": "Findings learned from twins, tested on real images: area under ROC lost against real training",
    "images.adherence": "Findings seen in twins by a classifier of real images: area under ROC lost against real ones",
    "images.conditions": "View, sex and age seen in twins by a model of real images: share of pairs in order, lost",
}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["finding", "condition"]
Tested = Literal["control", "reference"]
Score: TypeAlias = Callable[[Floats], Floats]


@dataclass(frozen=True)
class _Loss:
    """A loss for every draw of the bootstrap, the value first, and between parts of the real images."""

    bootstrap: Floats
    halves: Floats

    @staticmethod
    def mean(losses: Sequence[_Loss]) -> _Loss:
        """Of several, draw by draw."""
        return _Loss(
            np.mean([one.bootstrap for one in losses], axis=0), np.mean([one.halves for one in losses], axis=0)
        )

    def estimate(self) -> Estimate:
        """The value with its interval and baseline."""
        return equal_estimate(self.bootstrap, self.halves)


@dataclass(frozen=True)
class _Side:
    """Rows with a target: features (rows, d), target (rows,), stratum (rows,) and subject (rows,)."""

    features: Floats
    target: Floats
    stratum: NDArray[np.str_]
    subject: Ints

    def take(self, rows: Ints | NDArray[np.bool_]) -> _Side:
        """Some rows."""
        return _Side(self.features[rows], self.target[rows], self.stratum[rows], self.subject[rows])

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class _Target:
    """Something to predict of a picture.

    Attributes:
        of: Its number, 0 or 1 of a finding; None: not known of this picture.
        is_within_view: Whether pictures are compared within their modality and view only.
    """

    name: str
    kind: Kind
    of: Callable[[Picture], float | None]
    is_within_view: bool = True

    @property
    def is_binary(self) -> bool:
        """Whether it is there or not."""
        return self.name != "age"

    def side(self, encoded: Encoded) -> _Side:
        """The pictures of which it is known."""
        values = [self.of(one) for one in encoded.pictures]
        known = np.array([value is not None for value in values], bool)
        pictures = [one for one, keep in zip(encoded.pictures, known, strict=True) if keep]
        stratum = np.array([one.group if self.is_within_view else "" for one in pictures], np.str_)
        target = np.array([value for value in values if value is not None], np.float64)
        return _Side(encoded.features[known], target, stratum, subjects_of(pictures))


def concordance(score: Floats, target: Floats, stratum: NDArray[Any], weights: Floats) -> Floats:
    """Share of pairs of unequal targets whose scores are in the same order, ties half, (draws,); NaN without a pair.

    Of a target of 0 and 1 this is the area under the ROC curve; pairs are of one stratum.

    Args:
        score: (rows,).
        target: (rows,).
        stratum: (rows,) any labels.
        weights: How often each row counts, (draws, rows).

    Sources: Hanley & McNeil 1982, Radiology 143:29; Harrell et al. 1996, Stat Med 15:361 (concordance); Janes & Pepe
    2009, Biometrika 96:371 (within strata).

    >>> concordance(np.array([1.0, 2, 3, 3]), np.array([0.0, 1, 0, 1]), np.zeros(4), np.ones((1, 4))).tolist()
    [0.625]
    """
    above = target > target.min(initial=np.inf)  # of two classes only the one against the other
    below = target < target.max(initial=-np.inf)
    pair = (target[above][:, None] > target[below]) & (stratum[above][:, None] == stratum[below])
    difference = score[above][:, None] - score[below]
    wins = np.where(pair, (np.sign(difference) + 1) / 2, 0.0)
    first, second = weights[:, above], weights[:, below]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            np.einsum("ij,ij->i", first @ wins, second) / np.einsum("ij,ij->i", first @ pair.astype(np.float64), second)
        )


def label_measures(
    real: Encoded, synthetic: Encoded, control: Encoded, *, seed: int, num_resamples: int
) -> tuple[list[Measure], list[ImageLabelRow]]:
    """`images.tstr`, `images.adherence`, `images.conditions`, and a row for each target."""
    real, synthetic, control = _whitened([real, synthetic, control])
    rows: list[ImageLabelRow] = []
    found: dict[str, list[_Loss]] = {name: [] for name in TITLES}
    for target in _targets(real.pictures, synthetic.pictures):
        sides = target.side(real), target.side(synthetic), target.side(control)
        if not all(_is_enough(target, side, MIN_CLASS) for side in sides[:2]):
            continue
        task = _Task(target, *sides, seed=seed, num_resamples=num_resamples)
        with one_thread():
            if target.kind == "finding":
                result = task.train_on_twins()
                rows.append(_row(task, "tstr", result))
                found["images.tstr"].append(result.loss)
            result = task.look_at_twins()
            rows.append(_row(task, "adherence", result))
            found["images.adherence" if target.kind == "finding" else "images.conditions"].append(result.loss)
    has_labels = any(one.labels for one in real.pictures)
    measures = []
    for name, values in found.items():
        if values:
            measures.append(Measure(name, TITLES[name], _Loss.mean(values).estimate(), len(values)))
        elif name == "images.conditions":
            measures.append(unmeasured_label(name, "no view, sex or age varies enough on both sides"))
        else:
            reason = f"no finding has {MIN_CLASS} images with and {MIN_CLASS} without it on both sides"
            reason = reason if has_labels else "the real images have no findings"
            measures.append(unmeasured_label(name, reason, applicable=has_labels))
    return measures, rows


def unmeasured_label(name: str, reason: str, *, applicable: bool = True) -> Measure:
    """One of the measures of labels without an estimate."""
    return Measure(name, TITLES[name], None, 0, "lower", reason, applicable)


def _targets(real: Sequence[Picture], synthetic: Sequence[Picture]) -> list[_Target]:
    """Findings of both sides, the most frequent real ones; the two most frequent views; sex; age."""

    def finding(code: str) -> Callable[[Picture], float | None]:
        return lambda one: None if one.labels is None else float(code in one.labels)

    counts = Counter(code for one in real for code in one.labels or ())
    both = {code for one in synthetic for code in one.labels or ()}
    codes = [code for code, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if code in both]
    targets = [_Target(code, "finding", finding(code)) for code in codes[:MAX_FINDINGS]]
    views = Counter(one.view for one in real if one.view).most_common(2)
    if len(views) == 2:
        first, second = views[0][0], views[1][0]
        places = {first: 1.0, second: 0.0}
        targets.append(_Target(f"view {first} or {second}", "condition", lambda one: places.get(one.view or ""), False))
    targets.append(_Target("sex", "condition", lambda one: {"M": 1.0, "F": 0.0}.get(one.sex or "")))
    targets.append(_Target("age", "condition", lambda one: one.age_years))
    return targets


def _is_enough(target: _Target, side: _Side, least: int) -> bool:
    if not target.is_binary:
        return len(side) >= MIN_AGES and len(np.unique(side.target)) >= MIN_SUBJECTS
    parts = [side.take(side.target == value) for value in (0.0, 1.0)]
    return all(len(part) >= least and len(np.unique(part.subject)) >= MIN_SUBJECTS for part in parts)


@dataclass(frozen=True)
class _Result:
    """A loss for every draw, and what it is a loss of.

    Attributes:
        value: The twins' own. ceiling: Real images' own. floor: What permuted labels reach, 95 % of them.
        tested: Which real images the ceiling is of.
    """

    loss: _Loss
    value: Floats
    ceiling: float
    floor: float
    tested: Tested
    detail: str


@dataclass(frozen=True)
class _Task:
    """One target on three sides."""

    target: _Target
    real: _Side
    synthetic: _Side
    control: _Side
    seed: int
    num_resamples: int

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """The generator of one purpose."""
        return generator(self.seed, "check", "image labels", self.target.name, *purpose)

    def fit(self, side: _Side) -> Score:
        """A linear model of the target."""
        return _fit(side, is_binary=self.target.is_binary)

    def train_on_twins(self) -> _Result:
        """Loss of a classifier of twins against one of as many real images, both tested on the same real images.

        The test images are the control's, which training did not see. Where those are too few they are the reference's:
        the ceiling is then cross-fitted, and twins that copy the reference look better than they are, which is what
        `copies.images` is for.
        """
        rng = self.rng("twins")
        uses_control = _is_enough(self.target, self.control, MIN_TEST)
        test, most = self.control if uses_control else self.real, len(self.synthetic)
        of_control = self.fit(_some(self.real, most, rng))(test.features)
        ceiling = of_control if uses_control else self.cross_fitted(most, rng)
        weights = bootstrap_weights(test.subject, self.num_resamples, rng)
        best = concordance(ceiling, test.target, test.stratum, weights)
        value = concordance(self.fit(self.synthetic)(test.features), test.target, test.stratum, weights)
        refits = np.array([self.area(self.fit(_resampled(self.synthetic, rng)), test) for _ in range(NUM_REFITS)])
        value[1:] += np.resize(refits - refits.mean(), len(value) - 1)
        floors = [self.area(self.fit(_permuted(self.synthetic, rng)), test) for _ in range(NUM_FLOORS)]
        halves = [self._train_on_part(self.rng("halves", one), uses_control) for one in range(NUM_HALVES)]
        tested: Tested = "control" if uses_control else "reference"
        return _result(best, value, np.array(halves), floors, tested)

    def _train_on_part(self, rng: np.random.Generator, uses_control: bool) -> float:
        """The loss where the twins are real: of one part of the reference against another, tested on what is left."""
        parts = _parts(self.real, 2 if uses_control else 3, rng)
        test = self.control if uses_control else parts[2]
        return self.area(self.fit(parts[0]), test) - self.area(self.fit(parts[1]), test)

    def look_at_twins(self) -> _Result:
        """Loss of a model of real images on twins against the same on real images that it did not see."""
        rng = self.rng("look")
        model, twins, seen = self.fit(self.real), self.synthetic, self.real
        held_out = self.cross_fitted(len(self.real), rng)
        if len(self.control):
            seen = _joined(self.real, self.control)
            held_out = np.concatenate([held_out, model(self.control.features)])
        score = model(twins.features)
        weights = [bootstrap_weights(side.subject, self.num_resamples, rng) for side in (seen, twins)]
        best = concordance(held_out, seen.target, seen.stratum, weights[0])
        value = concordance(score, twins.target, twins.stratum, weights[1])
        floors = [self.area(model, _permuted(twins, rng)) for _ in range(NUM_FLOORS)]
        halves = [self._look_at_part(self.rng("parts", one)) for one in range(NUM_HALVES)]
        detail = ""
        if not self.target.is_binary:
            errors = [float(np.mean(np.abs(one.target - s))) for one, s in ((twins, score), (seen, held_out))]
            detail = f"mean absolute error {errors[0]:.1f} years in twins, {errors[1]:.1f} in real images"
        return _result(best, value, np.array(halves), floors, "reference", detail)

    def _look_at_part(self, rng: np.random.Generator) -> float:
        """The loss where the twins are real: two quarters of the reference by a model of a half, at the twins' size."""
        training, rest = _parts(self.real, 2, rng)
        quarters = _parts(rest, 2, rng)
        model = self.fit(training)
        loss = self.area(model, quarters[0]) - self.area(model, quarters[1])
        sizes = [len(np.unique(one.subject)) for one in (self.real, self.synthetic, *quarters)]
        return loss * float(np.sqrt((1 / sizes[0] + 1 / sizes[1]) / (1 / sizes[2] + 1 / sizes[3])))

    def cross_fitted(self, most: int, rng: np.random.Generator) -> Floats:
        """Scores of the reference, (rows,), by models of at most so many images, none of the subject's own."""
        side = self.real
        _, number = np.unique(side.subject, return_inverse=True)
        fold = rng.permutation(number.max() + 1)[number] % NUM_FOLDS
        scores = np.zeros(len(side))
        for one in range(NUM_FOLDS):
            held = fold == one
            scores[held] = self.fit(_some(side.take(~held), most, rng))(side.features[held])
        return scores

    def area(self, score: Score, side: _Side) -> float:
        """The concordance of a model on a side; NaN where no two images differ in the target."""
        ones = np.ones((1, len(side)))
        return float(concordance(score(side.features), side.target, side.stratum, ones)[0])


def _result(
    best: Floats, value: Floats, halves: Floats, floors: Sequence[float], tested: Tested, detail: str = ""
) -> _Result:
    """Draws without a pair to compare count as the value itself, real parts without one as no loss."""
    best, value = (np.where(np.isnan(one), one[0], one) for one in (best, value))
    loss = _Loss(best - value, np.nan_to_num(halves))
    return _Result(loss, value, float(best[0]), float(np.nanquantile(floors, LEVEL)), tested, detail)


def _row(task: _Task, kind: Literal["tstr", "adherence"], result: _Result) -> ImageLabelRow:
    low, high = np.clip(np.quantile(result.value, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), 0, 1)
    value = float(result.value[0])
    with_real, with_synthetic = (
        int((side.target == 1).sum()) if task.target.is_binary else None for side in (task.real, task.synthetic)
    )
    return ImageLabelRow(
        kind,
        task.target.name,
        len(task.real),
        len(task.synthetic),
        with_real,
        with_synthetic,
        value,
        min(float(low), value),
        max(float(high), value),
        result.ceiling,
        result.floor,
        result.loss.estimate(),
        result.tested,
        result.detail,
    )


def _fit(side: _Side, *, is_binary: bool) -> Score:
    """Logistic or linear regression with a ridge penalty; of targets that are all the same, the same score for all."""
    if len(np.unique(side.target)) < 2:
        return lambda features: np.zeros(len(features))
    if is_binary:
        slopes, intercept = ridge_logistic(side.features, side.target)
        return lambda features: np.asarray(features @ slopes + intercept)
    mean, middle = side.features.mean(axis=0), float(side.target.mean())
    centred = side.features - mean
    gram = centred.T @ centred + PENALTY * np.eye(centred.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (side.target - middle))
    return lambda features: np.asarray((features - mean) @ weights + middle)


def ridge_logistic(features: Floats, target: Floats) -> tuple[Floats, float]:
    """Slopes and intercept of logistic regression, half of `PENALTY` on the squared slopes; by Newton's method.

    Args:
        features: (rows, numbers).
        target: (rows,) 0 or 1, both present.

    Source: Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 4.4.
    """
    rows = np.column_stack([features, np.ones(len(features))])
    penalty = np.append(np.full(features.shape[1], PENALTY), 0.0)
    beta = np.zeros(rows.shape[1])
    for _ in range(MAX_STEPS):
        p = expit(rows @ beta)
        gradient = rows.T @ (p - target) + penalty * beta
        curvature = (rows * np.maximum(p * (1 - p), 1e-9)[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        beta -= step
        if np.abs(step).max() < 1e-8:
            break
    return beta[:-1], float(beta[-1])


def _order(side: _Side, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The rank of each row's subject in a random order, (rows,), and the rows in that order."""
    _, number = np.unique(side.subject, return_inverse=True)
    rank = rng.permutation(int(number.max(initial=-1)) + 1)[number]
    return rank, np.argsort(rank, kind="stable")


def _some(side: _Side, most: int, rng: np.random.Generator) -> _Side:
    """At most so many rows, of whole subjects but the last."""
    return side if len(side) <= most else side.take(np.sort(_order(side, rng)[1][:most]))


def _parts(side: _Side, count: int, rng: np.random.Generator) -> list[_Side]:
    """Disjoint parts of about as many subjects."""
    rank = _order(side, rng)[0]
    return [side.take(rank % count == one) for one in range(count)]


def _resampled(side: _Side, rng: np.random.Generator) -> _Side:
    """As many subjects drawn with replacement."""
    weights = bootstrap_weights(side.subject, 1, rng)[1]
    return side.take(np.repeat(np.arange(len(side)), weights.astype(np.int64)))


def _permuted(side: _Side, rng: np.random.Generator) -> _Side:
    """The same with the targets dealt anew."""
    return replace(side, target=rng.permutation(side.target))


def _joined(first: _Side, second: _Side) -> _Side:
    """Both sides' rows."""
    parts = (
        np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("features", "target", "stratum", "subject")
    )
    return _Side(*parts)


def _whitened(sides: Sequence[Encoded]) -> list[Encoded]:
    """The first principal components of the real features, of standard deviation 1 in the real images."""
    real = sides[0].features
    number = min(NUM_COMPONENTS, real.shape[1], max((len(real) - 1) // 2, 1))
    mean = real.mean(axis=0)
    _, spread, axes = np.linalg.svd(real - mean, full_matrices=False)
    number = int(min(number, np.sum(spread > 1e-6 * max(spread[0], 1e-12))))
    basis = axes[:number].T / spread[:number] * np.sqrt(len(real))
    return [Encoded(side.pictures, (side.features - mean) @ basis) for side in sides]
