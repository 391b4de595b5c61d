"""The command line: `medtwin <verb> key=value ...`. Loads a verb's code only when it runs."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from medtwin import __version__
from medtwin.core.errors import MedtwinError
from medtwin.core.paths import config_dir

VERBS = {
    "run": "everything in one go: hospital, ingest, export (the main job)",
    "hospital": "make a small source hospital: FHIR records and DICOM studies with known truth",
    "ingest": "read FHIR, DICOM, a MEDS dataset, or images with a label table into a dataset",
    "export": "write a dataset as FHIR, DICOM or CSV",
    "validate": "check a dataset directory and say what is wrong with it",
}

# What the user's machine says no to: no space, no permission, no such device.
_MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)

USAGE = """usage: medtwin VERB [key=value ...]
       medtwin VERB --help

medtwin turns a hospital's FHIR records and DICOM scans into datasets, and back.

verbs:
{verbs}

options:
  -h, --help           show this page, or a verb's settings
  --version            show the version
  --config-dir DIR     look for further options in DIR first
  --cfg                print the resolved settings and stop
  -m, --multirun       run once for every combination of the values in key=a,b,c

Settings are key=value pairs, as Hydra reads them: medtwin hospital n=200 seed=1 out=my/hospital
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a verb and exits: 0 done, 1 stopped by a fault of medtwin, 2 by a mistake of the user, 130 by Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # libgomp's threads spin while they wait: on a busy machine that makes every torch step several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(_dispatch(arguments))
    except MedtwinError as error:
        _say(f"medtwin: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("medtwin: stopped; the same command continues where it was")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        _say(
            f"medtwin: {error.strerror}: {error.filename or 'the output'}; the same command continues when it is mended"
        )
        sys.exit(2)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {name:<10} {what}" for name, what in VERBS.items())
        sys.stdout.write(USAGE.format(verbs=verbs))
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"medtwin {__version__}\n")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        import difflib

        close = difflib.get_close_matches(verb, VERBS, n=1)
        raise MedtwinError(
            f"there is no verb {verb!r}" + (f": did you mean {close[0]}?" if close else ": see medtwin --help")
        )
    if "-h" in rest or "--help" in rest:
        sys.stdout.write(verb_help(verb))
        return 0
    return _run(verb, rest)


def verb_help(verb: str) -> str:
    """What a verb does and its settings with their defaults: the head and the body of its primary config."""
    text = (config_dir() / f"{verb}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    head = [line.removeprefix("#").removeprefix(" ") for line in lines[:start]]
    shown = re.sub(r"^defaults:\n(?:  .*\n)+", "", "\n".join(lines[start:]), flags=re.MULTILINE)  # Hydra's own business
    body = "\n".join(f"  {line}" if line else "" for line in shown.strip("\n").splitlines())
    groups = sorted(folder.name for folder in config_dir().iterdir() if folder.is_dir())
    options = [
        f"  {name}: {', '.join(sorted(f.stem for f in (config_dir() / name).glob('*.yaml')))}" for name in groups
    ]
    used = [
        line
        for line in options
        if line.split(":")[0].strip() + ":" in text or f"- {line.split(':')[0].strip()}" in text
    ]
    tail = "\n\noptions of the groups:\n" + "\n".join(used) if used else ""
    return f"usage: medtwin {verb} [key=value ...]\n\n" + "\n".join(head).strip() + f"\n\nsettings:\n{body}{tail}\n"


def _run(verb: str, arguments: list[str]) -> int:
    from medtwin.config import compose

    overrides, config_folder, flags = _split_arguments(arguments)
    if "--multirun" in flags:
        return _multirun(verb, overrides)
    config = compose(verb, overrides, config_folder)
    if "--cfg" in flags:
        from omegaconf import OmegaConf

        sys.stdout.write(OmegaConf.to_yaml(OmegaConf.create(config)))
        return 0
    importlib.import_module(f"medtwin.pipelines.{verb}").main(config)
    return 0


def _split_arguments(arguments: list[str]) -> tuple[list[str], Path | None, set[str]]:
    overrides, folder, flags = [], None, set()
    rest = iter(arguments)
    for argument in rest:
        if argument == "--config-dir":
            folder = Path(next(rest, ""))
            if not folder.is_dir():
                raise MedtwinError("--config-dir needs a folder that exists")
        elif argument in ("-m", "--multirun"):
            flags.add("--multirun")
        elif argument == "--cfg":
            flags.add("--cfg")
        elif argument.startswith("-") or "=" not in argument.lstrip("~"):
            raise MedtwinError(f"{argument!r} is no key=value pair and no option: see medtwin --help")
        else:
            overrides.append(quote_override(argument))
    return overrides, folder, flags


# Hydra's own functions and quoted or bracketed values pass; all else with its special characters is a plain string.
_HYDRA_VALUE = re.compile(
    r"""^(['"\[{]|(choice|range|interval|glob|shuffle|sort|tag|extend_list|int|float|str|bool|json_str)\()"""
)


def quote_override(override: str) -> str:
    """The override with its value quoted where Hydra's grammar would misread it, as in keep=condition(84114007).

    >>> quote_override("keep=condition(84114007)"), quote_override("n=5"), quote_override("seed=choice(1,2)")
    ("keep='condition(84114007)'", 'n=5', 'seed=choice(1,2)')
    """
    key, separator, value = override.partition("=")
    special = key == "keep" or any(character in value for character in "()=&|!")
    if not separator or not value or not special or _HYDRA_VALUE.match(value):
        return override
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _multirun(verb: str, overrides: list[str]) -> int:
    import tempfile

    import hydra
    from omegaconf import DictConfig, OmegaConf

    pipeline = importlib.import_module(f"medtwin.pipelines.{verb}")

    def task(config: DictConfig) -> None:
        resolved = OmegaConf.to_container(config, resolve=True)
        pipeline.main({str(key): value for key, value in dict(resolved).items()})  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as folder:  # Hydra's own notes of the sweep; every run keeps its provenance
        quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null")
        place = (f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=.")
        sys.argv = [f"medtwin {verb}", "--multirun", *quiet, *place, *overrides]
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=verb)(task)()
    return 0
