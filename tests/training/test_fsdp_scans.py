"""The diffusion model of scans with its weights divided between two processes: it learns as where both have all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from medtwin.scans.module import ScanDiffusionModule
from medtwin.training.checkpoints import FINAL, LAST
from medtwin.training.sharding import Sharded, is_sharded
from medtwin.training.snapshots import FOLDER
from tests.training.processes import STEPS, KillAt, run_module
from tests.training.test_ddp_scans import images, train

pytestmark = pytest.mark.slow
__all__ = ["images"]
KILL_AT = 4


class LooksAtShards(KillAt):
    """Dies at a step, if asked; the weights are divided, and each process holds less than all of them."""

    def on_train_start(self, trainer: Trainer, pl_module: ScanDiffusionModule) -> None:
        for part in (pl_module.denoiser.net, pl_module.average.net, pl_module.denoiser.embedding):
            assert is_sharded(part)
        held = sum(parameter.to_local().numel() for parameter in pl_module.denoiser.net.parameters())
        assert held < 0.6 * sum(parameter.numel() for parameter in pl_module.denoiser.net.parameters())


def final(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / FINAL, weights_only=True)["state_dict"]
    return state


def snapshots(folder: Path) -> list[dict[str, Tensor]]:
    paths = sorted((folder / FOLDER).glob("*.pt"))
    assert len(paths) == STEPS // 2
    return [average for path in paths for average in torch.load(path, weights_only=True)["averages"]]


def test_divided_weights_learn_as_whole_ones_and_go_on_after_a_kill(images: Path, tmp_path: Path) -> None:
    for name in ("ddp", "sharded"):
        done = run_module(__name__, images, tmp_path / name, name, -1, timeout_s=500)
        assert done.returncode == 0, done.stderr
    whole, divided = (final(tmp_path / name) for name in ("ddp", "sharded"))
    assert whole.keys() == divided.keys()
    for name, value in whole.items():
        torch.testing.assert_close(divided[name], value, rtol=0, atol=2e-4, msg=name)
    assert divided["denoiser.net.out.weight"].abs().sum() > 0  # zero before training
    for one, two in zip(snapshots(tmp_path / "ddp"), snapshots(tmp_path / "sharded"), strict=True):
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=2e-4, msg=name)

    struck = tmp_path / "struck"
    assert "killed" in run_module(__name__, images, struck, "sharded", KILL_AT, timeout_s=500).stderr
    assert torch.load(struck / LAST, weights_only=True)["global_step"] == KILL_AT - 1  # killed before it was saved
    done = run_module(__name__, images, struck, "sharded", -1, timeout_s=500)
    assert done.returncode == 0, done.stderr
    again = final(struck)
    assert all(torch.equal(value, again[name]) for name, value in divided.items())


if __name__ == "__main__":
    strategy = Sharded() if sys.argv[3] == "sharded" else sys.argv[3]
    callbacks = [LooksAtShards(int(sys.argv[4]))] if sys.argv[3] == "sharded" else []
    train(Path(sys.argv[1]), Path(sys.argv[2]), *callbacks, devices=2, strategy=strategy)
