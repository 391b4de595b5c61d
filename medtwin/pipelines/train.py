"""`medtwin train`: a dataset -> a run directory; continues after a kill as if it had not been killed."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtwin.config import build, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.files import atomic_file, file_digest
from medtwin.core.findings import errors_in
from medtwin.core.output import Output, is_finished, writing
from medtwin.core.provenance import Provenance, describe_input, write_provenance
from medtwin.pipelines.canaries import FOLDER as CANARIES
from medtwin.pipelines.canaries import plant_canaries
from medtwin.pipelines.runs import (
    CONFIG,
    MODEL,
    RunData,
    TrainSettings,
    build_module,
    checkpoint_file,
    process_rank,
    with_sizes,
)
from medtwin.pipelines.say import tell
from medtwin.pipelines.sources import fingerprint, public_config, require_outside

_HELPER_PATIENCE_S = 900


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    train(settings(TrainSettings, config))


def train(chosen: TrainSettings) -> Path:
    """Trains and writes the run, or says that it is there; returns where it is.

    Raises:
        MedtwinError: For every fault that the user can mend.
        KeyboardInterrupt: If it was asked to stop; what was done is saved.
    """
    dataset = _open(chosen.dataset)
    require_outside(chosen.out, dataset.path)
    record = _record(chosen, dataset)
    if rank := process_rank():
        _help(chosen, dataset, rank)
        return chosen.out
    with writing(chosen.out, record, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        start = time.perf_counter()
        try:
            _make_run(chosen, dataset, output, record)
        except ConfigError:
            if not any(output.scratch("checkpoints").iterdir()):
                shutil.rmtree(output.path)  # nothing was learned: other settings need not be told to overwrite it
            raise
        told = _summary(output.result("fit"), time.perf_counter() - start)
    tell(f"{chosen.out}: {chosen.name}, {told}")
    return chosen.out


def _make_run(chosen: TrainSettings, dataset: Dataset, output: Output, record: Mapping[str, Any]) -> None:
    data = _attach(chosen, dataset, output, output.scratch("data"))
    filled = _filled(chosen, data)
    _write_config(output.path, filled, record)
    if not output.is_done("fit"):
        output.mark_done("fit", _fit(filled, data, output))
    _finish(filled, dataset, data, output, record)


def _filled(chosen: TrainSettings, data: RunData) -> TrainSettings:
    """The settings with what only the data, and the autoencoder that it is encoded by, know."""
    filled = with_sizes(chosen, data.sizes)
    if chosen.autoencoder is None:
        return filled
    with_autoencoder = importlib.import_module("medtwin.pipelines.autoencoders").with_autoencoder
    known: TrainSettings = with_autoencoder(filled, chosen.autoencoder, data)
    return known


def _open(path: Path) -> Dataset:
    dataset = open_dataset(path)
    if "train" not in dataset.splits:
        raise DatasetError(f"{path} has no subject in the train split: there is nothing to learn from")
    if not dataset.is_finished and (errors := errors_in(dataset.validate())):  # `ingest` has validated its own
        raise DatasetError(f"{path} is not valid: {errors[0]}")
    return dataset


def _record(chosen: TrainSettings, dataset: Dataset) -> dict[str, Any]:
    """What determines the run: settings, and the content of what they name."""
    state = dataset.manifest_hash() if dataset.is_finished else fingerprint(dataset.path)
    record = {**public_config(chosen), "dataset_state": state}
    for name in ("canaries", "autoencoder"):
        if not getattr(chosen, name):
            del record[name]  # runs of before knew none
    if chosen.latents is not None:
        if not is_finished(chosen.latents):
            raise ConfigError(f"latents={chosen.latents} must be the finished run of a temporal VAE")
        record["latents_state"] = file_digest(chosen.latents / "manifest.json")
    if chosen.autoencoder is None and chosen.model.get("autoencoder") is not None:
        raise ConfigError(f"autoencoder=... is required by {chosen.name}: a finished run of model=scan_autoencoder")
    if chosen.autoencoder is not None:
        if not is_finished(chosen.autoencoder):
            raise ConfigError(f"autoencoder={chosen.autoencoder} must be a finished run of model=scan_autoencoder")
        record["autoencoder_state"] = file_digest(chosen.autoencoder / "manifest.json")
    if chosen.ckpt_path is not None:
        record["ckpt_state"] = file_digest(checkpoint_file(chosen.ckpt_path))
    return record


def _attach(chosen: TrainSettings, dataset: Dataset, output: Output, cache: Path) -> RunData:
    """The data module with its data; the latents are computed first."""
    latents = None
    if chosen.latents is not None:
        latents = output.scratch("latents") / "latents.parquet"
        if not output.is_done("latents"):
            importlib.import_module("medtwin.pipelines.latents").write_latents(chosen.latents, dataset, latents)
            output.mark_done("latents")
    data: RunData = build(chosen.data, "data")
    if chosen.canaries:
        folder = output.scratch(f"canaries-{cache.name}")  # each process makes the same ones for itself
        dataset = plant_canaries(dataset, chosen.canaries, seed=chosen.seed, folder=folder)
    if chosen.cache is not None and not getattr(data, "shares_cache", False):
        raise ConfigError(
            f"cache= is for models of images, model {chosen.name} keeps its data in its run: leave it out"
        )
    data.attach(dataset, seed=chosen.seed, cache=chosen.cache or cache, latents=latents)
    return data


def _write_config(folder: Path, chosen: TrainSettings, record: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    resolved = {**public_config(chosen), "dataset_state": record["dataset_state"]}
    with atomic_file(folder / CONFIG, "w") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(resolved)))


def _fit(chosen: TrainSettings, data: RunData, output: Output) -> dict[str, Any]:
    from medtwin.pipelines.counting import Counted, count
    from medtwin.pipelines.fitting import fit
    from medtwin.training.threads import torch_threads

    module = build_module({name: getattr(chosen, name) for name in ("model", "net", "optimizer")}, chosen.seed)
    if chosen.autoencoder is not None:
        importlib.import_module("medtwin.pipelines.autoencoders").load_autoencoder(module, chosen.autoencoder)
    with torch_threads(chosen.threads):
        if isinstance(module, Counted):
            return count(chosen, module, data, output.scratch("checkpoints"))
        return fit(chosen, module, data, output.path, output.scratch("checkpoints"))


def _finish(chosen: TrainSettings, dataset: Dataset, data: RunData, output: Output, record: Mapping[str, Any]) -> None:
    """Puts the files of a finished run in their places."""
    from medtwin.training.checkpoints import BEST, FINAL

    checkpoints = output.scratch("checkpoints")
    chosen_weights = next(path for path in (checkpoints / BEST, checkpoints / FINAL) if path.is_file())
    with atomic_file(output.path / MODEL) as target, chosen_weights.open("rb") as source:
        shutil.copyfileobj(source, target)
    (output.path / "data").mkdir(exist_ok=True)
    data.save(output.path / "data")
    if chosen.canaries:
        kept = output.scratch("canaries-data") / CANARIES
        shutil.copytree(kept, output.path / CANARIES, dirs_exist_ok=True)
    if chosen.prior is not None:
        config = {name: getattr(chosen, name) for name in ("model", "net", "optimizer", "prior", "seed")}
        write_latent_laws = importlib.import_module("medtwin.pipelines.latent_laws").write_latent_laws
        write_latent_laws(config, data, output.path / MODEL, output.path / "data")
    if str(chosen.model.get("_target_")).endswith(".ScanAutoencoderModule"):
        config = {name: getattr(chosen, name) for name in ("model", "net", "optimizer", "seed")}
        write_reconstruction = importlib.import_module("medtwin.pipelines.autoencoders").write_reconstruction
        write_reconstruction(config, data, output.path / MODEL, output.path / "data")
    inputs = [describe_input("dataset", dataset.path)]
    named = {"latents": chosen.latents, "autoencoder": chosen.autoencoder, "checkpoint": chosen.ckpt_path}
    inputs += [describe_input(role, path) for role, path in named.items() if path is not None]
    depth = max(one.lineage_depth for one in inputs)
    learned = sum(split == "train" for split in dataset.subject_splits().values())
    made = Provenance("train", dataset.origin, record, chosen.seed, inputs, depth, training_subjects=learned)
    write_provenance(output.path, made)


def _summary(result: Mapping[str, Any], seconds: float) -> str:
    best = result["best"]
    score = "no validation" if result["monitor"] else "the weights of the end"
    if best is not None:
        score = f"best {result['monitor']} {best:.4f}"
    return f"{result['parameters']:,} parameters, {result['steps']:,} steps, {score}, {seconds:.0f} s"


def _help(chosen: TrainSettings, dataset: Dataset, rank: int) -> None:
    """What the other processes of distributed training do: train along, and write nothing of the run.

    Each prepares the data for itself, in a folder of its own inside the first process's, which waits for them all.
    """
    partial = chosen.out.with_name(chosen.out.name + ".partial")
    deadline = time.monotonic() + _HELPER_PATIENCE_S
    while not (partial / CONFIG).is_file():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"process {rank} waited {_HELPER_PATIENCE_S} s for {partial}: the first has not come so far"
            )
        time.sleep(0.2)
    output = Output(partial, resumed=True)
    data = _attach(chosen, dataset, output, output.scratch(f"data-{rank}"))
    _fit(_filled(chosen, data), data, output)
