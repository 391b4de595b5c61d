"""What a pass over the training shards counts before there are tokens: what the vocabulary and its facts come from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.core.codes import NEGATED_PREFIX
from medtwin.core.seeds import generator
from medtwin.timelines.reading.rows import GENDER_PREFIX, read_rows, row_tokens
from medtwin.timelines.reading.vocabulary import Token, Vocabulary

_CONSTANT = 0.95  # a detail that so many events of its code have is part of the template
_INDEX_SHARE = (0.01, 0.6)  # an index condition is neither rare nor everybody's
_INDEX_SUBJECTS = 5  # and so many have it at least
_MOST_VALUES = 200_000  # numbers of a token that its scale is fitted to


@dataclass
class TokenCounts:
    """What the first pass over the training shards counts.

    Attributes:
        subjects, events: That have a token, and of it.
        code_events: Events of a resource and code. conditions: Subjects that have a condition.
        values: Numbers of a token, of a frequent one a random part.
        sexes: Subjects of each. num_timelines: Subjects with a dated event, or with any where nobody has one.
    """

    subjects: Counter[Token] = field(default_factory=Counter)
    events: Counter[Token] = field(default_factory=Counter)
    code_events: Counter[tuple[str, str]] = field(default_factory=Counter)
    conditions: Counter[str] = field(default_factory=Counter)
    values: dict[Token, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
    sexes: Counter[str] = field(default_factory=Counter)
    num_timelines: int = 0

    def add(self, table: pa.Table, details: Sequence[str], *, has_times: bool = True) -> None:
        """Counts one shard; among dated records those without a dated event are no timelines and count for nothing."""
        rows = read_rows(table, details).rows
        known = (rows[~rows["is_static"]] if has_times else rows)["subject_id"].unique()
        rows = rows[rows["subject_id"].isin(known)]
        self.num_timelines += len(known)
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
                self._keep(token, raw[mine][np.isfinite(raw[mine])])
        is_condition = np.array([token.resource == "Condition" and token.parent is None for token in tokens])
        codes = pairs[is_condition[group]].assign(code=lambda part: [tokens[index].code for index in part["token"]])
        self.conditions.update(codes.drop_duplicates(["code", "subject"])["code"].tolist())
        genders = table.filter(pc.starts_with(table["code"], GENDER_PREFIX))["code"].to_pylist()
        self.sexes.update(genders)

    def vocabulary(self, min_subjects: int, after: Mapping[str, str] | None = None) -> tuple[Vocabulary, set[Token]]:
        """The vocabulary, and the details that are so constant that they belong to templates.

        Args:
            min_subjects: A token must occur in so many.
            after: As of `Vocabulary.of`.
        """
        frequent = {token for token, count in self.subjects.items() if count >= min_subjects}
        constant = {token for token in frequent if self._share(token) >= _CONSTANT}
        return Vocabulary.of(frequent - constant, after), constant

    def _share(self, token: Token) -> float:
        if token.parent is None or token.is_component:
            return 0.0
        return self.events[token] / max(self.code_events[token.resource, token.parent], 1)

    def _keep(self, token: Token, values: NDArray[np.float64]) -> None:
        """Keeps values of a token; beyond a limit a random half of them."""
        parts = self.values[token]
        parts.append(values)
        if sum(map(len, parts)) > 2 * _MOST_VALUES:
            whole = np.concatenate(parts)
            chosen = generator(0, "values", self.events[token]).permutation(len(whole))[:_MOST_VALUES]
            self.values[token] = [whole[np.sort(chosen)]]

    def facts(self, vocabulary: Vocabulary, patterns: Sequence[str], num_conditions: int) -> tuple[str, ...]:
        """Codes that match the patterns, and the most frequent Conditions that neither few nor most subjects have."""
        low, high = (share * self.num_timelines for share in _INDEX_SHARE)
        named, conditions = set(), set()
        for token in vocabulary.tokens:
            if token.parent is not None or token.code.startswith(NEGATED_PREFIX):
                continue
            if any(fnmatchcase(token.fact, pattern) for pattern in patterns):
                named.add(token.fact)
            elif token.resource == "Condition":
                conditions.add(token.code)
        counts = {code: self.conditions[code] for code in sorted(conditions)}
        ranked = sorted(counts, key=lambda code: -counts[code])
        chosen = [code for code in ranked if max(low, _INDEX_SUBJECTS) <= counts[code] <= high]
        return tuple(sorted({*named, *chosen[:num_conditions]}))
