"""Steps by hand are worked from the definition in Pocock & Simon 1975, Biometrics 31:103, section 3."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.trials.analysis.survival_batch import (
    logrank_z_continuous,
    order_continuous,
    order_continuous_in_strata,
)
from medtwin.trials.engine.batch import mean_of, share_of
from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.enrolment.factors import strata
from medtwin.trials.enrolment.minimisation import Minimisation, imbalances
from medtwin.trials.enrolment.randomisation import PermutedBlocks, SimpleRandomisation, assign_in_turn

DRAWS = TrialDraws(2, 400)
FACTORS = ["sex", "stage", "site", "age"]
LEVELS = np.stack([np.random.default_rng(3 + f).integers(f % 3 + 2, size=(400, 120)) for f in range(4)])


def cells(*arms: list[int]) -> np.ndarray:
    """Patients so far of each arm at the next one's levels, for one trial."""
    return np.array(arms)[:, :, None]


def test_imbalances_of_four_factors_by_hand() -> None:
    """Margins 30, 18, 9, 19 against 31, 17, 8, 21.

    With the first arm the differences become 0, 2, 2, 1, with the second 2, 0, 0, 3.
    """
    counts = cells([30, 18, 9, 19], [31, 17, 8, 21])
    assert imbalances(counts).ravel().tolist() == [5, 5]
    assert imbalances(counts, "variance").ravel().tolist() == [4.5, 6.5]  # halves of squared differences
    assert imbalances(counts, "standard_deviation").ravel() == pytest.approx([5 / 2**0.5] * 2)
    assert imbalances(counts, weights=[1, 1, 1, 2]).ravel().tolist() == [6, 8]

    def given(**changes: object) -> list[float]:
        return Minimisation(FACTORS, **changes).probabilities(counts).ravel().round(9).tolist()  # type: ignore[arg-type]

    assert given() == [0.5, 0.5]
    assert given(imbalance="standard_deviation") == [0.5, 0.5]
    assert given(imbalance="variance") == [0.8, 0.2]
    assert given(weights=[1, 1, 1, 2], probability=0.9) == [0.9, 0.1]


def test_three_arms_by_hand() -> None:
    """Margins (3, 1, 2) and (0, 2, 2): ranges 3 + 1, 1 + 3, 2 + 3; variances (7 + 1)/3, (1 + 7)/3, (4 + 7)/3."""
    counts = cells([3, 0], [1, 2], [2, 2])
    assert imbalances(counts).ravel().tolist() == [4, 4, 5]
    assert imbalances(counts, "variance").ravel() == pytest.approx([8 / 3, 8 / 3, 11 / 3])
    made = Minimisation(["sex", "stage"], probability=0.7)
    assert made.probabilities(counts).ravel() == pytest.approx([0.425, 0.425, 0.15])
    weighted = Minimisation(["sex", "stage"], weights=[2, 1], probability=0.7)
    assert weighted.probabilities(counts).ravel() == pytest.approx([0.15, 0.7, 0.15])


def test_a_ratio_of_one_to_two_by_hand() -> None:
    """The experimental arm is two of three equal ones; p = .7, so the others have .15 each.

    Patient 1: all alike, u = .2 of thirds: the first, control. Patient 2: either of the other two, so .15, .425, .425;
    u = .5: the second, experimental. Patient 3: the third has .7; u = .25 of .15, .3, 1: the second, experimental.
    """
    levels, uniform = np.zeros((1, 1, 3), dtype=np.int64), np.array([[0.2, 0.5, 0.25]])
    arms = assign_in_turn(levels, 3, uniform, Minimisation(["sex"], probability=0.7).probabilities)
    assert arms.tolist() == [[0, 1, 1]]
    assert Minimisation(["sex"], probability=0.7).probabilities(cells([1], [0], [0])).ravel() == pytest.approx(
        [0.15, 0.425, 0.425]
    )


def test_six_patients_by_hand() -> None:
    """Without chance but between equals; (sex, age): 00 tie -> A; 01 B; 11 A; 10 B; 00 tie -> B; 01 A."""
    levels = np.array([[[0, 0, 1, 1, 0, 0]], [[0, 1, 1, 0, 0, 1]]])
    uniform = np.array([[0.3, 0.1, 0.9, 0.1, 0.7, 0.9]])
    made = Minimisation(["sex", "age"], probability=1.0)
    arms = assign_in_turn(levels, 2, uniform, made.probabilities)
    assert arms.tolist() == [[0, 1, 0, 1, 1, 0]]


def test_batches_of_trials_are_trials_one_by_one() -> None:
    """A second program of the definition, patient by patient in plain Python."""
    weights = [1.0, 2.0, 0.5, 1.0]
    made = Minimisation(FACTORS, weights=weights, imbalance="variance", probability=0.85)
    uniform = DRAWS.uniform(120, "arm")
    equal = assign_in_turn(LEVELS, 4, uniform, made.probabilities)
    for trial in (0, 123, 399):
        for patient in range(0, 120, 7):
            levels, before = LEVELS[:, trial, patient], equal[trial, :patient]
            total = []
            for arm in range(4):
                g = 0.0
                for f in range(4):
                    alike = before[LEVELS[f, trial, :patient] == levels[f]]
                    g += weights[f] * np.var([(alike == k).sum() + (k == arm) for k in range(4)], ddof=1)
                total.append(g)
            best = [k for k in range(4) if total[k] <= min(total) + 1e-9]
            p = [0.05 + 0.8 * (k in best) / len(best) for k in range(4)]
            assert equal[trial, patient] == np.searchsorted(np.cumsum(p), uniform[trial, patient], side="right")
    arms = made.assign(LEVELS, [1, 2, 1], DRAWS)
    np.testing.assert_array_equal(arms, np.array([0, 1, 1, 2])[equal])
    np.testing.assert_array_equal(arms, made.assign(LEVELS, [3, 6, 3], DRAWS))


def margins(arms: np.ndarray) -> np.ndarray:
    """Mean absolute difference between arms over the levels of all factors, (trials,)."""
    sign = 2 * arms - 1
    levels = [(LEVELS[f] == level) for f in range(4) for level in range(int(LEVELS[f].max()) + 1)]
    return np.mean([np.abs((sign * here).sum(axis=1)) for here in levels], axis=0)


def test_margins_are_far_nearer_to_balance_than_by_chance() -> None:
    simple = SimpleRandomisation().assign(LEVELS, [1, 1], DRAWS)
    by = {p: margins(Minimisation(FACTORS, probability=p).assign(LEVELS, [1, 1], DRAWS)) for p in (0.5, 0.8, 1.0)}
    chance = mean_of(margins(simple))
    minimised = mean_of(by[0.8])
    assert minimised.high < 0.35 * chance.low
    assert mean_of(by[1.0]).high < 0.8 * minimised.low
    np.testing.assert_array_equal(by[0.5], margins(simple))  # a control: minimisation by a fair coin
    # and within the 24 strata, which blocks balance, minimisation does not
    stratum, made = strata(LEVELS)
    blocks = PermutedBlocks(4, FACTORS).assign(LEVELS, [1, 1], DRAWS)
    assert len(made) > 30
    assert np.abs(((2 * blocks - 1) * (stratum == 0)).sum(axis=1)).max() <= 2
    assert mean_of(margins(blocks)).low > minimised.high  # many strata of few patients each leave the margins


@pytest.mark.parametrize("parts", [(1, 1), (1, 2), (1, 1, 2)])
def test_shares_are_those_of_the_ratio(parts: tuple[int, ...]) -> None:
    arms = Minimisation(FACTORS).assign(LEVELS, parts, DRAWS)
    shares = np.bincount(arms.ravel()) / arms.size
    assert shares == pytest.approx(np.array(parts) / sum(parts), abs=0.004)
    for place in (0, 1, 2, 5, 119):  # and that at every place
        found = np.bincount(arms[:, place]) / 400
        assert found == pytest.approx(np.array(parts) / sum(parts), abs=4 * 0.5 / 20)


def test_a_longer_trial_and_more_trials_change_nothing() -> None:
    made = Minimisation(FACTORS)
    arms = made.assign(LEVELS, [1, 1], DRAWS)
    few = made.assign(LEVELS[:, 150:160, :40], [1, 1], TrialDraws(2, 10, first_trial=150))
    np.testing.assert_array_equal(few, arms[150:160, :40])


def test_type_one_error_of_the_log_rank_test_with_and_without_the_factors() -> None:
    """Without its factors the test of a minimised trial is conservative: its variance is that of simple allocation."""
    trials, count = 3000, 80
    rng = np.random.default_rng(8)
    levels = rng.integers(2, size=(2, trials, count))
    time = rng.exponential(size=(trials, count)) * np.exp(1.5 * (levels[0] + levels[1] - 1))
    event = np.ones(time.shape, dtype=np.bool_)
    draws, stratum = TrialDraws(4, trials), strata(levels)[0]

    def error(arms: np.ndarray, *, is_stratified: bool) -> tuple[float, float, float]:
        ordered = order_continuous(time, event, arms)
        if is_stratified:
            ordered = order_continuous_in_strata(time, event, arms, stratum)
        z = logrank_z_continuous(ordered)
        found = share_of(int((np.abs(z) > 1.959964).sum()), trials)
        return found.low, found.high, float(z.std())

    minimised = Minimisation(["a", "b"], probability=0.9).assign(levels, [1, 1], draws)
    simple = SimpleRandomisation().assign(levels, [1, 1], draws)
    ignored, used = error(minimised, is_stratified=False), error(minimised, is_stratified=True)
    assert ignored[1] < 0.035
    assert ignored[2] < 0.9
    assert used[0] - 0.008 < 0.05 < used[1] + 0.008  # four Monte-Carlo errors
    assert used[2] == pytest.approx(1.0, abs=0.05)
    control = error(simple, is_stratified=False)
    assert control[0] - 0.008 < 0.05 < control[1] + 0.008  # by chance alone the unstratified test is right


def test_refusals() -> None:
    for call, message in (
        (lambda: Minimisation([]), "factors must be one or more"),
        (lambda: Minimisation(["a"], weights=[1, 2]), "weights must be 1 numbers above 0"),
        (lambda: Minimisation(["a"], weights=[0]), "weights must be 1 numbers above 0"),
        (lambda: Minimisation(["a"], imbalance="entropy"), "imbalance must be one of range, variance"),  # type: ignore[arg-type]
        (lambda: Minimisation(["a"], probability=1.2), "probability must be in"),
        (lambda: Minimisation(["a"], probability=0.0), "probability must be in"),
        (
            lambda: Minimisation(["a"], probability=0.4).check([1, 1]),
            "probability must be at least 1/2, that of chance",
        ),
        (lambda: Minimisation(["a"]).check([1]), "parts must be two or more"),
        (lambda: Minimisation(["a"]).assign(LEVELS, [1, 1], DRAWS), "levels must be of 1 factors, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
