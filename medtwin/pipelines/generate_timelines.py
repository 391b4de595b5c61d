"""The timelines of new twins, tile by tile, as a plan wants them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtwin.core.output import Output
from medtwin.pipelines.generate_blocks import BlockCounts, write_block
from medtwin.pipelines.generate_settings import GenerateSettings, PlanSettings
from medtwin.pipelines.latents import load_prior_of, load_timelines
from medtwin.pipelines.runs import load_run
from medtwin.pipelines.say import progress
from medtwin.timelines.baselines import BaselineModule
from medtwin.timelines.generation.generate import TILE, MaskedMass, TimelineModel, draw_people
from medtwin.timelines.generation.masks import build_masks
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.plans import Plan
from medtwin.timelines.generation.records import RecordWriter, rows_to_table, twin_subject_id
from medtwin.timelines.generation.source import TimelineSource, draw_tile
from medtwin.timelines.priors.shift import load_shift
from medtwin.timelines.reading.spec import TimelineSpec


def load_model(run: Path, sex_specific: Mapping[str, Any]) -> TimelineModel:
    """The model of a run with the masks that a configuration asks for."""
    module, spec = load_timelines(run)
    return TimelineModel(module.average, spec, build_masks(spec, sex_specific), load_shift(run / "data"))


def load_source(run: Path, sex_specific: Mapping[str, Any]) -> TimelineModel | TimelineSource:
    """What draws timelines: the model of a temporal VAE run, or the law of a baseline's."""
    module, _ = load_run(run)
    if not isinstance(module, BaselineModule):
        return load_model(run, sex_specific)
    spec = TimelineSpec.load(run / "data")
    return module.source(spec, build_masks(spec, sex_specific))


def plan_of(settings: PlanSettings, num_twins: int) -> Plan:
    """The plan that settings state.

    Raises:
        ConfigError: Naming the setting.
    """
    return Plan.of(settings.base(), settings.strata or (), settings.balance or (), num_twins)


def write_timelines(
    chosen: GenerateSettings, model: TimelineModel | TimelineSource, output: Output, run: str
) -> list[Path]:
    """The files of new twins, one per tile; those of a killed run are kept.

    Args:
        chosen: The settings.
        model: Of the run.
        output: Where scratch files go.
        run: Names the state of the run; ids follow from it.

    Raises:
        ConfigError: If the plan asks for what the model does not know.
    """
    plan, prior = plan_of(chosen.plan, chosen.n), load_prior_of(chosen.timelines)
    plan.targets(model.spec.profile)  # refuses what is unknown before anything is drawn
    folder, writer = output.scratch("timelines"), RecordWriter(model.spec)
    blocks = []
    for start in progress(range(0, chosen.n, TILE), "timelines", unit="tile"):
        path = folder / f"{start:08d}.arrow"
        blocks.append(path)
        if path.is_file():
            continue
        mass, counts = MaskedMass(), BlockCounts()
        num_needed = min(TILE, chosen.n - start)
        people = draw_people(model, start, num_needed, seed=chosen.seed, plan=plan, prior=prior)
        rows = []
        for timeline, target in zip(draw_tile(model, people, Noise(people.keys), mass), people.targets, strict=False):
            counts.count(timeline, model.spec, target.facts)
            rows += writer.rows(timeline, twin_subject_id(run, chosen.seed, timeline.index))
        counts.add_mass(mass)
        write_block(path, rows_to_table(rows), counts)
    return blocks


__all__ = ["load_model", "plan_of", "write_timelines"]
