from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pytest
import torch

from medtwin.core.codes import BIRTH
from medtwin.core.events import Event, events_to_table, sort_events
from medtwin.hospital import simulate_subject
from medtwin.timelines.generate import TimelineModel
from medtwin.timelines.masks import build_masks
from medtwin.timelines.net import TemporalVAE
from medtwin.timelines.sequences import Sequences
from medtwin.timelines.spec import SpecSettings, TimelineSpec, fit_spec

DETAILS = ("DiagnosticReport.conclusionCode", "ImagingStudy.series.view", "Condition.category")
# A frequent code that stands for one that only women can have: an untrained model says it of everybody.
FEMALE_ONLY = "LOINC//4548-4"
SETTINGS = SpecSettings(min_subjects=2, details=DETAILS, num_conditions=6, max_positions=150)


def sizes_of(spec: TimelineSpec) -> dict[str, int]:
    return {
        "num_codes": len(spec.vocabulary),
        "num_types": len(spec.vocabulary.types),
        "num_gap_classes": spec.gaps.num_classes,
        "num_sexes": len(spec.attributes.sexes),
        "num_conditions": spec.attributes.num_conditions,
    }


def small_net(spec: TimelineSpec, seed: int = 0) -> TemporalVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TemporalVAE(sizes=sizes_of(spec), latent_dim=4, width=16, num_layers=2, num_heads=2, encoder_layers=1)
    net.bind(spec)
    return net.eval()


@pytest.fixture(scope="session")
def hospital_table() -> pa.Table:
    """The records of 40 patients of the embedded hospital."""
    events = [event for index in range(40) for event in simulate_subject(5, index).events]
    return sort_events(events_to_table(events))


@pytest.fixture(scope="session")
def fitted(hospital_table: pa.Table) -> tuple[TimelineSpec, Sequences]:
    return fit_spec(lambda: [hospital_table], SETTINGS)


@pytest.fixture(scope="session")
def spec(fitted: tuple[TimelineSpec, Sequences]) -> TimelineSpec:
    return fitted[0]


@pytest.fixture(scope="session")
def sequences(fitted: tuple[TimelineSpec, Sequences]) -> Sequences:
    return fitted[1]


@pytest.fixture(scope="session")
def model(spec: TimelineSpec) -> TimelineModel:
    return TimelineModel(small_net(spec), spec, build_masks(spec, {"F": [FEMALE_ONLY]}))


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
