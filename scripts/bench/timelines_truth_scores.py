"""Everything measured of one set of twins, beside what the training subjects reach, and whether it is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats
from timelines_truth_cohorts import Cohort, cached_tables, cohort_of, read_cohort, shuffled_subjects
from timelines_truth_effects import Effect, Held, effects, held
from timelines_truth_measures import (
    NUM_RESAMPLES,
    Interval,
    Length,
    Transitions,
    ValueDistance,
    Values,
    lengths,
    subject_draws,
)

from medtwin.check.controls import shuffled_columns
from medtwin.check.plausibility import RuleCounter
from medtwin.check.records import Vocabulary
from medtwin.check.rules import rules_from
from medtwin.config import compose
from medtwin.core.dataset import open_dataset
from medtwin.core.files import read_json
from medtwin.core.seeds import generator
from medtwin.hospital.simulate import simulate_subject

MAX_R2_LOSS = 0.03
MAX_KS_GAIN = 0.02
MAX_LENGTH_ERROR = 0.07
MAX_MASKED = 0.02
FRESH_SEED, TRUTH_SEED = 1, 2
"""Seeds of the hospital that no training subject came from, which is seed 0 by default."""
TRUTH_RESAMPLES = 60
MASK_KINDS = ("not-of-sex", "after-death", "before-birth", "age-at-onset")
"""Kinds of rules that generation masks: no twin may break one."""


@dataclass(frozen=True)
class Scores:
    """What was measured of a cohort."""

    name: str
    size: int
    transitions: dict[str, Interval]
    values: ValueDistance
    lengths: list[Length]
    effects: list[Effect]


@dataclass(frozen=True)
class Line:
    """One number with its baselines and what it must reach.

    Attributes:
        what: The measure. twins: Of the twins. real: Of as many training subjects. floor: Of data that is broken.
        goal: In words.
        is_met: Whether the estimate reaches the goal; None where it was not measured.
    """

    what: str
    twins: Interval
    real: float
    floor: float
    goal: str
    is_met: bool | None


class World:
    """A fresh draw of the hospital, the truth of the effects, and the training subjects.

    Args:
        real: Dataset whose train split the twins were learned from.
        cache: Folder for draws of the hospital.
        num_fresh, num_truth: Subjects of the fresh and of the large draw.
        seed: Decides the resamples.
    """

    def __init__(self, real: Path, cache: Path, *, num_fresh: int, num_truth: int, seed: int) -> None:
        self.vocabulary = Vocabulary()
        self.seed = seed
        self.fresh = self.draw(cache, FRESH_SEED, num_fresh)
        self.train = read_cohort(real, self.vocabulary, "train")
        self._transitions, self._values = Transitions(self.fresh), Values(self.fresh)
        large = self.draw(cache, TRUTH_SEED, num_truth)
        self._real: dict[int, Scores] = {}
        self.truth = effects(large, seed=seed, num_resamples=TRUTH_RESAMPLES)
        self.num_truth = large.size
        self.train_effects = effects(self.train, seed=seed, num_resamples=NUM_RESAMPLES)

    def draw(self, cache: Path, seed: int, number: int) -> Cohort:
        """A draw of the hospital."""
        return cohort_of(
            cached_tables(cache, f"hospital-seed{seed}", partial(simulate_subject, seed), number), self.vocabulary
        )

    def score(self, name: str, cohort: Cohort) -> Scores:
        """Measures a cohort."""
        found = self._fidelity(name, cohort, NUM_RESAMPLES)
        return replace(found, effects=effects(cohort, seed=self.seed, num_resamples=NUM_RESAMPLES))

    def _fidelity(self, name: str, cohort: Cohort, num_resamples: int) -> Scores:
        weights = subject_draws(cohort.size, self.seed, num_resamples)
        return Scores(
            name,
            cohort.size,
            self._transitions.measure(cohort, weights),
            self._values.measure(cohort, weights),
            lengths(self.fresh, cohort, weights),
            [],
        )

    def real_of(self, size: int) -> Scores:
        """The fidelity of as many training subjects as there are twins, drawn by the seed; of all if fewer."""
        size = min(size, self.train.size)
        if size not in self._real:
            chosen = generator(self.seed, "training subjects", size).permutation(self.train.size)[:size]
            self._real[size] = self._fidelity("real", self.train.take(np.sort(chosen)), 1)
        return self._real[size]

    def floor_of(self, cohort: Cohort) -> Scores:
        """What broken data reaches: codes dealt anew, numbers from normal laws, ages and sexes of somebody else."""
        rng = generator(self.seed, "floor", cohort.size)
        once = np.ones((2, cohort.size))  # no resamples: the floor needs no interval
        columns = Cohort(shuffled_columns(cohort.records, cohort.records, rng), cohort.smoking)
        strangers = shuffled_subjects(cohort, rng)
        return Scores(
            "floor",
            cohort.size,
            self._transitions.measure(columns, once),
            self._values.measure(normal_values(cohort, rng), once),
            lengths(self.fresh, strangers, once),
            [],
        )

    def held(self, scores: Scores) -> tuple[list[Held], list[Held]]:
        """Every effect against the truth, on the twins' own error alone, and with that of the training subjects."""
        return held(scores.effects, self.truth), held(scores.effects, self.truth, self.train_effects)


def normal_values(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    """The numbers of each code from the normal law of their mean and standard deviation: a marginal without a shape."""
    records = cohort.records
    value = records.value.copy()
    for code in np.unique(records.code[np.isfinite(value)]):
        rows = np.flatnonzero((records.code == code) & np.isfinite(value))
        known = value[rows].astype(np.float64)
        value[rows] = (known.mean() + known.std() * rng.standard_normal(len(rows))).astype(np.float32)
    return replace(cohort, records=replace(records, value=value))


def fidelity_lines(twins: Scores, real: Scores, floor: Scores) -> list[Line]:
    """Transitions, numbers and lengths against their goals."""
    names = {
        "joint": "transition R2, share of all steps",
        "given": "transition R2, given the first code",
        "visits": "transition R2, visit to visit, given the first code",
    }
    lines = []
    for key, what in names.items():
        mine, best = twins.transitions[key], real.transitions[key].value
        goal = f"{best - MAX_R2_LOSS:.3f} or more"
        lines.append(Line(what, mine, best, floor.transitions[key].value, goal, mine.value >= best - MAX_R2_LOSS))
    mine, best = twins.values.mean, real.values.mean.value
    limit = best + MAX_KS_GAIN
    goal = f"{limit:.3f} or less"
    lines.append(Line("KS of numbers, mean over codes", mine, best, floor.values.mean.value, goal, mine.value <= limit))
    for row, there, broken in zip(twins.lengths, real.lengths, floor.lengths, strict=True):
        what = f"{row.what}, {row.band[0]} to {row.band[1]} years, relative error"
        error = row.relative
        is_met = abs(error.value) <= MAX_LENGTH_ERROR if math.isfinite(error.value) else None
        lines.append(Line(what, error, there.relative.value, broken.relative.value, "within 7 %", is_met))
    return lines


@dataclass(frozen=True)
class Tally:
    """How many effects hold.

    Attributes:
        measured: Effects that could be estimated in the twins, of `asked`.
        strict: Whose interval, of the twins' own sampling, contains the truth.
        expected: How many of a perfect model would: it inherits the sampling error of its training subjects.
        fair: That lie within 1.96 standard errors where those of the training subjects and of the truth count too.
        most_missed: How many of `asked` chance alone misses in 99 of 100 cases, at 5 % each.
        told: Effects that the twins' interval tells from none, of `tellable`, which the truth's does.
    """

    asked: int
    measured: int
    strict: int
    expected: float
    fair: int
    most_missed: int
    told: int
    tellable: int

    @property
    def is_met(self) -> bool:
        """Whether no more are missed than chance explains; what was not measured is missed."""
        return self.asked - self.fair <= self.most_missed


def tally(strict: Sequence[Held], fair: Sequence[Held], train: Sequence[Effect]) -> Tally:
    """Counts the effects that hold."""
    expected = 0.0
    for one, of_train in zip(strict, train, strict=True):
        if one.holds is not None and math.isfinite(of_train.interval.error):
            mine, theirs = one.twins.interval.error, of_train.interval.error
            expected += 1 - 2 * float(stats.norm.sf(1.959964 * mine / max(math.hypot(mine, theirs), 1e-12)))
    tellable = [one for one in strict if not one.truth.interval.low <= 0.0 <= one.truth.interval.high]
    return Tally(
        asked=len(strict),
        measured=sum(one.holds is not None for one in strict),
        strict=sum(one.holds is True for one in strict),
        expected=expected,
        fair=sum(abs(one.z) <= 1.959964 for one in fair),
        most_missed=int(stats.binom.ppf(0.99, len(strict), 0.05)),
        told=sum(one.is_told for one in tellable),
        tellable=len(tellable),
    )


@dataclass(frozen=True)
class Violations:
    """Rules that twins break.

    Attributes:
        masked: Events that break a rule of a kind that generation masks, by rule, twins and real.
        others: Share of the subjects concerned that break any other hard rule, by rule, twins and real.
        mass: Share of the probability that was masked; None where counts.json does not say.
        num_rules: Rules of the first kind that applied to anybody.
    """

    masked: dict[str, tuple[int, int]]
    others: dict[str, tuple[float, float]]
    mass: float | None
    num_rules: int


def count_rules(folder: Path) -> RuleCounter:
    """What breaks the shipped hard rules in a dataset."""
    rules = [one for one in rules_from(compose("check", ["synthetic=x", "real=x"])["rules"]) if one.is_hard]
    counter = RuleCounter(rules)
    for table in open_dataset(folder).iter_events():
        counter.look(table)
    return counter


def masked_mass(twins: Path) -> float | None:
    """Share of the probability that generation masked; None where counts.json does not say."""
    path = twins / "counts.json"
    mass = read_json(path).get("share of probability masked") if path.is_file() else None
    return None if mass is None else float(mass)


def violations(twins: Path, real: RuleCounter) -> Violations:
    """Counts what breaks the rules in twins, beside what does in real subjects."""
    found = count_rules(twins)
    masked, others, num_rules = {}, {}, 0
    for rule in found.rules:
        mine, theirs = found.tally(rule), real.tally(rule)
        if rule.kind in MASK_KINDS:
            num_rules += mine.events > 0
            if mine.broken_events:
                masked[rule.name] = (mine.broken_events, theirs.broken_events)
        elif mine.broken_subjects:
            others[rule.name] = (mine.share, theirs.share)
    return Violations(masked, others, masked_mass(twins), num_rules)
