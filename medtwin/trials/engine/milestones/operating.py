"""Operating characteristics of simulated trials of milestones, each with its Monte-Carlo error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.engine.batch import Estimate, mean_of, share_of
from medtwin.trials.engine.milestones.block import Records
from medtwin.trials.engine.milestones.plan import EndpointScenario, MilestoneTrial
from medtwin.trials.engine.summaries import quantile_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class OperatingLine:
    """A characteristic: of what, at which milestone, its estimate.

    Attributes:
        characteristic: In words. of: A hypothesis, an action, or empty. milestone: Its name, or empty.
        estimate: With its Monte-Carlo standard error and interval.
    """

    characteristic: str
    of: str
    milestone: str
    estimate: Estimate


@dataclass(frozen=True)
class MilestoneCharacteristics:
    """What trials of milestones do under a scenario.

    Attributes:
        trial, scenario: What was simulated. records: Of every trial.
    """

    trial: MilestoneTrial
    scenario: EndpointScenario
    records: Records

    @property
    def num_trials(self) -> int:
        """Trials simulated."""
        return len(self.records.ended_at)

    def _share(self, hits: Bools) -> Estimate:
        return share_of(int(hits.sum()), len(hits))

    def _hypothesis(self, name: str) -> int:
        names = [each.name for each in self.trial.hypotheses]
        if name not in names:
            raise ValueError(f"hypothesis must be among {names}, got {name!r}")
        return names.index(name)

    def _milestone(self, name: str) -> int:
        if name not in self.trial.names:
            raise ValueError(f"milestone must be among {self.trial.names}, got {name!r}")
        return self.trial.names.index(name)

    @property
    def _claimed(self) -> Bools:
        """Hypotheses that the trial claims to have refuted, (trials, hypotheses): co-primary ones all or none."""
        rejected = self.records.rejected_at >= 0
        if self.trial.graph is not None:
            return rejected
        return rejected & rejected.all(axis=1, keepdims=True)

    def power(self, hypothesis: str, milestone: str | None = None) -> Estimate:
        """The share of trials that reject a hypothesis, at a milestone or at any.

        Of co-primary hypotheses it is the share in which its own test succeeds; what is claimed says `all_rejected`.

        Raises:
            ValueError: If the trial has no such hypothesis or milestone.
        """
        at = self.records.rejected_at[:, self._hypothesis(hypothesis)]
        return self._share(at >= 0 if milestone is None else at == self._milestone(milestone))

    @property
    def any_rejected(self) -> Estimate:
        """The share of trials that reject at least one hypothesis; of co-primary ones, in which any test succeeds."""
        return self._share(np.any(self.records.rejected_at >= 0, axis=1))

    @property
    def all_rejected(self) -> Estimate:
        """The share of trials that reject all of them."""
        return self._share(np.all(self.records.rejected_at >= 0, axis=1))

    @property
    def true_nulls(self) -> list[str]:
        """Hypotheses whose endpoint is known to have the same law in both arms of the scenario."""
        return [each.name for each in self.trial.hypotheses if self.scenario.is_null(each)]

    @property
    def familywise_error(self) -> Estimate | None:
        """The share of trials that claim to refute a null which is true; None where the scenario has none."""
        nulls = [self._hypothesis(name) for name in self.true_nulls]
        return self._share(np.any(self._claimed[:, nulls], axis=1)) if nulls else None

    def reached(self, milestone: str) -> Estimate:
        """The share of trials in which a milestone comes."""
        return self._share(~np.isnan(self.records.months[:, self._milestone(milestone)]))

    def stopped_at(self, milestone: str, reason: str | None = None) -> Estimate:
        """The share of trials that an action stops at a milestone; not those whose last analysis it is.

        Args:
            milestone: Its name.
            reason: Of `Stop`; None: any.
        """
        here = self.records.ended_at == self._milestone(milestone)
        why = np.char.startswith(self.records.reason, "stop for ")
        return self._share(here & (why if reason is None else self.records.reason == f"stop for {reason}"))

    @property
    def capped(self) -> Estimate:
        """The share of trials whose last analysis comes by the calendar, before its own time."""
        return self._share(self.records.is_capped)

    def acted(self, milestone: str, label: str | None = None) -> Estimate:
        """The share of trials in which an action is taken at a milestone.

        Args:
            milestone: Its name.
            label: Of the action, such as "end by month 54"; None: any action.

        Raises:
            ValueError: If there is no such action.
        """
        self._milestone(milestone)
        labels = [action.label if name == milestone else None for name, action in self.trial.actions]
        which = [number for number, each in enumerate(labels) if each is not None and label in (None, each)]
        if not which:
            raise ValueError(f"label must be among {[each for each in labels if each]} at {milestone}, got {label!r}")
        return self._share(np.any(self.records.acted[:, which], axis=1))

    @property
    def ends(self) -> Floats:
        """The calendar month at which each trial ended, (trials,)."""
        return np.asarray(self.records.months[np.arange(self.num_trials), self.records.ended_at])

    @property
    def duration(self) -> Estimate:
        """Mean months until the trial ends."""
        return mean_of(self.ends)

    @property
    def subjects(self) -> Estimate:
        """Mean patients randomised by the end."""
        return mean_of(self.records.subjects.astype(np.float64))

    def month(self, milestone: str) -> Estimate:
        """Mean calendar month of a milestone, of trials in which it comes; nan where it comes in fewer than 2."""
        return mean_of(self.records.months[:, self._milestone(milestone)])

    def information(self, hypothesis: str, milestone: str) -> Estimate:
        """Mean information of a test: events, or patients assessed."""
        return mean_of(self._of_test(self.records.information, hypothesis, milestone))

    def _of_test(self, values: Floats, hypothesis: str, milestone: str | None) -> Floats:
        found = values[:, self._hypothesis(hypothesis)]
        if milestone is not None:
            return np.asarray(found[:, self._milestone(milestone)])
        # the latest of them
        order = np.argsort(np.nan_to_num(self.records.months, nan=-1.0), axis=1, kind="stable")
        in_order = np.take_along_axis(found, order, axis=1)
        has = ~np.isnan(in_order)
        last = in_order.shape[1] - 1 - np.argmax(has[:, ::-1], axis=1)
        return np.asarray(in_order[np.arange(len(in_order)), last])

    def median_effect(self, hypothesis: str, milestone: str | None = None) -> Estimate:
        """The median estimate: hazard ratio, or difference in rates.

        Args:
            hypothesis: Whose endpoint.
            milestone: Of trials in which it comes; None: the last test of each trial.
        """
        values = self._of_test(self.records.estimate, hypothesis, milestone)
        kept = values[~np.isnan(values)]
        if not len(kept):
            return Estimate(math.nan, math.nan, math.nan, math.nan)
        return quantile_of(np.exp(kept) if self._is_ratio(hypothesis) else kept, 0.5)

    def mean_estimate(self, hypothesis: str, milestone: str | None = None) -> Estimate:
        """The mean estimate: log hazard ratio, or difference in rates; see `median_effect`."""
        return mean_of(self._of_test(self.records.estimate, hypothesis, milestone))

    def _is_ratio(self, hypothesis: str) -> bool:
        endpoint = self.trial.hypotheses[self._hypothesis(hypothesis)].endpoint
        return any(endpoint in each.times_to_event for each in self.scenario.outcomes)

    @property
    def table(self) -> Sequence[OperatingLine]:
        """All of it, line by line."""
        lines = [OperatingLine("power", each.name, "", self.power(each.name)) for each in self.trial.hypotheses]
        lines += [
            OperatingLine("rejected at milestone", each.name, name, self.power(each.name, name))
            for each in self.trial.hypotheses
            for name in each.at
        ]
        if len(self.trial.hypotheses) > 1:
            lines.append(OperatingLine("any rejected", "", "", self.any_rejected))
            lines.append(OperatingLine("all rejected", "", "", self.all_rejected))
        if self.familywise_error is not None:
            nulls = ", ".join(self.true_nulls)
            lines.append(OperatingLine("familywise error", nulls, "", self.familywise_error))
        for name in self.trial.names:
            lines.append(OperatingLine("reached", "", name, self.reached(name)))
            lines.append(OperatingLine("month", "", name, self.month(name)))
        for name, action in self.trial.actions:
            lines.append(OperatingLine("action taken", action.label, name, self.acted(name, action.label)))
        lines.append(OperatingLine("ended by the calendar", "", self.trial.names[-1], self.capped))
        lines.append(OperatingLine("duration, months", "", "", self.duration))
        lines.append(OperatingLine("patients", "", "", self.subjects))
        lines += [
            OperatingLine(self._effect(each.name), each.name, name, self.median_effect(each.name, name))
            for each in self.trial.hypotheses
            for name in each.at
        ]
        return lines

    def _effect(self, hypothesis: str) -> str:
        return "median hazard ratio" if self._is_ratio(hypothesis) else "median difference in rates"

    @property
    def text(self) -> str:
        """The table, a line each."""
        rows = [f"{self.scenario.name}: {self.num_trials} trials"]
        for line in self.table:
            what = " ".join(
                part for part in (line.characteristic, line.of, line.milestone and f"({line.milestone})") if part
            )
            rows.append(f"  {what:60} {line.estimate.value:9.4f} ± {line.estimate.standard_error:.4f}")
        return "\n".join(rows)
