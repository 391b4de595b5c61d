"""Adjustment for a prognostic score: variance saved, errors kept when the score is distorted, power beside the design.

Also with a score that a linear model fitted to one half of a synthetic cohort gives the other half, from whose recorded
values trials are drawn.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t
from trials_errors_designs import ALPHA
from trials_errors_exact import exact_ancova
from trials_errors_rates import nominal_tolerance, standard_error
from trials_errors_store import Store

from medtwin.core.dataset import open_dataset
from medtwin.trials.analysis.batched.ancova import prognostic_score_tests
from medtwin.trials.analysis.batched.t_tests import pooled_t_tests
from medtwin.trials.analysis.linear import linear_model
from medtwin.trials.design.prognostic import PrognosticAdjustment
from medtwin.trials.population.cohort import NEVER, Cohort, read_cohort

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
ARM, EFFECT, CHUNK, BATCHES = 150, 0.3, 250, 20
SYSTOLIC, HBA1C, BMI = "LOINC//8480-6", "LOINC//4548-4", "LOINC//39156-5"
_FOLLOW_UP_DAYS, _TOLERANCE, _ERRORS = 180, 0.02, 4.0
DISTORTIONS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "exp(m) 3 - 7": lambda m, rng: np.exp(m) * 3 - 7,
    "a constant": lambda m, rng: np.full_like(m, 4.0),
    "noise": lambda m, rng: rng.standard_normal(m.shape),
    "-m": lambda m, rng: -m,
}


@dataclass(frozen=True)
class Adjusted:
    """Of many trials under the null: errors, and variance of the adjusted estimate over that of the unadjusted.

    Attributes:
        rejected: Share, robust (HC3) and model-based. ratio, half: The variance ratio, half its 95 % interval.
    """

    trials: int
    rejected: tuple[float, float]
    ratio: float
    half: float

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of the shares."""
        return standard_error(self.rejected[0], self.trials)


def measure(name: str, trials: int, store: Store, draw: Draw) -> Adjusted:
    """Of trials whose values and scores, (trials, 300), are drawn so; what the store has is not done again."""
    num, robust, model, ratio, half = store.once(
        lambda: _simulate(name, trials, store.seed, draw), "score", name, trials
    )
    return Adjusted(int(num), (robust, model), ratio, half)


def _simulate(name: str, trials: int, seed: int, draw: Draw) -> list[float]:
    """Trials, shares that reject, the variance ratio and half its interval; patients take turns in the arms."""
    arm = (np.arange(2 * ARM) + 1) % 2
    rejected, ratios = np.zeros(2), []
    for batch in range(BATCHES):
        rng, estimates = np.random.default_rng([seed, zlib.crc32(name.encode()), batch]), []
        for start in range(0, max(trials // BATCHES, 2), CHUNK):
            y, score = draw(rng, min(CHUNK, max(trials // BATCHES, 2) - start))
            robust = prognostic_score_tests(y, arm, score)
            model = prognostic_score_tests(y, arm, score, variance="model")
            rejected += robust.rejects(ALPHA).sum(), model.rejects(ALPHA).sum()
            estimates.append(np.stack([robust.estimate, pooled_t_tests(y, arm).estimate]))
        both = np.concatenate(estimates, axis=1)
        ratios.append(both[0].var() / both[1].var())
    total = BATCHES * max(trials // BATCHES, 2)
    half = float(t.ppf(0.975, BATCHES - 1)) * np.std(ratios, ddof=1) / math.sqrt(BATCHES)
    return [float(total), *(rejected / total).tolist(), float(np.mean(ratios)), float(half)]


def normal_draw(rho: float, effect: float = 0.0, distortion: str | None = None) -> Draw:
    """Values of variance 1 whose correlation with the score is rho, before the score is distorted."""
    arm = (np.arange(2 * ARM) + 1) % 2

    def draw(rng: np.random.Generator, num: int) -> tuple[Floats, Floats]:
        m, e = rng.standard_normal((2, num, 2 * ARM))
        y = rho * m + math.sqrt(1 - rho**2) * e + effect * arm
        return y, m if distortion is None else DISTORTIONS[distortion](m, rng)

    return draw


def prognosis_section(trials: int, store: Store, twins: Path | None) -> tuple[list[str], bool]:
    """Lines of Markdown, and whether everything holds."""
    lines = ["## Adjustment for a prognostic score", "", f"{2 * ARM} patients, 1:1; {trials:,} trials a row.", ""]
    lines += ["| score | type I error, HC3 | model-based | variance ratio | 1 - r^2 | verdict |", "|" + "---|" * 6]
    holds = True
    laws = [(f"correlation {rho}", 1 - rho**2, normal_draw(rho)) for rho in (0.5, 0.7)]
    laws += [(f"correlation 0.7, then {name}", _left(name), normal_draw(0.7, distortion=name)) for name in DISTORTIONS]
    for name, left, draw in laws:
        line, good = _row(name, left, measure(name, trials, store, draw))
        lines.append(line)
        holds &= good
    more, good = _power_lines(trials, store)
    lines += [
        "",
        "The score exp(m) has a long tail: within a trial of 300 its correlation may not be that of all patients.",
        "",
        *more,
    ]
    holds &= good
    if twins is not None:
        more, good = twin_section(trials, store, twins)
        lines += more
        holds &= good
    return [*lines, ""], holds


def _left(distortion: str) -> float:
    """1 - r^2 of a distorted score, of the correlation 0.7: of exp(m) by the log-normal law."""
    kept = {"exp(m) 3 - 7": 1 / (math.e - 1), "a constant": 0.0, "noise": 0.0, "-m": 1.0}[distortion]
    return 1 - 0.49 * kept


def _row(name: str, left: float, found: Adjusted) -> tuple[str, bool]:
    tolerance = nominal_tolerance(found.rejected[0], found.trials)
    good = all(abs(each - ALPHA) <= tolerance for each in found.rejected)
    good &= abs(found.ratio - left) <= max(_TOLERANCE, 0.0 if found.trials >= 20_000 else 2 * found.half)
    errors = " | ".join(f"{each:.4f} ± {found.error:.4f}" for each in found.rejected)
    ratio = f"{found.ratio:.4f} ({found.ratio - found.half:.4f} to {found.ratio + found.half:.4f})"
    return f"| {name} | {errors} | {ratio} | {left:.4f} | {'holds' if good else 'MISSES'} |", good


def _power_lines(trials: int, store: Store) -> tuple[list[str], bool]:
    holds = True
    lines = [f"Power at an effect of {EFFECT} standard deviations:", ""]
    lines += ["| correlation | HC3 | model-based | design (normal) | exact (t) | verdict |", "|" + "---|" * 6]
    for rho in (0.5, 0.7):
        found = measure(f"power {rho}", trials, store, normal_draw(rho, EFFECT))
        design = PrognosticAdjustment(EFFECT, 1.0, rho).power(ARM, ALPHA)
        exact = exact_ancova(EFFECT, math.sqrt(1 - rho**2), ARM, ARM)
        shares = " | ".join(f"{each:.4f} ± {found.error:.4f}" for each in found.rejected)
        good = abs(found.rejected[1] - exact) <= _ERRORS * found.error
        holds &= good
        lines.append(f"| {rho} | {shares} | {design:.4f} | {exact:.4f} | {'as exact' if good else 'MISSES'} |")
    return lines, holds


def covariates_of(cohort: Cohort) -> tuple[Floats, Floats]:
    """Covariates on a day in the middle of each record, and systolic pressure half a year later or more.

    Subjects without one of them are left out. Columns: constant, age, sex, last systolic pressure, HbA1c and BMI.
    """
    pressure = cohort.rows_of([SYSTOLIC])
    x, y = [], []
    for subject in np.flatnonzero(cohort.birth < NEVER):
        rows = np.flatnonzero(pressure.subject == subject)
        if len(rows) < 3:
            continue
        day = pressure.day[rows[len(rows) // 2]]
        later = rows[pressure.day[rows] >= day + _FOLLOW_UP_DAYS]
        last = [_last(cohort, code, int(subject), int(day)) for code in (SYSTOLIC, HBA1C, BMI)]
        if len(later) and not any(map(math.isnan, last)):
            age = float(day - cohort.birth[subject]) / 365.25
            x.append([1.0, age, float(cohort.sex[subject] == "F"), *last])
            y.append(float(pressure.value[later[0]]))
    return np.array(x), np.array(y)


def _last(cohort: Cohort, code: str, subject: int, day: int) -> float:
    """The last value of a code up to a day, nan for none."""
    records = cohort.rows_of([code])
    first, end = np.searchsorted(records.subject, [subject, subject + 1])
    upto = first + int(np.searchsorted(records.day[first:end], day, side="right"))
    return float(records.value[upto - 1]) if upto > first else math.nan


def twin_section(trials: int, store: Store, path: Path) -> tuple[list[str], bool]:
    """A score fitted on one half of a cohort, in trials drawn from the other half's recorded values."""
    dataset = open_dataset(path)
    x, y = covariates_of(read_cohort(dataset.iter_events(), dataset.codes(), [SYSTOLIC, HBA1C, BMI]))
    rng = np.random.default_rng([store.seed, 17])
    order = rng.permutation(len(y))
    fitted, held_out = order[: len(y) // 2], order[len(y) // 2 :]
    model = linear_model(y[fitted], x[fitted])
    score, outcome = x[held_out] @ model.coefficients, y[held_out]
    r = float(np.corrcoef(score, outcome)[0, 1])
    half = float(norm.ppf(0.975)) / math.sqrt(len(outcome) - 3)
    low, high = (math.tanh(math.atanh(r) + sign * half) ** 2 for sign in (-1, 1))
    gone = 1 - ((outcome - score) ** 2).mean() / outcome.var()

    def draw(rng: np.random.Generator, num: int) -> tuple[Floats, Floats]:
        who = rng.integers(0, len(outcome), (num, 2 * ARM))
        return outcome[who], score[who]

    line, good = _row("score of the cohort's other half", 1 - r * r, measure("twins", trials, store, draw))
    return [
        "",
        f"A score from a cohort: a linear model of systolic pressure {_FOLLOW_UP_DAYS} days after a visit or later,",
        f"by age, sex, pressure, HbA1c and BMI then, fitted on {len(fitted):,} subjects.",
        f"On {len(outcome):,} held-out subjects its",
        f"r^2 is {r * r:.3f} ({low:.3f} to {high:.3f}), and it explains {gone:.3f} of the variance as it stands.",
        f"Trials draw {2 * ARM} of the held-out subjects with replacement, with their recorded values in either arm:",
        "",
        "| score | type I error, HC3 | model-based | variance ratio | 1 - r^2 | verdict |",
        "|" + "---|" * 6,
        line,
    ], good
