"""Trials that look for a dose: against a second program, published simulations, and by their rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from medtwin.trials.design.continual_reassessment import ReassessmentModel
from medtwin.trials.design.dose_finding import IntervalDesign
from medtwin.trials.engine.dose_trials import Cohorts, DoseTrials, simulate_interval_design, simulate_reassessment
from medtwin.trials.enrolment.draws import TrialDraws

TRUTH = [0.05, 0.12, 0.25, 0.4, 0.55]
COHORTS = Cohorts(10, 3)


def one_by_one(design: IntervalDesign, truth: list[float], trials: int, seed: int) -> list[tuple[int, list[int]]]:
    """The interval design, patient by patient."""
    tolerance, found = TrialDraws(seed, trials).uniform(30, "tolerance"), []
    for row in range(trials):
        n, y, dose, gone = [0] * len(truth), [0] * len(truth), 0, len(truth)
        for cohort in range(10):
            for j in range(3):
                n[dose] += 1
                y[dose] += int(tolerance[row, 3 * cohort + j] < truth[dose])
            up, down, given_up = (int(each[0]) for each in design.boundaries([n[dose]]))
            if y[dose] >= given_up:
                gone = min(gone, dose)
            if gone == 0:
                break
            if y[dose] <= up and dose + 1 < gone:
                dose += 1
            elif y[dose] >= down and dose > 0:
                dose -= 1
        tried = [j for j in range(gone) if n[j]]
        choice = -1
        if gone and tried:
            rate = np.array([(y[j] + 0.05) / (n[j] + 0.1) for j in tried])
            weight = [(n[j] + 0.1) ** 2 * (n[j] + 1.1) / ((y[j] + 0.05) * (n[j] - y[j] + 0.05)) for j in tried]
            fitted = IsotonicRegression().fit_transform(np.arange(len(tried)), rate, sample_weight=weight)
            choice = tried[int(np.argmin(np.abs(fitted + 1e-10 * np.array(tried) - design.target)))]
        found.append((choice, n))
    return found


@pytest.mark.parametrize("truth", [TRUTH, [0.3, 0.5, 0.6], [0.6, 0.7]])
def test_the_interval_design_programmed_twice(truth: list[float]) -> None:
    design = IntervalDesign(0.25)
    found = simulate_interval_design(design, truth, COHORTS, 80, seed=4)
    for row, (choice, patients) in enumerate(one_by_one(design, truth, 80, 4)):
        assert (found.chosen[row], found.patients[row].tolist()) == (choice, patients)


def agrees(found: DoseTrials, chosen: list[float], patients: list[float], reference_trials: int) -> None:
    """Within four standard errors of both."""
    more = math.sqrt(1 + len(found.chosen) / reference_trials)
    for dose, (share, count) in enumerate(zip(chosen, patients, strict=True)):
        for mine, theirs in ((found.chooses(dose), share), (found.patients_at(dose), count)):
            assert mine.value == pytest.approx(theirs, abs=4 * more * mine.standard_error)


def test_agrees_with_boin() -> None:
    """get.oc(target = 0.25, ncohort = 10, cohortsize = 3, ntrial = 5000) of BOIN 2.7.2."""
    found = simulate_interval_design(IntervalDesign(0.25), TRUTH, COHORTS, 10_000, seed=2)
    agrees(
        found, [0.0078, 0.2774, 0.5564, 0.1458, 0.0124], [5.4216, 10.095, 9.9486, 3.8748, 0.6546], reference_trials=5000
    )


def test_agrees_with_dfcrm() -> None:
    """crmsim(n = 30, mcohort = 3, restrict = TRUE, nsim = 1000) of dfcrm 0.2.2.1, empiric model."""
    found = simulate_reassessment(ReassessmentModel(TRUTH, 0.25), TRUTH, COHORTS, 3000, seed=2)
    agrees(found, [0.002, 0.175, 0.638, 0.177, 0.008], [3.993, 8.433, 12.63, 4.389, 0.555], reference_trials=1000)


def test_another_truth_does_not_agree() -> None:
    """The negative control: doses one and a half times as toxic."""
    found = simulate_interval_design(IntervalDesign(0.25), [1.5 * p for p in TRUTH], COHORTS, 2000, seed=2)
    with pytest.raises(AssertionError):
        agrees(found, [0.0078, 0.2774, 0.5564, 0.1458, 0.0124], [5.4, 10.1, 9.9, 3.9, 0.7], reference_trials=5000)


def test_reassessment_skips_no_dose_and_a_larger_run_begins_with_a_smaller_one() -> None:
    model = ReassessmentModel(TRUTH, 0.25)
    found = simulate_reassessment(model, [0.0] * 5, COHORTS, 20, seed=1)
    assert (found.patients[:, :4] == 3).all()
    assert (found.chosen == 4).all()
    small, large = (simulate_reassessment(model, TRUTH, COHORTS, count, seed=7) for count in (60, 130))
    np.testing.assert_array_equal(small.patients, large.patients[:60])


def test_what_makes_no_sense_is_refused() -> None:
    for make, message in (
        (lambda: Cohorts(0, 3), "1 or more"),
        (
            lambda: simulate_interval_design(IntervalDesign(0.25), [0.1], Cohorts(1, 3, 1), 10, seed=1),
            "2 doses or more",
        ),
        (lambda: simulate_interval_design(IntervalDesign(0.25), [1.1], Cohorts(1, 3), 10, seed=1), "from 0 to 1"),
        (
            lambda: simulate_reassessment(ReassessmentModel(TRUTH, 0.25), [0.1], COHORTS, 10, seed=1),
            "the model's 5 doses",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
