"""US Core 6.1.0: every constraint of the table refuses what breaks it, and real examples are accepted."""

from __future__ import annotations

import copy
import doctest
import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from medtwin.core.errors import ConfigError
from medtwin.fhir.profiles import PROFILES, met_profiles, profile_findings
from medtwin.fhir.profiles.compiling import target_type
from medtwin.fhir.profiles.invariants import ABSENT_URL, INVARIANTS
from medtwin.fhir.profiles.table import load_profiles
from tests.fhir.profile_mutations import BREAKERS, mutations
from tests.fhir.profile_samples import concept, observation, quantity, samples, vital

PREFIX = "http://hl7.org/fhir/us/core/StructureDefinition/"
TABLE = {profile.url: profile for profile in load_profiles()}
SAMPLES = {PREFIX + name: sample for name, sample in samples().items()}
MASKED = {"extension": [{"url": ABSENT_URL, "valueCode": "masked"}]}
# Examples of US Core 9.0.0 that are not of 6.1.0, and what changed between the two.
CHANGED = {
    "us-core-patient": {("min", "Patient.gender")},  # 9 no longer demands gender
    "us-core-careplan": {
        ("min", "CarePlan.category"),
        ("slice-min", "CarePlan.category:AssessPlan"),
    },  # nor assess-plan
    # From 7 on, a smoking status may be a quantity (pack-years), and may be for a period.
    "us-core-smokingstatus": {
        ("min", "Observation.effectiveDateTime"),
        ("min", "Observation.valueCodeableConcept"),
    },
}

# The mandatory elements of 6.1.0 by the US Core test kit (inferno-framework/us-core-test-kit @d73c79e and later,
# lib/us_core_test_kit/generated/v6.1.0/*/metadata.yml), without those inside of elements that the profile leaves alone.
_OBSERVED = "status category code subject"
_MEASURED = "status category category.coding.system category.coding.code code subject effective[x] component.code"
MANDATORY = {
    "us-core-patient": "identifier identifier.system identifier.value name telecom.system telecom.value gender "
    "communication.language",
    "us-core-encounter": "identifier.system identifier.value status class type subject location.location",
    "us-core-condition-encounter-diagnosis": "category code subject",
    "us-core-condition-problems-health-concerns": "category code subject",
    "us-core-observation-clinical-result": _OBSERVED,
    "us-core-observation-lab": _OBSERVED,
    "us-core-observation-screening-assessment": _OBSERVED,
    "us-core-simple-observation": _OBSERVED,
    "us-core-smokingstatus": f"{_OBSERVED} effective[x] value[x]",
    "us-core-observation-pregnancystatus": "status code subject effective[x] value[x]",
    "us-core-observation-occupation": "status code subject value[x] component.value[x]",
    "us-core-observation-sexual-orientation": "status code subject",
    "us-core-pulse-oximetry": f"{_MEASURED} code.coding value[x].value value[x].unit value[x].system value[x].code "
    "component.value[x].value component.value[x].unit component.value[x].system component.value[x].code",
    "us-core-medicationrequest": "status intent medication[x] subject",
    "us-core-medicationdispense": "status medication[x] subject performer.actor",
    "us-core-immunization": "status vaccineCode patient occurrence[x]",
    "us-core-allergyintolerance": "code patient reaction.manifestation",
    "us-core-procedure": "status code subject",
    "us-core-diagnosticreport-lab": "status category code subject",
    "us-core-diagnosticreport-note": "status category code subject media.link",
    "us-core-servicerequest": "status intent code subject",
    "us-core-documentreference": "status type category subject content content.attachment",
    "us-core-careplan": "text.status text.div status intent category subject",
    "us-core-careteam": "subject participant participant.role participant.member",
    "us-core-goal": "lifecycleStatus description subject",
    "us-core-organization": "active name",
    "us-core-practitioner": "identifier identifier.system identifier.value name name.family",
    "us-core-practitionerrole": "telecom.system telecom.value",
    "us-core-specimen": "type",
    "us-core-provenance": "target recorded agent agent.who",
    "us-core-questionnaireresponse": "questionnaire status subject authored",
    "us-core-coverage": "status beneficiary relationship payor",
}


def _findings(resource: dict[str, Any], name: str) -> set[tuple[str, str]]:
    return {(finding.rule, finding.where) for finding in profile_findings(resource, PREFIX + name)}


def test_there_is_a_sample_of_every_profile() -> None:
    assert set(SAMPLES) == set(PROFILES) == set(TABLE)
    assert len(PROFILES) == 49


@pytest.mark.parametrize("url", PROFILES)
def test_a_profile_accepts_its_sample_and_refuses_every_mutation(url: str) -> None:
    sample = SAMPLES[url]
    assert profile_findings(sample, url) == []
    assert url in met_profiles(sample)
    for mutation in mutations(TABLE[url]):
        broken = mutation.applied(sample)
        found = {(finding.rule, finding.where) for finding in profile_findings(broken, url)}
        assert (mutation.rule, mutation.where) in found, mutation
        assert url not in met_profiles(broken), mutation


@pytest.mark.parametrize("name", MANDATORY)
def test_what_is_mandatory_is_what_the_test_kit_of_us_core_says(name: str) -> None:
    rules = {
        re.sub(r":[^.]+|(?<=value)(Quantity|CodeableConcept)|(?<=effective)DateTime", _as_choice, mutation.where)
        for mutation in mutations(TABLE[PREFIX + name])
        if mutation.rule == "min" and ".extension" not in mutation.where
    }
    kind = TABLE[PREFIX + name].type
    assert {rule.removeprefix(f"{kind}.") for rule in rules} == set(MANDATORY[name].split())


def _as_choice(part: re.Match[str]) -> str:
    return "" if part.group().startswith(":") else "[x]"


def test_mutations_break_every_kind_of_constraint() -> None:
    made = [mutation for profile in TABLE.values() for mutation in mutations(profile)]
    kinds = Counter(mutation.rule for mutation in made)
    assert set(BREAKERS) == set(INVARIANTS)
    invariants = {key.removesuffix("-name").removesuffix("-attachment") for key in INVARIANTS}
    plain = {"min", "max", "types", "code", "concept", "coding", "fixed", "pattern", "target", "structure"}
    assert set(kinds) == invariants | plain | {"slice-min", "slice-max"}
    assert len(made) > 600


@pytest.mark.real
def test_examples_of_us_core_are_accepted_or_changed_since(public_data: Path) -> None:
    known, refused = 0, Counter[str]()
    with gzip.open(public_data / "fhir_examples" / "us_core_examples.ndjson.gz") as lines:
        for resource in map(orjson.loads, lines):
            for canonical in resource.get("meta", {}).get("profile", []):
                url = canonical.partition("|")[0]
                if url not in TABLE:
                    continue
                known += 1
                name = url.removeprefix(PREFIX)
                if found := _findings(resource, name):
                    assert found <= CHANGED.get(name, set()), (name, resource["id"])
                    refused[name] += 1
                else:
                    assert url in met_profiles(resource), (name, resource["id"])
    assert known == 203
    assert refused == {"us-core-patient": 4, "us-core-careplan": 2, "us-core-smokingstatus": 3}


@pytest.mark.real
def test_both_answers_agree_on_every_example(public_data: Path) -> None:
    """What is met has no findings, and what is for the resource but not met has some, of rules that the table has."""
    with gzip.open(public_data / "fhir_examples" / "us_core_examples.ndjson.gz") as lines:
        resources = [orjson.loads(line) for line in lines]
    seen = 0
    for resource in resources:
        met = met_profiles(resource)
        assert all(profile_findings(resource, url) == [] for url in met)
        for url, profile in TABLE.items():
            is_general = profile.type == resource["resourceType"] and profile.category is None and profile.code is None
            if is_general and not profile.is_fallback:
                assert (url in met) == (profile_findings(resource, url) == [])
                seen += 1
    assert seen > 60


@pytest.mark.parametrize(
    ("resource", "names"),
    [
        (vital("8867-4", 70, "/min"), ["us-core-heart-rate"]),
        # A unit that the specific profile refuses leaves the general one.
        (vital("8867-4", 70, "{beats}/min"), ["us-core-vital-signs"]),
        # A vital-sign code without its category is not a vital sign of US Core.
        (observation("8867-4", "exam", valueQuantity=quantity(70, "/min")), ["us-core-observation-clinical-result"]),
        (observation("2345-7", "laboratory", valueString="7"), ["us-core-observation-lab"]),
        # Not of the day: neither the laboratory profile nor the one that it derives from.
        (observation("2345-7", "laboratory", valueString="7", effectiveDateTime="2024"), []),
        # A smoking status for a period is no us-core-smokingstatus, but still a simple observation.
        (observation("72166-2", "social-history", valueString="x"), ["us-core-simple-observation"]),
        ({"resourceType": "ImagingStudy"}, []),
        ({"resourceType": ["Patient"]}, []),
    ],
)
def test_the_most_specific_profile_that_is_met_is_declared(resource: dict[str, Any], names: list[str]) -> None:
    assert met_profiles(resource) == [PREFIX + name for name in names]


def test_two_profiles_that_do_not_imply_each_other_are_both_declared() -> None:
    condition = copy.deepcopy(SAMPLES[f"{PREFIX}us-core-condition-problems-health-concerns"])
    system = condition["category"][0]["coding"][0]["system"]
    condition["category"].append(concept(system, "encounter-diagnosis"))
    assert met_profiles(condition) == [
        f"{PREFIX}us-core-condition-encounter-diagnosis",
        f"{PREFIX}us-core-condition-problems-health-concerns",
    ]


def test_where_data_is_absent_an_extension_stands_for_it() -> None:
    patient = SAMPLES[f"{PREFIX}us-core-patient"] | {"name": [MASKED]}
    practitioner = SAMPLES[f"{PREFIX}us-core-practitioner"] | {"name": [{"_family": MASKED}]}
    request = SAMPLES[f"{PREFIX}us-core-medicationrequest"] | {"requester": MASKED}
    procedure = SAMPLES[f"{PREFIX}us-core-procedure"] | {"_performedDateTime": MASKED}
    del procedure["performedString"]
    for resource in (patient, practitioner, request, procedure):
        assert len(met_profiles(resource)) == 1
    # A code with a required binding does not take it.
    gender = {key: value for key, value in patient.items() if key != "gender"} | {"_gender": MASKED}
    assert _findings(gender, "us-core-patient") == {("min", "Patient.gender")}


def test_a_finding_repeats_no_value_of_the_resource() -> None:
    secret = "Xq7Secret"
    patient = SAMPLES[f"{PREFIX}us-core-patient"] | {"gender": secret, "identifier": [{"value": secret}]}
    found = profile_findings(patient, f"{PREFIX}us-core-patient|6.1.0")
    assert {finding.rule for finding in found} == {"code", "min"}
    assert secret not in json.dumps([str(finding) for finding in found])


def test_the_page_says_what_happens() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "us_core.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert (result.failed, result.attempted) == (0, 5)
    assert f"All {len(PROFILES)} profiles" in page.read_text(encoding="utf-8")


def test_another_type_and_an_unknown_profile_are_told() -> None:
    assert _findings(SAMPLES[f"{PREFIX}us-core-patient"], "us-core-encounter") == {("type", "resourceType")}
    with pytest.raises(KeyError):
        profile_findings({"resourceType": "Patient"}, "http://example.org/other")


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("Patient/1", "Patient"),
        ("https://host/fhir/Patient/1", "Patient"),
        ("Patient/1/_history/2", "Patient"),
        ("Patient?identifier=a|b", "Patient"),
        ("urn:uuid:0", None),
        ("#contained", None),
        ("nothing", None),
    ],
)
def test_the_type_of_a_reference(reference: str, kind: str | None) -> None:
    assert target_type({"reference": reference}) == kind
    assert target_type({"type": "Group"}) == "Group"


def test_malformed_resources_are_refused_and_never_crash() -> None:
    """Anything at all in the place of any element: an answer, and the same one from both functions."""
    draw = random.Random(5)
    junk = [None, 0, 1.5, True, "", "x", [], {}, [[]], [None], {"coding": "x"}, {"coding": [None, 1, {"code": []}]}]
    refused = 0
    for url, sample in SAMPLES.items():
        for _ in range(60):
            broken = copy.deepcopy(sample)
            holder, key = draw.choice(_places(broken))
            holder[key] = draw.choice(junk)
            found = profile_findings(broken, url)
            refused += bool(found)
            assert not (found and url in met_profiles(broken))
    assert refused > 1000


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    places = [(value, key) for key in keys if key != "resourceType"]
    return places + [place for key in keys for place in _places(value[key])]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "Patient", "elements": {"name": {"minimum": 1}}}, "no key minimum"),
        ({"type": "Patient", "elements": {}, "base": "b"}, "base of a must be another profile"),
        ({"type": "Patient", "elements": {}, "unknown": 1}, "must have only the keys"),
    ],
)
def test_a_table_with_a_fault_is_refused(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(orjson.dumps({"prefix": "urn:", "profiles": {"a": entry}}))
    with pytest.raises(ConfigError, match=message):
        load_profiles(path)
