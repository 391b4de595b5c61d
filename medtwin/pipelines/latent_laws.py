"""What is learned of the latents of a temporal VAE when its network is trained: a prior, and what probes read off z."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medtwin.config import build
from medtwin.core.errors import ConfigError
from medtwin.core.files import write_json
from medtwin.pipelines.runs import build_module
from medtwin.timelines.priors import PriorFactory, save_prior
from medtwin.timelines.priors.probes import encode_all, probe, probes_record
from medtwin.timelines.priors.shift import fit_shift
from medtwin.timelines.reading.data import TimelineDataModule
from medtwin.timelines.training.module import TemporalVAEModule

PRIOR, PROBES = "prior.npz", "probes.json"


def write_latent_laws(config: Mapping[str, Any], data: TimelineDataModule, weights: Path, folder: Path) -> None:
    """Writes shift.npz, prior.npz and probes.json; nothing where there is no latent.

    z is what the attributes let expect (shift.npz) and a residual, of which the configured prior is the law.
    Probes are fitted on training subjects and scored on tuning ones; without these there are none.

    Args:
        config: With the groups `model`, `net`, `optimizer` and `prior`, and `seed`.
        data: Attached.
        weights: The checkpoint that the run keeps.
        folder: Of the run's data.

    Raises:
        ConfigError: If the model has no latent to put a prior on, or the prior cannot be fitted.
    """
    module = build_module(config)
    if not isinstance(module, TemporalVAEModule):
        raise ConfigError("prior: only a temporal VAE (model=temporal_vae) has one")
    if module.net.latent_dim == 0:
        return
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["state_dict"])
    net = module.average.eval()
    means, log_vars = [], []
    with torch.inference_mode():
        for index in range(len(data.train)):
            posterior = net.encode(data.train[index])
            means.append(posterior.mean.numpy())
            log_vars.append(posterior.log_var.numpy())
    mean, log_var = np.concatenate(means), np.concatenate(log_vars)
    everybody = data.train.sequences.attributes()
    attributes = [everybody[index] for group in data.train.groups for index in group]
    shift = fit_shift(data.spec.profile, attributes, mean, log_var)
    shift.save(folder)
    factory: PriorFactory = build(config["prior"], "prior")
    residual, spread = shift.residual(data.spec.profile, attributes, mean), np.log(shift.spread).astype(np.float32)
    prior = factory.fit(residual, log_var - 2 * spread, seed=int(config["seed"]))
    save_prior(prior, folder / PRIOR)
    if data.tuning is not None:
        known, new = (encode_all(net, map(part.__getitem__, range(len(part)))) for part in (data.train, data.tuning))
        write_json(folder / PROBES, probes_record(probe(known, new, data.spec, seed=int(config["seed"]))))
