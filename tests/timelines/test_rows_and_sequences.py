from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from medtwin.core.errors import DatasetError
from medtwin.core.events import Event, events_to_table, sort_events
from medtwin.timelines.batches import collate, group_by_length
from medtwin.timelines.rows import read_rows, row_tokens
from medtwin.timelines.sequences import BOS, EVENT, STEP, Sequences
from medtwin.timelines.spec import SpecSettings, TimelineSpec, fit_spec
from medtwin.timelines.vocabulary import Token, Vocabulary
from tests.timelines.conftest import SETTINGS, one_patient

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


def test_a_sequence_reads_as_bos_history_step_events() -> None:
    spec, sequences = fit_spec(lambda: [three()], SETTINGS)
    stop = sequences.offsets[1]
    assert sequences.kind[:stop].tolist() == [BOS, EVENT, STEP, EVENT, STEP, EVENT, EVENT, EVENT, EVENT]
    codes = [spec.vocabulary.tokens[i].code for i in sequences.token[:stop][sequences.kind[:stop] == EVENT]]
    assert codes == [
        "SNOMED//44054006",
        "SNOMED//185349003",
        "LOINC//4548-4",
        "LOINC//85354-9",
        "LOINC//8462-4",
        "LOINC//8480-6",
    ]
    assert (np.diff(sequences.minute[:stop]) >= 0).all()
    assert sequences.open_minutes[:stop].tolist() == [0, 0, 0, 50, 45, 45, 45, 45, 45]
    assert sequences.age_start_years[0] == pytest.approx(60.34, abs=0.01)


def test_memory_holds_what_was_measured_before() -> None:
    visits = [
        event
        for n, a1c in enumerate((6.0, 7.0, 9.0))
        for event in one_patient(1, START + timedelta(days=100 * n), a1c)
        if event.code == "LOINC//4548-4"
    ]
    rows = [replace(event, event_id=f"v{n}", encounter_id=None) for n, event in enumerate(visits)]
    _, sequences = fit_spec(lambda: [table_of(rows)], replace(SETTINGS, min_subjects=1))
    events = sequences.kind == EVENT
    scaled = sequences.value[events]
    assert sequences.memory[events][:, 0].tolist() == [0.0, scaled[0], scaled[1]]
    assert sequences.memory[events][:, 1] == pytest.approx([0.0, scaled[0], scaled[:2].mean()])
    assert sequences.is_first[events].tolist() == [True, False, False]


def test_a_code_or_an_extreme_value_of_other_splits_leaves_no_trace(tmp_path: Path) -> None:
    train = three()
    spec, _ = fit_spec(lambda: [train], SETTINGS)
    patient = one_patient(9, START, 98.7)
    planted = [replace(e, code="SNOMED//PLANTED") if e.resource == "Condition" else e for e in patient]
    sequences = spec.sequences(table_of(planted))
    assert sequences is not None
    spec.save(tmp_path)
    saved = (tmp_path / "timelines.json").read_text()
    assert "PLANTED" not in saved
    assert "98.7" not in saved
    again, _ = fit_spec(lambda: [train, table_of(planted)], replace(SETTINGS, min_subjects=1))
    again.save(tmp_path)  # the control: in training it would be seen
    assert "PLANTED" in (tmp_path / "timelines.json").read_text()


def test_a_code_of_too_few_people_is_not_learned() -> None:
    rare = [replace(e, code="SNOMED//1") if e.resource == "Condition" else e for e in one_patient(4, START)]
    spec, _ = fit_spec(lambda: [table_of(one_patient(1, START), one_patient(2, START), rare)], SETTINGS)
    assert not any(token.code == "SNOMED//1" for token in spec.vocabulary.tokens)
    assert spec.unmodelled == 1


def test_long_records_are_cut_after_a_whole_step_and_say_so(hospital_table: pa.Table) -> None:
    short = SpecSettings(2, (), 4, 60)
    _, sequences = fit_spec(lambda: [hospital_table], short)
    assert sequences.lengths.max() <= 60
    assert sequences.is_cut.any()
    ends = sequences.kind[sequences.offsets[1:] - 1]
    assert (ends == EVENT).all()


def test_spec_and_sequences_come_back_from_disk(spec: TimelineSpec, sequences: Sequences, tmp_path: Path) -> None:
    spec.save(tmp_path)
    back = TimelineSpec.load(tmp_path)
    assert back.vocabulary == spec.vocabulary
    assert back.templates == spec.templates
    assert back.scales == spec.scales
    assert np.array_equal(back.attributes.donors, spec.attributes.donors, equal_nan=True)
    sequences.save(tmp_path / "s")
    assert np.array_equal(Sequences.load(tmp_path / "s").token, sequences.token)


def test_no_dated_event_is_an_error_with_a_reason() -> None:
    undated = events_to_table([Event(1, None, "GENDER//F", resource="Patient")])
    with pytest.raises(DatasetError, match="no training subject has a dated event"):
        fit_spec(lambda: [undated], SETTINGS)
    with pytest.raises(DatasetError, match=r"lower data\.min_subjects"):
        fit_spec(lambda: [three()], replace(SETTINGS, min_subjects=50))


def test_children_stand_right_after_their_event_in_the_vocabulary(spec: TimelineSpec) -> None:
    vocabulary = spec.vocabulary
    for index, token in enumerate(vocabulary.tokens):
        root = vocabulary.tokens[vocabulary.root_of[index]]
        assert root.code == (token.parent or token.code)
    assert (np.diff(vocabulary.root_of) >= 0).all()
    assert (np.diff(vocabulary.type_of) >= 0).all()


def test_a_rare_text_falls_back_to_the_plain_token() -> None:
    vocabulary = Vocabulary.of([Token("Observation", "A", "yes"), Token("Observation", "A")])
    assert vocabulary.find(Token("Observation", "A", "never seen")) == vocabulary.find(Token("Observation", "A"))
    assert vocabulary.find(Token("Observation", "B")) is None


def test_groups_hold_everybody_once_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(10, 400, 300)
    groups = group_by_length(lengths, 2048, seed=1)
    assert sorted(np.concatenate(groups).tolist()) == list(range(300))
    padded = sum(len(group) * lengths[group].max() for group in groups)
    assert all(len(group) * lengths[group].max() <= 2048 for group in groups)
    assert padded < 1.2 * lengths.sum()


def test_targets_stand_where_a_step_ends(spec: TimelineSpec, sequences: Sequences) -> None:
    batch = collate(sequences, [0, 1], spec.gaps)
    assert (batch["stop"] == 1).sum() == 2 - int(sequences.is_cut[:2].sum())
    first_steps = [int((batch["kind"][row] == STEP).nonzero()[0]) for row in (0, 1)]
    assert all(batch["stop"][row, column - 1] == -1 for row, column in enumerate(first_steps))
