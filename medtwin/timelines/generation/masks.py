"""Hard facts as masks: which tokens a person of this sex and age can have. In generation all else is unsayable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.timelines.reading.spec import TimelineSpec

# A token that so many people have without one of this sex is not by chance that of the other sex.
_CHANCE = 0.01
# ... and of a fact, of which there are many.
_CHANCE_OF_FACTS = 1e-6
MARGIN_YEARS = 2.0
_MARGIN_OF_FEW = 20.0
# A record says nothing more often than this many times what any training subject had, and a few times more.
_MOST_TIMES, _MOST_MORE = 2, 5


@dataclass(frozen=True)
class Masks:
    """What can be said of whom.

    Attributes:
        by_sex: (sexes, V) whether a token can be said of a subject of this sex.
        youngest, oldest: (V,) ages in years between which a token can be said.
        needs: (K, V) whether a token can be said only of who has a fact; None: none needs any.
        most: (V,) how often a record can say a token; None: there is no limit.
    """

    by_sex: NDArray[np.bool_]
    youngest: NDArray[np.float64]
    oldest: NDArray[np.float64]
    needs: NDArray[np.bool_] | None = None
    most: NDArray[np.int64] | None = None

    def allowed(self, sex: NDArray[np.int64], age_years: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(B, V) which tokens can be said of B subjects at these ages; an unknown age (nan) forbids nothing."""
        age = age_years[:, None]
        outside = (age < self.youngest) | (age > self.oldest)
        return np.asarray(self.by_sex[sex] & ~outside)

    def is_left(self, times: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(B, V) which tokens can be said again by records that have said them so many times, (B, V)."""
        return np.ones(times.shape, dtype=bool) if self.most is None else np.asarray(times < self.most)


def build_masks(spec: TimelineSpec, sex_specific: Mapping[str, Sequence[str]]) -> Masks:
    """The masks of a run.

    Args:
        spec: Learned from training subjects: a token that a sex never has, though by chance it would (p < .01), or
            that nobody has without a fact (p < .000001: an operation that only the disease is treated by), ages two
            years (more for rare tokens) beyond those seen, and repetitions beyond twice the most that one subject had,
            and five, are masked.
        sex_specific: Codes by the only sex (F, M) that can have them, as shell patterns.

    Raises:
        ConfigError: If a sex is neither F nor M.
    """
    totals = spec.sex_totals.astype(np.float64)
    share = totals / max(totals.sum(), 1.0)
    count = spec.sex_counts.sum(axis=1)
    by_chance = (1.0 - share)[:, None] ** count[None, :]
    by_sex = ~((spec.sex_counts.T == 0) & (by_chance < _CHANCE) & (totals > 0)[:, None])
    for sex, codes in sex_specific.items():
        if sex not in ("F", "M"):
            raise ConfigError(f"sex_specific: the sex must be F or M, got {sex!r}")
        only = np.array(
            [_matches(t.parent or t.code, codes) or _matches(t.code, codes) for t in spec.vocabulary.tokens]
        )
        for index, name in enumerate(spec.profile.sexes):
            if name in ("GENDER//F", "GENDER//M") and name != f"GENDER//{sex}":
                by_sex[index] &= ~only
    margin = MARGIN_YEARS + _MARGIN_OF_FEW / np.maximum(count, 1)
    youngest = np.nan_to_num(spec.age_range[:, 0] - margin, nan=-np.inf)
    oldest = np.nan_to_num(spec.age_range[:, 1] + margin, nan=np.inf)
    return Masks(by_sex, youngest, oldest, _needs(spec), _MOST_TIMES * spec.most_said + _MOST_MORE)


def _needs(spec: TimelineSpec) -> NDArray[np.bool_]:
    """(K, V) whether all training subjects with a token have a fact, which so many would not have by chance."""
    count = spec.sex_counts.sum(axis=1)
    share = spec.fact_totals / max(int(spec.sex_totals.sum()), 1)
    with np.errstate(divide="ignore"):
        by_chance = np.log(share)[:, None] * count[None, :]
    # A fact that a twin is to have is said whatever else it has; and of whom a root is, nobody decides.
    facts = set(spec.profile.facts)
    names_one = np.array([t.fact in facts or t.parent in facts for t in spec.vocabulary.tokens], dtype=bool)
    needs = (count == spec.fact_counts.T) & (by_chance < np.log(_CHANCE_OF_FACTS)) & ~names_one
    return np.asarray(needs & ~spec.profile.is_static[:, None])


def _matches(code: str, patterns: Sequence[str]) -> bool:
    bare = code.removeprefix("NEGATED//")
    return any(fnmatchcase(bare, pattern) for pattern in patterns)
