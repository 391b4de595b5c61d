"""What leaves the house tells of no 1 to 10 real people, whatever row it stands in."""

from __future__ import annotations

import pytest

from medtwin.check.disclosure import shareable
from medtwin.check.estimates import Estimate, Measure
from medtwin.check.findings import AgeRow, Findings, MissingnessRow, RuleRow, StratumRow, SurvivalRow, UnitRow
from medtwin.check.group_rows import OF_SOURCE, FairnessRow
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
        strata=(
            StratumRow("race", "x", count, 50, "", None),
            StratumRow("race", "y", 60, 3, "", None),
            StratumRow("race", "z", 90 - count, 3, "", None),
        ),
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
    assert [(row.level, row.num_real) for row in shared.strata] == [("y", None), ("z", 90 - count)]
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


@pytest.mark.parametrize("count", [1, SMALLEST_CELL - 1])
def test_what_the_other_groups_would_give_away_is_not_counted(count: int) -> None:
    def of_source(group: str, number: int) -> FairnessRow:
        numbers = (0.2, 0.1, 0.3, number / 200, 0.1, 0.0, 0.2) if number > 50 else ()
        return FairnessRow(OF_SOURCE, "race", group, number, 9, *numbers)

    found = Findings(
        200,
        200,
        0,
        (Measure("strata.codes", "worst (race: y)", SOME, 70), Measure("strata.codes", "worst (race: z)", SOME, 90)),
        strata=tuple(StratumRow("race", g, n, 9, "", None) for g, n in (("x", count), ("y", 70), ("z", 130 - count))),
        fairness=(of_source("x", count), of_source("y", 70), of_source("z", 130 - count)),
        ages=tuple(AgeRow(band, n, 9, 5.0, 5.0, 1.0, 1.0) for band, n in (("0", count), ("1", 70), ("2", 130 - count))),
        image_strata=tuple(
            ImageStratumRow("sex", f"CR, {g}", n, 30, 0.1, 0.3, None, None) for g, n in (("F", count), ("M", 90))
        ),
        rules=(
            RuleRow("r", "r", "s", 0, 2, 0.0, 0.1, 0.1, applicable=(count, 20), events=(count, 20), unknown=(1, 0)),
            RuleRow("q", "q", "s", 60 - count, 2, 0.9, 0.1, 0.1, applicable=(60, 20), events=(90, 20)),
        ),
    )
    shared = shareable(found)
    assert [(row.level, row.num_real) for row in shared.strata] == [("y", None), ("z", 130 - count)]
    assert [(row.num_patients, row.reference, row.gap) for row in shared.fairness] == [
        (None, None, None),
        (None, None, None),
        (130 - count, (130 - count) / 200, 0.1),
    ]
    assert [(row.num_real, row.events_real) for row in shared.ages] == [(None, None), (None, 5.0), (130 - count, 5.0)]
    assert shared.image_strata == ()
    few, most = shared.rules
    assert (few.applicable, few.events, few.unknown, few.num_real) == ((None, 20), (None, 20), (None, 0), None)
    assert (most.applicable, most.num_real, most.share_real) == ((60, 20), None, None)  # so few keep it
    assert [one.num_compared for one in shared.measures] == [0, 90]
