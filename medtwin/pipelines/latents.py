"""The latents of a temporal VAE run at the times of a dataset's images, which the diffusion model is conditioned on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import write_table
from medtwin.pipelines.latent_laws import PRIOR
from medtwin.pipelines.runs import load_run
from medtwin.pipelines.say import progress
from medtwin.timelines.priors import Prior, load_prior
from medtwin.timelines.priors.latents import latents_at
from medtwin.timelines.reading.spec import TimelineSpec
from medtwin.timelines.training.module import TemporalVAEModule
from medtwin.training.threads import torch_threads

_LATENT = pa.list_(pa.float32())


def load_timelines(run: Path) -> tuple[TemporalVAEModule, TimelineSpec]:
    """The model and the spec of a temporal VAE run.

    Raises:
        ConfigError: If the run holds another model.
        MedtwinError: If it is no finished run.
    """
    module, _ = load_run(run)
    if not isinstance(module, TemporalVAEModule):
        raise ConfigError(f"{run} must be the run of a temporal VAE (model=temporal_vae)")
    return module, TimelineSpec.load(run / "data")


def load_prior_of(run: Path) -> Prior | None:
    """The prior that a temporal VAE run holds; None where it holds none, which means N(0, I).

    Raises:
        ConfigError: If the file is no prior.
    """
    path = run / "data" / PRIOR
    return load_prior(path) if path.is_file() else None


def write_latents(run: Path, dataset: Dataset, path: Path) -> None:
    """Writes a parquet file: series_uid and latent of every image whose subject has a record by then.

    Raises:
        ConfigError: If the run is none of a temporal VAE.
    """
    module, spec = load_timelines(run)
    images = dataset.images().select(["subject_id", "time", "series_uid"]).to_pylist()
    of_subject: dict[int, list[tuple[int | None, str]]] = {}
    for row in images:
        minute = None if row["time"] is None else int(np.datetime64(row["time"], "m").astype(np.int64))
        of_subject.setdefault(row["subject_id"], []).append((minute, row["series_uid"]))
    uids, latents = [], []
    wanted = pa.array(sorted(of_subject), pa.int64())
    for table in progress(dataset.iter_events(), "latents", total=len(dataset.shards()), unit="shard"):
        chosen = table.filter(pc.is_in(table["subject_id"], value_set=wanted))
        here = set(pc.unique(chosen["subject_id"]).to_pylist())
        moments = {subject: [minute for minute, _ in rows] for subject, rows in of_subject.items() if subject in here}
        with torch_threads(1):  # the same on any number of cores
            latents_of = latents_at(module.average, spec, chosen, moments)
        for subject, found in latents_of.items():
            for (_, uid), latent in zip(of_subject[subject], found, strict=True):
                if latent is not None:
                    uids.append(uid)
                    latents.append(latent.tolist())
    write_table(path, pa.table({"series_uid": pa.array(uids, pa.string()), "latent": pa.array(latents, _LATENT)}))
