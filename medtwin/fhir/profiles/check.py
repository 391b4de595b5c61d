"""Which profiles a resource meets, and why it does not meet one."""

from __future__ import annotations

from functools import cache
from typing import Any

from medtwin.core.findings import Finding
from medtwin.fhir.profiles.compiling import Check, compile_profile
from medtwin.fhir.profiles.invariants import items_of
from medtwin.fhir.profiles.table import Codes, Profile, load_profiles

Resource = dict[str, Any]
# A rank in the table with the closure, the ranks of what the profile derives from, and whether it is a fallback.
_Entry = tuple[int, Check, tuple[int, ...], bool]

_PROFILES = {profile.url: profile for profile in load_profiles()}
PROFILES: tuple[str, ...] = tuple(_PROFILES)


@cache
def _check(url: str) -> Check:
    return compile_profile(_PROFILES[url])


class _Index:
    """The profiles of one resource type: those for all of it, and those for a category or a code."""

    def __init__(self, profiles: list[Profile]) -> None:
        ranks = {profile.url: rank for rank, profile in enumerate(_by_depth(profiles))}
        self.urls = tuple(ranks)
        self.general: list[int] = []
        self.by_coding: tuple[dict[tuple[Any, Any], list[int]], ...] = ({}, {})
        self.entries: dict[int, _Entry] = {}
        for profile in profiles:
            rank = ranks[profile.url]
            bases = tuple(ranks[base] for base in profile.bases)
            self.entries[rank] = (rank, _check(profile.url), bases, profile.is_fallback)
            if profile.category is None and profile.code is None:
                self.general.append(rank)
            for index, codes in zip(self.by_coding, (profile.category, profile.code), strict=True):
                for coding in _pairs(codes):
                    index.setdefault(coding, []).extend((rank, *bases))
        self.is_coded = any(self.by_coding)

    def candidates(self, resource: Resource) -> list[_Entry]:
        """The profiles that may be declared, the most specific first and the fallbacks last."""
        if not self.is_coded:
            return [self.entries[rank] for rank in self.general]
        ranks = set(self.general)
        for name, index in zip(("category", "code"), self.by_coding, strict=True):
            for concept in items_of(resource.get(name)):
                codings = concept.get("coding") if type(concept) is dict else None
                for coding in codings if type(codings) is list else ():
                    if type(coding) is dict and type(coding.get("system")) is str and type(coding.get("code")) is str:
                        ranks.update(index.get((coding["system"], coding["code"]), ()))
        return [self.entries[rank] for rank in sorted(ranks)]


def _by_depth(profiles: list[Profile]) -> list[Profile]:
    return sorted(profiles, key=lambda profile: (profile.is_fallback, -len(profile.bases)))


def _pairs(codes: Codes | None) -> list[tuple[str, str]]:
    return [(system, code) for system, allowed in (codes or {}).items() for code in allowed or ()]


@cache
def _index(kind: str) -> _Index | None:
    profiles = [profile for profile in _PROFILES.values() if profile.type == kind]
    return _Index(profiles) if profiles else None


def met_profiles(resource: Resource) -> list[str]:
    """The canonicals of the US Core 6.1.0 profiles that a resource may declare, the most specific first.

    A profile is left out if one that derives from it is met, since that implies it. The resource is taken to be valid
    R4: what the base specification demands is checked elsewhere.

    >>> met_profiles({"resourceType": "Medication", "code": {"text": "aspirin 81 mg"}})
    ['http://hl7.org/fhir/us/core/StructureDefinition/us-core-medication']
    >>> met_profiles({"resourceType": "Medication"})
    []
    """
    kind = resource.get("resourceType")
    index = _index(kind) if type(kind) is str else None
    if index is None:
        return []
    met: list[str] = []
    implied: set[int] = set()
    for rank, check, bases, is_fallback in index.candidates(resource):
        if rank in implied or (is_fallback and met):
            continue
        if check(resource, None):
            met.append(index.urls[rank])
            implied.update(bases)
    return met


def profile_findings(resource: Resource, url: str) -> list[Finding]:
    """Why a resource does not meet a profile; empty if it does.

    A finding's rule is the kind of constraint (min, max, types, code, concept, coding, fixed, pattern, target,
    slice-min, slice-max, structure) or the key of an invariant; it stands at an element path and repeats no value.

    Args:
        resource: A resource of any type.
        url: A canonical of `PROFILES`, with or without `|6.1.0`.

    Raises:
        KeyError: If the profile is not one of `PROFILES`.
    """
    profile = _PROFILES[url.removesuffix("|6.1.0")]
    if resource.get("resourceType") != profile.type:
        return [Finding("type", f"the resource must be of type {profile.type}", where="resourceType")]
    found: list[Finding] = []
    _check(profile.url)(resource, found)
    return found
