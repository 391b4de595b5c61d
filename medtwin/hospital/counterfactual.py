"""The same person with another age or sex: a life and a record under the noise of the life that was, law for law.

A life is a deterministic function of who a person is and of exogenous noise. Here every course has a stream of noise of
its own, so that a course that takes more draws in one world (a woman has pregnancies, an older person more pneumonias)
shifts nothing in the others. What is drawn without a change therefore has the law of `simulate.draw_life`, course by
course, but is not the same life: both members of a pair come from here.

Age is exogenous in this hospital, and nobody is selected into the record by survival, so the effect of an age on the
mean of anything is the mean over such pairs. Of sex the same holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.hospital.laws import LAWS, Laws, PopulationLaws
from medtwin.hospital.life import Life
from medtwin.hospital.population import Sex, draw_person
from medtwin.hospital.simulate import COURSES, SubjectRecord, record_life

YOUNGEST, OLDEST = 18.0, 85.0
"""Ages at the start of the record that the laws are made for."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a person at the start of the record.

    Attributes:
        age: Age then, in years; None: as it was.
        older_by: Years added to the age that it was.
        sex: M or F; None: as it was.

    Raises:
        ConfigError: If `age` lies outside of 18 to 85, is given beside `older_by`, or the sex is no sex.
    """

    age: float | None = None
    older_by: float = 0.0
    sex: Sex | None = None

    def __post_init__(self) -> None:
        if self.age is not None and not YOUNGEST <= self.age <= OLDEST:
            raise ConfigError(f"age must be within {YOUNGEST:g} and {OLDEST:g} years, got {self.age!r}")
        if self.age is not None and self.older_by:
            raise ConfigError(f"age must stand without older_by, got {self.age!r} and {self.older_by!r}")
        if self.sex not in (None, "M", "F"):
            raise ConfigError(f"sex must be M or F, got {self.sex!r}")


NO_CHANGE = Change()


def change_from(settings: Mapping[str, Any]) -> Change:
    """The change that counterfactual.json states: {"set": {"age": 75}}, {"set": {"sex": "F"}} or {"add": {"age": 20}}.

    Raises:
        ConfigError: If it states anything else.

    >>> change_from({"set": {"age": 75}})
    Change(age=75.0, older_by=0.0, sex=None)
    """
    given, added = dict(settings.get("set") or {}), dict(settings.get("add") or {})
    age, sex, older_by = given.pop("age", None), given.pop("sex", None), added.pop("age", 0.0)
    if given or added or (age is None and sex is None and not older_by):
        raise ConfigError(f"a counterfactual must set age or sex, or add to age, got {dict(settings)!r}")
    return Change(None if age is None else float(age), float(older_by), sex)


def paired_life(seed: int, index: int, change: Change = NO_CHANGE, laws: Laws = LAWS) -> Life:
    """The life of a person under a change; depends on (seed, index), the change and the laws only.

    Race, ethnicity, traits and the noise of every course are those of the unchanged life. What follows from age or sex
    changes with them: height and smoking with sex, marital status and the age of quitting with age.

    Args:
        seed: 0 or more.
        index: Number of the person, 0 or more.
        change: What is done; nothing by default.
        laws: The laws of the hospital.

    Raises:
        ConfigError: If the change would make the person younger than 18 or older than 85.
    """
    start = laws.record.window_start
    age = change.age
    if change.older_by:
        age = draw_person(generator(seed, "life", index), index, laws.population, start).age + change.older_by
        if not YOUNGEST <= age <= OLDEST:
            raise ConfigError(f"older_by must leave everybody within {YOUNGEST:g} and {OLDEST:g} years, got {age:.1f}")
    population = _population_of(age, change.sex, laws.population)
    life = Life(draw_person(generator(seed, "life", index), index, population, start), laws)
    for course in COURSES:
        course.begin(life, generator(seed, "paired life", index, course.__name__))
    return life


def paired_record(seed: int, index: int, change: Change = NO_CHANGE, laws: Laws = LAWS) -> SubjectRecord:
    """The record of `paired_life`."""
    return record_life(paired_life(seed, index, change, laws), seed)


def _population_of(age: float | None, sex: Sex | None, laws: PopulationLaws) -> PopulationLaws:
    """A population in which everybody has an age and a sex: the same draws then make the person that is asked for."""
    if age is not None:
        band: Any = (age, age, 1.0)  # a band without width; ages of bands are whole years otherwise
        laws = replace(laws, age_bands=(band,))
    return laws if sex is None else replace(laws, female=float(sex == "F"))
