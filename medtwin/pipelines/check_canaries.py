"""What the canaries of a training run say of it: the audit of `medtwin check canaries=RUN`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medtwin.check.attack_rows import Membership
from medtwin.check.attacks.canaries import Heard, canary_measures, twin_scores
from medtwin.check.attacks.planting import Canaries
from medtwin.check.estimates import Measure
from medtwin.check.records import Vocabulary, read_records, tables_to_records
from medtwin.core.dataset import Dataset
from medtwin.pipelines.canaries import load_canaries
from medtwin.pipelines.runs import load_run
from medtwin.timelines.reading.spec import TimelineSpec
from medtwin.timelines.training.likelihood import evidence_bounds
from medtwin.timelines.training.module import TemporalVAEModule
from medtwin.training.threads import torch_threads

NUM_DRAWS = 4
"""Draws of z over which a canary's bound is averaged."""


def measure_canaries(run: Path, synthetic: Dataset, *, seed: int) -> tuple[list[Measure], list[Membership]]:
    """What a run's canaries say, by its likelihood where it is a temporal VAE, else by its twins.

    The other way is told among the memberships and judged by nothing: the better of two would claim too much.

    Raises:
        ConfigError: If the run planted no canaries.
    """
    canaries = load_canaries(run)
    vocabulary = Vocabulary()
    twins = read_records(synthetic, vocabulary, list(synthetic.splits))
    made = tables_to_records([canaries.events], vocabulary)
    scores = dict(zip(made.subjects.tolist(), twin_scores(made, twins).tolist(), strict=True))
    heard = {"canaries, by what twins have at one time": Heard.of(scores, canaries.roles)}
    if (by_model := _by_model(run, canaries, seed=seed)) is not None:
        heard["canaries, by likelihood per event"] = by_model
    return canary_measures(heard, judged=list(heard)[-1])


def _by_model(run: Path, canaries: Canaries, *, seed: int) -> Heard | None:
    """The bound per event of each canary; None where the run holds no temporal VAE."""
    module, _ = load_run(run)
    if not isinstance(module, TemporalVAEModule):
        return None
    spec = TimelineSpec.load(run / "data")
    with torch_threads(1):  # the same on any number of cores
        bounds = [evidence_bounds(module.average, spec, canaries.events, seed=seed + draw) for draw in range(NUM_DRAWS)]
    nats = np.mean([one.nats for one in bounds], axis=0) / np.maximum(bounds[0].num_positions, 1)
    return Heard.of(dict(zip(bounds[0].subject_id.tolist(), nats.tolist(), strict=True)), canaries.roles)
