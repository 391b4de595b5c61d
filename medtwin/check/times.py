"""When: gaps between the times of a subject, length of the record, survival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Distribution, Measure
from medtwin.check.findings import AgeRow, SurvivalRow
from medtwin.check.marginals import Observations, common_support, ks_distance, shared_support, total_cdf, wasserstein
from medtwin.check.records import US_PER_HOUR, Records
from medtwin.check.resample import Draws, Features, Plan, Sums, compare

AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 121))
MIN_BAND = 20
"""Real subjects in a band of age below which their mean length is noise."""
MIN_BAND_TWINS = 10
"""Twins that a band must be due to have: with 10 expected, none at all is no accident (exp(-10) = 0.00005)."""
NUM_SURVIVAL_POINTS = 60
"""Points of the curves that are drawn."""
MAX_EXIT = 0.95
"""Share of the real subjects with a duration that may have left where survival is last looked at: tau."""

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
    """The measures of gaps, of record length (all in all, and by age) and of survival, and their distributions."""
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
    measures.append(length_by_age(sides, plan))
    deaths, curves = _mortality_measures(sides, plan)
    if curves is not None:
        shown.append(curves)
    return measures + deaths, shown


def _marginal(sides: list[Observations], plan: Plan, name: str, label: str) -> tuple[Draws, Draws, Distribution]:
    shown = common_support(sides[0].value, sides[1].value)
    drawn = Distribution(name, label, shown.tolist(), *total_cdf(plan, *(one.histogram(shown) for one in sides[:2])))
    support = shared_support([side.value for side in sides])
    real, synthetic, *rest = (side.histogram(support) for side in sides)
    control = rest[0] if rest else None
    return (
        compare(plan, real, synthetic, control, ks_distance),
        compare(plan, real, synthetic, control, wasserstein(support, 1.0)),
        drawn,
    )


def _mortality_measures(sides: list[Records], plan: Plan) -> tuple[list[Measure], Distribution | None]:
    """Distances of the Kaplan-Meier curves of death since the first step, and of the share that dies.

    Not applicable where nobody dies on either side: twins that die of what no real subject died of are a difference.
    """
    titles = {
        "survival.gap": "Survival since the first event: largest gap of the Kaplan-Meier curves",
        "survival.rmst": "Restricted mean survival time: absolute difference, as a share of its limit",
        "mortality.difference": "Subjects that die: absolute difference of the shares",
    }
    num_deaths = [int(side.survival[1].sum()) for side in sides[:2]]
    if not any(num_deaths):
        return [Measure(name, title, None, 0, "lower", "nobody dies", False) for name, title in titles.items()], None

    def share_difference(first: Sums, second: Sums) -> Floats:
        return np.asarray(np.abs(_share(first) - _share(second)))

    died = [np.column_stack([side.survival[1], np.ones(side.num_subjects)]).astype(np.float32) for side in sides]
    share = compare(plan, *_three(died), share_difference).estimate(plan)
    mortality = Measure("mortality.difference", titles.pop("mortality.difference"), share, sum(num_deaths))
    points = survival_points(*sides)
    if points is None:
        reason = "no real subject has events at two times"
        return [*(Measure(name, title, None, 0, reason=reason) for name, title in titles.items()), mortality], None
    tau = float(points[-1])
    titles["survival.rmst"] = f"Restricted mean survival time up to {_span(tau)}: absolute difference, as a share of it"

    def gap(first: Sums, second: Sums) -> Floats:
        return np.asarray(np.abs(kaplan_meier(first) - kaplan_meier(second)).max(axis=1))

    def mean_difference(first: Sums, second: Sums) -> Floats:
        return np.asarray(np.abs(restricted_mean(first, points) - restricted_mean(second, points)) / tau)

    features = [exits(side, points) for side in sides]
    curves = [
        Measure(name, titles[name], compare(plan, *_three(features), distance).estimate(plan), sum(num_deaths))
        for name, distance in (("survival.gap", gap), ("survival.rmst", mean_difference))
    ]
    return [*curves, mortality], _drawn(sides, features, points)


def _drawn(sides: list[Records], features: list[NDArray[np.float32]], points: Floats) -> Distribution:
    """The curves at quantiles of the real times, which are no single subject's."""
    duration = sides[0].survival[0]
    shown = np.unique(np.quantile(duration[duration > 0], np.linspace(0, MAX_EXIT, NUM_SURVIVAL_POINTS)))
    at = np.searchsorted(points, shown, side="right") - 1
    curves = [kaplan_meier(_everybody(one))[0, at].tolist() for one in features[:2]]
    return Distribution("survival", "years since the first event", shown.tolist(), curves[0], curves[1])


def _span(years: float) -> str:
    return f"{years:.1f} years" if years >= 1 else f"{years * 365.25:.1f} days"


def _share(sums: Sums) -> Floats:
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1))


def _everybody(features: NDArray[np.float32]) -> Sums:
    return np.asarray(np.sum(features, axis=0, keepdims=True, dtype=np.float64))


def _three(sides: list[NDArray[np.float32]]) -> tuple[Features, Features, Features | None]:
    return sides[0], sides[1], sides[2] if len(sides) > 2 else None


def survival_points(*sides: Records) -> Floats | None:
    """Years at which survival is read, (points,), from 0 to where 5 % of the real subjects with any are left.

    Every duration that occurs, where there are few; then the curves are exact. None: no real subject has a duration.
    """
    durations = [side.survival[0] for side in sides]
    positive = [duration[duration > 0] for duration in durations]
    if not len(positive[0]):
        return None
    tau = np.quantile(positive[0], MAX_EXIT)
    support = common_support(*positive)
    return np.concatenate([[0.0], support[support < tau], [tau]])


def exits(records: Records, points: Floats) -> NDArray[np.float32]:
    """Deaths, then all exits, by interval between points, (subjects, 2 * (points + 1)); interval i ends at point i.

    Subjects without a dated event are never at risk: zeros.
    """
    duration, died = records.survival
    interval = np.searchsorted(points, duration)
    width = len(points) + 1
    features = np.zeros((records.num_subjects, 2 * width), np.float32)
    rows = np.unique(records.steps.subject)
    features[rows, width + interval[rows]] = 1
    rows = rows[died[rows]]
    features[rows, interval[rows]] = 1
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


def restricted_mean(sums: Sums, points: Floats) -> Floats:
    """Restricted mean survival time in years, (draws,): the area under the Kaplan-Meier curve from 0 to the last point.

    Args:
        sums: Of `exits`, (draws, 2 * (points + 1)).
        points: Years, (points,), the first of them 0. Beyond its last exit a curve stays as it is.

    Source: Royston & Parmar 2013, BMC Med Res Methodol 13:152.
    """
    return np.asarray(kaplan_meier(sums)[:, :-1] @ np.diff(points))


def survival_row(real: Records, synthetic: Records) -> SurvivalRow | None:
    """Deaths and restricted mean survival times of both sides in numbers; None where nobody dies or has a duration."""
    sides = real, synthetic
    died = [int(side.survival[1].sum()) for side in sides]
    points = survival_points(*sides)
    if points is None or not any(died):
        return None
    means = [float(restricted_mean(_everybody(exits(side, points)), points)[0]) for side in sides]
    shares = [count / max(side.num_subjects, 1) for count, side in zip(died, sides, strict=True)]
    return SurvivalRow(float(points[-1]), means[0], means[1], died[0], died[1], shares[0], shares[1])


def length_by_age(sides: list[Records], plan: Plan) -> Measure:
    """How far the mean number of events by age is off, over the bands of age that are large enough on both sides.

    A band counts where 20 real subjects are in it and 10 twins would be, were the twins as old as the real subjects; if
    then no twin is in it, it has half an event per subject.
    """
    name = "length_by_age.log_ratio"
    title = "Events per subject by age: mean absolute log ratio of the means, over bands of age"
    features = [_events_by_band(side) for side in sides]
    num_real = features[0][:, len(AGE_BANDS) :].sum(axis=0)
    expected = num_real * sides[1].num_subjects / max(sides[0].num_subjects, 1)
    bands = np.flatnonzero((num_real >= MIN_BAND) & (expected >= MIN_BAND_TWINS))
    if not len(bands):
        reason = f"no band of age has {MIN_BAND} real subjects and would have {MIN_BAND_TWINS} twins"
        return Measure(name, title, None, 0, "lower", reason, bool(num_real.any()))

    def distance(first: Sums, second: Sums) -> Floats:
        ratio = np.log(_mean_events(second)[:, bands] / _mean_events(first)[:, bands])
        return np.asarray(np.abs(ratio).mean(axis=1))

    return Measure(name, title, compare(plan, *_three(features), distance).estimate(plan), len(bands))


def _events_by_band(records: Records) -> NDArray[np.float32]:
    """Events of each subject in the column of its band of age, then a 1 in that column, (subjects, 2 * bands)."""
    is_in = np.column_stack([(records.ages >= low) & (records.ages < high) for low, high in AGE_BANDS])
    return np.column_stack([is_in * records.num_events[:, None], is_in]).astype(np.float32)


def _mean_events(sums: Sums) -> Floats:
    events, subjects = np.split(sums, 2, axis=1)
    return np.asarray((events + 0.5) / np.maximum(subjects, 1))


def band_name(low: int, high: int, bands: Sequence[tuple[int, int]]) -> str:
    """What a band of ages is called; the last one has no end.

    >>> [band_name(*band, AGE_BANDS) for band in (AGE_BANDS[1], AGE_BANDS[-1])]
    ['18\N{EN DASH}39', '80 and over']
    """
    return f"{low} and over" if high == bands[-1][1] else f"{low}\N{EN DASH}{high - 1}"


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
        rows.append(
            AgeRow(
                band_name(low, high, AGE_BANDS),
                int(chosen[0].sum()),
                int(chosen[1].sum()),
                medians[0],
                medians[2],
                medians[1],
                medians[3],
            )
        )
    return rows
