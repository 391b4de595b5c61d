#!/usr/bin/env python3
"""A group-sequential trial from the drawing board to a patient table: where a statistician may begin.

Design on paper -> boundaries -> expected timing -> the same object simulated -> three designs side by side -> the
report -> one simulated trial as ADTTE, analysed again. Everything below is medtwin's Python interface; the command line
gives the same numbers (`medtwin simulate`, `medtwin compare`).

    .venv/bin/python scripts/examples/trial_design.py [FOLDER]

FOLDER, if given, gets the report. Time is in months, hazard ratios are experimental / control, z > 0 favours the
experimental arm: docs/trials.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from medtwin.trials import (
    AssumedOutcome,
    Assumptions,
    EffectPrior,
    GroupSequential,
    RampedAccrual,
    Spending,
    Study,
    SurvivalTrial,
    prepare,
)
from medtwin.trials.analysis.cox import cox_model
from medtwin.trials.analysis.logrank import logrank_test
from medtwin.trials.engine.comparison import DURATION, REJECTED, Comparison, compare_designs
from medtwin.trials.engine.scenarios import Scenario
from medtwin.trials.export.adam import adtte
from medtwin.trials.export.patients import Replay, replay_trial

SEED = 2026
NUM_TRIALS = 1000

# 1. The design. Overall survival, median 12 months under control, hazard ratio 0.7; two interim looks with
# O'Brien-Fleming efficacy bounds (Lan-DeMets) and non-binding futility bounds.
PLAN = GroupSequential(
    alpha=0.025,
    power=0.9,
    looks=(0.5, 0.75, 1.0),
    efficacy=Spending("obrien_fleming"),
    futility=Spending("hwang_shih_decani", -4.0),
)
TRIAL = SurvivalTrial(
    title="Overall survival, two interim looks",
    plan=PLAN,
    hazard_ratio=0.7,
    accrual=RampedAccrual(months=18.0, ramp_months=6.0),
    follow_up_months=18.0,
    annual_dropout=0.05,
    assumed=AssumedOutcome(control_median_months=12.0),
)


def show_design(study: Study) -> None:
    """Prints bounds on three scales and the months at which looks are expected."""
    design = study.plan.design
    bounds = design.bounds
    print(f"{design.max_events:.1f} events, {PLAN.inflation:.3f} times those of a fixed design")
    print(f"{study.plan.num_subjects} patients")
    months = study.months_of_looks(TRIAL.hazard_ratio)
    for look, events in enumerate(design.events):
        print(
            f"  look {look + 1}: {events} events, month {months[look]:.1f}, "
            f"z >= {bounds.efficacy[look]:.3f} rejects, z <= {bounds.futility[look]:.3f} is futile"
        )


def show_simulated(found: Comparison) -> None:
    """Prints the probability of rejecting and the duration of every design in every scenario."""
    for line in found.lines():
        if line.characteristic in (REJECTED, DURATION):
            theory = "" if line.analytical is None else f" (analytical {line.analytical:.4f})"
            e = line.estimate
            print(
                f"  {line.scenario:<8} {line.design:<12} {line.characteristic:<17} "
                f"{e.value:.4f} ± {e.standard_error:.4f}{theory}"
            )


def show_differences(found: Comparison) -> None:
    """Prints paired differences, and how much smaller their errors are than those of independent draws."""
    for pair in found.differences():
        if pair.characteristic in (REJECTED, DURATION):
            e = pair.estimate
            print(
                f"  {pair.scenario:<8} {pair.design:<12} {pair.characteristic:<17} {e.value:+.4f} ± "
                f"{e.standard_error:.4f} ({pair.error_ratio:.2f} of the error of independent draws)"
            )


def replayed(study: Study, trial: int) -> Replay:
    """One of the simulated trials again, as data."""
    scenario = Scenario("alternative", TRIAL.hazard_ratio, NUM_TRIALS)
    return replay_trial(study, scenario, trial, seed=SEED, study_id="SIM-OS-1", study_start=date(2027, 1, 4))


def main(folder: Path | None = None) -> None:
    """Runs all of it; writes the report where a folder is given."""
    # 2. and 3. Boundaries and timing come with the patients whom the trial needs; without a cohort they are parametric.
    study = prepare(TRIAL, None, SEED)
    show_design(study)

    # 4. The same object, simulated patient by patient.
    truths = {"h1": Assumptions(), "h0": Assumptions(hazard_ratio=1.0)}
    print("\nSimulated:")
    show_simulated(compare_designs({"two interim": study}, truths, NUM_TRIALS, SEED))

    # 5. Three designs on the same patients, also under what was not planned.
    one_look = replace(TRIAL, plan=replace(PLAN, looks=(1.0,), futility=None))
    pocock = replace(TRIAL, plan=replace(PLAN, efficacy=Spending("pocock")))
    designs = {
        "one look": prepare(one_look, None, SEED),
        "two interim": study,
        "Pocock": prepare(pocock, None, SEED),
    }
    truths |= {
        "delayed": Assumptions(effect=[[0, 0.0], [3, 1.0]]),
        "slow": Assumptions(accrual_factor=0.6),
        "prior": Assumptions(hazard_ratio=EffectPrior(log_sd=0.15)),
    }
    compared = compare_designs(designs, truths, NUM_TRIALS, SEED)
    print("\nThree designs (under `prior` the probability of rejecting is assurance):")
    show_simulated(compared)
    print("\nDifferences to one look, on the same patients:")
    show_differences(compared)

    # 6. The report: page, Markdown, JSON and parquet.
    if folder is not None:
        from medtwin.pipelines.compare import write_comparison
        from medtwin.pipelines.compare_report import Compared

        write_comparison(folder, Compared(compared, truths, SEED, "simulated"))
        print(f"\n{folder / 'report.html'}")

    # 7. Trial 17 of the alternative as ADTTE, and its analysis from those data alone.
    found = replayed(study, 17)
    table = adtte(found.data).table
    months, is_event = table["AVALM"].to_numpy(), table["CNSR"].to_numpy() == 0
    treated = table["TRTPN"].to_numpy() == 1
    test = logrank_test(months, is_event, treated)
    z = float((test.expected - test.observed)[1].sum() / np.sqrt(test.variance[1, 1]))
    ratio = np.exp(cox_model(months, is_event, treated.astype(float)).coefficients[0])
    print(f"\nTrial 17 {found.outcome} at look {found.look}, month {found.month:.1f}: {found.events} events")
    print(f"  engine: z = {found.z[-1]:.4f}, hazard ratio {np.exp(found.log_hazard_ratio):.4f}")
    print(f"  ADTTE:  z = {z:.4f}, hazard ratio {ratio:.4f}, {table.num_rows} rows")
    print(table.select(["USUBJID", "TRTP", "STARTDT", "ADT", "AVAL", "CNSR"]).slice(0, 3).to_pandas().to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
