"""One simulated trial replayed: its patients as a table, with the dates of a stated study start, and how it ended.

A trial depends on (seed, trial) alone, so that any of those that were simulated can be drawn again. Month m of the
trial lies on day floor(m * 365.25 / 12) after the study start: the calendar knows days, the simulation does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medtwin.trials.design.hazard import DAYS_PER_MONTH
from medtwin.trials.engine.batch import (
    BLOCK,
    Course,
    Patients,
    TrialPlan,
    course_of,
    draw_patients,
    run_trials,
    snapshot,
)
from medtwin.trials.engine.levels import LOG_RISK, SEX, levels_of
from medtwin.trials.engine.scenarios import Scenario
from medtwin.trials.engine.survival_trial import Study
from medtwin.trials.enrolment.effect_over_time import EffectFrom
from medtwin.trials.enrolment.factors import Factor
from medtwin.trials.export.records import PoolRecord

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Days = NDArray[np.datetime64]
ARMS = ("control", "experimental")
PATIENT_FIELDS: Mapping[str, pa.DataType] = {
    "subject": pa.int64(),
    "source_subject_id": pa.int64(),
    "index_day": pa.date32(),
    "site": pa.int64(),
    "arm": pa.string(),
    "randomisation_stratum": pa.string(),
    "analysis_stratum": pa.string(),
    "enrolment_month": pa.float64(),
    "enrolment_date": pa.date32(),
    "months_at_risk": pa.float64(),
    "event": pa.bool_(),
    "ended_by": pa.string(),
    "end_date": pa.date32(),
    "treatment_changed_month": pa.float64(),
    "treatment_changed_date": pa.date32(),
    "age_years": pa.float64(),
    "sex": pa.string(),
    "race": pa.string(),
    "log_risk": pa.float64(),
    "months_to_event_control": pa.float64(),
    "months_to_event_experimental": pa.float64(),
}
"""The columns that every patient table has; one for each laboratory covariate follows `race`. See docs/trials.md."""
LAB_SCHEMA = pa.schema(
    {
        "subject": pa.int64(),
        "name": pa.string(),
        "unit": pa.string(),
        "day": pa.int64(),
        "date": pa.date32(),
        "value": pa.float64(),
    }
)


@dataclass(frozen=True)
class TrialData:
    """The data of one trial, whatever simulated it.

    Attributes:
        study_id: Names the trial; stands in every row that leaves.
        title: Of the trial. endpoint: In words. is_death: Whether the endpoint is death from any cause and no other.
        study_start: The day of calendar month 0. cutoff: The day of the analysis.
        patients: Whoever was enrolled by then, with the columns of `PATIENT_FIELDS` and one for each covariate.
        labs: Covariate to its unit, in the order of their columns.
        lab_values: By `LAB_SCHEMA`; `day` counts from enrolment, on the day of which or before lies the baseline.
        arms: What arms may be called in `patients`, the reference first.
    """

    study_id: str
    title: str
    endpoint: str
    is_death: bool
    study_start: date
    cutoff: date
    patients: pa.Table
    labs: Mapping[str, str | None] = field(default_factory=dict)
    lab_values: pa.Table = field(default_factory=LAB_SCHEMA.empty_table)
    arms: Sequence[str] = ARMS


@dataclass(frozen=True)
class Replay:
    """A replayed trial.

    Attributes:
        scenario: The truth it was simulated under. trial: Its number, from 1. seed: Of the run.
        look: At which it stopped, from 1. month: Of that analysis.
        z: The statistic at each look up to then. is_rejected, is_futile, is_capped: How it ended, as `Stops`.
        events: Seen by then. log_hazard_ratio: Cox estimate then.
        data: What leaves of it.
    """

    scenario: Scenario
    trial: int
    seed: int
    look: int
    month: float
    z: Sequence[float]
    is_rejected: bool
    is_futile: bool
    is_capped: bool
    events: int
    log_hazard_ratio: float
    data: TrialData

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        if self.is_rejected:
            return "rejected the null"
        return "stopped for futility" if self.is_futile else "did not reject the null"


def choose_scenario(scenarios: Sequence[Scenario], name: str, hazard_ratio: float | None = None) -> Scenario:
    """The scenario of a name; where several have it, as those of the power curve, the one of a hazard ratio.

    Args:
        scenarios: That were simulated.
        name: Such as `alternative`.
        hazard_ratio: To three significant digits; None where the name says enough.

    Raises:
        ValueError: If there is no such scenario, or several; names what there is.
    """
    named = [each for each in scenarios if each.name == name]
    found = [
        each for each in named if hazard_ratio is None or math.isclose(each.hazard_ratio, hazard_ratio, rel_tol=5e-3)
    ]
    if len(found) == 1:
        return found[0]
    if named:
        ratios = ", ".join(f"{each.hazard_ratio:.3g}" for each in named)
        raise ValueError(f"hazard_ratio of {name!r} must be one of {ratios}, got {hazard_ratio!r}")
    names = ", ".join(dict.fromkeys(repr(each.name) for each in scenarios))
    raise ValueError(f"scenario must be one of {names}, got {name!r}")


def replay_trial(
    study: Study,
    scenario: Scenario,
    trial: int,
    *,
    seed: int,
    study_id: str,
    study_start: date,
    record: PoolRecord | None = None,
) -> Replay:
    """One of the simulated trials, drawn again: what became of its patients by the analysis at which it stopped.

    Args:
        study: The trial on its patients.
        scenario: Simulated of it.
        trial: Number among the scenario's trials, from 1.
        seed: Of the run.
        study_id: Names the replayed trial.
        study_start: The day of calendar month 0.
        record: What else is known of the pool's subjects.

    Raises:
        ValueError: If there is no such trial, a laboratory covariate has the name of another column, or the record is
            that of another pool.
    """
    if not 1 <= trial <= scenario.num_trials:
        raise ValueError(
            f"trial must be from 1 to {scenario.num_trials} (those simulated of {scenario.name!r}), got {trial!r}"
        )
    plan, row = study.plan, (trial - 1) % BLOCK
    drawn = draw_patients(plan, seed, (trial - 1) // BLOCK)
    stops = run_trials(plan, drawn, scenario.hazard_ratio, obeys_futility=scenario.obeys_futility)
    month, look = float(stops.months[row]), int(stops.look[row]) + 1
    keep = np.flatnonzero(drawn.enrolled[row] <= month)
    course = course_of(plan, drawn, scenario.hazard_ratio)
    start = np.datetime64(study_start, "D")
    cutoff = days_of(start, np.array([month]))[0]
    columns = _enrolled_columns(plan, drawn, row, keep, start)
    columns |= _followed_columns(course, row, keep, month, start)
    columns |= _changed_columns(plan, drawn, row, keep, columns, start)
    columns |= _source_columns(plan, drawn.index[row][keep], record)
    columns |= _potential_columns(plan, drawn, scenario.hazard_ratio, row, keep)
    units = {lab.name: lab.unit for lab in study.trial.labs} if plan.pool.baseline is not None else {}
    if clash := sorted(units.keys() & PATIENT_FIELDS.keys()):
        raise ValueError(f"labs must not have the names of other columns, got {', '.join(clash)}")
    names = list(PATIENT_FIELDS)
    names[names.index("race") + 1 : names.index("race") + 1] = units
    table = pa.table({name: pa.array(columns[name], PATIENT_FIELDS.get(name, pa.float64())) for name in names})
    endpoint = study.trial.endpoint
    return Replay(
        scenario,
        trial,
        seed,
        look,
        month,
        stops.z[row][:look].tolist(),
        bool(stops.is_rejected[row]),
        bool(stops.is_futile[row]),
        bool(stops.is_capped[row]),
        int(stops.events[row]),
        float(stops.log_hazard_ratio[row]),
        TrialData(
            study_id,
            study.trial.title,
            endpoint.name,
            endpoint.death and not endpoint.codes,
            study_start,
            cutoff.item(),
            table,
            units,
            _lab_values(table, drawn.index[row][keep], record),
        ),
    )


def days_of(start: np.datetime64, months: Floats) -> Days:
    """The days on which calendar months lie, datetime64[D]; NaT where a month is not finite.

    >>> days_of(np.datetime64("2026-01-01"), np.array([0.0, 1.0, 12.0, np.inf])).tolist()[:3]
    [datetime.date(2026, 1, 1), datetime.date(2026, 1, 31), datetime.date(2027, 1, 1)]
    """
    days = np.full(months.shape, np.datetime64("NaT", "D"))
    known = np.isfinite(months)
    days[known] = start + np.floor(months[known] * DAYS_PER_MONTH).astype(np.int64)
    return days


def _enrolled_columns(
    plan: TrialPlan, drawn: Patients, row: int, keep: Ints, start: np.datetime64
) -> dict[str, Sequence[object] | NDArray[np.generic]]:
    enrolled = drawn.enrolled[row][keep]
    return {
        "subject": keep + 1,
        "site": drawn.site[row][keep] + 1,
        "arm": [ARMS[arm] for arm in drawn.arm[row][keep].tolist()],
        "randomisation_stratum": _strata_text(plan, plan.randomisation.balanced, drawn, row, keep),
        "analysis_stratum": _strata_text(plan, plan.analysis_strata, drawn, row, keep),
        "enrolment_month": enrolled,
        "enrolment_date": days_of(start, enrolled),
    }


def _strata_text(
    plan: TrialPlan, factors: Sequence[Factor], drawn: Patients, row: int, keep: Ints
) -> Sequence[str | None]:
    """The levels of all factors in words, such as `sex F; age_years 40 to <65`; None without factors."""
    if not factors:
        return [None] * len(keep)
    levels = levels_of(factors, plan.pool, drawn.index[row : row + 1], drawn.site[row : row + 1])[:, 0, keep]
    has_sex = plan.pool.baseline is not None
    texts = [
        [f"{factor.name} {level_text(factor, level, has_sex=has_sex)}" for level in each]
        for factor, each in zip(factors, levels.tolist(), strict=True)
    ]
    return ["; ".join(parts) for parts in zip(*texts, strict=True)]


def level_text(factor: Factor, level: int, *, has_sex: bool = True) -> str:
    """A level of a factor in words.

    >>> [level_text(Factor("age_years", (40, 65)), level) for level in range(4)]
    ['<40', '40 to <65', '>=65', 'missing']
    >>> level_text(Factor("site"), 2), level_text(Factor("sex"), 0)
    ('3', 'F')
    """
    if factor.name == SEX and has_sex:
        return ("F", "not F")[level]
    if not factor.cuts:
        return str(level + 1)
    cuts = [f"{cut:g}" for cut in factor.cuts]
    texts = [f"<{cuts[0]}", *(f"{low} to <{high}" for low, high in pairwise(cuts)), f">={cuts[-1]}"]
    return [*texts, "missing"][level]


def _followed_columns(
    course: Course, row: int, keep: Ints, month: float, start: np.datetime64
) -> dict[str, Sequence[object] | NDArray[np.generic]]:
    data = snapshot(course, np.array([row]), np.array([month]))
    time, event = data.time[0][keep], data.event[0][keep]
    is_left = ~event & (course.dropout[row][keep] <= time)
    end = days_of(start, course.patients.enrolled[row][keep] + time)
    cutoff = days_of(start, np.array([month]))[0]
    is_open = ~event & ~is_left
    return {
        "months_at_risk": time,
        "event": event,
        "ended_by": np.select([event, is_left], ["event", "dropout"], "analysis").tolist(),
        "end_date": np.where(is_open, cutoff, np.minimum(end, cutoff)),
    }


def _changed_columns(
    plan: TrialPlan,
    drawn: Patients,
    row: int,
    keep: Ints,
    columns: Mapping[str, Sequence[object] | NDArray[np.generic]],
    start: np.datetime64,
) -> dict[str, NDArray[np.generic] | Sequence[object]]:
    """The first change of treatment that came while the patient was followed."""
    here = np.s_[row : row + 1, keep]
    risk = np.exp(plan.pool.log_risk)[drawn.index[here]]
    first = np.full(len(keep), np.inf)
    for change, draws in zip(plan.changes, drawn.changes, strict=True):
        if isinstance(change, EffectFrom):
            continue  # nobody changes treatment
        mine = type(draws)(draws.amount[here], draws.uniform[here])
        first = np.minimum(first, change.months(mine, drawn.arm[here], drawn.enrolled[here], risk)[0])
    is_seen = first < np.asarray(columns["months_at_risk"], dtype=np.float64)
    enrolled = np.asarray(columns["enrolment_month"], dtype=np.float64)
    seen = np.where(is_seen, first, np.inf)
    return {"treatment_changed_month": _or_none(seen), "treatment_changed_date": days_of(start, enrolled + seen)}


def _source_columns(
    plan: TrialPlan, index: Ints, record: PoolRecord | None
) -> dict[str, Sequence[object] | NDArray[np.generic]]:
    """What is known of whom each patient was drawn from."""
    names = ("source_subject_id", "index_day", "age_years", "sex", "race")
    columns: dict[str, Sequence[object] | NDArray[np.generic]] = dict.fromkeys(names, [None] * len(index))
    columns[LOG_RISK] = plan.pool.log_risk[index]
    covariates = plan.pool.baseline
    if covariates is None:
        return columns
    columns["source_subject_id"] = covariates.subject_id[index]
    columns["sex"] = [sex or None for sex in covariates.sex[index].tolist()]
    for name, values in zip(covariates.names, covariates.values.T, strict=True):
        if name != "is_female":
            columns[name] = _or_none(values[index])
    if record is not None:
        if not np.array_equal(record.subject_id, covariates.subject_id):
            raise ValueError("record must be that of the study's pool, got that of other subjects")
        columns["index_day"] = record.entry_day[index].astype("datetime64[D]")
        columns["race"] = record.race[index].tolist()
    return columns


def _or_none(values: Floats) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _potential_columns(
    plan: TrialPlan, drawn: Patients, hazard_ratio: float, row: int, keep: Ints
) -> dict[str, Sequence[object]]:
    """Months to the event of every patient under either arm, None where it never comes."""
    both = course_of(plan, drawn.doubled(), hazard_ratio).event[row].reshape(2, -1)[:, keep]
    return {f"months_to_event_{arm}": _or_none(months) for arm, months in zip(ARMS, both, strict=True)}


def _lab_values(patients: pa.Table, index: Ints, record: PoolRecord | None) -> pa.Table:
    """The laboratory values of the patients while they were followed, those of whom each was drawn from."""
    if record is None:
        return LAB_SCHEMA.empty_table()
    enrolled = patients["enrolment_date"].to_numpy().astype("datetime64[D]")
    end = patients["end_date"].to_numpy().astype("datetime64[D]")
    parts = []
    for each in record.labs:
        first, last = (np.searchsorted(each.subject, index, side) for side in ("left", "right"))
        count = last - first
        owner = np.repeat(np.arange(len(index)), count)
        rows = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        day = each.day[rows]
        dated = enrolled[owner] + day
        is_seen = dated <= end[owner]
        owner, rows, dated = owner[is_seen], rows[is_seen], dated[is_seen]
        columns = {
            "subject": patients["subject"].to_numpy()[owner],
            "name": [each.lab.name] * len(owner),
            "unit": [each.lab.unit] * len(owner),
            "day": day[is_seen],
            "date": dated,
            "value": each.value[rows],
        }
        parts.append(
            pa.table({name: pa.array(columns[name], LAB_SCHEMA.field(name).type) for name in LAB_SCHEMA.names})
        )
    return pa.concat_tables([LAB_SCHEMA.empty_table(), *parts]).combine_chunks()
