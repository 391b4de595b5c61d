"""The laws under which trials_errors_survival.py measures tests: patients, randomisation, hazards, looks.

Every law has 12 months of Poisson accrual and a control median of 12 months, 5 % a year leave; looks come with events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from medtwin.trials.design.group_sequential import GroupSequential, SurvivalDesign
from medtwin.trials.design.hazard import PiecewiseRate, dropout_rate
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from medtwin.trials.engine.batch import Course, Patients, TrialPlan, course_of
from medtwin.trials.enrolment.accrual import RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout, SwitchAtProgression, TreatmentChange
from medtwin.trials.enrolment.factors import Factor
from medtwin.trials.enrolment.minimisation import Minimisation
from medtwin.trials.enrolment.randomisation import PermutedBlocks, Randomisation, SimpleRandomisation
from medtwin.trials.outcome.prognosis import PatientPool

ACCRUAL_MONTHS, MEDIAN_MONTHS, ANNUAL_DROPOUT = 12.0, 12.0, 0.05
HIGH_RISK = Factor("log_risk", (0.0,))
FACTORS = (Factor("sex"), HIGH_RISK)
LOG_RISKS = (-0.8, -0.4, 0.4, 0.8)  # of women and men of low risk, then of high risk: each its own stratum
SAME = PiecewiseRate((0.0,), (1.0,))


@dataclass(frozen=True)
class Law:
    """What patients are and how they come to their arms.

    Attributes:
        name: Short. title: In words.
        ratio: Experimental : control. num_subjects: Enrolled.
        events: (looks,) at which it is looked.
        randomisation: To the arms.
        hazard_ratio: Experimental / control, over months of follow-up.
        margin: The hazard ratio that tests of non-inferiority are of; 1: superiority.
        log_risks: Of equally large groups of patients, each a stratum of the analysis.
        changes: Of treatment.
        only_fixed: Whether group-sequential designs are left out.
    """

    name: str
    title: str
    ratio: float = 1.0
    num_subjects: int = 450
    events: tuple[int, ...] = (150, 225, 300)
    randomisation: Randomisation = field(default_factory=lambda: PermutedBlocks(4))
    hazard_ratio: PiecewiseRate = SAME
    margin: float = 1.0
    log_risks: tuple[float, ...] = (0.0,)
    changes: Sequence[TreatmentChange] = ()
    only_fixed: bool = False

    @property
    def is_null(self) -> bool:
        """Whether the null hypothesis holds, at its border."""
        return tuple(self.hazard_ratio.rates) == (self.margin,)

    @property
    def is_proportional(self) -> bool:
        """Whether the hazard ratio stays."""
        return len(self.hazard_ratio.rates) == 1

    @property
    def has_strata(self) -> bool:
        """Whether patients differ in risk."""
        return len(self.log_risks) > 1

    @cached_property
    def control(self) -> PiecewiseRate:
        """The hazard in the control arm at log risk 0."""
        return PiecewiseRate.of_median(MEDIAN_MONTHS)

    @cached_property
    def experimental(self) -> PiecewiseRate:
        """The hazard in the experimental arm at log risk 0."""
        rate = self.control.rates[0]
        return PiecewiseRate(tuple(self.hazard_ratio.starts), tuple(rate * each for each in self.hazard_ratio.rates))

    @cached_property
    def plan(self) -> TrialPlan:
        """For the engine; the looks of its design are not those of the law."""
        groups = len(self.log_risks)
        pool = PatientPool(np.array(self.log_risks), np.arange(groups) % 2, self.control)
        return TrialPlan(
            SurvivalDesign(GroupSequential(looks=(1.0,)), 0.3, self.ratio),
            pool,
            self.num_subjects,
            RampedAccrual(ACCRUAL_MONTHS).of_size(self.num_subjects),
            Dropout.of_share(ANNUAL_DROPOUT),
            np.inf,
            self.randomisation,
            FACTORS if self.has_strata else (),
            self.changes,
        )

    def truth(self, *, strata: bool) -> TwoArmSurvival:
        """What is expected, for designs: in strata, or of all patients together."""
        leaving = dropout_rate(ANNUAL_DROPOUT)
        rate = PiecewiseRate((0.0,), (self.num_subjects / ACCRUAL_MONTHS,))
        risks = tuple(float(np.exp(each)) for each in self.log_risks)
        if not strata:
            arms = (Arm(hazard, leaving, risks) for hazard in (self.experimental, self.control))
            return TwoArmSurvival([Stratum(*arms, rate)], ACCRUAL_MONTHS, self.ratio)
        share = rate.scaled(1 / len(risks))
        groups = [
            Stratum(Arm(self.experimental.scaled(risk), leaving), Arm(self.control.scaled(risk), leaving), share)
            for risk in risks
        ]
        return TwoArmSurvival(groups, ACCRUAL_MONTHS, self.ratio)

    def months(self) -> np.ndarray:
        """Calendar months at which the looks are expected."""
        return self.truth(strata=True).time_of_events(self.events)

    def course(self, patients: Patients) -> Course:
        """What becomes of the patients."""
        if self.is_proportional:
            return course_of(self.plan, patients, self.hazard_ratio.rates[0])
        dropout = self.plan.dropout.months(patients.leaving, patients.arm)
        times = [hazard.time_at(patients.amount) for hazard in (self.experimental, self.control)]
        event = np.where(patients.arm == 1, *times)
        is_event = event <= dropout
        calendar = np.where(is_event, patients.enrolled + event, np.inf)
        return Course(patients, event, dropout, np.minimum(event, dropout), is_event, calendar)


def blocks(ratio: float, *strata: Factor) -> PermutedBlocks:
    """Permuted blocks of two of the ratio's units."""
    return PermutedBlocks(int(2 * (ratio + 1)), strata)


def _both_ratios(law: Law) -> list[Law]:
    """The law in blocks 1:1 and 2:1."""
    strata = FACTORS if law.has_strata else ()
    return [
        replace(
            law,
            name=f"{law.name}, {ratio:g}:1",
            title=f"{law.title}, {ratio:g}:1",
            ratio=ratio,
            randomisation=blocks(ratio, *strata),
        )
        for ratio in (1.0, 2.0)
    ]


def _simple(ratio: float) -> Law:
    title = f"no effect, simple randomisation, {ratio:g}:1"
    return Law(f"null, simple, {ratio:g}:1", title, ratio, randomisation=SimpleRandomisation())


BETTER, LATER = PiecewiseRate((0.0,), (0.7,)), PiecewiseRate((0.0, 4.0), (1.0, 0.6))
WORSE = PiecewiseRate((0.0,), (1.3,))
SWITCH = SwitchAtProgression(PiecewiseRate((0.0,), (0.1,)), probability=0.6)
LAWS: tuple[Law, ...] = (
    *_both_ratios(Law("null", "no effect, permuted blocks")),
    _simple(1.0),
    _simple(2.0),
    *_both_ratios(Law("null, strata", "no effect, four strata of unlike risk, blocks in them", log_risks=LOG_RISKS)),
    Law(
        "null, minimised, 1:1",
        "no effect, four strata of unlike risk, minimisation over the two factors (probability 0.8), 1:1",
        randomisation=Minimisation(FACTORS),
        log_risks=LOG_RISKS,
    ),
    Law(
        "null, switching, 1:1",
        "no effect, six in ten controls switch treatment at progression, permuted blocks, 1:1",
        changes=(SWITCH,),
        only_fixed=True,
    ),
    *_both_ratios(Law("margin", "hazard ratio at the margin 1.3, permuted blocks", hazard_ratio=WORSE, margin=1.3)),
    *_both_ratios(Law("null, small", "no effect, 60 patients, 40 events", num_subjects=60, events=(40,))),
    *_both_ratios(Law("better", "hazard ratio 0.7, permuted blocks", hazard_ratio=BETTER)),
    *_both_ratios(Law("later", "hazard ratio 1, from month 4 on 0.6, permuted blocks", hazard_ratio=LATER)),
    _both_ratios(Law("better, strata", "hazard ratio 0.7 in four strata", hazard_ratio=BETTER, log_risks=LOG_RISKS))[0],
    _both_ratios(Law("not worse", "hazard ratio 1 against the margin 1.3, permuted blocks", margin=1.3))[0],
)
