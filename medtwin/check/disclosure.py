"""What findings may say of real patients: no small cells, no single extreme value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from medtwin.check.estimates import Distribution, Measure
from medtwin.check.findings import (
    AgeRow,
    CodeRow,
    Findings,
    MissingnessRow,
    RuleRow,
    StratumRow,
    SurvivalRow,
    ValueRow,
)
from medtwin.check.group_rows import OF_SOURCE, OF_TWINS, FairnessRow
from medtwin.check.image_rows import ImageStratumRow
from medtwin.core.disclosure import hidden_parts, is_small

Keys: TypeAlias = "set[tuple[str, ...]]"
Row = TypeVar("Row")
Curve = TypeVar("Curve", Distribution, ValueRow)

TAIL = 0.01
"""Curves of real values are told between these quantiles only: the ends are single people."""


def shareable(findings: Findings) -> Findings:
    """The findings without what would tell of few real people; simulated patients need none of this.

    Codes that 1 to 10 real subjects have are left out; curves end at the real 1 and 99 % quantile. Of groups that make
    up everybody another one is not counted either, where the rest would give away a small one.
    """
    hidden = _hidden(findings.strata, lambda row: (row.division,), lambda row: row.num_real, lambda row: row.level)
    return replace(
        findings,
        codes=tuple(row for row in findings.codes if not is_small(row.num_real)),
        values=tuple(_trim(row) for row in findings.values),
        # Survival stands at times of a grid of quantiles, in shares of everybody.
        distributions=tuple(row if row.name == "survival" else _trim(row) for row in findings.distributions),
        ages=_ages(findings.ages),
        rules=tuple(_rule(row) for row in findings.rules),
        units=tuple(row for row in findings.units if row.side != "real" or not is_small(row.num_subjects)),
        missingness=tuple(row for row in findings.missingness if not _tells_few(row, findings.num_real)),
        strata=tuple(_stratum(row, hidden) for row in findings.strata if not is_small(row.num_real or 0)),
        fairness=shareable_groups(findings.fairness),
        image_strata=_images(findings.image_strata),
        survival=tuple(_deaths(row) for row in findings.survival),
        rare_codes=tuple(row for row in findings.rare_codes if not is_small(row.num_real)),
        measures=tuple(_without_count(one, findings, hidden) for one in findings.measures),
        notes={**findings.notes, "codes of 1 to 10 real subjects, left out of the table": _num_small(findings.codes)},
    )


def shareable_groups(rows: Sequence[FairnessRow]) -> tuple[FairnessRow, ...]:
    """The rows of groups, without the numbers of 1 to 10 real people; the group and why it is not judged stay.

    Where the other groups of a division would give them away, one more is not counted, nor its share told. Of a share
    the others are twins, of whom may be told.
    """
    real = [row for row in rows if row.metric not in OF_TWINS]
    patients = _hidden(rows, _of_metric, lambda row: row.num_patients, lambda row: row.group)
    others = _hidden(real, _of_metric, lambda row: row.num_others, lambda row: row.group)
    return tuple(_group(row, (*_of_metric(row), row.group), patients, others) for row in rows)


def _of_metric(row: FairnessRow) -> tuple[str, ...]:
    return row.metric, row.division


def _group(row: FairnessRow, key: tuple[str, ...], patients: Keys, others: Keys) -> FairnessRow:
    row = replace(row, num_others=None) if key in others else row
    if key not in patients:
        return row
    if row.metric != OF_SOURCE:
        return replace(row, num_patients=None)
    return replace(row, num_patients=None, reference=None, gap=None, gap_low=None, gap_high=None)


def _hidden(
    rows: Sequence[Row],
    whole: Callable[[Row], tuple[str, ...]],
    count: Callable[[Row], int | None],
    part: Callable[[Row], str],
) -> Keys:
    """Which parts of which whole are not counted, as keys (of the whole, part)."""
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for row in rows:
        if (number := count(row)) is not None:
            counts.setdefault(whole(row), {})[part(row)] = number
    return {
        (*key, name)
        for key, parts in counts.items()
        for name, is_hidden in zip(parts, hidden_parts(list(parts.values())), strict=True)
        if is_hidden
    }


def _stratum(row: StratumRow, hidden: Keys) -> StratumRow:
    return replace(row, num_real=None) if (row.division, row.level) in hidden else row


def _images(rows: Sequence[ImageStratumRow]) -> tuple[ImageStratumRow, ...]:
    """The rows of images: of a view those of its sexes and of its ages make up all of it."""

    def whole(row: ImageStratumRow) -> tuple[str, ...]:
        return row.division, "" if row.division == "view" else row.stratum.rpartition(", ")[0]

    hidden = _hidden(rows, whole, lambda row: row.num_real, lambda row: row.stratum)
    return tuple(row for row in rows if (*whole(row), row.stratum) not in hidden)


def _num_small(rows: Sequence[CodeRow]) -> float:
    return float(sum(is_small(row.num_real) for row in rows))


def _trim(row: Curve) -> Curve:
    kept = [i for i, share in enumerate(row.cdf_real) if TAIL <= share <= 1 - TAIL]
    columns = ([values[i] for i in kept] for values in (row.support, row.cdf_real, row.cdf_synthetic))
    support, cdf_real, cdf_synthetic = columns
    return replace(row, support=support, cdf_real=cdf_real, cdf_synthetic=cdf_synthetic)


def _ages(rows: Sequence[AgeRow]) -> tuple[AgeRow, ...]:
    hidden = _hidden(rows, lambda _: (), lambda row: row.num_real, lambda row: row.band)
    told = []
    for row in rows:
        if is_small(row.num_real or 0):
            told.append(replace(row, num_real=None, events_real=None, years_real=None))
        else:
            told.append(replace(row, num_real=None) if (row.band,) in hidden else row)
    return tuple(told)


def _deaths(row: SurvivalRow) -> SurvivalRow:
    few = row.deaths_real is not None and is_small(row.deaths_real)
    return replace(row, deaths_real=None, share_real=None) if few else row


def _without_count(one: Measure, findings: Findings, hidden: Keys) -> Measure:
    """Without the size of a group that is not counted, and without deaths of both sides: those of twins are known."""
    if one.name.startswith("strata.") and any(one.title.endswith(f"({name}: {group})") for name, group in hidden):
        return replace(one, num_compared=0)
    few = any(row.deaths_real is not None and is_small(row.deaths_real) for row in findings.survival)
    return replace(one, num_compared=0) if few and one.name.startswith(("survival.", "mortality.")) else one


def _rule(row: RuleRow) -> RuleRow:
    applicable = row.applicable[0] or 0
    if is_small(applicable):
        row = replace(
            row,
            applicable=(None, row.applicable[1]),
            events=(None, row.events[1]),
            unknown=(None, row.unknown[1]),
        )
    elif not (is_small(row.num_real or 0) or is_small(applicable - (row.num_real or 0))):
        return row
    hidden = (None, row.broken_events[1]), (None, row.event_shares[1])
    return replace(row, num_real=None, share_real=None, broken_events=hidden[0], event_shares=hidden[1])


def _tells_few(row: MissingnessRow, num_real: int) -> bool:
    """Whether a share of subjects without a number, or with one, is of few people."""
    if row.kind != "subject":
        return False
    return is_small(round(row.real * num_real)) or is_small(round((1 - row.real) * num_real))
