"""Summaries of whole records, and a law of them given who the person is, up to factors that a prior models.

A summary has the counts of the most frequent events, the mean number of those that carry one (as the mean of normal
scores), and the number of dated steps. Counts and steps become normal scores, of which ties are broken at random; means
are divided by their spread between people. Each coordinate follows from sex, age, calendar time, facts and window by a
ridge regression; what is left is explained by a few factors (principal components) and by independent noise, such that
every coordinate has variance 1 and hence, read back through quantiles, the distribution of the training subjects.

Source: the normal scores of a Gaussian copula; factors and noise as in Tipping & Bishop 1999, JRSS B 61:611.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from medtwin.core.codes import DEATH
from medtwin.core.seeds import generator
from medtwin.timelines.baselines.decisions import parts_of
from medtwin.timelines.baselines.knots import Knots
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.profile import MAX_SUBJECTS
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_TOKENS = 400  # events that a summary counts; rarer ones are left to the chain
_AGES = np.arange(0.0, 100.0, 10.0)
_RIDGE = 5.0  # subjects that say that an attribute has no effect
_LEAST = 1e-3
NAMES = (
    "counted", "valued", "count_values", "count_offsets", "effects", "loadings", "noise", "between", "within",
    "steps_per_code", "static_per_code",
)  # fmt: skip


def features(spec: TimelineSpec, attributes: Sequence[Attributes]) -> Floats:
    """What a summary follows from, (n, features): sex, facts, age, calendar time, window, 1."""
    profile = spec.profile
    sex = np.eye(len(profile.sexes))[[one.sex for one in attributes]]
    facts = np.array([one.facts for one in attributes], dtype=np.float64).reshape(len(attributes), -1)
    age = np.array([one.age_start_years for one in attributes], dtype=np.float64)
    basis = np.exp(-0.5 * ((np.nan_to_num(age)[:, None] - _AGES) / 10.0) ** 2) * np.isfinite(age)[:, None]
    start = profile.starts.score(np.array([one.start_minute for one in attributes], dtype=np.float64))
    window = profile.windows.score(np.array([one.window_minutes for one in attributes], dtype=np.float64))
    numbers = np.stack([np.isfinite(age), start, window, window**2, np.ones(len(age))], axis=1)
    return np.concatenate([sex, facts, basis, numbers], axis=1)


@dataclass(frozen=True)
class Summaries:
    """Of n subjects.

    Attributes:
        counts: (n, C) of the events that are counted. means: (n, M) mean scores of those with numbers, nan where none.
        steps: (n,) dated steps.
        spread: (M,) mean square of scores about their subject's mean, of subjects with two and more.
    """

    counts: Floats
    means: Floats
    steps: Floats
    spread: Floats

    @property
    def amounts(self) -> Floats:
        """Counts and then steps, (n, C + 1)."""
        return np.column_stack([self.counts, self.steps])


def counted_tokens(spec: TimelineSpec) -> Ints:
    """The most frequent events, without children and death, (C,)."""
    frequency = spec.static_counts.sum(axis=1) * spec.vocabulary.is_root
    frequency[spec.vocabulary.where([DEATH])] = 0
    order = np.argsort(-frequency, kind="stable")[:_MOST_TOKENS]
    return np.sort(order[frequency[order] > 0])


def summarise(sequences: Sequences, numbers: Knots, counted: Ints, valued: Ints) -> Summaries:
    """The summaries of subjects.

    Args:
        sequences: Of the subjects.
        numbers: Distributions of numbers, by token.
        counted: (C,) tokens, ascending.
        valued: (M,) of these, ascending.
    """
    counts, means, squares, degrees = [], [], np.zeros(len(valued)), np.zeros(len(valued))
    for part in parts_of(sequences):
        subject = part.subject_of_step()[part.step_of_event()]
        counts.append(_table(subject, part.token, np.ones(len(subject)), (len(part), counted)))
        at = np.flatnonzero(np.asarray(part.has_value) & np.isin(part.token, valued))
        token, who = np.asarray(part.token, np.int64)[at], subject[at]
        score = numbers.score(token, np.asarray(part.value, np.float64)[at])
        shape = (len(part), valued)
        number, total, square = (_table(who, token, each, shape) for each in (np.ones(len(at)), score, score**2))
        mean = total / np.where(number > 0, number, np.nan)
        means.append(mean)
        squares += np.nansum(np.where(number > 1, square - number * mean**2, 0.0), axis=0)
        degrees += np.where(number > 1, number - 1, 0).sum(axis=0)
    spread = np.where(degrees > 0, squares / np.maximum(degrees, 1), 0.5)
    steps = (sequences.num_steps - 1).astype(np.float64)
    return Summaries(np.concatenate(counts), np.concatenate(means), steps, np.clip(spread, 0.02, 0.98))


def _table(subject: Ints, token: NDArray[np.integer], amount: Floats, shape: tuple[int, Ints]) -> Floats:
    """(n, tokens) sums of amounts by subject and token, of the tokens that are asked for, which ascend."""
    num, tokens = shape
    place = np.minimum(np.searchsorted(tokens, token), max(len(tokens) - 1, 0))
    table = np.zeros((num, len(tokens)))
    if len(tokens):
        known = tokens[place] == token
        np.add.at(table, (subject[known], place[known]), amount[known])
    return table


def fit_summaries(
    sequences: Sequences, spec: TimelineSpec, numbers: Knots, num_factors: int, seed: int
) -> tuple[dict[str, NDArray[np.generic]], Floats]:
    """The tables of a `SummaryLaw`, by `NAMES`, and the factors of the training subjects, (n, factors)."""
    chosen = generator(seed, "summaries").permutation(len(sequences))[:MAX_SUBJECTS]
    some = sequences.take(np.sort(chosen))
    counted = counted_tokens(spec)
    valued = counted[(spec.vocabulary.has_number & numbers.has)[counted]]
    found = summarise(some, numbers, counted, valued)
    amounts, subjects = found.amounts, np.tile(np.arange(len(some)), amounts_of(counted))
    groups = np.repeat(np.arange(amounts_of(counted)), len(some))
    knots = Knots.of(amounts.T.ravel(), groups, subjects, amounts_of(counted))
    jitter = generator(seed, "summaries", "ties").random(amounts.shape)
    ranks = np.stack([_ranks(column, ties) for column, ties in zip(amounts.T, jitter.T, strict=True)], axis=1)
    between = np.maximum(np.nan_to_num(np.nanstd(np.vstack([found.means, np.zeros((2, len(valued)))]), axis=0)), _LEAST)
    scores = np.concatenate([ndtri(ranks), found.means / between], axis=1)
    x = features(spec, some.attributes())
    effects = np.stack([_ridge(x, column) for column in scores.T], axis=1)
    left = np.nan_to_num(scores - x @ effects)
    loadings, factors = _components(left, num_factors)
    explained = (x @ effects).var(axis=0) + (loadings**2).sum(axis=0)
    static, dated = spec.static_counts[counted].T
    arrays: dict[str, NDArray[np.generic]] = {
        "counted": counted,
        "valued": valued,
        "count_values": knots.values,
        "count_offsets": knots.offsets,
        "effects": effects,
        "loadings": loadings,
        "noise": np.sqrt(np.maximum(1.0 - explained, 0.0)),
        "between": np.sqrt(1.0 - found.spread),
        "within": np.sqrt(found.spread),
        "steps_per_code": dated / max(float((sequences.num_steps - 1).sum()), 1.0),
        "static_per_code": static / len(sequences),
    }
    return arrays, factors


def amounts_of(counted: Ints) -> int:
    """How many amounts a summary has: counts, and steps."""
    return len(counted) + 1


def _ranks(column: Floats, ties: Floats) -> Floats:
    order = np.lexsort((ties, column))
    ranks = np.empty(len(column))
    ranks[order] = (np.arange(len(column)) + 0.5) / len(column)
    return ranks


def _ridge(x: Floats, y: Floats) -> Floats:
    """Coefficients, (features,), of those subjects that have the number; the constant is free."""
    known = np.isfinite(y)
    penalty = np.full(x.shape[1], _RIDGE)
    penalty[-1] = _LEAST
    return np.asarray(np.linalg.solve(x[known].T @ x[known] + np.diag(penalty), x[known].T @ y[known]))


def _components(left: Floats, num_factors: int) -> tuple[Floats, Floats]:
    """Loadings, (factors, coordinates), and factors of variance 1, (n, factors), of what is left."""
    most = min(num_factors, left.shape[1], max(len(left) // 5, 1))
    variance, vectors = np.linalg.eigh(left.T @ left / len(left))
    spread = np.sqrt(np.maximum(variance[::-1][:most], _LEAST**2))
    directions = vectors[:, ::-1][:, :most]
    directions = directions * np.where(directions.sum(axis=0) < 0, -1.0, 1.0)  # the sign is free; one is chosen
    return (directions * spread).T, left @ directions / spread
