"""What is known of a pool's subjects beside their covariates: day of entry, race, laboratory values from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.engine.survival_trial import SurvivalTrial
from medtwin.trials.population.cohort import Cohort, latest_before
from medtwin.trials.population.criteria import Lab, find_eligible
from medtwin.trials.population.language import RACES
from medtwin.trials.population.units import values_in

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# Source: CDISC Controlled Terminology, codelist RACE (C74457); several races are MULTIPLE (SDTMIG 3.4, 5.2).
_RACE_NAMES = {
    "american_indian": "AMERICAN INDIAN OR ALASKA NATIVE",
    "asian": "ASIAN",
    "black": "BLACK OR AFRICAN AMERICAN",
    "pacific_islander": "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER",
    "white": "WHITE",
    "other": "OTHER",
}
_BY_CODE = {code: _RACE_NAMES[name] for name, code in RACES.items()} | {name: name for name in _RACE_NAMES.values()}


@dataclass(frozen=True)
class LabRecord:
    """The values of a laboratory covariate around entry, in its unit; rows sorted by subject and day.

    Attributes:
        lab: Which. subject: (rows,) index into the pool. day: (rows,) days since entry, 0 or less: baseline.
        value: (rows,).
    """

    lab: Lab
    subject: Ints
    day: Ints
    value: Floats


@dataclass(frozen=True)
class PoolRecord:
    """What is known of the subjects of a pool beside their covariates, (pool,) each.

    Attributes:
        subject_id: As in the pool's baseline. entry_day: Day of entry, from 1970-01-01. race: Term of CDISC's codelist.
        labs: Their laboratory values: the last of the window up to entry, and all after it.
    """

    subject_id: Ints
    entry_day: Ints
    race: NDArray[np.str_]
    labs: Sequence[LabRecord] = ()


def pool_record(cohort: Cohort, trial: SurvivalTrial) -> PoolRecord:
    """The record of those eligible for a trial, in the order of its pool (`prepare`).

    Raises:
        ConfigError: If nobody is eligible or a code is unknown.
    """
    entry = find_eligible(cohort, trial.index, trial.criteria).entry
    race = np.array([race_term(code) for code in cohort.race[entry.subject].tolist()], dtype=np.str_)
    labs = [_lab_record(cohort, lab, entry.subject, entry.day) for lab in trial.labs]
    return PoolRecord(cohort.subject_id[entry.subject], entry.day, race, labs)


def race_term(codes: str) -> str:
    """The CDISC term for the codes of a subject's race.

    >>> race_term("2106-3"), race_term("2106-3+2028-9"), race_term(""), race_term("white")
    ('WHITE', 'MULTIPLE', 'UNKNOWN', 'WHITE')
    """
    if not codes:
        return "UNKNOWN"
    return "MULTIPLE" if "+" in codes else _BY_CODE.get(codes, _BY_CODE.get(codes.upper(), "OTHER"))


def _lab_record(cohort: Cohort, lab: Lab, subject: Ints, entry_day: Ints) -> LabRecord:
    records = cohort.rows_of(lab.codes)
    values = values_in(records, lab.unit)
    known = ~np.isnan(records.value)
    records, values = records.take(known), values[known]
    position = np.full(len(cohort.subject_id), -1, dtype=np.int64)
    position[subject] = np.arange(len(subject))
    owner = position[records.subject]
    day = records.day - entry_day[np.maximum(owner, 0)]
    is_kept = (owner >= 0) & (day > 0)
    if len(records.day):
        latest = latest_before(records, subject, entry_day)
        is_near = (latest >= 0) & (entry_day - records.day[np.maximum(latest, 0)] <= lab.window_days)
        is_kept[latest[is_near]] = True
    is_kept &= ~np.isnan(values)
    return LabRecord(lab, owner[is_kept], day[is_kept], values[is_kept])
