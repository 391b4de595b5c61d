"""When: gaps between the times of a subject, length of the record, survival."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.check.findings import AgeRow, Distribution, Measure
from medtwin.check.marginals import Observations, common_support, ks_distance, total_cdf, wasserstein
from medtwin.check.records import US_PER_HOUR, Records
from medtwin.check.resample import Draws, Plan, Sums, compare

AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 121))
NUM_SURVIVAL_POINTS = 60

Floats = NDArray[np.float64]


def gap_hours(records: Records) -> Observations:
    """Hours from each step of a subject to its next."""
    steps = records.steps
    same = steps.subject[1:] == steps.subject[:-1]
    gap = np.diff(steps.time_us)[same] / US_PER_HOUR
    return Observations(steps.subject[1:][same], gap, records.num_subjects)


def _per_subject(records: Records, value: NDArray[Any]) -> Observations:
    return Observations(np.arange(records.num_subjects), np.asarray(value, np.float64), records.num_subjects)


def time_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan
) -> tuple[list[Measure], list[Distribution]]:
    """The measures of gaps, of record length and of survival, and their distributions."""
    measures: list[Measure] = []
    shown: list[Distribution] = []
    sides = [real, synthetic, *([control] if control is not None else [])]
    gaps = [gap_hours(side) for side in sides]
    if len(gaps[0].value):
        logs = [Observations(gap.subject, np.log(gap.value), gap.num_subjects) for gap in gaps]
        ks, moved, drawn = _marginal(logs, plan, "gaps", "gap between two times, hours")
        measures += [
            Measure(
                "gaps.ks", "Gaps between the times of a subject: KS distance", ks.estimate(plan), len(logs[0].value)
            ),
            Measure(
                "gaps.log_wasserstein",
                "Gaps: Wasserstein distance of their natural logarithm",
                moved.estimate(plan),
                len(logs[0].value),
            ),
        ]
        points = np.exp(drawn.support).tolist()
        shown.append(Distribution(drawn.name, drawn.label, points, drawn.cdf_real, drawn.cdf_synthetic))
    else:
        reason = "no real subject has events at two times"
        measures.append(Measure("gaps.ks", "Gaps between the times of a subject", None, 0, "lower", reason, False))
    for name, title, label, values in (
        ("length.ks", "Events per subject: KS distance", "events per subject", [side.num_events for side in sides]),
        ("follow_up.ks", "Years of follow-up: KS distance", "years of follow-up", [side.years for side in sides]),
    ):
        lengths = [_per_subject(side, value) for side, value in zip(sides, values, strict=True)]
        ks, _, drawn = _marginal(lengths, plan, name.partition(".")[0], label)
        measures.append(Measure(name, title, ks.estimate(plan), real.num_subjects))
        shown.append(drawn)
    survival, curves = _survival(sides, plan)
    measures.append(survival)
    if curves is not None:
        shown.append(curves)
    return measures, shown


def _marginal(sides: list[Observations], plan: Plan, name: str, label: str) -> tuple[Draws, Draws, Distribution]:
    support = common_support(sides[0].value, sides[1].value)
    real, synthetic, *rest = (side.histogram(support) for side in sides)
    control = rest[0] if rest else None
    drawn = Distribution(name, label, support.tolist(), *total_cdf(plan, real, synthetic))
    return (
        compare(plan, real, synthetic, control, ks_distance),
        compare(plan, real, synthetic, control, wasserstein(support, 1.0)),
        drawn,
    )


def _survival(sides: list[Records], plan: Plan) -> tuple[Measure, Distribution | None]:
    """The largest gap between the Kaplan-Meier curves of death since the first step."""
    title = "Survival since the first event: largest gap of the Kaplan-Meier curves"
    if not sides[0].survival[1].any():
        return Measure("survival.gap", title, None, 0, "lower", "no real subject dies", False), None
    duration, died = sides[0].survival
    points = np.unique(np.quantile(duration[duration > 0], np.linspace(0, 0.95, NUM_SURVIVAL_POINTS)))
    features = [_exits(side, points) for side in sides]

    def distance(first: Sums, second: Sums) -> Floats:
        return np.asarray(np.abs(kaplan_meier(first) - kaplan_meier(second)).max(axis=1))

    draws = compare(plan, features[0], features[1], features[2] if len(features) > 2 else None, distance)
    curves = [kaplan_meier(np.sum(one, axis=0, keepdims=True, dtype=np.float64))[0].tolist() for one in features[:2]]
    shown = Distribution("survival", "years since the first event", points.tolist(), curves[0], curves[1])
    return Measure("survival.gap", title, draws.estimate(plan), int(died.sum())), shown


def _exits(records: Records, points: Floats) -> NDArray[np.float32]:
    """Deaths, then all exits, by interval between points, (subjects, 2 * (points + 1))."""
    duration, died = records.survival
    interval = np.searchsorted(points, duration)  # interval i ends at points[i]
    width = len(points) + 1
    features = np.zeros((records.num_subjects, 2 * width), np.float32)
    rows = np.arange(records.num_subjects)
    features[rows[died], interval[died]] = 1
    features[rows, width + interval] = 1
    return features


def kaplan_meier(sums: Sums) -> Floats:
    """Share alive after each point, (draws, points), from sums of deaths and exits by interval.

    Deaths of an interval come before its censorings, as Kaplan and Meier have it of one time.
    Source: Kaplan & Meier 1958, J Am Stat Assoc 53:457.
    """
    deaths, exits = np.split(sums, 2, axis=1)
    at_risk = exits[:, ::-1].cumsum(axis=1)[:, ::-1]
    alive = 1 - deaths / np.maximum(at_risk, 1e-9)
    return np.asarray(np.cumprod(alive, axis=1)[:, :-1])


def age_rows(real: Records, synthetic: Records) -> list[AgeRow]:
    """Median length of the record by age at the first event; bands that nobody is in are left out."""
    rows = []
    for low, high in AGE_BANDS:
        chosen = [(side.ages >= low) & (side.ages < high) for side in (real, synthetic)]
        if not any(mask.any() for mask in chosen):
            continue
        medians = [
            float(np.median(value[mask])) if mask.any() else None
            for side, mask in zip((real, synthetic), chosen, strict=True)
            for value in (side.num_events, side.years)
        ]
        band = f"{low}\N{EN DASH}{high - 1}" if high < 121 else f"{low} and over"
        rows.append(
            AgeRow(band, int(chosen[0].sum()), int(chosen[1].sum()), medians[0], medians[2], medians[1], medians[3])
        )
    return rows
