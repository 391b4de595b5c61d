"""The FHIR of a replayed trial: ResearchStudy, ResearchSubject, Patient, Device and Provenance; checked as written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medtwin import __version__
from medtwin.core.errors import DatasetError
from medtwin.core.provenance import Origin, creation_time
from medtwin.fhir import ExportContext, provenance_resources, validate_references, write_ndjson
from medtwin.fhir.writing.research import (
    ResearchFacts,
    StudyArm,
    SubjectFacts,
    research_resources,
)
from medtwin.pipelines.export_fhir import ResourceChecker
from medtwin.trials.export.adam import SIMULATED_NOTE
from medtwin.trials.export.patients import Replay
from medtwin.trials.export.variables import Dataset

_STATUS = {"event": "off-study", "dropout": "withdrawn", "analysis": "on-study"}


def write_research(folder: Path, replay: Replay, adsl: Dataset, origin: Origin) -> None:
    """Writes a file `<type>.ndjson` for each type.

    Args:
        folder: Where they go.
        replay: The trial.
        adsl: Its subjects, for their identifiers.
        origin: Of the cohort; patients who were drawn are labelled as test data whatever it is.

    Raises:
        DatasetError: If a resource were not valid FHIR R4, or a reference led nowhere.
    """
    data = replay.data
    context = ExportContext(
        "simulated" if origin == "real" else origin, f"urn:medtwin:replay:{data.study_id}", creation_time(), __version__
    )
    resources = list(research_resources(context, study_facts(replay), subject_facts(replay, adsl)))
    targets = [f"{each['resourceType']}/{each['id']}" for each in resources]
    resources += provenance_resources(context, targets)
    found = ResourceChecker("sample")(resources)
    if wrong := sorted(name for name in found if name.startswith("error")):
        raise DatasetError(f"a fault of medtwin: it would write invalid FHIR: {', '.join(wrong)}")
    if lost := validate_references(resources):
        raise DatasetError(f"a fault of medtwin: {'; '.join(map(str, lost))}")
    write_ndjson(folder, resources)


def study_facts(replay: Replay) -> ResearchFacts:
    """What the ResearchStudy says of the trial."""
    data = replay.data
    control, experimental = (arm.capitalize() for arm in data.arms)
    ratio = f"{replay.scenario.hazard_ratio:g}"
    note = (
        f"Trial {replay.trial} of {replay.scenario.num_trials:,} simulated under the scenario {replay.scenario.name}: "
        f"it {replay.outcome} at look {replay.look}, z = {replay.z[-1]:.4f}, after {replay.events:,} events."
    )
    return ResearchFacts(
        data.study_id,
        f"{data.title} (simulated)",
        f"Time to {data.endpoint}",
        [
            StudyArm(control, "Control"),
            StudyArm(experimental, "Experimental", f"Hazard ratio of every patient: {ratio}, as simulated"),
        ],
        data.study_start,
        data.cutoff,
        SIMULATED_NOTE,
        note,
    )


def subject_facts(replay: Replay, adsl: Dataset) -> Iterator[SubjectFacts]:
    """What the resources say of each subject, in the order of ADSL."""
    columns = ("USUBJID", "TRT01P", "RANDDT", "EOSDT", "SEX", "DTHDT")
    rows: list[dict[str, Any]] = adsl.table.select(columns).to_pylist()
    ends, ages = (replay.data.patients[name].to_pylist() for name in ("ended_by", "age_years"))
    for row, ended_by, age in zip(rows, ends, ages, strict=True):
        yield SubjectFacts(
            row["USUBJID"],
            row["TRT01P"],
            _STATUS[ended_by],
            row["RANDDT"],
            row["EOSDT"],
            row["SEX"],
            None if age is None else _birth_year(row["RANDDT"].year + row["RANDDT"].timetuple().tm_yday / 365.25, age),
            row["DTHDT"],
        )


def _birth_year(entry: float, age: float) -> int:
    """The calendar year in which whoever is so old at the time was born."""
    return int(entry - age)
