"""Replacing raises the alarm, accumulating and independent draws do not; what is lost is found, and only that."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from medtwin.check.collapse.alarm import level_of
from medtwin.check.collapse.perplexity import ANCHOR
from medtwin.check.collapse.rare import adjusted_by_holm, fewer, is_testable, rare_rows
from medtwin.check.collapse.suite import CollapseFindings, collapse
from tests.check.collapse import chains

NUM = 100


@cache
def found(how: str, generations: int, seed: int = 0) -> CollapseFindings:
    """Of twins of a chain, or of real draws in their place."""
    law = chains.law()
    real, anchors = chains.draw(law, 2 * NUM, 1000 + seed), chains.draw(law, NUM, 2000 + seed)
    learned = real.take(np.arange(NUM))
    made = {
        "replaced": lambda: chains.replaced(learned, generations, 3000 + 100 * seed),
        "accumulated": lambda: chains.accumulated(learned, generations, 3000 + 100 * seed),
        "real": lambda: [chains.draw(law, NUM, 3000 + 100 * seed + one) for one in range(generations)],
    }[how]()
    return collapse(real, made[-1], anchors, made[:-1], seed=seed)


def alarms(findings: CollapseFindings, measure: str = ANCHOR) -> list[int]:
    return [row.generation for row in findings.generations if row.alarm and row.measure == measure]


def test_replacing_raises_the_anchor_alarm_by_generation_5() -> None:
    findings = found("replaced", 5)
    assert 5 in alarms(findings)
    growth = next(one for one in findings.measures if one.name == "collapse.anchor_growth").estimate
    assert growth is not None
    assert growth.value > growth.baseline_worst > 0
    assert growth.low > 0
    rows = [row for row in findings.generations if row.measure == ANCHOR]
    assert [row.generation for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[0].change is rows[1].change is None
    assert rows[-1].value > 1.05 * rows[1].value
    assert all(row.low < row.value < row.high for row in rows)


def test_accumulating_real_data_stays_quiet_for_15_generations() -> None:
    assert alarms(found("accumulated", 15)) == []


@pytest.mark.slow
def test_independent_real_draws_raise_alarms_in_at_most_the_share_that_is_promised() -> None:
    false = sum(bool(alarms(found("real", 6, seed))) for seed in range(60))
    assert false <= 7  # 3 are expected at 5 %; 8 or more have probability 1.5 %
    lost = sum(any(row.is_lost for row in found("real", 6, seed).rare) for seed in range(60))
    assert lost <= 7


@pytest.mark.slow
def test_intervals_of_the_excess_cover_that_real_draws_have_none() -> None:
    estimates = [found("real", 6, seed).measures[0].estimate for seed in range(60)]
    assert sum(one is not None and one.low <= 0 <= one.high for one in estimates) >= 53
    assert np.mean([one.value for one in estimates if one]) == pytest.approx(0, abs=0.01)


def test_a_collapsed_generation_is_worse_in_everything() -> None:
    law = chains.law()
    real, anchors = chains.draw(law, 2 * NUM, 1), chains.draw(law, NUM, 2)
    one = real.take(np.zeros(NUM, np.int64))
    findings = collapse(real, one, anchors, seed=0)
    values = {each.name: each.estimate for each in findings.measures}
    assert values["collapse.anchor_growth"] is None
    for name in ("collapse.anchor_excess", "collapse.self_loss", "collapse.entropy_loss"):
        estimate = values[name]
        assert estimate is not None
        assert estimate.value > 10 * max(estimate.baseline_worst, 0.01), name
    numbers = {(row.generation, row.measure): row.value for row in findings.generations}
    assert numbers[1, "Vendi score"] == pytest.approx(1)
    assert numbers[0, "Vendi score"] > 5
    assert numbers[1, "coverage"] < numbers[0, "coverage"] / 3


def test_too_few_patients_are_not_measured_and_say_why() -> None:
    law = chains.law()
    real = chains.draw(law, 50, 1)
    findings = collapse(real, chains.draw(law, 50, 2), None, seed=0)
    assert findings.generations == ()
    assert {one.reason for one in findings.measures[:4]} == {
        "collapse needs 30 twins and anchors, and twice as many real patients"
    }


def test_a_rare_code_that_is_gone_is_found_and_no_other() -> None:
    law = chains.law()
    real, twins = chains.draw(law, 600, 1), chains.draw(law, 600, 2)
    assert not any(row.is_lost for row in rare_rows(real, twins))
    rarest = rare_rows(real, twins)[0].code
    without = twins.select(twins.code != twins.vocabulary.codes[rarest])
    assert [row.code for row in rare_rows(real, without) if row.is_lost] == [rarest]


def test_exact_tests_by_hand() -> None:
    # 8 of 8 and 0 of 8: one of 16 choose 8 = 12870 ways.
    assert fewer(np.array([8]), 8, np.array([0]), 8) == pytest.approx(1 / 12870)
    assert adjusted_by_holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    # 4 of 16 in all: at best 1 in 26 (8 choose 4 of 16 choose 4: 70 / 1820); 8 of 16: 1 / 12870.
    assert is_testable(np.array([4, 8]), 8, 8).tolist() == [False, True]
    assert is_testable(np.array([4]), 8, 8).tolist() == [True]


def test_levels_are_of_later_generations_only() -> None:
    with pytest.raises(ValueError, match="generation must be 2 or more, got 1"):
        level_of(1)
