"""`medtwin hospital`: a small source hospital, as FHIR R4 NDJSON and DICOM studies, with its laws as truth.json."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medtwin import __version__
from medtwin.config import settings
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.files import read_json, write_json, write_table
from medtwin.core.images import ImageRow, accession_number
from medtwin.core.output import Output, writing
from medtwin.core.provenance import Provenance, write_provenance
from medtwin.core.shards import map_shards
from medtwin.dicom import (
    Patient,
    ProjectionImage,
    Study,
    Volume,
    projection_to_dataset,
    write_series,
    write_volume,
)
from medtwin.fhir import ExportContext, events_to_resources, provenance_resources, write_ndjson
from medtwin.hospital import (
    LAWS,
    ImageOrder,
    SubjectRecord,
    draw_picture,
    kept_indices,
    parse_keep,
    simulate_subject,
)
from medtwin.hospital.chest_ct import CtSeries
from medtwin.hospital.ground_truth import subject_truth, truth
from medtwin.hospital.imaging import NUM_IMAGES
from medtwin.pipelines.hospital_report import write_hospital_report
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import public_config

SUBJECTS_PER_SHARD = 20
PICTURE_SIZE = 256


@dataclass(frozen=True)
class HospitalSettings:
    """The settings of configs/hospital.yaml."""

    out: Path
    n: int = 500
    seed: int = 0
    keep: str | None = None
    images: bool = True
    workers: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("n", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.keep is not None:
            parse_keep(self.keep)


@dataclass(frozen=True)
class Shard:
    """Some subjects to make, and the folder to make them in."""

    folder: Path
    indices: tuple[int, ...]
    seed: int
    images: bool


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    make_hospital(settings(HospitalSettings, config))


def make_hospital(chosen: HospitalSettings) -> Path:
    """Makes the hospital, or says that it is there; returns where it is."""
    config = public_config(chosen)
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        indices = _kept(chosen, output)
        folder = output.scratch("shards")
        shards = [
            Shard(folder / f"{number:05d}", indices[start : start + SUBJECTS_PER_SHARD], chosen.seed, chosen.images)
            for number, start in enumerate(range(0, len(indices), SUBJECTS_PER_SHARD))
        ]
        done = map_shards(make_shard, shards, num_workers=chosen.workers)
        for _ in progress(done, "hospital", total=len(shards), unit="shard"):
            pass
        _assemble(output, shards)
        write_json(output.path / "truth.json", truth())
        write_hospital_report(output.path, is_selected=chosen.keep is not None)
        write_provenance(output.path, Provenance("hospital", "simulated", config, chosen.seed))
    tell_hospital(chosen.out)
    return chosen.out


def _kept(chosen: HospitalSettings, output: Output) -> tuple[int, ...]:
    """The numbers of the first n subjects that `keep` accepts."""
    if chosen.keep is None:
        return tuple(range(chosen.n))
    if output.is_done("keep"):
        return tuple(output.result("keep")["indices"])
    candidates = kept_indices(chosen.n, chosen.seed, chosen.keep)
    found = tuple(progress(candidates, "choosing", total=chosen.n, unit="patient"))
    output.mark_done("keep", {"indices": list(found)})
    return found


def make_shard(shard: Shard) -> Path:
    """Writes the FHIR and DICOM files of some subjects; a shard that a killed run completed is left alone."""
    if shard.folder.is_dir():
        return shard.folder
    part = shard.folder.with_suffix(".partial")
    shutil.rmtree(part, ignore_errors=True)
    records = [simulate_subject(shard.seed, index) for index in shard.indices]
    counts = write_ndjson(part / "fhir", (each for record in records for each in _resources(record)))
    for record in records if shard.images else ():
        for order in record.image_orders:
            counts["DICOM files"] += _write_picture(part / "dicom", order, shard.seed, record)
    rows = [subject_truth(record) for record in records]
    write_json(part / "counts.json", counts)
    kinds = {int: pa.int64(), str: pa.string()}
    schema = pa.schema([(name, kinds.get(type(value), pa.float64())) for name, value in rows[0].items()])
    write_table(part / "subjects.parquet", pa.Table.from_pylist(rows, schema=schema))
    part.rename(shard.folder)
    return shard.folder


def _context() -> ExportContext:
    """How the hospital's FHIR is marked: simulated, recorded at the end of its time: a seed gives the same bytes."""
    recorded = LAWS.record.window_end.replace(tzinfo=UTC)
    return ExportContext("simulated", "urn:medtwin:hospital", recorded, __version__)


def _resources(record: SubjectRecord) -> list[dict[str, Any]]:
    written = events_to_resources(record.events, context=_context(), images=_image_rows(record))
    if written.not_carried:
        raise DatasetError(f"a fault of medtwin: rows of the hospital do not fit FHIR: {written.not_carried}")
    return written.resources


def _image_rows(record: SubjectRecord) -> list[ImageRow]:
    """What the ImagingStudy resources say of the series; their files are written by `_write_picture`."""
    return [
        ImageRow(
            subject_id=order.subject_id,
            time=order.time,
            modality=order.modality,
            body_part="CHEST",
            view=order.view,
            rows=PICTURE_SIZE,
            columns=PICTURE_SIZE,
            num_slices=NUM_IMAGES[order.modality],
            pixel_spacing_row_mm=None,
            pixel_spacing_column_mm=None,
            spacing_source=None,
            slice_spacing_mm=None,
            slice_thickness_mm=None,
            intensity_unit=None,
            photometric=None,
            bits_stored=None,
            sex=order.sex,
            age_years=order.age_years,
            labels=list(order.labels),
            study_uid=order.study_uid,
            series_uid=order.series_uid,
            path="",
        )
        for order in record.image_orders
    ]


def _write_picture(folder: Path, order: ImageOrder, seed: int, record: SubjectRecord) -> int:
    """Draws the picture of an order and writes its DICOM files; returns how many."""
    patient = Patient(
        str(order.subject_id),
        sex=order.sex,
        birth_date=record.life.person.birth.date(),
        age_years=order.age_years,
    )
    study = Study(
        order.study_uid,
        order.series_uid,
        "simulated",
        order.time.replace(tzinfo=UTC),
        model="medtwin-hospital",
        body_part="CHEST",
        description=f"chest {order.view or order.modality}",
        accession_number=accession_number(order.study_uid),
        software_version=__version__,
    )
    picture = draw_picture(order, seed)
    target = folder / str(order.subject_id) / order.study_uid / order.series_uid
    if isinstance(picture, CtSeries):
        heights = [position[2] for position in picture.slice_positions_mm]
        volume = Volume(
            picture.voxels,
            "CT",
            picture.pixel_spacing_mm,
            slice_spacing_mm=heights[1] - heights[0],
            slice_thickness_mm=picture.slice_thickness_mm,
            origin_mm=picture.slice_positions_mm[0],
        )
        return len(write_volume(target, volume, patient, study))
    image = ProjectionImage(picture.pixels, picture.bits_stored, picture.view, picture.imager_pixel_spacing_mm)
    return len(write_series(target, [projection_to_dataset(image, patient, study)]))


def _assemble(output: Output, shards: list[Shard]) -> None:
    """Joins the shards, in their order, into fhir/, dicom/ and subjects.parquet."""
    for name in ("fhir", "dicom"):
        shutil.rmtree(output.path / name, ignore_errors=True)
    (output.path / "fhir").mkdir()
    counts: Counter[str] = Counter()
    tables = []
    for shard in shards:
        counts.update(read_json(shard.folder / "counts.json"))
        tables.append(pq.ParquetFile(shard.folder / "subjects.parquet").read())
        for source in sorted((shard.folder / "fhir").glob("*.ndjson")):
            with source.open("rb") as reader, (output.path / "fhir" / source.name).open("ab") as writer:
                shutil.copyfileobj(reader, writer)
        for patient in sorted((shard.folder / "dicom").glob("*")):
            shutil.copytree(patient, output.path / "dicom" / patient.name, copy_function=os.link)
    lines = (output.path / "fhir" / "Patient.ndjson").read_text(encoding="utf-8").splitlines()
    patients = [json.loads(line)["id"] for line in lines]
    made = provenance_resources(_context(), [f"Patient/{patient}" for patient in patients])
    counts.update(write_ndjson(output.path / "fhir", made))
    write_table(output.path / "subjects.parquet", pa.concat_tables(tables))
    write_json(output.path / "counts.json", counts)


def tell_hospital(out: Path) -> None:
    """Prints what a hospital holds."""
    counts = read_json(out / "counts.json")
    tell_counts(f"{out}:", [{"what": name, "made": number} for name, number in sorted(counts.items())])
