"""The eligibility what-if of a simulated trial: what each criterion costs, who would come without it; what_if.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.disclosure import is_small
from medtwin.pipelines.simulate_disclosure import ToldCohort
from medtwin.report import Section, Table
from medtwin.trials import Cohort, SurvivalTrial
from medtwin.trials.engine.response_trial import ResponseTrial
from medtwin.trials.outcome.endpoint import Endpoint, follow_up
from medtwin.trials.outcome.response import Reading
from medtwin.trials.outcome.response_fit import read_events, read_values
from medtwin.trials.population.attrition import days_of_reference, demographics
from medtwin.trials.population.criteria import follow_flow
from medtwin.trials.population.failing import failures, near_entries
from medtwin.trials.population.pool_effects import Estimator, event_rate, mean_outcome
from medtwin.trials.population.what_if import Interval, LeftOut, Pool, what_if

Floats = NDArray[np.float64]
Cell = str | int | float | None
ALL = "none"
ELIGIBLE, GAINED, SHAPLEY = "eligible", "gained", "shapley value"
SHARE, SHARE_CHANGE, EFFECT, EFFECT_CHANGE = "share", "change of the share", "endpoint", "change of the endpoint"
_MONTHS = 12.0
_RESAMPLES = 1000


@dataclass(frozen=True)
class WhatIfRow:
    """A number of a pool, with its interval.

    Attributes:
        left_out: The criterion that is left out; `none`: all are asked.
        quantity: What: of `eligible` and `gained` subjects the share of those with a possible day of entry.
        division, group: Of whom; empty: of all.
        count: Subjects, where shares are of them.
        value, low, high, level, method: The number with its interval.
    """

    left_out: str
    quantity: str
    division: str
    group: str
    count: int | None
    value: float
    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class ToldWhatIf:
    """What is told of an eligibility what-if: its rows, what its endpoint is, and criteria of which nothing is told."""

    rows: Sequence[WhatIfRow]
    endpoint: str
    num_candidates: int
    withheld: Sequence[str] = ()


def what_if_of(trial: SurvivalTrial | ResponseTrial, cohort: Cohort, seed: int, told: ToldCohort) -> ToldWhatIf | None:
    """What each criterion of a trial costs on a cohort, as far as it may be told.

    None of a trial without criteria, and of a cohort of which it is not told how many are eligible. Of a criterion or a
    division nothing is told where that would tell of few people, or give away what the attrition does not tell.

    Args:
        trial: As configured.
        cohort: Its subjects.
        seed: Of the run.
        told: What may be told of them.

    Raises:
        ConfigError: If a code is unknown.
    """
    if not trial.criteria or not told.is_flow_told:
        return None
    endpoint, effect = _endpoint(trial, cohort)
    entry = follow_flow(cohort, trial.index, trial.criteria).entry
    divisions = demographics(cohort, days_of_reference(cohort, trial.index, entry))
    found = what_if(
        failures(cohort, trial.index, trial.criteria),
        divisions,
        effect,
        generator=np.random.default_rng([seed, 9]),
        num_resamples=_RESAMPLES,
    )
    few = {row.criterion for row in found.left_out if told.tells_few(row.gained, row.pool.size)}
    withheld = [row.criterion for row in found.left_out if row.criterion in {*few, *told.withheld}]
    kept = [row for row in found.left_out if row.criterion not in withheld]
    shown = [name for name in divisions if not _division_tells_few(name, found.pool, kept, told.smallest)]
    rows = _pool_rows(ALL, found.pool, shown)
    for row in kept:
        rows += [
            *_pool_rows(row.criterion, row.pool, shown),
            _row(row.criterion, GAINED, row.gained_share, row.gained),
            _row(row.criterion, SHAPLEY, row.contribution),
        ]
        for name in shown:
            changes = row.share_changes[name].items()
            rows += [_row(row.criterion, SHARE_CHANGE, change, None, (name, group)) for group, change in changes]
        if row.effect_change is not None:
            rows.append(_row(row.criterion, EFFECT_CHANGE, row.effect_change))
    return ToldWhatIf(rows, endpoint, found.num_candidates, withheld)


def _endpoint(trial: SurvivalTrial | ResponseTrial, cohort: Cohort) -> tuple[str, Estimator | None]:
    """What the pool's effect is, in words, and its estimator; None where the record has no endpoint."""
    entry = near_entries(cohort, trial.index, trial.criteria)
    record = trial.endpoint.record if isinstance(trial, ResponseTrial) else None

    def of_all(values: Floats) -> Floats:
        placed = np.full(len(cohort.subject_id), np.nan)
        placed[entry.subject] = values
        return placed

    name = trial.endpoint.name
    if isinstance(trial, SurvivalTrial):
        followed = follow_up(cohort, entry, trial.endpoint)
        event = of_all(followed.event.astype(np.float64)) == 1
        return f"{name}, per patient-year", event_rate(of_all(followed.months) / _MONTHS, event)
    if isinstance(record, Reading):
        return f"mean {name}", mean_outcome(of_all(read_values(cohort, entry, record, trial.endpoint.months)))
    if isinstance(record, Endpoint):
        return f"share with {name}", mean_outcome(of_all(read_events(cohort, entry, record, trial.endpoint.months)))
    return f"{name}, assumed: the record has none", None


def _division_tells_few(name: str, pool: Pool, rows: Sequence[LeftOut], smallest: int) -> bool:
    """Whether a group, or those whom a criterion keeps out of it, are few."""
    own = pool.composition[name]
    counts = list(own.values())
    for row in rows:
        counts += [number - own[group] for group, number in row.pool.composition[name].items()]
    return any(is_small(count, smallest) for count in counts)


def _pool_rows(left_out: str, pool: Pool, divisions: Sequence[str]) -> list[WhatIfRow]:
    rows = [_row(left_out, ELIGIBLE, pool.of_candidates, pool.size)]
    for name in divisions:
        for group, share in pool.shares[name].items():
            rows.append(_row(left_out, SHARE, share, pool.composition[name][group], (name, group)))
    if pool.effect is not None:
        rows.append(_row(left_out, EFFECT, pool.effect))
    return rows


def _row(
    left_out: str, quantity: str, found: Interval, count: int | None = None, of: tuple[str, str] = ("", "")
) -> WhatIfRow:
    return WhatIfRow(left_out, quantity, *of, count, found.value, found.low, found.high, found.level, found.method)


def what_if_columns(told: ToldWhatIf | None) -> dict[str, Sequence[object]]:
    """The columns of what_if.csv."""
    rows = [] if told is None else [_written(row) for row in told.rows]
    return {name: [row[name] for row in rows] for name in WhatIfRow.__annotations__}


def what_if_record(told: ToldWhatIf | None) -> Mapping[str, Any] | None:
    """The same for report.json."""
    if told is None:
        return None
    return {
        "subjects_with_a_possible_day": told.num_candidates,
        "endpoint": told.endpoint,
        "withheld": list(told.withheld),
        "rows": [_written(row) for row in told.rows],
    }


def _written(row: WhatIfRow) -> dict[str, Any]:
    values = asdict(row)
    for name in ("value", "low", "high"):
        number = values[name]
        values[name] = float(f"{number:.7g}") if math.isfinite(number) else None
    return values


def what_if_section(told: ToldWhatIf) -> Section:
    """The section of the report."""
    by = {(row.left_out, row.quantity, row.division, row.group): row for row in told.rows}
    names = list(dict.fromkeys(row.left_out for row in told.rows))
    rows: list[list[Cell]] = []
    for name in names:
        eligible = by[name, ELIGIBLE, "", ""]
        cells = [by.get((name, quantity, "", "")) for quantity in (GAINED, SHAPLEY, EFFECT, EFFECT_CHANGE)]
        gained, value, effect, change = cells
        rows.append(
            [
                name,
                f"{eligible.count:,}: {_shown(eligible, 1, '%')}",
                None if gained is None else f"{gained.count:,}: {_shown(gained, 1, '%')}",
                None if value is None else _shown(value, 1),
                None if effect is None else _shown(effect, 4),
                None if change is None else _shown(change, 4),
            ]
        )
    columns = ["left out", "eligible", "gained", "Shapley's value", told.endpoint, "its change"]
    note = (
        f"Shares are of the {told.num_candidates:,} subjects with a possible day of entry. Shapley's value is the "
        "criterion's fair part of the subjects whom all exclude. The endpoint is counted from the first day on which "
        "at most one criterion fails."
    )
    parts = [Table(columns, rows, "Without a criterion", note)]
    groups = [(row.division, row.group) for row in told.rows if row.left_out == ALL and row.quantity == SHARE]
    lines: list[list[Cell]] = []
    for division, group in groups:
        changes = (by[name, SHARE_CHANGE, division, group] for name in names[1:])
        line = [division, group, _shown(by[ALL, SHARE, division, group], 1, "%")]
        lines.append([*line, *(_shown(each, 1, "%", sign="+") for each in changes)])
    if lines:
        heads = ["", "group", "of the eligible", *(f"without {name}" for name in names[1:])]
        parts.append(Table(heads, lines, "Who would be represented", "Changes are in percentage points."))
    text = (
        "The cohort's subjects are taken as a sample of the patients who might come; intervals are of "
        f"{100 * told.rows[0].level:g} %. Shares have exact ones (Clopper and Pearson); changes of shares and "
        f"Shapley's values those of {_RESAMPLES:,} resampled cohorts (bootstrap of patients); the endpoint those of "
        "the infinitesimal jackknife. What a model that made the cohort got wrong is in none of them."
    )
    withheld = [f"Of these nothing is told, as they tell of few real people: {', '.join(told.withheld)}."]
    return Section("What if a criterion were left out", [text, *(withheld if told.withheld else [])], parts)


def _shown(row: WhatIfRow, digits: int, unit: str = "", *, sign: str = "") -> str:
    """A number with its interval.

    >>> _shown(WhatIfRow("none", "share", "sex", "F", 3, 0.25, 0.1, 0.5, 0.95, "exact"), 0, "%")
    '25% (10 to 50)'
    """
    if math.isnan(row.value):
        return "\N{EN DASH}"
    scale = 100.0 if unit else 1.0
    value, low, high = (f"{scale * each:{sign},.{digits}f}" for each in (row.value, row.low, row.high))
    return f"{value}{unit} ({low} to {high})"
