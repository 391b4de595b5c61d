"""What is said of generated records while a model trains: do codes occur as often, are records as long?"""

from __future__ import annotations

import copy

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from medtwin.timelines.generation.generate import TimelineModel, generate_timelines
from medtwin.timelines.generation.masks import build_masks
from medtwin.timelines.generation.tile import MaskedMass
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.data import TimelineDataModule


class SampleMetrics(Callback):
    """Logs, after some epochs, how a few generated records compare with those of training subjects.

    `sample/prevalence_error` is the mean absolute difference of the shares of subjects that have a code;
    `sample/length_log_ratio` the log of mean events per record, generated over real; `sample/masked` the share of
    probability that masks took. The records are drawn with a seed of their own and change nothing of the training.

    Args:
        every: Epochs between two looks.
        num_subjects: Records to draw.
    """

    def __init__(self, every: int = 5, num_subjects: int = 64) -> None:
        for name, value in (("every", every), ("num_subjects", num_subjects)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        self._every, self._num_subjects = every, num_subjects

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and compares."""
        data, net = getattr(trainer, "datamodule", None), getattr(pl_module, "average", None)
        if trainer.sanity_checking or not isinstance(data, TimelineDataModule) or not isinstance(net, TemporalVAE):
            return
        if trainer.current_epoch % self._every == self._every - 1 and trainer.is_global_zero:
            metrics = sample_metrics(net, data, self._num_subjects)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)


def sample_metrics(net: TemporalVAE, data: TimelineDataModule, num_subjects: int) -> dict[str, float]:
    """The metrics of some generated records, by name."""
    own = copy.deepcopy(net).cpu().eval()  # records are generated on the CPU
    model, mass = TimelineModel(own, data.spec, build_masks(data.spec, {})), MaskedMass()
    records = list(generate_timelines(model, num_subjects=num_subjects, seed=0, mass=mass))
    real, num_codes = data.train.sequences, len(data.spec.vocabulary)
    shares = np.bincount(real.token[real.is_first], minlength=num_codes) / len(real)
    found = np.zeros(num_codes)
    for record in records:
        found[np.unique(np.array(record.tokens, dtype=np.int64))] += 1
    length = sum(len(record.tokens) for record in records) / len(records)
    return {
        "sample/prevalence_error": float(np.abs(found / len(records) - shares).mean()),
        "sample/length_log_ratio": float(np.log(max(length, 0.5) / float(real.num_events.mean()))),
        "sample/masked": mass.share,
    }
