"""Trials that are simulated otherwise than survival patient by patient: by their statistic, or with means and rates.

`write_levels` makes the files that `medtwin simulate` makes of any trial, as far as there are such.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.files import write_json, write_table
from medtwin.core.provenance import Origin
from medtwin.core.shards import map_shards
from medtwin.pipelines.replay import FOLDER, ReplayChoice
from medtwin.pipelines.say import progress
from medtwin.pipelines.simulate_disclosure import ToldCohort
from medtwin.pipelines.simulate_page import Told, write_told
from medtwin.pipelines.simulate_response_scores import (
    response_score_columns,
    response_score_records,
    response_score_section,
    scores_of_responses,
)
from medtwin.pipelines.simulate_tables import number, write_attrition, write_csv
from medtwin.pipelines.simulate_what_if import ToldWhatIf, what_if_columns
from medtwin.report import Section
from medtwin.report.page import State
from medtwin.trials.design.group_sequential import GroupSequential, hazard_ratio_at_bound
from medtwin.trials.design.spending import Spending
from medtwin.trials.engine.assumptions import Assumptions
from medtwin.trials.engine.batch import BLOCK
from medtwin.trials.engine.bound_surface import InformationRange
from medtwin.trials.engine.canonical import CanonicalCounts, canonical_trials, joined, run_canonical
from medtwin.trials.engine.fast_level import (
    FastScenario,
    response_fast_scenarios,
    response_lines,
    survival_lines,
    survival_scenarios,
)
from medtwin.trials.engine.response_assumptions import effects_under
from medtwin.trials.engine.response_batch import ResponseCharacteristics, draw_patients, run_trials
from medtwin.trials.engine.response_scenarios import (
    EffectLine,
    EffectScenario,
    effect_scenarios,
    response_characteristics,
    response_table,
    response_tasks,
    run_response_task,
)
from medtwin.trials.engine.response_trial import ResponseStudy, example_patients
from medtwin.trials.engine.scenarios import Line, Scenario, scenarios_of
from medtwin.trials.engine.survival_trial import Study
from medtwin.trials.engine.tasks import POWER_CURVE

Floats = NDArray[np.float64]
Level = Literal["patient", "statistic", "both"]
BY_STATISTIC = "by its statistic: "
_NUM_PATHS = 40


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        study: The trial on its patients. level: How it is simulated.
        num_trials, num_curve, seed, workers: As of the verb.
        observed: Where the information of looks lies at the statistic's level; None: as planned.
        assumptions: What is true; the study of means or rates is already as it is then.
        replay: Which simulated trial is written out; None: none.
        origin: Of the cohort. cohort: Its numbers, as far as they may be told.
        what_if: What each criterion of eligibility costs; None without a cohort.
        remarks: What a reader must know first. banner, state: Of the cohort's check.
    """

    study: Study | ResponseStudy
    level: Level
    num_trials: int
    num_curve: int
    seed: int
    workers: int
    origin: Origin
    observed: InformationRange | None = None
    assumptions: Assumptions = field(default_factory=Assumptions)
    replay: ReplayChoice | None = None
    cohort: ToldCohort = field(default_factory=ToldCohort)
    what_if: ToldWhatIf | None = None
    remarks: Sequence[str] = ()
    banner: str = ""
    state: State = "none"


def as_level(level: str) -> Level:
    """The level of that name.

    Raises:
        ConfigError: If there is none.
    """
    levels: tuple[Level, ...] = get_args(Level)
    for known in levels:
        if level == known:
            return known
    raise ConfigError(f"level must be one of {', '.join(levels)}, got {level!r}")


def statistic_lines(
    study: Study, scenarios: Sequence[Scenario], request: tuple[int, int, InformationRange | None]
) -> list[Line]:
    """The lines of a survival trial by its statistic, named so, to stand beside those of its patients.

    Args:
        study: The trial on its patients.
        scenarios: That were simulated.
        request: Seed, workers, and where information lies.

    Raises:
        ConfigError: If the trial's statistic has no such law.
    """
    seed, workers, observed = request
    fast = _survival_fast(study, scenarios, observed)
    counts = _run_fast(fast, seed, workers)
    lines = [line for each, found in zip(fast, counts, strict=True) for line in survival_lines(each, found)]
    return [replace(line, characteristic=BY_STATISTIC + line.characteristic) for line in lines]


def write_levels(folder: Path, request: Request, *, only_replay: bool = False) -> list[str]:
    """Simulates, and writes the tables, the patients, the replay and the report; returns what to tell.

    Args:
        folder: Of the output.
        request: What is asked for.
        only_replay: Whether all but the replay is there already.

    Raises:
        ConfigError: If the trial's statistic has no such law, or there is no trial to replay.
    """
    if isinstance(request.study, ResponseStudy):
        study = request.study
        scenarios = effects_of(study, request.assumptions, request.num_trials, request.num_curve)
        said = []
        if request.replay is not None:
            scenario = check_response_replay(scenarios, request.replay)
            said.append(_write_replay(folder / FOLDER, study, scenario, request.replay.trial, request.seed))
        return said if only_replay else [*said, *_write_responses(folder, request, study, scenarios)]
    return _write_survival(folder, request, request.study)


def effects_of(study: ResponseStudy, assumptions: Assumptions, num_trials: int, num_curve: int) -> list[EffectScenario]:
    """What is simulated of a trial of means or rates.

    Args:
        study: The trial on its patients, as it is.
        assumptions: What is true.
        num_trials: As of the verb.
        num_curve: As of the verb.

    Raises:
        ConfigError: If the difference has a prior.
    """
    return effects_under(effect_scenarios(study, num_trials, num_curve), assumptions, study)


def check_response_replay(scenarios: Sequence[EffectScenario], choice: ReplayChoice) -> EffectScenario:
    """The scenario of the trial to be written out.

    Args:
        scenarios: That are simulated.
        choice: Which simulated trial.

    Raises:
        ConfigError: If there is no such trial.
    """
    named = [each for each in scenarios if each.name == choice.scenario]
    if choice.hazard_ratio is not None or len(named) != 1:
        known = ", ".join(repr(each.name) for each in scenarios if each.name != POWER_CURVE)
        raise ConfigError(f"replay.scenario must be one of {known}, without hazard_ratio, got {choice.scenario!r}")
    if not 1 <= choice.trial <= named[0].num_trials:
        raise ConfigError(f"replay.trial must be from 1 to {named[0].num_trials}, got {choice.trial}")
    return named[0]


def _write_replay(folder: Path, study: ResponseStudy, scenario: EffectScenario, trial: int, seed: int) -> str:
    """Writes one simulated trial below `folder`: patients.parquet and trial.json; returns what to tell."""
    block, row = divmod(trial - 1, BLOCK)
    patients = draw_patients(study.plan, seed, block)
    stops = run_trials(study.plan, patients, scenario.effect, obeys_futility=scenario.obeys_futility)
    month, look = float(stops.months[row]), int(stops.look[row])
    table = example_patients(study, seed, month, trial - 1, scenario.effect)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    write_table(folder / "patients.parquet", pa.table({name: pa.array(list(values)) for name, values in table.items()}))
    outcome = "rejected the null" if stops.is_rejected[row] else "stopped for futility" if stops.is_futile[row] else (
        "did not reject the null")  # fmt: skip
    facts = {
        "scenario": scenario.name,
        "difference": scenario.effect,
        "trial": trial,
        "seed": seed,
        "look": look + 1,
        "month": month,
        "outcomes": int(stops.outcomes[row]),
        "estimate": number(float(stops.estimate[row])),
        "z": [number(float(z)) for z in stops.z[row][: look + 1]],
        "outcome": outcome,
        "note": "A simulated trial: no subject of it exists, and the treatment's effect was put in.",
    }
    write_json(folder / "trial.json", facts)
    z = stops.z[row][look]
    said = f"replay: trial {trial} of {scenario.name} {outcome} at look {look + 1}, z = {z:.4f}"
    return f"{said}, {len(table['arm']):,} patients"


def _run_fast(fast: Sequence[FastScenario], seed: int, workers: int) -> list[CanonicalCounts]:
    tasks = [(number, task) for number, each in enumerate(fast) for task in each.tasks(seed)]
    results = map_shards(run_canonical, [task for _, task in tasks], num_workers=workers)
    counts = list(progress(results, "trials", total=len(tasks), unit="task"))
    return [
        joined(found for (owner, _), found in zip(tasks, counts, strict=True) if owner == number)
        for number in range(len(fast))
    ]


def _survival_fast(
    study: Study, scenarios: Sequence[Scenario], observed: InformationRange | None
) -> list[FastScenario]:
    try:
        return survival_scenarios(study, scenarios, observed)
    except ValueError as error:
        raise ConfigError(f"level=statistic: {error}") from error


def _paths(fast: FastScenario, seed: int) -> Floats:
    """The statistics of the first trials, nan after the stop."""
    trials = canonical_trials(fast.design, fast.drift, seed, 0, min(_NUM_PATHS, fast.num_trials))
    after = np.arange(trials.z.shape[1]) > trials.look[:, None]
    return np.where(after, np.nan, trials.z)


def _write_survival(folder: Path, request: Request, study: Study) -> list[str]:
    """A trial of times to an event, by its statistic."""
    scenarios = _exact(scenarios_of(study, request.num_trials, request.num_curve), request)
    fast = _survival_fast(study, scenarios, request.observed)
    counts = _run_fast(fast, request.seed, request.workers)
    found = [line for each, count in zip(fast, counts, strict=True) for line in survival_lines(each, count)]
    lines = [EffectLine(*(getattr(line, name) for name in Line.__annotations__)) for line in found]
    design, trial = study.plan.design, study.trial
    told = Told(
        title=trial.title,
        lead=f"A two-arm group-sequential trial, simulated by its statistic; endpoint: {trial.endpoint.name}.",
        design=f"Log-rank test. {plan_in_words(trial.plan)} Schoenfeld's formula: {design.max_events:.1f} events.",
        endpoint=f"{trial.endpoint.name}; all patients are taken to have the same risk.",
        limits=[
            *_LIMITS,
            "No patient was simulated. Looks come in the months in which their events are expected, hazards are "
            "proportional and risks alike; where they are not, level=patient says what follows.",
        ],
        effect="hazard ratio",
        information="events",
        counts=design.events,
        bounds=design.bounds,
        effect_at=lambda z, events: hazard_ratio_at_bound(z, events, design.allocation_ratio),
        months=study.months_of_looks(trial.hazard_ratio),
        num_subjects=study.plan.num_subjects,
        lines=lines,
        paths=_paths(fast[0], request.seed),
        remarks=[_of_statistic(request), *request.remarks],
        cohort=request.cohort,
        what_if=request.what_if,
        banner=request.banner,
        state=request.state,
    )
    _write(folder, told, "hazard_ratio")
    return _summary(told)


def _exact(scenarios: Sequence[Any], request: Request) -> list[Any]:
    """The scenarios with as many trials as asked for: the statistic needs no whole blocks."""
    return [
        replace(each, num_trials=request.num_curve if each.name == POWER_CURVE else request.num_trials)
        for each in scenarios
    ]


def _write_responses(
    folder: Path, request: Request, study: ResponseStudy, scenarios: Sequence[EffectScenario]
) -> list[str]:
    """A trial whose endpoint is read once, by its patients, its statistic or both."""
    lines: list[EffectLine] = []
    found: list[ResponseCharacteristics] = []
    paths, remarks = np.zeros((0, len(study.plan.design.outcomes))), _remarks(study, request.cohort)
    if request.level != "statistic":
        tasks = response_tasks(study, scenarios, request.seed)
        results = map_shards(run_response_task, tasks, num_workers=request.workers)
        found = response_characteristics(scenarios, progress(results, "trials", total=len(tasks), unit="task"))
        lines += [line for s, c in zip(scenarios, found, strict=True) for line in response_table(study, s, c)]
        paths = found[0].stops.z
    if request.level != "patient":
        chosen = _exact(scenarios, request) if request.level == "statistic" else scenarios
        try:
            fast = response_fast_scenarios(study, chosen, request.observed)
        except ValueError as error:
            raise ConfigError(f"level={request.level}: {error}") from error
        counts = _run_fast(fast, request.seed, request.workers)
        more = [line for each, count in zip(fast, counts, strict=True) for line in response_lines(each, count)]
        if request.level == "both":
            more = [replace(line, characteristic=BY_STATISTIC + line.characteristic) for line in more]
        else:
            remarks, paths = [_of_statistic(request), *remarks], _paths(fast[0], request.seed)
        lines += more
    told = _response_page(request, study, lines, found, paths, remarks)
    if found:
        scored = scores_of_responses(study, list(zip(scenarios, found, strict=True)), request.seed)
        write_csv(folder / "scores.csv", response_score_columns(scored))
        sections = [*told.extra, response_score_section(scored)]
        told = replace(told, extra=sections, scores=response_score_records(scored))
    if found and request.origin != "real":
        example = example_patients(study, request.seed, float(found[0].stops.months[0]), effect=scenarios[0].effect)
        write_csv(folder / "patients.csv", example)
    _write(folder, told, "difference")
    return _summary(told)


def _remarks(study: ResponseStudy, cohort: ToldCohort) -> list[str]:
    response = study.plan.response
    if study.fitted is not None:
        count = study.fitted.num_readings
        is_told = cohort.eligible is not None and not cohort.tells_few(count, cohort.eligible)
        who = f"{count:,} eligible subjects" if is_told else "eligible subjects"
        told = f"The endpoint is as {who} have it in the cohort's record"
    else:
        told = (
            "The endpoint is assumed"
            if study.attrition
            else "There is no cohort: patients are parametric, and the endpoint is assumed"
        )
    return [f"{told}: {response.description}."]


def _response_page(
    request: Request,
    study: ResponseStudy,
    lines: Sequence[EffectLine],
    found: Sequence[ResponseCharacteristics],
    paths: Floats,
    remarks: Sequence[str],
) -> Told:
    trial, plan, design = study.trial, study.plan, study.plan.design
    response = design.response
    better = "Higher" if response.higher_is_better else "Lower"
    test = design.test(response.effect)
    text = (
        f"{plan.test.description}, {trial.hypothesis.description}, at a difference of {response.effect:g} "
        f"(experimental less control). {plan_in_words(trial.plan)} Allocation {trial.allocation_ratio:g} : 1 "
        f"{trial.randomisation.description}. {design.max_outcomes:.1f} outcomes are needed; {plan.num_subjects:,} "
        f"patients are enrolled, of whom {plan.retained:.1%} are expected to stay until the endpoint is read. Early "
        "looks come with as many outcomes as planned; the last when everybody has an outcome or has left: its bound is "
        "recomputed at the outcomes that it has, and spends the rest of alpha."
    )
    main = dict.fromkeys(line.scenario for line in lines if line.scenario in ("alternative", "null"))
    names = [f"{name}, difference {each.effect:g}" for name, each in zip(main, found, strict=False)]
    remarks = [*remarks, *request.remarks]
    if request.origin == "real":
        remarks.append("The cohort holds real patients: no patient table was written.")
    return Told(
        title=trial.title,
        lead=f"A two-arm group-sequential trial; endpoint: {response.name}, after {response.months:g} months.",
        design=text,
        endpoint=f"{response.name}, read {response.months:g} months after randomisation: {plan.response.description}. "
        f"{better} is better. Who leaves before has no outcome.",
        limits=[
            *_LIMITS,
            "Patients leave whatever their outcome; the treatment's effect is the same for all on its scale.",
        ],
        effect="difference",
        information="outcomes",
        counts=design.outcomes,
        bounds=design.bounds,
        effect_at=lambda z, outcomes: test.effect_at(design.sign * z, outcomes),
        months=study.months_of_looks,
        num_subjects=plan.num_subjects,
        lines=lines,
        paths=paths,
        durations={name: each.stops.months for name, each in zip(names, found, strict=False)},
        remarks=remarks,
        cohort=request.cohort,
        what_if=request.what_if,
        banner=request.banner,
        state=request.state,
        extra=_prognosis(study),
    )


def _prognosis(study: ResponseStudy) -> list[Section]:
    if study.fitted is None or not study.fitted.coefficients:
        return []
    told = [f"{name} {value:+.3g}" for name, value in study.fitted.coefficients.items()]
    text = f"Change of the endpoint, or of its log odds, per standard deviation: {', '.join(told)}. Shrunk towards 0."
    return [Section("Prognostic score", [text])]


_LIMITS = (
    "The effect of treatment is put in, not found: the trial says how often a design would detect it, never whether a "
    "treatment works.",
)


def _of_statistic(request: Request) -> str:
    where = "as planned" if request.observed is None else "drawn around the plan, bounds recomputed at it"
    return (
        "No patient was simulated: trials are drawn as the joint normal statistic of their looks (level=statistic), "
        f"information {where}."
    )


def plan_in_words(plan: GroupSequential) -> str:
    """Errors and spending.

    >>> plan_in_words(GroupSequential(looks=(1.0,)))
    'One-sided alpha 0.025, power 90%; alpha is spent by obrien_fleming. There are no futility bounds.'
    """

    def named(spending: object) -> str:
        if not isinstance(spending, Spending):
            return repr(spending)
        return spending.kind if spending.parameter is None else f"{spending.kind} ({spending.parameter:g})"

    futility = "There are no futility bounds."
    if plan.futility is not None:
        kind = "Binding" if plan.binding else "Non-binding"
        futility = f"{kind} futility bounds spend beta by {named(plan.futility)}."
    return (
        f"One-sided alpha {plan.alpha:g}, power {plan.power:.0%}; alpha is spent by {named(plan.efficacy)}. {futility}"
    )


def _write(folder: Path, told: Told, effect: str) -> None:
    """The tables and the page."""
    lines = told.lines
    columns: dict[str, Sequence[object]] = {
        "scenario": [line.scenario for line in lines],
        effect: [round(line.effect, 6) for line in lines],
        "characteristic": [line.characteristic for line in lines],
        "look": [line.look for line in lines],
        "estimate": [number(line.estimate.value) for line in lines],
        "mc_standard_error": [number(line.estimate.standard_error) for line in lines],
        "low": [number(line.estimate.low) for line in lines],
        "high": [number(line.estimate.high) for line in lines],
        "level": [line.estimate.level for line in lines],
        "analytical": [None if line.analytical is None else number(line.analytical) for line in lines],
        "num_trials": [line.num_trials for line in lines],
    }
    write_csv(folder / "operating_characteristics.csv", columns)
    bounds = told.bounds
    columns = {
        "look": list(range(1, len(told.counts) + 1)),
        "information_fraction": [number(t) for t in bounds.fractions.tolist()],
        told.information: list(told.counts),
        "expected_month": [number(month) for month in told.months.tolist()],
        "efficacy_z": [number(z) for z in bounds.efficacy.tolist()],
        "futility_z": [number(z) for z in bounds.futility.tolist()],
        f"efficacy_{effect}": [
            number(told.effect_at(z, n)) for z, n in zip(bounds.efficacy.tolist(), told.counts, strict=True)
        ],
    }
    write_csv(folder / "boundaries.csv", columns)
    write_attrition(folder, told.cohort)
    write_csv(folder / "what_if.csv", what_if_columns(told.what_if))
    write_told(folder / "report.html", told)


def _summary(told: Told) -> list[str]:
    said = [f"{told.num_subjects:,} patients, {told.counts[-1]:,} {told.information}"]
    for line in told.main:
        e = line.estimate
        said.append(
            f"{told.effect} {line.effect:g}: {line.characteristic} {e.value:.4f} (Monte-Carlo error "
            f"{e.standard_error:.4f}, {line.num_trials:,} trials)"
        )
    return said
