"""Simulates trials of milestones: trial i depends on the seed and i alone, whatever is simulated beside it."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context

import numpy as np

from medtwin.trials.engine.milestones.block import Block, Records
from medtwin.trials.engine.milestones.graph_tests import GraphTests
from medtwin.trials.engine.milestones.operating import MilestoneCharacteristics
from medtwin.trials.engine.milestones.patients import draw_patients
from medtwin.trials.engine.milestones.plan import EndpointScenario, MilestoneTrial
from medtwin.trials.enrolment.draws import TRIALS_PER_STREAM

BATCH = TRIALS_PER_STREAM


@dataclass(frozen=True)
class _Task:
    """Consecutive trials of a run."""

    trial: MilestoneTrial
    scenario: EndpointScenario
    seed: int
    first: int
    count: int
    batch: int

    def run(self) -> Records:
        tests, parts = GraphTests(self.trial), []
        for first in range(self.first, self.first + self.count, self.batch):
            count = min(self.batch, self.first + self.count - first)
            patients = draw_patients(self.trial, self.scenario, self.seed, first, count)
            parts.append(Block(self.trial, patients, tests).run())
        return _joined(parts)


def _joined(parts: list[Records]) -> Records:
    return Records(
        **{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Records)}
    )


def _run(task: _Task) -> Records:
    return task.run()


def simulate_milestones(
    trial: MilestoneTrial,
    scenario: EndpointScenario,
    num_trials: int = 10_000,
    *,
    seed: int,
    workers: int = 1,
    batch: int = BATCH,
) -> MilestoneCharacteristics:
    """The operating characteristics of a trial under a scenario.

    Scenarios and trials of the same seed share their patients' draws.

    Args:
        trial: The trial.
        scenario: The truth.
        num_trials: 1 or more.
        seed: 0 or more.
        workers: Processes. Neither they nor the batch change a number.
        batch: Trials side by side; a hundred share a stream of random numbers.

    Raises:
        ValueError: If a number is out of its range, or the scenario lacks an endpoint of the trial.
    """
    for name, value in (("num_trials", num_trials), ("workers", workers), ("batch", batch)):
        if int(value) != value or value < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    trial.check(scenario)
    if workers == 1:
        return MilestoneCharacteristics(trial, scenario, _Task(trial, scenario, seed, 0, num_trials, batch).run())
    share = -(-num_trials // workers // batch) * batch  # workers begin where a stream does
    tasks = [
        _Task(trial, scenario, seed, first, min(share, num_trials - first), batch)
        for first in range(0, num_trials, share)
    ]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return MilestoneCharacteristics(trial, scenario, _joined(list(pool.map(_run, tasks))))
