from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from medtwin.core.files import verify_manifest
from tests.e2e.conftest import Medtwin, command, environment


def kill_and_repeat(arguments: list[str], out: Path, after_s: float) -> bool:
    """Kills the command after a while, runs it again to its end, and says whether the kill came before the end."""
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    was_killed = process.returncode == -signal.SIGKILL
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert verify_manifest(out) == []
    return was_killed


def check_kills(verb: str, arguments: list[str], tmp_path: Path, times: int, reference: Path, seconds: float) -> None:
    """`times` kills at random moments: each time the repeated run ends with the files of an uninterrupted one."""
    draw = random.Random(verb)
    wanted = (reference / "manifest.json").read_bytes()
    num_killed = 0
    for number in range(times):
        out = tmp_path / f"killed-{number}" / reference.name
        num_killed += kill_and_repeat([verb, *arguments, f"out={out}"], out, draw.uniform(0.2, seconds))
        assert (out / "manifest.json").read_bytes() == wanted
        assert {path.name for path in out.parent.iterdir()} <= {out.name, f"{out.name}.private"}
        shutil.rmtree(out.parent)
    assert num_killed >= times * 0.4


def prepare(
    verb: str, medtwin: Medtwin, hospital: Path, dataset: Path, tmp_path: Path
) -> tuple[list[str], Path, float]:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("ab" * 32)
    arguments = {
        "hospital": ["n=20", "seed=1"],
        "ingest": [f"source={hospital}", f"pseudonyms.key_file={key}"],
        "export": [f"dataset={dataset}"],
    }[verb]
    reference = tmp_path / "reference" / "made"
    start = time.perf_counter()
    medtwin(verb, *arguments, f"out={reference}")
    return arguments, reference, time.perf_counter() - start


@pytest.mark.parametrize(
    "verb", ["ingest", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("hospital", "export"))]
)
def test_a_killed_verb_ends_as_if_it_had_not_been_killed(
    verb: str, medtwin: Medtwin, hospital: Path, dataset: Path, tmp_path: Path
) -> None:
    arguments, reference, seconds = prepare(verb, medtwin, hospital, dataset, tmp_path)
    check_kills(verb, arguments, tmp_path, 2, reference, max(seconds * 0.5, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["hospital", "ingest", "export"])
def test_killed_twenty_times(verb: str, medtwin: Medtwin, hospital: Path, dataset: Path, tmp_path: Path) -> None:
    arguments, reference, seconds = prepare(verb, medtwin, hospital, dataset, tmp_path)
    check_kills(verb, arguments, tmp_path, 20, reference, seconds)


def test_two_at_once_the_second_says_why_it_stops(tmp_path: Path) -> None:
    arguments = ["hospital", "n=100", f"out={tmp_path / 'hospital'}"]
    first = subprocess.Popen(command(*arguments), env=environment(), stdout=subprocess.DEVNULL)
    lock = tmp_path / ".hospital.lock"
    while not (lock.exists() and lock.read_text().strip()):
        assert first.poll() is None
        time.sleep(0.01)
    second = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"is being written by another medtwin process (pid {first.pid})" in second.stderr
    assert first.wait(240) == 0
    assert verify_manifest(tmp_path / "hospital") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hospital"]


def test_ctrl_c_leaves_nothing_broken(tmp_path: Path) -> None:
    out = tmp_path / "hospital"
    arguments = ["hospital", "n=60", f"out={out}"]
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "hospital.partial").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.strip() == "medtwin: stopped; the same command continues where it was"
    assert not out.exists()
