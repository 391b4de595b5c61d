"""What actions do to a trial, with numbers that can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from medtwin.trials.engine.milestones.actions import Action, ChangeAccrual, EndBy, PauseAccrual, Resize, Stop
from medtwin.trials.engine.milestones.block import Block
from medtwin.trials.engine.milestones.conditions import Enrolled, Events, Month, Since, Timing
from medtwin.trials.engine.milestones.graph_tests import GraphTests
from medtwin.trials.engine.milestones.patients import draw_patients
from medtwin.trials.engine.milestones.plan import Hypothesis, Milestone, MilestoneTrial
from medtwin.trials.engine.milestones.simulate import simulate_milestones
from medtwin.trials.enrolment.accrual import Accrual, EvenAccrual, Screening, Site, UniformLag
from tests.trials.engine.milestones.samples import busy_trial, scenario


def even_trial(*milestones: tuple[float, Sequence[Action]], lag: float | None = None) -> MilestoneTrial:
    """Ten patients a month, one by one, 60 in all, until month 30."""
    screening = Screening(lag=None if lag is None else UniformLag(lag, lag))
    return MilestoneTrial(
        60,
        EvenAccrual([Site(10.0)], screening=screening),
        [
            *(Milestone(f"month {at:g}", Month(at), actions) for at, actions in milestones),
            Milestone("end", Month(30.0)),
        ],
        30.0,
    )


def enrolled(trial: MilestoneTrial) -> np.ndarray:
    """Months of the patients of one trial, after all that is done to it."""
    block = Block(trial, draw_patients(trial, scenario(), 1, 0, 1), GraphTests(trial))
    block.run()
    return block.enrolment.enrolled[0]


def test_a_change_of_rate_moves_those_who_are_still_to_come() -> None:
    found = enrolled(even_trial((2.05, [ChangeAccrual(2.0)])))
    np.testing.assert_allclose(found[:20], np.arange(1, 21) / 10)
    # half of patient 21's tenth of a month is over: the other half takes half as long
    np.testing.assert_allclose(found[20:], 2.05 + 0.025 + np.arange(40) / 20)


def test_rates_are_of_the_plan_not_of_each_other() -> None:
    found = enrolled(even_trial((2.0, [ChangeAccrual(2.0)]), (3.0, [ChangeAccrual(0.5)])))
    np.testing.assert_allclose(found[[19, 39, 40, 44]], [2.0, 3.0, 3.2, 4.0])


def test_a_pause_moves_all_who_are_still_to_come() -> None:
    found = enrolled(even_trial((2.0, [PauseAccrual(1.5)]), (3.0, [PauseAccrual(1.0)])))
    np.testing.assert_allclose(found[:20], np.arange(1, 21) / 10)
    np.testing.assert_allclose(found[20:], 4.0 + np.arange(1, 41) / 10)


def test_who_is_in_screening_comes_all_the_same() -> None:
    found = enrolled(even_trial((2.0, [PauseAccrual(3.0)]), lag=0.5))
    np.testing.assert_allclose(found[[19, 20]], [2.5, 5.6])


def test_resizing_adds_and_cancels_patients() -> None:
    assert np.isfinite(enrolled(even_trial((2.0, [Resize(40)])))).sum() == 40
    assert np.isfinite(enrolled(even_trial((2.0, [Resize(5)])))).sum() == 20  # who is there stays
    np.testing.assert_allclose(enrolled(even_trial((2.0, [Resize(80)])))[-1], 8.0)


def test_enrolment_that_had_ended_begins_anew() -> None:
    found = enrolled(even_trial((9.0, [Resize(80)])))
    np.testing.assert_allclose(found[[59, 60, 79]], [6.0, 9.1, 11.0])
    found = enrolled(even_trial((8.0, [ChangeAccrual(2.0)]), (9.0, [Resize(80)])))
    np.testing.assert_allclose(found[[59, 60, 79]], [6.0, 9.05, 10.0])


def test_the_end_moves_but_never_before_now() -> None:
    longer = even_trial((10.0, [EndBy(40.0)]))
    longer = replace(longer, milestones=[*longer.milestones[:-1], Milestone("end", Events("os", 10**6))])
    assert simulate_milestones(longer, scenario(), 3, seed=1).ends.tolist() == [40.0] * 3
    shorter = replace(longer, milestones=[Milestone("now", Month(10.0), [EndBy(4.0)]), longer.milestones[-1]])
    assert simulate_milestones(shorter, scenario(), 3, seed=1).ends.tolist() == [10.0] * 3


def test_after_a_stop_nothing_more_is_done() -> None:
    trial = even_trial((2.0, [Stop("a reason"), Resize(80)]), (4.0, [PauseAccrual(1.0)]))
    found = simulate_milestones(trial, scenario(), 5, seed=1)
    assert found.stopped_at("month 2", "a reason").value == 1.0
    assert found.acted("month 2", "resize to 80 patients").value == 0.0
    assert found.reached("month 4").value == 0.0
    assert found.duration.value == 2.0
    assert found.subjects.value == 20.0


@pytest.mark.parametrize(
    ("when", "month"),
    [
        (Enrolled(30), 3.0),
        (Enrolled(30, 2.5), 5.5),
        (Enrolled(None, 1.0), 7.0),
        (Month(4.0) & Enrolled(30), 4.0),
        (Month(4.0) | Enrolled(30), 3.0),
        ((Month(20.0) | Enrolled(10)) & Since("early", 1.5), 3.5),
        (Enrolled(500) | Month(9.0), 9.0),
        (Since("never", 1.0) | Month(11.0), 11.0),
    ],
)
def test_milestones_come_when_they_are_due(when: Timing, month: float) -> None:
    trial = even_trial((0.0, []))
    milestones = [
        Milestone("early", Month(2.0)),
        Milestone("it", when),
        Milestone("never", Month(99.0)),
        Milestone("end", Month(30.0)),
    ]
    found = simulate_milestones(replace(trial, milestones=milestones), scenario(), 2, seed=1)
    assert found.month("it").value == pytest.approx(month)
    assert found.reached("never").value == 0.0


def test_a_patient_keeps_its_draws_whatever_is_done() -> None:
    plain = even_trial((2.0, []))
    changed = even_trial((2.0, [PauseAccrual(2.0), Resize(90)]), (5.0, [ChangeAccrual(3.0)]))
    one, other = (draw_patients(trial, scenario(), 4, 0, 7) for trial in (plain, changed))
    for name in ("pfs", "os"):
        np.testing.assert_array_equal(one.drawn.months[name], other.drawn.months[name][:, :60])
    np.testing.assert_array_equal(one.group.arm, other.group.arm[:, :60])
    np.testing.assert_array_equal(one.drawn.response["orr"], other.drawn.response["orr"][:, :60])


def test_neither_batch_nor_workers_nor_number_of_trials_changes_a_number() -> None:
    trial, truth = busy_trial(), scenario()
    one = simulate_milestones(trial, truth, 130, seed=3).records
    for other in (
        simulate_milestones(trial, truth, 130, seed=3, batch=37).records,
        simulate_milestones(trial, truth, 130, seed=3, batch=1000).records,
        simulate_milestones(trial, truth, 250, seed=3, batch=11).records,
    ):
        for name in type(one).__annotations__:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name)[:130])
    another = simulate_milestones(trial, truth, 130, seed=4).records
    assert (one.z[:, 0, 3] != another.z[:, 0, 3]).any()


@pytest.mark.slow
def test_workers_change_nothing() -> None:
    trial, truth = busy_trial(), scenario()
    one, two = (simulate_milestones(trial, truth, 250, seed=3, workers=workers).records for workers in (1, 2))
    for name in type(one).__annotations__:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_accrual_by_chance_stays_a_poisson_process_under_a_change() -> None:
    """Patients between months 6 and 8 at twice the rate of 10: mean and variance 40."""
    trial = MilestoneTrial(
        400,
        Accrual([Site(10.0)]),
        [Milestone("faster", Month(6.0), [ChangeAccrual(2.0)]), Milestone("end", Month(8.0))],
        8.0,
    )
    found = simulate_milestones(trial, scenario(), 4000, seed=6).records.subjects
    slow = simulate_milestones(
        replace(trial, milestones=[Milestone("end", Month(6.0))], max_months=6.0), scenario(), 4000, seed=6
    ).records.subjects
    came = (found - slow).astype(float)
    assert came.mean() == pytest.approx(40.0, abs=4 * np.sqrt(40 / 4000))
    assert came.var() == pytest.approx(40.0, rel=4 * np.sqrt(2 / 4000))
    assert abs(np.corrcoef(came, slow)[0, 1]) < 4 / np.sqrt(4000)


def test_hypotheses_with_one_test_need_no_plan() -> None:
    trial = replace(even_trial((2.0, [])), hypotheses=[Hypothesis("PFS", "pfs", ["end"])])
    assert simulate_milestones(trial, scenario(), 50, seed=2).power("PFS").value > 0.1
