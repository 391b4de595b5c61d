from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from torch import Tensor

from medtwin.core.codes import BIRTH, DEATH
from medtwin.core.events import Event, events_to_table, sort_events
from medtwin.core.paths import config_dir
from medtwin.hospital import simulate_subject
from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.generation.masks import Masks, build_masks
from medtwin.timelines.network.net import LogProb, TemporalVAE
from medtwin.timelines.network.time_heads import GAIN
from medtwin.timelines.reading import profile
from medtwin.timelines.reading.batches import Batch
from medtwin.timelines.reading.sequences import SequenceFiles, Sequences
from medtwin.timelines.reading.spec import SpecSettings, TimelineSpec, fit_spec
from medtwin.training.threads import torch_threads

DETAILS = ("DiagnosticReport.conclusionCode", "ImagingStudy.series.view", "Condition.category")
# A frequent code that stands for one that only women can have: an untrained model says it of everybody.
FEMALE_ONLY = "LOINC//4548-4"
IDENTITIES = yaml.safe_load((config_dir() / "rules" / "identities.yaml").read_text(encoding="utf-8"))
SETTINGS = SpecSettings(
    min_subjects=2,
    details=DETAILS,
    num_conditions=6,
    facts=(DEATH, "RACE//*", "SITE//*"),
    max_positions=150,
    identities=IDENTITIES,
)

Fitted = tuple[TimelineSpec, Sequences]


def fit(folder: Path, *tables: pa.Table, settings: SpecSettings = SETTINGS) -> Fitted:
    """The spec of some shards, and their sequences as they come back from disk; its profile is fitted in haste."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "_STEPS", 40)
        spec = fit_spec(lambda: tables, settings, SequenceFiles(folder))
    return spec, Sequences.load(folder)


def small_net(spec: TimelineSpec, seed: int = 0, latent_dim: int = 4) -> TemporalVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TemporalVAE(sizes=spec.sizes, latent_dim=latent_dim, width=16, num_layers=2, num_heads=2)
    net.bind(spec)
    return net.eval()


def lively(net: TemporalVAE, seed: int = 0, spread: float = 0.1) -> TemporalVAE:
    """The net with random numbers added to all its weights, so that everything it reads matters to what it says."""
    numbers = torch.Generator().manual_seed(seed)
    direct = ("_of_clock", "repeat", "of_person", "trait", "loading", "rhythm", "effect")
    direct += ("recall", "fading", "forgotten", "spread", "heaped")
    amplified = tuple(f"{name}.weight" for name in direct)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            size = spread / GAIN if name.endswith(amplified) else spread
            parameter.add_(size * torch.randn(parameter.shape, generator=numbers))
    return net


def read_decoded(net: TemporalVAE, batch: Batch, z: Tensor) -> LogProb:
    """Log p(x | z, attributes) of a batch by what was decided."""
    read = net.read(batch)
    return net.log_prob(batch, read, net.decode(batch, read, z), z)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a network is no faster on two, and far slower where another process has one of them."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="session")
def hospital_table() -> pa.Table:
    """The records of 40 patients of the embedded hospital."""
    events = [event for index in range(40) for event in simulate_subject(5, index).events]
    return sort_events(events_to_table(events))


@pytest.fixture(scope="session")
def fitted(hospital_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit(tmp_path_factory.mktemp("sequences"), hospital_table)


@pytest.fixture(scope="session")
def spec(fitted: Fitted) -> TimelineSpec:
    return fitted[0]


@pytest.fixture(scope="session")
def sequences(fitted: Fitted) -> Sequences:
    return fitted[1]


@pytest.fixture(scope="session")
def model(spec: TimelineSpec) -> TimelineModel:
    return TimelineModel(small_net(spec), spec, build_masks(spec, {"F": [FEMALE_ONLY]}))


@pytest.fixture(scope="session")
def short_table() -> pa.Table:
    """60 short courses: one to four visits, of whom every third subject dies and the first has no static facts."""
    return sort_events(events_to_table([event for subject in range(1, 61) for event in course(subject)]))


@pytest.fixture(scope="session")
def short_fitted(short_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit(tmp_path_factory.mktemp("short"), short_table, settings=replace(SETTINGS, max_positions=45))


@pytest.fixture(scope="session")
def short(short_fitted: Fitted) -> Sequences:
    return short_fitted[1]


@pytest.fixture(scope="session")
def short_model(short_fitted: Fitted) -> TimelineModel:
    """A lively net that tells short courses, and masks that forbid nothing."""
    spec = short_fitted[0]
    net = lively(small_net(spec))
    with torch.no_grad():
        net.times.stop.bias.add_(3.0)
        net.times.gap.bias[spec.gaps.end_class] += 3.5
        net.codes.type_out.bias[-2:] += torch.tensor([3.0, 1.0])  # death, and the end of the step
    masks = build_masks(spec, {})
    ages = {"youngest": np.full_like(masks.youngest, -np.inf), "oldest": np.full_like(masks.oldest, np.inf)}
    return TimelineModel(net, spec, Masks(np.ones_like(masks.by_sex), **ages))


def course(subject: int) -> list[Event]:
    """Sex, race, birth and an old condition (none of them for subject 1), and visits, some followed by death."""
    rng = np.random.default_rng(subject)
    start = datetime(2015, 1, 1) + timedelta(minutes=int(rng.integers(0, 3_000_000)))
    events = [] if subject == 1 else _person(subject, rng)
    gaps = rng.choice([0, 5, 90, 43_200, 43_260, 400_000], size=subject % 4 + 1)
    for number, gap in enumerate(gaps.tolist()):
        start += timedelta(minutes=gap)
        events += _visit(subject, number, start, rng)
    if subject % 3 == 0:
        gone = start + timedelta(days=int(rng.integers(3, 90)), minutes=7)
        events.append(Event(subject, gone, DEATH, time_precision="second+00:00", resource="Patient"))
    return events


def _person(subject: int, rng: np.random.Generator) -> list[Event]:
    sex = "FM"[subject % 2]
    born = datetime(1930, 1, 1) + timedelta(days=int(rng.integers(0, 20_000)))
    old = {"event_id": f"c{subject}", "status": "confirmed", "time_precision": "day", "resource": "Condition"}
    person = [
        Event(subject, None, f"GENDER//{sex}", resource="Patient"),
        Event(subject, None, f"RACE//{subject % 3}", resource="Patient"),
        Event(subject, born, BIRTH, time_precision="day", resource="Patient"),
    ]
    return [*person, *([Event(subject, datetime(2010, 3, 1), "SNOMED//44054006", **old)] if subject % 2 else [])]


def _visit(subject: int, number: int, start: datetime, rng: np.random.Generator) -> list[Event]:
    when, key = "second+00:00", f"{subject}.{number}"
    visit = Event(
        subject, start, "SNOMED//185349003", event_id=f"e{key}", encounter_id=f"e{key}", status="finished",
        end_time=start + timedelta(minutes=int(rng.integers(20, 90))), time_precision=when, resource="Encounter",
    )  # fmt: skip
    inside = {"encounter_id": visit.event_id, "status": "final", "time_precision": when}
    at = start + timedelta(minutes=5 * int(rng.integers(0, 3)))
    pressure = Event(subject, at, "LOINC//85354-9", event_id=f"p{key}", resource="Observation", **inside)
    events = [visit, pressure]
    for part, (code, mean) in enumerate((("LOINC//8480-6", 125), ("LOINC//8462-4", 80))):
        value = float(np.round(rng.normal(mean, 9)))
        ids = {"event_id": f"p{key}.{part}", "parent_id": f"p{key}", "unit": "mm[Hg]", "resource": "Observation"}
        events.append(Event(subject, at, code, value, **ids, **inside))
    if rng.random() < 0.7:
        value = float(np.round(rng.lognormal(1.9, 0.2), 1))
        events.append(
            Event(subject, at, "LOINC//4548-4", value, unit="%", event_id=f"a{key}", resource="Observation", **inside)
        )
    if rng.random() < 0.3:
        events.append(Event(subject, at, "SNOMED//59621000", event_id=f"d{key}", resource="Condition", **inside))
    return events


def one_patient(subject: int, start: datetime, a1c: float = 6.1, sex: str = "F") -> list[Event]:
    """A visit of fifty minutes with a blood pressure and an HbA1c, and a condition since long before."""
    at, when = start + timedelta(minutes=5), "second+00:00"
    visit = Event(
        subject,
        start,
        "SNOMED//185349003",
        event_id=f"e{subject}",
        encounter_id=f"e{subject}",
        status="finished",
        end_time=start + timedelta(minutes=50),
        time_precision=when,
        resource="Encounter",
    )
    inside = {"encounter_id": visit.event_id, "status": "final", "time_precision": when, "resource": "Observation"}
    pressure = Event(subject, at, "LOINC//85354-9", event_id=f"p{subject}", **inside)
    parts = [
        Event(subject, at, code, value, unit="mm[Hg]", event_id=f"p{subject}.{n}", parent_id=f"p{subject}", **inside)
        for n, (code, value) in enumerate((("LOINC//8480-6", 120.0 + subject), ("LOINC//8462-4", 80.0)), 1)
    ]
    lab = Event(subject, at, "LOINC//4548-4", a1c, unit="%", event_id=f"a{subject}", **inside)
    low = lab.child("referenceRange.low", numeric_value=4.0, unit="%")
    high = lab.child("referenceRange.high", numeric_value=5.6, unit="%")
    flag = lab.child("interpretation", "INTERPRETATION//H")
    old = Event(
        subject,
        datetime(2010, 3, 1),
        "SNOMED//44054006",
        event_id=f"c{subject}",
        status="confirmed",
        time_precision="day",
        resource="Condition",
    )
    person = [
        Event(subject, None, f"GENDER//{sex}", resource="Patient"),
        Event(subject, datetime(1960, 1, 1), BIRTH, time_precision="day", resource="Patient"),
    ]
    return [*person, old, visit, visit.child("class", "ACTCODE//AMB"), pressure, *parts, lab, low, high, flag]
