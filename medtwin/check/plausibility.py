"""Counts what breaks clinical rules on both sides, shard by shard, and says how often twins may break them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri

from medtwin.check.estimates import LEVEL
from medtwin.check.facts import Facts, Ints
from medtwin.check.findings import RuleOutcome, RuleRow
from medtwin.check.identities import Judged
from medtwin.check.rule_kinds import judge
from medtwin.check.rules import Rule, rules_from

__all__ = ["Rule", "RuleCounter", "Tally", "rule_rows", "rules_from"]
MIN_CLUSTERS = 10
"""Subjects on either side below which the share of events has no variance to go by, and only subjects are compared."""
NUM_CODES = 3
"""How many of the codes that break a rule most often are named."""


@dataclass
class Tally:
    """What was counted of one rule on one side.

    Attributes:
        subjects, events: To whom and to how many items it applies.
        broken_subjects, broken_events: ... that break it.
        unknown: Items that could not be judged: a unit that is not listed, several numbers at once.
        has_both: Whether both halves of a rule on two sets of codes were seen.
        codes: Broken items by code.
        squares: Sums over subjects of broken x broken, broken x events, events x events.
    """

    subjects: int = 0
    events: int = 0
    broken_subjects: int = 0
    broken_events: int = 0
    unknown: int = 0
    has_both: bool = False
    codes: Counter[str] = field(default_factory=Counter)
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def add(self, judged: Judged, facts: Facts) -> tuple[Ints, Ints]:
        """Adds what a rule says of one shard; returns events and broken events of its subjects, (subjects,) each."""
        who = facts.subject[judged.rows]
        events = np.bincount(who, minlength=len(facts.subjects))
        broken = np.bincount(who[judged.is_broken], minlength=len(facts.subjects))
        self.unknown += judged.num_unknown
        self.has_both |= judged.has_both
        self.add_counts(events, broken)
        for number, count in zip(
            *np.unique(facts.code[judged.rows[judged.is_broken]], return_counts=True), strict=True
        ):
            self.codes[facts.code_names[number]] += int(count)
        return events, broken

    def add_counts(self, events: Ints, broken: Ints) -> None:
        """Adds the events and broken events of some subjects, (subjects,) each."""
        self.subjects += int((events > 0).sum())
        self.events += int(events.sum())
        self.broken_subjects += int((broken > 0).sum())
        self.broken_events += int(broken.sum())
        b, a = broken.astype(np.float64), events.astype(np.float64)
        self.squares += [b @ b, b @ a, a @ a]

    @property
    def applies(self) -> bool:
        """Whether there was anything to judge."""
        return self.events > 0 and self.has_both

    @property
    def share(self) -> float:
        """Share of the subjects to whom it applies that break it; 0 of none."""
        return self.broken_subjects / max(self.subjects, 1)

    @property
    def event_share(self) -> float:
        """Share of the items that break it; 0 of none."""
        return self.broken_events / max(self.events, 1)

    @property
    def event_variance(self) -> float:
        """Variance of `event_share` under resampling of subjects, the clusters.

        Source: Cochran 1977, Sampling Techniques, 3rd edition, section 6.4: the ratio estimator, linearised.
        """
        if self.subjects < 2:
            return 0.0
        share = self.event_share
        squares = self.squares @ np.array([1.0, -2 * share, share * share])
        return float(max(squares, 0.0)) / self.events**2 * self.subjects / (self.subjects - 1)


@dataclass
class RuleCounter:
    """Counts the subjects and events that break each rule, shard by shard; a subject must stand in one shard."""

    rules: Sequence[Rule]
    num_subjects: int = 0
    _tallies: dict[str, Tally] = field(default_factory=dict)
    _ids: list[tuple[NDArray[np.uint64], Ints]] = field(default_factory=list)
    _subjects: list[Ints] = field(default_factory=list)
    _counts: list[NDArray[np.int32]] = field(default_factory=list)

    def look(self, table: pa.Table) -> None:
        """Counts one shard, (rows,) of `EVENT_SCHEMA`, with the details of events."""
        facts = Facts(table)
        self.num_subjects += len(facts.subjects)
        counts = np.zeros((2, len(self.rules), len(facts.subjects)), np.int32)
        for number, rule in enumerate(self.rules):
            if rule.kind != "duplicate-event":
                tally = self._tallies.setdefault(rule.name, Tally())
                counts[:, number] = tally.add(judge(rule, facts), facts)
        self._subjects.append(facts.subjects)
        self._counts.append(counts)
        if any(rule.kind == "duplicate-event" for rule in self.rules):
            self._ids.append(_hashed_ids(facts))

    def tally(self, rule: Rule) -> Tally:
        """What was counted of a rule so far."""
        if rule.kind == "duplicate-event":
            return self._duplicates()
        return self._tallies.get(rule.name, Tally())

    def counts(self, subjects: Ints) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Events and broken events of some subjects by rule, (subjects, rules) each; 0 of `duplicate-event`.

        Args:
            subjects: Their ids, ascending.
        """
        found = np.zeros((2, len(self.rules), len(subjects)), np.int32)
        for ids, counts in zip(self._subjects, self._counts, strict=True):
            at = np.searchsorted(subjects, ids)
            is_wanted = (at < len(subjects)) & (subjects[np.minimum(at, len(subjects) - 1)] == ids)
            found[:, :, at[is_wanted]] = counts[:, :, is_wanted]
        return found[0].T, found[1].T

    def count(self, rule: Rule) -> int:
        """Subjects that break a rule."""
        return self.tally(rule).broken_subjects

    def _duplicates(self) -> Tally:
        """Ids that stand more than once, over all shards: every appearance after the first breaks the rule."""
        tally = Tally(has_both=True)
        if not self._ids:
            return tally
        ids, subjects = (np.concatenate(part) for part in zip(*self._ids, strict=True))
        is_again = np.ones(len(ids), bool)
        is_again[np.unique(ids, return_index=True)[1]] = False
        _, who = np.unique(subjects, return_inverse=True)
        tally.add_counts(np.bincount(who), np.bincount(who[is_again], minlength=int(who.max(initial=-1)) + 1))
        return tally


def _hashed_ids(facts: Facts) -> tuple[NDArray[np.uint64], Ints]:
    """64-bit hashes of the event ids of a shard and whose they are: 16 bytes per id instead of a string."""
    column = facts.table["event_id"]
    rows = np.flatnonzero(np.asarray(column.is_valid()))
    digests = (blake2b(text.encode(), digest_size=8).digest() for text in column.drop_null().to_pylist())
    return np.frombuffer(b"".join(digests), np.uint64), facts.subjects[facts.subject[rows]]


def rule_rows(rules: Sequence[Rule], real: RuleCounter, synthetic: RuleCounter) -> list[RuleRow]:
    """What both sides break of each rule, and whether the twins break it more than they may.

    A hard rule that no real subject breaks is broken by no twin. Else the twins may break a rule as often as subjects
    drawn like the real ones would by chance: among subjects and among events, in less than 5 % of such draws over all
    these rules together (Bonferroni).
    """
    counted = [(rule, real.tally(rule), synthetic.tally(rule)) for rule in rules]
    num_tests = sum(mine.applies and theirs.applies and not _is_strict(rule, mine) for rule, mine, theirs in counted)
    # Two sides of a test each, subjects and events.
    tail = (1 - LEVEL) / max(2 * num_tests, 1)
    return [_row(rule, mine, theirs, tail) for rule, mine, theirs in counted]


def _is_strict(rule: Rule, real: Tally) -> bool:
    return rule.is_hard and not real.broken_events


def _row(rule: Rule, real: Tally, synthetic: Tally, tail: float) -> RuleRow:
    high = event_high = 0.0
    if not _is_strict(rule, real):
        high = share_high(real.broken_subjects, real.subjects, synthetic.subjects, tail)
        event_high = event_share_high(real, synthetic, tail)
    return RuleRow(
        rule.name,
        rule.title,
        rule.source,
        real.broken_subjects,
        synthetic.broken_subjects,
        real.share,
        synthetic.share,
        high,
        kind=rule.kind,
        soft=rule.soft,
        outcome=_outcome(rule, real, synthetic, (high, event_high)),
        applicable=(real.subjects, synthetic.subjects),
        events=(real.events, synthetic.events),
        broken_events=(real.broken_events, synthetic.broken_events),
        event_shares=(real.event_share, synthetic.event_share),
        event_share_high=event_high,
        unknown=(real.unknown, synthetic.unknown),
        detail=", ".join(f"{code} ({count})" for code, count in synthetic.codes.most_common(NUM_CODES)),
    )


def _outcome(rule: Rule, real: Tally, synthetic: Tally, limits: tuple[float, float]) -> RuleOutcome:
    if not synthetic.applies:
        return "untested" if real.applies else "not_applicable"
    if not rule.is_hard and not real.applies:
        return "untested"
    is_broken = synthetic.share > limits[0] or synthetic.event_share > limits[1]
    return "broken" if is_broken else "kept"


def event_share_high(real: Tally, synthetic: Tally, tail: float) -> float:
    """The largest share of synthetic events that chance explains; 1 where there are too few subjects to say.

    One-sided test of the difference of two ratios, each with its variance over subjects.
    """
    if min(real.subjects, synthetic.subjects) < MIN_CLUSTERS:
        return 1.0
    spread = np.sqrt(real.event_variance + synthetic.event_variance)
    return float(min(real.event_share - ndtri(tail) * spread, 1.0))


def share_high(hits: int, num_real: int, num_synthetic: int, tail: float) -> float:
    """The largest share of twins that chance explains, given `hits` of `num_real`; 1 where that is all of them.

    The largest number of synthetic hits whose one-sided p-value stays at or above `tail` in Fisher's exact test.

    Source: Fisher 1935, The Design of Experiments; Agresti 2013, Categorical Data Analysis, 3rd edition, section 3.5.1.

    >>> share_high(5, 100, 100, 0.025), share_high(0, 100, 100, 0.025)
    (0.14, 0.05)
    """
    if not num_real or not num_synthetic:
        return 1.0
    low, high = 0, num_synthetic
    while low < high:
        middle = (low + high + 1) // 2
        if _chance_of_more(middle, hits, num_real, num_synthetic) >= tail:
            low = middle
        else:
            high = middle - 1
    return low / num_synthetic


def _chance_of_more(count: int, hits: int, num_real: int, num_synthetic: int) -> float:
    """P(synthetic hits >= count) where all hits fall on anybody alike, with the total of hits that this makes."""
    total = hits + count
    at_least = np.arange(count, min(total, num_synthetic) + 1)
    at_least = at_least[total - at_least <= num_real]
    logs = (
        _log_choose(num_synthetic, at_least)
        + _log_choose(num_real, total - at_least)
        - _log_choose(num_real + num_synthetic, np.array(total))
    )
    return float(np.exp(logs).sum())


def _log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
