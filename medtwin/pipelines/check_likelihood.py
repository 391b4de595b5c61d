"""What the model that made the twins says of them, of those it learned from, and of those that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtwin.check.attack_rows import Membership
from medtwin.check.attacks.membership import membership
from medtwin.check.compare import reference_splits
from medtwin.check.estimates import Distribution, Measure
from medtwin.check.likelihoods import LogLikelihoods, likelihood_measures
from medtwin.core.dataset import Dataset
from medtwin.pipelines.latents import load_timelines
from medtwin.pipelines.say import progress
from medtwin.timelines.training.likelihood import Bounds, evidence_bounds
from medtwin.training.threads import torch_threads


def measure_likelihood(
    run: Path, real: Dataset, synthetic: Dataset, *, seed: int, num_resamples: int
) -> tuple[list[Measure], list[Distribution], Membership]:
    """The measures of likelihood, from the evidence lower bound of a temporal VAE run, and whom it tells in training.

    The control is every split of `real` that is not train; tuning has stopped the training early, which is all that the
    model has seen of it.

    Raises:
        ConfigError: If the run holds another model.
        MedtwinError: If it is no finished run.
    """
    module, spec = load_timelines(run)
    splits = reference_splits(real)
    sides = ((real, splits[0]), (synthetic, list(synthetic.splits)), (real, splits[1]))
    parts = [(number, dataset, split) for number, (dataset, names) in enumerate(sides) for split in names]
    found: list[list[Bounds]] = [[], [], []]
    with torch_threads(1):  # the same on any number of cores
        for number, dataset, split in progress(parts, "likelihood", total=len(parts), unit="split"):
            for table in dataset.iter_events(split):
                found[number].append(evidence_bounds(module.average, spec, table, seed=seed))
    train, twins, control = (_joined(bounds) for bounds in found)
    measures, shown = likelihood_measures(train, twins, control, seed=seed, num_resamples=num_resamples)
    told = membership("likelihood per event", train.usable().per_event, control.usable().per_event)
    return measures, shown, told


def _joined(bounds: Sequence[Bounds]) -> LogLikelihoods:
    nats = np.concatenate([np.zeros(0), *(one.nats for one in bounds)])
    positions = np.concatenate([np.zeros(0, np.int64), *(one.num_positions for one in bounds)])
    return LogLikelihoods(nats, positions)
