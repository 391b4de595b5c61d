from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.core.codes import DEATH
from medtwin.core.errors import ConfigError
from medtwin.timelines.generation.generate import STATIC, Timeline, TimelineModel, timelines_of
from medtwin.timelines.generation.masks import build_masks
from medtwin.timelines.generation.records import timeline_to_events
from medtwin.timelines.generation.tile import MaskedMass, Tile
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.steering.counterfactual import Change, predict
from medtwin.timelines.steering.steer import Abducted, abduct, is_same, known_timelines, num_same, outside_support, run

NUM = 24


@pytest.fixture(scope="module")
def records(short: Sequences) -> Sequences:
    return short.take(np.arange(NUM))


@pytest.fixture(scope="module")
def abducted(short_model: TimelineModel, records: Sequences) -> Abducted:
    return abduct(short_model, records, 3)


def replayed(model: TimelineModel, found: Abducted, attributes: list | None = None) -> list[Timeline]:
    given = list(found.attributes) if attributes is None else attributes
    return timelines_of(run(model, Tile(given, found.latent, found.noise, NUM), MaskedMass()), given, found.latent)


def test_abducted_noise_gives_back_every_event_whose_value_can_be_generated(
    short_model: TimelineModel, records: Sequences, abducted: Abducted
) -> None:
    known, again = known_timelines(short_model, records), replayed(short_model, abducted)
    scales = short_model.spec.scales
    num_exact = 0
    for one, other in zip(known, again, strict=True):
        can_be_said = all(
            value != value
            or (scale := scales[token]) is None
            or scale.low <= float(scale.encode(np.array([value]))[0]) <= scale.high
            for token, value in zip(one.tokens, one.values, strict=True)
        )
        if can_be_said:
            assert is_same(one, other)
            num_exact += 1
    assert num_exact > NUM / 2
    stranger = replayed(short_model, abduct(short_model, records, 4))
    assert sum(map(is_same, known, stranger)) == sum(map(is_same, known, again))  # whatever the seed left open


def test_the_same_z_with_other_noise_is_somebody_else(
    short_model: TimelineModel, records: Sequences, abducted: Abducted
) -> None:
    other = abduct(short_model, records.take(np.arange(NUM)[::-1].copy()), 3)
    mixed = replayed(short_model, replace(abducted, noise=other.noise))
    assert sum(map(is_same, known_timelines(short_model, records), mixed)) < NUM / 4


def test_no_change_changes_nothing(short_model: TimelineModel, abducted: Abducted) -> None:
    law = short_model.spec.profile
    assert predict(law, abducted.attributes, abducted.uniforms, Change()) == list(abducted.attributes)
    for one, uniforms in zip(abducted.attributes, abducted.uniforms, strict=True):
        as_is = Change(age=one.age_start_years, sex=one.sex)
        if np.isfinite(one.age_start_years):
            assert predict(law, [one], uniforms[None], as_is) == [one]


def test_a_set_age_moves_birth_and_leaves_other_roots_alone(
    short_model: TimelineModel, records: Sequences, abducted: Abducted
) -> None:
    law = short_model.spec.profile
    changed = predict(law, abducted.attributes, abducted.uniforms, Change.of(law, {"age": 75}))
    static = np.flatnonzero(law.is_static)
    for one, other in zip(abducted.attributes, changed, strict=True):
        assert other.age_start_years == 75
        assert (one.sex, one.start_minute) == (other.sex, other.start_minute)
        assert [one.facts[i] for i in static] == [other.facts[i] for i in static]
    twins = replayed(short_model, abducted, changed)
    for twin, one in zip(twins, abducted.attributes, strict=True):
        births = [e.time for e in timeline_to_events(twin, short_model.spec, 1) if e.code == "MEDS_BIRTH"]
        start = np.datetime64(one.start_minute, "m")
        assert abs((start - np.datetime64(births[0], "m")).astype(int) / MINUTES_PER_YEAR - 75) < 0.01
    assert sum(not is_same(a, b) for a, b in zip(replayed(short_model, abducted), twins, strict=True)) > NUM / 2
    younger = predict(law, abducted.attributes[1:], abducted.uniforms[1:], Change.of(law, {}, older_by=-5))
    assert all(
        other.age_start_years == pytest.approx(one.age_start_years - 5)
        for one, other in zip(abducted.attributes[1:], younger, strict=True)
    )


def test_sex_specific_codes_obey_the_new_sex(short_model: TimelineModel, abducted: Abducted) -> None:
    code = "LOINC//4548-4"
    masked = TimelineModel(short_model.net, short_model.spec, build_masks(short_model.spec, {"F": [code]}))
    law, tokens = short_model.spec.profile, set(short_model.spec.vocabulary.where([code]).tolist())
    men, women = (
        replayed(masked, abducted, predict(law, abducted.attributes, abducted.uniforms, Change.of(law, {"sex": sex})))
        for sex in ("M", "F")
    )
    assert not any(tokens & set(twin.tokens) for twin in men)
    assert any(tokens & set(twin.tokens) for twin in women)  # else the mask would be trivial


def test_set_facts_hold_and_races_exclude_each_other(short_model: TimelineModel, abducted: Abducted) -> None:
    law = short_model.spec.profile
    races = [code for code in law.facts if code.startswith("RACE//")]
    change = Change.of(law, {"facts": [races[0], DEATH]})
    assert law.net.excludes.any()
    for one in predict(law, abducted.attributes, abducted.uniforms, change):
        assert [one.facts[law.facts.index(race)] for race in races] == [1, *[0] * (len(races) - 1)]
        assert one.facts[law.facts.index(DEATH)]
    alive = predict(law, abducted.attributes, abducted.uniforms, Change.of(law, {"without": [DEATH]}))
    assert not any(one.facts[law.facts.index(DEATH)] for one in alive)
    deaths = set(short_model.spec.vocabulary.where([DEATH]).tolist())
    assert not any(deaths & set(twin.tokens) for twin in replayed(short_model, abducted, alive))


def test_a_set_window_ends_with_an_earlier_death_and_before_a_later_one(
    short_model: TimelineModel, abducted: Abducted
) -> None:
    law = short_model.spec.profile
    death = law.facts.index(DEATH)
    for years in (0.01, 60.0):
        changed = predict(law, abducted.attributes, abducted.uniforms, Change.of(law, {"window_years": years}))
        for one, other in zip(abducted.attributes, changed, strict=True):
            dies_within = one.facts[death] and one.window_minutes <= years * MINUTES_PER_YEAR
            assert other.facts[death] == dies_within
            expected = one.window_minutes if dies_within else years * MINUTES_PER_YEAR
            assert other.window_minutes == pytest.approx(expected, abs=1)


def test_mistakes_name_the_setting(short_model: TimelineModel, abducted: Abducted) -> None:
    law = short_model.spec.profile
    for wanted, older_by, message in (
        ({"age": 500}, 0.0, "set.age must be an age from 0 to 120"),
        ({"age": 50}, 5.0, "set.age must stand without add.age"),
        ({"sex": "X"}, 0.0, "set.sex must be one of"),
        ({"facts": ["SNOMED//0"]}, 0.0, "set.facts: the model has no fact SNOMED//0"),
        ({"facts": [DEATH], "without": [DEATH]}, 0.0, "set.without must name no code of set.facts"),
        ({"window_years": 0}, 0.0, "set.window_years must be above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            Change.of(law, wanted, older_by)
    ageless = replace(abducted.attributes[0], age_start_years=float("nan"))
    with pytest.raises(ConfigError, match=r"add.age: a record says no birth date"):
        Change(older_by=5.0).root_of(law, ageless)


def test_what_no_training_subject_is_near_to_is_flagged(short_model: TimelineModel, abducted: Abducted) -> None:
    law = short_model.spec.profile
    one = next(each for each in abducted.attributes if np.isfinite(each.age_start_years))
    one = replace(one, facts=(0,) * law.num_facts)
    assert outside_support(short_model, one) == []
    far = replace(one, age_start_years=119.0, window_minutes=10**9)
    assert outside_support(short_model, far) == ["age", "window"]
    nobody = replace(short_model, spec=replace(short_model.spec, sex_counts=short_model.spec.sex_counts * 0))
    dies = tuple(int(code == DEATH) for code in law.facts)
    assert outside_support(short_model, replace(one, facts=dies)) == []
    assert outside_support(nobody, replace(one, facts=dies)) == ["facts"]


def test_events_are_compared_place_by_place(short_model: TimelineModel, records: Sequences) -> None:
    known = known_timelines(short_model, records)[3]
    assert known.minutes.count(STATIC) == known.steps.count(0)
    values = [*known.values]
    place = next(index for index, value in enumerate(values) if value == value)
    values[place] += 1
    other = replace(known, values=values)
    assert num_same(known, other) == len(known.tokens) - 1
    assert not is_same(known, other)
    longer = replace(
        known, **{n: [*getattr(known, n), getattr(known, n)[-1]] for n in ("tokens", "steps", "minutes", "values")}
    )
    assert not is_same(known, longer)
    assert is_same(replace(known, is_cut=True), longer)
