"""What the report of a simulated trial tells, and how its cells are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from medtwin.pipelines.simulate_disclosure import ToldCohort
from medtwin.pipelines.simulate_what_if import ToldWhatIf
from medtwin.report.page import Section, State
from medtwin.trials import Study
from medtwin.trials.engine.batch import Characteristics, Estimate
from medtwin.trials.engine.enrolled import Enrolled, enrolled_in
from medtwin.trials.engine.scenarios import Line, Scenario
from medtwin.trials.population.attrition import Division

Cell = str | int | float | None
MAIN = ("alternative", "null")


@dataclass(frozen=True)
class Findings:
    """All that the page tells.

    Attributes:
        study: The trial on its patients. scenarios: What was simulated. found: With what result, in the same order.
        lines: Every operating characteristic. example: The patient table of one trial.
        origin: Of the cohort. remarks: What a reader must know first.
        banner: What the check of the cohort says, empty for nothing. state: How badly.
        cohort: Its numbers, as far as they may be told.
        seed: Of the run. divisions: Of the pool's subjects into groups that may be told.
        trust: Sections on what is estimated, how well, and how precisely.
        what_if: What each criterion of eligibility costs; None without a cohort.
    """

    study: Study
    scenarios: Sequence[Scenario]
    found: Sequence[Characteristics]
    lines: Sequence[Line]
    example: Mapping[str, Sequence[object]]
    origin: str
    remarks: Sequence[str] = ()
    banner: str = ""
    state: State = "none"
    cohort: ToldCohort = field(default_factory=ToldCohort)
    seed: int = 0
    divisions: Mapping[str, Division] = field(default_factory=dict)
    trust: Sequence[Section] = ()
    what_if: ToldWhatIf | None = None

    @property
    def main(self) -> list[tuple[Scenario, Characteristics]]:
        """What stands side by side: the alternative and the null, or the null alone."""
        pairs = list(zip(self.scenarios, self.found, strict=True))
        return [pair for pair in pairs if pair[0].name in MAIN]

    @cached_property
    def enrolled(self) -> Enrolled:
        """The patients of the first trials of the first scenario."""
        ratio, stops = self.scenarios[0].hazard_ratio, self.found[0].stops
        return enrolled_in(self.study.plan, self.seed, ratio, stops, self.divisions)


def assumption(study: Study) -> str:
    """The assumed outcome in words."""
    assumed = study.trial.assumed
    if assumed is None:
        return "none"
    spread = f", log hazards with standard deviation {assumed.prognostic_sd:g}" if assumed.prognostic_sd else ""
    return f"median {assumed.control_median_months:g} months to the event in the control arm{spread}"


def shown(estimate: Estimate, digits: int) -> str:
    """An estimate with its Monte-Carlo error, as a cell."""
    if math.isnan(estimate.value):
        return "\N{EN DASH}"
    return f"{estimate.value:,.{digits}f} ± {estimate.standard_error:,.{digits}f}"
