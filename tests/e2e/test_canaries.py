"""Canaries through the command line: planted before training, audited after it, and in nobody's twins."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import read_json, verify_manifest
from medtwin.core.verdict import read_verdict

Medtwin = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("model=temporal_vae", "callbacks=none", "trainer.max_steps=2", "data.max_positions=64", "net.width=16")


@pytest.mark.slow
def test_canaries_are_trained_on_by_their_coin_and_audited(medtwin: Medtwin, dataset: Path, tmp_path: Path) -> None:
    run, twins, out = (tmp_path / name for name in ("run", "twins", "check"))
    medtwin("train", f"dataset={dataset}", "canaries=60", *SMALL, f"out={run}")
    assert verify_manifest(run) == []
    roles = pq.read_table(run / "canaries" / "roles.parquet").to_pydict()
    members = {one for one, role in zip(roles["subject_id"], roles["role"], strict=True) if role == "member"}
    assert 15 <= len(members) <= 45
    medtwin("generate", f"timelines={run}", "n=30", f"out={twins}")
    made = open_dataset(twins)
    assert not set(made.subject_splits()) & set(roles["subject_id"])
    medtwin("check", f"synthetic={twins}", f"real={dataset}", f"canaries={run}", "resamples=20", f"out={out}")
    assert read_verdict(out).gates["canaries"] == "passed"  # two steps remember nobody
    findings = read_json(out / "findings.json")
    measure = next(one for one in findings["measures"] if one["name"] == "canaries.exposure")
    assert measure["estimate"]["low"] < 1
    names = {one["name"] for one in findings["memberships"]}
    assert {"canaries, by likelihood per event", "canaries, by what twins have at one time"} <= names


def test_what_cannot_be_planted_or_audited_is_refused(medtwin: Medtwin, dataset: Path, tmp_path: Path) -> None:
    out = f"out={tmp_path / 'run'}"
    done = medtwin("train", f"dataset={dataset}", "canaries=10", *SMALL, out, code=2)
    assert "canaries must be 0 (none) or 60 or more, got 10" in done.stderr
    done = medtwin("train", f"dataset={dataset}", "canaries=60", "model=scan_diffusion", out, code=2)
    assert "they have records and no scans" in done.stderr
