from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.errors import ConfigError
from medtwin.core.events import events_to_table, sort_events, validate_events
from medtwin.timelines.generate import (
    TILE,
    MaskedMass,
    Timeline,
    TimelineModel,
    _Tile,
    generate_timelines,
    replay_timeline,
)
from medtwin.timelines.latents import latents_at
from medtwin.timelines.masks import build_masks
from medtwin.timelines.records import timeline_to_events, twin_subject_id
from medtwin.timelines.spec import TimelineSpec
from tests.timelines.conftest import FEMALE_ONLY, small_net


def drawn(model: TimelineModel, number: int, seed: int = 3, **wanted: object) -> list[Timeline]:
    return list(generate_timelines(model, num_subjects=number, seed=seed, wanted=wanted or None))


@pytest.fixture(scope="module")
def twins(model: TimelineModel) -> list[Timeline]:
    return drawn(model, 12)


def same(one: Timeline, other: Timeline) -> bool:
    return (
        one.tokens == other.tokens
        and one.minutes == other.minutes
        and np.array_equal(one.values, other.values, equal_nan=True)
    )


def test_a_twin_depends_on_seed_and_number_only(model: TimelineModel, twins: list[Timeline]) -> None:
    fewer = drawn(model, 5)
    assert all(same(one, other) for one, other in zip(fewer, twins, strict=False))
    assert not same(drawn(model, 1, seed=4)[0], twins[0])


def test_the_second_tile_can_be_drawn_alone(model: TimelineModel) -> None:
    whole = drawn(model, TILE + 2)
    alone = list(generate_timelines(model, num_subjects=2, first=TILE, seed=3))
    assert all(same(one, other) for one, other in zip(alone, whole[TILE:], strict=True))
    with pytest.raises(ValueError, match="multiple of"):
        next(generate_timelines(model, num_subjects=2, first=3, seed=3))


def test_replaying_the_noise_gives_the_same_twin_and_another_age_another_one(
    model: TimelineModel, twins: list[Timeline]
) -> None:
    assert same(replay_timeline(model, twins[2], twins[2].attributes, seed=3), twins[2])
    older = replace(twins[2].attributes, age_start_years=twins[2].attributes.age_start_years + 25)
    assert not same(replay_timeline(model, twins[2], older, seed=3), twins[2])


def test_even_an_untrained_model_cannot_say_the_impossible(model: TimelineModel) -> None:
    mass = MaskedMass()
    timelines = list(generate_timelines(model, num_subjects=TILE, seed=1, mass=mass))
    spec = model.spec
    female = set(spec.vocabulary.where([FEMALE_ONLY]).tolist())
    death = set(spec.vocabulary.where([DEATH]).tolist())
    men = [t for t in timelines if spec.attributes.sexes[t.attributes.sex] == "GENDER//M"]
    assert men
    assert female
    assert not any(female & set(t.tokens) for t in men)
    assert any(female & set(t.tokens) for t in timelines)  # else the mask would be trivial
    for t in timelines:
        said = [place for place, token in enumerate(t.tokens) if token in death]
        assert said in ([], [len(t.tokens) - 1])
        dated = [minute for minute in t.minutes if minute > -(2**60)]
        assert dated == sorted(dated)
        assert max(dated) <= t.attributes.start_minute + t.attributes.window_minutes
    assert 0 < mass.share < 1


def test_nobody_is_diagnosed_with_an_index_condition_that_they_are_not_to_have(
    model: TimelineModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contradictions() -> int:
        of = model.net.conditions_of
        timelines = generate_timelines(model, num_subjects=TILE, seed=1)
        return sum(bool((of[t.tokens].amax(dim=0) > torch.tensor(t.attributes.conditions)).any()) for t in timelines)

    assert contradictions() == 0
    whole = _Tile.__init__

    def unmasked(self: _Tile, *given: Any) -> None:
        whole(self, *given)
        self.may_have[:] = True

    monkeypatch.setattr(_Tile, "__init__", unmasked)
    assert contradictions() > 0  # else the mask would be trivial


def test_without_masks_men_have_it_too(spec: TimelineSpec) -> None:
    """The control of the test before."""
    masks = build_masks(spec, {})
    ages = {"youngest": masks.youngest - 200, "oldest": masks.oldest + 200}
    open_to_all = replace(masks, by_sex=np.ones_like(masks.by_sex), **ages)
    timelines = drawn(TimelineModel(small_net(spec), spec, open_to_all), TILE)
    female = set(spec.vocabulary.where([FEMALE_ONLY]).tolist())
    men = [t for t in timelines if spec.attributes.sexes[t.attributes.sex] == "GENDER//M"]
    assert any(female & set(t.tokens) for t in men)


def test_a_code_that_one_sex_never_has_by_more_than_chance_is_masked(spec: TimelineSpec) -> None:
    masks = build_masks(spec, {"M": ["LOINC//4548*"]})
    a1c = spec.vocabulary.where(["LOINC//4548-4"])
    female, male = (spec.attributes.sexes.index(f"GENDER//{sex}") for sex in "FM")
    assert not masks.by_sex[female, a1c].any()
    assert masks.by_sex[male, a1c].all()
    birth_sex = spec.vocabulary.where(["BIRTHSEX//F"])
    assert not masks.by_sex[male, birth_sex].any()
    with pytest.raises(ConfigError, match="the sex must be F or M"):
        build_masks(spec, {"X": []})


def test_targets_are_met_or_refused(model: TimelineModel) -> None:
    women = drawn(model, 6, sex="F", age=(40.0, 60.0))
    assert {model.spec.attributes.sexes[t.attributes.sex] for t in women} == {"GENDER//F"}
    assert all(40 <= t.attributes.age_start_years <= 60 for t in women)
    condition = model.spec.attributes.conditions[0]
    assert all(t.attributes.conditions[0] == 1 for t in drawn(model, 4, conditions=[condition]))
    for wanted, message in (
        ({"sex": "X"}, "attributes.sex must be one of"),
        ({"conditions": ["SNOMED//0"]}, "no index condition SNOMED//0"),
        ({"age": (1.0, 2.0)}, "no training subject"),
        ({"height": 3}, "attributes must be some of"),
    ):
        with pytest.raises(ConfigError, match=message):
            drawn(model, 1, **wanted)


def test_nobody_gets_the_dates_of_a_training_subject(model: TimelineModel, twins: list[Timeline]) -> None:
    starts = set(model.spec.attributes.donors[:, 2].tolist())
    assert not any(float(t.attributes.start_minute) in starts for t in twins)


def test_a_record_is_a_valid_event_table(model: TimelineModel) -> None:
    events = []
    for timeline in drawn(model, 20):
        subject = twin_subject_id("run", 3, timeline.index)
        events += timeline_to_events(timeline, model.spec, subject)
    table = sort_events(events_to_table(events))
    assert validate_events(table) == []
    assert len({event.subject_id for event in events}) == 20
    births = {event.subject_id: event.time for event in events if event.code == BIRTH}
    assert all(e.time is None or e.time >= births[e.subject_id] for e in events)
    encounters = {e.event_id: e for e in events if e.resource == "Encounter" and e.parent_id is None}
    inside = [e for e in events if e.encounter_id in encounters and e.parent_id is None and e.time is not None]
    assert inside
    assert all(
        encounters[e.encounter_id].time <= e.time <= (encounters[e.encounter_id].end_time or e.time) for e in inside
    )


def test_values_bear_unit_precision_and_interpretation_of_the_source(model: TimelineModel) -> None:
    events = [e for t in drawn(model, 20) for e in timeline_to_events(t, model.spec, t.index)]
    a1c = [e for e in events if e.code == "LOINC//4548-4" and e.numeric_value is not None]
    assert a1c
    assert {e.unit for e in a1c} == {"%"}
    assert all(round(e.numeric_value, 1) == pytest.approx(e.numeric_value) for e in a1c)
    flags = {e.parent_id: e.code[-1] for e in events if e.code.startswith("FHIR//Observation.interpretation")}
    high = {e.parent_id: e.numeric_value for e in events if e.code == "FHIR//Observation.referenceRange.high"}
    assert all(flags[e.event_id] == ("H" if e.numeric_value > high[e.event_id] else flags[e.event_id]) for e in a1c)
    assert all(flags[e.event_id] != "H" for e in a1c if e.numeric_value <= high[e.event_id])


def test_the_ids_of_two_runs_never_meet() -> None:
    assert twin_subject_id("a", 0, 1) != twin_subject_id("b", 0, 1)
    assert twin_subject_id("a", 0, 1) == twin_subject_id("a", 0, 1) > 0


def test_a_latent_depends_on_the_record_up_to_its_moment_alone(model: TimelineModel, twins: list[Timeline]) -> None:
    longest = max(twins, key=lambda t: len(t.tokens))
    events = timeline_to_events(longest, model.spec, 7)
    dated = sorted(e.time for e in events if e.time is not None and e.code != BIRTH)
    moment = dated[len(dated) // 2]
    table = sort_events(events_to_table(events))
    cut = sort_events(events_to_table([e for e in events if e.time is None or e.time <= moment]))
    minute = int(np.datetime64(moment, "m").astype(np.int64))
    whole, early = (latents_at(model.net, model.spec, t, {7: [minute]})[7][0] for t in (table, cut))
    assert whole is not None
    assert np.allclose(whole, early, atol=1e-5)
    before_everything, never = latents_at(model.net, model.spec, table, {7: [-(10**9)], 8: [None]}).values()
    assert before_everything == [None]
    assert never == [None]


def test_generation_draws_nothing_from_global_generators(model: TimelineModel) -> None:
    state = torch.random.get_rng_state()
    drawn(model, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
