"""Closed vocabularies: what FHIR R4 calls things, and the few words that may pass from a text element into an event."""

from __future__ import annotations

import re
from functools import lru_cache

from medtwin.core.units import is_ucum, to_ucum


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def _phrases(text: str, separator: str) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in f" {' '.join(text.split())} ".split(f"{separator} "))


# Our own mark of what is no real patient, beside HL7's security label HTEST.
ORIGIN_SYSTEM = "urn:medtwin:origin"
HTEST_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

# Source: hl7.fhir.r4.core 4.0.1, the resource types.
RESOURCE_TYPES = words(
    """
    Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse AuditEvent Basic
    Binary BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement CarePlan CareTeam CatalogEntry
    ChargeItem ChargeItemDefinition Claim ClaimResponse ClinicalImpression CodeSystem Communication
    CommunicationRequest CompartmentDefinition Composition ConceptMap Condition Consent Contract Coverage
    CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue Device DeviceDefinition DeviceMetric
    DeviceRequest DeviceUseStatement DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis
    Encounter Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare EventDefinition Evidence EvidenceVariable
    ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag Goal GraphDefinition Group GuidanceResponse
    HealthcareService ImagingStudy Immunization ImmunizationEvaluation ImmunizationRecommendation
    ImplementationGuide InsurancePlan Invoice Library Linkage List Location Measure MeasureReport Media Medication
    MedicationAdministration MedicationDispense MedicationKnowledge MedicationRequest MedicationStatement
    MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
    MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured MedicinalProductPackaged
    MedicinalProductPharmaceutical MedicinalProductUndesirableEffect MessageDefinition MessageHeader
    MolecularSequence NamingSystem NutritionOrder Observation ObservationDefinition OperationDefinition
    OperationOutcome Organization OrganizationAffiliation Parameters Patient PaymentNotice PaymentReconciliation
    Person PlanDefinition Practitioner PractitionerRole Procedure Provenance Questionnaire QuestionnaireResponse
    RelatedPerson RequestGroup ResearchDefinition ResearchElementDefinition ResearchStudy ResearchSubject
    RiskAssessment RiskEvidenceSynthesis Schedule SearchParameter ServiceRequest Slot Specimen SpecimenDefinition
    StructureDefinition StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer SubstanceProtein
    SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification SupplyDelivery SupplyRequest Task
    TerminologyCapabilities TestReport TestScript ValueSet VerificationResult VisionPrescription
    """
)

# Elements of the resource types that we read and of the datatypes in them: what an unknown name is not counted under.
# Source: hl7.fhir.r4.core 4.0.1.
ELEMENT_NAMES = words(
    """
    abatementAge abatementDateTime abatementPeriod abatementRange abatementString accessionIdentifier account action
    active activity actor additionalInstruction additive additiveCodeableConcept additiveReference address addresses
    admitSource age allowedBoolean allowedCodeableConcept appliesTo appointment asNeededBoolean
    asNeededCodeableConcept asserter assessment assigner author authorReference authorString authoredOn authority
    authorizingPrescription basedOn birthDate bodySite boundsDuration boundsPeriod boundsRange capacity careTeam
    category city class classHistory clinicalStatus code coding collectedDateTime collectedPeriod collection
    collector comment communication comparator complication complicationDetail component conclusion conclusionCode
    condition contact contained container contentType context contributor count countMax country courseOfTherapyType
    created creation criticality dailyAmount data dataAbsentReason date dateAsserted dayOfWeek daysSupply
    deceasedBoolean deceasedDateTime denominator derivedFrom description destination detail detectedIssue device
    diagnosis dietPreference dimensions dischargeDisposition dispenseInterval dispenseRequest display district div
    doNotPerform documentType dosage dosageInstruction dose doseAndRate doseNumberPositiveInt doseNumberString
    doseQuantity doseRange duration durationMax durationUnit education effectiveDateTime effectiveInstant
    effectivePeriod effectiveTiming encounter end endpoint episodeOfCare event eventHistory evidence
    expectedSupplyDuration expirationDate exposureRoute extension factor family fastingStatusCodeableConcept
    fastingStatusDuration focalDevice focus followUp frequency frequencyMax function fundingSource gender
    generalPractitioner given goal groupIdentifier hasMember hash high hospitalization id identifier imagingStudy
    implicitRules individual informationSource initialFill instance instantiates instantiatesCanonical
    instantiatesUri insurance intent interpretation interpreter isSubpotent issued kind language lastOccurrence
    lastUpdated laterality length line link location locationCode locationReference lotNumber low lowerLimit
    managingOrganization manifestation manipulated manufacturer maritalStatus maxDosePerAdministration
    maxDosePerLifetime maxDosePerPeriod media medicationCodeableConcept medicationReference meta method modality
    modifierExtension multipleBirthBoolean multipleBirthInteger name note number numberOfInstances
    numberOfRepeatsAllowed numberOfSeries numerator occurrenceDateTime occurrencePeriod occurrenceString
    occurrenceTiming offset onBehalfOf onset onsetAge onsetDateTime onsetPeriod onsetRange onsetString orderDetail
    organization origin other outcome outcomeCodeableConcept outcomeReference parent partOf participant patient
    patientInstruction performedAge performedDateTime performedPeriod performedRange performedString performer
    performerType period periodMax periodUnit photo physicalType postalCode preAdmissionIdentifier preferred prefix
    presentationDate presentedForm primarySource priorPrescription priority procedure procedureCode
    procedureReference processing productCodeableConcept productReference profile programEligibility progress
    protocolApplied publicationDate quantity quantityQuantity quantityRange quantityRatio rank rateQuantity
    rateRange rateRatio reAdmission reaction reason reasonCode reasonReference receivedTime receiver recorded
    recordedDate recorder reference referenceRange referrer relationship relevantHistory repeat replaces report
    reportOrigin reported reportedBoolean reportedReference request requester requisition resourceType
    responsibleParty result resultsInterpreter route scheduledPeriod scheduledString scheduledTiming security
    sequence series seriesDosesPositiveInt seriesDosesString serviceProvider serviceType severity site size sopClass
    source specialArrangement specialCourtesy specimen specimenQuantity stage start started state status
    statusHistory statusReason statusReasonCodeableConcept statusReasonReference subject subpotentReason substance
    substitution suffix summary supportingInfo supportingInformation system tag targetDisease telecom text time
    timeDateTime timeOfDay timePeriod timing title type uid unit upperLimit url use usedCode usedReference
    userSelected vaccineCode validityPeriod value valueBoolean valueCodeableConcept valueDateTime valueInteger
    valuePeriod valueQuantity valueRange valueRatio valueSampledData valueString valueTime verificationStatus
    version versionId wasSubstituted when whenHandedOver whenPrepared
    """
)

# LOINC codes that the R4 vital-sign profiles claim. Source: hl7.org/fhir/R4/observation-vitalsigns.html.
VITAL_SIGNS = words(
    """
    85353-1 9279-1 8867-4 2708-6 59408-5 8310-5 8302-2 9843-4 29463-7 39156-5 85354-9 8480-6 8462-4 8478-0
    """
)

# DICOM View Position (0018,5101) and its usual long forms; FHIR R4 has no element for it but series.description.
VIEWS = words("AP PA LL RL RLD LLD RLO LLO LATERAL LAT LPO RPO LAO RAO CC MLO ML LM AX SAG COR")

# Results that are words. A text element enters the dataset only as one of these, or as a short number.
_RESULTS = _phrases(
    """
    positive / negative / pos / neg / detected / not detected / non-detected / undetected / indeterminate /
    equivocal / inconclusive / borderline / reactive / nonreactive / non-reactive / non reactive / weakly reactive
    / present / absent / trace / tr / none / none seen / no / yes / y / n / normal / abnormal / critical / low /
    high / done / not done / few / rare / some / many / moderate / mod / small / sm / large / lg / occasional /
    occ / numerous / packed / loaded / 1+ / 2+ / 3+ / 4+ / +1 / +2 / +3 / +4 / + / ++ / +++ / ++++ / - / +/- /
    growth / no growth / no significant growth / sparse growth / rare growth / moderate growth / heavy growth /
    light growth / mixed flora / normal flora / contaminated / susceptible / resistant / intermediate / sensitive
    / clear / cloudy / hazy / slightly hazy / slcloudy / slhazy / turbid / bloody / colorless / straw / yellow /
    ltyellow / light yellow / dark yellow / dkyellow / amber / dkamber / ltamber / orange / red / pink / brown /
    green / black / white / art / ven / mix / arterial / venous / mixed / central venous / capillary / random /
    fasting / hold / uncontrolled / intubated / not intubated / controlled / spontaneous / assist/control /
    sinus rhythm / sinus tachycardia / sinus bradycardia / atrial fibrillation / atrial flutter / paced / a / b /
    ab / o / a positive / a negative / b positive / b negative / ab positive / ab negative / o positive /
    o negative / rh positive / rh negative / asleep / awake / alert / sleeping / sedated / unresponsive / unable /
    uta / unable to assess / refused / current smoker / former smoker / never smoker / no signs/symptoms /
    mild signs/symptoms / moderate signs/symptoms / severe signs/symptoms / hiv positive / not hiv positive / true
    / false / unknown / not applicable
    """,
    "/",
)
_SHORT_NUMBER = re.compile(r"(<|>|<=|>=|=)?\s?[-+]?\d{1,3}(\.\d{1,3})?|\d{1,2}-\d{1,2}|1:\d{1,4}")
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?")

# Units that hospitals write as text and UCUM lacks.
_OTHER_UNITS = _phrases(
    """
    unit, units, tablet, tablets, tab, tabs, capsule, capsules, cap, caps, puff, puffs, spray, sprays, drop,
    drops, gtt, patch, ptch, packet, pkt, application, appl, dose, doses, neb, inh, vial, vials, bag, bags,
    bottle, syringe, ampule, amp, supp, suppository, lozenge, loz, enema, film, stick, wafer, score, ratio, index,
    titer, #/hpf, #/lpf, /hpf, /lpf, #/uL, copies/mL, log10 copies/mL, log10 cop/mL, log10 IU/mL, cop/mL, cfu/mL,
    ng/mL FEU, ug/mL FEU, mg/L FEU, mEq, mEq., mEq./hour, mEq/hour, units/hour, units/h, units/kg/hour,
    mcg/kg/min, mcg/kg/hour, mg/kg/hour, mg/24hr, g/24hr, mL/24hr, grams, grams/hour, gm, mg PE, GPL, MPL, APL,
    SMU, BPM, U/g/Hb, mmHg, cmH2O, insp/min, beats/minute, breaths/minute, F, C, %, seconds, minutes, hours, hrs,
    year, years, month, months, week, weeks, day, days, mm/hr, cells/uL, x10^3/uL, x10^6/uL, thou/uL, mill/uL,
    percent, pH, pH units, INR, cc, cc/hour
    """,
    ",",
)
_ANNOTATION = re.compile(
    r"\{(score|nominal|count|ratio|INR|T-score|Z-score|titer|cells|copies|1\.73_m2|beats|breaths)\}"
)


def is_result_word(text: str) -> bool:
    """Whether a text is a short number or a word of the closed vocabulary of results.

    >>> is_result_word("NO GROWTH. "), is_result_word("7.5"), is_result_word("seen by Dr Smith"), is_result_word("4711")
    (True, True, False, False)
    """
    plain = text.strip()
    return plain.rstrip(".").strip().lower() in _RESULTS or _SHORT_NUMBER.fullmatch(plain) is not None


def is_time_of_day(text: str) -> bool:
    """Whether a text is a FHIR `time`."""
    return _TIME_OF_DAY.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def is_unit_word(text: str) -> bool:
    """Whether a text that stands in a unit's place is a unit, and nothing else.

    >>> is_unit_word("mg/dL"), is_unit_word("#/hpf"), is_unit_word("{Smith}"), is_unit_word("12345678")
    (True, True, False, False)
    """
    plain = text.strip()
    if plain.lower() in _OTHER_UNITS:
        return True
    bare = _ANNOTATION.sub("", plain)
    if len(plain) > 32 or "{" in bare or re.search(r"\d{4}", bare) or re.fullmatch(r"[\d.]+", bare):
        return False
    return to_ucum(plain) is not None or is_ucum(plain)
