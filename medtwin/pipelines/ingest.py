"""`medtwin ingest`: FHIR, DICOM, a MEDS dataset, an OMOP CDM, or images with a label table -> a dataset directory."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from medtwin.config import compose, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.dataset_writer import EventSpill, SplitRule, num_buckets, write_dataset_metadata, write_events
from medtwin.core.encoded import decode_events
from medtwin.core.errors import ConfigError, DatasetError, SourceError
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
from medtwin.core.sources import Ledger, write_rejects
from medtwin.fhir import FhirSource, has_fhir
from medtwin.fhir.reading.index import actors_table
from medtwin.fhir.reading.lines import Limits
from medtwin.fhir.remote.settings import ServerSource
from medtwin.hospital import DESCRIPTIONS
from medtwin.pipelines.ingest_fhir import FhirRecords, read_fhir
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside, require_source, size_of


@dataclass(frozen=True)
class Source:
    """Where the input is; the `source` group of configs/ingest.yaml."""

    fhir: Path | None = None
    dicom: Path | None = None
    meds: Path | None = None
    omop: Path | None = None
    vocab: Path | None = None
    images: Path | None = None
    labels: Path | None = None
    origin: Origin | None = None
    max_subjects: int | None = None
    max_resource_mb: float = 256
    server: ServerSource = field(default_factory=ServerSource)
    # A `medtwin.dicom.network.WebSource`, or the mapping of its settings, which becomes one; None without a URL.
    dicomweb: Any = None
    colour: Literal["refuse", "grey"] = "refuse"

    def __post_init__(self) -> None:
        if self.max_subjects is not None and (self.meds is None or self.max_subjects < 1):
            raise ConfigError("source.max_subjects goes with source.meds and must be 1 or more")
        given = [name for name in ("fhir", "dicom", "meds", "omop", "images") if getattr(self, name) is not None]
        if self.server.url is not None:
            if self.fhir is not None:
                raise ConfigError("source.server and source.fhir are two sources of records: choose one")
            given.append("server")
        given += self._pacs()
        if not given:
            raise ConfigError(
                "source=DIR is required, or one of source.fhir=, source.server.url=, source.dicom=, "
                "source.dicomweb.url=, source.meds=, source.omop=, source.images="
            )
        alone = [name for name in ("meds", "omop", "images") if name in given]
        if alone and len(given) > 1:
            raise ConfigError(f"source.{alone[0]} stands alone: its subjects share no identifier with other sources")
        if self.vocab is not None and self.omop is None:
            raise ConfigError("source.vocab goes with source.omop: it says which codes its concepts are")

    def _pacs(self) -> list[str]:
        if isinstance(self.dicomweb, Mapping):
            object.__setattr__(self, "dicomweb", _web_source(self.dicomweb))
        if self.dicomweb is not None and self.dicom is not None:
            raise ConfigError("source.dicomweb and source.dicom are two sources of scans: choose one")
        return [] if self.dicomweb is None else ["dicomweb"]

    def parts(self) -> dict[str, Path]:
        """The sources that are given, by role."""
        names = ("fhir", "dicom", "meds", "omop", "vocab", "images", "labels")
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
    workers: int = 1
    labels: Mapping[str, Any] | None = None
    dicom_label: Mapping[str, Any] | None = None
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.dicom_label and self.source.dicom is None and self.source.dicomweb is None:
            raise ConfigError("dicom_label goes with DICOM files: give source.dicom= or source.dicomweb.url=")


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    source = config["source"]
    if not isinstance(source, Mapping):
        source = _parts_of(Path(str(source)).expanduser())
    source = dict(source)
    if option := source.pop("dicom_label", None):
        config = {**config, "dicom_label": compose("ingest", [f"dicom_label={option}"])["dicom_label"]}
    groups = {name: config.get(name) or None for name in ("labels", "dicom_label")}
    ingest(settings(IngestSettings, {**config, "source": source, **groups}))


def source_in(folder: Path) -> Source:
    """The source in one folder: what `medtwin hospital` wrote, a MEDS dataset, or FHIR and DICOM files in any order.

    Raises:
        SourceError: If the folder is missing, unreadable or empty.
    """
    return settings(Source, _parts_of(folder), "source")


def _web_source(chosen: Mapping[str, Any]) -> Any:
    if not chosen.get("url"):
        return None
    from medtwin.dicom.network import WebSource  # pydicom takes a while to load

    return settings(WebSource, chosen, "source.dicomweb")


def _parts_of(folder: Path) -> dict[str, Path]:
    require_source(folder, "source")
    if (folder / "data").is_dir() and (folder / "metadata").is_dir():
        if (folder / PROVENANCE).is_file():
            raise SourceError(f"source: {folder} is a medtwin dataset already: every verb takes it as it is")
        return {"meds": folder}
    if (folder / PROVENANCE).is_file() and (folder / "fhir").is_dir():
        dicom = folder / "dicom"
        return {"fhir": folder / "fhir", **({"dicom": dicom} if dicom.is_dir() and any(dicom.iterdir()) else {})}
    from medtwin.pipelines.ingest_omop import find_omop  # so does DuckDB

    if (cdm := find_omop(folder)) is not None:
        return {"omop": cdm}
    parts = {"fhir": folder} if has_fhir(folder) else {}
    from medtwin.dicom import has_dicom  # pydicom takes a while to load

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
        if self.source.server.url is not None:
            from medtwin.pipelines.ingest_server import fetch  # httpx takes a while to load

            self.source = replace(self.source, fhir=fetch(self.source.server, output), server=ServerSource())
        self.ledger = Ledger()
        if self.source.dicomweb is not None:
            from medtwin.pipelines.ingest_dicomweb import fetch as fetch_scans  # so does requests

            scans = fetch_scans(self.source.dicomweb, output, self.ledger)
            self.source = replace(self.source, dicom=scans, dicomweb=None)
        self.images: list[ImageRow] = []
        self.identities: dict[str, int] = {}
        self.aliases: dict[str, str] = {}
        self.records: FhirRecords | None = None
        self.has_unmarked_patients = False
        scratch = output.scratch("spill")
        shutil.rmtree(scratch)
        records = [path for path in (self.source.fhir, self.source.meds, self.source.omop) if path is not None]
        self.num_buckets = num_buckets(sum(map(size_of, records)))
        self.spill = EventSpill(scratch, self.num_buckets)

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
        stated = {_stated_origin(path) for role, path in self.source.parts().items() if role not in ("labels", "vocab")}
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
            self._read_omop()
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
        inputs = [describe_input(role, part) for role, part in self.chosen.source.parts().items()]
        if self.chosen.source.server.url is not None:
            from medtwin.pipelines.ingest_server import describe_server

            inputs.append(describe_server(self.chosen.source.server))
        if self.chosen.source.dicomweb is not None:
            from medtwin.pipelines.ingest_dicomweb import describe_server as describe_pacs

            inputs.append(describe_pacs(self.chosen.source.dicomweb))
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
        source = FhirSource(self.source.fhir, Limits(self.source.max_resource_mb))
        records = read_fhir(
            source,
            self.pseudonyms,
            self.output.scratch("fhir"),
            num_buckets=self.num_buckets,
            workers=self.chosen.workers,
        )
        self.ledger.add(records.ledger)
        index = records.index
        self.identities.update(index.subject_ids(self.pseudonyms))
        self.aliases = index.aliases
        self.has_unmarked_patients = index.origin == "real"
        if index.actors:
            write_table(self.output.path / "metadata" / "actors.parquet", actors_table(index.actors, self.pseudonyms))
        for files in records.spilled:
            self.spill.adopt(files)
        self.records = records

    def _read_omop(self) -> None:
        if self.source.omop is None:
            return
        from medtwin.pipelines.ingest_omop import omop_reader  # DuckDB takes a while to load

        reader = omop_reader(self.source.omop, self.pseudonyms, self.ledger, self.source.vocab)
        for table in progress(reader.tables(), "reading OMOP", unit="batch"):
            self.spill.add(table)
        self.identities.update(reader.persons.identities)

    def _read_meds(self, dataset: Dataset) -> None:
        total, limit = len(dataset.shards()), self.source.max_subjects
        subjects = None if limit is None else chosen_subjects(dataset, limit, self.chosen.seed)
        tables = read_meds(dataset, self.ledger, subjects)
        for _, table in progress(tables, "reading MEDS", unit="batch", total=total):
            self.spill.add(table)

    def _read_images(self) -> None:
        if self.source.dicom is None and self.source.images is None:
            return
        # Not before it is needed: pydicom takes a while to load.
        from medtwin.pipelines.ingest_images import ImageReader

        reader = ImageReader(
            self.output, self.ledger, self.spill, self.pseudonyms, self.identities, self.aliases, self.images
        )
        if self.source.dicom is not None:
            for table in self.records.tables() if self.records is not None else ():
                reader.note(decode_events(table))
            reader.read_dicom(self.source.dicom, self.source.colour, self.chosen.dicom_label)
        if self.source.images is not None:
            reader.read_labelled(self.source.images, self.source.labels, self.chosen.labels, self.origin)


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
