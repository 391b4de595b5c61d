"""The few OMOP concepts that are fixed, whatever vocabulary is at hand; and which vocabulary a code system is.

Source of the ids: OHDSI Standardized Vocabularies (Athena); the conventions are those of the CDM 5.4 field-level
documentation (OHDSI/CommonDataModel, inst/csv/OMOP_CDMv5.4_Field_Level.csv) and of OHDSI/Themis.
"""

from __future__ import annotations

NO_CONCEPT = 0

# Gender has two standard concepts; other and unknown are 0 (Themis, "gender_concept_id").
GENDERS = {"M": 8507, "MALE": 8507, "F": 8532, "FEMALE": 8532}
# OMB categories; one race per person, several are 0 (CDM 5.4, person.race_concept_id).
RACES = {
    "1002-5": 8657,
    "2028-9": 8515,
    "2054-5": 8516,
    "2076-8": 8557,
    "2106-3": 8527,
    "AMERICAN INDIAN OR ALASKA NATIVE": 8657,
    "ASIAN": 8515,
    "BLACK OR AFRICAN AMERICAN": 8516,
    "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER": 8557,
    "WHITE": 8527,
}
ETHNICITIES = {"2135-2": 38003563, "2186-5": 38003564}

# Type concepts: where a record comes from.
EHR = 32817
EHR_ADMINISTRATION = 32818
EHR_DISPENSING = 32825
EHR_ENCOUNTER = 32827
EHR_MEDICATION_LIST = 32830
EHR_ORDER = 32833
EHR_PRESCRIPTION = 32838
EHR_PROBLEM_LIST = 32840
EHR_EXAMINATION = 32836
LAB = 32856
ALGORITHM_FROM_EHR = 32882
SURVEY = 32883
DRUG_TYPES = {
    "MedicationRequest": EHR_PRESCRIPTION,
    "MedicationDispense": EHR_DISPENSING,
    "MedicationAdministration": EHR_ADMINISTRATION,
    "MedicationStatement": EHR_MEDICATION_LIST,
    "Immunization": EHR,
}
# Categories that say where a record comes from; others have no column.
CATEGORY_TYPES = {
    "CONDCATEGORY//problem-list-item": EHR_PROBLEM_LIST,
    "CONDCATEGORY//encounter-diagnosis": EHR_ENCOUNTER,
    "OBSCATEGORY//laboratory": LAB,
    "OBSCATEGORY//vital-signs": EHR_EXAMINATION,
    "OBSCATEGORY//survey": SURVEY,
}

TYPE_CATEGORIES = {kind: code for code, kind in CATEGORY_TYPES.items()}
TYPE_DRUGS = {kind: name for name, kind in DRUG_TYPES.items() if kind != EHR}

# Encounter classes of v3-ActCode. Those that share a concept come back as the first of it.
VISITS = {
    "IMP": 9201,
    "ACUTE": 9201,
    "NONAC": 9201,
    "AMB": 9202,
    "SS": 9202,
    "EMER": 9203,
    "HH": 581476,
    "VR": 722455,
    "OBSENC": 581385,
}
INTENSIVE_CARE = 32037
CLASS_OF_VISIT = {
    9201: "IMP",
    9202: "AMB",
    9203: "EMER",
    262: "IMP",
    581476: "HH",
    722455: "VR",
    5083: "VR",
    581385: "OBSENC",
}

# Verification statuses of a Condition.
CONDITION_STATUSES = {"confirmed": 32893, "provisional": 32899}

# Observation.comparator and the concepts of the domain Meas Value Operator.
OPERATORS = {"<": 4171756, "<=": 4171754, ">=": 4171755, ">": 4172704}
OPERATOR_WORDS = {concept: word for word, concept in OPERATORS.items()}

# What measurement_event_id and observation_event_id name: the concept of a table's primary key (vocabulary CDM).
FIELDS = {
    "condition_occurrence": 1147127,
    "drug_exposure": 1147094,
    "procedure_occurrence": 1147082,
    "measurement": 1147138,
    "observation": 1147165,
    "specimen": 1147049,
    "visit_occurrence": 1147070,
}
FIELD_TABLES = {concept: table for table, concept in FIELDS.items()}

CDM_5_4 = 756265

# Where a standard concept of a domain stands. Other domains (Meas Value, Geography, ...) stand in observation.
DOMAIN_TABLES = {
    "Condition": "condition_occurrence",
    "Drug": "drug_exposure",
    "Procedure": "procedure_occurrence",
    "Device": "device_exposure",
    "Measurement": "measurement",
    "Specimen": "specimen",
    "Observation": "observation",
}

# The concepts of the domains, as fact_relationship names the tables of two facts.
DOMAINS = {
    "condition_occurrence": 19,
    "drug_exposure": 13,
    "procedure_occurrence": 10,
    "device_exposure": 17,
    "measurement": 21,
    "observation": 27,
    "specimen": 36,
}
DOMAIN_NAMES = {concept: table for table, concept in DOMAINS.items()}

# Short names of code systems (medtwin.core.codes) -> vocabulary_id. A system may be two vocabularies in OMOP.
VOCABULARIES: dict[str, tuple[str, ...]] = {
    "SNOMED": ("SNOMED",),
    "LOINC": ("LOINC",),
    "RXNORM": ("RxNorm", "RxNorm Extension"),
    "CVX": ("CVX",),
    "NDC": ("NDC",),
    "ICD10CM": ("ICD10CM",),
    "ICD10": ("ICD10",),
    "ICD9CM": ("ICD9CM", "ICD9Proc"),
    "ICD10PCS": ("ICD10PCS",),
    "ATC": ("ATC",),
    "UCUM": ("UCUM",),
    "CPT4": ("CPT4",),
    "CPT": ("CPT4",),
    "www.ama-assn.org/go/cpt": ("CPT4",),
    "HCPCS": ("HCPCS",),
    "www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets": ("HCPCS",),
    "www.nubc.org/patient-discharge": ("UB04 Pt dis status",),
    # MIMIC-IV on FHIR codes these standard systems under its own URIs.
    "mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd9": ("ICD9CM",),
    "mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd10": ("ICD10CM",),
    "mimic.mit.edu/fhir/mimic/CodeSystem/mimic-procedure-icd9": ("ICD9Proc",),
    "mimic.mit.edu/fhir/mimic/CodeSystem/mimic-procedure-icd10": ("ICD10PCS",),
    "mimic.mit.edu/fhir/mimic/CodeSystem/mimic-medication-ndc": ("NDC",),
    "mimic.mit.edu/fhir/mimic/CodeSystem/mimic-hcpcs-cd": ("HCPCS", "CPT4"),
}
# vocabulary_id -> our short name, for reading; a vocabulary that is not listed stands under its own id.
SYSTEM_OF_VOCABULARY = {
    "RxNorm": "RXNORM",
    "RxNorm Extension": "RXNORM",
    "ICD9Proc": "ICD9CM",
    "CPT4": "CPT4",
    **{ids[0]: name for name, ids in VOCABULARIES.items() if name in ids},
}
# Vocabularies whose sources often leave the dot of a code out: both forms mean one code.
DOTTED = frozenset({"ICD10CM", "ICD10", "ICD9CM", "ICD9Proc"})
