"""Which codes, how often: prevalence and rate per code, by frequency decile, divergence, missing and novel codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from medtwin.check.estimates import LEVEL, Measure
from medtwin.check.findings import CodeRow, DecileRow
from medtwin.check.marginals import js_divergence
from medtwin.check.records import Records
from medtwin.check.resample import Draws, Features, Plan, Sums, compare, weighted_sums

MIN_SUBJECTS = 11
"""Real subjects below which a code's own ratio is noise; such codes count in R2 and in the shares of codes only."""

Floats = NDArray[np.float64]


class CodeFeatures:
    """Features of one side: who has a code (subjects, codes + 1) and how often (subjects, codes + 1).

    The last column holds what the others are divided by: 1 per subject, and years of follow-up.
    """

    def __init__(self, records: Records, num_codes: int) -> None:
        counts = records.counts.copy()
        counts.resize((records.num_subjects, num_codes))
        has = counts.copy()
        has.data = np.minimum(has.data, 1)
        self.has = _with_column(has, np.ones(records.num_subjects))
        self.counts = _with_column(counts, records.years)


def _with_column(matrix: sparse.csr_array, column: NDArray[np.floating]) -> sparse.csr_array:
    last = sparse.csr_array(np.asarray(column, np.float32)[:, None])
    return sparse.csr_array(sparse.hstack([matrix, last], format="csr"))


def prevalence(sums: Sums) -> Floats:
    """Share of subjects with each code, (draws, codes), half a subject added so that a logarithm exists."""
    return np.asarray((sums[:, :-1] + 0.5) / (sums[:, -1:] + 1))


def rate(sums: Sums) -> Floats:
    """Events per patient-year, (draws, codes), half an event added; follow-up of less than an hour counts as one."""
    return np.asarray((sums[:, :-1] + 0.5) / np.maximum(sums[:, -1:], 1 / 8766))


def code_measures(
    real: Records, synthetic: Records, control: Records | None, plan: Plan, descriptions: Mapping[str, str]
) -> tuple[list[Measure], list[CodeRow], list[DecileRow]]:
    """The measures of codes, one row per code, and one per decile of the real codes."""
    num_codes = len(real.vocabulary.codes)
    sides = [CodeFeatures(side, num_codes) for side in (real, synthetic)]
    third = CodeFeatures(control, num_codes) if control is not None else None
    has = (sides[0].has, sides[1].has, third.has if third else None)
    counts = (sides[0].counts, sides[1].counts, third.counts if third else None)
    num_real, num_synthetic = (np.asarray(side.has[:, :-1].sum(axis=0), dtype=np.int64).ravel() for side in sides)
    frequent = np.flatnonzero(num_real >= MIN_SUBJECTS)
    used = np.flatnonzero((num_real > 0) | (num_synthetic > 0))
    measures = _ratio_measures(plan, has, counts, frequent)
    measures += _agreement_measures(plan, has, counts, used, frequent)
    measures += _divergence_measures(plan, counts, used)
    measures += _share_measures(plan, counts, num_real, num_synthetic)
    rows = _code_rows(plan, sides, used, list(real.vocabulary.codes), descriptions)
    return measures, rows, _decile_rows(plan, has, num_real)


Three: TypeAlias = "tuple[Features, Features, Features | None]"


def _ratio_measures(plan: Plan, has: Three, counts: Three, frequent: NDArray[np.int64]) -> list[Measure]:
    if not len(frequent):
        reason = f"no code is borne by {MIN_SUBJECTS} real subjects"
        return [
            Measure("prevalence.log_ratio", "Prevalence: mean absolute log ratio", None, 0, reason=reason),
            Measure("rate.log_ratio", "Rate: mean absolute log ratio", None, 0, reason=reason),
        ]

    def of_prevalence(first: Sums, second: Sums) -> Floats:
        return _mean_log_ratio(prevalence(first), prevalence(second), frequent)

    def of_rate(first: Sums, second: Sums) -> Floats:
        return _mean_log_ratio(rate(first), rate(second), frequent)

    return [
        Measure(
            "prevalence.log_ratio",
            "Prevalence: mean absolute log ratio over frequent codes",
            compare(plan, *has, of_prevalence).estimate(plan),
            len(frequent),
        ),
        Measure(
            "rate.log_ratio",
            "Events per patient-year: mean absolute log ratio over frequent codes",
            compare(plan, *counts, of_rate).estimate(plan),
            len(frequent),
        ),
    ]


def _mean_log_ratio(first: Floats, second: Floats, columns: NDArray[np.int64]) -> Floats:
    return np.asarray(np.abs(np.log(second[:, columns] / first[:, columns])).mean(axis=1))


def unexplained_share(first: Floats, second: Floats) -> Floats:
    """1 - R2, (draws,), of the second (draws, numbers) as a prediction of the first."""
    total = ((first - first.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return np.asarray(((second - first) ** 2).sum(axis=1) / np.maximum(total, 1e-12))


def disagreement_of_ranks(first: Floats, second: Floats) -> Floats:
    """1 - Spearman's rank correlation, (draws,), of two (draws, numbers), ties at their mean rank.

    Where a side is constant it says nothing of the order: 1, but 0 where both are.
    Source: Spearman 1904, Am J Psychol 15:72.
    """
    ranks = [rankdata(side, axis=1) for side in (first, second)]
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    spread = [np.sqrt((one**2).sum(axis=1)) for one in centred]
    scale = spread[0] * spread[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = 1 - (centred[0] * centred[1]).sum(axis=1) / scale
    both_constant = np.asarray((spread[0] + spread[1]) == 0)
    return np.where(scale > 0, np.maximum(distance, 0), np.where(both_constant, 0.0, 1.0))


def kl_divergence(first: Sums, second: Sums) -> Floats:
    """Kullback-Leibler divergence in nats, (draws,), of the second from the first: KL(first || second).

    Of events by code, (draws, codes). Half an event is added to each (Krichevsky & Trofimov 1981, IEEE Trans Inf Theory
    27:199), so that a code that one side lacks costs much, but not everything.

    Source: Kullback & Leibler 1951, Ann Math Stat 22:79.
    """
    p, q = ((side + 0.5) / (side + 0.5).sum(axis=1, keepdims=True) for side in (first, second))
    return np.asarray((p * np.log(p / q)).sum(axis=1))


def _agreement_measures(
    plan: Plan, has: Three, counts: Three, used: NDArray[np.int64], frequent: NDArray[np.int64]
) -> list[Measure]:
    """How much of the differences between codes the twins reproduce; all of these are better when higher."""

    def of_prevalence(first: Sums, second: Sums) -> Floats:
        return unexplained_share(prevalence(first)[:, used], prevalence(second)[:, used])

    def of_rate(first: Sums, second: Sums) -> Floats:
        return unexplained_share(rate(first)[:, used], rate(second)[:, used])

    def of_log_rate(first: Sums, second: Sums) -> Floats:
        return unexplained_share(np.log(rate(first)[:, frequent]), np.log(rate(second)[:, frequent]))

    def of_ranks(first: Sums, second: Sums) -> Floats:
        return disagreement_of_ranks(prevalence(first)[:, used], prevalence(second)[:, used])

    measured = (
        ("prevalence.r2", "R\N{SUPERSCRIPT TWO} of prevalence, all codes", has, used, of_prevalence),
        ("prevalence.spearman", "Rank correlation (Spearman) of prevalence, all codes", has, used, of_ranks),
        ("rate.r2", "R\N{SUPERSCRIPT TWO} of events per patient-year, all codes", counts, used, of_rate),
        (
            "rate.log_r2",
            "R\N{SUPERSCRIPT TWO} of the logarithm of events per patient-year, frequent codes",
            counts,
            frequent,
            of_log_rate,
        ),
    )
    found = []
    for name, title, features, columns, distance in measured:
        if len(columns) < 2:
            reason = "fewer than 2 codes to compare"
            found.append(Measure(name, title, None, len(columns), "higher", reason))
            continue
        draws = compare(plan, *features, distance)
        found.append(Measure(name, title, draws.estimate(plan, power=2).complement(), len(columns), "higher"))
    return found


def _divergence_measures(plan: Plan, counts: Three, used: NDArray[np.int64]) -> list[Measure]:
    """How far apart the distributions of events over codes are; both grow with the square of a difference."""

    def kl(first: Sums, second: Sums) -> Floats:
        return kl_divergence(first[:, used], second[:, used])

    def js(first: Sums, second: Sums) -> Floats:
        return js_divergence(first[:, used], second[:, used])

    return [
        Measure(
            "codes.kl",
            "Kullback-Leibler divergence of the codes of events, nats",
            compare(plan, *counts, kl).estimate(plan, power=2),
            len(used),
        ),
        Measure(
            "codes.js",
            "Jensen-Shannon divergence of the codes of events, bits (0 to 1)",
            compare(plan, *counts, js).estimate(plan, power=2),
            len(used),
        ),
    ]


def _share_measures(
    plan: Plan, counts: Three, num_real: NDArray[np.int64], num_synthetic: NDArray[np.int64]
) -> list[Measure]:
    def foreign(first: Sums, second: Sums) -> Floats:
        """Share of real events whose code the other side lacks, plus the reverse."""
        real, synthetic = (
            side[:, :-1] / np.maximum(side[:, :-1].sum(axis=1, keepdims=True), 1) for side in (first, second)
        )
        lost = np.where(synthetic == 0, real, 0).sum(axis=1)
        new = np.where(real == 0, synthetic, 0).sum(axis=1)
        return np.asarray(lost + new)

    def missing(first: Sums, second: Sums) -> Floats:
        return _share_absent(first[:, :-1] > 0, second[:, :-1] > 0)

    def novel(first: Sums, second: Sums) -> Floats:
        return _share_absent(second[:, :-1] > 0, first[:, :-1] > 0)

    return [
        Measure(
            "codes.foreign_events",
            "Events in codes that only one side has",
            compare(plan, *counts, foreign).estimate(plan, power=0),
            int(((num_real > 0) | (num_synthetic > 0)).sum()),
        ),
        Measure(
            "codes.missing",
            "Real codes that no twin has",
            compare(plan, *counts, missing).estimate(plan, power=0),
            int((num_real > 0).sum()),
        ),
        Measure(
            "codes.novel",
            "Synthetic codes that no real subject has",
            compare(plan, *counts, novel).estimate(plan, power=0),
            int((num_synthetic > 0).sum()),
        ),
    ]


def _share_absent(there: NDArray[np.bool_], here: NDArray[np.bool_]) -> Floats:
    return np.asarray((there & ~here).sum(axis=1) / np.maximum(there.sum(axis=1), 1))


def _code_rows(
    plan: Plan,
    sides: list[CodeFeatures],
    used: NDArray[np.int64],
    names: list[str],
    descriptions: Mapping[str, str],
) -> list[CodeRow]:
    """One row per code, the largest ratios first."""
    sums = [weighted_sums(plan.real, sides[0].has), weighted_sums(plan.synthetic, sides[1].has)]
    ratio = np.log(prevalence(sums[1]) / prevalence(sums[0]))
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(ratio[1:], tails, axis=0)
    rates = [rate(weighted_sums(np.ones((1, side.has.shape[0]), np.float32), side.counts))[0] for side in sides]
    size = [float(one[0, -1]) for one in sums]
    rows = [
        CodeRow(
            names[i],
            descriptions.get(names[i]) or names[i],
            int(sums[0][0, i]),
            int(sums[1][0, i]),
            float(sums[0][0, i]) / size[0],
            float(sums[1][0, i]) / size[1],
            float(rates[0][i]),
            float(rates[1][i]),
            float(ratio[0, i]),
            float(low[i]),
            float(high[i]),
        )
        for i in used
    ]
    return sorted(rows, key=lambda row: (-abs(row.log_ratio), row.code))


def _decile_rows(plan: Plan, has: Three, num_real: NDArray[np.int64]) -> list[DecileRow]:
    """Error of prevalence by tenth of the real codes, from the most to the least common."""
    present = np.flatnonzero(num_real > 0)
    ordered = present[np.argsort(-num_real[present], kind="stable")]
    rows = []
    for number, columns in enumerate(np.array_split(ordered, 10), start=1):
        if not len(columns):
            continue

        def distance(first: Sums, second: Sums, columns: NDArray[np.int64] = columns) -> Floats:
            return _mean_log_ratio(prevalence(first), prevalence(second), columns)

        draws: Draws = compare(plan, *has, distance)
        share = num_real[columns] / plan.real.shape[1]
        rows.append(DecileRow(number, len(columns), float(share.min()), float(share.max()), draws.estimate(plan)))
    return rows
