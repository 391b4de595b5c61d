"""The FHIR of `medtwin export`: NDJSON or bundles, shard by shard, checked as they are written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from medtwin import __version__
from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.files import write_json
from medtwin.core.images import table_to_images
from medtwin.core.provenance import creation_time
from medtwin.core.shards import map_shards
from medtwin.fhir import ExportContext, provenance_resources, resources_to_bundle, write_ndjson
from medtwin.fhir.checks.references import ReferenceBook
from medtwin.fhir.export import Shard, Written, join_parts, split_shard, write_shard
from medtwin.fhir.validate import LAYERS, STRUCTURAL, Validation
from medtwin.fhir.writing.actors import shared_resources
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.say import progress

Resources = list[dict[str, Any]]


def write_fhir(dataset: Dataset, chosen: ExportSettings, folder: Path) -> dict[str, int]:
    """Writes NDJSON, or a bundle per subject and one, `shared.json`, for what is said of all."""
    context = ExportContext(
        dataset.origin, f"urn:medtwin:export:{dataset.path.name}", creation_time(), __version__, chosen.fhir.profile
    )
    images = tuple(table_to_images(dataset.images()))
    pieces = [piece for path in dataset.shards() for piece in split_shard(path)]
    shards = [
        Shard(number, piece, folder, context, images, form=chosen.fhir.form, check=ResourceChecker(chosen.fhir.check))
        for number, piece in enumerate(pieces)
    ]
    total = Written()
    parts = map_shards(write_shard, shards, num_workers=chosen.fhir.workers)
    for part in progress(parts, "FHIR", total=len(shards), unit="shard"):
        total.add(part)
    shared = [
        *shared_resources(context, dataset.actors(), total.actors),
        *provenance_resources(context, [f"Patient/{name}" for name in total.patients]),
    ]
    checker = ResourceChecker(chosen.fhir.check)
    total.found.update(checker(shared))
    _write_shared(folder, shared, chosen, total)
    return _counts(total, chosen)


def _write_shared(folder: Path, shared: Resources, chosen: ExportSettings, total: Written) -> None:
    total.written.update(each["resourceType"] for each in shared)
    total.declared.update(each["resourceType"] for each in shared if each["meta"].get("profile"))
    if chosen.fhir.form == "ndjson":
        join_parts(folder)
        write_ndjson(folder, shared)
    else:
        write_json(folder / "shared.json", resources_to_bundle(shared, chosen.fhir.form))


def _counts(total: Written, chosen: ExportSettings) -> dict[str, int]:
    """What counts.json says: resources by type, profiles declared, what was not carried, checks and findings."""
    counts: Counter[str] = Counter(total.written)
    if chosen.fhir.form != "ndjson":
        counts["bundles"] = len(total.patients) + 1
    if chosen.fhir.profile != "r4":
        counts.update({f"declare {chosen.fhir.profile}: {kind}": n for kind, n in total.declared.items()})
    counts.update({f"not carried: {kind}": number for kind, number in total.not_carried.items()})
    counts.update({f"note: {flag}": number for flag, number in total.flags.items()})
    return {**dict(sorted(counts.items())), **dict(sorted(total.found.items()))}


class ResourceChecker:
    """Checks the resources of a shard as they are written: the schema and the rules on all, models on a sample.

    A resource whose form is not FHIR R4 is a fault of medtwin and stops the export. Other findings, such as an
    invariant that the source itself breaks, are counted and told.

    Args:
        extent: `sample`, `all` (models on every resource) or `none`.
    """

    FIRST, EVERY = 20, 500
    # These stand in files of their own, which hold whatever is referred to.
    _ELSEWHERE = frozenset({"Organization", "Location", "Practitioner", "PractitionerRole", "Device", "Patient"})

    def __init__(self, extent: str) -> None:
        self._extent = extent
        self._validation: Validation | None = None

    def __call__(self, resources: Resources) -> Counter[str]:
        """What the layers find in the resources of one subject, and on how many each ran.

        Raises:
            DatasetError: If one is not FHIR R4 by its form.
        """
        found: Counter[str] = Counter()
        if self._extent == "none":
            return found
        validation = self._layers()
        before = Counter(validation.num_run)
        validation.book = ReferenceBook()
        for resource in resources:
            for finding in validation.add(resource):
                if finding.rule in STRUCTURAL and finding.severity == "error":
                    raise DatasetError(f"a fault of medtwin: it would write an invalid resource: {finding}")
                if finding.severity != "information":
                    found[f"{finding.severity}: {finding.rule} ({resource['resourceType']})"] += finding.count
        for dangling in validation.book.dangling():
            if dangling.place.rpartition(" ")[2] not in self._ELSEWHERE:
                found[f"error: dangling-reference ({dangling.place})"] += dangling.count
        for layer in LAYERS:
            found[f"checked by {layer}"] = validation.num_run[layer] - before[layer]
        return found

    def _layers(self) -> Validation:
        if self._validation is None:
            if self._extent == "all":
                self._validation = Validation(layers=LAYERS)
            else:
                self._validation = Validation(layers=("schema", "rules"), sample=self.EVERY, first=self.FIRST)
        return self._validation
