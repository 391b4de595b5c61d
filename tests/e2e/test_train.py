"""`medtwin train` from outside: stopped by signals and by kills, swept, queued again by SLURM, on two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from medtwin.core.files import read_json, verify_manifest
from medtwin.core.provenance import read_provenance
from tests.conftest import ROOT
from tests.e2e.conftest import Medtwin, command, environment
from tests.e2e.slurm_stub import install, wait_for
from tests.training.toy import write_meds

STEPS, EPOCHS = 7, 4


@pytest.fixture(scope="module")
def meds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_meds(tmp_path_factory.mktemp("meds") / "meds")


def arguments(dataset: Path, out: Path, *more: str) -> list[str]:
    """The toy model, logging nothing that takes a different time in each run."""
    return [
        "train", "--config-dir", str(ROOT / "tests/training/configs"), "model=toy", f"dataset={dataset}", f"out={out}",
        "logger=csv", "callbacks.throughput=null", "callbacks.checkpoints.every_steps=1",
        f"trainer.max_epochs={EPOCHS}", *more,
    ]  # fmt: skip


def trusting(**more: str) -> dict[str, str]:
    """An environment whose Pythons take the toy model for one of medtwin's own."""
    path = f"{ROOT / 'tests/training/site'}:{ROOT}"
    return {**environment(), "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def train(given: list[str], code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*given), capture_output=True, text=True, env=trusting(**more), check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done


def strike(given: list[str], partial: Path, after_step: int, signum: int) -> subprocess.CompletedProcess[str]:
    """Runs, and sends a signal in the middle of the step after the one whose checkpoint has come to stand."""
    process = subprocess.Popen(
        command(*given), env=trusting(TOY_STEP_S="0.1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: process.poll() is not None or saved_step(partial) >= after_step)
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(given, process.returncode, out, err)


def saved_weights_step(run: Path) -> int:
    return int(torch.load(run / "model.ckpt", weights_only=True)["global_step"])


def saved_step(partial: Path) -> int:
    last = partial / ".state" / "checkpoints" / "last.ckpt"
    return int(torch.load(last, weights_only=True)["global_step"]) if last.is_file() else 0


def test_a_run_directory_holds_what_it_should(meds: Path, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    done = train(arguments(meds, tmp_path / "run"))
    run = tmp_path / "run"
    assert done.stderr == ""
    assert done.stdout.startswith(f"{run}: toy, 57 parameters, 28 steps, best val/loss ")
    names = ["config.yaml", "data", "manifest.json", "metrics.csv", "model.ckpt", "provenance.json"]
    assert sorted(path.name for path in run.iterdir()) == names
    assert verify_manifest(run) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    provenance = read_provenance(run)
    assert (provenance["verb"], provenance["origin"], provenance["seed"]) == ("train", "real", 0)
    assert [one["role"] for one in provenance["inputs"]] == ["dataset"]
    config = OmegaConf.load(run / "config.yaml")
    assert config.net.num_features == len(read_json(run / "data" / "codes.json")["codes"])
    assert config.model.scale > 0
    for text in ((run / "config.yaml").read_text(), json.dumps(provenance)):
        assert str(tmp_path) not in text
    again = train(arguments(meds, run))
    assert again.stdout == f"{run} is finished already (overwrite=true redoes it)\n"
    refused = train(arguments(meds, run, "seed=1"), code=2)
    assert "was finished with other settings" in refused.stderr


def test_fewer_steps_than_an_epoch_are_enough(meds: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train([*arguments(meds, out), f"trainer.max_steps={STEPS - 2}"])
    assert saved_weights_step(out) == STEPS - 2


@pytest.mark.slow
def test_stopped_killed_and_repeated_it_ends_as_if_it_had_not_been(meds: Path, tmp_path: Path) -> None:
    train(arguments(meds, tmp_path / "whole" / "run"))
    run = tmp_path / "struck" / "run"
    given, partial = arguments(meds, run), run.with_name("run.partial")
    stopped = strike(given, partial, STEPS + 2, signal.SIGUSR1)
    assert stopped.returncode == 130, stopped.stderr
    step = saved_step(partial)
    assert STEPS + 2 < step < 2 * STEPS  # in the middle of an epoch
    assert stopped.stdout == f"stopped by SIGUSR1: saved at step {step}\n"
    assert stopped.stderr.splitlines() == [
        "medtwin: SIGUSR1: saving after this step",
        "medtwin: stopped; the same command continues where it was",
    ]
    killed = strike(given, partial, 2 * STEPS + 3, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert saved_step(partial) < EPOCHS * STEPS
    train(given)
    assert (run / "manifest.json").read_bytes() == (tmp_path / "whole" / "run" / "manifest.json").read_bytes()
    assert verify_manifest(run) == []


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_ctrl_c_and_sigterm_save_first(signum: int, meds: Path, tmp_path: Path) -> None:
    given = [*arguments(meds, tmp_path / "run"), "callbacks.checkpoints.every_steps=3"]
    stopped = strike(given, tmp_path / "run.partial", 3, signum)
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped; the same command continues" in stopped.stderr
    assert saved_step(tmp_path / "run.partial") % 3 or saved_step(tmp_path / "run.partial") > 3


@pytest.mark.slow
def test_a_preempted_slurm_job_ends_as_if_it_had_not_been(meds: Path, tmp_path: Path) -> None:
    """One job of a sweep gets SIGUSR1 in mid-epoch and is queued again, dies of SIGKILL, and runs a third time."""
    state = tmp_path / "state"
    state.mkdir()
    path = f"{install(tmp_path / 'bin')}:{os.environ['PATH']}"
    sweep = ["-m", "seed=1,2"]
    train(arguments(meds, tmp_path / "whole", *sweep))
    given = arguments(meds, tmp_path / "slurm", *sweep, "hydra/launcher=slurm", "hydra.launcher.partition=gpu")
    env = trusting(PATH=path, SLURM_STUB=str(state), TOY_STEP_S="0.4")
    process = subprocess.Popen(command(*given), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "slurm" / "seed=1.partial"
    wait_for(lambda: saved_step(partial) >= STEPS + 2)
    first = int((state / "77_0.pid").read_text())
    os.kill(first, signal.SIGUSR1)
    second = wait_for(lambda: (now := int((state / "77_0.pid").read_text())) != first and now)
    at_signal = saved_step(partial)
    assert STEPS + 2 < at_signal < 2 * STEPS
    wait_for(lambda: saved_step(partial) >= at_signal + 3)
    os.kill(second, signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    wait_for(lambda: (state / "77_0.done").exists())
    attempts: list[dict[str, Any]] = json.loads((state / "77_0.json").read_text())
    assert [one["requeued"] for one in attempts] == [True, False, False]
    assert [one["code"] for one in attempts[1:]] == [137, 0]
    assert "#SBATCH --signal=USR1@300" in (state / "script.sh").read_text()
    assert "#SBATCH --partition=gpu" in (state / "script.sh").read_text()
    for name in ("seed=1", "seed=2"):
        made, wanted = (tmp_path / place / name / "manifest.json" for place in ("slurm", "whole"))
        assert made.read_bytes() == wanted.read_bytes()
    assert (tmp_path / "slurm" / ".slurm").is_dir()


@pytest.mark.slow
def test_a_job_outside_a_sweep_asks_slurm_itself(meds: Path, tmp_path: Path) -> None:
    """`medtwin train` in a batch script of the user's: SIGUSR1 saves, and scontrol is asked to queue the job again."""
    state = tmp_path / "state"
    state.mkdir()
    path = f"{install(tmp_path / 'bin')}:{os.environ['PATH']}"
    env = trusting(PATH=path, SLURM_STUB=str(state), TOY_STEP_S="0.1", SLURM_JOB_ID="9", SLURM_NTASKS="1")
    given = arguments(meds, tmp_path / "run")
    process = subprocess.Popen(command(*given), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: saved_step(tmp_path / "run.partial") >= 2)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out.endswith("; SLURM will run job 9 again\n")
    assert (state / "9.requeue").exists()


@pytest.mark.slow
def test_two_processes_share_every_batch(meds: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    done = train(arguments(meds, tmp_path / "run", "trainer=ddp_sim", "data.batch_size=5"), TOY_SEEN=str(seen))
    assert "8 steps" not in done.stdout
    for epoch in range(EPOCHS):
        first, second = (
            [set(map(int, line.split())) for line in (seen / f"{epoch}-{rank}").read_text().splitlines()]
            for rank in (0, 1)
        )
        assert len(first) == len(second) == 4
        assert all(not mine & other for mine, other in zip(first, second, strict=True))
        assert set().union(*first, *second) == set(range(40))
    assert verify_manifest(tmp_path / "run") == []


@pytest.mark.slow
def test_a_sweep_gives_every_run_a_folder(meds: Path, tmp_path: Path) -> None:
    train(arguments(meds, tmp_path / "sweep", "-m", "optimizer.lr=1e-3,2e-3", "trainer.max_epochs=1"))
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["optimizer.lr=0.001", "optimizer.lr=0.002"]
    failed = train(
        [*arguments(meds, tmp_path / "faulty"), "-m", "optimizer.lr=-1,1e-3", "trainer.max_epochs=1"], code=2
    )
    assert failed.stderr == "medtwin: optimizer.lr=-1: optimizer: Invalid learning rate: -1\n"
    assert [path.name for path in (tmp_path / "faulty").iterdir()] == ["optimizer.lr=0.001"]


def test_weights_of_timelines_are_not_divided(medtwin: Medtwin, meds: Path, tmp_path: Path) -> None:
    asked = ("train", f"dataset={meds}", "trainer=fsdp_sim", f"out={tmp_path / 'run'}")
    told = medtwin(*asked, code=2).stderr.splitlines()[-1]
    assert told.startswith("medtwin: trainer=fsdp cannot divide the weights of temporal_vae: use trainer=ddp")


def test_latents_of_scans_want_an_autoencoder(medtwin: Medtwin, meds: Path, tmp_path: Path) -> None:
    asked = ("train", "model=scan_latent", f"dataset={meds}", f"out={tmp_path / 'scans'}")
    for more, message in (
        ((), "autoencoder=... is required by scan_latent: a finished run of model=scan_autoencoder"),
        (("autoencoder=/nowhere",), "autoencoder=/nowhere must be a finished run of model=scan_autoencoder"),
    ):
        assert medtwin(*asked, *more, code=2).stderr.strip() == f"medtwin: {message}"
    assert not (tmp_path / "scans").exists()
