"""Numbers that follow from each other: which identities are learned, and that what is drawn keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from medtwin.core.codes import BIRTH
from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table, sort_events
from medtwin.hospital.physiology import egfr_from_creatinine
from medtwin.timelines.generation.bounds import NumberBounds, Told
from medtwin.timelines.generation.generate import MaskedMass, TimelineModel, noise_keys
from medtwin.timelines.generation.masks import Masks, build_masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.sampler import Sampler
from medtwin.timelines.generation.tile import Drawn, ScaleTable, Tile
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR
from medtwin.timelines.reading.identities import Identity
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.spec import TimelineSpec
from tests.timelines.conftest import IDENTITIES, SETTINGS, Fitted, fit, lively, small_net

CREATININE, RATE = ("LOINC//2160-0", "mg/dL"), ("LOINC//98979-8", "mL/min/{1.73_m2}")
WEIGHT, HEIGHT, INDEX = ("LOINC//29463-7", "kg"), ("LOINC//8302-2", "cm"), ("LOINC//39156-5", "kg/m2")
LDL, HDL, TOTAL, FAT = (
    (f"LOINC//{code}", "mg/dL") for code in ("13457-7", "2085-9", "2093-3", "2571-8")
)  # fmt: skip
NUM = 60
Error = Callable[[np.random.Generator], float]


def exact(rng: np.random.Generator) -> float:
    return 1.0


def visit(subject: int, number: int, rng: np.random.Generator, error: Error) -> list[Event]:
    """Kidney, body and lipids; what follows from other numbers is off by a factor. Height is measured at first."""
    born, sex = datetime(1950 + subject % 30, 5, 1), "FM"[subject % 2]
    at = datetime(2015, 3, 1) + timedelta(days=200 * number, minutes=subject)
    age = int((at - born).total_seconds() / 60 / MINUTES_PER_YEAR)
    height, weight = 150.0 + (37 * subject) % 45, float(np.round(rng.normal(80, 15), 1))
    creatinine = float(np.round(rng.lognormal(0, 0.3), 1))
    hdl, ldl = float(np.round(rng.normal(55, 9))), float(np.round(rng.normal(120, 20)))
    fat = float(np.round(rng.lognormal(4.9, 0.3)))
    numbers = {
        CREATININE: creatinine,
        RATE: round(error(rng) * egfr_from_creatinine(creatinine, age, sex)),
        WEIGHT: weight,
        INDEX: round(error(rng) * weight / (height / 100) ** 2, 1),
        HDL: hdl,
        LDL: ldl,
        TOTAL: round(ldl + hdl + error(rng) * fat / 5),
        FAT: fat,
    }
    if number == 0:
        numbers[HEIGHT] = height
    key, when = f"{subject}.{number}", "second+00:00"
    visit = Event(
        subject, at, "SNOMED//185349003", event_id=f"e{key}", encounter_id=f"e{key}", status="finished",
        end_time=at + timedelta(minutes=30), time_precision=when, resource="Encounter",
    )  # fmt: skip
    inside = {"encounter_id": visit.event_id, "status": "final", "time_precision": when, "resource": "Observation"}
    return [
        visit,
        *(
            Event(subject, at, code, float(value), unit=unit, event_id=f"{code}{key}", **inside)
            for (code, unit), value in numbers.items()
        ),
    ]


def records(error: Error, num: int = NUM) -> pa.Table:
    """Three visits of each subject."""
    events = []
    for subject in range(1, num + 1):
        rng = np.random.default_rng(subject)
        born = datetime(1950 + subject % 30, 5, 1)
        events.append(Event(subject, None, f"GENDER//{'FM'[subject % 2]}", resource="Patient"))
        events.append(Event(subject, born, BIRTH, time_precision="day", resource="Patient"))
        for number in range(3):
            events += visit(subject, number, rng, error)
    return sort_events(events_to_table(events))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit(tmp_path_factory.mktemp("kept"), records(exact), settings=replace(SETTINGS, min_subjects=1))


def names(spec: TimelineSpec) -> set[tuple[str, str, str | None]]:
    return {(one.rule, one.last, one.follows) for one in spec.identities}


def test_what_training_subjects_keep_is_learned(kept: Fitted) -> None:
    assert names(kept[0]) >= {
        ("filtration-rate-of-creatinine", "rate", None),
        ("body-mass-index", "bmi", None),
        ("friedewald", "ldl", None),
        ("friedewald", "triglycerides", "ldl"),
        ("cholesterol-above-hdl", "total", None),
    }


def _wrong(rng: np.random.Generator) -> float:
    return 1.2


def _at_times(rng: np.random.Generator) -> float:
    return 1.4 if rng.random() < 0.05 else 1.0


@pytest.mark.parametrize("error", [_wrong, _at_times])
def test_what_they_do_not_keep_is_not(tmp_path: Path, error: Error) -> None:
    """Another formula, and one in twenty wrong: neither is forced upon twins."""
    spec, _ = fit(tmp_path, records(error), settings=replace(SETTINGS, min_subjects=1))
    assert {rule for rule, _, _ in names(spec)} == {"cholesterol-above-hdl"}


def test_too_few_moments_teach_nothing(tmp_path: Path) -> None:
    spec, _ = fit(tmp_path, records(exact, num=9), settings=replace(SETTINGS, min_subjects=1))
    assert not spec.identities


def test_what_is_computed_is_said_last(kept: Fitted) -> None:
    """So that no other number has to make up for the errors of those before it."""
    codes = [token.code for token in kept[0].vocabulary.tokens]
    for last, others in ((INDEX, (WEIGHT, HEIGHT)), (LDL, (HDL, TOTAL, FAT)), (RATE, (CREATININE,))):
        assert all(codes.index(last[0]) > codes.index(other[0]) for other in others)
    assert codes.index(CREATININE[0]) < codes.index(WEIGHT[0])  # the others stand in the order of their codes


def test_identities_are_saved(kept: Fitted, tmp_path: Path) -> None:
    kept[0].save(tmp_path)
    assert TimelineSpec.load(tmp_path).identities == kept[0].identities


def one_of(spec: TimelineSpec, rule: str, last: str, follows: str | None = None) -> Identity:
    return next(one for one in spec.identities if (one.rule, one.last, one.follows) == (rule, last, follows))


@pytest.mark.parametrize(("creatinine", "age", "sex"), [(0.6, 30.0, "F"), (1.0, 62.0, "M"), (3.1, 80.0, "F")])
def test_a_filtration_rate_is_bound_by_the_formula(kept: Fitted, creatinine: float, age: float, sex: str) -> None:
    """The hospital's own formula, written by another hand, lies within; the bounds are as narrow as rounding."""
    one = one_of(kept[0], "filtration-rate-of-creatinine", "rate")
    given = {"creatinine": np.array([creatinine]), "age": np.array([age]), "female": np.array([float(sex == "F")])}
    low, high = one.bounds(given, np.array([0.0]), np.array([200.0]))
    true = egfr_from_creatinine(creatinine, age, sex)
    assert low[0] - 0.5 <= true <= high[0] + 0.5
    assert high[0] - low[0] < 3


def test_a_number_that_falls_as_the_other_rises_is_bound(kept: Fitted) -> None:
    """Height by bisection, were it drawn last: the larger, the smaller the index."""
    one = replace(one_of(kept[0], "body-mass-index", "bmi"), last="height")
    nobody = np.full(2, np.nan)
    given = {"bmi": np.array([25.0, 30.0]), "weight": np.array([81.0, 90.0]), "age": nobody, "female": nobody}
    low, high = one.bounds(given, np.full(2, 120.0), np.full(2, 220.0))
    assert np.allclose((low + high) / 2, [180.0, 173.2], atol=0.3)
    assert ((high - low) < 1).all()


def test_the_number_before_leaves_one_that_can_be(kept: Fitted) -> None:
    """So many triglycerides that the LDL to come is between the least and the most."""
    one = one_of(kept[0], "friedewald", "triglycerides", "ldl")
    assert one.follows_range is not None
    given = {"total": np.array([200.0]), "hdl": np.array([50.0])}
    low, high = one.bounds(given, np.array([0.0]), np.array([1500.0]))
    assert low[0] == pytest.approx(max(0, 5 * (150 - one.follows_range[1])), abs=8)
    assert high[0] == pytest.approx(5 * (150 - one.follows_range[0]), abs=8)


def test_an_identity_that_nothing_can_keep_bounds_nothing(kept: Fitted) -> None:
    one = replace(one_of(kept[0], "body-mass-index", "bmi"), last="height")
    given = {name: np.array([value]) for name, value in (("bmi", 20.0), ("weight", 300.0), ("age", 50.0))}
    low, high = one.bounds({**given, "female": np.array([1.0])}, np.array([120.0]), np.array([220.0]))
    assert (low[0], high[0]) == (120.0, 220.0)


def test_only_recent_numbers_bind(kept: Fitted) -> None:
    spec = kept[0]
    scales = ScaleTable(spec.scales)
    bounds = NumberBounds(spec, scales)
    rate, creatinine = (
        next(i for i, token in enumerate(spec.vocabulary.tokens) if token.code == code)
        for code, _ in (RATE, CREATININE)
    )
    place = int(np.searchsorted(bounds.inputs, creatinine))
    since = np.full((3, len(bounds.inputs)), np.inf)
    since[:, place] = (0.0, 5.0, np.inf)
    scaled = np.zeros_like(since)
    scaled[:, place] = scales.encode(np.full(3, creatinine), np.full(3, 1.2))
    told = Told(scaled, since, np.full(3, 50.5), np.full(3, list(spec.profile.sexes).index("GENDER//M")))
    low, high = bounds(np.full(3, rate), told, np.full(3, -3.0), np.full(3, 3.0))
    assert high[0] - low[0] < 1
    assert (low[1:] == -3).all()
    assert (high[1:] == 3).all()
    raw = scales.decode(np.full(2, rate), np.array([low[0], high[0]]))[0]
    assert raw == pytest.approx(egfr_from_creatinine(1.2, 50, "M"), abs=1.5)


def drawn(spec: TimelineSpec, sequences: Sequences, mass: MaskedMass) -> list[Drawn]:
    """Records of a network that knows nothing, four times over: what holds in them is due to the bounds."""
    masks = build_masks(spec, {})
    ages = {"youngest": np.full_like(masks.youngest, -np.inf), "oldest": np.full_like(masks.oldest, np.inf)}
    model = TimelineModel(lively(small_net(spec)), spec, Masks(np.ones_like(masks.by_sex), **ages))
    people = sequences.attributes()
    latent = np.random.default_rng(0).standard_normal((len(people), model.net.latent_dim)).astype(np.float32)
    tiles = [Tile(people, latent, Noise(noise_keys(seed, range(NUM))), NUM) for seed in range(4)]
    with torch.inference_mode():
        return [Sampler(model, tile, mass).run() for tile in tiles]


def rates_off(spec: TimelineSpec, sequences: Sequences, found: Drawn) -> np.ndarray:
    """By how much filtration rates are off, mL/min, of steps that say creatinine once, by the hospital's formula."""
    people, off = sequences.attributes(), []
    code = np.array([token.code for token in spec.vocabulary.tokens])[found.token]
    for row in range(NUM):
        mine = found.row == row
        sex = spec.profile.sexes[people[row].sex].removeprefix("GENDER//")
        for step in np.unique(found.step[mine]):
            here = mine & (found.step == step)
            creatinine = found.value[here & (code == CREATININE[0])]
            rate = found.value[here & (code == RATE[0])]
            if len(creatinine) == 1 and len(rate):
                elapsed = found.minute[here][0] - people[row].start_minute
                age = int(people[row].age_start_years + elapsed / MINUTES_PER_YEAR)
                off += (rate - egfr_from_creatinine(creatinine[0], age, sex)).tolist()
    return np.abs(off)


@pytest.mark.slow
def test_what_is_drawn_keeps_them(kept: Fitted) -> None:
    """Against the same network without the identities, whose numbers are anything."""
    spec, sequences = kept
    bound, free = MaskedMass(), MaskedMass()
    loose = replace(spec, identities=())
    with_bounds, without = (
        np.concatenate([rates_off(spec, sequences, one) for one in drawn(each, sequences, mass)])
        for each, mass in ((spec, bound), (loose, free))
    )
    assert min(len(with_bounds), len(without)) >= 10
    assert with_bounds.max() < 3
    assert np.median(without) > 10
    assert bound.num_bound >= len(with_bounds)
    assert 0 < bound.outside < bound.num_bound
    assert (free.num_bound, free.outside) == (0, 0.0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"relation": "alike"}, "identity i: relation must be one of equals, at-most, below, got 'alike'"),
        ({"right": "2 * c"}, "identity i: formulas must name inputs, age or female, got 'c'"),
    ],
)
def test_what_is_stated_wrongly_is_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    rule = {**IDENTITIES["body-mass-index"], **more}
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        fit(tmp_path, records(exact, num=5), settings=replace(SETTINGS, identities={"i": rule}))
