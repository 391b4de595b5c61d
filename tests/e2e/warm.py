"""The command line in processes of its own, forked from one that has imported the libraries: those take seconds.

As a module it is that process: it reads requests as lines of JSON and answers each with the exit code. Nothing of
medtwin is imported before the fork. What differs from `python -m medtwin`: libraries are there before a verb asks for
them, and strings hash the same in all commands.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "lightning.pytorch", "monai.networks.nets", "sklearn.ensemble", "scipy.stats", "hydra", "pandas")


class WarmPython:
    """Runs `medtwin` in forks.

    Args:
        environment: Of all commands.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.e2e.warm"]
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
        arguments, folder, out, err = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(arguments, folder, (os.devnull, out, err))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


def _become(arguments: list[str], folder: str, files: tuple[str, str, str]) -> None:
    """Makes a fork the command, to its exit."""
    os.chdir(folder)
    for number, path in enumerate(files):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    importlib.import_module("numpy").random.seed()  # as in a new process, no two are alike
    sys.argv = ["medtwin", *arguments]
    try:
        runpy.run_module("medtwin", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - what the interpreter would do with it
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries are not taken down, which would take as long as loading them


if __name__ == "__main__":
    _serve()
