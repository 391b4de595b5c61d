"""`medtwin export`: a dataset -> FHIR R4, DICOM files, CSV; refused where the verdict does not allow it."""

from __future__ import annotations

import getpass
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from medtwin import __version__
from medtwin.config import settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.events import EVENT_SCHEMA, Event, table_to_events
from medtwin.core.files import read_json, write_json
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.output import Output, writing
from medtwin.core.provenance import Provenance, creation_time, describe_input, write_provenance
from medtwin.core.verdict import require_release
from medtwin.fhir import (
    ExportContext,
    events_to_resources,
    provenance_resources,
    resources_to_bundle,
    validate_resource,
    write_bundles,
    write_ndjson,
)
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside

FORMATS = ("fhir", "dicom", "csv")


@dataclass(frozen=True)
class FhirSettings:
    """The `fhir` group of configs/export.yaml."""

    form: Literal["ndjson", "collection", "transaction"] = "ndjson"
    check: Literal["sample", "all", "none"] = "sample"


@dataclass(frozen=True)
class Override:
    """The `override` group: why something refused may happen all the same, and who says so."""

    reason: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class ExportSettings:
    """The settings of configs/export.yaml."""

    dataset: Path
    out: Path
    formats: tuple[str, ...] = FORMATS
    fhir: FhirSettings = field(default_factory=FhirSettings)
    check: Path | None = None
    override: Override = field(default_factory=Override)
    overwrite: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ConfigError(f"formats must be some of {', '.join(FORMATS)}, got {', '.join(unknown) or 'none'}")


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    export(settings(ExportSettings, config))


def export(chosen: ExportSettings) -> Path:
    """Writes the export, or says that it is there; returns where it is."""
    dataset = open_dataset(chosen.dataset)
    require_outside(chosen.out, dataset.path)
    overridden = require_release(dataset, chosen.check, override_reason=chosen.override.reason)
    source = dataset.manifest_hash() if dataset.is_finished else fingerprint(dataset.path)
    config = {**public_config(chosen), "source_state": source}
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        counts = _write_formats(dataset, chosen, output)
        write_json(output.path / "counts.json", counts)
        write_provenance(output.path, _provenance(dataset, chosen, config, overridden))
    _tell_result(chosen.out)
    return chosen.out


def _provenance(
    dataset: Dataset, chosen: ExportSettings, config: Mapping[str, Any], overridden: str | None
) -> Provenance:
    decisions = []
    if overridden is not None:
        decision = {"decision": f"exported although {overridden}", "reason": chosen.override.reason or ""}
        by = chosen.override.by or getpass.getuser()
        decisions.append({**decision, "by": by, "at": creation_time().isoformat(timespec="seconds")})
    source = describe_input("dataset", dataset.path)
    return Provenance("export", dataset.origin, config, None, [source], source.lineage_depth, human_decisions=decisions)


def _write_formats(dataset: Dataset, chosen: ExportSettings, output: Output) -> dict[str, dict[str, int]]:
    """Writes each format as a stage of its own: what a killed run completed is kept."""
    writers = {"fhir": _write_fhir, "dicom": _write_dicom, "csv": _write_csv}
    counts = {}
    for name in chosen.formats:
        if not output.is_done(name):
            folder = output.path / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            output.mark_done(name, writers[name](dataset, chosen, folder))
        counts[name] = output.result(name)
    return counts


def _write_fhir(dataset: Dataset, chosen: ExportSettings, folder: Path) -> dict[str, int]:
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


def _write_dicom(dataset: Dataset, chosen: ExportSettings, folder: Path) -> dict[str, int]:
    """Copies the images as <PatientID>/<study>/<series>/*.dcm, the layout that PACS importers expect."""
    counts = {"series": 0, "files": 0}
    rows = dataset.images().select(["subject_id", "study_uid", "series_uid", "path"]).to_pylist()
    for row in progress(rows, "DICOM", unit="series"):
        target = folder / str(row["subject_id"]) / row["study_uid"] / row["series_uid"]
        shutil.copytree(dataset.path / row["path"], target)
        counts["series"] += 1
        counts["files"] += len(list(target.iterdir()))
    return counts


def _write_csv(dataset: Dataset, chosen: ExportSettings, folder: Path) -> dict[str, int]:
    """Writes events.csv, images.csv and codes.csv, with the columns of the dataset's tables."""
    num_rows = 0
    with pa_csv.CSVWriter(folder / "events.csv", EVENT_SCHEMA) as writer:
        for table in progress(dataset.iter_events(), "CSV", total=len(dataset.shards()), unit="shard"):
            writer.write_table(table)
            num_rows += len(table)
    images = dataset.images()
    labels = [None if codes is None else " | ".join(codes) for codes in images["labels"].to_pylist()]
    flat = images.set_column(images.column_names.index("labels"), "labels", pa.array(labels, pa.string()))
    pa_csv.write_csv(flat, folder / "images.csv")
    codes = dataset.codes()
    plain = [name for name in codes.column_names if not pa.types.is_nested(codes.schema.field(name).type)]
    pa_csv.write_csv(codes.select(plain), folder / "codes.csv")
    return {"event rows": num_rows, "image rows": len(images), "codes": len(codes)}


def _tell_result(out: Path) -> None:
    counts = read_json(out / "counts.json")
    rows = [{"form": name, "what": what, "written": n} for name, part in counts.items() for what, n in part.items()]
    tell_counts(f"{out}:", rows)
