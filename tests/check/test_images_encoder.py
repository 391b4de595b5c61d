from __future__ import annotations

from pathlib import Path

import pytest

from medtwin.core.errors import ConfigError
from medtwin.pipelines.check_images import make_encoder
from medtwin.scans.features import random_encoder
from tests.scans import samples


def test_encoders_by_name(tmp_path: Path) -> None:
    dataset = samples.write_dataset(tmp_path / "real", [samples.Spec() for _ in range(34)])
    encode = make_encoder("random", dataset, seed=2)
    assert encode is not None
    assert encode.sha256 == random_encoder().sha256
    assert make_encoder("none", dataset, seed=0) is None
    for wrong in ("imagenet", str(tmp_path / "missing.pt")):
        with pytest.raises(ConfigError, match="random, contrastive, none"):
            make_encoder(wrong, dataset, seed=0)


def test_training_an_encoder_uses_the_train_split_alone(tmp_path: Path) -> None:
    """Of 40 images 31 are for training, one too few."""
    specs = [samples.Spec(split="train" if number < 31 else "held_out") for number in range(40)]
    dataset = samples.write_dataset(tmp_path / "real", specs)
    with pytest.raises(ConfigError, match="needs 32 training images, got 31"):
        make_encoder("contrastive", dataset, seed=0)
