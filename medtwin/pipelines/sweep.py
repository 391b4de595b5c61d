"""`medtwin VERB -m`: a verb for every combination of values, here one after the other, or as jobs of SLURM."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtwin.config import explained_errors, extra_overrides
from medtwin.core.errors import ConfigError, MedtwinError
from medtwin.core.paths import config_dir

_NOTES = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.sweep.subdir=.")
_LAUNCHER = "hydra/launcher"
_MAX_NAME = 200


def sweep(verb: str, overrides: Sequence[str], config_folder: Path | None = None) -> int:
    """Runs every combination; each writes a folder of its own below `out`, named by the values that are its own.

    An `out` that itself varies, as in `out='my/${seed}'` or `out=a,b`, is taken as it is.

    Args:
        verb: What to run.
        overrides: Settings, of which some have several values.
        config_folder: A further folder of options.

    Returns:
        0, or 2 if the user can mend what stopped one of them; the others ran.

    Raises:
        ConfigError: If the settings do not compose, or a launcher needs what is not installed.
    """
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    launcher = next((value for key, _, value in _split(overrides) if key == _LAUNCHER), "basic")
    if launcher != "basic":
        _require_submitit(launcher)
    job = Job(verb, tuple(overrides), names_out=not _varies_out(overrides))
    with _notes(launcher) as folder, explained_errors(verb, overrides, config_folder):
        version.setbase("1.3")
        hydra = Hydra.create_main_hydra2(f"medtwin-{verb}", create_config_search_path(str(config_dir())))
        given = [*extra_overrides(config_folder), *_NOTES, f"hydra.sweep.dir={folder}", *overrides]
        try:
            batches = hydra.multirun(verb, job, given, with_log_configuration=False)
        finally:
            GlobalHydra.instance().clear()
    failed = [result for batch in batches for result in batch if result.return_value is not None]
    return 2 if failed else 0


@dataclass(frozen=True)
class Job:
    """One combination; travels to the machine that runs it.

    Attributes:
        verb: What to run.
        given: The overrides as given; those that a job has beside them are its own.
        names_out: Whether its own overrides name a folder below `out`.
    """

    verb: str
    given: tuple[str, ...]
    names_out: bool

    def __call__(self, config: Any) -> str | None:
        """Runs it; returns what is wrong if the user can mend it."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        own = [text for text in HydraConfig.get().overrides.task if text not in self.given]
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        if self.names_out and own:
            resolved["out"] = str(Path(resolved["out"]) / folder_name(own))
        try:
            importlib.import_module(f"medtwin.pipelines.{self.verb}").main(resolved)
        except MedtwinError as error:
            sys.stderr.write(f"medtwin: {', '.join(own) or self.verb}: {error}\n")
            return str(error)
        return None


def folder_name(overrides: Sequence[str]) -> str:
    """A folder's name for some overrides, with nothing in it that a file system or a shell minds.

    >>> folder_name(["optimizer.lr=0.001", "net=monai", "data.path=a/b c"])
    'optimizer.lr=0.001,net=monai,data.path=a_b_c'
    """
    name = ",".join(re.sub(r"[^\w.=+-]+", "_", text.lstrip("+")) for text in overrides)
    if len(name) <= _MAX_NAME:
        return name
    import hashlib

    return f"{name[: _MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _split(overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    return [override.lstrip("+").partition("=") for override in overrides]


def _varies_out(overrides: Sequence[str]) -> bool:
    """Whether `out` differs between the combinations by itself."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for override in overrides:
        key, _, value = override.partition("=")
        if key == "out":
            try:
                return "${" in value or OverridesParser.create().parse_override(override).is_sweep_override()
            except HydraException:
                return False  # composing says what is wrong with it
    return False


@contextmanager
def _notes(launcher: str) -> Iterator[str]:
    """Where Hydra and submitit keep their notes: jobs elsewhere need them till they end, others not at all."""
    if launcher != "basic":
        yield "${out}/.slurm"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def _require_submitit(launcher: str) -> None:
    """Prepares submitit: its jobs get SIGUSR1, as SLURM users expect, before their time is up."""
    if importlib.util.find_spec("hydra_plugins") is None or not _has_submitit():
        raise ConfigError(
            f"hydra/launcher={launcher} needs a package that is not installed: pip install 'medtwin[slurm]'"
        )
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    import shutil

    if "slurm" in launcher and shutil.which("srun") is None:
        raise ConfigError(f"hydra/launcher={launcher} needs SLURM's commands (sbatch, srun): this machine has none")


def _has_submitit() -> bool:
    names = ("submitit", "hydra_plugins.hydra_submitit_launcher")
    return all(importlib.util.find_spec(name) is not None for name in names)
