"""What findings may say of real patients: no small cells, no single extreme value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medtwin.check.estimates import Distribution, Measure
from medtwin.check.findings import AgeRow, CodeRow, Findings, MissingnessRow, RuleRow, SurvivalRow, ValueRow
from medtwin.check.group_rows import OF_TWINS, FairnessRow
from medtwin.core.disclosure import is_small

TAIL = 0.01
"""Curves of real values are told between these quantiles only: the ends are single people."""


def shareable(findings: Findings) -> Findings:
    """The findings without what would tell of few real people; simulated patients need none of this.

    Codes that 1 to 10 real subjects have are left out; curves end at the real 1 and 99 % quantile.
    """
    return replace(
        findings,
        codes=tuple(row for row in findings.codes if not is_small(row.num_real)),
        values=tuple(_trim_values(row) for row in findings.values),
        distributions=tuple(_trim(row) for row in findings.distributions),
        ages=tuple(_age(row) for row in findings.ages),
        rules=tuple(_rule(row) for row in findings.rules),
        units=tuple(row for row in findings.units if row.side != "real" or not is_small(row.num_subjects)),
        missingness=tuple(row for row in findings.missingness if not _tells_few(row, findings.num_real)),
        strata=tuple(row for row in findings.strata if not is_small(row.num_real)),
        fairness=shareable_groups(findings.fairness),
        image_strata=tuple(row for row in findings.image_strata if not is_small(row.num_real)),
        survival=tuple(_deaths(row) for row in findings.survival),
        rare_codes=tuple(row for row in findings.rare_codes if not is_small(row.num_real)),
        measures=tuple(_without_count(one, findings) for one in findings.measures),
        notes={**findings.notes, "codes of 1 to 10 real subjects, left out of the table": _num_small(findings.codes)},
    )


def shareable_groups(rows: Sequence[FairnessRow]) -> tuple[FairnessRow, ...]:
    """The rows of groups, without the numbers of 1 to 10 real people; the group and why it is not judged stay.

    Of a share the others are twins, of whom may be told.
    """
    return tuple(_group(row) for row in rows)


def _group(row: FairnessRow) -> FairnessRow:
    others_are_real = row.metric not in OF_TWINS
    few = [count is not None and is_small(count) for count in (row.num_patients, row.num_others)]
    return replace(
        row,
        num_patients=None if few[0] else row.num_patients,
        num_others=None if few[1] and others_are_real else row.num_others,
    )


def _num_small(rows: Sequence[CodeRow]) -> float:
    return float(sum(is_small(row.num_real) for row in rows))


def _inside(row: Distribution | ValueRow) -> list[int]:
    return [i for i, share in enumerate(row.cdf_real) if TAIL <= share <= 1 - TAIL]


def _trim(row: Distribution) -> Distribution:
    if row.name == "survival":
        return row  # times of a grid of quantiles, shares of everybody
    kept = _inside(row)
    columns = ([values[i] for i in kept] for values in (row.support, row.cdf_real, row.cdf_synthetic))
    support, cdf_real, cdf_synthetic = columns
    return replace(row, support=support, cdf_real=cdf_real, cdf_synthetic=cdf_synthetic)


def _trim_values(row: ValueRow) -> ValueRow:
    kept = _inside(row)
    columns = ([values[i] for i in kept] for values in (row.support, row.cdf_real, row.cdf_synthetic))
    support, cdf_real, cdf_synthetic = columns
    return replace(row, support=support, cdf_real=cdf_real, cdf_synthetic=cdf_synthetic)


def _age(row: AgeRow) -> AgeRow:
    few = row.num_real is not None and is_small(row.num_real)
    return replace(row, num_real=None, events_real=None, years_real=None) if few else row


def _deaths(row: SurvivalRow) -> SurvivalRow:
    few = row.deaths_real is not None and is_small(row.deaths_real)
    return replace(row, deaths_real=None, share_real=None) if few else row


def _without_count(one: Measure, findings: Findings) -> Measure:
    """Deaths of both sides together would tell the real ones, since those of the twins are known."""
    few = any(row.deaths_real is not None and is_small(row.deaths_real) for row in findings.survival)
    return replace(one, num_compared=0) if few and one.name.startswith(("survival.", "mortality.")) else one


def _rule(row: RuleRow) -> RuleRow:
    if row.num_real is None or not is_small(row.num_real):
        return row
    hidden = (None, row.broken_events[1]), (None, row.event_shares[1])
    return replace(row, num_real=None, share_real=None, broken_events=hidden[0], event_shares=hidden[1])


def _tells_few(row: MissingnessRow, num_real: int) -> bool:
    """Whether a share of subjects without a number, or with one, is of few people."""
    if row.kind != "subject":
        return False
    return is_small(round(row.real * num_real)) or is_small(round((1 - row.real) * num_real))
