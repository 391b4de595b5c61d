"""Where twins come from: the generations before them, and real anchors that none of them was learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtwin.check.copies import MIN_EVENTS, tokens_of
from medtwin.check.hashes import Hashes, mix
from medtwin.check.records import Records, read_records
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError, DatasetError

CONTROL = ("tuning", "held_out")
"""Splits that training did not see."""


@dataclass(frozen=True)
class Lineage:
    """What is known of where twins come from.

    Attributes:
        depth: Generations of synthetic ancestors, the twins themselves counted: 1 of twins of real patients.
        anchors: Real patients that no generation was learned from; None: those that training did not see, of the
            dataset that the twins were learned from.
        earlier: The generations before the twins, oldest first.

    Raises:
        ConfigError: If the twins are twins of twins, and no anchors are named.
        DatasetError: If the anchors are synthetic, or an earlier generation is real.
    """

    depth: int = 1
    anchors: Dataset | None = None
    earlier: tuple[Dataset, ...] = ()

    def __post_init__(self) -> None:
        if self.depth > 1 and self.anchors is None:
            raise ConfigError(
                f"anchors must name real patients that no generation was learned from, as in anchors=DIR: the twins "
                f"have lineage depth {self.depth}, and only real patients tell whether twins of twins have collapsed"
            )
        if self.anchors is not None and self.anchors.origin == "synthetic":
            raise DatasetError(f"anchors={self.anchors.path} must hold real patients, its origin is synthetic")
        for dataset in self.earlier:
            if dataset.origin != "synthetic":
                raise DatasetError(
                    f"generations={dataset.path} must hold earlier twins, its origin is {dataset.origin}"
                )


@dataclass(frozen=True)
class Relatives:
    """The records of a lineage: anchors, or None, and the generations before the twins."""

    depth: int = 1
    anchors: Records | None = None
    earlier: tuple[Records, ...] = ()


def read_relatives(lineage: Lineage, real: Dataset, reference: Records, control: Records | None) -> Relatives:
    """Reads a lineage with the vocabulary of the reference.

    Args:
        lineage: What to read.
        real: What the first generation was learned from.
        reference: Its patients that training saw.
        control: Those that training did not see, if any: they are the anchors where none, or this dataset, is named.

    Raises:
        ConfigError: If the anchors are to be of this dataset, and training saw all of it.
        DatasetError: If the anchors hold somebody whom training saw.
    """
    words = reference.vocabulary
    earlier = tuple(read_records(one, words, list(one.splits)) for one in lineage.earlier)
    named = lineage.anchors
    if named is None:
        return Relatives(lineage.depth, control, earlier)
    splits = list(named.splits)
    if named.path.resolve() == real.path.resolve():
        splits = [name for name in splits if name in CONTROL]
        if not splits:
            raise ConfigError(f"anchors={named.path} must have tuning or held_out patients: training saw all of them")
    return Relatives(lineage.depth, _unseen(read_records(named, words, splits), reference, named), earlier)


def _unseen(anchors: Records, reference: Records, named: Dataset) -> Records:
    both = np.intersect1d(_record_hashes(anchors), _record_hashes(reference))
    if len(both):
        raise DatasetError(
            f"anchors={named.path} must hold real patients that no generation was learned from, {len(both)} of their "
            "records stand in the train split of real= too"
        )
    return anchors


def _record_hashes(records: Records) -> Hashes:
    """One number for each record of `MIN_EVENTS` events or more, equal where codes, numbers and gaps are."""
    tokens = tokens_of(records)
    length = tokens.length()
    place = np.arange(len(tokens.token)) - np.repeat(np.cumsum(length) - length, length)
    placed = mix(tokens.token ^ mix(place.astype(np.uint64)))
    total: NDArray[np.uint64] = np.zeros(records.num_subjects, np.uint64)
    np.add.at(total, tokens.subject, placed)
    return total[length >= MIN_EVENTS]
