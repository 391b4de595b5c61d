"""The command line in processes of its own, forked from one that has imported the libraries: those take seconds.

As a module it is that process: it reads requests as lines of JSON and answers each with the exit code. Nothing of
medtwin is imported before the fork. What differs from `python -m medtwin`: libraries are there before a verb asks for
them, and strings hash the same in all commands.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

FORK = multiprocessing.get_context("fork")
ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "lightning.pytorch", "monai.networks.nets", "sklearn.ensemble", "scipy.stats", "hydra", "pandas")


class WarmPython:
    """Runs `medtwin` in forks.

    Args:
        environment: Of all commands.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.e2e.warm"]
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **environment}  # what the command line sets before libraries load
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` would say of a command, its output as text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in ("out", "err")]
            self._process.stdin.write(json.dumps([arguments, *map(str, (Path.cwd(), *paths))]) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            out, err = (path.read_text(encoding="utf-8") for path in paths)
        return subprocess.CompletedProcess(arguments, code, out, err)

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        command = FORK.Process(target=_become, args=json.loads(line))
        command.start()
        command.join()
        sys.stdout.write(f"{command.exitcode}\n")
        sys.stdout.flush()


def _become(arguments: list[str], folder: str, out: str, err: str) -> None:
    """Makes a fork the command."""
    os.chdir(folder)
    for number, path in enumerate((os.devnull, out, err)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    importlib.import_module("numpy").random.seed()  # as in a new process, no two are alike
    sys.argv = ["medtwin", *arguments]
    runpy.run_module("medtwin", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
