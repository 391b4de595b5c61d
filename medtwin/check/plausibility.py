"""Hard rules that no record may break, as data: each says what it forbids and who says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import betaincinv

from medtwin.check.findings import LEVEL, RuleRow
from medtwin.core.codes import BIRTH, CHILD_PREFIX, DEATH, NEGATED_PREFIX
from medtwin.core.errors import ConfigError

Kind = Literal["after-death", "before-birth", "not-of-sex", "duplicate-event", "ends-before-start"]
KINDS: tuple[Kind, ...] = ("after-death", "before-birth", "not-of-sex", "duplicate-event", "ends-before-start")
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Rule:
    """One hard rule.

    Attributes:
        name: Stable name, kebab-case.
        kind: What is looked for.
        title: What it says, in words.
        source: Where it comes from, with version.
        sex: For `not-of-sex`: the sex that must not have the codes, as in `GENDER//M`.
        codes: For `not-of-sex`: the codes; one that ends in `*` means all that begin so.

    Raises:
        ConfigError: If it is not complete.
    """

    name: str
    kind: Kind
    title: str
    source: str
    sex: str | None = None
    codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"rule {self.name}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not self.source.strip():
            raise ConfigError(f"rule {self.name}: source must say where the rule comes from")
        if self.kind == "not-of-sex" and (self.sex not in ("M", "F") or not self.codes):
            raise ConfigError(f"rule {self.name}: a rule of sex needs sex (M or F) and codes")


def rules_from(config: Mapping[str, Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules of a configuration, by name.

    Raises:
        ConfigError: If one is not complete or has unknown settings.
    """
    rules = []
    for name, values in config.items():
        try:
            rules.append(Rule(name, **{**values, "codes": tuple(values.get("codes", ()))}))
        except TypeError as error:
            raise ConfigError(f"rule {name}: {error}") from error
    return tuple(rules)


@dataclass
class RuleCounter:
    """Counts the subjects that break each rule, shard by shard; a subject must stand in one shard."""

    rules: Sequence[Rule]
    num_subjects: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    _ids: list[NDArray[np.uint64]] = field(default_factory=list)

    def look(self, table: pa.Table) -> None:
        """Counts one shard, (rows,) of `EVENT_SCHEMA`."""
        self.num_subjects += len(pc.unique(table["subject_id"]))
        facts = _Facts(table)
        for rule in self.rules:
            if rule.kind != "duplicate-event":
                found = len(np.unique(facts.subject[_broken(rule, facts)]))
                self.broken[rule.name] = self.broken.get(rule.name, 0) + found
        if any(rule.kind == "duplicate-event" for rule in self.rules):
            ids = table["event_id"].drop_null()
            self._ids.append(_hashes(ids))

    def count(self, rule: Rule) -> int:
        """Subjects that break a rule; of `duplicate-event`: ids that stand more than once."""
        if rule.kind != "duplicate-event":
            return self.broken.get(rule.name, 0)
        ids = np.concatenate(self._ids) if self._ids else np.zeros(0, np.uint64)
        return len(ids) - len(np.unique(ids))


def _hashes(texts: pa.ChunkedArray) -> NDArray[np.uint64]:
    """64-bit hashes of texts: 8 bytes per id instead of a string."""
    import hashlib

    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.to_pylist())
    return np.frombuffer(b"".join(digests), np.uint64)


class _Facts:
    """Columns of a shard as arrays, and birth, death and sex of each row's subject."""

    def __init__(self, table: pa.Table) -> None:
        self.code = table["code"]
        self.subject = table["subject_id"].to_numpy()
        self.time = _times(table["time"])
        self.end = _times(table["end_time"])
        self.is_clinical = ~np.asarray(
            pc.or_(pc.starts_with(self.code, CHILD_PREFIX), pc.starts_with(self.code, NEGATED_PREFIX))
        )
        self.is_birth = np.asarray(pc.equal(self.code, BIRTH))
        self.is_death = np.asarray(pc.equal(self.code, DEATH))
        self.birth = self._time_of(self.is_birth)
        death = self._time_of(self.is_death)
        # A death known by its day lasts until the end of that day: its time is the day's midnight.
        is_day = death == death.astype("datetime64[D]").astype("datetime64[us]")
        self.death = np.where(is_day, death + _DAY - np.timedelta64(1, "us"), death)

    def _time_of(self, mask: NDArray[np.bool_]) -> NDArray[Any]:
        subjects, where = np.unique(self.subject, return_inverse=True)
        times = np.full(len(subjects), np.datetime64("NaT", "us"))
        times[where[mask]] = self.time[mask]
        return times[where]

    def of_sex(self, sex: str) -> NDArray[np.bool_]:
        """Which rows belong to a subject of this sex, (rows,)."""
        is_sex = np.asarray(pc.equal(self.code, f"GENDER//{sex}"))
        return np.isin(self.subject, np.unique(self.subject[is_sex]))


def _times(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(column.to_numpy(), dtype="datetime64[us]")


def _broken(rule: Rule, facts: _Facts) -> NDArray[np.bool_]:
    """Which rows break a rule, (rows,); comparisons with an unknown time are false."""
    if rule.kind == "after-death":
        return np.asarray(facts.is_clinical & ~facts.is_death & (facts.time > facts.death))
    if rule.kind == "before-birth":
        return np.asarray(facts.is_clinical & ~facts.is_birth & (facts.time < facts.birth))
    if rule.kind == "ends-before-start":
        return np.asarray(facts.end < facts.time)
    exact = [code for code in rule.codes if not code.endswith("*")]
    matches = np.asarray(pc.is_in(facts.code, value_set=pa.array(exact, pa.string())))
    for code in rule.codes:
        if code.endswith("*"):
            matches |= np.asarray(pc.starts_with(facts.code, code[:-1]))
    return np.asarray(matches & facts.of_sex(str(rule.sex)))


def rule_rows(rules: Sequence[Rule], real: RuleCounter, synthetic: RuleCounter) -> list[RuleRow]:
    """The share of subjects that break each rule on both sides."""
    rows = []
    for rule in rules:
        counts = real.count(rule), synthetic.count(rule)
        n = real.num_subjects
        high = float(betaincinv(counts[0] + 1, max(n - counts[0], 1), (1 + LEVEL) / 2)) if counts[0] > 0 else 0.0
        shares = [count / max(side.num_subjects, 1) for count, side in zip(counts, (real, synthetic), strict=True)]
        rows.append(RuleRow(rule.name, rule.title, rule.source, *counts, shares[0], shares[1], high))
    return rows
