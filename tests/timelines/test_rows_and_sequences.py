from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from medtwin.core.codes import DEATH
from medtwin.core.dataset import open_dataset
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.events import Event, events_to_table, sort_events
from medtwin.timelines.generation.generate import MaskedMass, TimelineModel, noise_keys
from medtwin.timelines.generation.masks import build_masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.sampler import Sampler
from medtwin.timelines.generation.tile import Tile
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.data import TimelineDataModule
from medtwin.timelines.reading.rows import read_rows, row_tokens
from medtwin.timelines.reading.sequences import SequenceFiles, Sequences
from medtwin.timelines.reading.spec import TimelineSpec
from medtwin.timelines.reading.vocabulary import Token, Vocabulary
from medtwin.timelines.steering.counterfactual import Change
from tests.timelines.conftest import SETTINGS, Fitted, fit, one_patient, small_net

START = datetime(2020, 5, 4, 9, 30)


def table_of(*patients: list[Event]) -> pa.Table:
    return sort_events(events_to_table([event for patient in patients for event in patient]))


def three() -> pa.Table:
    return table_of(*(one_patient(n, START + timedelta(days=n)) for n in (1, 2, 3)))


def test_rows_are_tokens_with_what_number_they_carry() -> None:
    shard = read_rows(three(), ["Encounter.class"])
    tokens, group = row_tokens(shard.rows)
    assert len(group) == 7 * 3
    assert set(tokens) == {
        Token("Condition", "SNOMED//44054006", number="ago"),
        Token("Encounter", "SNOMED//185349003", number="duration"),
        Token("Encounter", "FHIR//Encounter.class//ACTCODE//AMB", parent="SNOMED//185349003"),
        Token("Observation", "LOINC//85354-9"),
        Token("Observation", "LOINC//8480-6", unit="mm[Hg]", number="numeric", parent="LOINC//85354-9"),
        Token("Observation", "LOINC//8462-4", unit="mm[Hg]", number="numeric", parent="LOINC//85354-9"),
        Token("Observation", "LOINC//4548-4", unit="%", number="numeric"),
    }
    assert len(shard.children) == 3 * 3  # range low and high, interpretation


def test_history_is_a_static_fact_that_says_how_long_ago() -> None:
    rows = read_rows(three(), []).rows
    old = rows[rows["number"] == "ago"]
    assert old["is_static"].all()
    first = (START + timedelta(days=1) - datetime(2010, 3, 1)) // timedelta(minutes=1)
    assert old["value"].tolist() == [first, first + 1440, first + 2880]


def columns(sequences: Sequences) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(sequences, name)) for name in Sequences.__dataclass_fields__}


def assert_same(one: Sequences, other: Sequences) -> None:
    for name, column in columns(one).items():
        assert np.array_equal(column, columns(other)[name], equal_nan=column.dtype.kind == "f"), name
        assert column.dtype == columns(other)[name].dtype, name


def test_a_sequence_reads_as_static_facts_then_steps(tmp_path: Path) -> None:
    spec, sequences = fit(tmp_path, three())
    one = sequences.take(np.array([0]))
    codes = [spec.vocabulary.tokens[token].code for token in one.token]
    steps = [codes[first:last] for first, last in zip(one.event_offsets, one.event_offsets[1:], strict=False)]
    assert steps == [
        ["SNOMED//44054006"],
        ["SNOMED//185349003"],
        ["LOINC//4548-4", "LOINC//85354-9", "LOINC//8462-4", "LOINC//8480-6"],
    ]
    first = int((START + timedelta(days=1) - datetime(1970, 1, 1)) / timedelta(minutes=1))
    assert one.minute.tolist() == [first, first, first + 5]
    assert one.open_minutes.tolist() == [0, 50, 45]
    assert one.start_minute.tolist() == [first]
    assert one.age_start_years[0] == pytest.approx(60.34, abs=0.01)
    assert sequences.num_steps.tolist() == [3] * 3
    assert sequences.num_events.tolist() == [6] * 3
    assert sequences.lengths.tolist() == [9] * 3


def test_whoever_has_no_static_fact_begins_with_an_empty_step(short: Sequences) -> None:
    sizes = np.diff(short.event_offsets)[short.step_offsets[:-1]]
    assert sizes[0] == 0
    assert (sizes[1:] > 0).all()
    later = np.delete(np.diff(short.event_offsets), short.step_offsets[:-1])
    assert (later > 0).all()


def test_steps_stand_in_the_order_of_time_and_events_in_that_of_the_vocabulary(
    short: Sequences, short_model: TimelineModel
) -> None:
    root = short_model.spec.vocabulary.root_of
    assert (np.diff(short.minute)[np.diff(short.subject_of_step()) == 0] >= 0).all()
    step = short.step_of_event()
    within = np.diff(step) == 0
    assert (np.diff(root[short.token])[within] >= 0).all()


def test_the_window_of_who_dies_ends_at_death_and_no_other_ends_before_the_last_step(
    short: Sequences, short_model: TimelineModel
) -> None:
    death = short_model.spec.vocabulary.where([DEATH])
    fact = short_model.spec.profile.facts.index(DEATH)
    last = short.minute[short.step_offsets[1:] - 1] - short.start_minute
    dies = np.isin(short.token[short.event_offsets[short.step_offsets[1:]] - 1], death)
    assert dies.sum() == 20
    assert short.facts[:, fact].astype(bool).tolist() == dies.tolist()
    assert (short.window_minutes[dies] == last[dies]).all()
    assert (short.window_minutes >= last).all()
    assert (short.window_minutes[~dies] > last[~dies]).mean() > 0.5


def test_facts_are_those_of_the_whole_record_though_it_was_cut(tmp_path: Path, short_table: pa.Table) -> None:
    whole = fit(tmp_path / "whole", short_table)[1]
    spec, cut = fit(tmp_path / "cut", short_table, settings=replace(SETTINGS, max_positions=9))
    assert cut.is_cut.sum() > 30
    assert cut.lengths.max() <= 9
    assert np.array_equal(cut.facts, whole.facts)
    last = cut.minute[cut.step_offsets[1:] - 1] - cut.start_minute
    assert (cut.window_minutes[cut.is_cut] == last[cut.is_cut]).all()
    assert (cut.num_steps >= 2).all()  # nobody is left without a dated step
    # What only the cut ends say is not taken for a root.
    place = spec.profile.facts.index(DEATH)
    assert not spec.profile.is_static[place]


def test_a_first_step_longer_than_the_context_is_kept_up_to_it(tmp_path: Path) -> None:
    _, sequences = fit(tmp_path, three(), settings=replace(SETTINGS, max_positions=4))
    assert sequences.is_cut.all()
    assert sequences.lengths.max() <= 4
    assert (sequences.num_events >= 1).all()


def test_static_facts_are_roots_and_a_history_of_illness_is_none(short_model: TimelineModel) -> None:
    law = short_model.spec.profile
    roots = {code for code, is_static in zip(law.facts, law.is_static, strict=True) if is_static}
    assert roots == {"RACE//0", "RACE//1", "RACE//2"}
    assert set(law.facts) - roots == {DEATH, "SNOMED//44054006", "SNOMED//59621000"}


def test_taking_subjects_copies_all_of_them_in_order(short: Sequences) -> None:
    rows = np.array([6, 0, 6, 3])
    some = short.take(rows)
    assert_same(some, Sequences.join([short.take(np.array([row])) for row in rows]))
    assert some.subject_id.tolist() == short.subject_id[rows].tolist()
    assert some.num_events.tolist() == short.num_events[rows].tolist()
    assert_same(short.take(np.arange(len(short))), short)


def test_until_keeps_the_first_steps_and_says_so(short: Sequences) -> None:
    rows = short.take(np.array([2, 6]))
    part = rows.until(np.array([2, int(rows.num_steps[1])]))
    assert part.num_steps.tolist() == [2, rows.num_steps[1]]
    assert part.is_cut.tolist() == [True, False]
    assert_same(part.take(np.array([1])), rows.take(np.array([1])))
    first = rows.event_offsets[2]
    assert part.token[:first].tolist() == rows.token[:first].tolist()
    assert part.window_minutes.tolist() == rows.window_minutes.tolist()


def test_files_of_many_parts_are_the_parts_joined(short: Sequences, tmp_path: Path) -> None:
    parts = [short.take(part) for part in np.array_split(np.arange(len(short)), 7)]
    files = SequenceFiles(tmp_path)
    for part in parts:
        files.add(part)
    files.close()
    back = Sequences.load(tmp_path)
    assert_same(back, Sequences.join(parts))
    assert_same(back, short)
    assert isinstance(back.token, np.memmap)
    assert not back.token.flags.writeable
    other = SequenceFiles(tmp_path / "other")
    other.add(short)
    with pytest.raises(ValueError, match="facts must have the form of the parts before"):
        other.add(replace(short, facts=short.facts[:, :1]))


def test_many_shards_are_learned_as_one(short_table: pa.Table, short_fitted: Fitted, tmp_path: Path) -> None:
    shards = [
        short_table.filter(
            pc.and_(pc.greater(short_table["subject_id"], low), pc.less_equal(short_table["subject_id"], high))
        )
        for low, high in ((0, 7), (7, 8), (8, 45), (45, 60))
    ]
    spec, sequences = fit(tmp_path / "seq", *shards, settings=replace(SETTINGS, max_positions=45))
    assert_same(sequences, short_fitted[1])
    spec.save(tmp_path)
    short_fitted[0].save(tmp_path / "seq")
    assert (tmp_path / "timelines.json").read_text() == (tmp_path / "seq" / "timelines.json").read_text()


def test_memory_holds_what_was_measured_before(tmp_path: Path) -> None:
    visits = [
        event
        for n, a1c in enumerate((6.0, 7.0, 9.0))
        for event in one_patient(1, START + timedelta(days=100 * n), a1c)
        if event.code == "LOINC//4548-4"
    ]
    rows = [replace(event, event_id=f"v{n}", encounter_id=None) for n, event in enumerate(visits)]
    _, sequences = fit(tmp_path, table_of(rows), settings=replace(SETTINGS, min_subjects=1))
    scaled = sequences.value.tolist()
    assert sequences.memory[:, 0].tolist() == [0.0, *scaled[:2]]
    assert sequences.memory[:, 1].tolist() == pytest.approx([0.0, scaled[0], sum(scaled[:2]) / 2])
    assert sequences.memory[:, 2].tolist() == pytest.approx(np.log1p([0, 1, 2]).tolist())
    assert sequences.is_first.tolist() == [True, False, False]


def test_a_code_or_an_extreme_value_of_other_splits_leaves_no_trace(tmp_path: Path) -> None:
    train = three()
    spec = fit(tmp_path / "s", train)[0]
    patient = one_patient(9, START, 98.7)
    planted = [replace(e, code="SNOMED//PLANTED") if e.resource == "Condition" else e for e in patient]
    assert spec.sequences(table_of(planted)) is not None
    spec.save(tmp_path)
    saved = (tmp_path / "timelines.json").read_text()
    assert "PLANTED" not in saved
    assert "98.7" not in saved
    again = fit(tmp_path / "t", train, table_of(planted), settings=replace(SETTINGS, min_subjects=1))[0]
    again.save(tmp_path)  # the control: in training it would be seen
    assert "PLANTED" in (tmp_path / "timelines.json").read_text()


def test_a_code_of_too_few_people_is_not_learned(tmp_path: Path) -> None:
    rare = [replace(e, code="SNOMED//1") if e.resource == "Condition" else e for e in one_patient(4, START)]
    spec = fit(tmp_path, table_of(one_patient(1, START), one_patient(2, START), rare))[0]
    assert not any(token.code == "SNOMED//1" for token in spec.vocabulary.tokens)
    assert spec.unmodelled == 1


def test_long_records_are_cut_after_a_whole_step(short_table: pa.Table, short: Sequences, tmp_path: Path) -> None:
    brief = fit(tmp_path, short_table, settings=replace(SETTINGS, max_positions=20))[1]
    assert 5 < brief.is_cut.sum() < len(brief)
    for row in np.flatnonzero(brief.is_cut):
        one, whole = (part.take(np.array([row])) for part in (brief, short))
        num = int(one.num_steps[0])
        assert one.token.tolist() == whole.until(np.array([num])).token.tolist()
        assert one.lengths[0] <= 20
        longer = whole.until(np.array([num + 1]))
        assert longer.lengths[0] > 20


def test_the_spec_comes_back_from_disk(spec: TimelineSpec, tmp_path: Path) -> None:
    spec.save(tmp_path)
    back = TimelineSpec.load(tmp_path)
    for name in ("vocabulary", "templates", "scales", "heaps", "gaps", "settings", "unmodelled", "identities"):
        assert getattr(back, name) == getattr(spec, name), name
    arrays = ("sex_counts", "sex_totals", "age_range", "changes", "youngest_onset", "static_counts", "told_again")
    for name in (*arrays, "most_said", "fact_counts", "fact_totals", "levels", "fact_of"):
        one, other = (np.asarray(getattr(each, name)) for each in (back, spec))
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), name
    assert (back.profile.sexes, back.profile.facts) == (spec.profile.sexes, spec.profile.facts)
    old = (tmp_path / "timelines.json").read_text().replace('"version": 7', '"version": 6')
    (tmp_path / "timelines.json").write_text(old)
    with pytest.raises(DatasetError, match="another version of medtwin: train again"):
        TimelineSpec.load(tmp_path)


def test_the_spec_knows_the_youngest_age_at_which_a_history_began(tmp_path: Path) -> None:
    spec, sequences = fit(tmp_path, three())
    index = [token.number for token in spec.vocabulary.tokens].index("ago")
    ages = sequences.age_start_years - (START + timedelta(days=1) - datetime(2010, 3, 1)).days / 365.25
    assert spec.youngest_onset[index] == pytest.approx(float(ages.min()), abs=0.02)
    assert np.isnan(np.delete(spec.youngest_onset, index)).all()


def test_the_spec_counts_what_is_told_again(tmp_path: Path) -> None:
    """By hand: steps before (the one that first says it included) and after, and how many of each say it."""
    spec, sequences = fit(tmp_path, three())
    wanted = np.zeros((len(spec.vocabulary), 2, 2), dtype=int)
    for subject in range(len(sequences)):
        one = sequences.take(np.array([subject]))
        steps = [set(one.token[a:b].tolist()) for a, b in zip(one.event_offsets, one.event_offsets[1:], strict=False)]
        for token in range(len(spec.vocabulary)):
            had = False
            for said in steps:
                wanted[token, int(had)] += (1, int(token in said))
                had |= token in said
    assert wanted[:, 1, 1].sum() + wanted[:, 0, 1].sum() > 0
    assert spec.told_again.tolist() == wanted.tolist()


def test_no_event_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no training subject has an event"):
        fit(tmp_path, events_to_table([Event(1, None, "GENDER//F", resource="Patient")]))
    with pytest.raises(DatasetError, match=r"lower data\.min_subjects"):
        fit(tmp_path, three(), settings=replace(SETTINGS, min_subjects=50))


def studies(num: int) -> list[Event]:
    """Radiographs with findings and no dates, as collections of images have them: one or two of each person."""
    events = []
    for subject in range(1, num + 1):
        events.append(Event(subject, None, ("GENDER//F", "GENDER//M")[subject % 2], resource="Patient"))
        for number in range(1 + subject % 2):
            events.append(Event(subject, None, "DCM//CR", event_id=f"{subject}.{number}", resource="ImagingStudy"))
    return events


def test_records_without_any_date_are_their_static_facts(tmp_path: Path) -> None:
    table = sort_events(events_to_table(studies(40)))
    spec, sequences = fit(tmp_path, table)
    assert not spec.has_times
    assert len(sequences) == 40
    assert set(sequences.num_steps.tolist()) == {1}
    assert set(zip(sequences.num_events.tolist(), sequences.sex.tolist(), strict=True)) == {(1, 1), (2, 2)}
    assert not sequences.start_minute.any()
    assert not sequences.window_minutes.any()
    spec.save(tmp_path)
    again = TimelineSpec.load(tmp_path).sequences(table)
    assert again is not None
    assert again.num_events.tolist() == sequences.num_events.tolist()
    net = small_net(spec)
    batch = collate(sequences.take(np.arange(40)), spec.gaps)
    assert (batch["stop"] == -1).all()  # nothing is decided: no record goes on
    attributes = spec.profile.draw(np.random.default_rng(0).random((20, spec.profile.num_uniforms)))
    model = TimelineModel(net, spec, build_masks(spec, {}))
    tile = Tile(attributes, np.zeros((20, net.latent_dim), np.float32), Noise(noise_keys(0, range(20))), 20)
    with torch.inference_mode():
        drawn = Sampler(model, tile, MaskedMass()).run()
    assert set(drawn.step.tolist()) == {0}
    assert len(set(drawn.row.tolist())) > 2
    assert not drawn.is_cut.any()
    for wanted, older_by, setting in (({"age": 50}, 0.0, "set.age"), ({}, 5.0, "add.age")):
        with pytest.raises(ConfigError, match=f"{setting}: no record that the model learned from says a birth date"):
            Change.of(spec.profile, wanted, older_by)


def test_among_dated_records_those_without_a_date_are_left_out(tmp_path: Path) -> None:
    """The control: where others have times, a person without any is no timeline."""
    spec, sequences = fit(tmp_path, sort_events(pa.concat_tables([three(), events_to_table(studies(50)[-9:])])))
    assert spec.has_times
    assert len(sequences) == 3


def test_children_stand_right_after_their_event_in_the_vocabulary(spec: TimelineSpec) -> None:
    vocabulary = spec.vocabulary
    for index, token in enumerate(vocabulary.tokens):
        root = vocabulary.tokens[vocabulary.root_of[index]]
        assert root.code == (token.parent or token.code)
    assert (np.diff(vocabulary.root_of) >= 0).all()
    assert (np.diff(vocabulary.type_of) >= 0).all()
    assert vocabulary.types[-1] == "Death"


def test_a_rare_text_falls_back_to_the_plain_token() -> None:
    vocabulary = Vocabulary.of([Token("Observation", "A", "yes"), Token("Observation", "A")])
    assert vocabulary.find(Token("Observation", "A", "never seen")) == vocabulary.find(Token("Observation", "A"))
    assert vocabulary.find(Token("Observation", "B")) is None


def test_the_data_module_keeps_sequences_on_disk_and_reads_them_again(short_table: pa.Table, tmp_path: Path) -> None:
    for split, low, high in (("train", 0, 50), ("tuning", 50, 60)):
        ids = short_table["subject_id"]
        path = tmp_path / "meds" / "data" / split / "0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(short_table.filter(pc.and_(pc.greater(ids, low), pc.less_equal(ids, high))), path)
    made = []
    for _ in range(2):
        data = TimelineDataModule(tokens_per_group=200, max_positions=30)
        data.attach(open_dataset(tmp_path / "meds"), seed=0, cache=tmp_path / "cache")
        made.append([batch["decision_target"].tolist() for groups in data.train_dataloader() for batch in groups])
        assert isinstance(data.train.sequences.value, np.memmap)
        assert len(data.train.sequences) == 50
        assert sum(len(groups[0]["sex"]) for groups in data.val_dataloader()) == 10
        assert data.sizes["net"]["sizes"]["num_codes"] == len(data.spec.vocabulary)
    assert made[0] == made[1]
    (tmp_path / "cache" / "done").unlink()  # a run that was killed while it read begins anew
    data.attach(open_dataset(tmp_path / "meds"), seed=0, cache=tmp_path / "cache")
    assert len(data.train.sequences) == 50
    with pytest.raises(ValueError, match="tokens_per_group must be 1 or more"):
        TimelineDataModule(tokens_per_group=0)
