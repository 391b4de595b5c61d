from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table, sort_events, validate_events
from medtwin.pipelines.runs import load_run
from medtwin.timelines.baselines import BaselineModule, CountedLaw, Marginals, Markov, SummaryGan, SummaryMixture
from medtwin.timelines.baselines.chain import Chain
from medtwin.timelines.baselines.decisions import said
from medtwin.timelines.baselines.knots import Knots
from medtwin.timelines.baselines.summary import _SummarySource
from medtwin.timelines.baselines.tables import Tables
from medtwin.timelines.generation.generate import People, Timeline, draw_people
from medtwin.timelines.generation.masks import build_masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.records import timeline_to_events
from medtwin.timelines.generation.source import TimelineSource
from medtwin.timelines.generation.tile import MaskedMass
from medtwin.timelines.priors import FitGan, FitMixture
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import SpecSettings, TimelineSpec
from tests.e2e.conftest import command, environment
from tests.timelines.conftest import FEMALE_ONLY, SETTINGS, Fitted, fit

START = datetime(2020, 1, 1)
STAY_A, STAY_B = 0.8, 0.6  # of the two codes of the toy: how often the same comes again
LAWS: dict[str, Callable[[dict[str, int]], CountedLaw]] = {
    "markov": Markov,
    "marginals": Marginals,
    "summary_gmm": lambda sizes: SummaryMixture(sizes, FitMixture(num_components=1), num_factors=4),
    "summary_gan": lambda sizes: SummaryGan(sizes, FitGan(width=8, num_steps=10, check_every=5), num_factors=4),
}


def counted(name: str, spec: TimelineSpec, sequences: Sequences) -> CountedLaw:
    law = LAWS[name]({"num_codes": len(spec.vocabulary)})
    law.count(sequences, spec, seed=0)
    return law


def drawn(source: TimelineSource, people: People, num: int, mass: MaskedMass | None = None) -> list[Timeline]:
    return source.timelines(replace(people, num_needed=num), Noise(people.keys), mass or MaskedMass())


def same(one: Timeline, other: Timeline) -> bool:
    return (
        one.tokens == other.tokens
        and one.minutes == other.minutes
        and np.array_equal(one.values, other.values, equal_nan=True)
    )


@pytest.fixture(scope="module")
def fitted(hospital_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Records that are long enough to have the deaths in them."""
    return fit(tmp_path_factory.mktemp("whole"), hospital_table, settings=replace(SETTINGS, max_positions=1500))


@pytest.fixture(scope="module")
def spec(fitted: Fitted) -> TimelineSpec:
    return fitted[0]


@pytest.fixture(scope="module")
def sequences(fitted: Fitted) -> Sequences:
    return fitted[1]


@pytest.fixture(scope="module")
def sources(spec: TimelineSpec, sequences: Sequences) -> dict[str, TimelineSource]:
    masks = build_masks(spec, {"F": [FEMALE_ONLY]})
    return {name: counted(name, spec, sequences).source(spec, masks) for name in LAWS}


@pytest.fixture(scope="module")
def people(sources: dict[str, TimelineSource]) -> People:
    return draw_people(sources["markov"], 0, 30, seed=3)


def toy_subject(subject: int, rng: np.random.Generator) -> list[Event]:
    """Thirty hours of one code an hour, A or B by a chain; A has a number that stays near the last one."""
    code, number, events = "A", 0.0, [Event(subject, datetime(1960, 1, 1), BIRTH, time_precision="day")]
    for hour in range(30):
        number = 0.9 * number + np.sqrt(1 - 0.9**2) * rng.standard_normal() if hour else rng.standard_normal()
        value = round(50 + 10 * number, 1) if code == "A" else None
        events.append(Event(subject, START + timedelta(days=subject % 50, hours=hour), code, numeric_value=value))
        stay = STAY_A if code == "A" else STAY_B
        code = code if rng.random() < stay else "AB".replace(code, "")
    return events


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    rng = np.random.default_rng(1)
    events = [event for subject in range(1, 151) for event in toy_subject(subject, rng)]
    settings = SpecSettings(min_subjects=2, details=(), num_conditions=0, facts=(DEATH,), max_positions=200)
    return fit(tmp_path_factory.mktemp("toy"), sort_events(events_to_table(events)), settings=settings)


def transitions(timelines: list[Timeline], spec: TimelineSpec) -> NDArray[np.float64]:
    """(2, 2) how often A and B were followed by A and B."""
    counts, is_b = np.zeros((2, 2)), np.array([token.code == "B" for token in spec.vocabulary.tokens])
    for timeline in timelines:
        codes = is_b[timeline.tokens].astype(int)
        np.add.at(counts, (codes[:-1], codes[1:]), 1)
    return counts


def test_what_followed_what_is_counted(tmp_path: Path) -> None:
    """Of [] [A] [A B] and [] [B]: states are static 0, first 1, within a step 2 + token, at a new one 4 + token."""
    hours = [(1, 0, "A"), (1, 1, "A"), (1, 1, "B"), (2, 0, "B")]
    table = events_to_table([Event(subject, START + timedelta(hours=hour), code) for subject, hour, code in hours])
    settings = SpecSettings(min_subjects=1, details=(), num_conditions=0, facts=(), max_positions=50)
    spec, sequences = fit(tmp_path, sort_events(table), settings=settings)
    assert [token.code for token in spec.vocabulary.tokens] == ["A", "B"]
    a, b, end = 0, 1, 2
    state, target = said(sequences, 2)
    first = [(0, end), (1, a), (2 + a, end), (4 + a, a), (2 + a, b), (2 + b, end)]
    assert list(zip(state.tolist(), target.tolist(), strict=True)) == [*first, (0, end), (1, b), (2 + b, end)]
    law = Markov({"num_codes": 2})
    law.count(sequences, spec, seed=0)
    chain = Chain(law.chain, spec)
    # Within a step A was followed by the end and by B, one each. Their types are A and B, so that the backoff of the
    # type is the same two smoothed by the frequencies (2 A, 2 B, 5 ends, and a third of each) / 10.
    backoff = (np.array([0, 1, 1]) + 2 * (np.array([2, 2, 5]) + 1 / 3) / 10) / 4
    assert chain.following(np.array([2 + a]))[0] == pytest.approx((np.array([0, 1, 1]) + 2 * backoff) / 4)
    assert chain.following(np.arange(6)).sum(axis=1) == pytest.approx(np.ones(6))


def test_no_quantile_is_the_value_of_few() -> None:
    """Ten people with a value each, and one with a hundred large ones that a knot of theirs alone would betray."""
    value = np.concatenate([np.arange(10.0), np.linspace(100, 200, 100)])
    subject = np.concatenate([np.arange(10), np.full(100, 10)])
    knots = Knots.of(value, np.zeros(110, int), subject, 2)
    assert knots.has.tolist() == [True, False]
    assert knots.values.tolist() == [pytest.approx(value.mean())]
    spread = Knots.of(np.arange(100.0), np.zeros(100, int), np.arange(100), 1)
    assert spread.values.tolist() == [2 + 5 * i for i in range(20)]
    assert spread.score(np.zeros(2, int), spread.value(np.zeros(2, int), np.array([0.5, 0.9]))).tolist() == [
        pytest.approx(0.0, abs=0.01),
        pytest.approx(1.2816, abs=0.05),
    ]


def test_the_chain_finds_the_chain_that_made_the_records(toy: Fitted) -> None:
    spec, sequences = toy
    source = counted("markov", spec, sequences).source(spec, build_masks(spec, {}))
    timelines = drawn(source, draw_people(source, 0, 150, seed=0), 150)
    shares = transitions(timelines, spec)
    shares /= shares.sum(axis=1, keepdims=True)
    assert shares[0, 0] == pytest.approx(STAY_A, abs=0.03)
    assert shares[1, 1] == pytest.approx(STAY_B, abs=0.03)
    pairs = [
        (one, next_one)
        for timeline in timelines
        for one, next_one in zip(timeline.values[:-1], timeline.values[1:], strict=True)
        if one == one and next_one == next_one
    ]
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.8
    lengths = [len(timeline.tokens) for timeline in timelines]
    assert np.mean(lengths) == pytest.approx(30, abs=4)


def test_marginals_know_of_nothing_before(toy: Fitted) -> None:
    """The control of the test before: the same frequencies, and no transitions."""
    spec, sequences = toy
    source = counted("marginals", spec, sequences).source(spec, build_masks(spec, {}))
    timelines = drawn(source, draw_people(source, 0, 256, seed=0), 256)
    counts = transitions(timelines, spec)
    shares = counts / counts.sum(axis=1, keepdims=True)
    real = np.mean([spec.vocabulary.tokens[token].code == "A" for token in sequences.token])
    assert shares[0, 0] == pytest.approx(real, abs=0.03)
    assert shares[1, 0] == pytest.approx(real, abs=0.03)
    values = [(one, other) for t in timelines for one, other in zip(t.values[:-1], t.values[1:], strict=True)]
    known = np.array([pair for pair in values if np.isfinite(pair).all()])
    assert abs(np.corrcoef(known.T)[0, 1]) < 0.05
    assert np.mean([len(timeline.tokens) for timeline in timelines]) == pytest.approx(30, abs=1)


def test_a_summary_is_found_again_in_its_record(
    sources: dict[str, TimelineSource], people: People, spec: TimelineSpec
) -> None:
    source = sources["summary_gmm"]
    assert isinstance(source, _SummarySource)
    target = source._targets(people)
    wanted = target._left.copy()
    said_of = np.zeros((30, len(spec.vocabulary)))
    for row, timeline in enumerate(drawn(source, people, 30)):
        np.add.at(said_of[row], timeline.tokens, 1)
    found = said_of[:, target._counted]
    assert (found <= wanted + 1e-9).mean() > 0.999
    assert found.sum() > 0.6 * wanted.sum()
    frequent = wanted.mean(axis=0) > 1
    assert np.corrcoef(found[:, frequent].ravel(), wanted[:, frequent].ravel())[0, 1] > 0.8


@pytest.mark.parametrize("name", LAWS)
def test_a_record_depends_on_seed_and_number_only_and_outlives_the_checkpoint(
    name: str, spec: TimelineSpec, sources: dict[str, TimelineSource], people: People
) -> None:
    many = drawn(sources[name], people, 30)
    again = LAWS[name]({"num_codes": len(spec.vocabulary)})
    again.load_state_dict(sources[name].net.state_dict())  # type: ignore[attr-defined]
    restored = again.source(spec, build_masks(spec, {"F": [FEMALE_ONLY]}))
    few = drawn(restored, people, 7)
    assert len(few) == 7
    assert all(same(one, other) for one, other in zip(few, many, strict=False))
    assert len({tuple(timeline.tokens) for timeline in many}) > 20


@pytest.mark.parametrize("name", LAWS)
def test_records_are_valid_and_obey_the_hard_facts(
    name: str, spec: TimelineSpec, sources: dict[str, TimelineSource], people: People
) -> None:
    mass = MaskedMass()
    timelines = drawn(sources[name], people, 30, mass)
    assert 0 < mass.share < 0.2
    events = [event for timeline in timelines for event in timeline_to_events(timeline, spec, timeline.index + 1)]
    assert validate_events(sort_events(events_to_table(events))) == []
    female, death = (set(spec.vocabulary.where([code]).tolist()) for code in (FEMALE_ONLY, DEATH))
    men = [t for t in timelines if spec.profile.sexes[t.attributes.sex] == "GENDER//M"]
    assert men
    assert not any(female & set(t.tokens) for t in men)
    assert any(female & set(t.tokens) for t in timelines)  # else the mask would be trivial
    index = spec.profile.facts.index(DEATH)
    assert any(timeline.attributes.facts[index] for timeline in timelines)
    for timeline in timelines:
        said_at = [place for place, token in enumerate(timeline.tokens) if token in death]
        assert said_at in ([], [len(timeline.tokens) - 1])
        assert bool(said_at) == bool(timeline.attributes.facts[index])
        assert timeline.minutes[0] < 0 or timeline.steps[0] == 1
        assert timeline.minutes == sorted(timeline.minutes)
        named = {int(spec.fact_of[token]) for token in timeline.tokens} - {-1}
        assert all(timeline.attributes.facts[fact] for fact in named)


def test_a_law_of_another_vocabulary_is_refused(spec: TimelineSpec) -> None:
    with pytest.raises(ConfigError, match="the law is of 3 codes"):
        Markov({"num_codes": 3}).source(spec, build_masks(spec, {}))
    with pytest.raises(ValueError, match="sizes must have num_codes"):
        Markov({"codes": 3})
    with pytest.raises(ValueError, match="tables must be one, got other"):
        Tables(["one"]).fill({"other": np.zeros(1)})
    with pytest.raises(RuntimeError, match="other"):
        Tables(["one"]).load_state_dict(Tables(["other"]).state_dict())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedded hospital, ingested."""
    folder = tmp_path_factory.mktemp("hospital")
    medtwin("hospital", "n=45", "seed=3", f"out={folder / 'hospital'}")
    medtwin("ingest", f"source={folder / 'hospital'}", f"out={folder / 'dataset'}")
    return folder / "dataset"


def medtwin(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_a_run_directory_holds_a_law(name: str, dataset: Path, tmp_path: Path) -> None:
    """Whatever a trainer would heed changes nothing, a limit of time least of all."""
    run = tmp_path / "run"
    haste = ["net.factors.num_steps=5"] if name == "summary_gan" else []
    train = ("train", f"dataset={dataset}", f"model={name}", *haste)
    medtwin(*train, "trainer.max_time=00:00:00:01", f"out={run}")
    module, config = load_run(run)
    assert config["optimizer"] is None
    assert isinstance(module, BaselineModule)
    spec = TimelineSpec.load(run / "data")
    source = module.source(spec, build_masks(spec, {}))
    timelines = drawn(source, draw_people(source, 0, 5, seed=0), 5)
    events = [event for timeline in timelines for event in timeline_to_events(timeline, spec, timeline.index + 1)]
    assert validate_events(sort_events(events_to_table(events))) == []
    said_why = medtwin(*train, f"ckpt_path={run}", f"out={tmp_path / 'other'}", code=2)
    assert "a model that is counted starts from nothing" in said_why
