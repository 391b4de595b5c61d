"""`medtwin generate`: trained runs -> synthetic twins: timelines, then the scans that those timelines call for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from medtwin import __version__
from medtwin.config import settings
from medtwin.core.codes import BIRTH
from medtwin.core.dataset_writer import EventSpill, SplitRule, num_buckets, write_dataset_metadata, write_events
from medtwin.core.errors import ConfigError
from medtwin.core.events import Event, events_to_table, table_to_events
from medtwin.core.files import atomic_file, file_digest, read_json, write_json, write_table
from medtwin.core.images import ImageRow, accession_number, image_path, images_to_table
from medtwin.core.output import Output, is_finished, writing
from medtwin.core.provenance import PROVENANCE, Provenance, describe_input, write_provenance
from medtwin.dicom import Patient, ProjectionImage, Study, projection_to_dataset, write_series
from medtwin.dicom.write import can_be_dx
from medtwin.pipelines.runs import MODEL
from medtwin.pipelines.say import progress, tell, tell_counts
from medtwin.pipelines.sources import public_config, require_outside
from medtwin.twins.rules import ScanCall, ScanRules, scan_calls
from medtwin.twins.studies import Drawn, counts_by_modality, scan_uids, with_studies

if TYPE_CHECKING:
    from medtwin.scans.conditions import ScanRequest
    from medtwin.scans.generate import GeneratedScan, ScanModel
    from medtwin.timelines.spec import TimelineSpec

_WRITTEN = ("CR", "DX")  # modalities of one image, which this form writes


@dataclass(frozen=True)
class MaskSettings:
    """The `masks` group."""

    sex_specific: Mapping[str, Any]


@dataclass(frozen=True)
class PlanSettings:
    """The `plan` group: whom to make. Null leaves an attribute to the training subjects' distribution."""

    sex: str | None = None
    age: tuple[float, ...] | None = None
    conditions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.age is not None and (len(self.age) != 2 or self.age[0] >= self.age[1]):
            raise ConfigError(f"plan.age must be [youngest, oldest], got {list(self.age)}")

    def wanted(self) -> dict[str, Any]:
        """What is asked for."""
        asked = {"sex": self.sex, "age": self.age, "conditions": self.conditions}
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class SamplingSettings:
    """The `sampling` group: how scans are drawn."""

    num_steps: int = 20
    guidance: float = 4.0
    tile: int = 16
    batch_size: int = 64


@dataclass(frozen=True)
class GenerateSettings:
    """The settings of configs/generate.yaml."""

    timelines: Path
    out: Path
    scan_rules: ScanRules
    masks: MaskSettings
    scans: Path | None = None
    n: int = 200
    seed: int = 0
    plan: PlanSettings = field(default_factory=PlanSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n must be 1 or more, got {self.n}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    generate(settings(GenerateSettings, config))


def generate(chosen: GenerateSettings) -> Path:
    """Makes the twins, or says that they are there; returns where they are."""
    runs = {"timelines": chosen.timelines, **({"scans": chosen.scans} if chosen.scans is not None else {})}
    for role, run in runs.items():
        _require_run(role, run)
        require_outside(chosen.out, run)
    config = {**public_config(chosen), "runs_state": {role: _state(run) for role, run in runs.items()}}
    # How many images are drawn before any is handed out changes nothing of them.
    config["sampling"] = {name: value for name, value in config["sampling"].items() if name != "batch_size"}
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        _Generation(chosen, config, output, runs).run()
    _tell_result(chosen.out)
    return chosen.out


_MODELS = {
    "timelines": ("medtwin.timelines.module.TemporalVAEModule", "a temporal VAE (model=temporal_vae)"),
    "scans": ("medtwin.scans.module.ScanDiffusionModule", "a diffusion model (model=scan_diffusion)"),
}


def _state(run: Path) -> str:
    """What a run has learned: its weights and what it knows of the data, not its logs, which tell how long it took."""
    learned = [run / MODEL, *sorted(path for path in (run / "data").rglob("*") if path.is_file())]
    return blake2b("".join(file_digest(path) for path in learned).encode(), digest_size=32).hexdigest()


def _require_run(role: str, run: Path) -> None:
    """Refuses what is no finished run of the model that the role needs, before anything is written."""
    target, what = _MODELS[role]
    if not is_finished(run):
        raise ConfigError(f"{role}={run} must be a finished run of `medtwin train`")
    model = read_json(run / PROVENANCE).get("config", {}).get("model", {})
    if model.get("_target_") != target:
        raise ConfigError(f"{role}={run} must be the run of {what}")


class _Generation:
    """One run of the verb."""

    def __init__(
        self, chosen: GenerateSettings, config: Mapping[str, Any], output: Output, runs: Mapping[str, Path]
    ) -> None:
        self.chosen, self.config, self.output, self.runs = chosen, config, output, runs
        self.name = "/".join([*config["runs_state"].values(), str(chosen.seed)])
        self.images: list[ImageRow] = []

    def run(self) -> None:
        """Timelines, then scans, then the directory."""
        spec, blocks = self._timelines()
        calls = {subject: calls for block in blocks for subject, calls in self._calls(block, spec).items()}
        drawn = self._scans(blocks, calls) if self.chosen.scans is not None else {}
        spill = EventSpill(self._fresh("spill"), num_buckets(sum(block.stat().st_size for block in blocks)))
        for block in blocks:
            for events in _records(block):
                spill.add(events_to_table(with_studies(events, drawn.get(events[0].subject_id, []))))
        rule = SplitRule(self.chosen.seed)
        written = write_events(self.output.path, spill.close(), split_of=rule, descriptions=spec.descriptions)
        if self.images:
            write_table(self.output.path / "images.parquet", images_to_table(self.images))
        made = [each.call for scans in drawn.values() for each in scans]
        self._write_metadata(
            spec, calls, made, {"events": written.num_events, "rows": written.num_rows, **written.flags}
        )

    def _fresh(self, name: str) -> Path:
        folder = self.output.scratch(name)
        shutil.rmtree(folder)
        return folder

    def _timelines(self) -> tuple[TimelineSpec, list[Path]]:
        """The spec, and the files of events, one per tile of twins; those of a killed run are kept."""
        from medtwin.pipelines.latents import load_timelines
        from medtwin.timelines.generate import TILE, MaskedMass, TimelineModel, generate_timelines
        from medtwin.timelines.masks import build_masks
        from medtwin.timelines.records import timeline_to_events, twin_subject_id

        module, spec = load_timelines(self.chosen.timelines)
        model = TimelineModel(module.average, spec, build_masks(spec, self.chosen.masks.sex_specific))
        folder = self.output.scratch("timelines")
        run = self.config["runs_state"]["timelines"]
        starts = range(0, self.chosen.n, TILE)
        blocks = []
        for start in progress(starts, "timelines", unit="tile"):
            path = folder / f"{start:08d}.arrow"
            blocks.append(path)
            if path.is_file():
                continue
            mass = MaskedMass()
            tile = generate_timelines(
                model,
                first=start,
                num_subjects=min(TILE, self.chosen.n - start),
                seed=self.chosen.seed,
                mass=mass,
                wanted=self.chosen.plan.wanted(),
            )
            rows: list[Event] = []
            num_cut = 0
            for timeline in tile:
                num_cut += timeline.is_cut
                subject = twin_subject_id(run, self.chosen.seed, timeline.index)
                rows += timeline_to_events(timeline, spec, subject)
            write_json(
                path.with_suffix(".json"), {"masked": mass.total, "decisions": mass.num_decisions, "cut": num_cut}
            )
            with atomic_file(path) as file, pa.ipc.new_file(file, events_to_table([]).schema) as writer:
                writer.write_table(events_to_table(rows))
        return spec, blocks

    def _calls(self, block: Path, spec: TimelineSpec) -> dict[int, list[ScanCall]]:
        rules = self.chosen.scan_rules
        return {
            events[0].subject_id: scan_calls(events, rules, names_studies=spec.names_studies)
            for events in _records(block)
        }

    def _scans(self, blocks: Sequence[Path], calls: Mapping[int, Sequence[ScanCall]]) -> dict[int, list[Drawn]]:
        """Draws every scan that was called for and that the model has learned, and writes it."""
        from medtwin.pipelines.runs import load_run
        from medtwin.scans.generate import ScanModel
        from medtwin.scans.module import ScanDiffusionModule

        module, _ = load_run(self.runs["scans"])
        model = ScanModel.load(cast(ScanDiffusionModule, module), self.runs["scans"])
        people: dict[int, _Person] = {}
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
            written = replace(drawn, written_modality=row.modality)
            found.setdefault(drawn.call.subject_id, []).append(written)
        return found

    def _requests(
        self, block: Path, calls: Mapping[int, Sequence[ScanCall]], model: ScanModel, people: dict[int, _Person]
    ) -> dict[int, list[tuple[Drawn, ScanRequest]]]:
        from medtwin.pipelines.latents import load_timelines
        from medtwin.scans.conditions import ScanRequest
        from medtwin.timelines.latents import latents_at

        module, spec = load_timelines(self.chosen.timelines)
        has_latents = model.description.conditions.latent_width > 0
        found: dict[int, list[tuple[Drawn, ScanRequest]]] = {}
        for events in _records(block):
            subject = events[0].subject_id
            here = calls[subject]
            people[subject] = person = _person(events)
            latents: list[Any] = [None] * len(here)
            if has_latents and here:
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
                if call.modality in _WRITTEN and model.can_make(request):
                    found.setdefault(subject, []).append((Drawn(call, str(study), str(series)), request))
        return found

    def _write_scan(self, drawn: Drawn, scan: GeneratedScan, person: _Person) -> None:
        """Writes a scan whole or not at all."""
        call = drawn.call
        pixels = scan.pixels.astype("uint8") if scan.bits_stored <= 8 else scan.pixels
        image = ProjectionImage(pixels, scan.bits_stored, call.view, scan.spacing_mm)
        if call.modality == "DX" and can_be_dx(image, call.body_part):
            image = replace(image, modality="DX")
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
        write_series(part, [projection_to_dataset(image, patient, study)])
        final = self.output.path / _path(drawn)
        final.parent.mkdir(parents=True, exist_ok=True)
        part.rename(final)

    def _image_row(self, drawn: Drawn, person: _Person) -> ImageRow:
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
            num_slices=1,
            pixel_spacing_row_mm=shape.pixel_spacing_row_mm,
            pixel_spacing_column_mm=shape.pixel_spacing_column_mm,
            spacing_source=shape.spacing_source,
            slice_spacing_mm=None,
            slice_thickness_mm=None,
            intensity_unit=None,
            photometric="MONOCHROME2",
            bits_stored=pixel.bits_stored,
            sex=person.sex,
            age_years=person.age_at(call.time),
            labels=None if call.labels is None else list(call.labels),
            study_uid=drawn.study_uid,
            series_uid=drawn.series_uid,
            path=_path(drawn),
        )

    def _write_metadata(
        self,
        spec: TimelineSpec,
        calls: Mapping[int, Sequence[ScanCall]],
        made: Sequence[ScanCall],
        written: Mapping[str, int],
    ) -> None:
        path = self.output.path
        parts = [read_json(each) for each in sorted(self.output.scratch("timelines").glob("*.json"))]
        decisions = sum(part["decisions"] for part in parts)
        called = counts_by_modality([call for each in calls.values() for call in each])
        drawn = Counter(counts_by_modality(made))
        counts = {
            "twins": self.chosen.n,
            "twins with a scan": len({call.subject_id for call in made}),
            **{name: int(number) for name, number in written.items() if number},
            "scans called for": called,
            "scans made": dict(drawn),
            "scans not made": {kind: count - drawn[kind] for kind, count in called.items() if count > drawn[kind]},
            "records cut at the context": sum(part["cut"] for part in parts),
            "share of probability masked": sum(part["masked"] for part in parts) / max(decisions, 1),
        }
        write_json(path / "counts.json", counts)
        write_dataset_metadata(path, self.chosen.out.name, "synthetic")
        inputs = [describe_input(role, run) for role, run in self.runs.items()]
        depth = 1 + max(part.lineage_depth for part in inputs)
        write_provenance(path, Provenance("generate", "synthetic", self.config, self.chosen.seed, inputs, depth))


@dataclass(frozen=True)
class _Person:
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


def _person(events: Sequence[Event]) -> _Person:
    codes = {event.code for event in events if event.time is None}
    sex = next((letter for letter in ("M", "F", "O") if f"GENDER//{letter}" in codes), None)
    birth = next((event.time for event in events if event.code == BIRTH), None)
    precisions = {
        event.event_id: event.time_precision
        for event in events
        if event.resource == "ImagingStudy" and event.event_id and event.time_precision
    }
    return _Person(sex, birth, precisions)


def _records(block: Path) -> Iterator[list[Event]]:
    """The rows of each twin of a file."""
    with pa.memory_map(str(block)) as source:
        rows = table_to_events(pa.ipc.open_file(source).read_all())
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or rows[index].subject_id != rows[start].subject_id:
            yield rows[start:index]
            start = index


def _sorted(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.time is not None, event.time or datetime(1, 1, 1)))


def _minute(time: datetime | None) -> int | None:
    return None if time is None else int((time - datetime(1970, 1, 1)).total_seconds() // 60)


def _path(drawn: Drawn) -> str:
    return image_path(drawn.call.subject_id, drawn.series_uid)


def _tell_result(out: Path) -> None:
    counts = read_json(out / "counts.json")
    rows: list[dict[str, object]] = []
    for name, value in counts.items():
        if isinstance(value, Mapping):
            rows += [{"what": f"{name}: {kind}", "number": number} for kind, number in value.items()]
        else:
            rows.append({"what": name, "number": f"{value:.2%}" if isinstance(value, float) else value})
    tell_counts(f"{out}:", rows)


__all__ = ["GenerateSettings", "MaskSettings", "PlanSettings", "SamplingSettings", "generate", "main"]
