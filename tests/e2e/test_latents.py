"""Scans by way of an autoencoder's latents, through the verbs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from medtwin.core.dataset import open_dataset
from medtwin.core.files import file_digest, list_files, read_json
from medtwin.dicom import validate_folder
from tests.e2e.conftest import Medtwin

pytestmark = pytest.mark.slow
SMALL = ("data.size=32", "logger=csv")


def test_twins_have_scans_that_were_denoised_as_latents(medtwin: Medtwin, dataset: Path, tmp_path: Path) -> None:
    vae, ae, scans, twins = (tmp_path / name for name in ("vae", "ae", "scans", "twins"))
    medtwin("train", "model=markov", f"dataset={dataset}", f"out={vae}")
    told = medtwin(
        "train", "model=scan_autoencoder", f"dataset={dataset}", *SMALL, "net.channels=[16,16,32]",
        "trainer.max_steps=150", "trainer.check_val_every_n_epoch=2", f"out={ae}",
    )  # fmt: skip
    assert "of the variance of the" in told.stdout + told.stderr
    assert read_json(ae / "data" / "reconstruction.json")["train"]["explained"] > 0.2
    of_latents = ("train", "model=scan_latent", f"dataset={dataset}")
    for wrong, message in (
        ((*SMALL,), "autoencoder=... is required"),
        ((f"autoencoder={vae}", *SMALL), "must be a run of model=scan_autoencoder"),
        ((f"autoencoder={ae}", "data.size=64"), "data.size must be 32"),
        ((f"autoencoder={ae}", *SMALL, "net.spatial_dims=3"), "net.spatial_dims must be 2"),
        ((f"autoencoder={ae}", *SMALL, "data.align=false"), "data.align must be True"),
        ((f"autoencoder={ae}", *SMALL, "data.hu_softening=150"), "data.hu_softening must be None"),
        (
            (f"autoencoder={ae}", *SMALL, "model.training.augmentation.mirror=0.5"),
            "mirror must be 0 with an autoencoder",
        ),
    ):
        done = medtwin(*of_latents, *wrong, f"out={tmp_path / 'wrong'}", code=2)
        assert message in done.stderr
        assert not (tmp_path / "wrong").exists()
    medtwin(*of_latents, f"autoencoder={ae}", *SMALL, "trainer.max_steps=4", f"out={scans}")
    weights = [torch.load(run / "model.ckpt", weights_only=True)["state_dict"] for run in (ae, scans)]
    own = {name.removeprefix("net."): value for name, value in weights[0].items() if name.startswith("net.")}
    assert all(torch.equal(value, weights[1][f"codec.net.{name}"]) for name, value in own.items())
    shutil.rmtree(ae)  # the other run stands alone
    asked = ("generate", f"timelines={vae}", f"scans={scans}", "n=40", "sampling.num_steps=4")
    medtwin(*asked, f"out={twins}", alone=True)
    assert "is valid: 40 subjects" in medtwin("validate", f"dataset={twins}").stdout
    assert len(open_dataset(twins).images()) == read_json(twins / "counts.json")["scans made"]["CR"] > 0
    validation = validate_folder(twins / "images")
    assert validation.num_errors == 0, validation.findings()
    again = tmp_path / "again"
    medtwin(*asked, "sampling.batch_size=1", f"out={again}", alone=True)
    images = [
        {name: file_digest(out / name) for name in list_files(out) if name.startswith("images/")}
        for out in (twins, again)
    ]
    assert images[0] == images[1]


def test_a_collapsed_autoencoder_says_so_and_is_refused(medtwin: Medtwin, dataset: Path, tmp_path: Path) -> None:
    ae = tmp_path / "ae"
    told = medtwin(
        "train", "model=scan_autoencoder", f"dataset={dataset}", *SMALL, "net.channels=[8,8,8]",
        "model.training.kl_weight=1000", "trainer.max_steps=20", f"out={ae}",
    )  # fmt: skip
    assert "the latents have collapsed" in told.stdout + told.stderr
    done = medtwin(
        "train", "model=scan_latent", f"dataset={dataset}", *SMALL, f"autoencoder={ae}", f"out={tmp_path / 'x'}", code=2
    )  # fmt: skip
    assert "have collapsed" in done.stderr
