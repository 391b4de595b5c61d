"""Bundles and NDJSON files of resources, shard by shard, and the Device and Provenance that say what made them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from medtwin.core.collector import without_cycles
from medtwin.core.events import with_all_columns
from medtwin.core.images import ImageRow
from medtwin.fhir.write import SubjectExport, table_to_resources
from medtwin.fhir.writing.context import ExportContext, stable_id
from medtwin.fhir.writing.rows import Resource
from medtwin.fhir.writing.us_core import finish_shared

# RFC 2606 keeps this name from ever being an address; relative references in a bundle need some base.
BASE_URL = "https://medtwin.invalid/fhir"
Form = Literal["ndjson", "collection", "transaction"]
_DEVICE_TYPE = {"system": "urn:medtwin:device", "code": "software"}
# Targets of one Provenance: 60 kB of them, where servers take 4 MB in a request.
_MAX_TARGETS = 1_000
_PART = ".part"
# Rows of a piece: enough that reading the file once more for each costs little, few enough to share the work.
_PIECE_ROWS = 200_000


def provenance_resources(context: ExportContext, targets: Iterable[str]) -> list[Resource]:
    """The Device of an export, and its Provenance: one for every thousand targets, so that no resource is too large.

    Args:
        context: The export.
        targets: What was made, as references such as `Patient/subject-7`; at least one.

    Raises:
        ValueError: If there is no target.
    """
    references = [{"reference": target} for target in targets]
    if not references:
        raise ValueError("targets must name at least one resource, got none")
    device: Resource = {
        "resourceType": "Device",
        "id": stable_id(f"device|{context.version}"),
        "meta": context.meta(),
        "deviceName": [{"name": "medtwin", "type": "model-name"}],
        "type": {"coding": [_DEVICE_TYPE]},
        "version": [{"value": context.version}],
    }
    parts = [references[start : start + _MAX_TARGETS] for start in range(0, len(references), _MAX_TARGETS)]
    provenances = [_provenance(context, device, part, number) for number, part in enumerate(parts)]
    return [finish_shared(context, each) for each in (device, *provenances)]


def _provenance(context: ExportContext, device: Resource, targets: list[Resource], number: int) -> Resource:
    activity = "transmit" if context.origin == "real" else "originate"
    part = f"|{number}" if number else ""
    return {
        "resourceType": "Provenance",
        "id": stable_id(f"provenance|{context.run}|{context.recorded.isoformat()}{part}"),
        "meta": context.meta(),
        "target": targets,
        "recorded": context.recorded.isoformat(timespec="seconds"),
        "activity": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "code": activity}]
        },
        "agent": [{"who": {"reference": f"Device/{device['id']}"}}],
        "entity": [{"role": "source", "what": {"identifier": {"system": "urn:ietf:rfc:3986", "value": context.run}}}],
    }


def resources_to_bundle(resources: Iterable[Resource], kind: Literal["collection", "transaction"]) -> Resource:
    """One bundle of resources; a transaction PUTs each by its id, so that sending it twice changes nothing."""
    entries = []
    for resource in resources:
        url = f"{resource['resourceType']}/{resource['id']}"
        entry: Resource = {"fullUrl": f"{BASE_URL}/{url}", "resource": resource}
        if kind == "transaction":
            entry["request"] = {"method": "PUT", "url": url}
        entries.append(entry)
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def write_ndjson(folder: Path, resources: Iterable[Resource], *, ending: str = "") -> Counter[str]:
    """Writes one file `<type>.ndjson` per resource type, streaming.

    Args:
        folder: Where they go; made if it does not exist.
        resources: In the order in which they stand in their files.
        ending: What follows `.ndjson`.

    Returns:
        How many resources of each type were written.

    Raises:
        FileExistsError: If a file is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    files: dict[str, IO[bytes]] = {}
    with ExitStack() as stack:
        for resource in resources:
            kind = resource["resourceType"]
            if kind not in files:
                files[kind] = stack.enter_context((folder / f"{kind}.ndjson{ending}").open("xb"))
            files[kind].write(_dumps(resource))
            counts[kind] += 1
    return counts


def write_bundles(
    folder: Path, subjects: Iterable[list[Resource]], kind: Literal["collection", "transaction"]
) -> Iterator[Path]:
    """Writes one bundle per subject, named after its Patient, and yields each file when it is written.

    Args:
        folder: Where they go; made if it does not exist.
        subjects: The resources of each subject, the Patient first.
        kind: Of the bundles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for resources in subjects:
        path = folder / f"{resources[0]['id']}.json"
        with path.open("xb") as file:
            file.write(_dumps(resources_to_bundle(resources, kind)))
        yield path


def _dumps(resource: Any) -> bytes:
    return orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True)
class Piece:
    """Whole subjects of an event file: the rows from `start` until before `stop`."""

    path: Path
    start: int
    stop: int

    def table(self) -> pa.Table:
        """Its rows, with every column of `EVENT_SCHEMA`."""
        table = pq.read_table(self.path, partitioning=None)
        return with_all_columns(table.slice(self.start, self.stop - self.start))


def split_shard(path: Path, num_rows: int = _PIECE_ROWS) -> list[Piece]:
    """An event file in pieces of whole subjects, each of at least so many rows but the last; none for an empty file."""
    subject = pq.read_table(path, columns=["subject_id"], partitioning=None)["subject_id"].to_numpy()
    cuts = [*(np.flatnonzero(np.diff(subject)) + 1).tolist(), len(subject)]
    pieces: list[Piece] = []
    start = 0
    for stop in cuts:
        if stop - start >= num_rows or (stop == len(subject) and stop > start):
            pieces.append(Piece(path, start, stop))
            start = stop
    return pieces


@dataclass(frozen=True)
class Shard:
    """A piece of a dataset to be written as FHIR, for `medtwin.core.shards.map_shards`.

    Attributes:
        number: Its place among the pieces.
        piece: Its rows.
        folder: Where the files of all shards go.
        context: The export.
        images: The series of its subjects.
        form: NDJSON: a part of `<type>.ndjson`, which `join_parts` joins; else a bundle per subject.
        check: Looks at the resources of each subject and counts what it finds; a function of an importable module.
    """

    number: int
    piece: Piece
    folder: Path
    context: ExportContext
    images: tuple[ImageRow, ...] = ()
    form: Form = "ndjson"
    check: Callable[[list[Resource]], Mapping[str, int]] | None = None


@dataclass
class Written:
    """What became of one shard, or of several.

    Attributes:
        written: Resources by type.
        declared: Of those, how many declare a profile.
        not_carried: What of the rows FHIR could not hold.
        flags: What else is worth knowing, such as `ingredient-level RxNorm`.
        found: What the checks counted.
        patients: The ids of the Patients, in their order.
        actors: Who and where is referred to, as `Type/<actor_id>`.
    """

    written: Counter[str] = field(default_factory=Counter)
    declared: Counter[str] = field(default_factory=Counter)
    not_carried: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    patients: list[str] = field(default_factory=list)
    actors: set[str] = field(default_factory=set)

    def add(self, other: Written) -> None:
        """Adds what became of the next shard."""
        for name in ("written", "declared", "not_carried", "flags", "found"):
            getattr(self, name).update(getattr(other, name))
        self.patients += other.patients
        self.actors |= other.actors

    def take(self, subject: SubjectExport) -> None:
        """Adds what became of one subject."""
        self.declared.update(subject.declared)
        self.not_carried.update(subject.not_carried)
        self.flags.update(subject.flags)
        self.patients.append(subject.resources[0]["id"])
        self.actors |= subject.actors


def write_shard(shard: Shard) -> Written:
    """Writes the resources of one shard. Nothing that it writes depends on other shards or on the worker.

    Raises:
        FileExistsError: If one of its files is there already.
    """
    done = Written()
    with without_cycles():
        subjects = _subjects(shard, done)
        if shard.form == "ndjson":
            lines = (resource for resources in subjects for resource in resources)
            done.written = write_ndjson(shard.folder, lines, ending=f".{shard.number:06d}{_PART}")
        else:
            for _ in write_bundles(shard.folder, _counted(subjects, done.written), shard.form):
                pass
    return done


def _subjects(shard: Shard, done: Written) -> Iterator[list[Resource]]:
    images: dict[int, list[ImageRow]] = {}
    for row in shard.images:
        images.setdefault(row.subject_id, []).append(row)
    for subject in table_to_resources(shard.piece.table(), context=shard.context, images=images):
        done.take(subject)
        if shard.check is not None:
            done.found.update(shard.check(subject.resources))
        yield subject.resources


def _counted(subjects: Iterable[list[Resource]], counts: Counter[str]) -> Iterator[list[Resource]]:
    for resources in subjects:
        counts.update(resource["resourceType"] for resource in resources)
        yield resources


def join_parts(folder: Path) -> list[Path]:
    """Joins the parts of all shards, in the order of their numbers, to one `<type>.ndjson` per type; returns those.

    Raises:
        FileExistsError: If such a file is there already.
    """
    parts: dict[str, list[Path]] = {}
    for part in sorted(folder.glob(f"*.ndjson.*{_PART}")):
        parts.setdefault(part.name.partition(".ndjson.")[0], []).append(part)
    joined = []
    for kind, files in sorted(parts.items()):
        target = folder / f"{kind}.ndjson"
        if target.exists():
            raise FileExistsError(f"{target} is there already")
        with files[0].open("ab") as out:
            for part in files[1:]:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, out, 1 << 20)
                part.unlink()
        files[0].rename(target)
        joined.append(target)
    return joined
