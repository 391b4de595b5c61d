"""The shipped rules on data that is right, and on data that is broken in one way each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from medtwin.check import Rule
from medtwin.check.plausibility import RuleCounter, rule_rows
from medtwin.check.resample import make_plan
from medtwin.check.rule_measures import rule_measures
from medtwin.core.codes import AGE_CAPPED
from medtwin.core.events import Event, events_to_table
from tests.check import samples
from tests.check.test_plausibility import at, person, rule

Rules: TypeAlias = Sequence[Rule]


@pytest.fixture(scope="module")
def rules(shipped: tuple[object, tuple[Rule, ...]]) -> tuple[Rule, ...]:
    return shipped[1]


def looked(rules: Rules, table: pa.Table) -> RuleCounter:
    counter = RuleCounter(rules)
    counter.look(table)
    return counter


@pytest.fixture(scope="module")
def reference(rules: Rules, real_table: pa.Table) -> RuleCounter:
    return looked(rules, real_table)


def broken(rules: Rules, real: RuleCounter, table: pa.Table) -> set[str]:
    return {one.rule for one in rule_rows(rules, real, looked(rules, table)) if one.outcome == "broken"}


def test_an_independent_draw_breaks_no_rule(rules: Rules, reference: RuleCounter, fresh_table: pa.Table) -> None:
    rows = rule_rows(rules, reference, looked(rules, fresh_table))
    assert [one.rule for one in rows if one.outcome == "broken"] == []
    kept = {one.rule for one in rows if one.outcome == "kept"}
    assert {"body-mass-index", "filtration-rate-of-creatinine", "friedewald", "observations-in-encounter"} < kept
    assert {one.outcome for one in rows if one.rule == "anion-gap"} == {"not_applicable"}


def flipped_sex(table: pa.Table) -> pa.Table:
    other = {"GENDER//M": "GENDER//F", "GENDER//F": "GENDER//M"}
    codes = [other.get(code, code) for code in table["code"].to_pylist()]
    return samples.with_column(table, "code", pa.array(codes))


def shuffled_times(table: pa.Table) -> pa.Table:
    """Times dealt anew over all events; encounters keep their ends."""
    return samples.permuted(table, ["time", "time_precision"], samples.dated(table))


def stale_weights(table: pa.Table) -> pa.Table:
    rows = np.flatnonzero(np.asarray(pc.equal(table["code"], "LOINC//29463-7")))
    return samples.permuted(table, ["numeric_value"], rows)


def born_later(table: pa.Table) -> pa.Table:
    """Everybody is born 60 years later; who is capped at 90 is too."""
    time = table["time"].to_numpy().copy()
    time[np.asarray(pc.equal(table["code"], "MEDS_BIRTH"))] += np.timedelta64(60 * 365, "D")
    return samples.with_column(table, "time", pa.array(time, pa.timestamp("us")))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (samples.swapped_units, {"body-mass-index", "value-hemoglobin"}),
        (stale_weights, {"body-mass-index"}),
        (flipped_sex, {"no-pregnancy-of-men", "filtration-rate-of-creatinine"}),
        (shuffled_times, {"nothing-after-death", "nothing-before-birth", "observations-in-encounter"}),
        (born_later, {"nothing-before-birth", "age-mammography", "age-type-2-diabetes"}),
        (samples.permuted_values, {"value-body-mass-index", "value-sodium", "systolic-above-diastolic"}),
        (samples.shuffled_codes, {"no-pregnancy-of-men", "exacerbation-needs-copd", "antidiabetic-needs-diabetes"}),
    ],
)
def test_broken_data_breaks_the_rules_that_it_should(
    rules: Rules,
    reference: RuleCounter,
    fresh_table: pa.Table,
    fault: Callable[[pa.Table], pa.Table],
    expected: set[str],
) -> None:
    assert expected <= broken(rules, reference, fault(fresh_table))


def test_ids_that_stand_twice_break_their_rule(rules: Rules, reference: RuleCounter, fresh_table: pa.Table) -> None:
    assert broken(rules, reference, pa.concat_tables([fresh_table, fresh_table.slice(100, 50)])) >= {"no-event-twice"}


def test_measures_have_a_baseline_and_find_broken_numbers(
    rules: Rules, reference: RuleCounter, real_table: pa.Table, fresh_table: pa.Table
) -> None:
    ids = [np.unique(table["subject_id"].to_numpy()) for table in (real_table, fresh_table)]
    plan = make_plan(len(ids[0]), len(ids[1]), 0, seed=0, num_resamples=50)

    def measured(table: pa.Table) -> list[float]:
        twins = looked(rules, table)
        found = rule_measures(rules, (reference, twins, None), (ids[0], ids[1], None), plan)
        assert [one.name for one in found] == ["rules.identities", "rules.others"]
        estimates = [one.estimate for one in found]
        assert all(one is not None and one.low <= one.value <= one.high for one in estimates)
        assert all(one is not None and one.baseline <= one.baseline_worst < 0.03 for one in estimates)
        return [one.value for one in estimates if one is not None]

    assert max(measured(fresh_table)) < 0.02
    assert measured(stale_weights(fresh_table))[0] > 0.05
    assert measured(samples.shuffled_codes(fresh_table))[1] > 0.05


def test_measures_say_why_there_is_none() -> None:
    none = [rule("once", codes=("A",))]
    counters = [looked(none, events_to_table(person(1, *events))) for events in ([], [at("A")])]
    ids = np.array([1])
    plan = make_plan(2, 1, 0, seed=0, num_resamples=20)
    for real, twins, reasons in (
        (0, 0, ["no such rule applies to the real data"] * 2),
        (1, 0, ["no such rule applies to the real data", "no such rule applies to the twins"]),
    ):
        found = rule_measures(none, (counters[real], counters[twins], None), (ids, ids, None), plan)
        assert [one.reason for one in found] == reasons
        assert [one.estimate for one in found] == [None, None]
        assert [one.applicable for one in found] == ["twins" in reason for reason in reasons]


def test_moved_births_of_the_very_old_break_no_rule(rules: Rules) -> None:
    """Above 89 a birth is moved so that the subject is 90 at the last event (45 CFR 164.514)."""
    old = [Event(1, None, AGE_CAPPED), *person(1, at("SNOMED//26929004"), at("SNOMED//44054006", days=-40))]
    assert broken(rules, looked(rules, events_to_table(old)), events_to_table(old)) == set()
