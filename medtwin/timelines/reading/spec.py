"""Everything that is learned of a dataset before the network is: vocabulary, scales, gaps, templates, attributes.

All of it comes from training subjects only, and is saved with the run as `timelines.json`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH
from medtwin.core.errors import DatasetError
from medtwin.core.files import atomic_file, read_json
from medtwin.timelines.reading.counts import TokenCounts
from medtwin.timelines.reading.gaps import GapLaw
from medtwin.timelines.reading.heaps import Heaps
from medtwin.timelines.reading.identities import Identity, IdentityCounts, computed_after
from medtwin.timelines.reading.profile import ProfileLaw, fit_profile
from medtwin.timelines.reading.rows import GENDER_PREFIX, ShardRows, read_rows, row_tokens
from medtwin.timelines.reading.scales import Scale, fit_scale
from medtwin.timelines.reading.sequences import SequenceFiles, Sequences, SubjectFacts, build_sequences
from medtwin.timelines.reading.sums import SequenceSums
from medtwin.timelines.reading.templates import Template, TemplateCounts
from medtwin.timelines.reading.vocabulary import Token, Vocabulary

FILE = "timelines.json"
_COUNTS = ("sex_counts", "sex_totals", "fact_counts", "fact_totals", "static_counts", "told_again", "most_said")
_KNOWN_OF_SOME, _TABLES_OF_SOME = ("changes", "youngest_onset"), ("levels", "age_range")  # nan of other tokens
UNKNOWN_SEX = "GENDER//U"
_ROOT_SHARE = 0.99  # what is a static fact so often is a root of the profile


@dataclass(frozen=True)
class SpecSettings:
    """What is asked of the fit.

    Attributes:
        min_subjects: A token must occur in so many training subjects.
        details: Element paths whose child rows are tokens.
        num_conditions: At most so many index conditions, the most frequent ones.
        facts: Codes of further facts of the whole record, as shell patterns.
        max_positions: Longer sequences are cut.
        identities: Numbers that may follow from each other, as settings of rules by name; not saved.
    """

    min_subjects: int
    details: tuple[str, ...]
    num_conditions: int
    facts: tuple[str, ...]
    max_positions: int
    identities: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class TimelineSpec:
    """What the network and the generator know of the data.

    Attributes:
        vocabulary: V tokens.
        scales, heaps, templates: (V,) of every token; no scale where it carries no number.
        levels: (V, 3 NUM_LEVELS) the law of a subject's first number (`levels.py`); nan where too few have one.
        changes: (V,) mean absolute change from a subject's last number to the next, scaled; nan where none has two.
        gaps: The law of gaps. profile: The law of attributes.
        sex_counts: (V, sexes) training subjects by sex that have the token. sex_totals: (sexes,) training subjects.
        fact_counts: (V, K) those that have the token and a fact. fact_totals: (K,) those that have the fact.
        age_range: (V, 2) youngest and oldest age in years at which it was said; nan where no age is known.
        youngest_onset: (V,) youngest age in years at which what a history tells of began; nan of what tells of none.
        static_counts: (V, 2) how often it was said as a static fact, and at a time.
        told_again: (V, 2, 2) in how many steps before and after a subject first had it, and in how many of them it was
            said.
        most_said: (V,) how often one subject had it at most.
        settings: As fitted.
        unmodelled: Rows of training subjects that no token stands for.
        identities: Those that training subjects keep.
        descriptions: Of codes, where the dataset's codes.parquet has them.
    """

    vocabulary: Vocabulary
    scales: tuple[Scale | None, ...]
    heaps: tuple[Heaps, ...]
    templates: tuple[Template, ...]
    levels: NDArray[np.float64]
    changes: NDArray[np.float64]
    gaps: GapLaw
    profile: ProfileLaw
    sex_counts: NDArray[np.int64]
    sex_totals: NDArray[np.int64]
    fact_counts: NDArray[np.int64]
    fact_totals: NDArray[np.int64]
    age_range: NDArray[np.float64]
    youngest_onset: NDArray[np.float64]
    static_counts: NDArray[np.int64]
    told_again: NDArray[np.int64]
    most_said: NDArray[np.int64]
    settings: SpecSettings
    unmodelled: int = 0
    identities: tuple[Identity, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def fact_of(self) -> NDArray[np.int64]:
        """(V,) fact that a token names, or -1."""
        return _fact_of(self.vocabulary, self.profile.facts)

    @property
    def sizes(self) -> dict[str, int]:
        """What a network has to know of it before it is built."""
        return {
            "num_codes": len(self.vocabulary),
            "num_ancestors": int(self.vocabulary.ancestor_of.max()) + 1,
            "num_types": len(self.vocabulary.types),
            "num_gap_classes": self.gaps.num_classes,
            "num_sexes": len(self.profile.sexes),
            "num_facts": self.profile.num_facts,
        }

    def causes(self, most: int) -> NDArray[np.int64]:
        """Indices of at most so many tokens from which the numbers of others may follow, in the order of the tokens.

        They are events that happen at a time and carry no measured number, those first that tell most people apart.
        """
        share = self.sex_counts.sum(axis=1) / max(int(self.sex_totals.sum()), 1)
        may_cause = np.array([t.parent is None and t.number != "numeric" for t in self.vocabulary.tokens], dtype=bool)
        tells = np.where(may_cause & (self.static_counts[:, 1] > 0), share * (1 - share), -1.0)
        return np.sort(np.argsort(-tells, kind="stable")[:most])

    def described(self, codes: pa.Table) -> TimelineSpec:
        """The spec with the descriptions that codes.parquet has of its codes."""
        known = {token.code for token in self.vocabulary.tokens}
        rows = codes.select(["code", "description"]).to_pylist() if "description" in codes.column_names else []
        found = {row["code"]: row["description"] for row in rows if row["code"] in known and row["description"]}
        return replace(self, descriptions=found)

    @property
    def has_times(self) -> bool:
        """Whether records say when anything was, and not static facts alone."""
        return bool(self.static_counts[:, 1].any())

    @property
    def names_studies(self) -> bool:
        """Whether the timelines record imaging studies."""
        return any(token.resource == "ImagingStudy" and token.parent is None for token in self.vocabulary.tokens)

    def sequences(self, table: pa.Table) -> Sequences | None:
        """The sequences of an event table, of which unknown tokens are left out; None without one."""
        shard = read_rows(table, self.settings.details)
        return self._reader().read(shard, tokens_of(shard.rows, self.vocabulary), table)

    def _reader(self) -> _Reader:
        limit = self.settings.max_positions
        return _Reader(self.vocabulary, self.scales, self.profile.sexes, self.fact_of, limit, self.has_times)

    def save(self, folder: Path) -> None:
        """Writes timelines.json and profile.npz."""
        self.profile.save(folder)
        record = {
            "version": 7,
            "vocabulary": self.vocabulary.to_json(),
            "scales": [scale and scale.to_json() for scale in self.scales],
            "heaps": [asdict(heaps) for heaps in self.heaps],
            "templates": [template.to_json() for template in self.templates],
            **{name: list(map(_plain, getattr(self, name).tolist())) for name in _KNOWN_OF_SOME},
            "gaps": self.gaps.to_json(),
            "profile": self.profile.to_json(),
            **{name: getattr(self, name).tolist() for name in _COUNTS},
            **{name: [list(map(_plain, row)) for row in getattr(self, name).tolist()] for name in _TABLES_OF_SOME},
            "settings": {name: value for name, value in asdict(self.settings).items() if name != "identities"},
            "unmodelled": self.unmodelled,
            "identities": [one.to_json() for one in self.identities],
            "descriptions": dict(self.descriptions),
        }
        with atomic_file(folder / FILE, "w") as file:
            json.dump(record, file, ensure_ascii=False)

    @classmethod
    def load(cls, folder: Path) -> TimelineSpec:
        """Reads timelines.json.

        Raises:
            DatasetError: If it is missing or no such file.
        """
        record = read_json(folder / FILE)
        if record.get("version") != 7:
            raise DatasetError(f"{folder / FILE} was written by another version of medtwin: train again")
        known: dict[str, Any] = {
            name: np.array(record[name], dtype=np.float64) for name in (*_KNOWN_OF_SOME, *_TABLES_OF_SOME)
        }
        known |= {name: np.array(record[name], dtype=np.int64) for name in _COUNTS}
        lists = {name: tuple(record["settings"][name]) for name in ("details", "facts")}
        return cls(
            vocabulary=Vocabulary.from_json(record["vocabulary"]),
            scales=tuple(Scale(**scale) if scale else None for scale in record["scales"]),
            heaps=tuple(
                Heaps(tuple(each["values"]), tuple(each["log_odds"]), are_ages=each["are_ages"])
                for each in record["heaps"]
            ),
            templates=tuple(Template.from_json(template) for template in record["templates"]),
            gaps=GapLaw.from_json(record["gaps"]),
            profile=ProfileLaw.load(folder, record["profile"]),
            settings=SpecSettings(**{**record["settings"], **lists}),
            unmodelled=int(record["unmodelled"]),
            identities=tuple(Identity.from_json(one) for one in record["identities"]),
            descriptions=record["descriptions"],
            **known,
        )


@dataclass(frozen=True)
class _Reader:
    """What turns event tables into sequences."""

    vocabulary: Vocabulary
    scales: tuple[Scale | None, ...]
    sexes: tuple[str, ...]
    fact_of: NDArray[np.int64]
    max_positions: int
    has_times: bool

    def read(self, shard: ShardRows, token: NDArray[np.int64], table: pa.Table) -> Sequences | None:
        rows = shard.rows.assign(type=shard.rows["resource"])
        known = subject_facts(table, self.sexes)
        if self.has_times:  # who has no dated event is no timeline; where nobody has, the static facts are all there is
            is_dated = ~rows["is_static"].to_numpy() & (token >= 0)
            mine = rows["subject_id"].isin(rows.loc[is_dated, "subject_id"].unique()).to_numpy()
            rows, token = rows[mine], token[mine]
        return build_sequences(rows, token, known, self.vocabulary, self.scales, self.fact_of, self.max_positions)


def are_female(sexes: Sequence[str]) -> NDArray[np.float64]:
    """(sexes,) 1 of women, 0 of men, nan of others."""
    return np.array([{f"{GENDER_PREFIX}F": 1.0, f"{GENDER_PREFIX}M": 0.0}.get(sex, np.nan) for sex in sexes])


def _plain(number: float) -> float | None:
    return None if np.isnan(number) else number


def _fact_of(vocabulary: Vocabulary, facts: Sequence[str]) -> NDArray[np.int64]:
    place = {code: index for index, code in enumerate(facts)}
    return np.array([place.get(t.fact, -1) if t.parent is None else -1 for t in vocabulary.tokens], np.int64)


def tokens_of(rows: pd.DataFrame, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """(rows,) token of every token row, -1 where the vocabulary has none for it, or none for its event."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    tokens, group = row_tokens(rows)
    found = np.array([-1 if (index := vocabulary.find(token)) is None else index for token in tokens], dtype=np.int64)
    token = found[group]
    is_event = rows["parent"].isna().to_numpy()
    known_events = rows["row"].to_numpy()[is_event & (token >= 0)]
    return np.where(is_event | rows["instance"].isin(known_events).to_numpy(), token, -1)


def subject_facts(table: pa.Table, sexes: Sequence[str]) -> SubjectFacts:
    """Birth and sex of the subjects of an event table."""
    births = table.filter(pc.equal(table["code"], BIRTH)).select(["subject_id", "time"]).drop_null()
    minutes = births["time"].to_numpy().astype("datetime64[m]").astype(np.int64)
    genders = table.filter(pc.starts_with(table["code"], GENDER_PREFIX)).select(["subject_id", "code"]).to_pylist()
    place = {code: index for index, code in enumerate(sexes)}
    sex = {row["subject_id"]: place.get(row["code"], 0) for row in genders}
    return SubjectFacts(dict(zip(births["subject_id"].to_pylist(), minutes.tolist(), strict=True)), sex)


def fit_spec(shards: Callable[[], Iterable[pa.Table]], settings: SpecSettings, files: SequenceFiles) -> TimelineSpec:
    """The spec of the training shards; their sequences go to files, which are closed.

    Args:
        shards: Gives the event tables of the training split, each time it is called.
        settings: What is asked for.
        files: Where the sequences go.

    Raises:
        DatasetError: If no training subject has an event, or no token is frequent enough.
    """
    counts = TokenCounts()
    has_times = any(not read_rows(table, settings.details).rows["is_static"].all() for table in shards())
    for table in shards():
        counts.add(table, settings.details, has_times=has_times)
    if not counts.num_timelines:
        raise DatasetError("no training subject has an event: there is nothing to learn from")
    vocabulary, constant = counts.vocabulary(settings.min_subjects, computed_after(settings.identities))
    if not len(vocabulary):
        raise DatasetError(
            f"no code occurs in {settings.min_subjects} training subjects: lower data.min_subjects, or add subjects"
        )
    facts = counts.facts(vocabulary, settings.facts, settings.num_conditions)
    sexes = (UNKNOWN_SEX, *sorted(code for code in counts.sexes if code != UNKNOWN_SEX))
    reader = _Reader(
        vocabulary, _scales(counts, vocabulary), sexes, _fact_of(vocabulary, facts), settings.max_positions, has_times
    )
    sums, templates, unmodelled = (
        SequenceSums(vocabulary, reader.scales, num_sexes=len(sexes), num_facts=len(facts)),
        TemplateCounts(),
        0,
    )
    identities = IdentityCounts(settings.identities, vocabulary, reader.scales, are_female(sexes))
    for table in shards():
        shard = read_rows(table, settings.details)
        token = tokens_of(shard.rows, vocabulary)
        is_constant = _is_one_of(shard.rows, constant)
        templates.add(shard, np.where(is_constant, -1, token), is_constant)
        unmodelled += int(((token < 0) & ~is_constant).sum())
        if (part := reader.read(shard, np.where(is_constant, -1, token), table)) is not None:
            files.add(part)
            sums.add(part)
            identities.add(part)
    files.close()
    is_static = _are_roots(vocabulary, reader.fact_of, sums.static_counts, len(facts))
    return TimelineSpec(
        vocabulary=vocabulary,
        scales=reader.scales,
        heaps=sums.heaps(reader.scales),
        templates=tuple(templates.templates(len(vocabulary), min_subjects=settings.min_subjects)),
        levels=sums.first.mixtures(reader.scales),
        changes=np.where(sums.changes[0] > 0, sums.changes[1] / np.maximum(sums.changes[0], 1), np.nan),
        gaps=sums.gaps.law(),
        profile=fit_profile(sums.subjects, sexes, facts, is_static),
        sex_counts=sums.sex_counts,
        sex_totals=sums.sex_totals,
        fact_counts=sums.fact_counts,
        fact_totals=sums.fact_totals,
        age_range=np.where(np.isfinite(sums.age_range), sums.age_range, np.nan),
        youngest_onset=np.where(np.isfinite(sums.youngest_onset), sums.youngest_onset, np.nan),
        static_counts=sums.static_counts,
        told_again=sums.told_again(),
        most_said=sums.most_said,
        settings=settings,
        unmodelled=unmodelled,
        identities=identities.kept(),
    )


def _are_roots(
    vocabulary: Vocabulary, fact_of: NDArray[np.int64], static_counts: NDArray[np.int64], num_facts: int
) -> NDArray[np.bool_]:
    """(K,) which facts are next to always static and thus roots: a history of illness has a time and is none."""
    is_past = np.array([token.number == "ago" for token in vocabulary.tokens])
    totals = np.zeros((num_facts, 2))
    for is_chosen, counts in ((~is_past, static_counts), (is_past, static_counts[:, ::-1])):
        mine = is_chosen & (fact_of >= 0)
        np.add.at(totals, fact_of[mine], counts[mine])
    # What only the cut ends of records say is not known to be static.
    return np.asarray((totals[:, 0] >= _ROOT_SHARE * totals.sum(axis=1)) & (totals[:, 0] > 0))


def _is_one_of(rows: pd.DataFrame, tokens: set[Token]) -> NDArray[np.bool_]:
    if not tokens or not len(rows):
        return np.zeros(len(rows), dtype=bool)
    found, group = row_tokens(rows)
    return np.array([token in tokens for token in found])[group]


def _scales(counts: TokenCounts, vocabulary: Vocabulary) -> tuple[Scale | None, ...]:
    pooled: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for token, parts in counts.values.items():
        if (index := vocabulary.find(token)) is not None and vocabulary.tokens[index].has_number:
            pooled[index] += parts
    scales: list[Scale | None] = []
    for index, token in enumerate(vocabulary.tokens):
        values = np.concatenate(pooled[index]) if pooled[index] else np.zeros(0)
        scales.append(fit_scale(values, is_duration=token.number in ("duration", "ago")) if len(values) else None)
    return tuple(scales)
