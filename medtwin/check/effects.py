"""Whether a model of twins says the same as a model of real subjects: which codes matter, and the hazard ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from medtwin.check.classifiers import Predict
from medtwin.check.cox import CoxFit, fit_cox
from medtwin.check.estimates import LEVEL, Measure
from medtwin.check.resample import Draws, make_plan
from medtwin.check.scores import auroc
from medtwin.check.task_features import FeatureSpace
from medtwin.check.utility_rows import HazardRow
from medtwin.core.seeds import generator

NUM_TOP = 10
_GROUPS_AT_ONCE = 16
MIN_EVENTS = 10
"""Events per covariate below which a Cox regression is not trusted (Peduzzi et al. 1995, J Clin Epidemiol 48:1503)."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Matrix = NDArray[np.float32]


def code_importance(
    predict: Predict, features: Matrix, label: Bools, groups: Sequence[str], weights: NDArray[np.float32], *, seed: int
) -> Floats:
    """The fall of AUROC when the columns of each group are permuted together among the rows, (groups, draws).

    The permutations depend on the seed and the group only, so models are compared on the same ones. Groups in order of
    first appearance.

    Args:
        predict: The model.
        features: (rows, columns) of test subjects.
        label: (rows,).
        groups: (columns,) the group of each column.
        weights: (draws, rows).
        seed: Decides the permutations.

    Source: Breiman 2001, Machine Learning 45:5; of groups: Gregorutti et al. 2015, Comput Stat Data Anal 90:15.
    """
    whole = auroc(predict(features), label, weights)
    names, distinct = np.asarray(groups), list(dict.fromkeys(groups))
    falls = []
    for first in range(0, len(distinct), _GROUPS_AT_ONCE):
        some = distinct[first : first + _GROUPS_AT_ONCE]
        shuffled = np.tile(features, (len(some), 1, 1))
        for copy, group in zip(shuffled, some, strict=True):
            order = generator(seed, "utility", "importance", group).permutation(len(features))
            columns = np.flatnonzero(names == group)
            copy[:, columns] = features[order][:, columns]
        scores = predict(shuffled.reshape(-1, features.shape[1])).reshape(len(some), -1)
        falls += [whole - auroc(one, label, weights) for one in scores]
    return np.stack(falls)


def rank_agreement(first: Floats, second: Floats) -> Floats:
    """Spearman's correlation of two sets of importances (codes, draws), (draws,); 0 where one has no order.

    >>> rank_agreement(np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [9.0], [5.0]]))
    array([0.5])
    """
    a, b = (rankdata(side, axis=0) for side in (first, second))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.asarray(np.divide((a * b).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 0))


def top_overlap(first: Floats, second: Floats, number: int = NUM_TOP) -> Floats:
    """Share of the most important codes of one side among those of the other, (draws,), of (codes, draws) each."""
    number = min(number, len(first))
    tops = [np.argsort(-side, axis=0, kind="stable")[:number] for side in (first, second)]
    return np.array([len(np.intersect1d(a, b)) / number for a, b in zip(tops[0].T, tops[1].T, strict=True)])


@dataclass(frozen=True)
class Survival:
    """Time from the first prediction of each subject to the outcome or the end of the record.

    Attributes:
        hours: (subjects,). happened: (subjects,). features: (subjects, columns) at that prediction.
    """

    hours: Floats
    happened: Bools
    features: Matrix

    def rows(self, index: Ints | Bools) -> Survival:
        """Some of the subjects."""
        return Survival(self.hours[index], self.happened[index], self.features[index])


class Covariates:
    """The covariates of a Cox regression, on the scale of the real training subjects.

    Each is clipped to their 1st and 99th percentile, the median where missing, in their standard deviations; what is
    there or not (a sex, a code without numbers) stays 0 or 1.
    """

    def __init__(self, names: Sequence[str], space: FeatureSpace, real: Matrix) -> None:
        self.unknown: list[str] = []
        self.names: list[str] = []
        self._columns: list[int] = []
        self._scales: list[tuple[float, float, float, float, float]] = []
        known = {name: column for column, name in enumerate(space.names)}
        for name in names:
            column = next((known[one] for one in _columns_of(name) if one in known), None)
            values = np.zeros(0) if column is None else real[:, column].astype(np.float64)
            values = values[np.isfinite(values)]
            if column is None or not len(values) or values.min() == values.max():
                self.unknown.append(name)
                continue
            if column in (known.get(f"{name} count"), known.get(name)):
                scale = (0.0, 1.0, 0.0, 0.0, 1.0)
            else:
                low, middle, high = np.quantile(values, [0.01, 0.5, 0.99])
                kept = np.clip(values, low, high)
                scale = (float(low), float(high), float(middle), float(kept.mean()), float(kept.std()) or 1.0)
            self.names.append(name)
            self._columns.append(column)
            self._scales.append(scale)

    def of(self, features: Matrix) -> Floats:
        """(subjects, covariates)."""
        low, high, middle, mean, sd = np.array(self._scales, np.float64).T.reshape(5, -1)
        values = features[:, self._columns].astype(np.float64)
        values = np.where(np.isnan(values), middle, values)
        return np.asarray((np.clip(values, low, high) - mean) / sd)


def _columns_of(name: str) -> tuple[str, ...]:
    """Names of the columns that may stand for a covariate, best first."""
    return ("age in years",) if name == "age" else (f"{name} mean", name, f"{name} count")


def hazard_agreement(
    task: str, covariates: Covariates, real: Survival, synthetics: Sequence[Survival], *, seed: int, num_resamples: int
) -> tuple[Measure, list[HazardRow]]:
    """The mean absolute difference of log hazard ratios, and each covariate's ratios on both sides.

    Several generator seeds are combined as Reiter 2003 (Survey Methodology 29:181) does for partially synthetic data:
    the variance is the mean variance plus that between the seeds over their number. The overlap of intervals is that of
    Karr et al. 2006 (Am Stat 60:224).
    """
    name, title = "utility.hazard_ratios", "Hazard ratios: mean absolute difference of their logarithms, per real SD"
    unknown = [_without(task, one, "the real subjects do not have it, or all alike") for one in covariates.unknown]
    if not covariates.names:
        reason = "no covariate that the task names varies among real subjects" if unknown else "the task names none"
        return Measure(name, title, None, 0, "lower", reason, applicable=bool(unknown)), unknown
    designs = [covariates.of(side.features) for side in (real, *synthetics)]
    fits = [fit_cox(one.hours, one.happened, x) for one, x in zip((real, *synthetics), designs, strict=True)]
    if reason := _shortfall(real, synthetics, fits, len(covariates.names)):
        return Measure(name, title, None, 0, "lower", reason), unknown
    rows = [*_rows(task, covariates.names, fits[0], fits[1:]), *unknown]
    draws, plan = [], make_plan(len(real.hours), 1, 0, seed=seed, num_resamples=num_resamples, purpose="hazards")
    betas = _resampled(real, designs[0], plan.real, fits[0].beta)
    halves = [_resampled(real, designs[0], half, fits[0].beta) for half in (plan.half_a, plan.half_b)]
    first_plan = None
    others = []
    for number, (side, x, one) in enumerate(zip(synthetics, designs[1:], fits[1:], strict=True)):
        mine = make_plan(
            len(real.hours), len(side.hours), 0, seed=seed, num_resamples=num_resamples, purpose=f"hazards {number}"
        )
        first_plan = first_plan or mine
        others.append(_resampled(side, x, mine.synthetic, one.beta))
    for other in others:
        draws.append(np.abs(other - betas).mean(axis=1))
    between = np.abs(halves[0] - halves[1]).mean(axis=1)
    spread = np.stack(draws).mean(axis=0)
    is_known = np.isfinite(spread)
    assert first_plan is not None
    estimate = Draws(spread[is_known], between[np.isfinite(between)], None).estimate(first_plan)
    return Measure(name, title, estimate, len(covariates.names)), rows


def _shortfall(real: Survival, synthetics: Sequence[Survival], fits: Sequence[CoxFit], num_covariates: int) -> str:
    fewest = MIN_EVENTS * num_covariates
    for who, side, one in zip(
        ["real subjects", *(f"twins of seed {number + 1}" for number in range(len(synthetics)))],
        (real, *synthetics),
        fits,
        strict=True,
    ):
        if side.happened.sum() < fewest:
            return f"needs {fewest} outcomes, the {who} have {int(side.happened.sum())}"
        if not np.isfinite(one.beta).all():
            return f"the Cox regression of the {who} has no finite answer"
    return ""


def _resampled(side: Survival, x: Floats, weights: NDArray[np.float32], start: Floats) -> Floats:
    """Log hazard ratios of every draw, (draws, covariates)."""
    betas = []
    for row in weights:
        index = np.repeat(np.arange(len(row)), row.astype(np.int64))
        betas.append(fit_cox(side.hours[index], side.happened[index], x[index], start=start).beta)
    return np.stack(betas)


def _without(task: str, covariate: str, reason: str) -> HazardRow:
    return HazardRow(task, covariate, None, None, None, None, None, None, None, None, reason)


def _rows(task: str, names: Sequence[str], real: CoxFit, twins: Sequence[CoxFit]) -> list[HazardRow]:
    z = float(norm.ppf((1 + LEVEL) / 2))
    betas = np.stack([one.beta for one in twins])
    variance = np.stack([one.standard_error**2 for one in twins]).mean(axis=0)
    if len(twins) > 1:
        variance = variance + betas.var(axis=0, ddof=1) / len(twins)
    rows = []
    for i, name in enumerate(names):
        b, s = float(real.beta[i]), float(real.standard_error[i])
        c, e = float(betas[:, i].mean()), float(np.sqrt(variance[i]))
        mine, theirs = (b - z * s, b + z * s), (c - z * e, c + z * e)
        shared = min(mine[1], theirs[1]) - max(mine[0], theirs[0])
        overlap = (shared / (mine[1] - mine[0]) + shared / (theirs[1] - theirs[0])) / 2
        rows.append(HazardRow(task, name, b, *mine, c, *theirs, (c - b) / float(np.hypot(s, e)), overlap))
    return rows
