"""What each kind of rule looks for in a shard: the rows that it applies to, and which of them break it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medtwin.check.facts import NEVER, Facts, Ints, last_at_or_before
from medtwin.check.identities import Judged, is_in_ages, judge_identity
from medtwin.check.records import UNDATED, US_PER_DAY, US_PER_HOUR
from medtwin.check.rules import Range, Rule

DOSES = (
    "FHIR//MedicationRequest.dosageInstruction.doseAndRate.doseQuantity",
    "FHIR//MedicationAdministration.dosage.dose",
    "FHIR//MedicationStatement.dosage.doseAndRate.doseQuantity",
    "FHIR//MedicationDispense.dosageInstruction.doseAndRate.doseQuantity",
)
"""The child rows in which the dose of an event stands (docs/conventions.md, FHIR to rows)."""


def judge(rule: Rule, facts: Facts) -> Judged:
    """What a rule says of a shard; not of `duplicate-event`, which needs all shards at once."""
    return _JUDGES[rule.kind](rule, facts)


def _chosen(rule: Rule, facts: Facts, *, dated: bool = True) -> Ints:
    """The rows that a rule is about: of its codes and FHIR types, or all clinical ones; ascending."""
    rows = facts.rows_of(rule.codes) if rule.codes else facts.clinical
    if dated:
        rows = rows[facts.time[rows] != UNDATED]
    if rule.except_codes:
        rows = np.setdiff1d(rows, facts.rows_of(rule.except_codes), assume_unique=True)
    return facts.of_resources(rows, rule.resources)


def _after_death(rule: Rule, facts: Facts) -> Judged:
    rows = _chosen(rule, facts)
    rows = rows[facts.death[facts.subject[rows]] != UNDATED]
    who = facts.subject[rows]
    time = np.where(facts.is_death_a_date[who], facts.local[rows], facts.time[rows])
    return Judged(rows, time > facts.death[who] + int(rule.tolerance_hours * US_PER_HOUR))


def _before_birth(rule: Rule, facts: Facts) -> Judged:
    rows = _chosen(rule, facts)
    birth = facts.birth[facts.subject[rows]]  # a date, as FHIR has it: by the clock of the place
    rows, birth = rows[birth != UNDATED], birth[birth != UNDATED]
    # What is known by its month or year may have happened at the end of it.
    last = facts.local[rows] + np.where(facts.width[rows] > US_PER_DAY, facts.width[rows], 0)
    return Judged(rows, last < birth - int(rule.tolerance_hours * US_PER_HOUR))


def _not_of_sex(rule: Rule, facts: Facts) -> Judged:
    rows = _chosen(rule, facts, dated=False)
    men, women = facts.is_of_sex("M")[facts.subject[rows]], facts.is_of_sex("F")[facts.subject[rows]]
    wrong = men if rule.sex == "M" else women
    is_known = men | women
    return Judged(rows[is_known], wrong[is_known])


def _age_at_onset(rule: Rule, facts: Facts) -> Judged:
    rows = _chosen(rule, facts)
    if rule.events == "first":
        rows = rows[np.unique(facts.subject[rows], return_index=True)[1]]
    ages = facts.ages(rows)
    rows, ages = rows[np.isfinite(ages)], ages[np.isfinite(ages)]
    assert rule.ages is not None
    return Judged(rows, ~is_in_ages(ages, rule.ages))


def _ends_before_start(rule: Rule, facts: Facts) -> Judged:
    rows = facts.rows_of(rule.codes) if rule.codes else np.arange(len(facts))
    rows = rows[(facts.time[rows] != UNDATED) & (facts.end[rows] != UNDATED)]
    return Judged(rows, facts.end[rows] < facts.time[rows])


def _outside_encounter(rule: Rule, facts: Facts) -> Judged:
    rows = _chosen(rule, facts)
    rows = rows[facts.encounter_row[rows] >= 0]
    encounter = facts.encounter_row[rows]
    rows, encounter = rows[facts.time[encounter] != UNDATED], encounter[facts.time[encounter] != UNDATED]
    slack = int(rule.tolerance_hours * US_PER_HOUR)
    time, start, end = facts.time[rows], facts.time[encounter], facts.end[encounter]
    is_day = end % US_PER_DAY == 0
    last = np.where(end == UNDATED, NEVER, end + np.where(is_day, US_PER_DAY - 1, 0))
    is_early = time + facts.width[rows] < start - slack
    is_late = (last != NEVER) & (time > np.where(last == NEVER, 0, last) + slack)
    return Judged(rows, is_early | is_late)


def _value_range(rule: Rule, facts: Facts) -> Judged:
    return _in_ranges(rule.ranges, facts, lambda one: facts.rows_of(one.codes))


def _dose_range(rule: Rule, facts: Facts) -> Judged:
    """Doses stand in child rows, or, in datasets without details, in the drug's own row."""
    doses = facts.rows_of(DOSES)
    doses = doses[facts.parent_row[doses] >= 0]

    def rows_of(one: Range) -> Ints:
        drugs = facts.rows_of(one.codes)
        is_drug = np.zeros(len(facts), bool)
        is_drug[drugs] = True
        return np.union1d(doses[is_drug[facts.parent_row[doses]]], drugs)

    return _in_ranges(rule.ranges, facts, rows_of)


def _in_ranges(ranges: tuple[Range, ...], facts: Facts, rows_of: Callable[[Range], Ints]) -> Judged:
    """Numbers against ranges; what is in none of the units of its code's ranges is unknown."""
    seen, known = np.zeros(len(facts), bool), np.zeros(len(facts), bool)
    broken = np.zeros(len(facts), bool)
    for one in ranges:
        rows = rows_of(one)
        rows = rows[np.isfinite(facts.value[rows])]
        seen[rows] = True
        rows = rows[facts.has_unit(rows, one.units)]
        known[rows] = True
        value = facts.value[rows]
        # In float32, as the numbers are: 7.8 of a rule is the 7.8 of a record.
        low = -np.inf if one.low is None else np.float32(one.low)
        high = np.inf if one.high is None else np.float32(one.high)
        broken[rows[(value < low) | (value > high)]] = True
    rows = np.flatnonzero(known)
    return Judged(rows, broken[rows], int((seen & ~known).sum()))


def _needs_before(rule: Rule, facts: Facts) -> Judged:
    """Of an event without a time only whether there is a need at all is asked."""
    rows = _chosen(rule, facts, dated=False)
    earliest = np.full(len(facts.subjects), NEVER)
    needs = facts.rows_of(rule.needs)
    np.minimum.at(earliest, facts.subject[needs], facts.time[needs])  # the undated come before everything
    need = earliest[facts.subject[rows]]
    slack = int(rule.slack_days * US_PER_DAY)
    is_late = (need != NEVER) & (facts.time[rows] != UNDATED) & (need != UNDATED)
    late = np.where(is_late, need, 0) - np.where(is_late, facts.time[rows], 0) > slack
    return Judged(rows, (need == NEVER) | (is_late & late), has_both=len(needs) > 0)


def _contraindicated(rule: Rule, facts: Facts) -> Judged:
    """Of each contraindication whether a forbidden code is active with it; the undated are active always."""
    reasons, drugs = facts.rows_of(rule.against), _chosen(rule, facts)
    subject, start = facts.subject[drugs], facts.time[drugs]
    lasts = np.where(facts.end[drugs] == UNDATED, start, facts.end[drugs])
    # The latest end of the drugs so far, within each subject: of those that began in time it decides.
    rank = np.unique(lasts, return_inverse=True)[1] if len(drugs) else np.zeros(0, np.int64)
    size = int(rank.max(initial=0)) + 1
    latest = np.maximum.accumulate(subject * size + rank) - subject * size if len(drugs) else rank
    latest_end = np.unique(lasts)[latest] if len(drugs) else lasts
    within = int(rule.within_days * US_PER_DAY)
    who, begins = facts.subject[reasons], facts.time[reasons]
    ends = np.where(facts.end[reasons] == UNDATED, begins, facts.end[reasons])
    is_always = begins == UNDATED
    until = np.where(is_always, NEVER, np.where(is_always, 0, ends) + within)
    at = last_at_or_before(subject, start, who, until)
    is_found = at >= 0
    at = np.maximum(at, 0)
    if not len(drugs):
        is_broken = np.zeros(len(reasons), bool)
    elif rule.against_first:
        is_broken = is_found & (start[at] >= begins)
    else:
        is_broken = is_found & (is_always | (latest_end[at] >= np.where(is_always, 0, begins) - within))
    return Judged(reasons, is_broken, has_both=len(drugs) > 0)


def _order(rule: Rule, facts: Facts) -> Judged:
    rows, others = _chosen(rule, facts), facts.rows_of(rule.after)
    others = others[facts.time[others] != UNDATED]
    first = np.searchsorted(facts.subject[rows], facts.subject[rows], side="left")
    position = np.arange(len(rows)) - first  # how many of the codes came before
    so_far = np.searchsorted(facts.step[others], facts.step[rows], side="right")
    before = np.searchsorted(facts.subject[others], facts.subject[rows], side="left")
    return Judged(rows, so_far - before <= position, has_both=len(others) > 0)


def _once(rule: Rule, facts: Facts) -> Judged:
    rows = _chosen(rule, facts, dated=False)
    is_first = np.zeros(len(rows), bool)
    is_first[np.unique(facts.subject[rows], return_index=True)[1]] = True
    return Judged(rows, ~is_first)


_JUDGES: dict[str, Callable[[Rule, Facts], Judged]] = {
    "after-death": _after_death,
    "before-birth": _before_birth,
    "not-of-sex": _not_of_sex,
    "age-at-onset": _age_at_onset,
    "ends-before-start": _ends_before_start,
    "outside-encounter": _outside_encounter,
    "value-range": _value_range,
    "dose-range": _dose_range,
    "identity": judge_identity,
    "needs-before": _needs_before,
    "contraindicated": _contraindicated,
    "order": _order,
    "once": _once,
}
