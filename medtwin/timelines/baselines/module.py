"""A counted law as a Lightning module, so that a run directory holds it like any other model."""

from __future__ import annotations

from lightning import LightningModule

from medtwin.timelines.baselines.law import CountedLaw
from medtwin.timelines.generation.masks import Masks
from medtwin.timelines.generation.source import TimelineSource
from medtwin.timelines.reading.data import TimelineDataModule
from medtwin.timelines.reading.spec import TimelineSpec


class BaselineModule(LightningModule):
    """Holds a law that is counted in one pass over the training subjects; no optimizer ever sees it.

    Args:
        net: The law.
    """

    def __init__(self, net: CountedLaw) -> None:
        super().__init__()
        self.net = net

    def count(self, data: TimelineDataModule, seed: int) -> None:
        """Takes the law from the training subjects of data that are attached.

        Raises:
            ConfigError: If there are too few of them.
        """
        self.net.count(data.train.sequences, data.spec, seed)

    def source(self, spec: TimelineSpec, masks: Masks) -> TimelineSource:
        """What draws records; see `CountedLaw.source`."""
        return self.net.source(spec, masks)
