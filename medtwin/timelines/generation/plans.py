"""Whom to make: targets for attributes, groups of twins with shares of the whole, and who belongs to which.

Which group twin i belongs to depends on i and the shares only, so that more twins change nothing of the first ones; of
the first n twins every group has its share, up to less than one twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.reading.profile import ProfileLaw

KNOWN = ("sex", "age", "facts", "without", "window_years")
"""What `Target.of` takes."""
_SIZES = ("n", "share")
_IN_STRATA = ("sex", "age", "conditions", "facts", "without", "window_years", "phenotype")

Range = tuple[float, float]


@dataclass(frozen=True)
class Target:
    """What the attributes of a twin are to be; what is null or empty is left to the law.

    Attributes:
        sex: Index of the sex.
        age: Youngest and oldest age at the start, years.
        window_years: Shortest and longest window of observation.
        facts, without: Indices of the facts that the twin must have, and must not have.
    """

    sex: int | None = None
    age: Range | None = None
    window_years: Range | None = None
    facts: tuple[int, ...] = ()
    without: tuple[int, ...] = ()

    @classmethod
    def of(cls, law: ProfileLaw, wanted: Mapping[str, Any], name: str = "plan") -> Target:
        """The target that settings state.

        Args:
            law: Of attributes.
            wanted: `sex` (M or F), `age` and `window_years` ([low, high]), `facts` and `without` (codes).
            name: Of the settings, for errors.

        Raises:
            ConfigError: Naming the setting, if the model does not know what is asked for.
        """
        if unknown := set(wanted) - set(KNOWN):
            raise ConfigError(f"{name} must be some of {', '.join(KNOWN)}, got {', '.join(sorted(unknown))}")
        facts, without = (fact_indices(law, wanted.get(key) or (), f"{name}.{key}") for key in ("facts", "without"))
        if both := sorted(set(facts) & set(without)):
            raise ConfigError(f"{name}.without must name no code of facts, got {law.facts[both[0]]}")
        sex = None if wanted.get("sex") is None else sex_index(law, wanted["sex"], f"{name}.sex")
        age, years = (as_range(wanted.get(key), f"{name}.{key}") for key in ("age", "window_years"))
        return cls(sex, age, years, tuple(facts), tuple(without))

    @property
    def is_open(self) -> bool:
        """Whether nothing is asked for."""
        return self == Target()

    def is_met(self, one: Attributes) -> bool:
        """Whether a subject is as wanted; an unknown age is within no range."""
        years = one.window_minutes / MINUTES_PER_YEAR
        return (
            (self.sex is None or one.sex == self.sex)
            and (self.age is None or self.age[0] <= one.age_start_years <= self.age[1])
            and (self.window_years is None or self.window_years[0] <= years <= self.window_years[1])
            and all(one.facts[index] for index in self.facts)
            and not any(one.facts[index] for index in self.without)
        )


def as_range(value: Any, name: str) -> Range | None:
    """A pair [low, high], low below high; None if nothing is given.

    Raises:
        ConfigError: Naming the setting.
    """
    if value is None:
        return None
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    is_pair = len(numbers) == 2 and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in numbers)
    if not is_pair or not 0 <= numbers[0] < numbers[1]:
        raise ConfigError(f"{name} must be [lowest, highest] with 0 <= lowest < highest, got {value!r}")
    return float(numbers[0]), float(numbers[1])


def sex_index(law: ProfileLaw, sex: str, name: str) -> int:
    """The index of a sex (M or F).

    Raises:
        ConfigError: Naming the setting, if no training subject is of it.
    """
    code = f"GENDER//{sex}"
    if code not in law.sexes[1:]:
        known = ", ".join(each.removeprefix("GENDER//") for each in law.sexes[1:]) or "nothing: no sex was learned"
        raise ConfigError(f"{name} must be one of {known}, got {sex!r}")
    return law.sexes.index(code)


def fact_indices(law: ProfileLaw, codes: Sequence[str], name: str) -> list[int]:
    """The indices of facts.

    Raises:
        ConfigError: Naming the setting, if the model has no such fact.
    """
    for code in codes:
        if code not in law.facts:
            raise ConfigError(f"{name}: the model has no fact {code}, only {', '.join(law.facts) or 'none'}")
    return [law.facts.index(code) for code in codes]


@dataclass(frozen=True)
class Group:
    """Some of the twins.

    Attributes:
        share: Of all twins, above 0.
        wanted: As `Target.of` takes it.
        phenotype: Component of the prior that their z is of; None: any.
        name: Of the settings that ask for it, for errors.
    """

    share: float = 1.0
    wanted: Mapping[str, Any] = field(default_factory=dict)
    phenotype: int | None = None
    name: str = "plan"


@dataclass(frozen=True)
class Plan:
    """The groups of all twins, one at least."""

    groups: tuple[Group, ...] = (Group(),)

    @classmethod
    def of(
        cls,
        base: Mapping[str, Any],
        strata: Sequence[Mapping[str, Any]] = (),
        balance: Sequence[str] = (),
        num_twins: int = 0,
    ) -> Plan:
        """The plan that settings state.

        Args:
            base: What every twin is to be: `sex`, `age`, `conditions`, `facts`, `without`, `window_years`, `phenotype`.
            strata: Groups: the same, and `n` or `share` in each of them; none of both: equal shares.
            balance: Codes: of every stratum as many twins have the first, the second, ..., and none of them.
            num_twins: Of the whole, which `n` of strata sum to.

        Raises:
            ConfigError: Naming the setting.
        """
        sizes = _sizes(strata, num_twins)
        groups = []
        for number, (stratum, share) in enumerate(zip(strata or [{}], sizes, strict=True)):
            name = f"plan.strata[{number}]" if strata else "plan"
            if unknown := set(stratum) - set(_IN_STRATA) - set(_SIZES):
                raise ConfigError(f"{name}: there is no setting {sorted(unknown)[0]!r}, only {', '.join(_IN_STRATA)}")
            groups += [
                _group({**base, **stratum}, share / len(extra_of), extra, name)
                for extra_of in [_balanced(balance)]
                for extra in extra_of
            ]
        return cls(tuple(groups))

    def of_twins(self, num: int) -> NDArray[np.int64]:
        """(num,) the group of every twin, from the first on.

        Source: the chairman assignment of Tijdeman 1980 (Discrete Math 32:323): after every twin each of k groups has
        its share up to 1 - 1 / (2k - 2) of a twin, so exactly where that is a whole number.

        >>> Plan((Group(0.5), Group(0.25), Group(0.25))).of_twins(8).tolist()
        [0, 1, 2, 0, 0, 1, 2, 0]
        """
        share = np.array([group.share for group in self.groups], dtype=np.float64)
        share /= share.sum()
        if len(share) == 1:
            return np.zeros(num, dtype=np.int64)
        slack = 1.0 / (2 * len(share) - 2)
        given, chosen = np.zeros(len(share)), np.zeros(num, dtype=np.int64)
        for index in range(num):
            owed = share * (index + 1) - given
            deadline = np.where(owed >= slack - 1e-9, (1 - slack - owed) / share, np.inf)
            chosen[index] = int(np.argmin(np.round(deadline, 9)))
            given[chosen[index]] += 1
        return chosen

    def targets(self, law: ProfileLaw) -> list[Target]:
        """The target of every group.

        Raises:
            ConfigError: Naming the setting, if the model does not know what is asked for.
        """
        return [Target.of(law, group.wanted, group.name) for group in self.groups]


def _sizes(strata: Sequence[Mapping[str, Any]], num_twins: int) -> list[float]:
    if not strata:
        return [1.0]
    given = [[key for key in _SIZES if stratum.get(key) is not None] for stratum in strata]
    if all(not keys for keys in given):
        return [1.0 / len(strata)] * len(strata)
    if any(keys != given[0] for keys in given) or len(given[0]) != 1:
        raise ConfigError("plan.strata must all give n, or all give share, or none of them either")
    key = given[0][0]
    sizes = [stratum[key] for stratum in strata]
    for number, size in enumerate(sizes):
        is_number = isinstance(size, int if key == "n" else (int, float)) and not isinstance(size, bool)
        if not is_number or not size > 0:
            raise ConfigError(f"plan.strata[{number}].{key} must be above 0, got {size!r}")
    if key == "n" and sum(sizes) != num_twins:
        raise ConfigError(f"plan.strata: the n of all must sum to n={num_twins}, got {sum(sizes)}")
    if key == "share" and abs(sum(sizes) - 1) > 1e-6:
        raise ConfigError(f"plan.strata: the shares must sum to 1, got {sum(sizes):g}")
    return [size / sum(sizes) for size in sizes]


def _balanced(codes: Sequence[str]) -> list[dict[str, list[str]]]:
    """What each part of a stratum is asked for besides: one code each, and the last none of them."""
    if not codes:
        return [{}]
    return [*({"facts": [code]} for code in codes), {"without": list(codes)}]


def _group(asked: Mapping[str, Any], share: float, extra: Mapping[str, Sequence[str]], name: str) -> Group:
    wanted = {key: asked[key] for key in ("sex", "age", "window_years") if asked.get(key) is not None}
    facts = [*_codes(asked, "conditions", name), *_codes(asked, "facts", name), *extra.get("facts", ())]
    without = [*_codes(asked, "without", name), *extra.get("without", ())]
    wanted |= {key: list(dict.fromkeys(each)) for key, each in (("facts", facts), ("without", without)) if each}
    phenotype = asked.get("phenotype")
    if phenotype is not None and (not isinstance(phenotype, int) or isinstance(phenotype, bool)):
        raise ConfigError(f"{name}.phenotype must be a whole number, got {phenotype!r}")
    return Group(share, wanted, phenotype, name)


def _codes(asked: Mapping[str, Any], key: str, name: str) -> list[str]:
    value = asked.get(key)
    if value is None:
        return []
    if isinstance(value, str) or not all(isinstance(code, str) for code in value):
        raise ConfigError(f"{name}.{key} must be a list of codes, got {value!r}")
    return list(value)


__all__ = ["KNOWN", "Group", "Plan", "Target", "as_range", "fact_indices", "sex_index"]
