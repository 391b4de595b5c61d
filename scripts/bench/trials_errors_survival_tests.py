"""The survival tests and the designs that trials_errors_survival.py measures, each beside its large-sample law."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from trials_errors_rates import rejections
from trials_errors_survival_laws import Law

from medtwin.trials.analysis.batched.survival_curves import milestone, restricted_mean_difference
from medtwin.trials.analysis.batched.survival_hazard_ratio import cox_score, cox_wald
from medtwin.trials.analysis.batched.survival_maximum import upper_tails_of_maximum
from medtwin.trials.analysis.batched.survival_order import TrialsInOrder
from medtwin.trials.analysis.batched.survival_scores import logrank, max_combo, weighted_logrank
from medtwin.trials.analysis.weighted_logrank import USUAL_WEIGHTS
from medtwin.trials.design.average_hazard_ratio import average_hazard_ratio_looks
from medtwin.trials.design.boundaries import haybittle_peto_bounds, shaped_bounds
from medtwin.trials.design.changing_effects import exits_with_means, stopping
from medtwin.trials.design.group_sequential import GroupSequential
from medtwin.trials.design.max_combo_design import max_combo as max_combo_law
from medtwin.trials.design.milestone_design import ArmSummaries, milestone_survival, restricted_mean
from medtwin.trials.design.spending import Spending
from medtwin.trials.design.survival_size import effect_per_event
from medtwin.trials.design.two_arm_survival import TwoArmSurvival
from medtwin.trials.design.weighted_logrank_design import (
    log_hazard_ratio,
    log_hazard_ratio_variance,
    weighted_logrank_looks,
    weighted_score,
)
from medtwin.trials.survival_weights import LOGRANK, FlemingHarrington, MagirrBurman, Weight

Floats = NDArray[np.float64]
ALPHA = 0.025
HORIZON = 10.0  # months, of restricted means and milestones
LATE, MODEST = FlemingHarrington(0, 1), MagirrBurman(6.0)
Expected = Callable[[TwoArmSurvival, float, float], tuple[float, float]]
"""E Z and information of a trial at a calendar month, against a margin."""


@dataclass(frozen=True)
class SurvivalTest:
    """A test of survival.

    Attributes:
        name: In the table. kind: Of the test, whatever the strata.
        z: Of every trial, (trials,), against a margin; a p value as the z that has it.
        expected: Its large-sample law; None where that is no normal one.
        in_strata: Whether it compares within strata.
        most_looks: 1: it is offered at one look alone; 2: all that it asks has been seen soon after the first.
    """

    name: str
    kind: str
    z: Callable[[TrialsInOrder, float], Floats]
    expected: Expected | None
    in_strata: bool = False
    most_looks: int = 3


def _score(weight: Weight) -> Expected:
    def expected(trial: TwoArmSurvival, month: float, margin: float) -> tuple[float, float]:
        score = weighted_score(trial, month, weight, margin)
        return score.z, score.variance

    return expected


def _wald(trial: TwoArmSurvival, month: float, margin: float) -> tuple[float, float]:
    information = 1 / log_hazard_ratio_variance(trial, month)
    return float((np.log(margin) - log_hazard_ratio(trial, month)) * np.sqrt(information)), information


def _difference(law: Callable[[TwoArmSurvival, float, float], ArmSummaries]) -> Expected:
    def expected(trial: TwoArmSurvival, month: float, _: float) -> tuple[float, float]:
        found = law(trial, month, HORIZON)
        return float(found.difference * np.sqrt(found.information)), found.information

    return expected


def _log_log(trial: TwoArmSurvival, month: float, _: float) -> tuple[float, float]:
    found = milestone_survival(trial, month, HORIZON)
    slope = found.values * np.log(found.values)
    information = float(1 / (found.variances / slope**2).sum())
    effect = float(np.diff(np.log(-np.log(found.values)))[0])
    return effect * np.sqrt(information), information


_SCORES: tuple[SurvivalTest, ...] = (
    SurvivalTest("log-rank", "logrank", lambda t, _: logrank(t).z, _score(LOGRANK)),
    SurvivalTest("Fleming-Harrington (0, 1)", "late", lambda t, _: weighted_logrank(t, LATE).z, _score(LATE)),
    SurvivalTest("Magirr-Burman (6 months)", "modest", lambda t, _: weighted_logrank(t, MODEST).z, _score(MODEST)),
    SurvivalTest("MaxCombo", "maxcombo", lambda t, _: -ndtri(max_combo(t).p_value), None, most_looks=1),
)
_HAZARD_RATIOS: tuple[SurvivalTest, ...] = (
    SurvivalTest("Cox, Wald", "wald", lambda t, margin: cox_wald(t, margin).z, _wald),
    SurvivalTest("Cox, score", "score", cox_score, _score(LOGRANK)),
)
_CURVES: tuple[SurvivalTest, ...] = (
    SurvivalTest(
        f"restricted mean to {HORIZON:g} months",
        "rmst",
        lambda t, _: restricted_mean_difference(t, HORIZON).z,
        _difference(restricted_mean),
        most_looks=2,
    ),
    SurvivalTest(
        f"survival at {HORIZON:g} months, log-log",
        "loglog",
        lambda t, _: milestone(t, HORIZON).z,
        _log_log,
        most_looks=2,
    ),
    SurvivalTest(
        f"survival at {HORIZON:g} months, naive",
        "naive",
        lambda t, _: milestone(t, HORIZON, scale="naive").z,
        _difference(milestone_survival),
        most_looks=1,
    ),
)


def _within_strata(test: SurvivalTest) -> SurvivalTest:
    return replace(test, name=f"{test.name}, stratified", in_strata=True)


def tests_of(law: Law) -> tuple[SurvivalTest, ...]:
    """The tests that are measured under a law."""
    if law.margin != 1:
        return _HAZARD_RATIOS
    plain = (*_SCORES, _HAZARD_RATIOS[0])
    if law.has_strata:
        return (*(_within_strata(test) for test in plain), plain[0])
    return (*plain, *_CURVES)


@dataclass(frozen=True)
class Design:
    """A way to look and to stop.

    Attributes:
        name: In the table. places: Of its looks among those of the law. plan: Of the bounds.
        obeys_futility: Whether trials stop at the futility bounds.
        max_months: The engine's trials are analysed for the last time then.
    """

    name: str
    places: tuple[int, ...]
    plan: GroupSequential
    obeys_futility: bool = True
    max_months: float = np.inf


HALVES, THREE = (0.5, 1.0), (0.5, 0.75, 1.0)
_SPENDING = {
    "O'Brien-Fleming-type": Spending("obrien_fleming"),
    "Pocock-type": Spending("pocock"),
    "Hwang-Shih-DeCani (-4)": Spending("hwang_shih_decani", -4.0),
    "Kim-DeMets (2)": Spending("kim_demets", 2.0),
}
_OF, _BETA = _SPENDING["O'Brien-Fleming-type"], Spending("hwang_shih_decani", -2.0)
FIXED = Design("fixed", (-1,), GroupSequential(looks=(1.0,)))


def _sequential() -> tuple[Design, ...]:
    found = []
    for looks, places in ((HALVES, (0, 2)), (THREE, (0, 1, 2))):
        for name, spending in _SPENDING.items():
            found.append(Design(f"{len(looks)} looks, {name}", places, GroupSequential(looks=looks, efficacy=spending)))
        for binding in (True, False):
            plan = GroupSequential(looks=looks, power=0.85, efficacy=_OF, futility=_BETA, binding=binding)
            word = "binding" if binding else "non-binding"
            found.append(Design(f"{len(looks)} looks, O'Brien-Fleming-type, {word} futility", places, plan, binding))
    return tuple(found)


SEQUENTIAL = _sequential()


def designs_of(law: Law, test: SurvivalTest) -> tuple[Design, ...]:
    """The designs of a test under a law: without an effect, non-binding futility is disregarded; with one, obeyed."""
    if law.only_fixed or len(law.events) == 1:
        return (FIXED,)
    offered = [each for each in SEQUENTIAL if len(each.places) <= test.most_looks]
    return (FIXED, *(each if law.is_null else replace(each, obeys_futility=True) for each in offered))


@dataclass(frozen=True)
class Row:
    """A test in a design under a law, with its bounds and what theory says of it.

    Attributes:
        law, test, design: Their names.
        places: Of the looks. upper, lower: (looks,) z bounds; lower None: none that are obeyed.
        expected: How often it should reject.
    """

    law: str
    test: str
    design: str
    places: tuple[int, ...]
    upper: tuple[float, ...]
    lower: tuple[float, ...] | None
    expected: float

    @property
    def key(self) -> str:
        """The row in one line."""
        return f"{self.law} | {self.test} | {self.design}"

    def rejects(self, z: Floats) -> NDArray[np.bool_]:
        """Which trials reject, (trials,), from z at the law's looks, (trials, looks)."""
        return rejections(z, self.places, self.upper, self.lower)


@lru_cache(maxsize=256)
def _law_of(law: Law, test: SurvivalTest) -> tuple[Floats, Floats]:
    """E Z and information of a test at the looks of a law."""
    assert test.expected is not None
    trial = law.truth(strata=test.in_strata)
    found = np.array([test.expected(trial, float(month), law.margin) for month in law.months()])
    return (np.zeros(len(found)) if law.is_null else found[:, 0]), found[:, 1]


def _power_of_max_combo(law: Law, test: SurvivalTest) -> float:
    """As the design has it, its critical value found by the tail of the analysis, which is faster."""
    joint = max_combo_law(law.truth(strata=test.in_strata), float(law.months()[-1]), USUAL_WEIGHTS)
    correlation = joint.correlation[None]
    critical = brentq(lambda z: upper_tails_of_maximum([z], correlation)[0] - ALPHA, 1.5, 3.0, xtol=1e-10)
    return 1 - joint.below(float(critical), joint.means)


def row_of(law: Law, test: SurvivalTest, design: Design) -> Row:
    """The row of a test in a design under a law."""
    if test.expected is None:
        power = ALPHA if law.is_null else _power_of_max_combo(law, test)
        return Row(law.name, test.name, design.name, design.places, (float(-ndtri(ALPHA)),), None, power)
    means, information = (each[list(design.places)] for each in _law_of(law, test))
    bounds = design.plan.bounds_at(tuple((information / information[-1]).tolist()))
    is_obeyed = design.plan.futility is not None and design.obeys_futility
    lower = tuple(bounds.futility.tolist()) if is_obeyed else None
    expected = exits_with_means(information, bounds.efficacy, lower, means).power
    return Row(law.name, test.name, design.name, design.places, tuple(bounds.efficacy.tolist()), lower, expected)


def log_rank_powers(law: Law) -> dict[str, float]:
    """The power of the log-rank test at the last look, by every approximation that the room has."""
    trial, months = law.truth(strata=law.has_strata), law.months()[-1:]
    upper = FIXED.plan.bounds.efficacy
    powers = {
        "score's law": stopping(weighted_logrank_looks(trial, months), upper, None, "no_look").power,
        "its null variance": stopping(weighted_logrank_looks(trial, months), upper).power,
        "average hazard ratio": stopping(average_hazard_ratio_looks(trial, months), upper).power,
    }
    if law.is_proportional:
        drift = -effect_per_event(law.hazard_ratio.rates[0], law.ratio) * np.sqrt(law.events[-1])
        powers["Schoenfeld"] = float(ndtr(drift - upper[0]))
    return powers


def rows_of_shapes(law: Law, test: SurvivalTest) -> list[Row]:
    """The rows of bounds that are given by their shape, and not by what they spend."""
    found = []
    for fractions, places in ((HALVES, (0, 2)), (THREE, (0, 1, 2))):
        shapes = {
            "O'Brien-Fleming": shaped_bounds(fractions, ALPHA, 0.0),
            "Wang-Tsiatis (1/4)": shaped_bounds(fractions, ALPHA, 0.25),
            "Pocock": shaped_bounds(fractions, ALPHA, 0.5),
            "Haybittle-Peto (3)": haybittle_peto_bounds(fractions, ALPHA),
        }
        for name, upper in shapes.items():
            design = f"{len(places)} looks, {name}"
            found.append(Row(law.name, test.name, design, places, tuple(upper.tolist()), None, ALPHA))
    return found


def rows_of(law: Law, pattern: str = "") -> list[tuple[SurvivalTest, list[Row]]]:
    """The tests of a law with their rows whose line has the pattern."""
    found = []
    for test in tests_of(law):
        designs = [each for each in designs_of(law, test) if re.search(pattern, line_of(law, test.name, each))]
        if designs:
            found.append((test, [row_of(law, test, design) for design in designs]))
    return found


def line_of(law: Law, test: str, design: Design) -> str:
    """A row in one line."""
    return f"{law.name} | {test} | {design.name}"
