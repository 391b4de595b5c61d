"""The last step of writing a resource: what R4 demands although no row may say it, and what cannot stand as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from medtwin.core.codes import SYSTEMS
from medtwin.fhir.elements import COMPONENT_ELEMENTS
from medtwin.fhir.kinds import Kind, ResourceTable
from medtwin.fhir.writing.rows import Resource

# v3-ActCode. Source: hl7.org/fhir/R4/v3/ActEncounterCode/vs.html.
ENCOUNTER_CLASSES = {
    "AMB": "ambulatory",
    "EMER": "emergency",
    "FLD": "field",
    "HH": "home health",
    "IMP": "inpatient encounter",
    "ACUTE": "inpatient acute",
    "NONAC": "inpatient non-acute",
    "OBSENC": "observation encounter",
    "PRENC": "pre-admission",
    "SS": "short stay",
    "VR": "virtual",
}
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
# An element that is required and not known, and one that is known and may not leave.
UNKNOWN_HERE: Resource = {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}
MASKED_HERE: Resource = {"extension": [{"url": _ABSENT, "valueCode": "masked"}]}
_OVER: Resource = {"coding": [{"system": SYSTEMS["CONDCLINICAL"], "code": "inactive"}]}


def finish(body: Resource, table: ResourceTable, lost: Counter[str], *, has_pairs: bool) -> Resource:
    """Drops structures that lack what they need, and adds what R4 requires.

    Args:
        body: The resource; changed.
        table: Of its type.
        has_pairs: Whether rows gave halves of Periods or Ratios.
        lost: Takes what was dropped.
    """
    least, steps, pairs, special = _plan(table)
    for top, step in steps:
        if top in body:
            step(body, lost)
    for top, step in pairs if has_pairs else ():
        if top in body:
            step(body, lost)
    for name, value in least:
        if name not in body:
            body[name] = value
    if special is not None:
        special(body, lost)
    return body


# Where someone or somewhere is required, and what else is known of the part that they had is a fact without them.
_WORTH_KEEPING = frozenset({"location", "performer"})
Step = Callable[[Resource, Counter[str]], None]
Path = tuple[str, ...]
Steps = list[tuple[str, Step]]
Plan = tuple[list[tuple[str, Any]], Steps, Steps, Step | None]
_plans: dict[str, Plan] = {}


def _plan(table: ResourceTable) -> Plan:
    """What a type requires at the top, what is to be done with elements that are there, and what is special."""
    found = _plans.get(table.name)
    if found is None:
        least = [(path, value) for path, value in table.required.items() if "." not in path]
        steps = [(path, _need(table.name, path, name)) for path, name in table.needs.items()]
        pairs: Steps = []
        paths = [(each.path, each.kind) for each in table.elements]
        if table.name == "Observation":
            paths += [(f"component*.{each.path}", each.kind) for each in COMPONENT_ELEMENTS]
        for path, kind in paths:
            *holder, last = path.split(".")
            shown = f"{table.name}.{'.'.join(holder)}".replace("*", "")
            if last == "start" and kind is Kind.DATE:
                pairs.append((holder[0].rstrip("*"), _even(tuple(holder), shown)))
            elif last == "numerator":
                pairs.append((holder[0].rstrip("*"), _whole(tuple(holder), shown)))
        for path, value in table.required.items():
            *holder, last = path.split(".")
            if holder:
                steps.append((holder[0].rstrip("*"), _fill(tuple(holder), last, value)))
        found = _plans[table.name] = least, steps, pairs, _SPECIAL.get(table.name)
    return found


def _need(kind: str, path: str, name: str) -> Step:
    """Drops structures that say nothing without one of their elements; others say that it is not known."""
    if path in _WORTH_KEEPING:
        return _fill((f"{path}*",), name, UNKNOWN_HERE)

    def step(body: Resource, lost: Counter[str]) -> None:
        kept = [each for each in body[path] if each.get(name)]
        if len(kept) < len(body[path]):
            lost[f"{kind}.{path} (without its {name})"] += len(body[path]) - len(kept)
        body[path] = kept
        if not kept:
            del body[path]

    return step


def _fill(path: Path, name: str, least: Any) -> Step:
    def step(body: Resource, _lost: Counter[str]) -> None:
        for holder in _holders(body, path):
            holder.setdefault(name, least)

    return step


def _even(path: Path, shown: str) -> Step:
    """Makes the ends of a Period equally precise."""

    def step(body: Resource, lost: Counter[str]) -> None:
        for period in _holders(body, path):
            if "start" in period and "end" in period:
                given = period["start"], period["end"]
                period["start"], period["end"] = written = even_ends(*given)
                count_uneven(given, written, shown, lost)

    return step


def _whole(path: Path, shown: str) -> Step:
    """Drops a Ratio that has one of its parts only (rat-1), and what is empty without it."""
    top, name = path[0].rstrip("*"), path[-1]

    def step(body: Resource, lost: Counter[str]) -> None:
        halves = 0
        for holder in _holders(body, path[:-1]):
            if len(holder.get(name, {}).keys() & {"numerator", "denominator"}) == 1:
                del holder[name]
                halves += 1
        if halves:
            lost[f"{shown} (half of a ratio)"] += halves
            rest = pruned(body.pop(top, {}))
            if rest:
                body[top] = rest

    return step


def _holders(body: Resource, steps: Path) -> list[Resource]:
    """The objects at a path, of which there are none where a step is absent."""
    holders = [body]
    for step in steps:
        if step.endswith("*"):
            name = step[:-1]
            holders = [each for holder in holders if name in holder for each in holder[name]]
        else:
            holders = [holder[step] for holder in holders if step in holder]
        if not holders:
            break
    return holders


def even_ends(start: str, end: str) -> tuple[str, str]:
    """Both ends of a Period as precise as the coarser of them: a time of day that nobody gave is no fact.

    >>> even_ends("2020-03-01T10:00:00+01:00", "2020-03-05"), even_ends("2020-03", "2020")
    (('2020-03-01', '2020-03-05'), ('2020', '2020'))
    """
    if len(start) > 10 and len(end) > 10:
        return start, end
    length = min(len(start), len(end))
    return start[:length], end[:length]


def count_uneven(given: tuple[str, str], written: tuple[str, str], path: str, lost: Counter[str]) -> None:
    """Counts the end of a Period that lost some of its precision."""
    for name, before, after in zip(("start", "end"), given, written, strict=True):
        if before != after:
            lost[f"{path}.{name} (finer than the other end)"] += 1


def _condition(body: Resource, lost: Counter[str]) -> None:
    """con-4: what has abated is inactive at the least; con-5: what was entered in error has no clinical status."""
    if _is_withdrawn(body):
        lost["Condition.clinicalStatus"] += body.pop("clinicalStatus", None) is not None
    elif "abatementDateTime" in body and "clinicalStatus" not in body:
        body["clinicalStatus"] = _OVER


def _allergy(body: Resource, lost: Counter[str]) -> None:
    """ait-2: what was entered in error has no clinical status."""
    if _is_withdrawn(body):
        body.pop("clinicalStatus", None)


def _is_withdrawn(body: Resource) -> bool:
    codings = body.get("verificationStatus", {}).get("coding", ())
    return any(coding.get("code") == "entered-in-error" for coding in codings)


def _encounter(body: Resource, _lost: Counter[str]) -> None:
    """An encounter without a type has one in words, that of its class."""
    if "type" not in body:
        word = ENCOUNTER_CLASSES.get(body["class"].get("code"))
        if word is not None:
            body["type"] = [{"text": word}]


def _administration(body: Resource, _lost: Counter[str]) -> None:
    """mad-1: a dosage says the dose or the rate, or that it is not known."""
    dosage = body.get("dosage")
    if dosage is not None and not any(name == "dose" or name.startswith("rate") for name in dosage):
        dosage["dose"] = UNKNOWN_HERE


def _observation(body: Resource, _lost: Counter[str]) -> None:
    """obs-3: a reference range has limits, or words."""
    for holder in (body, *body.get("component", ())):
        for limits in holder.get("referenceRange", ()):
            if "low" not in limits and "high" not in limits:
                limits.setdefault("text", "unknown")


def _study(body: Resource, _lost: Counter[str]) -> None:
    series = body.get("series", [])
    for each in series:
        each.setdefault("modality", body["modality"][0])
    if series:
        body["numberOfSeries"] = len(series)
    counts = [each.get("numberOfInstances") for each in series]
    if counts and None not in counts:
        body["numberOfInstances"] = sum(counts)


_SPECIAL: dict[str, Step] = {
    "Condition": _condition,
    "AllergyIntolerance": _allergy,
    "Encounter": _encounter,
    "Observation": _observation,
    "MedicationAdministration": _administration,
    "ImagingStudy": _study,
}


def pruned(value: Any) -> Any:
    """The value without empty objects and lists."""
    if isinstance(value, dict):
        kept = {name: pruned(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner not in ({}, [])}
    if isinstance(value, list):
        return [inner for inner in map(pruned, value) if inner not in ({}, [])]
    return value
