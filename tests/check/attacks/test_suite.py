from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.attacks.suite import EVERYBODY, WORST, AttackFindings, attack
from medtwin.check.controls import copied
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.strata import Stratification
from tests.check.samples import hospital_table


@pytest.fixture(scope="module")
def sides() -> tuple[Records, Records, Records]:
    """Three independent draws of the embedded hospital."""
    words = Vocabulary()
    first, second, third = (tables_to_records([hospital_table(number, seed)], words)
                            for seed, number in enumerate((160, 160, 120)))  # fmt: skip
    return first, second, third


def found(sides: tuple[Records, Records, Records], share: float) -> AttackFindings:
    train, fresh, control = sides
    synthetic = copied(share)(fresh, train, np.random.default_rng(0))
    sex = Stratification("sex", ("GENDER//",))
    given = {"oracle": (np.ones(train.num_subjects), np.zeros(control.num_subjects))}
    return attack(train, synthetic, control, seed=3, scores=given, strata=[sex])


def test_independent_twins_raise_no_alarm(sides: tuple[Records, Records, Records]) -> None:
    one = found(sides, 0.0)
    assert one.num_people == (160, 160, 120)
    assert [risk.name for risk in one.risks] == [
        "singling_out.one",
        "singling_out.several",
        "linkability",
        "inference",
    ]
    for risk in one.risks:
        assert risk.low is not None
        assert risk.low <= 0, risk.name
    told = [each for each in one.memberships if each.group == "everybody" and each.name != "oracle"]
    assert len(told) == 5
    assert sum(each.low is not None and each.low > 0.5 for each in told) == 0
    oracle = next(each for each in one.memberships if each.name == "oracle")
    assert oracle.area == 1  # a score that is handed in is judged like the others


def test_copies_are_found_in_every_group(sides: tuple[Records, Records, Records]) -> None:
    one = found(sides, 1.0)
    assert found(sides, 1.0) == one
    for risk in one.risks[2:]:
        assert risk.risk is not None
        assert risk.risk > 0.9
    groups = {(each.division, each.group) for each in one.by_group}
    assert groups == {WORST, ("worst", "with a code that fewer than 11 have"), ("sex", "F"), ("sex", "M")}
    for each in one.by_group:
        if each.division == "sex":
            assert each.risk.low is not None
            assert each.risk.low > 0.8
    areas = {each.name: each.area for each in one.memberships if each.group == EVERYBODY[1]}
    assert min(area for name, area in areas.items() if area is not None and name != "density ratio") > 0.9


def test_too_few_people_are_refused(sides: tuple[Records, Records, Records]) -> None:
    with pytest.raises(ValueError, match="control must hold at least 30 people, got 10"):
        attack(sides[0], sides[1], sides[2].take(np.arange(10)), seed=0)
