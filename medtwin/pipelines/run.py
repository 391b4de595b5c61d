"""`medtwin run`: the main job. Source -> dataset -> models -> twins -> check -> export and trial, stage by stage."""

from __future__ import annotations

import resource
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtwin.config import compose, quote_override, settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError, DatasetError, ReleaseRefusedError
from medtwin.core.findings import errors_in
from medtwin.core.pseudonyms import KEY_BYTES, load_or_create_key
from medtwin.core.seeds import generator
from medtwin.pipelines.check import CheckSettings, check
from medtwin.pipelines.export import export
from medtwin.pipelines.export_settings import ExportSettings
from medtwin.pipelines.generate import GenerateSettings, generate
from medtwin.pipelines.hospital import HospitalSettings, make_hospital
from medtwin.pipelines.ingest import IngestSettings, Source, ingest, source_in
from medtwin.pipelines.say import tell
from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_settings import SimulateSettings
from medtwin.pipelines.sources import require_outside

_VERBS = {
    "hospital": ("hospital",),
    "ingest": ("ingest",),
    "temporal_vae": ("train", "model=temporal_vae"),
    "scan_diffusion": ("train", "model=scan_diffusion"),
    "generate": ("generate",),
    "check": ("check",),
    "export": ("export",),
    "simulate": ("simulate",),
}
STAGES = tuple(_VERBS)
MIN_IMAGES = 16
"""Training images below which no diffusion model is trained: it could only repeat them."""


@dataclass(frozen=True)
class RunSettings:
    """The settings of configs/run.yaml."""

    out: Path
    n: int = 400
    twins: int = 200
    seed: int = 0
    workers: int = 2
    source: Source | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("n", "twins", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for stage, overrides in self.stages.items():
            if stage not in STAGES:
                raise ConfigError(f"stages must be of {', '.join(STAGES)}, got {stage!r}")
            if not all("=" in each for each in _overrides_in(overrides)):
                raise ConfigError(f"stages.{stage} must be key=value pairs, as in 'trainer.max_steps=100 net.width=32'")


def main(config: Mapping[str, Any]) -> None:
    """Runs the verb.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    source = config.get("source")
    if isinstance(source, str):
        source = _as_group(source_in(Path(source).expanduser()))
    elif isinstance(source, Mapping) and not any(value is not None for value in source.values()):
        source = None
    run(settings(RunSettings, {**config, "source": source}))


def _as_group(source: Source) -> dict[str, Any]:
    """The source as settings; a live server is for `medtwin ingest`."""
    return {name: value for name, value in vars(source).items() if name != "server"}


def run(chosen: RunSettings) -> Path:
    """Runs every stage that is not finished, and says where everything is.

    Raises:
        MedtwinError: For every fault that the user can mend.
        ReleaseRefusedError: At the end, if the twins failed a gate; everything but the export is made all the same.
    """
    if chosen.source is not None:
        for part in chosen.source.parts().values():
            require_outside(chosen.out, part)
    for stage, overrides in chosen.stages.items():  # a misspelt setting is told now, not when its stage has come
        if overrides:
            verb, *own = _VERBS[stage]
            compose(verb, [*own, *_overrides_in(overrides)])
    return _Run(chosen).run()


class _Run:
    """One run: each stage has its directory below `out` and is skipped where that is finished."""

    def __init__(self, chosen: RunSettings) -> None:
        self.chosen, self.out = chosen, chosen.out
        self.start = time.perf_counter()
        self.refusal: ReleaseRefusedError | None = None

    def run(self) -> Path:
        """All stages, in their order."""
        dataset = self._timed("source and dataset", self._dataset)
        self._timed("temporal VAE", lambda: self._train("temporal_vae", dataset))
        has_scans = _num_training_images(dataset) >= MIN_IMAGES
        if has_scans:
            self._timed("scan diffusion", lambda: self._train("scan_diffusion", dataset))
        else:
            tell(f"no diffusion model: the dataset has fewer than {MIN_IMAGES} radiographs to train on")
        twins = self._timed("twins", lambda: self._twins(has_scans=has_scans))
        self._timed("check", lambda: self._check(twins, dataset))
        self._timed("export", lambda: self._export(twins))
        self._timed("trial", lambda: self._trial(twins))
        from medtwin.pipelines.run_report import write_run_report

        write_run_report(self.out, dataset, open_dataset(twins))
        self._tell_end()
        if self.refusal is not None:
            raise self.refusal
        return self.out

    def _timed(self, what: str, stage: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = stage()
        tell(f"-- {what}: {time.perf_counter() - begun:.0f} s, {time.perf_counter() - self.start:.0f} s in all")
        tell()
        return result

    def _config(self, verb: str, stage: str, own: Sequence[str]) -> dict[str, Any]:
        """A stage's configuration: what `run` decides, then what the user says of the stage."""
        shared = [f"overwrite={str(self.chosen.overwrite).lower()}"]
        if verb != "export":  # nothing of it is random
            shared.append(f"seed={self.chosen.seed}")
        return compose(verb, [*shared, *own, *_overrides_in(self.chosen.stages.get(stage))])

    def _dataset(self) -> Dataset:
        source = self.chosen.source
        if source is None:
            place = [f"n={self.chosen.n}", f"workers={self.chosen.workers}", f"out={_quoted(self.out / 'source')}"]
            made = settings(HospitalSettings, self._config("hospital", "hospital", place))
            source = source_in(make_hospital(made))
            self._seed_key()
        config = self._config("ingest", "ingest", [f"out={_quoted(self.out / 'dataset')}"])
        read = settings(IngestSettings, {**config, "source": _as_group(source), "labels": config.get("labels") or None})
        dataset = open_dataset(ingest(read))
        if errors := errors_in(dataset.validate()):
            raise DatasetError(f"{dataset.path} is not valid: {errors[0]}")
        return dataset

    def _seed_key(self) -> None:
        """The simulated patients' pseudonyms come from the seed: the same run makes the same twins."""
        folder = self.out / "dataset.private"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        load_or_create_key(folder / "key", generator(self.chosen.seed, "key of the simulated").bytes(KEY_BYTES))

    def _train(self, name: str, dataset: Dataset) -> Path:
        from medtwin.pipelines.runs import TrainSettings
        from medtwin.pipelines.train import train

        own = [f"model={name}", f"dataset={_quoted(dataset.path)}", f"out={_quoted(self.out / 'runs' / name)}"]
        if name == "scan_diffusion":
            own.append(f"latents={_quoted(self.out / 'runs' / 'temporal_vae')}")
        return train(settings(TrainSettings, self._config("train", name, own)))

    def _twins(self, *, has_scans: bool) -> Path:
        runs = self.out / "runs"
        own = [
            f"timelines={_quoted(runs / 'temporal_vae')}",
            f"n={self.chosen.twins}",
            f"out={_quoted(self.out / 'twins')}",
        ]
        if has_scans:
            own.append(f"scans={_quoted(runs / 'scan_diffusion')}")
        return generate(settings(GenerateSettings, self._config("generate", "generate", own)))

    def _check(self, twins: Path, dataset: Dataset) -> Path:
        own = [
            f"synthetic={_quoted(twins)}",
            f"real={_quoted(dataset.path)}",
            f"timelines={_quoted(self.out / 'runs' / 'temporal_vae')}",
            f"out={_quoted(self.out / 'check')}",
        ]
        return check(settings(CheckSettings, self._config("check", "check", own)))

    def _export(self, twins: Path) -> None:
        """Writes export/fhir and export/dicom; a refusal is told at the end, when everything else is made."""
        formats = "[fhir,dicom]" if len(open_dataset(twins).images()) else "[fhir]"
        own = [
            f"dataset={_quoted(twins)}",
            f"check={_quoted(self.out / 'check')}",
            f"formats={formats}",
            f"out={_quoted(self.out / 'export')}",
        ]
        try:
            export(settings(ExportSettings, self._config("export", "export", own)))
        except ReleaseRefusedError as error:
            self.refusal = ReleaseRefusedError(f"{error} (in a run: stages.export=\"override.reason='...'\")")
            tell(f"not exported: {error}")

    def _trial(self, twins: Path) -> Path:
        own = [f"cohort={_quoted(twins)}", f"out={_quoted(self.out / 'trial')}", f"check={_quoted(self.out / 'check')}"]
        config = self._config("simulate", "simulate", [*own, f"workers={self.chosen.workers}"])
        given = config.get("override") or {}
        override = {
            **given,
            "reason": given.get("reason") or "the run shows the whole way, whatever the twins",
        }
        whole = {**config, "fallback": trial_config("any_adult"), "override": override}
        return simulate(settings(SimulateSettings, whole))

    def _tell_end(self) -> None:
        tell()
        for name, what in (
            ("report.html", "begin here: the twins beside their source, how far to trust them, the trial"),
            ("source", "the embedded hospital: FHIR, DICOM, and the laws behind them (truth.json)"),
            ("dataset", "the dataset: MEDS events, images, counts.json"),
            ("runs", "the trained models"),
            ("twins", "the synthetic twins, in the form of the dataset"),
            ("check", "how good they are: verdict.json, findings.json, report.html"),
            ("export/fhir", "the twins as FHIR R4, one NDJSON file per type"),
            ("export/dicom", "the scans of the same twins as DICOM"),
            ("trial", "a trial simulated on them: operating characteristics, report.html"),
        ):
            if (self.out / name).exists():
                tell(f"  {self.out / name}  {what}")
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        tell(f"done in {time.perf_counter() - self.start:.0f} s, peak memory {peak / 2**20:.2f} GiB")


def _num_training_images(dataset: Dataset) -> int:
    """Radiographs of one image of training subjects."""
    splits = dataset.subject_splits()
    rows = dataset.images().select(["subject_id", "modality", "num_slices"]).to_pylist()
    return sum(
        splits[row["subject_id"]] == "train" and row["modality"] in ("CR", "DX") and row["num_slices"] == 1
        for row in rows
    )


def _overrides_in(value: Any) -> list[str]:
    """The overrides of a stage: a text of key=value pairs, a list of them, or nothing."""
    if isinstance(value, str):
        return [quote_override(each) for each in shlex.split(value)]
    return [str(each) for each in value or ()]


def _quoted(path: Path) -> str:
    """A path as a value that Hydra's grammar takes whole."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"
