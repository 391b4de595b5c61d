"""The Trainer of `medtwin train`: built from the settings, resumed, run, and left in an orderly way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn, cast

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from lightning.pytorch.utilities.model_helpers import is_overridden

from medtwin.config import build
from medtwin.core.errors import ConfigError
from medtwin.pipelines.runs import RunData, TrainSettings, checkpoint_file, process_rank
from medtwin.pipelines.say import tell
from medtwin.training.callbacks import Checkpoints, Preemption, StepSeeds, StopOnNonFinite, Stopped
from medtwin.training.checkpoints import BEST, LAST, read_score
from medtwin.training.loggers import MetricsTable
from medtwin.training.preemption import requeue
from medtwin.training.quiet import quiet
from medtwin.training.sharding import Sharded

_EXTRAS = {"wandb": "wandb", "mlflow": "mlflow"}


def fit(chosen: TrainSettings, module: LightningModule, data: RunData, run: Path, folder: Path) -> dict[str, Any]:
    """Trains, from the last checkpoint in a folder where there is one; returns what to tell of it.

    Args:
        chosen: The settings, sizes filled in.
        module: The model.
        data: Its data, attached.
        run: The run directory in the making; the loggers write there.
        folder: Where the checkpoints stand.

    Raises:
        ConfigError: If the settings do not fit each other, the machine, or the checkpoint to start from.
        KeyboardInterrupt: If it was asked to stop; what was done is saved.
    """
    with quiet():
        start = _where_to_start(chosen, module, folder)
        trainer = _trainer(chosen, data, run, folder)
        if isinstance(trainer.strategy, Sharded) and not is_overridden("configure_model", module):
            raise ConfigError(
                f"trainer=fsdp cannot divide the weights of {chosen.name}: use trainer=ddp, or a model that "
                "denoises images"
            )
        try:
            trainer.fit(module, datamodule=cast(LightningDataModule, data), ckpt_path=start, weights_only=True)
        except Stopped as stopped:
            _leave(stopped)
        except MisconfigurationException as error:
            raise ConfigError(f"trainer: {error}") from error
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # how Lightning ends after Ctrl-C
                raise KeyboardInterrupt from stop
            raise
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            _close(logger)
    monitor = next((c.monitor for c in trainer.checkpoint_callbacks if isinstance(c, Checkpoints)), None)
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "monitor": monitor,
        "best": read_score(folder / BEST),
    }


def _trainer(chosen: TrainSettings, data: RunData, run: Path, folder: Path) -> Trainer:
    given = dict(chosen.trainer)
    configured = {name: spec for name, spec in (chosen.callbacks or {}).items() if spec is not None}
    if not _has_batches(data.val_dataloader()):
        tell("the tuning split gives nothing to validate on: no validation, no early stop; the last weights are kept")
        given["limit_val_batches"] = 0
        configured = {name: spec for name, spec in configured.items() if not _needs_validation(spec)}
    callbacks: list[Callback] = [StepSeeds(chosen.seed), StopOnNonFinite()]
    callbacks += [build(spec, f"callbacks.{name}") for name, spec in configured.items()]
    if not any(isinstance(callback, Checkpoints) for callback in callbacks):
        callbacks.append(Checkpoints(every_minutes=None, monitor=None))
    given["precision"] = _precision(given.get("precision", "auto"), given.get("accelerator", "auto"))
    plugins = [environment] if (environment := _environment()) else None
    try:
        trainer: Trainer = build(
            {
                **given,
                "callbacks": [*callbacks, Preemption()],
                "logger": _loggers(chosen.logger or {}, run, _resumed_step(folder)) or False,
                "default_root_dir": folder,
                "enable_checkpointing": True,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                "plugins": plugins,
            },
            "trainer",
        )
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error}") from error
    return trainer


def _has_batches(loaders: Any) -> bool:
    if loaders is None:
        return False
    return any(len(loader) > 0 for loader in loaders) if isinstance(loaders, (list, tuple)) else len(loaders) > 0


def _needs_validation(spec: Mapping[str, Any]) -> bool:
    is_ours = str(spec.get("_target_", "")).startswith("medtwin.")
    return str(spec.get("monitor", "")).startswith("val/") and not is_ours


def _precision(name: Any, accelerator: str) -> Any:
    """bf16-mixed where the processor has matrix units for it, else 32-true: elsewhere on CPUs bf16 is slower."""
    if name != "auto":
        return name
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    is_cpu = accelerator in ("auto", "cpu") and not torch.backends.mps.is_available()
    return "bf16-mixed" if is_cpu and torch.cpu._is_amx_tile_supported() else "32-true"


def _environment() -> LightningEnvironment | SLURMEnvironment | None:
    """How the processes find each other under SLURM; the requeueing is `Preemption`'s."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


def _loggers(specs: Mapping[str, Any], run: Path, step: int) -> list[Logger]:
    """The loggers, each writing into the run directory.

    Raises:
        ConfigError: If one needs a package that is not installed.
    """
    loggers: list[Logger] = []
    for name, spec in specs.items():
        if spec is None:
            continue
        factory = build(spec, f"logger.{name}")
        if isinstance(factory, Logger):
            loggers.append(factory)
            continue
        more = {"purge_step": step} if step and factory.func is TensorBoardLogger else {}
        place = run if factory.func is MetricsTable else run / name
        try:
            loggers.append(factory(save_dir=str(place), **more))
        except ModuleNotFoundError as error:
            extra = f"'medtwin[{_EXTRAS[name]}]'" if name in _EXTRAS else str(error.name or name)
            raise ConfigError(f"logger={name} needs a package that is not installed: pip install {extra}") from error
    return loggers


def _resumed_step(folder: Path) -> int:
    path = folder / LAST
    return (
        int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]) if path.is_file() else 0
    )


def _close(logger: Logger) -> None:
    if isinstance(logger, MetricsTable):
        logger.close()
    elif isinstance(logger, TensorBoardLogger):
        place = Path(logger.log_dir)
        (place / "hparams.yaml").unlink(missing_ok=True)  # empty: config.yaml has them
        for number, path in enumerate(_by_age(place.glob("events.out.tfevents.*"))):
            path.rename(place / f"events.out.tfevents.{number}")  # its name said which machine and process wrote it


def _by_age(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _where_to_start(chosen: TrainSettings, module: LightningModule, folder: Path) -> Path | None:
    """The checkpoint to resume: the run's own, else ckpt_path if it is a whole one; mere weights are loaded here.

    Raises:
        ConfigError: If ckpt_path is no checkpoint, or one of another model.
    """
    if (folder / LAST).is_file():
        return folder / LAST
    if chosen.ckpt_path is None:
        return None
    path = checkpoint_file(chosen.ckpt_path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        weights = content["state_dict"]
    except (UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"ckpt_path={path} is no checkpoint of weights that can be read safely") from error
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        faults = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ConfigError(
            f"ckpt_path={path} is of another model or other sizes: {faults[0]} ({len(faults)} differences)"
        ) from error
    return path if "optimizer_states" in content and "loops" in content else None


def _leave(stopped: Stopped) -> NoReturn:
    """Says what was saved, asks SLURM to queue the job again after a warning signal, and stops as after Ctrl-C."""
    saved = "nothing was saved" if stopped.saved_step is None else f"saved at step {stopped.saved_step:,}"
    asked = ""
    if stopped.signum.name.startswith("SIGUSR") and process_rank() == 0 and "SLURM_JOB_ID" in os.environ:
        job = requeue()
        asked = f"; SLURM will run job {job} again" if job else "; SLURM did not take the job back: submit it again"
    tell(f"stopped by {stopped.signum.name}: {saved}{asked}")
    raise KeyboardInterrupt from stopped
