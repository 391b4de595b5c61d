"""The estimand of a trial in the five attributes of ICH E9(R1), and whether the trial simulates and analyses it.

Source: ICH E9(R1) 2019, addendum on estimands and sensitivity analysis, A.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from medtwin.trials.engine.counterfactual import Measure, check_measure
from medtwin.trials.enrolment.adherence import TreatmentChange
from medtwin.trials.enrolment.intercurrent import (
    DISCONTINUATION,
    STRATEGIES,
    SWITCHING,
    Strategy,
    intercurrent_event,
)
from medtwin.trials.outcome.endpoint import Endpoint

DEATH = "death"
KINDS = (DISCONTINUATION, SWITCHING, DEATH)
SummaryMeasure = Literal[
    "marginal_hazard_ratio",
    "average_hazard_ratio",
    "restricted_mean_difference",
    "milestone_difference",
    "risk_difference",
]
DeathStrategy = Literal["composite", "while_alive"]
ANALYSED = "marginal_hazard_ratio"
IN_WORDS: Mapping[str, str] = {
    "treatment_policy": "treatment policy: patients count on, whatever they take",
    "hypothetical": "hypothetical: as if it did not happen; follow-up is censored there",
    "while_on_treatment": "while on treatment: follow-up ends there",
    "composite": "composite: it counts as the event",
    "while_alive": "while alive: follow-up ends there, the hazard is cause-specific",
}


@dataclass(frozen=True)
class Estimand:
    """What a trial is to estimate.

    Attributes:
        population, treatment, variable: In words; None: those of the trial.
        measure: What summarises the effect. The log-rank test and the Cox model of a trial go with
            `marginal_hazard_ratio`.
        intercurrent_events: `discontinuation`, `switching`, `death` to the strategy for each.
        supplementary: Further measures, whose true values are told too.
        tau_months: The horizon of all but the marginal hazard ratio.

    Raises:
        ValueError: If there is no such measure, event or strategy, or a horizon is missing.
    """

    population: str | None = None
    treatment: str | None = None
    variable: str | None = None
    measure: SummaryMeasure = "marginal_hazard_ratio"
    intercurrent_events: Mapping[str, str] = field(default_factory=dict)
    supplementary: Sequence[SummaryMeasure] = ()
    tau_months: float | None = None

    def __post_init__(self) -> None:
        known = get_args(SummaryMeasure)
        for name in (self.measure, *self.supplementary):
            if name not in known:
                raise ValueError(f"estimand.measure must be one of {', '.join(known)}, got {name!r}")
        for event, strategy in self.intercurrent_events.items():
            if event not in KINDS:
                raise ValueError(f"estimand.intercurrent_events must be among {', '.join(KINDS)}, got {event!r}")
            allowed = get_args(DeathStrategy) if event == DEATH else STRATEGIES
            if strategy not in allowed:
                raise ValueError(
                    f"estimand.intercurrent_events.{event} must be one of {', '.join(allowed)}, got {strategy!r}"
                )
        try:
            for measure in self.log_measures:
                check_measure(measure, self.tau_months, tuple(self.strategies.values()))
        except ValueError as error:
            raise ValueError(f"estimand.supplementary and tau_months: {error}") from error

    @property
    def strategies(self) -> dict[str, Strategy]:
        """That of each change of treatment."""
        return {kind: cast("Strategy", each) for kind, each in self.intercurrent_events.items() if kind != DEATH}

    @property
    def log_measures(self) -> tuple[Measure, ...]:
        """All measures, ratios as logarithms."""
        return tuple(as_log(name) for name in dict.fromkeys((self.measure, *self.supplementary)))

    def inconsistencies(self, changes: Sequence[TreatmentChange], endpoint: Endpoint) -> list[str]:
        """Where the trial does not simulate or analyse this estimand: the field, what is wrong, and the fix.

        Args:
            changes: Of treatment, as the trial simulates them.
            endpoint: Of the trial.
        """
        found, stated = [], self.intercurrent_events
        simulated = {kind for change in changes if (kind := intercurrent_event(change)) is not None}
        for kind in sorted(simulated - set(stated)):
            found.append(
                f"estimand.intercurrent_events lacks {kind}, which trial.treatment_changes simulates: say "
                f"`{kind}: treatment_policy` (or {', '.join(STRATEGIES[1:])})"
            )
        for kind in sorted(set(stated) - simulated - {DEATH}):
            found.append(
                f"estimand.intercurrent_events.{kind} is stated, but trial.treatment_changes simulates none: simulate "
                "it there, or take it out of the estimand"
            )
        if endpoint.death and stated.get(DEATH) == "while_alive":
            found.append(
                "estimand.intercurrent_events.death is while_alive, but death counts as an event: set "
                "trial.endpoint.death=false, or say `death: composite`"
            )
        if not endpoint.death and stated.get(DEATH) != "while_alive":
            found.append(
                "estimand.intercurrent_events.death must be while_alive where death only ends follow-up "
                "(trial.endpoint.death=false), or let it count: trial.endpoint.death=true with `death: composite`"
            )
        if self.measure != ANALYSED:
            found.append(
                f"estimand.measure is {self.measure}, but the trial's analysis (log-rank test, Cox model) estimates "
                f"the {ANALYSED}: choose it, and put {self.measure} among estimand.supplementary"
            )
        horizon = endpoint.horizon_months
        if self.tau_months is not None and horizon is not None and self.tau_months > horizon:
            found.append(
                f"estimand.tau_months is {self.tau_months:g}, beyond trial.endpoint.horizon_months ({horizon:g}), "
                "after which nothing happens: lower it"
            )
        return found


def as_log(measure: SummaryMeasure) -> Measure:
    """The measure as it is computed: of ratios the logarithm."""
    if measure == "marginal_hazard_ratio":
        return "marginal_log_hazard_ratio"
    return "average_log_hazard_ratio" if measure == "average_hazard_ratio" else measure


@dataclass(frozen=True)
class Attribute:
    """A line of the estimand: its attribute and what it is."""

    name: str
    text: str


def attributes(
    estimand: Estimand | None, endpoint: Endpoint, criteria: Sequence[str], changes: Sequence[TreatmentChange]
) -> list[Attribute]:
    """The five attributes in words, for a report; of no stated estimand those that the trial implies.

    Args:
        estimand: As stated, or None.
        endpoint: Of the trial.
        criteria: Labels of eligibility.
        changes: Of treatment.
    """
    stated = estimand or Estimand()
    events = dict(stated.intercurrent_events)
    for change in changes:
        if (kind := intercurrent_event(change)) is not None:
            events.setdefault(kind, "treatment_policy")
    events.setdefault(DEATH, "composite" if endpoint.death else "while_alive")
    told = "; ".join(f"{kind}: {IN_WORDS[strategy]}" for kind, strategy in events.items())
    measures = [name.replace("_", " ") for name in dict.fromkeys((stated.measure, *stated.supplementary))]
    horizon = f", until month {stated.tau_months:g}" if stated.tau_months is not None else ""
    return [
        Attribute("population", stated.population or ("; ".join(criteria) or "all patients who are simulated")),
        Attribute("treatment", stated.treatment or "experimental against control, as randomised"),
        Attribute("variable", stated.variable or f"months from randomisation to {endpoint.name}"),
        Attribute("intercurrent events", told),
        Attribute("population-level summary", ", ".join(measures) + horizon),
    ]
