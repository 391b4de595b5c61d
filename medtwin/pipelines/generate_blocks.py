"""Blocks of twins: files of events and of what is counted of them; those of a killed run are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from medtwin.core.events import EVENT_SCHEMA, Event, table_to_events
from medtwin.core.files import atomic_file, read_json, write_json

if TYPE_CHECKING:
    from medtwin.timelines.generation.generate import MaskedMass, Timeline
    from medtwin.timelines.reading.spec import TimelineSpec


@dataclass
class BlockCounts:
    """What is counted of a block.

    Attributes:
        subjects: Twins.
        masked, decisions: Masked probability, and over how many decisions.
        beyond, bound: Probability of numbers beyond what identities leave, and of how many numbers.
        cut: Records that the context of the model cut.
        given, named: Twins that have a fact by their attributes, and of those whose record says so, by code.
        asked, asked_named: The same of those of whom the fact was asked for.
        outside: Twins with an attribute that no training subject is near to, by attribute.
        more: Further counts, by name.
        pairs: Rows of a table of whom the twins are of, by column.
    """

    subjects: int = 0
    masked: float = 0.0
    decisions: int = 0
    beyond: float = 0.0
    bound: int = 0
    cut: int = 0
    given: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    asked_named: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)
    more: Counter[str] = field(default_factory=Counter)
    pairs: dict[str, list[Any]] = field(default_factory=dict)

    def count(
        self, timeline: Timeline, spec: TimelineSpec, asked: Iterable[int] = (), known: Iterable[str] = ()
    ) -> None:
        """Counts a twin.

        Args:
            timeline: Of the twin.
            spec: Of the run.
            asked: Indices of the facts that were asked for.
            known: Facts that the record names before the timeline.
        """
        names = {spec.vocabulary.tokens[token].fact for token in timeline.tokens}.union(known)
        said = {index for index, fact in enumerate(spec.profile.facts) if fact in names}
        self.subjects += 1
        self.cut += timeline.is_cut
        for index, code in enumerate(spec.profile.facts):
            if timeline.attributes.facts[index]:
                self.given[code] += 1
                self.named[code] += index in said
        for index in asked:
            self.asked[spec.profile.facts[index]] += 1
            self.asked_named[spec.profile.facts[index]] += index in said

    def add_pair(self, **row: Any) -> None:
        """Notes of whom a twin is."""
        for name, value in row.items():
            self.pairs.setdefault(name, []).append(value)

    def add_mass(self, mass: MaskedMass) -> None:
        """Adds what masks took away."""
        self.masked += mass.total
        self.decisions += mass.num_decisions
        self.beyond += mass.outside
        self.bound += mass.num_bound

    def __add__(self, other: BlockCounts) -> BlockCounts:
        pairs = {name: [*self.pairs.get(name, []), *column] for name, column in other.pairs.items()} or self.pairs
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        return BlockCounts(**sums, pairs=pairs)

    def report(self) -> dict[str, Any]:
        """The counts for counts.json; what does not apply is left out."""
        record: dict[str, Any] = {
            "records cut at the context": self.cut,
            "share of probability masked": self.masked / max(self.decisions, 1),
            **self.more,
        }
        if self.bound:
            record["numbers bound by identities"] = self.bound
            record["share of their probability outside"] = self.beyond / self.bound
        if self.asked:
            record["asked for"] = dict(sorted(self.asked.items()))
            record["asked for and in the record"] = {code: self.asked_named[code] for code in sorted(self.asked)}
        record["facts"] = dict(sorted(self.given.items()))
        record["facts in the record"] = {code: self.named[code] for code in sorted(self.given)}
        return record


_COUNTERS = ("given", "named", "asked", "asked_named", "outside", "more")
_SUMMED = ("subjects", "masked", "decisions", "beyond", "bound", "cut", *_COUNTERS)


def write_block(path: Path, table: pa.Table, counts: BlockCounts) -> None:
    """Writes a block; its events come last, so that a block with events is whole."""
    record = {**{name: getattr(counts, name) for name in (*_SUMMED, "pairs")}}
    write_json(path.with_suffix(".json"), record)
    with atomic_file(path) as file, pa.ipc.new_file(file, EVENT_SCHEMA) as writer:
        writer.write_table(table)


def read_counts(blocks: Sequence[Path]) -> BlockCounts:
    """The counts of all blocks."""
    total = BlockCounts()
    for block in blocks:
        record: Mapping[str, Any] = read_json(block.with_suffix(".json"))
        values: dict[str, Any] = {name: Counter(x) if name in _COUNTERS else x for name, x in record.items()}
        total += BlockCounts(**values)
    return total


def read_block(block: Path) -> pa.Table:
    """The events of a block, mapped into memory."""
    with pa.memory_map(str(block)) as source:
        return pa.ipc.open_file(source).read_all()


def records_of(table: pa.Table) -> Iterator[list[Event]]:
    """The rows of each twin of a table in which those of one stand together."""
    rows = table_to_events(table)
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or rows[index].subject_id != rows[start].subject_id:
            yield rows[start:index]
            start = index
