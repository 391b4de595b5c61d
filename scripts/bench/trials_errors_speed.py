"""How many trials a second of CPU time of one core the batched kernels analyse, beside a loop over trials in numpy."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import numpy as np

from medtwin.trials.analysis.batched.ancova import analyses_of_covariance
from medtwin.trials.analysis.batched.glm import logistic_models
from medtwin.trials.analysis.batched.mmrm import repeated_measures
from medtwin.trials.analysis.batched.ranks import rank_sum_tests
from medtwin.trials.analysis.batched.standardised_risks import augmented_risks
from medtwin.trials.analysis.batched.t_tests import pooled_t_tests

TRIALS, PATIENTS, TURNS = 256, 450, 5


def _least(work: Callable[[], object], trials: int) -> float:
    """Trials per second of CPU time, of the quickest turn."""
    best = math.inf
    for _ in range(TURNS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return trials / best


def speed_section() -> list[str]:
    """Lines of Markdown."""
    rng, arm = np.random.default_rng(1), np.arange(PATIENTS) % 2
    y, x = rng.standard_normal((2, TRIALS, PATIENTS))
    responds = rng.random((TRIALS, PATIENTS)) < 0.4
    visits = rng.standard_normal((TRIALS, 197, 4)) + rng.standard_normal((TRIALS, 197, 1))
    visits[np.arange(4) >= rng.integers(1, 12, (TRIALS, 197, 1))] = np.nan
    arm_of_visits, base = np.arange(197) % 2, rng.standard_normal((TRIALS, 197))
    some = 64

    def by_lstsq() -> None:
        for row in range(some):
            design = np.column_stack([np.ones(PATIENTS), arm, x[row]])
            b, squares, _, _ = np.linalg.lstsq(design, y[row], rcond=None)
            _ = b[1] / np.sqrt(squares[0] / (PATIENTS - 3) * np.linalg.inv(design.T @ design)[1, 1])

    works: dict[str, tuple[Callable[[], object], int]] = {
        "ANCOVA, one covariate": (lambda: analyses_of_covariance(y, arm, x), TRIALS),
        "ANCOVA, one covariate, HC3": (lambda: analyses_of_covariance(y, arm, x, variance="HC3"), TRIALS),
        "the same by numpy's lstsq, trial by trial, model-based": (by_lstsq, some),
        "pooled t": (lambda: pooled_t_tests(y, arm), TRIALS),
        "rank sum": (lambda: rank_sum_tests(y, arm), TRIALS),
        "logistic regression, one covariate, and g-computation": (
            lambda: augmented_risks(logistic_models(responds, arm, x)),
            TRIALS,
        ),
        "MMRM, 197 patients, 4 visits, Kenward-Roger": (lambda: repeated_measures(visits, arm_of_visits, base), TRIALS),
        "MMRM, 197 patients, 4 visits, Satterthwaite": (
            lambda: repeated_measures(visits, arm_of_visits, base, inference="satterthwaite"),
            TRIALS,
        ),
    }
    lines = [
        "## Speed",
        "",
        f"{PATIENTS} patients unless said otherwise, CPU time of one core, quickest of {TURNS} turns;",
    ]
    lines += [f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} threads. statsmodels is not among what this"]
    lines += ["project installs: the loop is numpy's.", "", "| analysis | trials per CPU second |", "|---|---|"]
    return [*lines, *(f"| {name} | {_least(*work):,.0f} |" for name, work in works.items()), ""]
