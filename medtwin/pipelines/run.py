"""`medtwin run`: the main job. Hospital -> dataset -> export, each stage resumable."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtwin.config import settings
from medtwin.core.dataset import open_dataset
from medtwin.core.errors import DatasetError
from medtwin.core.findings import errors_in
from medtwin.pipelines.export import ExportSettings, Override, export
from medtwin.pipelines.hospital import HospitalSettings, make_hospital
from medtwin.pipelines.ingest import IngestSettings, ingest, source_in
from medtwin.pipelines.say import tell


@dataclass(frozen=True)
class RunSettings:
    """The settings of configs/run.yaml."""

    out: Path
    n: int = 400
    seed: int = 0
    workers: int = 1
    source: Path | None = None
    override: Override = field(default_factory=Override)
    overwrite: bool = False


def main(config: Mapping[str, Any]) -> None:
    """Runs every stage, and says where everything is.

    Raises:
        MedtwinError: For every fault that the user can mend.
    """
    chosen = settings(RunSettings, config)
    start = time.perf_counter()
    folder = chosen.out
    source = chosen.source
    if source is None:
        made = HospitalSettings(folder / "source", chosen.n, chosen.seed, None, True, chosen.workers, chosen.overwrite)
        source = make_hospital(made)
    read = IngestSettings(source_in(source), folder / "dataset", seed=chosen.seed, overwrite=chosen.overwrite)
    dataset = open_dataset(ingest(read))
    if errors := errors_in(dataset.validate()):
        raise DatasetError(f"{dataset.path} is not valid: {errors[0]}")
    written = ExportSettings(dataset.path, folder / "export", override=chosen.override, overwrite=chosen.overwrite)
    export(written)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    tell()
    for name, what in (
        ("source", "the embedded hospital: FHIR, DICOM, and the laws behind them (truth.json)"),
        ("dataset", "the dataset: MEDS events, images, counts.json"),
        ("export", "fhir/, dicom/ and csv/ for other systems"),
    ):
        if (folder / name).is_dir():
            tell(f"  {folder / name}  {what}")
    tell(f"done in {time.perf_counter() - start:.0f} s, peak memory {peak_gib:.2f} GiB")
