"""Simulated trials of trials_errors_survival.py: how often each row rejects, a thousand trials at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from trials_errors_survival_laws import Law
from trials_errors_survival_tests import SEQUENTIAL, Design, Row, SurvivalTest

from medtwin.trials.analysis.batched.survival_order import TrialsInOrder, order_trials
from medtwin.trials.design.changing_effects import exits_with_means
from medtwin.trials.design.group_sequential import SurvivalDesign
from medtwin.trials.design.weighted_logrank_design import weighted_score
from medtwin.trials.engine.batch import BLOCK, Course, TrialPlan, draw_patients, run_trials, snapshot

Floats = NDArray[np.float64]
TRIALS_PER_CHUNK = 10 * BLOCK
ENGINE_HAZARD_RATIO = 0.7
ENGINE = "engine: log-rank"


def engine_designs(law: Law) -> list[Design]:
    """The designs that the engine runs by itself, with its own numbers of events."""
    if law.name not in ("null, 1:1", "null, 2:1", "better, 1:1", "better, 2:1"):
        return []
    chosen = [each for each in SEQUENTIAL if law.ratio == 1 or len(each.places) == 3]
    return [each if law.is_null else replace(each, obeys_futility=True) for each in chosen if _is_of_engine(each)]


def capped_designs() -> list[Design]:
    """Designs of the engine that end by the calendar, short of their events: bounds are recomputed there."""
    chosen = [each for each in SEQUENTIAL if len(each.places) == 3 and each.plan.futility is None]
    return [replace(each, name=f"{each.name}, ended in month 20", max_months=20.0) for each in chosen[:2]]


def _is_of_engine(design: Design) -> bool:
    return len(design.places) == 3 or "Brien" in design.name


@lru_cache(maxsize=64)
def engine_plan(law: Law, design: Design) -> TrialPlan:
    """The engine's plan of a design under a law: power 0.85 at hazard ratio 0.7."""
    plan = replace(design.plan, power=0.85)
    design_of_engine = SurvivalDesign(plan, ENGINE_HAZARD_RATIO, law.ratio)
    return replace(law.plan, design=design_of_engine, max_months=design.max_months)


def engine_row(law: Law, design: Design) -> Row:
    """The row of a design that the engine runs, and what theory says: the score's law at the months of its events."""
    made = engine_plan(law, design).design
    is_obeyed = design.plan.futility is not None and design.obeys_futility
    lower = tuple(made.bounds.futility.tolist()) if is_obeyed else None
    trial = law.truth(strata=False)
    scores = [weighted_score(trial, float(month)) for month in trial.time_of_events(made.events)]
    means = [0.0 if law.is_null else score.z for score in scores]
    expected = exits_with_means(made.bounds.fractions, made.bounds.efficacy, lower, means).power
    upper = tuple(made.bounds.efficacy.tolist())
    return Row(law.name, ENGINE, design.name, made.events, upper, lower, expected)


@dataclass(frozen=True)
class Work:
    """A chunk of the trials of a law.

    Attributes:
        law: Under which. tests: With their rows. engine: Designs that the engine runs, with their rows.
        seed: Of the run. chunk: Which thousand trials.
    """

    law: Law
    tests: Sequence[tuple[SurvivalTest, Sequence[Row]]]
    engine: Sequence[tuple[Design, Row]]
    seed: int
    chunk: int

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return [row for _, rows in self.tests for row in rows] + [row for _, row in self.engine]

    @property
    def key(self) -> tuple[str | int, ...]:
        """What makes a stored result of the seed that of this work."""
        text = f"{self.law!r}|{[repr(row) for row in self.rows]}"
        return self.law.name, hashlib.sha256(text.encode()).hexdigest()[:16], self.chunk


def run_work(work: Work) -> dict[str, int]:
    """How many trials of the chunk each row rejects in."""
    hits = dict.fromkeys((row.key for row in work.rows), 0)
    law, blocks = work.law, TRIALS_PER_CHUNK // BLOCK
    for block in range(work.chunk * blocks, (work.chunk + 1) * blocks):
        patients = draw_patients(law.plan, work.seed, block)
        if work.tests:
            found = statistics(law, law.course(patients), _looks(work))
            for test, rows in work.tests:
                for row in rows:
                    hits[row.key] += int(row.rejects(found[test.name]).sum())
        for design, row in work.engine:
            plan, ratio = engine_plan(law, design), law.hazard_ratio.rates[0]
            stops = run_trials(plan, patients, ratio, obeys_futility=design.obeys_futility)
            hits[row.key] += int(stops.is_rejected.sum())
    return hits


def _looks(work: Work) -> dict[SurvivalTest, set[int]]:
    """The looks at which some row asks each test."""
    count = len(work.law.events)
    return {test: {place % count for row in rows for place in row.places} for test, rows in work.tests}


def statistics(law: Law, course: Course, tests: Mapping[SurvivalTest, set[int]]) -> dict[str, Floats]:
    """Z of each test at the looks at which it is asked, (trials, looks of the law); nan at the others."""
    calendar = np.sort(course.calendar, axis=1)
    found = {test.name: np.full((len(calendar), len(law.events)), np.nan) for test in tests}
    for look, events in enumerate(law.events):
        asked = [test for test, looks in tests.items() if look in looks]
        data = snapshot(course, np.arange(len(calendar)), calendar[:, events - 1])
        ordered: dict[bool, TrialsInOrder] = {}
        for test in asked:
            if test.in_strata not in ordered:
                stratum = course.patients.stratum if test.in_strata else None
                ordered[test.in_strata] = order_trials(data.time, data.event, course.patients.arm, stratum)
            found[test.name][:, look] = test.z(ordered[test.in_strata], law.margin)
    return found


def speeds(law: Law, tests: Sequence[SurvivalTest], turns: int = 7) -> dict[str, float]:
    """Trials per CPU second of each test at the law's last look, ordering of the patients included; least of turns."""
    course = law.course(draw_patients(law.plan, 1, 0))
    data = snapshot(course, np.arange(BLOCK), np.sort(course.calendar, axis=1)[:, law.events[-1] - 1])
    stratum = course.patients.stratum if law.has_strata else None
    found = {}
    for test in tests:
        spent = []
        for _ in range(turns):
            start = time.process_time()
            test.z(order_trials(data.time, data.event, course.patients.arm, stratum), law.margin)
            spent.append(time.process_time() - start)
        found[test.name] = BLOCK / min(spent)
    return found
