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
from medtwin.config import quote_override
from medtwin.core.errors import MedtwinError
from medtwin.core.paths import config_dir

VERBS = {
    "run": "everything in one go: hospital, dataset, models, twins, check, export, trial (the main job)",
    "hospital": "make a small source hospital: FHIR records and DICOM studies with known truth",
    "ingest": "read FHIR, DICOM, a MEDS dataset, or images with a label table into a dataset",
    "train": "train a model on a dataset: the temporal VAE of timelines, the diffusion model of scans",
    "generate": "make synthetic twins from trained runs: timelines, then the scans they call for",
    "check": "measure a synthetic dataset against the real one, with baselines, intervals and gates",
    "simulate": "simulate a two-arm group-sequential trial on a cohort",
    "compare": "set trial designs side by side under scenarios, on the same simulated patients",
    "export": "write a dataset as FHIR, DICOM or CSV",
    "scan": "look for identifiers of the source in files that are to leave",
    "validate": "check a dataset directory and say what is wrong with it",
}

# What the user's machine says no to: no space, no permission, no such device.
_MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)

USAGE = """usage: medtwin VERB [key=value ...]
       medtwin VERB --help

medtwin turns a hospital's FHIR records and DICOM scans into synthetic twins, and says how good they are.

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
    """What a verb does, its settings with their defaults, and the options of the groups that it uses."""
    text = (config_dir() / f"{verb}.yaml").read_text(encoding="utf-8")
    head, body = _head_and_body(text)
    shown = re.sub(r"^defaults:\n(?:  .*\n)+", "", body, flags=re.MULTILINE)  # Hydra's own business
    settings = "\n".join(f"  {line}" if line else "" for line in shown.strip("\n").splitlines())
    groups = _groups_of(text)
    tail = "".join(_describe_group(group, chosen) for group, chosen in groups.items())
    tail = (
        f"\n\noptions of the groups, as in group=option (* is chosen unless you say otherwise):\n{tail}"
        if tail
        else "\n"
    )
    return f"usage: medtwin {verb} [key=value ...]\n\n" + f"{head.strip()}\n\nsettings:\n{settings}{tail}"


def _head_and_body(text: str) -> tuple[str, str]:
    """The comment that a config begins with, without its marks, and the rest."""
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    head = [line.removeprefix("#").removeprefix(" ") for line in lines[:start]]
    return "\n".join(line for line in head if not line.startswith("@package")), "\n".join(lines[start:]) + "\n"


_CHOICE = re.compile(r"^  - (?:override )?/?([\w/]+): *(\w+)", re.MULTILINE)


def _groups_of(text: str) -> dict[str, set[str]]:
    """The groups that a primary config uses, also by way of their options, and what is chosen of each by itself."""
    folders = {path.parent.relative_to(config_dir()).as_posix() for path in config_dir().glob("*/**/*.yaml")}
    used: dict[str, set[str]] = {}
    waiting = [(text, True)]
    while waiting:
        config, is_chosen = waiting.pop(0)
        for group, option in _CHOICE.findall(config):
            if group not in folders:
                continue
            if group not in used:
                options = (config_dir() / group).glob("*.yaml")
                waiting += [(path.read_text(encoding="utf-8"), is_chosen and path.stem == option) for path in options]
            used.setdefault(group, set()).update({option} if is_chosen else ())
    used.update({group: set() for group in sorted(folders) if f"{group}=" in text and group not in used})
    return used


def _describe_group(group: str, chosen: set[str]) -> str:
    """A group's options, the chosen one marked, with the first line of what each says of itself."""
    lines = [f"  {group}"]
    paths = sorted((config_dir() / group).glob("*.yaml"))
    width = max(len(path.stem) for path in paths) + 1
    for path in paths:
        head, _ = _head_and_body(path.read_text(encoding="utf-8"))
        mark = "*" if path.stem in chosen else ""
        lines.append(f"    {path.stem + mark:<{width}}  {head.strip().partition(chr(10))[0]}".rstrip())
    return "\n".join(lines) + "\n"


def _run(verb: str, arguments: list[str]) -> int:
    from medtwin.config import compose

    overrides, config_folder, flags = _split_arguments(arguments)
    if "--multirun" in flags:
        from medtwin.pipelines.sweep import sweep

        return sweep(verb, overrides, config_folder)
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
