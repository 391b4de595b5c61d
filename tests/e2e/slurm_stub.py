"""A SLURM of one machine: sbatch runs the script here, scontrol requeue runs it again, as does the death of a node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ.get("SLURM_STUB", "."))


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    array = re.search(r"^#SBATCH --array=0-(\d+)", text, re.MULTILINE)
    tasks = [None] if array is None else range(int(array[1]) + 1)
    (STATE / "script.sh").write_text(text)
    for task in tasks:
        subprocess.Popen(
            [sys.executable, __file__, "run", script, "" if task is None else str(task)],
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    sys.stdout.write("Submitted batch job 77\n")


def run(script: str, task: str) -> None:
    """Runs a job until it neither asks to be queued again nor dies of SIGKILL."""
    name = f"77_{task}" if task else "77"
    environment = {
        **os.environ, "SLURM_JOB_ID": "77" if not task else str(78 + int(task)), "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    }  # fmt: skip
    if task:
        environment.update(SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID=task)
    attempts = []
    while True:
        code = subprocess.run(["bash", script], env={**environment, "SLURM_STUB_NAME": name}, check=False).returncode
        again = STATE / f"{name}.requeue"
        attempts.append({"code": code, "requeued": again.exists()})
        (STATE / f"{name}.json").write_text(json.dumps(attempts))
        if not again.exists() and code != 137:
            break
        again.unlink(missing_ok=True)
    (STATE / f"{name}.done").touch()


def srun(*arguments: str) -> None:
    """Replaces itself by the command, its output where the options say."""
    rest = list(arguments)
    name = os.environ["SLURM_STUB_NAME"]
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            job, _, task = name.partition("_")
            path = rest.pop(0).replace("%j", job).replace("%A", job).replace("%a", task).replace("%t", "0")
            stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(stream, 1 if option == "--output" else 2)
    (STATE / f"{name}.pid").write_text(str(os.getpid()))
    os.execvp(rest[0], rest)


def scontrol(action: str, job: str) -> None:
    assert action == "requeue"
    (STATE / f"{job}.requeue").touch()


def sacct(*arguments: str) -> None:
    sys.stdout.write("JobID|State|NodeList\n")
    for path in sorted(STATE.glob("*.pid")):
        state = "COMPLETED" if path.with_suffix(".done").exists() else "RUNNING"
        sys.stdout.write(f"{path.stem}|{state}|here\n")


def install(folder: Path) -> Path:
    """A folder of commands for PATH."""
    folder.mkdir()
    for command in ("sbatch", "srun", "scontrol", "sacct"):
        path = folder / command
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {command} "$@"\n')
        path.chmod(0o755)
    return folder


def wait_for(condition, seconds: float = 120.0):  # type: ignore[no-untyped-def]
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return value


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
