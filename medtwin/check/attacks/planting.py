"""Makes canaries: made-up people whose records nobody has, of whom a coin decides who is trained on.

A canary's secret is which codes stand at which of its visits: drawn evenly from the codes that training subjects have,
each with the number of some training subject, it is a combination that no law of patients would give again. Everybody
has the same law, hence a model that finds those in training likelier than the others remembers them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.codes import BIRTH, CHILD_PREFIX, DEATH, NEGATED_PREFIX, SEPARATOR
from medtwin.core.events import Event, events_to_table
from medtwin.core.seeds import generator

VISITS = 5
CODES_PER_VISIT = 3
DAYS_BETWEEN = 60.0
"""Mean days from one visit to the next."""
AGES = (20.0, 80.0)
MIN_BEARERS = 5
"""Training subjects who must have a code: rarer ones are not learned, whoever has them."""
MIN_CODES = 2 * CODES_PER_VISIT * VISITS
"""Codes to draw from: of fewer, canaries would resemble each other."""
ROWS_PER_CODE = 20
MOST_COMMON = 0.5
"""Share of subjects who must have a fact of a kind (sex, race) for canaries to have one."""


@dataclass(frozen=True)
class Canaries:
    """Made-up people.

    Attributes:
        events: Their records, (rows,) of `EVENT_SCHEMA`.
        roles: Of each subject id: `member` (to be trained on), `held_out` (its coin said no), `reference` (never to be
            trained on, without a coin: what ranks are told among).
    """

    events: pa.Table
    roles: Mapping[int, str]

    def of(self, *roles: str) -> pa.Table:
        """The records of some roles."""
        chosen = pa.array([subject for subject, role in self.roles.items() if role in roles], pa.int64())
        return self.events.filter(pc.is_in(self.events["subject_id"], value_set=chosen))


@dataclass
class Pool:
    """What canaries are made of: rows of training subjects, by code; made by `add`, table by table.

    Attributes:
        rows: At most `ROWS_PER_CODE` rows of every code that has an instant and no parent, as dictionaries.
        bearers: How many subjects have each code. facts: How many have each undated one.
        starts: Times at which some records begin.
        num_subjects: How many have been added.
    """

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    bearers: dict[str, int] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)
    starts: list[datetime] = field(default_factory=list)
    num_subjects: int = 0

    @staticmethod
    def of(tables: Iterable[pa.Table]) -> Pool:
        """The pool of tables of `EVENT_SCHEMA`, each of whole subjects."""
        pool = Pool()
        for table in tables:
            pool.add(table)
        return pool

    def add(self, table: pa.Table) -> None:
        """Takes the events of whole subjects."""
        code = table["code"].cast(pa.string())
        is_child = pc.or_(pc.starts_with(code, CHILD_PREFIX), pc.starts_with(code, NEGATED_PREFIX))
        is_event = pc.and_(pc.invert(is_child), pc.invert(pc.is_in(code, value_set=pa.array([BIRTH, DEATH]))))
        is_dated = pc.is_valid(table["time"])
        alone = pc.and_(pc.is_null(table["parent_id"]), pc.is_null(table["end_time"]))
        dated = table.filter(pc.and_(pc.and_(is_event, is_dated), alone))
        _count(dated, self.bearers)
        _count(table.filter(pc.and_(is_event, pc.invert(is_dated))), self.facts)
        names = dated["code"].cast(pa.string()).combine_chunks().dictionary_encode()
        numbers = names.indices.to_numpy()
        for place in np.unique(numbers).tolist():
            kept = self.rows.setdefault(names.dictionary[place].as_py(), [])
            wanted = ROWS_PER_CODE - len(kept)
            kept += dated.take(pa.array(np.flatnonzero(numbers == place)[:wanted])).to_pylist()
        first = dated.group_by("subject_id", use_threads=False).aggregate([("time", "min")])
        self.starts += first["time_min"].to_pylist()
        self.num_subjects += len(pc.unique(table["subject_id"]))

    def codes(self) -> list[str]:
        """The codes that canaries may have, sorted."""
        return sorted(code for code in self.rows if self.bearers[code] >= MIN_BEARERS)

    def kinds(self) -> list[list[str]]:
        """Undated facts by kind, of kinds that most subjects have one of."""
        by_kind: dict[str, list[str]] = {}
        for fact, count in sorted(self.facts.items()):
            if count >= MIN_BEARERS and SEPARATOR in fact:
                by_kind.setdefault(fact.partition(SEPARATOR)[0], []).append(fact)
        least = MOST_COMMON * self.num_subjects
        return [facts for facts in by_kind.values() if sum(self.facts[fact] for fact in facts) >= least]


def make_canaries(
    pool: Pool, *, number: int, references: int, seed: int, taken: Collection[int] = frozenset()
) -> Canaries:
    """Canaries, half of them members by a coin of each, and references of the same law.

    Args:
        pool: Of the training subjects.
        number: Canaries with a coin.
        references: Canaries without.
        seed: Decides everything; canary i depends on (seed, i) only.
        taken: Subject ids of others.

    Raises:
        ValueError: If the training subjects have too few codes to tell canaries apart.

    Source: Carlini et al. 2019, USENIX Security, The Secret Sharer (canaries of random content); Steinke, Nasr &
    Jagielski 2023, NeurIPS (a coin of each).
    """
    codes = pool.codes()
    if len(codes) < MIN_CODES:
        raise ValueError(f"canaries need {MIN_CODES} codes that {MIN_BEARERS} training subjects have, got {len(codes)}")
    kinds, starts = pool.kinds(), sorted(pool.starts)
    used, roles, events = set(taken), dict[int, str](), list[Event]()
    for index in range(number + references):
        rng = generator(seed, "canaries", index)
        subject = _free_id(rng, used)
        roles[subject] = "reference" if index >= number else "member" if rng.random() < 0.5 else "held_out"
        events += _record(subject, pool, codes, kinds, starts[int(rng.integers(len(starts)))], rng)
    return Canaries(events_to_table(events), roles)


def _free_id(rng: np.random.Generator, used: set[int]) -> int:
    while (subject := int(rng.integers(1, 2**62))) in used:
        pass
    used.add(subject)
    return subject


def _record(
    subject: int,
    pool: Pool,
    codes: Sequence[str],
    kinds: Sequence[Sequence[str]],
    start: datetime,
    rng: np.random.Generator,
) -> list[Event]:
    born = start - timedelta(days=float(rng.uniform(*AGES)) * 365.25)
    events = [Event(subject, None, facts[int(rng.integers(len(facts)))], resource="Patient") for facts in kinds]
    events.append(Event(subject, datetime(born.year, born.month, born.day), BIRTH, resource="Patient"))
    chosen = rng.permutation(len(codes))[: VISITS * CODES_PER_VISIT].reshape(VISITS, CODES_PER_VISIT)
    days = np.floor(np.cumsum(rng.exponential(DAYS_BETWEEN, VISITS))) + np.arange(VISITS)
    for visit, day in zip(chosen, days.tolist(), strict=True):
        for place in visit.tolist():
            rows = pool.rows[codes[place]]
            row = rows[int(rng.integers(len(rows)))]
            kept = {
                name: row[name]
                for name in ("code", "numeric_value", "unit", "status", "time_precision", "source_code", "source_unit")
            }
            events.append(
                Event(
                    subject,
                    start + timedelta(days=day),
                    **kept,
                    event_id=f"canary-{subject}-{place}",
                    resource=row["resource"],
                )
            )
    return events


def _count(table: pa.Table, counts: dict[str, int]) -> None:
    """Adds how many subjects have each code."""
    pairs = table.select(["subject_id", "code"]).group_by(["code", "subject_id"], use_threads=False).aggregate([])
    found = pc.value_counts(pairs["code"].cast(pa.string()))
    for one in found.to_pylist():
        counts[one["values"]] = counts.get(one["values"], 0) + one["counts"]
