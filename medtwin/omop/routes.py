"""Which table of the CDM an event belongs to: by the domain of its standard concept, else by its resource type."""

from __future__ import annotations

from dataclasses import dataclass

from medtwin.core.codes import AGE_CAPPED, BARE_RESOURCES, BARE_STAYS, BIRTH, DEATH
from medtwin.omop.concepts import DOMAIN_TABLES, NO_CONCEPT
from medtwin.omop.vocabulary import Vocabulary

# Where the events of a resource type stand when no standard concept says better.
HOMES = {
    "Condition": "condition_occurrence",
    "MedicationRequest": "drug_exposure",
    "MedicationDispense": "drug_exposure",
    "MedicationAdministration": "drug_exposure",
    "MedicationStatement": "drug_exposure",
    "Immunization": "drug_exposure",
    "Procedure": "procedure_occurrence",
    "ImagingStudy": "procedure_occurrence",
    "Observation": "measurement",
    "Specimen": "specimen",
    "AllergyIntolerance": "observation",
    "DiagnosticReport": "observation",
    "ServiceRequest": "observation",
    "CarePlan": "observation",
}
# Orders and plans are no facts, and a report's facts are its results: their codes are kept as source codes only.
SOURCE_ONLY = frozenset({"ServiceRequest", "CarePlan", "DiagnosticReport", "ImagingStudy"})
# What a code of a foreign MEDS dataset most likely is; others are Observations.
_BARE = BARE_RESOURCES | {"CPT4": "Procedure"}
# Static rows that person has columns for, and those that stand in observation as facts without a date.
PERSON_WORDS = {"GENDER": "gender", "RACE": "race", "ETHNICITY": "ethnicity"}
STATIC_WORDS = frozenset({"BIRTHSEX", "LANGUAGE", "MARITAL", "DECEASED", *AGE_CAPPED.split("//")[:1]})
_VALUE_TABLES = frozenset({"measurement", "observation"})
# An allergy that is coded by its substance is no exposure to it.
_ALLERGY_TABLES = frozenset({"condition_occurrence", "observation"})


@dataclass(frozen=True, slots=True)
class Case:
    """What of an event decides where it goes.

    Attributes:
        is_valued: Whether it has a number or a text.
        is_dated: Whether it has a time.
        is_survey: Whether its category is social history, survey or activity.
    """

    code: str
    resource: str | None
    is_valued: bool
    is_dated: bool
    is_survey: bool


@dataclass(frozen=True, slots=True)
class Target:
    """One row that an event becomes.

    Attributes:
        concept_id: Standard concept; 0 without one.
        source_concept_id: Concept of the code as it stands; 0 without one.
        value_concept_id: What the code says as a value (`Maps to value`); 0 if nothing.
    """

    table: str
    concept_id: int = NO_CONCEPT
    source_concept_id: int = NO_CONCEPT
    value_concept_id: int = NO_CONCEPT


def resource_of(case: Case) -> str:
    """The resource type of an event; guessed from the code system where the dataset does not say it.

    >>> resource_of(Case("ICD10CM//E11.9", None, False, True, False))
    'Condition'
    >>> resource_of(Case("ICU_ADMISSION//MICU", None, False, True, False))
    'Encounter'
    """
    if case.resource is not None:
        return case.resource
    word = case.code.partition("//")[0]
    if case.is_valued or not case.is_dated or case.code in (BIRTH, DEATH):
        return "Observation"
    return "Encounter" if word in BARE_STAYS else _BARE.get(word, "Observation")


def route(case: Case, vocabulary: Vocabulary) -> tuple[Target, ...]:
    """The rows that an event becomes; the first is the event itself, further ones are what its code says besides.

    A value is never parted from its event: one that has a value stands in measurement or observation, with concept 0
    where its standard concept belongs elsewhere. An undated fact stands in observation.
    """
    concepts = vocabulary.find(case.code)
    source = concepts.source_concept_id
    kind = resource_of(case)
    home = HOMES.get(kind, "observation")
    is_fact = case.code.partition("//")[0] in {*PERSON_WORDS, *STATIC_WORDS}
    is_homeless = case.is_valued and home not in _VALUE_TABLES
    if not case.is_dated or is_fact or is_homeless or (kind == "Observation" and case.is_survey):
        home = "observation"
    if kind in SOURCE_ONLY or not concepts.standard:
        return (Target(home, NO_CONCEPT, source),)
    value = concepts.values[0] if concepts.values and not case.is_valued else NO_CONCEPT
    targets = []
    for concept in concepts.standard:
        table = DOMAIN_TABLES.get(concept.domain, "observation")
        is_misplaced = case.is_valued and table not in _VALUE_TABLES
        is_substance = kind == "AllergyIntolerance" and table not in _ALLERGY_TABLES
        if is_misplaced or is_substance or (not case.is_dated and table != "observation"):
            targets.append(Target("observation", NO_CONCEPT, source))
        else:
            shown = value if table in _VALUE_TABLES else NO_CONCEPT
            targets.append(Target(table, concept.concept_id, source, shown))
    return tuple(dict.fromkeys(targets))
