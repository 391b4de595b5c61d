"""FHIR R4 out: the events of a subject as resources, the inverse of `medtwin.fhir.read`. See docs/conventions.md.

Rows are read as columns, and what rows with the same code have in common is made once: resources share parts, which
nobody may change in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from medtwin.core.events import Event, events_to_table, table_to_events
from medtwin.core.images import ImageRow
from medtwin.fhir.writing.accessions import add_accessions
from medtwin.fhir.writing.bare import complete, with_images
from medtwin.fhir.writing.compose import Subject, Tools
from medtwin.fhir.writing.context import ExportContext, fhir_id
from medtwin.fhir.writing.rows import Resource, decode, has_bare_rows, subject_batches

__all__ = ["ExportContext", "Resource", "SubjectExport", "events_to_resources", "fhir_id", "table_to_resources"]


@dataclass(frozen=True)
class SubjectExport:
    """What became of one subject.

    Attributes:
        resources: Its resources, the Patient first. They share parts: not to be changed in place.
        not_carried: What of its rows FHIR could not hold, by kind of row.
        flags: What was written otherwise than the rows have it, or is worth knowing: pressures joined in a panel,
            `ingredient-level RxNorm`.
        declared: How many resources of each type declare a profile.
        actors: Who and where its resources refer to, as `Type/<actor_id>`.
    """

    resources: list[Resource]
    not_carried: Counter[str]
    flags: Counter[str] = field(default_factory=Counter)
    declared: Counter[str] = field(default_factory=Counter)
    actors: frozenset[str] = frozenset()

    @property
    def written(self) -> Counter[str]:
        """How many resources of each type were written."""
        return Counter(resource["resourceType"] for resource in self.resources)


def events_to_resources(
    events: Iterable[Event], *, context: ExportContext, images: Iterable[ImageRow] = ()
) -> SubjectExport:
    """The resources of one subject.

    Args:
        events: All rows of the subject, child rows included; bare MEDS rows are given a resource type and an id.
        context: Where they come from, and the profile that they are written for.
        images: The subject's series: they complete its ImagingStudy resources.

    Raises:
        ValueError: If the rows are of several subjects, or there are none.
    """
    rows = with_images(complete(events), images)
    subjects = {row.subject_id for row in rows}
    if len(subjects) != 1:
        raise ValueError(f"events must be of one subject, got {len(subjects)}")
    decoded = decode(events_to_table(rows))
    return _export(Subject(Tools(context), decoded, list(range(len(rows)))))


def table_to_resources(
    table: pa.Table, *, context: ExportContext, images: Mapping[int, Sequence[ImageRow]] | None = None
) -> Iterator[SubjectExport]:
    """The resources of every subject of a shard, in the order of its rows.

    Args:
        table: Rows of the event table, those of a subject together.
        context: Where they come from, and the profile that they are written for.
        images: The series of each subject that has some.
    """
    tools = Tools(context)
    series = images or {}
    for batch, bounds in subject_batches(table):
        if has_bare_rows(batch):
            for start, stop in bounds:
                events = table_to_events(batch.slice(start, stop - start))
                rows = with_images(complete(events), series.get(events[0].subject_id, ()))
                yield _export(Subject(tools, decode(events_to_table(rows)), list(range(len(rows)))))
            continue
        yield from _export_batch(tools, batch, bounds, series)


def _export_batch(
    tools: Tools, batch: pa.Table, bounds: list[tuple[int, int]], series: Mapping[int, Sequence[ImageRow]]
) -> Iterator[SubjectExport]:
    added, more = _image_rows(batch, bounds, series)
    rows = decode(pa.concat_tables([batch, events_to_table(added)]) if added else batch)
    for start, stop in bounds:
        numbers = [*range(start, stop), *more.get(rows.subject[start], ())]
        yield _export(Subject(tools, rows, numbers))


def _image_rows(
    batch: pa.Table, bounds: list[tuple[int, int]], series: Mapping[int, Sequence[ImageRow]]
) -> tuple[list[Event], dict[int, list[int]]]:
    """The rows that the image table adds, and by subject where they stand when they follow those of the batch."""
    added: list[Event] = []
    more: dict[int, list[int]] = {}
    for start, stop in bounds if series else ():
        subject = batch["subject_id"][start].as_py()
        if subject in series:
            part = batch.slice(start, stop - start)
            events = table_to_events(part.filter(pc.equal(part["resource"], "ImagingStudy")))
            new = with_images(events, series[subject])[len(events) :]
            begin = len(batch) + len(added)
            more[subject] = list(range(begin, begin + len(new)))
            added += new
    return added, more


def _export(subject: Subject) -> SubjectExport:
    resources = subject.resources()
    add_accessions(resources)
    return SubjectExport(resources, +subject.not_carried, +subject.flags, +subject.declared, frozenset(subject.actors))
