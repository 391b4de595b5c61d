"""Silences what Lightning, MONAI and torch say to everyone and what is no news to a user of medtwin; nothing else."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = {
    "lightning.pytorch.utilities.rank_zero": (
        r"\[lit(logger|models)\]|lit(logger|models)\b",
        r"^(GPU|TPU|HPU|IPU) available:",
        r"^`Trainer\.fit` stopped: `max_(steps|epochs)=",
        r"^Restor(ing states|ed all states) from the checkpoint",
        r"^-+\s+distributed_backend=",
    ),
    "lightning.fabric.utilities.distributed": (r"^Initializing distributed: ",),
    # No NVIDIA decoder on this machine: we read DICOM with pydicom.
    "monai.data.nvimgcodec_pydicom_plugin": (r".",),
}
_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\).* is deprecated",
    r".*NvImgCodecPydicomReader",
    # Workers cost more than they bring where examples are in memory; `data.num_workers` is there for the others.
    r".*does not have many workers which may be a bottleneck",
    # metrics.csv has the means of every epoch all the same.
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # Of several processes the first says how its own slices of the batches do.
    r"It is recommended to use `self\.log\(.*sync_dist=True",
    # About speed alone, of the weights of products that are stored turned.
    r"Grad strides do not match bucket view strides",
    # Nothing is changed in place.
    r"FSDP2-wrapped module \(.*\) returned a view tensor",
)


class _Drop(logging.Filter):
    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__()
        self._pattern = re.compile("|".join(patterns))

    def filter(self, record: logging.LogRecord) -> bool:
        return not self._pattern.search(record.getMessage())


@contextmanager
def quiet() -> Iterator[None]:
    """Within it the known noise is not said; every other message and warning is."""
    filters = {name: _Drop(patterns) for name, patterns in _LOGGERS.items()}
    for name, drop in filters.items():
        logging.getLogger(name).addFilter(drop)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for name, drop in filters.items():
            logging.getLogger(name).removeFilter(drop)
