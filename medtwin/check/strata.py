"""The same measures within groups of subjects, by sex, age, race and site, and the shares of the groups themselves.

An average over everybody may hide that one group is badly drawn, or not drawn at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medtwin.check.codes import code_measures
from medtwin.check.estimates import Measure
from medtwin.check.findings import StratumRow
from medtwin.check.marginals import total_variation
from medtwin.check.records import Records
from medtwin.check.resample import Plan, compare, make_plan
from medtwin.check.times import AGE_BANDS, band_name, time_measures
from medtwin.check.values import value_measures
from medtwin.core.errors import ConfigError

AGE = "age"
MIN_SUBJECTS = 50
"""Subjects of a group, on both sides, below which its measures are noise; its share is told all the same."""
NUM_RESAMPLES = 60
MAX_LEVELS = 12
"""Groups of one division: the largest real ones; the rest is one group, `other`."""
MEASURES = ("prevalence.log_ratio", "rate.log_ratio", "values.ks", "gaps.ks", "length.ks", "survival.gap")
"""What is measured within every group."""
WORST = {
    "strata.codes": ("prevalence.log_ratio", "Codes in the group that is furthest off"),
    "strata.values": ("values.ks", "Numbers in the group that is furthest off"),
    "strata.length": ("length.ks", "Events per subject in the group that is furthest off"),
}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stratification:
    """A division of the subjects into groups.

    Attributes:
        name: As in `sex`.
        prefixes: A subject's group is the rest of its first code that begins so, as in `GENDER//`; those of the first
            prefix count before those of the second. Of `age` there is none: bands of age at the first event.

    Raises:
        ConfigError: If it has no prefix.
    """

    name: str
    prefixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.prefixes and self.name != AGE:
            raise ConfigError(f"strata.{self.name} must name beginnings of codes, as in ['GENDER//']")

    def levels(self, records: Records) -> NDArray[np.object_]:
        """The group of each subject, (subjects,) texts; `unknown` where there is none."""
        if self.name == AGE:
            return _age_bands(records)
        found = np.full(records.num_subjects, "unknown", dtype=object)
        for prefix in reversed(self.prefixes):
            named = {
                number: code[len(prefix) :]
                for code, number in records.vocabulary.codes.items()
                if code.startswith(prefix)
            }
            rows = np.flatnonzero(np.isin(records.code, list(named)))[::-1]  # the first row is written last and stays
            found[records.subject[rows]] = [named[code] for code in records.code[rows].tolist()]
        return found


def _age_bands(records: Records) -> NDArray[np.object_]:
    found = np.full(records.num_subjects, "unknown", dtype=object)
    for low, high in AGE_BANDS:
        found[(records.ages >= low) & (records.ages < high)] = band_name(low, high, AGE_BANDS)
    return found


def stratifications_from(config: Mapping[str, Sequence[str] | None]) -> tuple[Stratification, ...]:
    """The divisions of a configuration: name to beginnings of codes; null leaves one out.

    Raises:
        ConfigError: If one is not complete.
    """
    return tuple(Stratification(name, tuple(codes)) for name, codes in config.items() if codes is not None)


def stratum_measures(
    real: Records,
    synthetic: Records,
    control: Records | None,
    plan: Plan,
    strata: Sequence[Stratification],
    *,
    seed: int,
) -> tuple[list[Measure], list[StratumRow]]:
    """The shares of the groups, the measures in the group that is furthest off, and a row per group and measure.

    Furthest off is the group whose number is the most times what 95 % of its own real-versus-real halves stay within: a
    small group differs more by chance, and is not blamed for it.
    """
    rows: list[StratumRow] = []
    shares: list[tuple[str, Measure]] = []
    for one in strata:
        levels = [one.levels(side) for side in (real, synthetic, control) if side is not None]
        names = _level_names(levels[0])
        if len(names) < 2:
            continue
        levels = [np.where(np.isin(level, names), level, "other").astype(object) for level in levels]
        names = [*names, *(["other"] if any((level == "other").any() for level in levels) else [])]
        shares.append((one.name, _share_measure(one.name, names, levels, plan)))
        for name in names:
            chosen = [np.flatnonzero(level == name) for level in levels]
            sides = [side for side in (real, synthetic, control) if side is not None]
            parts = [side.take(which) for side, which in zip(sides, chosen, strict=True)]
            rows += _rows_of(one.name, str(name), parts, seed)
    return [_worst_share(shares), *_worst_measures(rows)], rows


def _level_names(levels: NDArray[np.object_]) -> list[str]:
    names, count = np.unique(levels.astype(str), return_counts=True)
    return [str(name) for name in names[np.argsort(-count, kind="stable")][:MAX_LEVELS]]


def _share_measure(division: str, names: list[str], levels: list[NDArray[np.object_]], plan: Plan) -> Measure:
    """Total variation distance of the shares of the groups: the share of twins that stand in the wrong one."""
    features = [np.column_stack([level == name for name in names]).astype(np.float32) for level in levels]
    draws = compare(plan, features[0], features[1], features[2] if len(features) > 2 else None, total_variation)
    title = f"Shares of groups by {division}: twins in the wrong one"
    return Measure(f"strata.shares_{division}", title, draws.estimate(plan), len(names))


def _worst_share(shares: list[tuple[str, Measure]]) -> Measure:
    title = "Shares of groups: twins in the wrong one, by the division that is furthest off"
    if not shares:
        reason = "the real subjects are all of one group"
        return Measure("strata.shares", title, None, 0, "lower", reason, False)
    name, worst = max(shares, key=lambda pair: _times_noise(pair[1]))
    return replace(worst, name="strata.shares", title=f"{title} ({name})")


def _times_noise(measure: Measure) -> float:
    estimate = measure.estimate
    return -1.0 if estimate is None else estimate.value / max(estimate.baseline_worst, 1e-9)


def _rows_of(division: str, name: str, parts: list[Records], seed: int) -> list[StratumRow]:
    numbers = parts[0].num_subjects, parts[1].num_subjects
    if min(numbers) < MIN_SUBJECTS:
        return [StratumRow(division, name, *numbers, "", None)]
    real, synthetic = parts[:2]
    control = parts[2] if len(parts) > 2 and parts[2].num_subjects else None
    num_control = 0 if control is None else control.num_subjects
    plan = make_plan(
        *numbers, num_control, seed=seed, num_resamples=NUM_RESAMPLES, purpose=f"stratum {division} {name}"
    )
    found = {one.name: one for one in code_measures(real, synthetic, control, plan, {})[0]}
    found.update({one.name: one for one in value_measures(real, synthetic, control, plan, {})[0]})
    found.update({one.name: one for one in time_measures(real, synthetic, control, plan)[0]})
    return [StratumRow(division, name, *numbers, which, found[which].estimate) for which in MEASURES if which in found]


def _worst_measures(rows: list[StratumRow]) -> list[Measure]:
    measures = []
    for name, (of, title) in WORST.items():
        candidates = [
            (row, Measure(name, f"{title} ({row.division}: {row.level})", row.estimate, row.num_real or 0))
            for row in rows
            if row.measure == of and row.estimate is not None
        ]
        if candidates:
            measures.append(max(candidates, key=lambda pair: _times_noise(pair[1]))[1])
        else:
            reason = f"no group has {MIN_SUBJECTS} subjects on both sides"
            measures.append(Measure(name, title, None, 0, "lower", reason))
    return measures
