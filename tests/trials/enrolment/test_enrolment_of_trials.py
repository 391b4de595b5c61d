"""What the engine makes of enrolment: factors, sites, screening, analysis in strata, changes of treatment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.config import build
from medtwin.core.errors import ConfigError
from medtwin.trials import (
    Accrual,
    AssumedOutcome,
    Discontinuation,
    Dropout,
    Factor,
    GroupSequential,
    Minimisation,
    PermutedBlocks,
    PiecewiseRate,
    RampedAccrual,
    Screening,
    SimpleRandomisation,
    Site,
    Study,
    SurvivalDesign,
    SurvivalTrial,
    SwitchAtMonth,
    SwitchAtProgression,
    UniformLag,
    prepare,
)
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.analysis.survival_batch import (
    cox_log_hazard_ratio_continuous,
    logrank_z_continuous,
    order_continuous,
    order_continuous_in_strata,
)
from medtwin.trials.engine.batch import (
    BLOCK,
    Characteristics,
    Stops,
    TrialPlan,
    course_of,
    draw_patients,
    marginal_log_hazard_ratio,
    run_block,
)
from medtwin.trials.engine.scenarios import characteristics_of, run_task, scenarios_of, table_of, tasks_of
from medtwin.trials.engine.survival_trial import example_patients

RISK = Factor("log_risk", (0.0,))
SITES = Accrual([Site(8.0), Site(6.0, opens=2.0)], [(5.0, 6.0)], Screening(0.2, UniformLag(0.5, 2.0)))


def plan(sd: float = 1.0, num_subjects: int = 120, **changes: object) -> TrialPlan:
    design = SurvivalDesign(GroupSequential(looks=(1.0,), power=0.8), 0.5)
    pool = AssumedOutcome(12.0, sd).pool(np.random.default_rng(0), 400)
    made = TrialPlan(design, pool, num_subjects, SITES, Dropout.of_share(0.05), 60.0)
    return replace(made, **changes)  # type: ignore[arg-type]


def power(made: TrialPlan, hazard_ratio: float, blocks: int = 8) -> Characteristics:
    return Characteristics(
        hazard_ratio, Stops.join([run_block(made, 0, block, hazard_ratio) for block in range(blocks)])
    )


def test_the_stratified_kernel_is_the_stratified_test_of_one_trial() -> None:
    rng = np.random.default_rng(4)
    time, event = rng.exponential(12, (5, 90)), rng.uniform(size=(5, 90)) < 0.7
    arm, stratum = rng.integers(2, size=(5, 90)), rng.integers(4, size=(5, 90))
    stratum[0] = 0
    ordered = order_continuous_in_strata(time, event, arm, stratum)
    z = logrank_z_continuous(ordered)
    for row in range(5):
        single = logrank_test(time[row], event[row], arm[row], strata=stratum[row])
        assert z[row] ** 2 == pytest.approx(single.chi_square, rel=2e-5)
    plain = order_continuous(time[:1], event[:1], arm[:1])
    assert z[0] == pytest.approx(logrank_z_continuous(plain)[0], rel=1e-5)
    assert abs(logrank_z_continuous(order_continuous(time, event, arm))[1:] - z[1:]).min() > 1e-3  # a control
    estimate = cox_log_hazard_ratio_continuous(ordered).estimate
    assert estimate[0] == pytest.approx(cox_log_hazard_ratio_continuous(plain).estimate[0], abs=1e-5)
    for row in range(1, 5):
        beta = estimate[row]
        score = 0.0
        for s in range(4):
            here = np.flatnonzero(stratum[row] == s)
            for i in here[event[row, here]]:
                at = here[time[row, here] >= time[row, i]]
                weight = np.exp(beta * arm[row, at])
                score += arm[row, i] - (weight * arm[row, at]).sum() / weight.sum()
        assert score == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(ValueError, match="strata must be at most 1024"):
        order_continuous_in_strata(time, event, arm, stratum + 1024)


def test_a_patient_keeps_its_draws_whatever_the_design() -> None:
    small = draw_patients(plan(), 3, 1)
    for other in (
        plan(num_subjects=200),
        plan(randomisation=Minimisation(["site", RISK])),
        plan(randomisation=SimpleRandomisation(), changes=[SwitchAtMonth(6.0)], analysis_strata=(RISK,)),
    ):
        found = draw_patients(other, 3, 1)
        for name in ("index", "enrolled", "site", "amount", "leaving"):
            np.testing.assert_array_equal(getattr(found, name)[:, :120], getattr(small, name))


def test_blocks_are_filled_in_order_of_randomisation() -> None:
    made = plan(randomisation=PermutedBlocks(2))
    drawn = draw_patients(made, 0, 0)
    order = np.argsort(drawn.enrolled, axis=1)
    assert (order != np.arange(120)).any(axis=1).all()
    arms = np.take_along_axis(drawn.arm, order, axis=1)
    assert (arms.reshape(BLOCK, -1, 2).sum(axis=2) == 1).all()
    assert not (drawn.arm.reshape(BLOCK, -1, 2).sum(axis=2) == 1).all()


def test_sites_and_risk_groups_are_balanced() -> None:
    drawn = draw_patients(plan(randomisation=Minimisation(["site", RISK, "sex"], probability=0.9)), 0, 0)
    chance = draw_patients(plan(randomisation=SimpleRandomisation()), 0, 0)
    pool = plan().pool

    def imbalance(index: np.ndarray, arm: np.ndarray, site: np.ndarray) -> list[float]:
        groups = (site == 1, pool.log_risk[index] >= 0, pool.stratum[index] == 0)
        return [float(np.abs(((2 * arm - 1) * here).sum(axis=1)).mean()) for here in groups]

    minimised, simple = (imbalance(each.index, each.arm, each.site) for each in (drawn, chance))
    assert max(minimised) < 0.4 * min(simple)
    assert (drawn.site == 1).mean() > 0.3


def test_analysis_in_strata_regains_the_power_that_different_risks_cost() -> None:
    made = plan(sd=2.0, randomisation=Minimisation([RISK]))
    ignored, used = (power(replace(made, analysis_strata=strata), 0.5) for strata in ((), (RISK,)))
    assert used.power.low > ignored.power.value + 0.03
    null = [power(replace(made, analysis_strata=strata), 1.0, 12).stops.z[:, 0] for strata in ((), (RISK,))]
    assert null[0].std() < 0.95 < null[1].std() < 1.05
    marginal, conditional = (
        marginal_log_hazard_ratio(replace(made, analysis_strata=strata), 0, 0.5).value for strata in ((), (RISK,))
    )
    assert np.log(0.5) < conditional < marginal - 0.05


def test_changes_of_treatment_cost_power_and_no_type_one_error() -> None:
    stop = Discontinuation(PiecewiseRate((0.0,), (0.08,)))
    switch = SwitchAtProgression(PiecewiseRate((0.0,), (0.15,)), 0.8)
    made = plan(sd=0.0)
    full = power(made, 0.5).power
    for changes in ([stop], [switch], [SwitchAtMonth(10.0)], [stop, switch]):
        changed = replace(made, changes=changes)
        assert power(changed, 0.5).power.high < full.low
        np.testing.assert_array_equal(run_block(changed, 0, 0, 1.0).z, run_block(made, 0, 0, 1.0).z)
    nobody = replace(made, changes=[SwitchAtMonth(10.0, 0.0), Discontinuation(PiecewiseRate((0.0,), (0.0,)))])
    np.testing.assert_allclose(run_block(nobody, 0, 0, 0.5).z, run_block(made, 0, 0, 0.5).z, rtol=1e-5)


def trial(**changes: object) -> SurvivalTrial:
    base = SurvivalTrial("t", GroupSequential(looks=(0.5, 1.0)), 0.5, assumed=AssumedOutcome(12.0), follow_up_months=12)
    return replace(base, **changes)  # type: ignore[arg-type]


def study(**changes: object) -> Study:
    return prepare(trial(**changes), None, 1)


def test_a_trial_at_absolute_rates_takes_as_long_as_its_patients_need() -> None:
    made = study(accrual=SITES)
    found, count = made.plan, made.plan.num_subjects
    assert found.accrual is SITES
    months = made.months_of_looks(0.5)
    assert months[-1] == pytest.approx(made.trial.planned_months(count), abs=1.0)
    assert made.trial.enrolment_months(count) == pytest.approx(SITES.enrolment_months(count))
    faster = study(accrual=RampedAccrual(6.0))
    assert faster.plan.num_subjects > count  # shorter enrolment, less follow-up of the first
    scenarios = scenarios_of(made, 400, 100)[:2]
    results = characteristics_of(scenarios, map(run_task, tasks_of(made, scenarios, 7)))
    for scenario, each in zip(scenarios, results, strict=True):
        for line in table_of(made, scenario, each, 7):
            if line.characteristic in ("duration, months", "subjects at stop"):
                assert line.analytical == pytest.approx(line.estimate.value, rel=0.05)


def test_months_of_looks_under_changes_are_simulated_and_power_has_no_formula() -> None:
    changes = {"num_subjects": 150, "randomisation": SimpleRandomisation()}
    plain = study(**changes)
    harmless = study(**changes, treatment_changes=[SwitchAtMonth(10.0, 0.0)])
    switching = study(**changes, treatment_changes=[SwitchAtMonth(6.0)])
    assert harmless.months_of_looks(0.5) == pytest.approx(plain.months_of_looks(0.5), rel=0.04)
    assert switching.months_of_looks(0.5)[-1] > harmless.months_of_looks(0.5)[-1]
    assert switching.months_of_looks(0.5, 2.0)[-1] < switching.months_of_looks(0.5)[-1]
    scenarios = scenarios_of(switching, 100, 100)[:2]
    results = characteristics_of(scenarios, map(run_task, tasks_of(switching, scenarios, 7)))
    power_line, error_line = (table_of(switching, *pair, 7)[0] for pair in zip(scenarios, results, strict=True))
    assert power_line.analytical is None
    assert error_line.analytical == pytest.approx(0.025, abs=1e-3)


def test_the_patient_table_shows_site_and_both_courses() -> None:
    made = study(num_subjects=150, accrual=SITES, treatment_changes=[SwitchAtMonth(0.0)], annual_dropout=0.0)
    columns = example_patients(made, 1, 40.0)
    assert set(columns["site"]) == {1, 2}
    # all controls switch at once: both courses are the treated one
    assert columns["months_to_event_control"] == columns["months_to_event_experimental"]


def test_dropout_by_arm() -> None:
    never, often = PiecewiseRate((0.0,), (0.0,)), PiecewiseRate((0.0,), (0.5,))
    made = study(num_subjects=150, annual_dropout=Dropout(never, often))
    drawn = draw_patients(made.plan, 0, 0)
    left = course_of(made.plan, drawn, 0.5).dropout
    assert np.isinf(left[drawn.arm == 0]).all()
    assert np.median(left[drawn.arm == 1]) == pytest.approx(np.log(2) / 0.5, rel=0.05)
    experimental, control = made.arms(0.5)
    assert (experimental.dropout, control.dropout) == (often, never)


def test_a_config_chooses_by_target() -> None:
    prefix = "medtwin.trials."
    made = build(
        {
            "_target_": prefix + "SurvivalTrial",
            "title": "t",
            "plan": {"_target_": prefix + "GroupSequential", "looks": [0.5, 1.0]},
            "hazard_ratio": 0.5,
            "assumed": {"_target_": prefix + "AssumedOutcome", "control_median_months": 12.0},
            "randomisation": {
                "_target_": prefix + "Minimisation",
                "factors": ["sex", "site", {"_target_": prefix + "Factor", "name": "log_risk", "cuts": [0.0]}],
            },
            "analysis_strata": ["sex"],
            "accrual": {
                "_target_": prefix + "Accrual",
                "sites": [{"_target_": prefix + "Site", "rate": 5.0, "opens": m} for m in (0, 1, 3)],
                "pauses": [[2, 3]],
                "screening": {
                    "_target_": prefix + "Screening",
                    "failure": 0.3,
                    "lag": {"_target_": prefix + "UniformLag", "shortest": 0.5, "longest": 1.0},
                },
            },
        }
    )
    stops = run_block(prepare(made, None, 0).plan, 0, 0, 0.5)
    assert stops.is_rejected.mean() > 0.7


def test_what_makes_no_sense_is_refused() -> None:
    closing = Accrual([Site(10.0, closes=6.0)])
    for changes, message in (
        ({"accrual": closing}, r"too few events: .* \(at most 60 can be\)"),
        ({"accrual": closing, "num_subjects": 100}, "num_subjects must be at most the 60 who can ever be enrolled"),
        ({"analysis_strata": ["stage"]}, "factors must be among sex, site, log_risk, got 'stage'"),
        ({"randomisation": PermutedBlocks(4, ["log_risk"])}, "cuts must be given for log_risk"),
        ({"max_months": 12.0}, "max_months must be at least the 24 months of enrolment"),
    ):
        with pytest.raises(ConfigError, match=message):
            study(**changes)
