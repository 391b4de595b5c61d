"""A group that a model of twins serves worse is found and named; a fresh draw is as good for all."""

from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.fairness.groups import Division
from medtwin.check.fairness.settings import Fairness
from medtwin.check.fairness.utility import Predicted, utility_by_group
from medtwin.check.gates import exact_interval
from tests.check.fairness.outcomes import Shipped, outcome

NUMBER = 600


def predicted(seed: int, *, worse: str = "") -> tuple[Predicted, list[Division]]:
    """Probabilities of models that see the same risk, each through its own noise; of one sex twins see none."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], NUMBER).astype(object)
    risk = rng.normal(size=NUMBER)
    label = rng.random(NUMBER) < 1 / (1 + np.exp(1.0 - 1.5 * risk))

    def model() -> np.ndarray:
        return 1 / (1 + np.exp(1.0 - 1.5 * (risk + 0.3 * rng.normal(size=NUMBER))))

    twins = model()
    twins[sex == worse] = rng.permutation(twins[sex == worse])
    weights = np.ones((61, NUMBER), np.float32)
    weights[1:] = rng.multinomial(NUMBER, np.full(NUMBER, 1 / NUMBER), 60)
    halves = [(model(), model()) for _ in range(5)]
    one = Predicted(label, np.arange(NUMBER), model(), [twins], halves, weights, 0.7)
    return one, [Division("sex", (sex, sex))]


def test_the_group_that_is_served_worse_is_named() -> None:
    one, divisions = predicted(1, worse="F")
    measure, rows = utility_by_group(one, divisions, Fairness())
    assert measure.title.endswith("(AUROC lost, sex: F)")
    assert measure.estimate is not None
    assert measure.estimate.low > 0.1
    assert [(row.metric, row.group) for row in rows] == [
        ("AUROC lost", "F"), ("calibration", "F"), ("AUROC lost", "M"), ("calibration", "M"),
    ]  # fmt: skip
    women = one.label[divisions[0].levels[0] == "F"]
    assert (rows[0].num_patients, rows[0].num_others) == (len(women), int(women.sum()))


def test_what_is_too_small_or_was_not_predicted_is_not_judged() -> None:
    one, divisions = predicted(1)
    _, rows = utility_by_group(one, divisions, Fairness(floor=500))
    assert {row.reason for row in rows} == {"not judged: fewer than 500 test patients"}
    measure, rows = utility_by_group(None, divisions, Fairness(), reason="no twins")
    assert (measure.estimate, measure.reason, measure.applicable, rows) == (None, "no twins", True, [])


@pytest.mark.slow  # many comparisons
def test_a_fresh_draw_raises_no_alarm_and_a_group_of_noise_does(shipped: Shipped) -> None:
    alarms, found, num_draws = 0, 0, 100
    for seed in range(num_draws):
        measure, _ = utility_by_group(*predicted(seed), Fairness())
        alarms += outcome(measure, "usefulness-by-group", shipped) == "failed"
        if seed < 30:
            measure, _ = utility_by_group(*predicted(seed, worse="M"), Fairness())
            found += outcome(measure, "usefulness-by-group", shipped) == "failed"
    assert exact_interval(alarms, num_draws)[1] <= 0.08, alarms
    assert exact_interval(found, 30)[0] >= 0.8, found
