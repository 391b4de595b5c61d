"""What a row needs beyond its token to be a whole record: status, precision, and the child rows that go with it.

A child row that most events of a token have alike (a category, a route, a reference range) is part of the token's
template and is written with every such event. Children that vary are tokens where the configuration names their path,
references are linked anew, interpretations follow from value and range, and the rest is not carried.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.timelines.reading.rows import ShardRows

_INTERPRETATION = "FHIR//Observation.interpretation//INTERPRETATION//"
_RANGE = ("FHIR//Observation.referenceRange.low", "FHIR//Observation.referenceRange.high")
_MOST_EVENTS = 500  # of a token that are looked at
_MOST = 0.5  # a child that more than half of the events have alike goes with every one

ChildRow = tuple[str, str | None, float | None, str | None]


@dataclass(frozen=True)
class Template:
    """What goes with a token.

    Attributes:
        status, time_precision, source_code: The most frequent ones; source_code only where it is always the same.
        children: (code, text_value, numeric_value, unit) of child rows.
        links: (code, target code) of child rows that refer to an event with the target code: that of the same step (the
            second to the second), or else the latest before.
        interprets: Whether an interpretation (L, N or H) follows from the value and the reference range.
        has_id, in_encounter: Whether such rows bear an event id, and belong to an encounter.
    """

    status: str | None = None
    time_precision: str | None = None
    source_code: str | None = None
    children: tuple[ChildRow, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    interprets: bool = False
    has_id: bool = True
    in_encounter: bool = False

    def interpretation(self, value: float) -> str | None:
        """The child code of the interpretation of a value, or None where nothing says it."""
        if not self.interprets:
            return None
        low, high = (next((row[2] for row in self.children if row[0] == code), None) for code in _RANGE)
        if low is None and high is None:
            return None
        flag = "L" if low is not None and value < low else "H" if high is not None and value > high else "N"
        return _INTERPRETATION + flag

    def to_json(self) -> dict[str, Any]:
        """The template as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Template:
        """The template that `to_json` wrote."""
        children = tuple((code, text, number, unit) for code, text, number, unit in value["children"])
        links = tuple((code, target) for code, target in value["links"])
        return cls(**{**value, "children": children, "links": links})


@dataclass
class TemplateCounts:
    """Counts of training shards from which `templates` follow; only what `min_subjects` people share is used."""

    events: Counter[int] = field(default_factory=Counter)
    columns: dict[tuple[int, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    children: dict[int, Counter[ChildRow]] = field(default_factory=lambda: defaultdict(Counter))
    subjects: dict[tuple[int, ChildRow], set[int]] = field(default_factory=lambda: defaultdict(set))
    links: dict[int, Counter[tuple[str, str]]] = field(default_factory=lambda: defaultdict(Counter))
    interpreted: Counter[int] = field(default_factory=Counter)

    def add(self, shard: ShardRows, token: NDArray[np.int64], constant_details: NDArray[np.bool_]) -> None:
        """Counts one shard.

        Args:
            shard: Its rows.
            token: (rows,) token of every token row, -1 where it is not in the vocabulary.
            constant_details: (rows,) token rows that are details and belong to a template instead.
        """
        wanted = self._wanted(token)
        rows, token = shard.rows[wanted | constant_details], token[wanted | constant_details]
        constant_details = constant_details[wanted | constant_details]
        owner_of_row = dict(zip(rows["row"].to_numpy()[token >= 0].tolist(), token[token >= 0].tolist(), strict=True))
        self.events.update(token[token >= 0].tolist())
        numbers = rows["row"].to_numpy()
        for name in ("status", "time_precision", "source_code", "event_id", "encounter_id"):
            values = shard.frame[name].to_numpy(dtype=object)[numbers]
            for index, value in zip(token.tolist(), values.tolist(), strict=True):
                if index >= 0 and isinstance(value, str):
                    self.columns[index, name]["" if name.endswith("_id") else value] += 1
        moved = rows[constant_details]
        for code, text, instance, subject in moved[["code", "text", "instance", "subject_id"]].itertuples(index=False):
            self._count(owner_of_row.get(instance, -1), (code, text, None, None), subject)
        kept = shard.children[["parent_row", "code", "text_value", "numeric_value", "unit", "target", "subject_id"]]
        kept = kept[kept["parent_row"].isin(owner_of_row)]
        for parent, code, text, number, unit, target, subject in kept.itertuples(index=False):
            index = owner_of_row.get(parent, -1)
            if index < 0:
                continue
            if code.startswith(_INTERPRETATION):
                self.interpreted[index] += 1
            elif isinstance(target, str):
                self.links[index][code, target] += 1
            else:
                clean = (code, _text(text), None if number != number else float(np.float32(number)), _text(unit))
                self._count(index, clean, subject)

    def _wanted(self, token: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(rows,) the rows of known tokens that are counted: the first thousands of each token are enough."""
        order = np.argsort(token, kind="stable")
        ordered = token[order]
        rank = np.empty(len(token), dtype=np.int64)
        rank[order] = np.arange(len(token)) - np.searchsorted(ordered, ordered)
        before = np.array([self.events[index] for index in range(int(token.max(initial=0)) + 1)], dtype=np.int64)
        return (token >= 0) & (rank + before[np.maximum(token, 0)] < _MOST_EVENTS)

    def _count(self, index: int, child: ChildRow, subject: int) -> None:
        if index >= 0:
            self.children[index][child] += 1
            if len(seen := self.subjects[index, child]) < 50:
                seen.add(subject)

    def templates(self, num_tokens: int, *, min_subjects: int) -> list[Template]:
        """The template of every token, (num_tokens,)."""
        return [self._template(index, min_subjects) for index in range(num_tokens)]

    def _template(self, index: int, min_subjects: int) -> Template:
        total = self.events[index]
        common = [
            child
            for child, count in self.children[index].items()
            if count > _MOST * total and len(self.subjects[index, child]) >= min_subjects
        ]
        by_code: dict[str, Counter[str]] = defaultdict(Counter)
        for (code, target), count in self.links[index].items():
            by_code[code][target] += count
        links = [(code, targets.most_common(1)[0]) for code, targets in by_code.items()]
        return Template(
            status=self._mode(index, "status"),
            time_precision=self._mode(index, "time_precision"),
            source_code=self._mode(index, "source_code", share=0.95),
            children=tuple(sorted(common, key=repr)),
            links=tuple(sorted((code, target) for code, (target, count) in links if count > _MOST * total)),
            interprets=self.interpreted[index] > _MOST * total,
            has_id=self.columns[index, "event_id"][""] > _MOST * total,
            in_encounter=self.columns[index, "encounter_id"][""] > _MOST * total,
        )

    def _mode(self, index: int, name: str, share: float = 0.0) -> str | None:
        ranked: Sequence[tuple[str, int]] = self.columns[index, name].most_common(1)
        return ranked[0][0] if ranked and ranked[0][1] > share * self.events[index] else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
