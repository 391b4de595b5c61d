"""The scans that the records of twins call for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from medtwin import __version__
from medtwin.core.codes import BIRTH
from medtwin.core.events import Event, events_to_table
from medtwin.core.images import ImageRow, accession_number, image_path
from medtwin.core.output import Output
from medtwin.dicom import Patient, ProjectionImage, Study, Volume, projection_to_dataset, write_series, write_volume
from medtwin.dicom.write import can_be_dx
from medtwin.pipelines.generate_blocks import read_block, records_of
from medtwin.pipelines.generate_settings import GenerateSettings
from medtwin.pipelines.say import progress
from medtwin.twins.rules import ScanCall
from medtwin.twins.studies import Drawn, scan_uids

if TYPE_CHECKING:
    from medtwin.scans.conditions import ScanRequest
    from medtwin.scans.generate import GeneratedScan, ScanModel

_OF_ONE_IMAGE, _OF_SLICES = ("CR", "DX"), ("CT", "MR")


class Scans:
    """Draws and writes the scans of a run of the verb.

    Args:
        chosen: The settings.
        output: Where they are written.
        name: Of the generation; UIDs follow from it.

    Attributes:
        images: Rows of the image table of what `draw` wrote.
    """

    def __init__(self, chosen: GenerateSettings, output: Output, name: str) -> None:
        self.chosen, self.output, self.name = chosen, output, name
        self.images: list[ImageRow] = []

    def draw(self, blocks: Sequence[Path], calls: Mapping[int, Sequence[ScanCall]]) -> dict[int, list[Drawn]]:
        """Draws every scan that was called for and that the model has learned, and writes it."""
        from medtwin.pipelines.runs import load_run
        from medtwin.scans.drawing import Sampling, ScanLaw
        from medtwin.scans.generate import ScanModel

        if self.chosen.scans is None:
            return {}
        module, _ = load_run(self.chosen.scans)
        sampling = Sampling(sampler=self.chosen.sampling.sampler)
        model = ScanModel.load(cast("ScanLaw", module), self.chosen.scans, sampling)
        people: dict[int, Person] = {}
        wanted: list[tuple[Drawn, ScanRequest]] = []
        for block in blocks:
            for requests in self._requests(block, calls, model, people).values():
                wanted += requests
        waiting = [pair for pair in wanted if not (self.output.path / _path(pair[0])).is_dir()]
        numbers = self.chosen.sampling
        images = model.sample(
            [request for _, request in waiting],
            seed=self.chosen.seed,
            num_steps=numbers.num_steps,
            guidance=numbers.guidance,
            tile=numbers.tile,
            batch_size=numbers.batch_size,
        )
        for (drawn, _), image in zip(waiting, progress(images, "scans", total=len(waiting), unit="scan"), strict=True):
            self._write_scan(drawn, image, people[drawn.call.subject_id])
        found: dict[int, list[Drawn]] = {}
        for drawn, _ in wanted:
            row = self._image_row(drawn, people[drawn.call.subject_id])
            self.images.append(row)
            written = replace(drawn, written_modality=row.modality, num_images=row.num_slices)
            found.setdefault(drawn.call.subject_id, []).append(written)
        return found

    def _requests(
        self, block: Path, calls: Mapping[int, Sequence[ScanCall]], model: ScanModel, people: dict[int, Person]
    ) -> dict[int, list[tuple[Drawn, ScanRequest]]]:
        from medtwin.pipelines.latents import load_timelines
        from medtwin.scans.conditions import ScanRequest
        from medtwin.timelines.priors.latents import latents_at

        modalities = _OF_ONE_IMAGE if model.description.voxel_ratio is None else _OF_SLICES
        has_latents = model.description.conditions.latent_width > 0
        module, spec = load_timelines(self.chosen.timelines) if has_latents else (None, None)
        found: dict[int, list[tuple[Drawn, ScanRequest]]] = {}
        for events in records_of(read_block(block)):
            subject = events[0].subject_id
            here = calls[subject]
            people[subject] = person = person_of(events)
            latents: list[Any] = [None] * len(here)
            if module is not None and spec is not None and here:
                moments = {subject: [_minute(call.time) for call in here]}
                latents = latents_at(module.average, spec, events_to_table(_sorted(events)), moments)[subject]
            for number, (call, latent) in enumerate(zip(here, latents, strict=True)):
                study, series = scan_uids(self.name, call, number)
                request = ScanRequest(
                    key=str(series),
                    modality=call.modality,
                    body_part=call.body_part,
                    view=call.view,
                    sex=person.sex,
                    age_years=person.age_at(call.time),
                    labels=call.labels,
                    latent=latent,
                )
                if call.modality in modalities and model.can_make(request):
                    found.setdefault(subject, []).append((Drawn(call, str(study), str(series)), request))
        return found

    def _write_scan(self, drawn: Drawn, scan: GeneratedScan, person: Person) -> None:
        """Writes a scan whole or not at all."""
        call = drawn.call
        study = Study(
            drawn.study_uid,
            drawn.series_uid,
            "synthetic",
            person.study_time(call),
            model="medtwin scan_diffusion",
            body_part=call.body_part,
            description=f"{(call.body_part or 'image').lower()} {call.view or call.modality}",
            accession_number=accession_number(drawn.study_uid),
            software_version=__version__,
        )
        birth = person.birth.date() if person.birth is not None else None
        patient = Patient(str(call.subject_id), sex=person.sex, birth_date=birth, age_years=person.age_at(call.time))
        part = self.output.scratch("series") / drawn.series_uid
        shutil.rmtree(part, ignore_errors=True)
        if scan.pixels.ndim == 3:
            write_volume(part, volume_of(scan), patient, study)
        else:
            write_series(part, [projection_to_dataset(_projection_of(scan, call), patient, study)])
        final = self.output.path / _path(drawn)
        final.parent.mkdir(parents=True, exist_ok=True)
        part.rename(final)

    def _image_row(self, drawn: Drawn, person: Person) -> ImageRow:
        from medtwin.dicom import open_series

        call = drawn.call
        series = open_series(self.output.path / _path(drawn))
        shape, pixel = series.geometry, series.instances[0].pixel
        return ImageRow(
            subject_id=call.subject_id,
            time=call.time,
            modality=series.header.modality,
            body_part=call.body_part,
            view=call.view,
            rows=shape.rows,
            columns=shape.columns,
            num_slices=shape.num_slices,
            pixel_spacing_row_mm=shape.pixel_spacing_row_mm,
            pixel_spacing_column_mm=shape.pixel_spacing_column_mm,
            spacing_source=shape.spacing_source,
            slice_spacing_mm=shape.slice_spacing_mm,
            slice_thickness_mm=series.header.slice_thickness_mm,
            intensity_unit=series.header.intensity_unit,
            photometric="MONOCHROME2",
            bits_stored=pixel.bits_stored,
            sex=person.sex,
            age_years=person.age_at(call.time),
            labels=None if call.labels is None else list(call.labels),
            study_uid=drawn.study_uid,
            series_uid=drawn.series_uid,
            path=_path(drawn),
        )


def volume_of(scan: GeneratedScan) -> Volume:
    """A drawn volume as it is written: axial, its middle at the origin of its frame of reference.

    Slices run from the feet to the head, rows to the back, columns to the patient's left: so they were learned.

    Raises:
        ValueError: If the distances of its voxels are unknown: they are not made up.
    """
    if scan.spacing_mm is None or scan.slice_spacing_mm is None:
        raise ValueError(f"scan {scan.key}: a volume must have a spacing of rows, columns and slices")
    spacing = (scan.slice_spacing_mm, *scan.spacing_mm)
    z, y, x = (-(number - 1) / 2 * mm for number, mm in zip(scan.pixels.shape, spacing, strict=True))
    modality: Literal["CT", "MR"] = "CT" if scan.modality == "CT" else "MR"
    return Volume(
        scan.pixels, modality, scan.spacing_mm, scan.slice_spacing_mm, origin_mm=(x, y, z), bits_stored=scan.bits_stored
    )


def _projection_of(scan: GeneratedScan, call: ScanCall) -> ProjectionImage:
    pixels = scan.pixels.astype("uint8") if scan.bits_stored <= 8 else scan.pixels
    image = ProjectionImage(pixels, scan.bits_stored, call.view, scan.spacing_mm)
    return replace(image, modality="DX") if call.modality == "DX" and can_be_dx(image, call.body_part) else image


@dataclass(frozen=True)
class Person:
    """Sex (M, F, O) and birth of a twin, where its record says them, and how precisely it dates its events, by id."""

    sex: str | None
    birth: datetime | None
    precisions: Mapping[str, str] = field(default_factory=dict)

    def study_time(self, call: ScanCall) -> datetime | None:
        """When a study took place, as FHIR says it: an instant (UTC), a day (naive), or None: no date of DICOM."""
        precision = self.precisions.get(call.study_id or "", "second")
        if call.time is None or precision.startswith(("year", "month")):
            return None
        if precision.startswith("day"):
            return datetime(call.time.year, call.time.month, call.time.day)
        return call.time.replace(tzinfo=UTC)

    def age_at(self, time: datetime | None) -> float | None:
        """Years, 0 to 90; None if unknown."""
        if time is None or self.birth is None:
            return None
        return min(max((time - self.birth).days / 365.25, 0.0), 90.0)


def person_of(events: Sequence[Event]) -> Person:
    """Sex, birth and precisions of a twin, by its rows."""
    codes = {event.code for event in events if event.time is None}
    sex = next((letter for letter in ("M", "F", "O") if f"GENDER//{letter}" in codes), None)
    birth = next((event.time for event in events if event.code == BIRTH), None)
    precisions = {
        event.event_id: event.time_precision
        for event in events
        if event.resource == "ImagingStudy" and event.event_id and event.time_precision
    }
    return Person(sex, birth, precisions)


def _sorted(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.time is not None, event.time or datetime(1, 1, 1)))


def _minute(time: datetime | None) -> int | None:
    return None if time is None else int((time - datetime(1970, 1, 1)).total_seconds() // 60)


def _path(drawn: Drawn) -> str:
    return image_path(drawn.call.subject_id, drawn.series_uid)
