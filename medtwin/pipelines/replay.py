"""The `replay` of `medtwin simulate`: one simulated trial as data: patients, ADaM as Dataset-JSON and parquet, FHIR."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from medtwin import __version__
from medtwin.core.errors import ConfigError
from medtwin.core.files import write_json, write_table
from medtwin.core.provenance import Origin, creation_time
from medtwin.pipelines.replay_fhir import write_research
from medtwin.trials import Cohort, Study
from medtwin.trials.engine.scenarios import Scenario
from medtwin.trials.export.adam import datasets_of, define_of
from medtwin.trials.export.dataset_json import Header, write_dataset_json
from medtwin.trials.export.patients import Replay, choose_scenario, replay_trial
from medtwin.trials.export.records import pool_record
from medtwin.trials.export.variables import Dataset

FOLDER = "replay"
STUDY_START = date(2026, 1, 1)
_NOTE = (
    "A simulated trial: no subject of it exists, and the treatment's effect was put in. See define.json for the "
    "variables, the scenario and the seed; medtwin's docs/trials.md for what they mean.\n"
)


@dataclass(frozen=True)
class ReplayChoice:
    """Which of the simulated trials is written out.

    Attributes:
        trial: Its number, from 1. scenario: Under which truth. hazard_ratio: Which, where several scenarios have the
            name, as on the power curve.
        study_start: The day of calendar month 0.
    """

    trial: int
    scenario: str = "alternative"
    hazard_ratio: float | None = None
    study_start: date = STUDY_START

    @property
    def setting(self) -> dict[str, Any]:
        """The choice as provenance records it, the same however it was stated."""
        return {**asdict(self), "study_start": self.study_start.isoformat()}


def replay_choice(setting: Any) -> ReplayChoice | None:
    """The choice that `replay=` states: a number, or a group of `trial`, `scenario`, `hazard_ratio`, `study_start`.

    YAML reads the scenario `null` as no value; it is taken by its name.

    Raises:
        ConfigError: If it states no trial, or what there is no setting for.
    """
    if setting is None:
        return None
    given = dict(setting) if isinstance(setting, Mapping) else {"trial": setting}
    known = [field.name for field in fields(ReplayChoice)]
    if unknown := sorted(given.keys() - set(known)):
        raise ConfigError(f"there is no setting 'replay.{unknown[0]}', only {', '.join(known)}")
    if "scenario" in given and given["scenario"] is None:
        given["scenario"] = "null"
    if isinstance(given.get("study_start"), str):
        try:
            given["study_start"] = date.fromisoformat(given["study_start"])
        except ValueError as error:
            raise ConfigError(f"replay.study_start must be a date, got {given['study_start']!r}") from error
    rules = {"trial": (int,), "scenario": (str,), "hazard_ratio": (int, float, type(None)), "study_start": (date,)}
    words = {
        "trial": "the number of a trial",
        "scenario": "a name",
        "hazard_ratio": "a number",
        "study_start": "a date",
    }
    if "trial" not in given:
        raise ConfigError("replay.trial=... is required")
    for name, value in given.items():
        if not isinstance(value, rules[name]) or isinstance(value, bool):
            raise ConfigError(f"replay.{name} must be {words[name]}, got {value!r}")
    return ReplayChoice(**given)


def find_scenario(choice: ReplayChoice, scenarios: Sequence[Scenario]) -> Scenario:
    """The scenario of the choice.

    Raises:
        ConfigError: If there is no such scenario, or no such trial of it; names what there is.
    """
    try:
        found = choose_scenario(scenarios, choice.scenario, choice.hazard_ratio)
    except ValueError as error:
        raise ConfigError(f"replay.{error}") from error
    if not 1 <= choice.trial <= found.num_trials:
        raise ConfigError(
            f"replay.trial must be from 1 to {found.num_trials}, the trials simulated of {found.name!r}, "
            f"got {choice.trial}"
        )
    return found


def require_replayable(origin: Origin) -> None:
    """Refuses to write out patients who were drawn from real ones.

    Raises:
        ConfigError: If the cohort is real.
    """
    if origin == "real":
        raise ConfigError("replay: the cohort holds real patients, of whom no patient table is written: leave it out")


def write_replay(
    folder: Path,
    prepared: tuple[Study, Cohort | None],
    choice: ReplayChoice,
    scenarios: Sequence[Scenario],
    config: Mapping[str, Any],
    origin: Origin,
    remark: str = "",
) -> Replay:
    """Writes the trial below `folder`: patients.parquet, adsl, adtte and adlb as JSON and parquet, define.json, fhir/.

    Args:
        folder: To make.
        prepared: The trial on its patients, and the cohort of which they are; None: parametric patients.
        choice: Which trial.
        scenarios: That were simulated.
        config: Of the simulation: what names the trial, together with the choice. Its `seed` is that of the run.
        origin: Of the cohort.
        remark: What a reader must know of the cohort, such as that it failed its check; for define.json.

    Raises:
        ConfigError: If there is no such trial.
    """
    study, cohort = prepared
    scenario = find_scenario(choice, scenarios)
    named = study_id(config, scenario, choice.trial)
    record = pool_record(cohort, study.trial) if cohort is not None and study.plan.pool.baseline is not None else None
    try:
        found = replay_trial(
            study,
            scenario,
            choice.trial,
            seed=int(config["seed"]),
            study_id=named,
            study_start=choice.study_start,
            record=record,
        )
        datasets = datasets_of(found.data)
    except ValueError as error:
        raise ConfigError(f"replay: {error}") from error
    write_table(folder / "patients.parquet", found.data.patients)
    for dataset in datasets:
        write_dataset_json(folder / f"{dataset.name.lower()}.json", dataset, _header(dataset, named))
        write_table(folder / f"{dataset.name.lower()}.parquet", _labelled(dataset))
    write_json(folder / "define.json", define_of(found.data, datasets, _facts(found, origin, remark)))
    (folder / "README.txt").write_text(_NOTE, encoding="utf-8")
    write_research(folder / "fhir", found, datasets[0], origin)
    return found


# Settings on which a simulated trial does not depend: how many others there are, and what is said of it.
_NOT_OF_A_TRIAL = {"num_trials", "num_curve", "target_mcse", "check", "replay"}
_NOT_OF_A_TRIAL |= {"override", "cohorts", "cohorts_differ_by", "source_subjects"}


def study_id(config: Mapping[str, Any], scenario: Scenario, trial: int) -> str:
    """STUDYID of a replayed trial: a hash of what the trial depends on.

    >>> first = study_id({"seed": 0, "num_trials": 100}, Scenario("null", 1.0, 100), 7)
    >>> first, first == study_id({"seed": 0, "num_trials": 900}, Scenario("null", 1.0, 900), 7)
    ('SIM89951D5B', True)
    """
    kept = {name: value for name, value in config.items() if name not in _NOT_OF_A_TRIAL}
    words = [kept, scenario.name, scenario.hazard_ratio, trial]
    text = json.dumps(words, sort_keys=True, default=str, ensure_ascii=True)
    return f"SIM{hashlib.sha256(text.encode()).hexdigest()[:8].upper()}"


def _header(dataset: Dataset, named: str) -> Header:
    return Header(
        created=creation_time().replace(microsecond=0),
        file_oid=f"urn:medtwin:replay:{named}:{dataset.name}",
        originator="medtwin (simulated data)",
        source_system=("medtwin", __version__),
        study_oid=named,
        meta_data_version_oid=f"MDV.{named}",
        meta_data_ref="define.json",
    )


def _labelled(dataset: Dataset) -> pa.Table:
    """The table with the label of each column in its metadata."""
    columns = [
        pa.field(column.name, dataset.table.schema.field(column.name).type, metadata={"label": column.label})
        for column in dataset.columns
    ]
    return dataset.table.cast(pa.schema(columns))


def _facts(found: Replay, origin: Origin, remark: str) -> dict[str, Any]:
    return {
        "made_with": f"medtwin {__version__}",
        "scenario": found.scenario.name,
        "hazard_ratio": found.scenario.hazard_ratio,
        "trial": found.trial,
        "of": found.scenario.num_trials,
        "seed": found.seed,
        "patients_drawn_from": origin,
        "remark": remark,
        "look": found.look,
        "month": found.month,
        "z": list(found.z),
        "events": found.events,
        "log_hazard_ratio": found.log_hazard_ratio,
        "outcome": found.outcome,
        "dates": "month m of the trial lies on day floor(m * 365.25 / 12) after study_start",
        "laboratory_values": (
            "those of the record that a patient was drawn from, moved to the day of randomisation; they know nothing "
            "of the simulated treatment and event"
        ),
    }
