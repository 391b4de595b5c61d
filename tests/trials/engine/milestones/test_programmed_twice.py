"""A second program of the same trials: one patient and one trial at a time, no arrays, bounds from the design room."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.design.boundaries import observed_bounds
from medtwin.trials.design.graph import Graph
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.milestones.patients import Patients, draw_patients
from medtwin.trials.engine.milestones.plan import MilestoneTrial
from medtwin.trials.engine.milestones.simulate import simulate_milestones
from tests.trials.engine.milestones.samples import busy_trial, scenario

TRIALS = 60
RATE_STARTS, RATES = (0.0, 4.0), (4.0, 9.0)


def rate_between(start: float, end: float) -> float:
    """Patients expected between two months at the planned rate."""
    early = max(0.0, min(end, 4.0) - min(start, 4.0))
    late = max(0.0, max(end, 4.0) - max(start, 4.0))
    return 4.0 * early + 9.0 * late


def month_after(start: float, amount: float) -> float:
    """When so many more are expected."""
    early = max(0.0, 4.0 - start) * 4.0
    if amount <= early:
        return start + amount / 4.0
    return max(start, 4.0) + (amount - early) / 9.0


@dataclass
class Slow:
    """One trial, patient by patient."""

    trial: MilestoneTrial
    patients: Patients
    row: int
    factor: float = 1.0
    paused_until: float = 0.0
    wanted: int = 120
    last: float = 30.0
    came: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    reached: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    found: dict[tuple[str, str], tuple[float, float, float]] = field(default_factory=dict)
    acted: list[str] = field(default_factory=list)
    end: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        planned = self.patients.screened[self.row]
        amounts = [rate_between(0.0, month) for month in planned]
        self.gaps = [b - a for a, b in zip([0.0, *amounts], amounts, strict=False)]
        self.came = list(planned)

    def redraw(self, now: float) -> None:
        """Who has not come by now comes at the present rate, one gap after the other."""
        before = bisect.bisect_right(self.came, now)
        start = max(now, self.paused_until)
        if before >= self.wanted_before:  # enrolment had ended: the next gap begins now
            left = self.gaps[self.wanted_before]
            place, at = self.wanted_before, start
        else:
            place, at = before, start
            left = self.left_at_now
        for j in range(place, len(self.came)):
            at = month_after(at, (left if j == place else self.gaps[j]) / self.factor)
            self.came[j] = at

    wanted_before: int = 120
    left_at_now: float = 0.0

    def freeze(self, now: float) -> None:
        """How much of the next patient's gap is left, before anything changes."""
        self.wanted_before = self.wanted
        before = bisect.bisect_right(self.came, now)
        if before < len(self.came):
            start = max(now, self.paused_until)
            self.left_at_now = rate_between(start, self.came[before]) * self.factor

    def enrolled(self) -> list[float]:
        return [month if j < self.wanted else math.inf for j, month in enumerate(self.came)]

    def events(self, endpoint: str, population: str | None = None) -> list[float]:
        event, inside = self.patients.event[endpoint][self.row], self.patients.group.inside
        assert inside is not None
        return sorted(
            month + float(event[j])
            for j, month in enumerate(self.enrolled())
            if math.isfinite(month + event[j]) and (population is None or inside[self.row, j])
        )

    def count(self, endpoint: str, now: float) -> int:
        return sum(month <= now * (1 + 1e-13) for month in self.events(endpoint))

    def month_of(self, endpoint: str, count: int, population: str | None = None) -> float:
        months = self.events(endpoint, population)
        return months[count - 1] if len(months) >= count else math.inf

    def test(self, endpoint: str, now: float, population: str | None = None) -> tuple[float, float, float]:
        """z, information and estimate."""
        now = now * (1 + 1e-13)
        inside, arm = self.patients.group.inside, self.patients.group.arm[self.row]
        assert inside is not None
        here = [j for j, m in enumerate(self.enrolled()) if m < now and (population is None or inside[self.row, j])]
        if endpoint == "orr":
            seen = [j for j in here if self.came[j] + 3.0 <= now and self.patients.dropout[self.row, j] >= 3.0]
            y = self.patients.drawn.response["orr"][self.row]
            n1, n0 = sum(arm[j] == 1 for j in seen), sum(arm[j] == 0 for j in seen)
            y1, y0 = (sum(bool(y[j]) for j in seen if arm[j] == a) for a in (1, 0))
            p = (y1 + y0) / (n1 + n0)
            return (y1 / n1 - y0 / n0) / math.sqrt(p * (1 - p) * (1 / n1 + 1 / n0)), n1 + n0, y1 / n1 - y0 / n0
        months, left = self.patients.drawn.months[endpoint][self.row], self.patients.dropout[self.row]
        time = np.array([min(months[j], left[j], now - self.came[j]) for j in here])
        is_event = np.array([months[j] <= min(left[j], now - self.came[j]) for j in here])
        group = arm[here]
        test = logrank_test(time, is_event, group)
        z = float((test.expected - test.observed)[1].sum() / math.sqrt(test.variance[1, 1]))
        return z, float(is_event.sum()), float(cox_model(time, is_event, group[:, None].astype(float)).coefficients[0])


def run(slow: Slow) -> None:
    """From milestone to milestone."""
    trial = slow.trial
    for _ in range(len(trial.milestones)):
        due = {name: month for name, month in dues(slow).items() if name not in slow.reached}
        name = min(due, key=lambda each: (due[each], trial.names.index(each)))
        now = due[name]
        slow.reached[name] = now
        compare(slow, name, now)
        act(slow, name, now)
        if slow.end is not None:
            return
        if name == "final":
            slow.end = (name, "final analysis")
            return


def dues(slow: Slow) -> dict[str, float]:
    came, reached = sorted(slow.enrolled()), slow.reached
    now = max(reached.values(), default=0.0)
    found = {
        "gate": min(came[39] + 3.0, 12.0),
        "checkpoint": 15.0,
        "pause": came[99],
        "interim": max(slow.month_of("pfs", 60), reached.get("gate", math.inf) + 2.0),
        "subgroup": slow.month_of("os", 20, "marker"),
        "final": min(max(slow.month_of("os", 70), reached.get("interim", math.inf) + 3.0), slow.last),
    }
    return {name: max(month, now) for name, month in found.items()}


def compare(slow: Slow, name: str, now: float) -> None:
    trial = slow.trial
    places = {each.name: j for j, each in enumerate(trial.hypotheses)}
    for each in trial.hypotheses:
        if name in each.at:
            slow.found[each.name, name] = slow.test(each.endpoint, now, each.population)
    again = True
    while again:
        again = False
        assert trial.graph is not None
        graph: Graph = trial.graph
        for done in slow.rejected:
            graph = graph.without(places[done])
        for each in trial.hypotheses:
            level = 0.025 * float(graph.weights[places[each.name]])
            if name not in each.at or each.name in slow.rejected or level <= 0:
                continue
            seen = sorted({slow.found[each.name, at][1] for at in each.at if at in slow.reached})  # one of equal ones
            is_final = name in (each.at[-1], "final")
            bound = observed_bounds(each.planned or seen[-1], seen, level, Spending(), is_final=is_final)[-1]
            if slow.found[each.name, name][0] >= bound:
                slow.rejected[each.name] = name
                again = True


def act(slow: Slow, name: str, now: float) -> None:
    def stop(reason: str) -> None:
        slow.end = (name, f"stop for {reason}")
        slow.acted.append(f"stop for {reason}")

    slow.freeze(now)
    if name == "gate" and slow.test("orr", now)[0] < 0.5244005127080407:
        stop("no go: orr")
    if name == "checkpoint":
        checkpoint(slow, now)
    if name == "pause":
        slow.acted.append("pause of 1.5 months")
        slow.paused_until = max(slow.paused_until, now + 1.5)
        slow.redraw(now)
    if name == "interim":
        if slow.found["PFS", name][0] < 0.0:
            stop("futility")
        elif {"PFS", "OS"} <= set(slow.rejected):
            stop("efficacy")
    if name == "subgroup" and {"PFS", "PFS+"} <= set(slow.rejected):
        stop("efficacy")


def checkpoint(slow: Slow, now: float) -> None:
    if slow.count("pfs", now) < 40:
        slow.factor = 2.0
        slow.acted.append("accrual times 2")
        slow.left_at_now = rate_between(max(now, slow.paused_until), next_of(slow, now))
        slow.redraw(now)
        slow.freeze(now)
    if slow.count("os", now) < 18:
        slow.last = 34.0
        slow.acted.append("end by month 34")
    if slow.count("pfs", now) < 45:
        slow.acted.append("resize to 150 patients")
        slow.wanted = 150
        slow.redraw(now)


def next_of(slow: Slow, now: float) -> float:
    """When the next patient was to come, at the planned rate."""
    before = bisect.bisect_right(slow.came, now)
    return slow.came[before] if before < len(slow.came) else math.inf


@pytest.fixture(scope="module")
def both() -> tuple[Any, list[Slow]]:
    trial, truth = busy_trial(), scenario(0.6, 0.5, 0.45)
    patients = draw_patients(trial, truth, 11, 0, TRIALS)
    slow = [Slow(trial, patients, row) for row in range(TRIALS)]
    for each in slow:
        run(each)
    return simulate_milestones(trial, truth, TRIALS, seed=11).records, slow


def test_milestones_come_at_the_same_months(both: tuple[Any, list[Slow]]) -> None:
    records, slow = both
    names = slow[0].trial.names
    for row, each in enumerate(slow):
        expected = [each.reached.get(name, math.nan) for name in names]
        np.testing.assert_allclose(records.months[row], expected, rtol=1e-9)


def test_trials_end_for_the_same_reason(both: tuple[Any, list[Slow]]) -> None:
    records, slow = both
    names = slow[0].trial.names
    assert [(names[at], str(why)) for at, why in zip(records.ended_at, records.reason, strict=True)] == [
        each.end for each in slow
    ]
    assert len({each.end for each in slow}) >= 4
    labels = [action.label for _, action in slow[0].trial.actions]
    for row, each in enumerate(slow):
        assert sorted(labels[place] for place in np.flatnonzero(records.acted[row])) == sorted(each.acted)
    assert {label for each in slow for label in each.acted} == set(labels)


def test_tests_find_the_same(both: tuple[Any, list[Slow]]) -> None:
    records, slow = both
    trial = slow[0].trial
    for row, each in enumerate(slow):
        for j, hypothesis in enumerate(trial.hypotheses):
            for k, name in enumerate(trial.names):
                found = each.found.get((hypothesis.name, name), (math.nan,) * 3)
                assert records.z[row, j, k] == pytest.approx(found[0], abs=2e-5, nan_ok=True)
                assert records.information[row, j, k] == pytest.approx(found[1], nan_ok=True)
                assert records.estimate[row, j, k] == pytest.approx(found[2], abs=2e-4, nan_ok=True)


def test_the_graph_rejects_the_same(both: tuple[Any, list[Slow]]) -> None:
    records, slow = both
    trial = slow[0].trial
    for row, each in enumerate(slow):
        at = {h.name: trial.names[k] for h, k in zip(trial.hypotheses, records.rejected_at[row], strict=True) if k >= 0}
        assert at == each.rejected
    assert sum(len(each.rejected) for each in slow) > TRIALS // 3
