"""How far a simulated trial can be trusted: the cohort's verdict, the estimand and its scores, honest precision."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import atomic_file, write_json
from medtwin.core.provenance import creation_time, training_subjects
from medtwin.core.shards import map_shards
from medtwin.core.verdict import read_verdict
from medtwin.pipelines.export_settings import Override
from medtwin.pipelines.simulate_estimands import estimation, estimation_record, estimation_section, score_columns
from medtwin.pipelines.simulate_precision import (
    Source,
    precision_columns,
    precision_results,
    precision_section,
    without_size,
)
from medtwin.report import Section
from medtwin.report.page import State
from medtwin.trials import Cohort, Study
from medtwin.trials.engine.batch import Characteristics
from medtwin.trials.engine.precision import Spread
from medtwin.trials.engine.scenarios import Scenario, characteristics_of, run_task, tasks_of


def cohort_verdict(dataset: Dataset | None, check: Path | None, reason: str | None = None) -> tuple[str, State]:
    """What page one must say of the cohort's trustworthiness, and how badly it stands.

    Args:
        dataset: The cohort; None: there is none.
        check: The directory of its check, if any.
        reason: Why a cohort that failed is simulated all the same; None: it is not.

    Raises:
        ConfigError: If the check is that of another dataset, or the cohort failed it and nobody says why it serves.
    """
    if dataset is None or dataset.origin != "synthetic":
        return "", "none"
    if check is None:
        text = "The cohort is synthetic and was not checked: nothing is known of how far its patients can be trusted."
        return text, "unknown"
    verdict = read_verdict(check)
    if not dataset.is_finished or verdict.manifest_sha256 != dataset.manifest_hash():
        raise ConfigError(f"check: {check} is the verdict of another dataset, not of {dataset.path}")
    if not (refusals := verdict.refusals()):
        return "", "none"
    failed = f"The cohort failed its check ({', '.join(refusals)})"
    if reason is None or not reason.strip():
        raise ConfigError(
            f"check: {failed[0].lower()}{failed[1:]}: a trial on it says nothing of patients. "
            "To simulate it all the same, say why: override.reason='...'"
        )
    return f"{failed}: read what follows as an exercise. It was simulated all the same because: {reason.strip()}", "bad"


def overridden(dataset: Dataset | None, check: Path | None, override: Override) -> list[dict[str, str]]:
    """Who decided, and why, that a cohort which failed its check is simulated; for provenance."""
    banner, state = cohort_verdict(dataset, check, override.reason)
    if state != "bad":
        return []
    by, at = override.by or getpass.getuser(), creation_time().isoformat(timespec="seconds")
    decision = f"simulated although {banner.partition(':')[0][0].lower()}{banner.partition(':')[0][1:]}"
    return [{"decision": decision, "reason": override.reason or "", "by": by, "at": at}]


def source_of(dataset: Dataset | None, stated: int | None) -> Source:
    """Of whom the cohort is: the patients that twins were learned from as stated, else as their provenance records."""
    if dataset is None or dataset.origin != "synthetic":
        return Source("simulated" if dataset is None else dataset.origin)
    return Source("synthetic", stated if stated is not None else training_subjects(dataset.path))


def as_spread(text: str) -> Spread:
    """How several cohorts differ.

    Raises:
        ConfigError: If it is neither.
    """
    if text == "seeds" or text == "bootstrap":
        return "seeds" if text == "seeds" else "bootstrap"
    raise ConfigError(f"cohorts_differ_by must be seeds or bootstrap, got {text!r}")


def simulate_others(
    paths: Sequence[Path],
    first: Dataset,
    study_of: Callable[[Dataset], Study],
    scenario: Scenario,
    run: tuple[int, int],
) -> list[tuple[Study, Characteristics]]:
    """The same trial under the first scenario on further cohorts.

    Args:
        paths: Of them.
        first: The first cohort; the others must be of its origin, and other datasets.
        study_of: Prepares the trial on one.
        scenario: To simulate.
        run: Seed and workers.

    Raises:
        ConfigError: If a cohort stands twice or is of another origin.
    """
    seen, found = {first.manifest_hash() if first.is_finished else str(first.path.resolve())}, []
    seed, workers = run
    for path in paths:
        dataset = open_dataset(path)
        name = dataset.manifest_hash() if dataset.is_finished else str(dataset.path.resolve())
        if name in seen:
            raise ConfigError(f"cohorts must be different datasets, got {path} twice: generate it with another seed")
        if dataset.origin != first.origin:
            raise ConfigError(f"cohorts must be {first.origin} as the first is, got {path}, which is {dataset.origin}")
        seen.add(name)
        study = study_of(dataset)
        tasks = tasks_of(study, [scenario], seed)
        results = map_shards(run_task, tasks, num_workers=workers)
        found.append((study, characteristics_of([scenario], results)[0]))
    return found


def write_trust(
    folder: Path,
    prepared: tuple[Study, Cohort | None],
    pairs: Sequence[tuple[Scenario, Characteristics]],
    source: Source,
    others: tuple[Sequence[tuple[Study, Characteristics]], Spread],
    seed: int,
    *,
    is_size_told: bool = True,
) -> list[Section]:
    """Writes estimand.json, scores.csv and precision.csv; returns their sections of the report.

    Args:
        folder: Of the output.
        prepared: The trial on its patients, and the cohort of which they are.
        pairs: Scenarios with what was found, the first one first.
        source: Of whom the cohort is.
        others: The same trial on other cohorts, and how they differ.
        seed: Of the run.
        is_size_told: Whether the number of eligible subjects may be told.
    """
    study, cohort = prepared
    estimated = estimation(study, [pair for pair in pairs if pair[0].name in ("alternative", "null")], seed)
    write_json(folder / "estimand.json", estimation_record(estimated))
    _write_csv(folder / "scores.csv", score_columns(estimated))
    sections = [estimation_section(estimated)]
    if cohort is not None:
        results = precision_results((study, cohort), pairs[0][1], source, others[0], spread=others[1], seed=seed)
        results = results if is_size_told else without_size(results)
        _write_csv(folder / "precision.csv", precision_columns(results))
        if (section := precision_section(results, source, study)) is not None:
            sections.append(section)
    return sections


def _write_csv(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    with atomic_file(path, "wb") as file:
        pa_csv.write_csv(pa.table({name: pa.array(list(values)) for name, values in columns.items()}), file)
