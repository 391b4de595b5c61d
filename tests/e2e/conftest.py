from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medtwin.core.pseudonyms import load_or_create_key
from tests.e2e.warm import WarmPython

Medtwin = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "medtwin", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONWARNINGS": "default"}


@pytest.fixture(scope="session")
def medtwin() -> Iterator[Medtwin]:
    """Runs the command line in a process of its own; what it prints is checked for warnings and tracebacks.

    The process is a fork of one that has imported the libraries, unless `alone`, as what must give the same bytes is.
    """
    warm = WarmPython(environment())

    def _run(*arguments: object, code: int = 0, alone: bool = False) -> subprocess.CompletedProcess[str]:
        if alone:
            whole = command(*arguments)
            done = subprocess.run(whole, capture_output=True, text=True, env=environment(), check=False)
        else:
            done = warm.run([str(one) for one in arguments])
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return done

    yield _run
    warm.close()


@pytest.fixture(scope="session")
def hospital(medtwin: Medtwin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small embedded hospital with images."""
    out = tmp_path_factory.mktemp("hospital") / "hospital"
    medtwin("hospital", "n=40", "seed=3", f"out={out}")
    return out


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key of pseudonyms that is always the same, so that the same subjects stand in the same split every time."""
    path = tmp_path_factory.mktemp("key") / "key"
    load_or_create_key(path, b"medtwin tests, never a real key0")
    return path


@pytest.fixture(scope="session")
def dataset(medtwin: Medtwin, hospital: Path, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hospital, ingested under that key, which lies where a new one would."""
    out = tmp_path_factory.mktemp("dataset") / "dataset"
    private = out.with_name("dataset.private")
    private.mkdir(mode=0o700)
    shutil.copy2(key_file, private / "key")
    medtwin("ingest", f"source={hospital}", f"out={out}")
    return out
