from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table, sort_events, validate_events
from medtwin.timelines.generation import generate
from medtwin.timelines.generation.generate import (
    STATIC,
    MaskedMass,
    Timeline,
    TimelineModel,
    draw_attributes,
    draw_people,
    generate_timelines,
    run_tile,
)
from medtwin.timelines.generation.masks import build_masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.plans import Group, Plan, Target
from medtwin.timelines.generation.records import RecordWriter, rows_to_table, timeline_to_events, twin_subject_id
from medtwin.timelines.priors import MixturePrior, NormalPrior
from medtwin.timelines.priors.latents import latents_at
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec
from tests.timelines.conftest import FEMALE_ONLY, fit

TILE = 32


@pytest.fixture(autouse=True)
def small_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of full size takes long and shows nothing more."""
    monkeypatch.setattr(generate, "TILE", TILE)


def drawn(model: TimelineModel, number: int, seed: int = 3, plan: Plan | None = None) -> list[Timeline]:
    return list(generate_timelines(model, num_subjects=number, seed=seed, plan=plan))


def asked(**wanted: object) -> Plan:
    return Plan((Group(wanted=wanted),))


@pytest.fixture(scope="module")
def twins(model: TimelineModel) -> list[Timeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "TILE", TILE)
        return drawn(model, 20)


def same(one: Timeline, other: Timeline) -> bool:
    columns = all(getattr(one, name) == getattr(other, name) for name in ("tokens", "minutes", "steps", "attributes"))
    return columns and np.array_equal(one.values, other.values, equal_nan=True)


def test_a_twin_depends_on_seed_and_number_only(short_model: TimelineModel) -> None:
    whole = drawn(short_model, TILE + 3)
    assert all(same(one, other) for one, other in zip(drawn(short_model, 5), whole, strict=False))
    alone = list(generate_timelines(short_model, num_subjects=3, first=TILE, seed=3))
    assert all(same(one, other) for one, other in zip(alone, whole[TILE:], strict=True))
    assert not same(drawn(short_model, 1, seed=4)[0], whole[0])
    with pytest.raises(ValueError, match="multiple of"):
        next(generate_timelines(short_model, num_subjects=2, first=3, seed=3))


def test_the_same_noise_gives_the_same_twin_and_another_age_another_one(short_model: TimelineModel) -> None:
    people = draw_people(short_model, 0, 5, seed=3)
    first, again = (run_tile(short_model, people, Noise(people.keys), MaskedMass()) for _ in range(2))
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    older = [replace(one, age_start_years=one.age_start_years + 25) for one in people.attributes]
    changed = run_tile(short_model, replace(people, attributes=older), Noise(people.keys), MaskedMass())
    assert any(
        one.tokens != other.tokens or one.values != other.values for one, other in zip(first, changed, strict=True)
    )


def test_even_an_untrained_model_cannot_say_the_impossible(model: TimelineModel) -> None:
    mass, spec = MaskedMass(), model.spec
    timelines = list(generate_timelines(model, num_subjects=TILE, seed=1, mass=mass))
    female, death = (set(spec.vocabulary.where([code]).tolist()) for code in (FEMALE_ONLY, DEATH))
    men = [t for t in timelines if spec.profile.sexes[t.attributes.sex] == "GENDER//M"]
    assert men
    assert not any(female & set(t.tokens) for t in men)
    assert any(female & set(t.tokens) for t in timelines)  # else the mask would be trivial
    for t in timelines:
        said = [place for place, token in enumerate(t.tokens) if token in death and t.steps[place] > 0]
        assert said in ([], [len(t.tokens) - 1])
        dated = [minute for minute in t.minutes if minute > -(2**60)]
        assert dated == sorted(dated)
        assert max(dated) <= t.attributes.start_minute + t.attributes.window_minutes
    assert 0 < mass.share < 1


def test_a_code_that_one_sex_never_has_by_more_than_chance_is_masked(spec: TimelineSpec) -> None:
    masks = build_masks(spec, {"M": ["LOINC//4548*"]})
    a1c = spec.vocabulary.where(["LOINC//4548-4"])
    female, male = (spec.profile.sexes.index(f"GENDER//{sex}") for sex in "FM")
    assert not masks.by_sex[female, a1c].any()
    assert masks.by_sex[male, a1c].all()
    assert not masks.by_sex[male, spec.vocabulary.where(["BIRTHSEX//F"])].any()
    with pytest.raises(ConfigError, match="the sex must be F or M"):
        build_masks(spec, {"X": []})


def test_facts_are_counted_with_tokens(spec: TimelineSpec, sequences: Sequences) -> None:
    subject = sequences.subject_of_step()[sequences.step_of_event()]
    for token in range(0, len(spec.vocabulary), 7):
        those = np.unique(subject[sequences.token == token])
        assert spec.fact_counts[token].tolist() == sequences.facts[those].sum(axis=0).tolist()
    assert spec.fact_totals.tolist() == sequences.facts.sum(axis=0).tolist()


def test_the_most_that_one_subject_had_is_counted(spec: TimelineSpec, sequences: Sequences) -> None:
    subject = sequences.subject_of_step()[sequences.step_of_event()]
    for token in range(0, len(spec.vocabulary), 7):
        assert spec.most_said[token] == np.bincount(subject[sequences.token == token], minlength=1).max()


def test_a_record_says_nothing_far_more_often_than_any_training_subject(model: TimelineModel) -> None:
    token = int(np.bincount(np.concatenate([one.tokens for one in drawn(model, 20)])).argmax())

    def times(most: int) -> int:
        limits = np.full(len(model.spec.vocabulary), 1_000_000)
        limits[token] = most
        bound = replace(model, masks=replace(model.masks, most=limits))
        return max(int((np.array(one.tokens) == token).sum()) for one in drawn(bound, 20))

    assert times(1_000_000) > 10
    assert [times(most) for most in (1, 3)] == [1, 3]
    assert model.masks.most is not None
    assert (model.masks.most == 2 * model.spec.most_said + 5).all()


def test_what_nobody_has_without_a_fact_needs_it(spec: TimelineSpec) -> None:
    """Twelve of 40 have the fact, and all who have the token: by chance once in two million."""
    token = int(spec.vocabulary.where(["LOINC//4548-4"])[0])
    fact = int(np.argmin(spec.profile.is_static))
    assert not spec.profile.is_static[fact]
    sexes, counts, totals = spec.sex_counts.copy(), np.zeros_like(spec.fact_counts), spec.fact_totals.copy()
    sexes[token] = 0
    sexes[token, 0], counts[token, fact], totals[fact] = 12, 12, 12

    def needs(**other: Any) -> bool:
        changed = replace(spec, **{"sex_counts": sexes, "fact_counts": counts, "fact_totals": totals, **other})
        found = build_masks(changed, {}).needs
        assert found is not None
        return bool(found[fact, token])

    assert int(spec.sex_totals.sum()) == 40
    assert needs()
    one_without, many = counts.copy(), totals.copy()
    one_without[token, fact] -= 1
    many[fact] = 20
    assert not needs(fact_counts=one_without)
    assert not needs(fact_totals=many)
    assert not needs(sex_counts=sexes // 3, fact_counts=counts // 3)  # too few to tell
    named = next(index for index in range(len(spec.vocabulary)) if spec.fact_of[index] >= 0)
    always = replace(spec, fact_counts=np.tile(spec.sex_counts.sum(axis=1)[:, None], (1, len(totals))))
    none = build_masks(replace(always, fact_totals=np.full_like(totals, 1)), {}).needs
    assert none is not None
    assert not none[:, named].any()
    assert not none[spec.profile.is_static].any()
    assert none[~spec.profile.is_static].any()


def test_targets_are_met_or_refused(model: TimelineModel) -> None:
    law = model.spec.profile
    target = Target.of(law, {"sex": "F", "age": [40, 60], "window_years": [1, 9], "without": [law.facts[-1]]})
    rng = np.random.default_rng(0)
    for _ in range(20):
        one = draw_attributes(law, rng, target)[1]
        assert law.sexes[one.sex] == "GENDER//F"
        assert 40 <= one.age_start_years <= 60
        assert 1 <= one.window_minutes / 525_960 <= 9
        assert not one.facts[-1]
    for wanted, message in (
        ({"sex": "X"}, "plan.sex must be one of F, M, got 'X'"),
        ({"facts": ["SNOMED//0"]}, "plan.facts: the model has no fact SNOMED//0"),
        ({"age": [60, 40]}, "plan.age must be"),
        ({"window_years": [3]}, "plan.window_years must be"),
        ({"height": 3}, "plan must be some of"),
        ({"facts": [law.facts[0]], "without": [law.facts[0]]}, "plan.without must name no code of facts"),
    ):
        with pytest.raises(ConfigError, match=message):
            Target.of(law, wanted)


def test_what_nobody_has_is_refused(model: TimelineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_MOST_CANDIDATES", 100)
    with pytest.raises(ConfigError, match="nobody among 192 drawn"):
        drawn(model, 1, plan=asked(age=[1.0, 2.0]))


def test_strata_have_their_shares_exactly_and_more_twins_change_none() -> None:
    plan = Plan.of({"age": [18, 90]}, [{"sex": "F", "age": [18, 40], "share": 0.25}, {"sex": "M", "share": 0.75}])
    assert [group.wanted for group in plan.groups] == [{"sex": "F", "age": [18, 40]}, {"sex": "M", "age": [18, 90]}]
    members = plan.of_twins(400)
    assert np.bincount(members).tolist() == [100, 300]
    assert np.bincount(members[:10]).tolist() in ([2, 8], [3, 7])
    assert plan.of_twins(7).tolist() == members[:7].tolist()
    counted = Plan.of({}, [{"n": 3, "sex": "F"}, {"n": 5}, {"n": 2}], num_twins=10)
    assert np.bincount(counted.of_twins(10)).tolist() == [3, 5, 2]
    thirds = Plan.of({}, [{"sex": "F"}, {"sex": "M"}, {}])
    assert np.bincount(thirds.of_twins(99)).tolist() == [33, 33, 33]


def test_no_group_is_ever_a_whole_twin_off() -> None:
    for seed in range(20):
        share = np.random.default_rng(seed).dirichlet(np.ones(5))
        members = Plan(tuple(Group(float(each)) for each in share)).of_twins(150)
        for num in range(1, 151):
            assert np.abs(np.bincount(members[:num], minlength=5) - share * num).max() < 1


def test_balance_gives_every_rare_fact_as_many_twins_as_none_of_them() -> None:
    plan = Plan.of({"facts": ["a"]}, balance=["b", "c"])
    assert [group.wanted for group in plan.groups] == [
        {"facts": ["a", "b"]},
        {"facts": ["a", "c"]},
        {"facts": ["a"], "without": ["b", "c"]},
    ]
    assert np.bincount(plan.of_twins(30)).tolist() == [10, 10, 10]


def test_mistakes_of_a_plan_name_the_setting() -> None:
    for strata, message in (
        ([{"share": 0.5}, {"share": 0.6}], "the shares must sum to 1, got 1.1"),
        ([{"n": 3}, {"share": 0.5}], "must all give n, or all give share"),
        ([{"n": 3}, {"n": 4}], "must sum to n=10, got 7"),
        ([{"share": 0.0}, {"share": 1.0}], r"plan.strata\[0\].share must be above 0"),
        ([{"sexes": "F"}], r"plan.strata\[0\]: there is no setting 'sexes'"),
        ([{"facts": "a"}], r"plan.strata\[0\].facts must be a list of codes"),
        ([{"phenotype": "b"}], r"plan.strata\[0\].phenotype must be a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            Plan.of({}, strata, num_twins=10)


def test_a_plan_is_met_by_every_twin(short_model: TimelineModel) -> None:
    law = short_model.spec.profile
    plan = Plan.of({}, [{"sex": "F", "share": 0.5}, {"sex": "M", "without": [DEATH], "share": 0.5}])
    people = draw_people(short_model, 0, TILE, seed=3, plan=plan)
    sexes = [law.sexes[one.sex] for one in people.attributes]
    assert sexes.count("GENDER//F") == sexes.count("GENDER//M") == TILE // 2
    assert all(target.is_met(one) for target, one in zip(people.targets, people.attributes, strict=True))
    assert not any(
        one.facts[law.facts.index(DEATH)]
        for one, sex in zip(people.attributes, sexes, strict=True)
        if sex == "GENDER//M"
    )


def test_z_comes_from_the_prior_and_of_the_phenotype_that_is_asked_for(short_model: TimelineModel) -> None:
    normal = draw_people(short_model, 0, 1, seed=3)
    assert np.array_equal(normal.latent, draw_people(short_model, 0, 1, seed=3, prior=NormalPrior(4)).latent)
    means = np.array([[-9.0, 0, 0, 0], [9.0, 0, 0, 0]])
    prior = MixturePrior(np.array([0.5, 0.5]), means, np.stack([np.eye(4)] * 2))
    plan = Plan.of({}, [{"phenotype": 0}, {"phenotype": 1}])
    people = draw_people(short_model, 0, 1, seed=3, plan=plan, prior=prior)
    assert (np.sign(people.latent[:, 0]) == np.where(plan.of_twins(TILE) == 0, -1, 1)).all()
    for wanted, law, message in (
        (Plan.of({"phenotype": 1}), None, "plan.phenotype: component must be null"),
        (Plan.of({"phenotype": 2}), prior, "plan.phenotype: component must be 0 to 1"),
        (Plan(), NormalPrior(3), "the prior is one of 3 numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            draw_people(short_model, 0, 1, seed=3, plan=wanted, prior=law)


def test_a_record_is_a_valid_event_table(model: TimelineModel, twins: list[Timeline]) -> None:
    events = []
    for timeline in twins:
        events += timeline_to_events(timeline, model.spec, twin_subject_id("run", 3, timeline.index))
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


def test_reports_name_their_own_studies(tmp_path: Path) -> None:
    """In one step the second report refers to the second study, whichever is said first; else to the latest before."""
    events = []
    for subject in range(1, 4):
        events.append(Event(subject, None, "GENDER//F", resource="Patient"))
        study = Event(subject, None, "DCM//CR", event_id=f"s{subject}", resource="ImagingStudy")
        report = Event(subject, None, "LOINC//18748-4", event_id=f"r{subject}", resource="DiagnosticReport")
        events += [study, report, report.child("imagingStudy", text_value=study.event_id)]
    spec, _ = fit(tmp_path, sort_events(events_to_table(events)))
    place = {token.code: index for index, token in enumerate(spec.vocabulary.tokens)}
    report, study = place["LOINC//18748-4"], place["DCM//CR"]
    attributes = Attributes(0, float("nan"), 0, 100)
    said = [(0, report), (0, report), (0, study), (0, study), (1, report), (2, study), (2, report)]
    times = [STATIC if step == 0 else 10 * step for step, _ in said]
    steps, tokens = zip(*said, strict=True)
    timeline = Timeline(0, attributes, np.zeros(1, np.float32), list(tokens), times, list(steps), [np.nan] * len(said))
    written = timeline_to_events(timeline, spec, 5)
    studies = [event.event_id for event in written if event.code == "DCM//CR"]
    named = [event.text_value for event in written if event.code == "FHIR//DiagnosticReport.imagingStudy"]
    assert named == [studies[0], studies[1], studies[1], studies[2]]


def test_rows_and_events_say_the_same(model: TimelineModel, twins: list[Timeline]) -> None:
    rows = RecordWriter(model.spec).rows(twins[0], 7)
    events = timeline_to_events(twins[0], model.spec, 7)
    assert [Event(*row) for row in rows] == events
    assert rows_to_table(rows).equals(events_to_table(events))
    assert rows_to_table([]).equals(events_to_table([]))


def test_values_bear_unit_precision_and_interpretation_of_the_source(
    model: TimelineModel, twins: list[Timeline]
) -> None:
    spec = model.spec
    events = [e for t in twins for e in timeline_to_events(t, spec, t.index)]
    known = {
        t.code: (t, scale) for t, scale in zip(spec.vocabulary.tokens, spec.scales, strict=True) if t.unit and scale
    }
    measured = [e for e in events if e.code in known and e.parent_id is None and e.numeric_value is not None]
    assert len({e.code for e in measured}) > 3
    for event in measured:
        token, scale = known[event.code]
        assert event.unit == token.unit
        assert round(event.numeric_value, scale.decimals) == pytest.approx(event.numeric_value, rel=1e-6)
    flags = {e.parent_id: e.code[-1] for e in events if e.code.startswith("FHIR//Observation.interpretation")}
    high = {e.parent_id: e.numeric_value for e in events if e.code == "FHIR//Observation.referenceRange.high"}
    judged = [e for e in measured if e.event_id in flags and e.event_id in high]
    assert len(judged) > 10
    assert all((flags[e.event_id] == "H") == (e.numeric_value > high[e.event_id]) for e in judged)


def test_the_ids_of_two_runs_never_meet() -> None:
    assert twin_subject_id("a", 0, 1) != twin_subject_id("b", 0, 1)
    assert twin_subject_id("a", 0, 1) == twin_subject_id("a", 0, 1) > 0


def test_a_latent_depends_on_the_record_up_to_its_moment_alone(model: TimelineModel, twins: list[Timeline]) -> None:
    longest = max(twins, key=lambda t: sum(step > 0 for step in t.steps))
    events = timeline_to_events(longest, model.spec, 7)
    dated = sorted(e.time for e in events if e.time is not None and e.code != BIRTH)
    moment = dated[len(dated) // 2]
    table = sort_events(events_to_table(events))
    cut = sort_events(events_to_table([e for e in events if e.time is None or e.time <= moment]))
    minute = int(np.datetime64(moment, "m").astype(np.int64))
    whole, early = (latents_at(model.net, model.spec, t, {7: [minute]})[7][0] for t in (table, cut))
    assert whole is not None
    before_everything, never = latents_at(model.net, model.spec, table, {7: [-(10**9)], 8: [None]}).values()
    assert before_everything == [None]
    assert never == [None]
    named = {e.code for e in events} & set(model.spec.profile.facts)
    if named <= {e.code for e in events if e.time is None or e.time <= moment}:  # else the whole record says more
        assert np.allclose(whole, early, atol=1e-5)


def test_generation_draws_nothing_from_global_generators(short_model: TimelineModel) -> None:
    state = torch.random.get_rng_state()
    drawn(short_model, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
