"""What leaves the house tells of no 1 to 10 real people, whatever row it stands in."""

from __future__ import annotations

import pytest

from medtwin.check.disclosure import shareable
from medtwin.check.estimates import Estimate, Measure
from medtwin.check.findings import Findings, MissingnessRow, RuleRow, StratumRow, SurvivalRow, UnitRow
from medtwin.check.group_rows import FairnessRow
from medtwin.check.image_rows import ImageStratumRow
from medtwin.core.disclosure import SMALLEST_CELL, is_small

SOME = Estimate(0.1, 0.0, 0.2, 0.05, 0.1)


@pytest.mark.parametrize("count", [3, SMALLEST_CELL - 1])
def test_rows_of_few_real_people_are_masked_or_left_out(count: int) -> None:
    found = Findings(
        100,
        100,
        0,
        (Measure("survival.gap", "s", SOME, count + 5), Measure("gaps.ks", "g", SOME, 9)),
        strata=(StratumRow("race", "x", count, 50, "", None), StratumRow("race", "y", 60, 3, "", None)),
        fairness=(
            FairnessRow("records", "race", "x", count, 3, reason="not judged"),
            FairnessRow("linkability", "race", "y", 60, count, reason="not judged"),
        ),
        image_strata=(ImageStratumRow("sex", "CR, F", count, 30, 0.1, 0.3, None, None),),
        rules=(
            RuleRow("r", "r", "s", count, 2, 0.05, 0.02, 0.1, broken_events=(count, 2), event_shares=(0.01, 0.02)),
            RuleRow("q", "q", "s", 40, 2, 0.4, 0.02, 0.1),
        ),
        units=(UnitRow("real", "A", "mg", "a", count, 9), UnitRow("synthetic", "A", "g", "a", 5, 9)),
        missingness=(
            MissingnessRow("subject", "A", "a", 1 - count / 100, 0.5),
            MissingnessRow("subject", "B", "b", 0.5, 0.5),
            MissingnessRow("day", "A", "a", 0.97, 0.5),
        ),
        survival=(SurvivalRow(1.0, 0.9, 0.8, count, 20, count / 100, 0.2),),
    )
    shared = shareable(found)
    assert [row.level for row in shared.strata] == ["y"]
    assert shared.image_strata == ()
    sizes = [(row.group, row.num_patients, row.num_others, row.reason) for row in shared.fairness]
    assert sizes == [("x", None, 3, "not judged"), ("y", 60, None, "not judged")]  # twins may be few, and are told of
    rule, other = shared.rules
    assert (rule.num_real, rule.share_real, rule.broken_events, rule.event_shares) == (
        None,
        None,
        (None, 2),
        (None, 0.02),
    )
    assert other == found.rules[1]
    assert [row.side for row in shared.units] == ["synthetic"]
    assert [(row.kind, row.code) for row in shared.missingness] == [("subject", "B"), ("day", "A")]
    assert (shared.survival[0].deaths_real, shared.survival[0].share_real) == (None, None)
    assert [one.num_compared for one in shared.measures] == [0, 9]


def test_what_is_of_many_or_of_nobody_is_told() -> None:
    found = Findings(
        100,
        100,
        0,
        (Measure("survival.gap", "s", SOME, 31),),
        strata=(StratumRow("race", "x", 0, 50, "", None), StratumRow("race", "y", SMALLEST_CELL, 3, "", None)),
        survival=(SurvivalRow(1.0, 0.9, 0.8, SMALLEST_CELL, 20, 0.11, 0.2),),
    )
    shared = shareable(found)
    assert shared.strata == found.strata
    assert shared.survival == found.survival
    assert shared.measures == found.measures
    assert [is_small(count) for count in (0, 1, 10, 11)] == [False, True, True, False]
