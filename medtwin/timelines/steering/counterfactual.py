"""Counterfactual twins: the same person with another age, sex, fact or window, under the noise of the life that was.

Abduction, action, prediction (Pearl 2009, section 7.1): what lies behind a record is inferred (`steer`), a root of its
attributes is replaced, and what follows from it is decided anew by the same uniform numbers: facts of the whole record,
window, then every event. This is attribute-controlled generation: what
changes with an attribute is what differs between training subjects, which is its effect only where nothing else tells
them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.codes import DEATH
from medtwin.core.errors import ConfigError
from medtwin.timelines.generation.plans import fact_indices, sex_index
from medtwin.timelines.generation.tile import TimelineModel
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.reading.profile import ProfileLaw
from medtwin.timelines.steering.steer import one_age

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """What is done to a person at the start of the record; null or empty leaves a thing as it was.

    Attributes:
        age: Age then, years. Birth moves, calendar time stays.
        older_by: Years added to the age that it was.
        sex: Index of the sex.
        facts, without: Indices of the facts that the person is to have, and not to have.
        window_years: For how long the record is looked at. Who dies before is looked at until then; who dies later
            is alive at the end, unless death is among `facts`.
    """

    age: float | None = None
    older_by: float = 0.0
    sex: int | None = None
    facts: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    window_years: float | None = None

    @classmethod
    def of(cls, law: ProfileLaw, wanted: Mapping[str, Any], older_by: float = 0.0) -> Change:
        """The change that settings state.

        Args:
            law: Of attributes.
            wanted: `age`, `sex` (M or F), `facts` and `without` (codes), `window_years`.
            older_by: Years added to the age.

        Raises:
            ConfigError: Naming the setting.
        """
        age, sex, years = (wanted.get(name) for name in ("age", "sex", "window_years"))
        if age is not None and older_by:
            raise ConfigError(f"set.age must stand without add.age, got {age!r} and {older_by!r}")
        if years is not None and not 0 < years <= 120:
            raise ConfigError(f"set.window_years must be above 0 and at most 120, got {years!r}")
        if (age is not None or older_by) and not law.knows_ages:
            setting = "add.age" if older_by else "set.age"
            raise ConfigError(f"{setting}: no record that the model learned from says a birth date: it knows of no age")
        facts, without = (tuple(fact_indices(law, wanted.get(n) or (), f"set.{n}")) for n in ("facts", "without"))
        if both := sorted(set(facts) & set(without)):
            raise ConfigError(f"set.without must name no code of set.facts, got {law.facts[both[0]]}")
        return cls(
            None if age is None else one_age(age, "set.age"),
            older_by,
            None if sex is None else sex_index(law, sex, "set.sex"),
            facts,
            without,
            years,
        )

    def root_of(self, law: ProfileLaw, one: Attributes) -> Attributes:
        """A subject with its roots as the change has them, the rest as it was.

        Raises:
            ConfigError: If years are to be added to an age that the record does not say.
        """
        age = one.age_start_years if self.age is None else self.age
        if self.older_by:
            if not np.isfinite(age):
                raise ConfigError("add.age: a record says no birth date, so there is no age to add to: use set.age")
            age = max(0.0, age + self.older_by)
        facts, static = list(one.facts), np.flatnonzero(law.is_static)
        excludes = law.net.excludes.numpy()
        for place, index in enumerate(static):
            rivals = static[excludes[place] | excludes[:, place]]
            if index in self.facts or index in self.without:
                facts[index] = int(index in self.facts)
            elif any(rival in self.facts for rival in rivals):
                facts[index] = 0  # nobody has both
        return replace(one, age_start_years=age, sex=one.sex if self.sex is None else self.sex, facts=tuple(facts))

    def changes(self, law: ProfileLaw, one: Attributes) -> bool:
        """Whether anything of a subject becomes what it was not."""
        facts = any(not one.facts[i] for i in self.facts) or any(one.facts[i] for i in self.without)
        return facts or self.window_years is not None or self.root_of(law, one) != one


def predict(law: ProfileLaw, factual: Sequence[Attributes], uniforms: Floats, change: Change) -> list[Attributes]:
    """Attributes of S subjects after a change: what is not set follows anew from the same uniform numbers.

    Who is already what is asked for stays exactly the same. A window that the law does not give back to the minute
    keeps that difference as a factor.

    Args:
        law: Of attributes.
        factual: (S,) as they were.
        uniforms: (S, num_uniforms) behind them.
        change: What is done.
    """
    later = np.flatnonzero(~law.is_static)
    first = int(law.is_static.sum()) + 6  # the numbers of later facts stand after those of the roots
    acted = np.array(uniforms, dtype=np.float64)
    for place, index in enumerate(later):
        if index in change.facts or index in change.without:
            # Of a fact that is set the number decides nothing but what follows from it.
            acted[:, first + place] = 0.0 if index in change.facts else 1.0 - 2.0**-53
    roots = [change.root_of(law, one) for one in factual]
    before, after = law.draw(uniforms, factual), law.draw(acted, roots)
    found = []
    for one, old, new in zip(factual, before, after, strict=True):
        if not change.changes(law, one):
            found.append(one)
            continue
        facts = [1 if i in change.facts else 0 if i in change.without else fact for i, fact in enumerate(new.facts)]
        window: float = new.window_minutes
        if old.window_minutes and one.window_minutes:
            window *= one.window_minutes / old.window_minutes
        if change.window_years is not None:
            window = _seen_for(law, facts, window, change)
        found.append(replace(new, facts=tuple(facts), window_minutes=round(window)))
    return found


def _seen_for(law: ProfileLaw, facts: list[int], window: float, change: Change) -> float:
    """The window that is set, minutes; `facts` lose a death that comes after it, and an earlier death ends it."""
    wanted = float(change.window_years or 0.0) * MINUTES_PER_YEAR
    death = law.facts.index(DEATH) if DEATH in law.facts else -1
    if death < 0 or not facts[death] or death in change.facts:
        return wanted
    if window <= wanted:
        return window
    facts[death] = 0
    return wanted


def moved(
    model: TimelineModel, latent: NDArray[np.float32], before: Sequence[Attributes], after: Sequence[Attributes]
) -> NDArray[np.float32]:
    """The z, (S, latent), of changed subjects: what it has in common with attributes follows, the rest is held."""
    return latent if model.shift is None else model.shift.move(model.spec.profile, latent, before, after)


__all__ = ["Change", "moved", "predict"]
