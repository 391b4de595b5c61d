"""The encoder of images that `check` is given: chosen by name, or a file of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medtwin.check.pictures import common_size, read_pictures, stacked
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError
from medtwin.core.files import read_json

if TYPE_CHECKING:
    from medtwin.scans.features import FeatureEncoder

NAMES = ("random", "contrastive", "none")
TRAIN_SIZE = 64


def make_encoder(encoder: str, real: Dataset, *, seed: int) -> FeatureEncoder | None:
    """The encoder of a name or a path; None: no image features are to be measured, or there are no images.

    Args:
        encoder: `random` (random convolutions, always the same ones), `contrastive` (trained on the images of the train
            split of `real` alone, about a minute), `none`, the run directory of `medtwin train model=scan_encoder`, or
            the path of a TorchScript file.
        real: The dataset that the twins were learned from.
        seed: Decides the training.

    Raises:
        ConfigError: If it is neither, the file cannot be used, or there are too few images to train on.
    """
    if encoder == "none" or not len(real.images()):
        return None
    from medtwin.scans.features import MIN_SIZE, MIN_TRAIN_IMAGES, contrastive_encoder, load_encoder, random_encoder

    if encoder == "random":
        return random_encoder()
    if encoder == "contrastive":
        known = {*real.subject_splits().values(), "data"}
        splits = ["train"] if "train" in known else sorted(known)
        pictures = [one for one in read_pictures(real, splits, seed=seed) if one.size >= MIN_SIZE]
        if len(pictures) < MIN_TRAIN_IMAGES:
            raise ConfigError(f"encoder=contrastive needs {MIN_TRAIN_IMAGES} training images, got {len(pictures)}")
        return contrastive_encoder(stacked(pictures, min(TRAIN_SIZE, common_size(pictures))), seed=seed)
    path = Path(encoder).expanduser()
    if path.is_dir():
        return _trained_encoder(path)
    if not path.is_file():
        raise ConfigError(f"encoder must be {', '.join(NAMES)}, a run or the path of a file, got {encoder!r}")
    return load_encoder(path)


def _trained_encoder(run: Path) -> FeatureEncoder:
    """The encoder of a run of model=scan_encoder.

    Raises:
        ConfigError: If it is no such run, or one that learned from synthetic images, whose faults it would not see.
    """
    from medtwin.pipelines.runs import load_run
    from medtwin.scans.encoder import ScanEncoderModule
    from medtwin.scans.features import as_encoder

    module, config = load_run(run)
    if not isinstance(module, ScanEncoderModule):
        raise ConfigError(f"encoder={run} must be a run of model=scan_encoder, got one of {config.get('name')}")
    if read_json(run / "provenance.json").get("origin") == "synthetic":
        raise ConfigError(f"encoder={run} must have learned from the reference: it learned from synthetic images")
    return as_encoder(f"{run.name}: content and wear of training images", module)
