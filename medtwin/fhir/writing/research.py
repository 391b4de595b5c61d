"""A research study and who took part, as ResearchStudy, ResearchSubject and the Patient of each.

Source: hl7.org/fhir/R4/researchstudy.html and researchsubject.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from medtwin.fhir.writing.context import ExportContext, stable_id
from medtwin.fhir.writing.rows import Resource

STUDY_SYSTEM = "urn:medtwin:study"
"""Who issues the identifiers of studies and of their subjects."""
_OBJECTIVE_TYPES = "http://terminology.hl7.org/CodeSystem/research-study-objective-type"
_GENDERS = {"F": "female", "M": "male"}
SUBJECT_STATUSES = ("on-study", "off-study", "withdrawn")


@dataclass(frozen=True)
class StudyArm:
    """An arm: its name, what it is in words (`Experimental`, `Control`), and what it means."""

    name: str
    kind: str
    description: str = ""


@dataclass(frozen=True)
class ResearchFacts:
    """A study that is over, as far as its data go.

    Attributes:
        study_id: Its identifier. title: Of the study. objective: The primary one, in words.
        arms: That subjects are assigned to.
        start: First day. end: Last day.
        description: For the reader. note: How it ended.
    """

    study_id: str
    title: str
    objective: str
    arms: Sequence[StudyArm]
    start: date
    end: date
    description: str = ""
    note: str = ""


@dataclass(frozen=True)
class SubjectFacts:
    """A subject of a study.

    Attributes:
        subject_id: Its identifier, unique among all studies. arm: The name of the arm it was assigned to.
        status: `on-study` at the end of the data, `off-study` after the endpoint, or `withdrawn`.
        start: Day of randomisation. end: Of leaving or of the endpoint; None: there was none.
        sex: `F`, `M` or empty. birth_year: None: unknown. death: Day of death; None: none is known.

    Raises:
        ValueError: If the status is another.
    """

    subject_id: str
    arm: str
    status: str
    start: date
    end: date | None = None
    sex: str = ""
    birth_year: int | None = None
    death: date | None = None

    def __post_init__(self) -> None:
        if self.status not in SUBJECT_STATUSES:
            raise ValueError(f"status must be one of {', '.join(SUBJECT_STATUSES)}, got {self.status!r}")


def research_resources(
    context: ExportContext, study: ResearchFacts, subjects: Iterable[SubjectFacts]
) -> Iterator[Resource]:
    """The ResearchStudy, then each subject's Patient and ResearchSubject; ids depend on the identifiers alone.

    Args:
        context: The export.
        study: The study.
        subjects: Who took part.

    Raises:
        ValueError: If a subject has an arm that the study has not.
    """
    yield _study(context, study)
    names = [arm.name for arm in study.arms]
    reference = f"ResearchStudy/{study_resource_id(study.study_id)}"
    for subject in subjects:
        if subject.arm not in names:
            raise ValueError(f"arm must be one of {', '.join(names)}, got {subject.arm!r}")
        yield _patient(context, subject)
        yield _research_subject(context, subject, reference)


def study_resource_id(study_id: str) -> str:
    """The id of a study's ResearchStudy."""
    return stable_id(f"study|{study_id}")


def research_subject_id(subject_id: str) -> str:
    """The id of a subject's ResearchSubject."""
    return stable_id(f"study subject|{subject_id}")


def _study(context: ExportContext, study: ResearchFacts) -> Resource:
    found: Resource = {
        "resourceType": "ResearchStudy",
        "id": study_resource_id(study.study_id),
        "meta": context.meta(),
        "identifier": [{"system": STUDY_SYSTEM, "value": study.study_id}],
        "title": study.title,
        "status": "completed",
        "period": {"start": study.start.isoformat(), "end": study.end.isoformat()},
        "arm": [_arm(arm) for arm in study.arms],
        "objective": [
            {
                "name": study.objective,
                "type": {"coding": [{"system": _OBJECTIVE_TYPES, "code": "primary", "display": "Primary"}]},
            }
        ],
    }
    if study.description:
        found["description"] = study.description
    if study.note:
        found["note"] = [{"text": study.note}]
    return found


def _arm(arm: StudyArm) -> Resource:
    found: Resource = {"name": arm.name, "type": {"text": arm.kind}}
    return found | ({"description": arm.description} if arm.description else {})


def _patient(context: ExportContext, subject: SubjectFacts) -> Resource:
    found: Resource = {
        "resourceType": "Patient",
        "id": _patient_id(subject),
        "meta": context.meta(),
        "identifier": [{"system": STUDY_SYSTEM, "value": subject.subject_id}],
        "gender": _GENDERS.get(subject.sex, "unknown"),
    }
    if subject.birth_year is not None:
        found["birthDate"] = f"{subject.birth_year:04d}"
    if subject.death is not None:
        found["deceasedDateTime"] = subject.death.isoformat()
    return found


def _patient_id(subject: SubjectFacts) -> str:
    return stable_id(f"study patient|{subject.subject_id}")


def _research_subject(context: ExportContext, subject: SubjectFacts, study: str) -> Resource:
    period = {"start": subject.start.isoformat()} | ({"end": subject.end.isoformat()} if subject.end else {})
    return {
        "resourceType": "ResearchSubject",
        "id": research_subject_id(subject.subject_id),
        "meta": context.meta(),
        "identifier": [{"system": STUDY_SYSTEM, "value": subject.subject_id}],
        "status": subject.status,
        "period": period,
        "study": {"reference": study},
        "individual": {"reference": f"Patient/{_patient_id(subject)}"},
        "assignedArm": subject.arm,
        "actualArm": subject.arm,
    }
