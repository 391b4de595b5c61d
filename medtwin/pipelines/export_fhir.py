"""The FHIR of `medtwin export`: NDJSON or bundles, checked as they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from medtwin import __version__
from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.events import Event, table_to_events
from medtwin.core.files import write_json
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.provenance import creation_time
from medtwin.fhir import (
    ExportContext,
    events_to_resources,
    provenance_resources,
    resources_to_bundle,
    validate_resource,
    write_bundles,
    write_ndjson,
)
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import progress


def write_fhir(dataset: Dataset, chosen: ExportSettings, folder: Path) -> dict[str, int]:
    """Writes NDJSON, or a bundle per subject and one, `shared.json`, for what is said of all."""
    recorded = creation_time()
    context = ExportContext(dataset.origin, f"urn:medtwin:export:{dataset.path.name}", recorded, __version__)
    counts: Counter[str] = Counter()
    patients: list[str] = []
    checker = ResourceChecker(chosen.fhir.check)

    def subjects() -> Iterator[list[dict[str, Any]]]:
        for events, images in progress(_subjects(dataset), "FHIR", total=_num_subjects(dataset), unit="subject"):
            written = events_to_resources(events, context=context, images=images)
            counts.update({f"not carried: {kind}": number for kind, number in written.not_carried.items()})
            patients.append(written.resources[0]["id"])
            checker.check(written.resources)
            yield written.resources

    if chosen.fhir.form == "ndjson":
        counts.update(write_ndjson(folder, (each for resources in subjects() for each in resources)))
        made = provenance_resources(context, [f"Patient/{name}" for name in patients])
        counts.update(write_ndjson(folder, made))
    else:
        counts["bundles"] = sum(1 for _ in write_bundles(folder, subjects(), chosen.fhir.form))
        made = provenance_resources(context, [f"Patient/{name}" for name in patients])
        write_json(folder / "shared.json", resources_to_bundle(made, chosen.fhir.form))
    return {**dict(sorted(counts.items())), **checker.counts()}


class ResourceChecker:
    """Checks resources as they are written, all or a sample of every type, and counts what was found by rule.

    A resource whose structure is wrong is a fault of medtwin and stops the export. Other findings (an invariant that
    the source itself breaks, say) are counted and told.
    """

    FIRST, EVERY = 20, 50

    def __init__(self, extent: str) -> None:
        self._extent = extent
        self._seen: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._num_checked = 0

    def check(self, resources: list[dict[str, Any]]) -> None:
        """Checks the resources of one subject.

        Raises:
            DatasetError: If one is not FHIR R4 by its structure.
        """
        for resource in resources if self._extent != "none" else ():
            number = self._seen[resource["resourceType"]]
            self._seen[resource["resourceType"]] += 1
            if self._extent == "sample" and number >= self.FIRST and number % self.EVERY:
                continue
            self._num_checked += 1
            for finding in validate_resource(resource):
                if finding.rule == "structure":
                    raise DatasetError(f"a fault of medtwin: it would write an invalid resource: {finding}")
                self._found[finding.rule] += finding.severity == "error"

    def counts(self) -> dict[str, int]:
        """How many were checked, and the findings by rule."""
        found = {f"finding: {rule}": number for rule, number in sorted(self._found.items()) if number}
        return {"checked with R4B": self._num_checked, **found}


def _num_subjects(dataset: Dataset) -> int:
    return len(dataset.subject_splits())


def _subjects(dataset: Dataset) -> Iterator[tuple[list[Event], list[ImageRow]]]:
    """The rows and the images of each subject, shard by shard."""
    images: dict[int, list[ImageRow]] = {}
    for row in table_to_images(dataset.images()):
        images.setdefault(row.subject_id, []).append(row)
    for table in dataset.iter_events():
        subject = table["subject_id"].to_numpy()
        bounds = [0, *(np.flatnonzero(np.diff(subject)) + 1).tolist(), len(subject)]
        for start, stop in pairwise(bounds):
            if stop > start:
                yield table_to_events(table.slice(start, stop - start)), images.get(int(subject[start]), [])
