"""`medtwin ingest`: FHIR, DICOM, a MEDS dataset, or images with a label table -> a dataset directory."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from medtwin.config import build, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.dataset_writer import EventSpill, SplitRule, num_buckets, write_dataset_metadata, write_events
from medtwin.core.errors import ConfigError, DatasetError, SourceError
from medtwin.core.events import Event, events_to_table
from medtwin.core.files import MANIFEST, atomic_file, read_json, verify_manifest, write_json, write_table
from medtwin.core.images import ImageRow, images_to_table
from medtwin.core.meds_source import chosen_subjects, code_metadata, read_meds, stated_splits
from medtwin.core.output import Output, writing
from medtwin.core.provenance import (
    PROVENANCE,
    Origin,
    Provenance,
    as_origin,
    describe_input,
    read_provenance,
    write_provenance,
)
from medtwin.core.pseudonyms import Pseudonyms, load_or_create_key
from medtwin.core.sources import Ledger, Reject, write_rejects
from medtwin.dicom import (
    Patient,
    ProjectionImage,
    Study,
    deidentify_series,
    has_dicom,
    projection_to_dataset,
    read_folder,
    series_to_image_row,
    write_series,
)
from medtwin.fhir import FhirSource, has_fhir, index_source, read_events
from medtwin.hospital import DESCRIPTIONS
from medtwin.pipelines.imaging_events import StudyIndex, labelled_row, study_events
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside, require_source, size_of


@dataclass(frozen=True)
class Source:
    """Where the input is; the `source` group of configs/ingest.yaml."""

    fhir: Path | None = None
    dicom: Path | None = None
    meds: Path | None = None
    images: Path | None = None
    labels: Path | None = None
    origin: Origin | None = None
    max_subjects: int | None = None

    def __post_init__(self) -> None:
        if self.max_subjects is not None and (self.meds is None or self.max_subjects < 1):
            raise ConfigError("source.max_subjects goes with source.meds and must be 1 or more")
        given = [name for name in ("fhir", "dicom", "meds", "images") if getattr(self, name) is not None]
        if not given:
            raise ConfigError(
                "source=DIR is required, or one of source.fhir=, source.dicom=, source.meds=, source.images="
            )
        if "meds" in given and len(given) > 1:
            raise ConfigError("source.meds stands alone: its subjects share no identifier with other sources")
        if "images" in given and len(given) > 1:
            raise ConfigError("source.images stands alone: its subjects share no identifier with other sources")

    def parts(self) -> dict[str, Path]:
        """The sources that are given, by role."""
        names = ("fhir", "dicom", "meds", "images", "labels")
        return {name: path for name in names if (path := getattr(self, name)) is not None}


@dataclass(frozen=True)
class PseudonymSettings:
    """The `pseudonyms` group of configs/ingest.yaml."""

    key_file: Path | None = None
    max_shift_weeks: int = 52


@dataclass(frozen=True)
class Splits:
    """The `splits` group of configs/ingest.yaml."""

    tuning: float = 0.1
    held_out: float = 0.1


@dataclass(frozen=True)
class IngestSettings:
    """The settings of configs/ingest.yaml."""

    source: Source
    out: Path
    pseudonyms: PseudonymSettings = field(default_factory=PseudonymSettings)
    splits: Splits = field(default_factory=Splits)
    labels: Mapping[str, Any] | None = None
    seed: int = 0
    overwrite: bool = False


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    source = config["source"]
    if not isinstance(source, Mapping):
        source = _parts_of(Path(str(source)).expanduser())
    ingest(settings(IngestSettings, {**config, "source": source, "labels": config.get("labels") or None}))


def source_in(folder: Path) -> Source:
    """The source in one folder: what `medtwin hospital` wrote, a MEDS dataset, or FHIR and DICOM files in any order.

    Raises:
        SourceError: If the folder is missing, unreadable or empty.
    """
    return settings(Source, _parts_of(folder), "source")


def _parts_of(folder: Path) -> dict[str, Path]:
    require_source(folder, "source")
    if (folder / "data").is_dir() and (folder / "metadata").is_dir():
        if (folder / PROVENANCE).is_file():
            raise SourceError(f"source: {folder} is a medtwin dataset already: every verb takes it as it is")
        return {"meds": folder}
    if (folder / PROVENANCE).is_file() and (folder / "fhir").is_dir():
        dicom = folder / "dicom"
        return {"fhir": folder / "fhir", **({"dicom": dicom} if dicom.is_dir() and any(dicom.iterdir()) else {})}
    parts = {"fhir": folder} if has_fhir(folder) else {}
    if has_dicom(folder):
        parts["dicom"] = folder
    if not parts:
        raise SourceError(f"source: {folder} holds no FHIR (JSON, NDJSON, also gzipped) and no DICOM file")
    return parts


def ingest(chosen: IngestSettings) -> Path:
    """Makes the dataset, or says that it is there; returns where it is."""
    for role, path in chosen.source.parts().items():
        require_source(path, f"source.{role}")
        require_outside(chosen.out, path)
    state = {role: fingerprint(path) for role, path in chosen.source.parts().items()}
    config = {**public_config(chosen), "source_state": state}
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        _Ingest(chosen, config, output).run()
    _tell_result(chosen.out)
    return chosen.out


class _Ingest:
    """One run: reads every part of the source into a spill, then writes the directory."""

    def __init__(self, chosen: IngestSettings, config: Mapping[str, Any], output: Output) -> None:
        self.chosen, self.config, self.output = chosen, config, output
        self.source = chosen.source
        self.ledger = Ledger()
        self.images: list[ImageRow] = []
        self.identities: dict[str, int] = {}
        self.aliases: dict[str, str] = {}
        self.studies = StudyIndex()
        self.has_unmarked_patients = False
        self.known_subjects: set[int] = set()
        self.written: set[str] = set()
        scratch = output.scratch("spill")
        shutil.rmtree(scratch)
        records = [path for path in (self.source.fhir, self.source.meds) if path is not None]
        self.spill = EventSpill(scratch, num_buckets(sum(map(size_of, records))))

    @cached_property
    def private(self) -> Path:
        """Where the key and the identity map are: beside the dataset, never in it."""
        folder = self.chosen.out.absolute().with_name(self.chosen.out.name + ".private")
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @cached_property
    def pseudonyms(self) -> Pseudonyms:
        """The pseudonyms of this dataset."""
        key = load_or_create_key(self.chosen.pseudonyms.key_file or self.private / "key")
        return Pseudonyms(key, self.chosen.pseudonyms.max_shift_weeks)

    @cached_property
    def origin(self) -> Origin:
        """What the source says it is: `source.origin`, else its provenance, else real; of a mixture, real."""
        if self.source.origin is not None:
            return self.source.origin
        stated = {_stated_origin(path) for role, path in self.source.parts().items() if role != "labels"}
        return stated.pop() if len(stated) == 1 and not self.has_unmarked_patients else "real"

    def run(self) -> None:
        """Reads, then writes."""
        if self.source.meds is not None:
            dataset = open_dataset(self.source.meds)
            self._read_meds(dataset)
            descriptions, parents = code_metadata(dataset)
            stated = stated_splits(dataset)
        else:
            dataset, stated, parents = None, {}, {}
            self._forget_other_key()
            self._read_records()
            self._read_images()
            descriptions = DESCRIPTIONS
        rule = SplitRule(self.chosen.seed, self.chosen.splits.tuning, self.chosen.splits.held_out)
        written = write_events(
            self.output.path,
            self.spill.close(),
            split_of=lambda subject: stated.get(subject) or rule(subject),
            descriptions=descriptions,
            parents=parents,
            cap_age=dataset is None,
        )
        self.ledger.flags.update(written.flags)
        if self.images:
            write_table(self.output.path / "images.parquet", images_to_table(self.images))
        if imbalance := self.ledger.imbalance():
            raise DatasetError(f"the books do not balance, which is a fault of medtwin: {imbalance}")
        subjects = {"subjects": sum(written.num_subjects.values()), **written.num_subjects}
        result = {**subjects, "events": written.num_events, "rows": written.num_rows, "series": len(self.images)}
        self._write_metadata(result)

    def _forget_other_key(self) -> None:
        """Drops the images of a killed run whose key is gone: they bear names that no longer mean anybody."""
        used = self.pseudonyms.fingerprint()
        if self.output.is_done("key") and self.output.result("key")["fingerprint"] != used:
            shutil.rmtree(self.output.path / "images", ignore_errors=True)
        self.output.mark_done("key", {"fingerprint": used})

    def _write_metadata(self, result: Mapping[str, int]) -> None:
        path = self.output.path
        write_rejects(path / "rejected" / "rejected.csv", self.ledger.rejects)
        write_json(path / "counts.json", {**self.ledger.as_dict(), "dataset": dict(result)})
        write_dataset_metadata(path, self.chosen.out.name, self.origin)
        kept = self.source.meds is not None
        privacy = (
            {"identities": "kept"}
            if kept
            else {
                "identities": "keyed BLAKE2b",
                "key_fingerprint": self.pseudonyms.fingerprint(),
                "max_shift_weeks": self.pseudonyms.max_shift_weeks,
                "oldest_age_years": 90,
            }
        )
        inputs = [describe_input(role, part) for role, part in self.source.parts().items()]
        depth = max(part.lineage_depth for part in inputs)
        record = Provenance("ingest", self.origin, self.config, self.chosen.seed, inputs, depth, privacy)
        write_provenance(path, record)
        if not kept:
            self._write_private_map()

    def _write_private_map(self) -> None:
        path = self.private / "identities.csv"
        with atomic_file(path, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            writer = csv.writer(file)
            writer.writerow(["identity", "subject_id"])
            writer.writerows(sorted(self.identities.items()))

    def _read_records(self) -> None:
        if self.source.fhir is None:
            return
        source = FhirSource(self.source.fhir)
        index = index_source(source)
        self.identities.update(index.subject_ids(self.pseudonyms))
        self.aliases = index.aliases
        self.has_unmarked_patients = index.origin == "real"
        batches = read_events(source, index, self.pseudonyms, self.ledger)
        for events in progress(batches, "reading FHIR", unit="batch"):
            self._spill(events)

    def _read_meds(self, dataset: Dataset) -> None:
        total, limit = len(dataset.shards()), self.source.max_subjects
        subjects = None if limit is None else chosen_subjects(dataset, limit, self.chosen.seed)
        tables = read_meds(dataset, self.ledger, subjects)
        for _, table in progress(tables, "reading MEDS", unit="batch", total=total):
            self.spill.add(table)

    def _spill(self, events: list[Event]) -> None:
        if not events:
            return
        table = events_to_table(events)
        self.studies.add(table)
        self.known_subjects.update(pc.unique(table["subject_id"]).to_pylist())
        self.spill.add(table)

    def _read_images(self) -> None:
        if self.source.dicom is not None:
            self._read_dicom(self.source.dicom)
        if self.source.images is not None:
            self._read_labelled(self.source.images)

    def _read_dicom(self, folder: Path) -> None:
        all_series = read_folder(folder, self.ledger)
        if not self.ledger.read["DICOM"]:
            raise SourceError(f"source.dicom: {folder} holds no DICOM file")
        by_study: dict[str, list[ImageRow]] = {}
        for series in progress(all_series, "reading DICOM", unit="series", total=len(all_series)):
            subject = self._subject_of(series.identity)
            row = series_to_image_row(series, self.pseudonyms, subject)
            row = replace(row, labels=self.studies.labels(row.study_uid))
            try:
                self._write_series(row, deidentify_series(series, self.pseudonyms, subject, ledger=self.ledger))
            except SourceError as error:
                for instance in series.instances:
                    reason = f"its series cannot be read whole: {error}"
                    self.ledger.reject(Reject(instance.file, 0, "DICOM", "unreadable-series", reason))
                continue
            self.ledger.carried["DICOM"] += len(series.instances)
            self.images.append(row)
            by_study.setdefault(row.study_uid, []).append(row)
        for study, rows in by_study.items():
            if study not in self.studies.known:
                self._spill(study_events(rows, is_new=rows[0].subject_id not in self.known_subjects))

    def _read_labelled(self, folder: Path) -> None:
        table = build(self.chosen.labels, "labels") if self.chosen.labels else None
        if table is None:
            raise ConfigError("source.images needs labels=<mapping>: `medtwin ingest --help` lists them")
        for image in progress(table.read(folder, self.source.labels, self.ledger), "reading images", unit="image"):
            subject = self._subject_of(f"image:{image.subject}")
            series_uid = self.pseudonyms.uid(f"{folder.name}/{image.study}/{image.file}/{image.line}")
            study_uid = self.pseudonyms.uid(f"{folder.name}/study/{image.study}")
            shift = self.pseudonyms.shift(subject)
            time = image.time + shift if image.time else None
            bits = 8 if image.pixels.dtype == "uint8" else 16
            row = labelled_row(image, subject, (study_uid, series_uid), time)
            dataset = projection_to_dataset(
                ProjectionImage(image.pixels, bits, image.view, image.spacing_mm),
                Patient(str(subject), sex=image.sex, age_years=image.age_years),
                Study(study_uid, series_uid, self.origin, time, body_part=image.body_part),
            )
            self._write_series(row, [dataset])
            self.images.append(row)
            self._spill(study_events([row], is_new=subject not in self.known_subjects))

    def _write_series(self, row: ImageRow, datasets: Iterable[Any]) -> None:
        """Writes a series whole or not at all; one that a killed run wrote is kept."""
        if row.series_uid in self.written:
            raise DatasetError("a fault of medtwin: two series of the source would get one UID")
        self.written.add(row.series_uid)
        final = self.output.path / row.path
        if final.is_dir():
            return
        part = self.output.scratch("series") / row.series_uid
        shutil.rmtree(part, ignore_errors=True)
        write_series(part, datasets)
        final.parent.mkdir(parents=True, exist_ok=True)
        part.rename(final)

    def _subject_of(self, identity: str) -> int:
        identity = self.aliases.get(identity, identity)
        subject = self.identities.get(identity)
        if subject is None:
            subject = self.identities[identity] = self.pseudonyms.subject_id(identity)
        return subject


def _stated_origin(path: Path) -> Origin:
    """What a source's own provenance says of it: its folder's, or that of the folder it stands in; else real.

    A finished directory whose files are not those of its manifest may hold anything, and counts as real.
    """
    for folder in (path, path.parent):
        if (folder / PROVENANCE).is_file() and (folder / MANIFEST).is_file():
            stated = as_origin(read_provenance(folder)["origin"], PROVENANCE)
            return "real" if verify_manifest(folder) else stated
    dataset = path / "metadata" / "dataset.json"
    return as_origin(read_json(dataset).get("origin", "real"), str(dataset)) if dataset.is_file() else "real"


def _tell_result(out: Path) -> None:
    counts = read_json(out / "counts.json")
    kinds = sorted(counts["read"])
    names = ("read", "carried", "not_carried", "rejected")
    rows = [{"input": kind, **{name: counts[name].get(kind, 0) for name in names}} for kind in kinds]
    total = {"input": "all", **{name: sum(counts[name].values()) for name in names}}
    tell_counts(f"{out}:", [*rows, total] if len(rows) > 1 else rows)
    if counts["rules"]:
        tell_counts(
            "rejected by rule (rejected/rejected.csv):", [{"rule": k, "items": v} for k, v in counts["rules"].items()]
        )
    tell_counts("the dataset:", [{"what": name, "number": number} for name, number in counts["dataset"].items()])
