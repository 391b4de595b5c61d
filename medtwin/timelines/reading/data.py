"""The data module of timelines: fits the spec on training subjects, keeps sequences on disk, gives batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from medtwin.core.dataset import Dataset
from medtwin.timelines.reading.batches import Batch, GroupedTimelines
from medtwin.timelines.reading.sequences import SequenceFiles, Sequences
from medtwin.timelines.reading.spec import FILE, SpecSettings, TimelineSpec, fit_spec
from medtwin.training.batches import ResumableBatches, ResumableLoader

_log = logging.getLogger(__name__)


class TimelineDataModule(LightningDataModule):
    """Timelines of a dataset.

    Args:
        batch_size: Groups of subjects per step.
        tokens_per_group: Positions of a group, padding included.
        min_subjects: A token must occur in so many training subjects; rarer ones are not learned.
        max_positions: Longer sequences are cut after the last whole step that fits.
        num_conditions: At most so many index conditions.
        facts: Codes of further facts of the whole record, as shell patterns: a twin can be asked for them.
        details: Element paths whose child rows are tokens; other children follow templates.
        identities: Numbers that may follow from each other, as settings of rules by name, such as
            configs/rules/identities.yaml; those that training subjects keep are kept in generation.
    """

    def __init__(  # noqa: PLR0913 - settings of a configuration, each by its name
        self,
        *,
        batch_size: int = 1,
        tokens_per_group: int = 4096,
        min_subjects: int = 3,
        max_positions: int = 1024,
        num_conditions: int = 24,
        facts: Sequence[str] = (),
        details: Sequence[str] = (),
        identities: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        positive = {
            "batch_size": batch_size,
            "tokens_per_group": tokens_per_group,
            "min_subjects": min_subjects,
            "max_positions": max_positions,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        self.batch_size, self.tokens_per_group = batch_size, tokens_per_group
        self.settings = SpecSettings(
            min_subjects, tuple(details), num_conditions, tuple(facts), max_positions, dict(identities or {})
        )
        self.seed = 0
        self.spec: TimelineSpec
        self.train: GroupedTimelines
        self.tuning: GroupedTimelines | None = None

    def attach(self, dataset: Dataset, *, seed: int, cache: Path, latents: Path | None = None) -> None:
        """Reads the dataset: the train split fits the spec, the tuning split validates.

        Args:
            dataset: To learn from.
            seed: Decides the groups and their order.
            cache: Where sequences are kept; what a killed run left there is used.
            latents: Not used by timelines.

        Raises:
            DatasetError: If there is nothing to learn from.
        """
        self.seed = seed
        if not (cache / "done").is_file():
            split = "train" if "train" in dataset.splits else next(iter(dataset.splits))
            spec = fit_spec(lambda: dataset.iter_events(split), self.settings, SequenceFiles(cache / "train"))
            spec.described(dataset.codes()).save(cache)
            if "tuning" in dataset.splits:
                tuning_files = SequenceFiles(cache / "tuning")
                for table in dataset.iter_events("tuning"):
                    if (part := spec.sequences(table)) is not None:
                        tuning_files.add(part)
                tuning_files.close()
            (cache / "done").touch()
        self.spec = TimelineSpec.load(cache)
        train = Sequences.load(cache / "train")
        self.train = GroupedTimelines(train, self.spec.gaps, self.tokens_per_group, seed)
        if (cache / "tuning").is_dir() and len(tuning := Sequences.load(cache / "tuning")):
            self.tuning = GroupedTimelines(tuning, self.spec.gaps, self.tokens_per_group, seed)
        if num_cut := int(train.is_cut.sum()):
            _log.info("%d of %d records are longer than max_positions and were cut", num_cut, len(train))

    @property
    def sizes(self) -> dict[str, Any]:
        """What only the data knows, by constructor argument of the net."""
        return {"net": {"sizes": self.spec.sizes}}

    def save(self, folder: Path) -> None:
        """Writes timelines.json, which generation needs."""
        folder.mkdir(parents=True, exist_ok=True)
        self.spec.save(folder)

    def train_dataloader(self) -> ResumableLoader:
        """Batches of training subjects, each an item of `GroupedTimelines`."""
        batches = ResumableBatches(len(self.train), self.batch_size, self.seed)
        return ResumableLoader(self.train, batches, collate_fn=_as_list)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Batches of tuning subjects; none where there are none."""
        if self.tuning is None:
            return []
        return DataLoader(self.tuning, batch_size=1, shuffle=False, collate_fn=_as_list, num_workers=0)


def _as_list(items: list[Batch]) -> list[Batch]:
    return items


__all__ = ["FILE", "TimelineDataModule"]
