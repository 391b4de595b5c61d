"""Everything that is learned of a dataset before the network is: vocabulary, scales, gaps, templates, attributes.

All of it comes from training subjects only, and is saved with the run as `timelines.json`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import BIRTH, NEGATED_PREFIX
from medtwin.core.errors import DatasetError
from medtwin.core.files import atomic_file, read_json
from medtwin.timelines.attributes import MINUTES_PER_YEAR, AttributeLaw, fit_attributes
from medtwin.timelines.gaps import GapLaw, fit_gaps
from medtwin.timelines.rows import GENDER_PREFIX, ShardRows, read_rows, row_tokens
from medtwin.timelines.scales import Scale, fit_scale
from medtwin.timelines.sequences import EVENT, STEP, Sequences, SubjectFacts, build_sequences
from medtwin.timelines.templates import Template, TemplateCounts
from medtwin.timelines.vocabulary import Token, Vocabulary

FILE = "timelines.json"
UNKNOWN_SEX = "GENDER//U"
_CONSTANT = 0.95  # a detail that so many events of its code have is part of the template
_INDEX_SHARE = (0.03, 0.6)  # an index condition is neither rare nor everybody's


@dataclass(frozen=True)
class SpecSettings:
    """What is asked of the fit.

    Attributes:
        min_subjects: A token must occur in so many training subjects.
        details: Element paths whose child rows are tokens.
        num_conditions: At most so many index conditions, the most frequent ones.
        max_positions: Longer sequences are cut.
    """

    min_subjects: int
    details: tuple[str, ...]
    num_conditions: int
    max_positions: int


@dataclass(frozen=True)
class TimelineSpec:
    """What the network and the generator know of the data.

    Attributes:
        vocabulary: V tokens.
        scales, templates: (V,) of every token; no scale where it carries no number.
        gaps, attributes: The laws of gaps and of attributes.
        sex_counts: (V, sexes) training subjects by sex that have the token. sex_totals: (sexes,) training subjects.
        age_range: (V, 2) youngest and oldest age in years at which it was said; nan where no age is known.
        static_counts: (V, 2) how often it was said as a static fact, and at a time.
        settings: As fitted.
        unmodelled: Rows of training subjects that no token stands for.
        descriptions: Of codes, where the dataset's codes.parquet has them.
    """

    vocabulary: Vocabulary
    scales: tuple[Scale | None, ...]
    templates: tuple[Template, ...]
    gaps: GapLaw
    attributes: AttributeLaw
    sex_counts: NDArray[np.int64]
    sex_totals: NDArray[np.int64]
    age_range: NDArray[np.float64]
    static_counts: NDArray[np.int64]
    settings: SpecSettings
    unmodelled: int = 0
    descriptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def condition_of(self) -> NDArray[np.int64]:
        """(V,) index condition of every token, or -1."""
        place = {code: index for index, code in enumerate(self.attributes.conditions)}
        return np.array([place.get(t.code, -1) if t.parent is None else -1 for t in self.vocabulary.tokens], np.int64)

    def described(self, codes: pa.Table) -> TimelineSpec:
        """The spec with the descriptions that codes.parquet has of its codes."""
        known = {token.code for token in self.vocabulary.tokens}
        rows = codes.select(["code", "description"]).to_pylist() if "description" in codes.column_names else []
        found = {row["code"]: row["description"] for row in rows if row["code"] in known and row["description"]}
        return replace(self, descriptions=found)

    @property
    def names_studies(self) -> bool:
        """Whether the timelines record imaging studies."""
        return any(token.resource == "ImagingStudy" and token.parent is None for token in self.vocabulary.tokens)

    def sequences(self, table: pa.Table) -> Sequences | None:
        """The sequences of an event table, of which unknown tokens are left out; None without a dated event."""
        shard = read_rows(table, self.settings.details)
        token = tokens_of(shard.rows, self.vocabulary)
        return self._build(shard, token, table)

    def _build(self, shard: ShardRows, token: NDArray[np.int64], table: pa.Table) -> Sequences | None:
        rows = shard.rows.assign(type=shard.rows["resource"])
        facts = subject_facts(table, self.attributes.sexes)
        limit = self.settings.max_positions
        return build_sequences(rows, token, facts, self.vocabulary, self.scales, self.condition_of, limit)

    def save(self, folder: Path) -> None:
        """Writes timelines.json."""
        record = {
            "version": 1,
            "vocabulary": self.vocabulary.to_json(),
            "scales": [scale and scale.to_json() for scale in self.scales],
            "templates": [template.to_json() for template in self.templates],
            "gaps": self.gaps.to_json(),
            "attributes": self.attributes.to_json(),
            "sex_counts": self.sex_counts.tolist(),
            "sex_totals": self.sex_totals.tolist(),
            "static_counts": self.static_counts.tolist(),
            "age_range": [[None if np.isnan(x) else x for x in row] for row in self.age_range.tolist()],
            "settings": {**self.settings.__dict__, "details": list(self.settings.details)},
            "unmodelled": self.unmodelled,
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
        if record.get("version") != 1:
            raise DatasetError(f"{folder / FILE} was written by another version of medtwin: train again")
        ages = [[np.nan if x is None else x for x in row] for row in record["age_range"]]
        settings = {**record["settings"], "details": tuple(record["settings"]["details"])}
        return cls(
            vocabulary=Vocabulary.from_json(record["vocabulary"]),
            scales=tuple(Scale(**scale) if scale else None for scale in record["scales"]),
            templates=tuple(Template.from_json(template) for template in record["templates"]),
            gaps=GapLaw.from_json(record["gaps"]),
            attributes=AttributeLaw.from_json(record["attributes"]),
            sex_counts=np.array(record["sex_counts"], dtype=np.int64),
            sex_totals=np.array(record["sex_totals"], dtype=np.int64),
            age_range=np.array(ages, dtype=np.float64).reshape(-1, 2),
            static_counts=np.array(record["static_counts"], dtype=np.int64).reshape(-1, 2),
            settings=SpecSettings(**settings),
            unmodelled=int(record["unmodelled"]),
            descriptions=record["descriptions"],
        )


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


@dataclass
class _Counts:
    """What the first pass over the training shards counts."""

    subjects: Counter[Token] = field(default_factory=Counter)
    events: Counter[Token] = field(default_factory=Counter)
    code_events: Counter[tuple[str, str]] = field(default_factory=Counter)
    values: dict[Token, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
    sexes: Counter[str] = field(default_factory=Counter)
    num_timelines: int = 0

    def add(self, table: pa.Table, details: Sequence[str]) -> None:
        """Counts one shard; subjects without a dated event are no timelines and count for nothing."""
        rows = read_rows(table, details).rows
        dated = rows.loc[~rows["is_static"], "subject_id"].unique()
        rows = rows[rows["subject_id"].isin(dated)]
        self.num_timelines += len(dated)
        if not len(rows):
            return
        tokens, group = row_tokens(rows)
        pairs = pd.DataFrame({"token": group, "subject": rows["subject_id"].to_numpy()})
        per_token = pairs.drop_duplicates()["token"].value_counts()
        raw = rows["value"].to_numpy(np.float64)
        order = np.argsort(group, kind="stable")
        bounds = np.searchsorted(group[order], np.arange(len(tokens) + 1))
        for index, token in enumerate(tokens):
            mine = order[bounds[index] : bounds[index + 1]]
            self.subjects[token] += int(per_token[index])
            self.events[token] += len(mine)
            if token.parent is None:
                self.code_events[token.resource, token.code] += len(mine)
            if token.has_number:
                self.values[token].append(raw[mine][np.isfinite(raw[mine])])
        genders = table.filter(pc.starts_with(table["code"], GENDER_PREFIX))["code"].to_pylist()
        self.sexes.update(genders)

    def vocabulary(self, min_subjects: int) -> tuple[Vocabulary, set[Token]]:
        """The vocabulary, and the details that are so constant that they belong to templates."""
        frequent = {token for token, count in self.subjects.items() if count >= min_subjects}
        constant = {token for token in frequent if self._share(token) >= _CONSTANT}
        return Vocabulary.of(frequent - constant), constant

    def _share(self, token: Token) -> float:
        if token.parent is None or token.is_component:
            return 0.0
        return self.events[token] / max(self.code_events[token.resource, token.parent], 1)

    def index_conditions(self, vocabulary: Vocabulary, limit: int) -> list[str]:
        """The most frequent Conditions that neither few nor most subjects have."""
        low, high = (share * self.num_timelines for share in _INDEX_SHARE)
        counts: Counter[str] = Counter()
        for token in vocabulary.tokens:
            if token.resource == "Condition" and token.parent is None and not token.code.startswith(NEGATED_PREFIX):
                counts[token.code] = max(counts[token.code], self.subjects[token])
        chosen = [code for code, count in counts.most_common() if low <= count <= high]
        return sorted(chosen[:limit])


def fit_spec(shards: Callable[[], Iterable[pa.Table]], settings: SpecSettings) -> tuple[TimelineSpec, Sequences]:
    """The spec of the training shards, and their sequences.

    Args:
        shards: Gives the event tables of the training split, each time it is called.
        settings: What is asked for.

    Raises:
        DatasetError: If no training subject has a dated event, or no token is frequent enough.
    """
    counts = _Counts()
    for table in shards():
        counts.add(table, settings.details)
    if not counts.num_timelines:
        raise DatasetError("no training subject has a dated event: there is no timeline to learn from")
    vocabulary, constant = counts.vocabulary(settings.min_subjects)
    if not len(vocabulary):
        raise DatasetError(
            f"no code occurs in {settings.min_subjects} training subjects: lower data.min_subjects, or add subjects"
        )
    draft = TimelineSpec(
        vocabulary=vocabulary,
        scales=_scales(counts, vocabulary),
        templates=(),
        gaps=GapLaw((), ()),
        attributes=_draft_attributes(counts, vocabulary, settings),
        sex_counts=np.zeros((0, 0), np.int64),
        sex_totals=np.zeros(0, np.int64),
        age_range=np.zeros((0, 2)),
        static_counts=np.zeros((0, 2), np.int64),
        settings=settings,
    )
    parts, templates, unmodelled = [], TemplateCounts(), 0
    for table in shards():
        shard = read_rows(table, settings.details)
        token = tokens_of(shard.rows, vocabulary)
        is_constant = _is_one_of(shard.rows, constant)
        templates.add(shard, np.where(is_constant, -1, token), is_constant)
        unmodelled += int(((token < 0) & ~is_constant).sum())
        if (part := draft._build(shard, np.where(is_constant, -1, token), table)) is not None:
            parts.append(part)
    sequences = Sequences.join(parts)
    return _finished(draft, sequences, templates, unmodelled), sequences


def _is_one_of(rows: pd.DataFrame, tokens: set[Token]) -> NDArray[np.bool_]:
    if not tokens or not len(rows):
        return np.zeros(len(rows), dtype=bool)
    found, group = row_tokens(rows)
    return np.array([token in tokens for token in found])[group]


def _scales(counts: _Counts, vocabulary: Vocabulary) -> tuple[Scale | None, ...]:
    pooled: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for token, parts in counts.values.items():
        if (index := vocabulary.find(token)) is not None and vocabulary.tokens[index].has_number:
            pooled[index] += parts
    scales: list[Scale | None] = []
    for index, token in enumerate(vocabulary.tokens):
        values = np.concatenate(pooled[index]) if pooled[index] else np.zeros(0)
        scales.append(fit_scale(values, is_duration=token.number in ("duration", "ago")) if len(values) else None)
    return tuple(scales)


def _draft_attributes(counts: _Counts, vocabulary: Vocabulary, settings: SpecSettings) -> AttributeLaw:
    sexes = [UNKNOWN_SEX, *sorted(code for code in counts.sexes if code != UNKNOWN_SEX)]
    conditions = counts.index_conditions(vocabulary, settings.num_conditions)
    return AttributeLaw(tuple(sexes), tuple(conditions), 0.0, 1.0, 0.0, 0.0, 0.0, (0, 0, 0, 0), np.zeros((0, 4)))


def _finished(draft: TimelineSpec, sequences: Sequences, templates: TemplateCounts, unmodelled: int) -> TimelineSpec:
    num_tokens, num_sexes = len(draft.vocabulary), len(draft.attributes.sexes)
    subject = np.repeat(np.arange(len(sequences)), sequences.lengths)
    said = sequences.is_first
    sex_counts = np.zeros((num_tokens, num_sexes), dtype=np.int64)
    np.add.at(sex_counts, (sequences.token[said], sequences.sex[subject[said]]), 1)
    age_range = np.stack([np.full(num_tokens, np.inf), np.full(num_tokens, -np.inf)], axis=1)
    elapsed = (sequences.minute - sequences.start_minute[subject]) / MINUTES_PER_YEAR
    age = sequences.age_start_years[subject] + elapsed
    aged = (sequences.kind == EVENT) & np.isfinite(age)
    np.minimum.at(age_range[:, 0], sequences.token[aged], age[aged])
    np.maximum.at(age_range[:, 1], sequences.token[aged], age[aged])
    steps_so_far = np.cumsum(sequences.kind == STEP)
    step_number = steps_so_far - np.concatenate([[0], steps_so_far])[sequences.offsets[:-1]][subject]
    is_dated = step_number > 0
    static_counts = np.zeros((num_tokens, 2), dtype=np.int64)
    np.add.at(
        static_counts, (sequences.token[sequences.kind == EVENT], is_dated[sequences.kind == EVENT].astype(int)), 1
    )
    steps = np.flatnonzero((sequences.kind == STEP) & (step_number > 1))
    gaps = fit_gaps(np.asarray(sequences.minute[steps - 1]), np.asarray(sequences.minute[steps]))
    law = draft.attributes
    attributes = fit_attributes(sequences.attributes(), law.sexes, law.conditions)
    return TimelineSpec(
        vocabulary=draft.vocabulary,
        scales=draft.scales,
        templates=tuple(templates.templates(num_tokens, min_subjects=draft.settings.min_subjects)),
        gaps=gaps,
        attributes=attributes,
        sex_counts=sex_counts,
        sex_totals=np.bincount(sequences.sex, minlength=num_sexes),
        age_range=np.where(np.isfinite(age_range), age_range, np.nan),
        static_counts=static_counts,
        settings=draft.settings,
        unmodelled=unmodelled,
    )
