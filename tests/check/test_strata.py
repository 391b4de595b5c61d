from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from medtwin.check.controls import without_subgroup
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.resample import make_plan
from medtwin.check.strata import MIN_SUBJECTS, Stratification, stratifications_from, stratum_measures
from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table

BORN = datetime(1960, 1, 1)
SEX = stratifications_from({"sex": ["GENDER//"]})


def people(num_women: int, num_men: int, *, seed: int = 0, men_mean: float = 0.0, words: Vocabulary) -> Records:
    rng = np.random.default_rng(seed)
    events = []
    for subject in range(num_women + num_men):
        sex = "F" if subject < num_women else "M"
        events += [Event(subject, None, f"GENDER//{sex}"), Event(subject, BORN, "MEDS_BIRTH")]
        shift = men_mean if sex == "M" else 0.0
        for day in range(3):
            value = float(rng.normal(shift))
            events.append(Event(subject, BORN + timedelta(15_000 + day), "LOINC//1", numeric_value=value))
    return tables_to_records([events_to_table(events)], words)


def measured(real: Records, synthetic: Records, strata: tuple[Stratification, ...] = SEX) -> tuple[dict, list]:
    plan = make_plan(real.num_subjects, synthetic.num_subjects, 0, seed=0, num_resamples=20)
    measures, rows = stratum_measures(real, synthetic, None, plan, strata, seed=0)
    return {one.name: one for one in measures}, rows


def test_levels_are_the_rest_of_the_first_code_and_the_band_of_age() -> None:
    words = Vocabulary()
    events = [
        Event(1, None, "RACE//A"), Event(1, None, "RACE//B"), Event(2, None, "WARD//X"), Event(3, BORN, "MEDS_BIRTH"),
        Event(3, BORN + timedelta(days=365 * 40 + 20), "C"), Event(3, None, "OTHER//Y"), Event(3, None, "RACE//B"),
    ]  # fmt: skip
    records = tables_to_records([events_to_table(events)], words)
    assert Stratification("race", ("RACE//",)).levels(records).tolist() == ["A", "unknown", "B"]
    assert Stratification("site", ("WARD//", "OTHER//")).levels(records).tolist() == ["unknown", "X", "Y"]
    assert Stratification("both", ("OTHER//", "RACE//")).levels(records).tolist() == ["A", "unknown", "Y"]
    assert Stratification("age").levels(records).tolist() == ["unknown", "unknown", "40\N{EN DASH}59"]


def test_shares_are_the_total_variation_distance() -> None:
    words = Vocabulary()
    found, rows = measured(people(60, 40, words=words), people(30, 70, words=words))
    assert found["strata.shares"].estimate.value == pytest.approx(0.3)  # |0.6 - 0.3| + |0.4 - 0.7|, halved
    assert "(sex)" in found["strata.shares"].title
    sizes = {(row.level, row.num_real, row.num_synthetic, row.measure) for row in rows}
    assert sizes == {("F", 60, 30, ""), ("M", 40, 70, "")}  # both groups are too small on one side
    assert found["strata.values"].estimate is None
    assert f"{MIN_SUBJECTS} subjects on both sides" in found["strata.values"].reason


def test_a_dropped_group_moves_the_shares_and_another_draw_does_not() -> None:
    words = Vocabulary()
    real, fresh = (people(120, 100, seed=seed, words=words) for seed in (1, 2))
    good = measured(real, fresh)[0]["strata.shares"].estimate
    assert good.value <= good.baseline_worst
    broken = measured(real, without_subgroup(fresh, real, np.random.default_rng(0)))[0]["strata.shares"].estimate
    assert broken.value == pytest.approx(120 / 220)
    assert broken.low > 3 * broken.baseline_worst


def test_the_group_that_is_badly_drawn_is_named() -> None:
    words = Vocabulary()
    real, fresh = (people(150, 60, seed=seed, words=words) for seed in (1, 2))
    good = measured(real, fresh)[0]["strata.values"].estimate
    assert good.value <= 1.5 * good.baseline_worst
    shifted = people(150, 60, seed=2, men_mean=1.5, words=words)
    found, rows = measured(real, shifted)
    assert "(sex: M)" in found["strata.values"].title
    assert found["strata.values"].estimate.low > found["strata.values"].estimate.baseline_worst
    of_women = next(row for row in rows if (row.level, row.measure) == ("F", "values.ks"))
    assert of_women.estimate.value <= 1.5 * of_women.estimate.baseline_worst


def test_what_cannot_be_divided_is_not_applicable() -> None:
    words = Vocabulary()
    found, rows = measured(people(60, 0, words=words), people(60, 0, words=words))
    assert found["strata.shares"].applicable is False
    assert rows == []
    assert stratifications_from({"sex": None, "age": []}) == (Stratification("age"),)
    with pytest.raises(ConfigError, match=r"strata\.ward must name beginnings of codes"):
        stratifications_from({"ward": []})
