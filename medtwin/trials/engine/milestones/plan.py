"""A trial with several endpoints and hypotheses, whose looks are milestones; and the truths it is simulated under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from medtwin.trials.design.graph import Graph
from medtwin.trials.design.spending import Spending, SpendingFunction
from medtwin.trials.engine.milestones.actions import Action, ChangeAccrual, Enrich, PauseAccrual, Resize
from medtwin.trials.engine.milestones.conditions import Events, Question, Rejected, Since, Statistic, Timing
from medtwin.trials.enrolment.accrual import Accrual, RampedAccrual
from medtwin.trials.enrolment.adherence import Dropout
from medtwin.trials.enrolment.randomisation import PermutedBlocks, Randomisation, ratio_parts
from medtwin.trials.outcome.several_endpoints import Outcome, names_of

SITE = "site"


@dataclass(frozen=True)
class Biomarker:
    """What divides patients into those with it, a population of its own within the whole, and those without.

    Attributes:
        name: Of the population with it. prevalence: Its share, between 0 and 1.

    Raises:
        ValueError: If the share is no such number.
    """

    name: str
    prevalence: float

    def __post_init__(self) -> None:
        if not 0 < self.prevalence < 1:
            raise ValueError(f"prevalence of {self.name} must be between 0 and 1, got {self.prevalence!r}")


@dataclass(frozen=True)
class Hypothesis:
    """A null hypothesis of no difference in an endpoint, and how its test spends its part of alpha.

    Information is events of a time to an event (log-rank test), patients assessed of a response (difference in rates,
    pooled variance). Bounds are recomputed at the information observed; the last milestone of `at`, or of the trial,
    spends the rest.

    Attributes:
        name: Of the hypothesis. endpoint: What is compared.
        at: Milestones at which it is tested, in order of time.
        planned: Information at which all of its alpha is spent; not needed with one test or with fractions.
        spending: How, by information over the planned one.
        fractions: Information fractions by milestone that are fixed in advance, whatever is observed; None: observed.
        population: Those with the biomarker of this name; None: all.

    Raises:
        ValueError: If there is no test, several have no information, or fractions are not those of the tests.
    """

    name: str
    endpoint: str
    at: Sequence[str]
    planned: float | None = None
    spending: SpendingFunction = field(default_factory=Spending)
    fractions: Mapping[str, float] | None = None
    population: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.at, str) or not len(self.at) or len(set(self.at)) < len(self.at):
            raise ValueError(f"at of {self.name} must be a list of distinct milestones, got {self.at!r}")
        if self.planned is not None and not self.planned > 0:
            raise ValueError(f"planned information of {self.name} must be above 0, got {self.planned!r}")
        if self.fractions is None:
            if self.planned is None and len(self.at) > 1:
                raise ValueError(f"planned must be given for {self.name}, which is tested {len(self.at)} times: events")
            return
        values = [self.fractions.get(name, np.nan) for name in self.at]
        if (
            len(values) != len(self.fractions)
            or not values[0] > 0
            or values[-1] != 1
            or not (np.diff(values) > 0).all()
        ):
            raise ValueError(
                f"fractions of {self.name} must be one per milestone of {list(self.at)}, increasing to 1, got "
                f"{dict(self.fractions)}"
            )


@dataclass(frozen=True)
class Milestone:
    """A point of a trial at which hypotheses are tested, then actions are taken in their order.

    Attributes:
        name: Of the milestone. when: It comes.
        actions: Each where its own question holds; after a stop nothing more is done.
    """

    name: str
    when: Timing
    actions: Sequence[Action] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.when, Timing):
            raise ValueError(
                f"when of {self.name} must come true at some month and stay so (Events, Month, Enrolled, Since, joined "
                f"by & and |), got {self.when!r}"
            )


@dataclass(frozen=True)
class MilestoneTrial:
    """A two-arm trial whose looks are milestones.

    Milestones come in the order of their months, whatever their order in the list; of two in the same month the earlier
    in the list is first. The last in the list ends the trial, and comes by `max_months` at the latest.

    Attributes:
        num_subjects: Patients wanted. accrual: How they come.
        milestones: The last one ends the trial. max_months: When it ends at the latest.
        hypotheses: What is tested. alpha: One-sided, of all together.
        graph: Weights of alpha and where they go; None: co-primary, each is tested at alpha and only all of them
            together are a claim (an intersection-union test).
        allocation_ratio: Experimental : control. randomisation: Patients in order of screening; its factors may be the
            biomarker and `site`.
        dropout: Of all endpoints together. biomarker: None: none.

    Raises:
        ValueError: If something is missing, unknown or would break the tests: each says what.

    Source: Maurer & Bretz 2013, Stat Biopharm Res 5:311 (graphs of group-sequential tests); Berger 1982, Technometrics
    24:295 (intersection-union tests).
    """

    num_subjects: int
    accrual: Accrual | RampedAccrual
    milestones: Sequence[Milestone]
    max_months: float
    hypotheses: Sequence[Hypothesis] = ()
    alpha: float = 0.025
    graph: Graph | None = None
    allocation_ratio: float = 1.0
    randomisation: Randomisation | None = None
    dropout: Dropout = field(default_factory=lambda: Dropout.of_share(0.0))
    biomarker: Biomarker | None = None

    def __post_init__(self) -> None:
        if int(self.num_subjects) != self.num_subjects or self.num_subjects < 1:
            raise ValueError(f"num_subjects must be a whole number of 1 or more, got {self.num_subjects!r}")
        if not 0 < self.max_months < np.inf:
            raise ValueError(f"max_months must be above 0, got {self.max_months!r}")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be one-sided, between 0 and 0.5, got {self.alpha!r}")
        self._check_names()
        self._check_questions()
        self._check_actions()
        if self.graph is not None and len(self.graph.weights) != len(self.hypotheses):
            raise ValueError(f"graph must have {len(self.hypotheses)} hypotheses, got {len(self.graph.weights)}")
        self.allocation.check(self.parts)
        known = {SITE, *self._populations}
        for factor in self.allocation.balanced:
            if factor.name not in known or factor.cuts:
                raise ValueError(f"randomisation must balance {sorted(known)} without cuts, got {factor!r}")
        self.accrual_as_planned.of_size(self.most_subjects)

    def _check_names(self) -> None:
        names, tested = self.names, [each.name for each in self.hypotheses]
        for what, found in (("milestones", names), ("hypotheses", tested)):
            if len(set(found)) < len(found) or not all(found):
                raise ValueError(f"{what} must have names of their own, got {found}")
        if not names:
            raise ValueError("milestones must be one or more: the last one ends the trial")
        for each in self.hypotheses:
            unknown = [name for name in each.at if name not in names]
            if unknown:
                raise ValueError(f"at of {each.name} must name milestones among {names}, got {unknown}")
            self._check_population(each.name, each.population)

    def _check_population(self, where: str, population: str | None) -> None:
        if population is not None and population not in self._populations:
            raise ValueError(
                f"population of {where} must be the trial's biomarker {self._populations}, got {population!r}"
            )

    def _check_questions(self) -> None:
        tested = [each.name for each in self.hypotheses]
        for where, leaf in self.leaves:
            if isinstance(leaf, Since) and leaf.milestone not in self.names:
                raise ValueError(f"{where} waits for a milestone that is not among {self.names}: {leaf.milestone!r}")
            if isinstance(leaf, Rejected) and not set(leaf.hypotheses) <= set(tested):
                raise ValueError(f"{where} asks for hypotheses that are not among {tested}: {list(leaf.hypotheses)}")
            if isinstance(leaf, (Events, Statistic)):
                self._check_population(where, leaf.population)

    def _check_actions(self) -> None:
        for milestone in self.milestones:
            for action in milestone.actions:
                where = f"{milestone.name}: {action.label}"
                if isinstance(action, Enrich):
                    raise ValueError(
                        f"{where} is refused: who comes would depend on the results so far, so that the tests of all "
                        "patients and of the population need closed combination tests of the stages "
                        "(medtwin.trials.adaptive.closed_test); test a nested population by Hypothesis(population=...)"
                    )
                if action.changes_information and action.when is not None and action.when.is_unblinded:
                    raise ValueError(
                        f"{where} is refused: the amount of data would depend on the difference between the arms, "
                        "which needs a combination test; ask a blinded question (events, months, patients) or none"
                    )
                if isinstance(action, (ChangeAccrual, PauseAccrual, Resize)) and self.accrual_as_planned.site_variation:
                    raise ValueError(f"{where} is refused where the rates of sites vary: set site_variation to 0")

    @property
    def _populations(self) -> list[str]:
        return [] if self.biomarker is None else [self.biomarker.name]

    @property
    def names(self) -> list[str]:
        """Of the milestones."""
        return [each.name for each in self.milestones]

    @property
    def leaves(self) -> list[tuple[str, Question]]:
        """Every single question, and where it is asked."""
        found = [(each.name, leaf) for each in self.milestones for leaf in each.when.leaves()]
        for each in self.milestones:
            for action in each.actions:
                if action.when is not None:
                    found += [(f"{each.name}: {action.label}", leaf) for leaf in action.when.leaves()]
        return found

    @property
    def actions(self) -> list[tuple[str, Action]]:
        """All of them, and the milestones they are taken at."""
        return [(each.name, action) for each in self.milestones for action in each.actions]

    @cached_property
    def parts(self) -> tuple[int, int]:
        """Of the allocation ratio, the control's first."""
        return ratio_parts(self.allocation_ratio)

    @cached_property
    def allocation(self) -> Randomisation:
        """How patients are randomised; by default in permuted blocks of twice the ratio's sum."""
        return PermutedBlocks(2 * sum(self.parts)) if self.randomisation is None else self.randomisation

    @cached_property
    def most_subjects(self) -> int:
        """The most patients that it can want."""
        return max([self.num_subjects, *(a.num_subjects for _, a in self.actions if isinstance(a, Resize))])

    @cached_property
    def accrual_as_planned(self) -> Accrual:
        """How so many come: at the rates of the planned number."""
        return self.accrual.of_size(self.num_subjects)

    def check(self, scenario: EndpointScenario) -> None:
        """Refuses a scenario that lacks an endpoint that the trial asks for, or has it as another kind.

        Raises:
            ValueError: If so.
        """
        known = names_of(scenario.outcomes)
        times = [name for each in scenario.outcomes for name in each.times_to_event]
        for each in self.hypotheses:
            if each.endpoint not in known:
                raise ValueError(f"endpoint of {each.name} must be among {list(known)}, got {each.endpoint!r}")
        for where, leaf in self.leaves:
            if isinstance(leaf, Events) and leaf.endpoint not in times:
                raise ValueError(f"{where} counts events of {leaf.endpoint!r}, which is not among {times}")
            if isinstance(leaf, Statistic) and leaf.endpoint not in known:
                raise ValueError(f"{where} asks for a test of {leaf.endpoint!r}, which is not among {list(known)}")


@dataclass(frozen=True)
class EndpointScenario:
    """A truth: the laws of all endpoints in both arms.

    Attributes:
        name: Of the scenario. outcomes: In the order in which they are drawn; endpoints have names of their own.

    Raises:
        ValueError: If two endpoints have the same name, or there is none.
    """

    name: str
    outcomes: Sequence[Outcome]

    def __post_init__(self) -> None:
        if not names_of(self.outcomes):
            raise ValueError(f"outcomes of {self.name} must be one or more, got none")

    def is_null(self, hypothesis: Hypothesis) -> bool:
        """Whether the hypothesis is known to be true: its endpoint has the same law in both arms."""
        outcome = names_of(self.outcomes)[hypothesis.endpoint]
        return outcome.is_null(hypothesis.endpoint, inside=hypothesis.population is not None)
