"""The attributes of a subject, which the temporal VAE is given and never says: sex, age, window, index conditions.

Attributes of new twins are drawn from a smoothed bootstrap of the training subjects (Silverman 1986, section 6.4): a
subject's sex and conditions, with normal noise on age, start and length of the record, so that no person's dates recur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError

MINUTES_PER_YEAR = 525_960.0
_JITTER = 0.15  # of the standard deviation over subjects
_TRIES = 50


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is given of one subject.

    Attributes:
        sex: Index into `AttributeLaw.sexes`; 0 is unknown.
        age_start_years: Age when first seen; nan if unknown.
        start_minute: When the subject was first seen, minutes since 1970.
        window_minutes: For how long the record is looked at.
        conditions: (K,) 1 where the record ever names the index condition.
    """

    sex: int
    age_start_years: float
    start_minute: int
    window_minutes: int
    conditions: tuple[int, ...] = ()


@dataclass(frozen=True)
class AttributeLaw:
    """How attributes are coded and drawn.

    Attributes:
        sexes: Codes of `GENDER//...`; the first stands for unknown.
        conditions: Codes of the index conditions, K.
        year_mean, year_sd: Of the calendar year at the start, over training subjects.
        age_sd, start_sd, window_sd: Noise added to a bootstrapped subject: years, minutes, log minutes.
        bounds: Smallest and largest age at start (years), start and end (minutes since 1970) of the training subjects,
            each moved outwards by one noise standard deviation, so that they are nobody's own.
        donors: The training subjects, [sex, age, start, window, *conditions]. They are people: they stay in the run.
    """

    sexes: tuple[str, ...]
    conditions: tuple[str, ...]
    year_mean: float
    year_sd: float
    age_sd: float
    start_sd: float
    window_sd: float
    bounds: tuple[float, float, float, float]
    donors: NDArray[np.float64]

    @property
    def num_conditions(self) -> int:
        """K."""
        return len(self.conditions)

    def draw(self, rng: np.random.Generator, wanted: Mapping[str, Any] | None = None) -> Attributes:
        """Attributes of a new subject.

        Args:
            rng: Of this subject alone.
            wanted: Targets: `sex` (M or F), `age` ([low, high] at the start), `conditions` (codes that it must have).

        Raises:
            ConfigError: If no training subject comes near the targets.
        """
        donors = self._matching(wanted or {})
        for _ in range(_TRIES):
            row = donors[rng.integers(len(donors))]
            age = row[1] + rng.normal(0, self.age_sd) if np.isfinite(row[1]) else np.nan
            start = row[2] + rng.normal(0, self.start_sd)
            window = np.exp(np.log1p(row[3]) + rng.normal(0, self.window_sd)) - 1 if row[3] > 0 else 0.0
            low, high, first, last = self.bounds
            fits = not np.isfinite(age) or (low <= age <= high and _in_range(age, (wanted or {}).get("age")))
            if fits and first <= start and start + window <= last:
                return Attributes(int(row[0]), float(age), round(start), round(window), tuple(row[4:].astype(int)))
        raise ConfigError("no attributes can be drawn: the age range asked for has next to no training subjects")

    def _matching(self, wanted: Mapping[str, Any]) -> NDArray[np.float64]:
        if unknown := set(wanted) - {"sex", "age", "conditions"}:
            raise ConfigError(f"attributes must be some of sex, age, conditions, got {', '.join(sorted(unknown))}")
        rows = self.donors
        if wanted.get("sex") is not None:
            code = f"GENDER//{wanted['sex']}"
            if code not in self.sexes:
                raise ConfigError(f"attributes.sex must be one of {', '.join(self.sexes[1:])}, got {wanted['sex']!r}")
            rows = rows[rows[:, 0] == self.sexes.index(code)]
        for code in wanted.get("conditions") or ():
            if code not in self.conditions:
                known = ", ".join(self.conditions) or "none"
                raise ConfigError(f"attributes.conditions: the model has no index condition {code}, only {known}")
            rows = rows[rows[:, 4 + self.conditions.index(code)] > 0]
        if wanted.get("age") is not None:
            low, high = wanted["age"]
            near = (rows[:, 1] >= low - 2 * self.age_sd) & (rows[:, 1] <= high + 2 * self.age_sd)
            rows = rows[near]
        if not len(rows):
            raise ConfigError("attributes: no training subject has all that was asked for")
        return rows

    def to_json(self) -> dict[str, Any]:
        """The law as JSON values."""
        donors = [[None if np.isnan(cell) else cell for cell in row] for row in self.donors.tolist()]
        return {**asdict(self), "donors": donors}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AttributeLaw:
        """The law that `to_json` wrote."""
        donors = np.array(
            [[np.nan if cell is None else cell for cell in row] for row in value["donors"]], dtype=np.float64
        )
        named = {name: value[name] for name in ("year_mean", "year_sd", "age_sd", "start_sd", "window_sd")}
        return cls(
            sexes=tuple(value["sexes"]),
            conditions=tuple(value["conditions"]),
            bounds=tuple(value["bounds"]),
            donors=donors,
            **named,
        )


def _in_range(age: float, wanted: Sequence[float] | None) -> bool:
    return wanted is None or wanted[0] <= age <= wanted[1]


def fit_attributes(subjects: Sequence[Attributes], sexes: Sequence[str], conditions: Sequence[str]) -> AttributeLaw:
    """The law of training subjects, at least one."""
    donors = np.array(
        [[s.sex, s.age_start_years, s.start_minute, s.window_minutes, *s.conditions] for s in subjects], np.float64
    )
    years = 1970 + donors[:, 2] / MINUTES_PER_YEAR
    ages = donors[np.isfinite(donors[:, 1]), 1]
    age_sd = _JITTER * float(ages.std()) if len(ages) else 0.0
    start_sd = _JITTER * float(donors[:, 2].std())
    low, high = (float(ages.min()), float(ages.max())) if len(ages) else (0.0, 0.0)
    first, last = float(donors[:, 2].min()), float((donors[:, 2] + donors[:, 3]).max())
    return AttributeLaw(
        sexes=tuple(sexes),
        conditions=tuple(conditions),
        year_mean=float(years.mean()),
        year_sd=float(years.std()) or 1.0,
        age_sd=age_sd,
        start_sd=start_sd,
        window_sd=_JITTER * float(np.log1p(donors[:, 3]).std()),
        bounds=(max(0.0, low - age_sd), high + age_sd, first - start_sd, last + 0.0),
        donors=donors,
    )
