"""Canaries of a training run: planted by `train`, kept beside the model for the audit that `check` makes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medtwin.check.attacks.planting import Canaries, Pool, make_canaries
from medtwin.core.dataset import Dataset
from medtwin.core.dataset_writer import write_dataset_metadata, write_subject_splits
from medtwin.core.errors import ConfigError
from medtwin.core.events import sort_events
from medtwin.core.files import write_table
from medtwin.core.output import is_finished

FOLDER = "canaries"
EVENTS, ROLES_FILE = "events.parquet", "roles.parquet"
NUM_REFERENCES = 900
"""Canaries that are never trained on, besides those whose coin said no: exposure is a rank among them."""


def plant_canaries(dataset: Dataset, number: int, *, seed: int, folder: Path) -> Dataset:
    """The dataset with canaries in its train split; all of them, with who they are, stand in `folder`/canaries.

    Args:
        dataset: What is trained on; it stays as it is, and is linked to.
        number: Canaries with a coin; about half of them are trained on.
        seed: Decides what they are, and the coins.
        folder: Where to make it; what a killed run left there is used again.

    Raises:
        ConfigError: If the training subjects have too few codes.
    """
    planted, kept = folder / "dataset", folder / FOLDER
    if not (kept / ROLES_FILE).is_file():
        pool = Pool.of(dataset.iter_events("train"))
        taken = dataset.subject_splits()
        try:
            made = make_canaries(pool, number=number, references=NUM_REFERENCES, seed=seed, taken=taken)
        except ValueError as error:
            raise ConfigError(f"canaries={number}: {error}") from error
        _write_dataset(planted, dataset, made.of("member"), taken)
        kept.mkdir(parents=True, exist_ok=True)
        write_table(kept / EVENTS, sort_events(made.events))
        subjects = pa.table({"subject_id": list(made.roles), "role": list(made.roles.values())})
        write_table(kept / ROLES_FILE, subjects)  # the last: it says that all is there
    return Dataset(planted, dataset.origin)


def _write_dataset(folder: Path, dataset: Dataset, members: pa.Table, splits: dict[int, str]) -> None:
    tables = [dataset.path / "metadata" / f"{name}.parquet" for name in ("codes", "actors")]
    for path in (*dataset.shards(), *filter(Path.is_file, tables)):
        link = folder / path.relative_to(dataset.path)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(path.resolve())
    write_table(folder / "data" / "train" / "canaries.parquet", sort_events(members))
    write_dataset_metadata(folder, dataset.path.name, dataset.origin)
    write_subject_splits(folder, {**splits, **dict.fromkeys(members["subject_id"].unique().to_pylist(), "train")})


def load_canaries(run: Path) -> Canaries:
    """The canaries of a finished run.

    Raises:
        ConfigError: If it is none, or planted none.
    """
    folder = run / FOLDER
    if not is_finished(run) or not (folder / ROLES_FILE).is_file():
        raise ConfigError(f"canaries={run} must be a finished run that planted some: medtwin train canaries=100")
    roles = pq.read_table(folder / ROLES_FILE).to_pydict()
    return Canaries(pq.read_table(folder / EVENTS), dict(zip(roles["subject_id"], roles["role"], strict=True)))
