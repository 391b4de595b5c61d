"""`medtwin simulate`: a trial and a cohort -> operating characteristics, attrition, bounds, a patient table, report.

This file has the verb: work, what is written; `simulate_settings` has its settings. `simulate_levels` simulates what is
not survival patient by patient, `simulate_response_scores` says how well such trials estimate, and `simulate_page` is
the page of that. `simulate_what_if` asks what each criterion of eligibility costs; `simulate_trust` says how far to
trust a cohort, with `simulate_estimands` and `simulate_precision`. The report of a survival trial is `simulate_report`,
of sections in `simulate_design`, `simulate_patients` with `simulate_representation`, `simulate_outcome` and
`simulate_results`, on what `simulate_findings` holds; `simulate_tables` and `simulate_numbers` are its numbers as CSV
and JSON. `compare`, with `compare_report`, sets several designs side by side; `replay`, with `replay_fhir`, writes one
trial as data.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtwin.config import build, compose, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError, OutputError
from medtwin.core.files import list_files, verify_manifest
from medtwin.core.output import Output, config_hash, is_finished, writing
from medtwin.core.provenance import (
    PROVENANCE,
    Input,
    Origin,
    Provenance,
    describe_input,
    read_provenance,
    software_versions,
    write_provenance,
)
from medtwin.core.shards import map_shards
from medtwin.pipelines.replay import (
    FOLDER,
    find_scenario,
    require_replayable,
    write_replay,
)
from medtwin.pipelines.say import progress, tell
from medtwin.pipelines.simulate_disclosure import ToldCohort, shown_count, told_cohort
from medtwin.pipelines.simulate_findings import Findings
from medtwin.pipelines.simulate_levels import (
    Request,
    as_level,
    check_response_replay,
    effects_of,
    statistic_lines,
    write_levels,
)
from medtwin.pipelines.simulate_report import write_trial_report
from medtwin.pipelines.simulate_representation import pool_divisions
from medtwin.pipelines.simulate_settings import SimulateSettings, built_trial, told_of
from medtwin.pipelines.simulate_tables import write_csv, write_tables
from medtwin.pipelines.simulate_trust import (
    as_spread,
    cohort_verdict,
    overridden,
    simulate_others,
    source_of,
    write_trust,
)
from medtwin.pipelines.simulate_what_if import what_if_columns, what_if_of
from medtwin.pipelines.sources import fingerprint, public_config, require_outside
from medtwin.report.page import State
from medtwin.trials import Cohort, Study, SurvivalTrial, prepare, read_cohort
from medtwin.trials.engine.assumptions import scenarios_under, study_under, with_theory
from medtwin.trials.engine.batch import Characteristics
from medtwin.trials.engine.response_assumptions import check_response_assumptions, responses_under
from medtwin.trials.engine.response_trial import ResponseStudy, ResponseTrial, prepare_responses
from medtwin.trials.engine.scenarios import (
    Scenario,
    run_task,
    scenarios_of,
    scenarios_of_trial,
    table_of,
    tasks_of,
)
from medtwin.trials.engine.survival_trial import example_patients
from medtwin.trials.engine.target_error import simulated_until


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    simulate(settings(SimulateSettings, config))


def trial_config(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of configs/trial/<name>.yaml, for `SimulateSettings`.

    Raises:
        ConfigError: If there is no such trial.
    """
    config = compose("simulate", [f"trial={name}", "cohort=null", *overrides])
    return dict(config["trial"])


def simulate(chosen: SimulateSettings) -> Path:
    """Simulates the trial, or says that it is done; returns where it is.

    Raises:
        MedtwinError: If nobody is eligible, a code is unknown, events are too few, or the output cannot be written.
    """
    dataset = open_dataset(chosen.cohort) if chosen.cohort is not None else None
    if dataset is not None:
        require_outside(chosen.out, dataset.path)
    banner, state = cohort_verdict(dataset, chosen.check, chosen.override.reason)
    origin: Origin = dataset.origin if dataset is not None else "simulated"
    _check_trial(chosen, dataset, origin)
    config = _config(chosen, dataset)
    is_extension = not chosen.overwrite and _is_extension(chosen, config)
    with writing(chosen.out, config, overwrite=chosen.overwrite or is_extension) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        if is_extension:
            _copy_results(chosen.out, output)
        if (request := _other_request(chosen, dataset, origin, (banner, state))) is not None:
            told = write_levels(output.path, request, only_replay=is_extension)
            write_provenance(output.path, _provenance(dataset, chosen, config, origin))
            tell(f"{chosen.out}: {request.study.trial.title}")
            for line in told:
                tell(f"  {line}")
            return chosen.out
        study, cohort, remarks = _prepare(chosen, dataset)
        study = study_under(study, chosen.assumptions)
        remarks += told_of(chosen.assumptions)
        scenarios = scenarios_under(scenarios_of(study, chosen.num_trials, chosen.num_curve), chosen.assumptions)
        _write_replay(output.path, chosen, config, (study, cohort), scenarios, origin, banner)
        if is_extension:
            write_provenance(output.path, _provenance(dataset, chosen, config, origin))
            return chosen.out
        found = _simulate_patients(output.path, chosen, (study, cohort), scenarios, dataset, remarks, (banner, state))
        write_provenance(output.path, _provenance(dataset, chosen, config, origin))
    _tell_result(chosen.out, study, told_cohort(study, origin, chosen.smallest_cell), scenarios, found)
    return chosen.out


def _simulate_patients(
    folder: Path,
    chosen: SimulateSettings,
    prepared: tuple[Study, Cohort | None],
    scenarios: Sequence[Scenario],
    dataset: Dataset | None,
    remarks: Sequence[str],
    banner: tuple[str, State],
) -> list[Characteristics]:
    """Simulates the scenarios patient by patient and writes tables, patients and report."""
    study, cohort = prepared
    origin: Origin = dataset.origin if dataset is not None else "simulated"
    others = _other_cohorts(chosen, dataset, study.trial, scenarios[0])
    tasks = tasks_of(study, scenarios, chosen.seed)
    results = map_shards(run_task, tasks, num_workers=chosen.workers)
    counted = progress(results, "trials", total=len(tasks), unit="task")
    scenarios, found = simulated_until(scenarios, counted, chosen.target_mcse)
    lines = [line for s, c in zip(scenarios, found, strict=True) for line in table_of(study, s, c, chosen.seed)]
    lines = with_theory(study, lines)
    if chosen.level == "both":
        lines += statistic_lines(study, scenarios, (chosen.seed, chosen.workers, chosen.information))
    told = told_cohort(study, origin, chosen.smallest_cell)
    write_tables(folder, study, scenarios, found, lines, told)
    example = example_patients(
        study, chosen.seed, float(found[0].stops.months[0]), hazard_ratio=scenarios[0].hazard_ratio
    )
    if origin == "real":
        remarks = [*remarks, "The cohort holds real patients: no patient table was written."]
    else:
        write_csv(folder / "patients.csv", example)
    what_if = what_if_of(study.trial, cohort, chosen.seed, told) if cohort is not None else None
    write_csv(folder / "what_if.csv", what_if_columns(what_if))
    divisions = pool_divisions(study, cohort, {row.division for row in told.groups}) if cohort is not None else {}
    source, spread = source_of(dataset, chosen.source_subjects), as_spread(chosen.cohorts_differ_by)
    pairs = list(zip(scenarios, found, strict=True))
    trust = write_trust(
        folder, prepared, pairs, source, (others, spread), chosen.seed, is_size_told=told.eligible is not None
    )
    findings = Findings(
        study,
        scenarios,
        found,
        lines,
        example,
        origin,
        remarks,
        *banner,
        told,
        chosen.seed,
        divisions,
        trust,
        what_if,
    )
    write_trial_report(folder / "report.html", findings)
    return found


def _other_cohorts(
    chosen: SimulateSettings, dataset: Dataset | None, trial: SurvivalTrial, scenario: Scenario
) -> Sequence[tuple[Study, Characteristics]]:
    """The same trial under the first scenario on the further cohorts."""
    if dataset is None:
        return ()

    def study_of(other: Dataset) -> Study:
        return study_under(_study(trial, other, chosen.seed)[0], chosen.assumptions)

    return simulate_others(chosen.cohorts, dataset, study_of, scenario, (chosen.seed, chosen.workers))


def _other_request(
    chosen: SimulateSettings, dataset: Dataset | None, origin: Origin, banner: tuple[str, State]
) -> Request | None:
    """What is asked for where it is not a trial of survival simulated patient by patient; else None."""
    trial = build(dict(chosen.trial), "trial")
    if isinstance(trial, ResponseTrial):
        cohort = None if dataset is None else _cohort(dataset, trial)
        study: Study | ResponseStudy = responses_under(prepare_responses(trial, cohort), chosen.assumptions)
        remarks = told_of(chosen.assumptions)
    elif chosen.level != "statistic":
        return None
    else:
        study, cohort, remarks = _prepare(chosen, dataset)
    told = told_cohort(study, origin, chosen.smallest_cell)
    return Request(
        study,
        as_level(chosen.level),
        chosen.num_trials,
        chosen.num_curve,
        chosen.seed,
        chosen.workers,
        origin,
        chosen.information,
        chosen.assumptions,
        chosen.replay_choice,
        told,
        None if cohort is None else what_if_of(study.trial, cohort, chosen.seed, told),
        remarks,
        *banner,
    )


def _config(chosen: SimulateSettings, dataset: Dataset | None) -> dict[str, Any]:
    """What determines the output. Where no trial is to be written out, one that was is no other output."""
    config = {**public_config(chosen), "source_state": source_state(dataset)}
    del config["replay"]
    if chosen.target_mcse is None:
        del config["target_mcse"]
    if chosen.replay_choice is not None:
        config["replay"] = chosen.replay_choice.setting
    elif not chosen.overwrite and (chosen.out / PROVENANCE).is_file():
        config |= {name: value for name, value in read_provenance(chosen.out)["config"].items() if name == "replay"}
    if chosen.assumptions.is_planned:
        del config["scenario"]
    if chosen.level == "patient":
        del config["level"], config["observed"]
    if dataset is None or dataset.origin != "real":
        del config["smallest_cell"]  # everything is told
    return config


def _is_extension(chosen: SimulateSettings, config: Mapping[str, Any]) -> bool:
    """Whether the output is finished and lacks no more than the trial to be written out."""
    if chosen.replay is None or not is_finished(chosen.out) or not (chosen.out / PROVENANCE).is_file():
        return False
    record = read_provenance(chosen.out)
    before, after = dict(record["config"]), dict(config)
    is_other = config_hash({"replay": before.pop("replay", None)}) != config_hash({"replay": after.pop("replay")})
    return is_other and config_hash(before) == config_hash(after) and record["software"] == software_versions()


def _check_trial(chosen: SimulateSettings, dataset: Dataset | None, origin: Origin) -> None:
    """Refuses what is not to be had, before an output is begun that other settings would not continue."""
    if chosen.replay_choice is not None:
        require_replayable(origin)
        if chosen.level == "statistic":
            raise ConfigError("replay is of level=patient: at level=statistic there are no patients")
    trial = build(dict(chosen.trial), "trial")
    checked = trial if isinstance(trial, ResponseTrial) else built_trial(chosen.trial, "trial")
    if chosen.information is not None and chosen.information.num_looks != len(checked.plan.looks):
        raise ConfigError(f"observed must be of {len(checked.plan.looks)} looks, got {chosen.information.num_looks}")
    if isinstance(checked, ResponseTrial):
        _check_response_trial(chosen, checked, dataset)
        return
    if chosen.level != "patient" and checked.treatment_changes:
        raise ConfigError(f"trial.treatment_changes are of level=patient, got level={chosen.level}")
    if chosen.replay_choice is not None and chosen.fallback is None:
        scenarios = scenarios_of_trial(checked, chosen.num_trials, chosen.num_curve)
        find_scenario(chosen.replay_choice, scenarios_under(scenarios, chosen.assumptions))


def _check_response_trial(chosen: SimulateSettings, trial: ResponseTrial, dataset: Dataset | None) -> None:
    """The same of a trial whose endpoint is read once; of a cohort, what its record says is seen later."""
    check_response_assumptions(chosen.assumptions, trial.endpoint)
    if chosen.target_mcse is not None:
        raise ConfigError("target_mcse is of trials with a time to an event, got another endpoint")
    if dataset is None:
        study = responses_under(prepare_responses(trial, None), chosen.assumptions)
        scenarios = effects_of(study, chosen.assumptions, chosen.num_trials, chosen.num_curve)
        if chosen.replay_choice is not None:
            check_response_replay(scenarios, chosen.replay_choice)


def _copy_results(out: Path, output: Output) -> None:
    """The finished results as they stand, but for a trial that was written out before.

    Raises:
        OutputError: If they are not what was finished.
    """
    if findings := verify_manifest(out):
        raise OutputError(f"{out} was changed since it was finished ({findings[0]}): overwrite=true redoes it")
    for name in list_files(out):
        if name != PROVENANCE and not name.startswith(f"{FOLDER}/"):
            target = output.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(out / name, target)


def _write_replay(
    folder: Path,
    chosen: SimulateSettings,
    config: Mapping[str, Any],
    prepared: tuple[Study, Cohort | None],
    scenarios: Sequence[Scenario],
    origin: Origin,
    banner: str,
) -> None:
    """Writes out the chosen trial, if one is, before the others are simulated."""
    if (choice := chosen.replay_choice) is None:
        return
    shutil.rmtree(folder / FOLDER, ignore_errors=True)  # of a run that was killed
    found = write_replay(folder / FOLDER, prepared, choice, scenarios, config, origin, banner)
    tell(
        f"{chosen.out / FOLDER}: trial {found.trial} of {found.scenario.name} {found.outcome} at look {found.look}, "
        f"z = {found.z[-1]:.4f}, {found.data.patients.num_rows:,} patients ({found.data.study_id})"
    )


def source_state(dataset: Dataset | None) -> str | None:
    """What the cohort's files were; None without a cohort."""
    if dataset is None:
        return None
    return dataset.manifest_hash() if dataset.is_finished else fingerprint(dataset.path)


def _provenance(
    dataset: Dataset | None, chosen: SimulateSettings, config: Mapping[str, Any], origin: Origin
) -> Provenance:
    inputs: list[Input] = [describe_input("cohort", dataset.path)] if dataset is not None else []
    inputs += [describe_input("cohorts", path) for path in chosen.cohorts]
    depth = max((each.lineage_depth for each in inputs), default=0)
    decisions = overridden(dataset, chosen.check, chosen.override)
    return Provenance("simulate", origin, config, chosen.seed, inputs, depth, human_decisions=decisions)


def _prepare(chosen: SimulateSettings, dataset: Dataset | None) -> tuple[Study, Cohort | None, list[str]]:
    """The study and its cohort; of the fallback trial where the cohort does not carry the chosen one, and then why."""
    trial = built_trial(chosen.trial, "trial")
    fallback = None if chosen.fallback is None or dataset is None else built_trial(chosen.fallback, "fallback")
    try:
        return *_study(trial, dataset, chosen.seed), []
    except ConfigError as error:
        if fallback is None:
            raise
        remark = f"The trial named {trial.title!r} could not be run on this cohort ({error}). This one was simulated."
        return *_study(fallback, dataset, chosen.seed), [remark]


def _study(trial: SurvivalTrial, dataset: Dataset | None, seed: int) -> tuple[Study, Cohort | None]:
    if dataset is None:
        return prepare(trial, None, seed), None
    cohort = _cohort(dataset, trial)
    return prepare(trial, cohort, seed), cohort


def _cohort(dataset: Dataset, trial: SurvivalTrial | ResponseTrial) -> Cohort:
    """The subjects with what the trial asks of them."""
    shards = progress(dataset.iter_events(), "cohort", total=len(dataset.shards()), unit="shard")
    return read_cohort(shards, dataset.codes(), trial.codes())


def _tell_result(
    out: Path, study: Study, cohort: ToldCohort, scenarios: Sequence[Scenario], found: Sequence[Characteristics]
) -> None:
    tell(f"{out}: {study.trial.title}")
    if study.attrition:
        eligible, subjects = shown_count(cohort.eligible), shown_count(cohort.subjects)
        tell(f"  eligible subjects, drawn with replacement: {eligible}, of {subjects}")
    tell(f"  {study.plan.num_subjects:,} patients, {study.plan.design.events[-1]:,} events")
    for scenario, each in zip(scenarios[:2], found[:2], strict=True):
        share, months = each.power, float(np.median(each.stops.months))
        what = "type I error" if scenario.hazard_ratio == 1 else "power"
        tell(
            f"  hazard ratio {scenario.hazard_ratio:g}: {what} {share.value:.4f} "
            f"(Monte-Carlo error {share.standard_error:.4f}, {each.num_trials:,} trials), median {months:.0f} months"
        )
    tell(f"  {out / 'report.html'}")
