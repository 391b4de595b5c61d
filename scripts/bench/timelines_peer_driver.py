#!/usr/bin/env python3
"""Fits one peer on flat tables, samples from it and times both; runs in the peers' own environment.

    .peers-timelines/timelines/bin/python scripts/bench/timelines_peer_driver.py FOLDER

FOLDER holds what scripts/bench/timelines.py wrote: `plan.json` (peer, minutes, clock, seed, n, settings of the peer),
`context.parquet` (one row a subject: key, split, sex, age and the like) and `events.parquet` (key, gap_minutes, code,
value). It gets `sampled_context.parquet`, `sampled_events.parquet` and `timing.json`.

TabularARGN's samples have the contexts of training subjects, drawn with replacement: no time goes into learning them.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pandas as pd

KEY = "key"
SEQUENCE = ["gap_minutes", "code", "value"]
MOST_EPOCHS = 100_000


class Peer(Protocol):
    """A generator of sequences given contexts."""

    def fit(self, context: pd.DataFrame, events: pd.DataFrame) -> dict[str, Any]:
        """Learns within its time; returns what to state of the settings."""

    def sample(self, context: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Sequences for as many subjects as there are contexts: contexts, and (rows, key and `SEQUENCE`)."""


class TabularArgn:
    """mostlyai-engine's TabularARGN, its columns in fixed order: gap, code, value.

    Args:
        plan: Of `plan.json`.
        folder: Where its workspace goes.
    """

    def __init__(self, plan: dict[str, Any], folder: Path) -> None:
        self.plan, self.workspace = plan, folder / "workspace"

    def fit(self, context: pd.DataFrame, events: pd.DataFrame) -> dict[str, Any]:
        """Splits as medtwin does (train learns, tuning decides when to stop), and trains for so many minutes."""
        import torch

        engine = import_module("mostlyai.engine")
        torch.set_num_threads(1)
        engine.set_random_state(int(self.plan["seed"]))
        numeric = self.plan["numeric_context"]
        kept_back = set(context.loc[context["split"] == "tuning", KEY])
        shown = context.drop(columns="split")
        of_context = {
            name: "TABULAR_NUMERIC_AUTO" if name in numeric else "TABULAR_CATEGORICAL"
            for name in shown.columns
            if name != KEY
        }
        of_events = {
            "gap_minutes": self.plan["gap_encoding"],
            "code": "TABULAR_CATEGORICAL",
            "value": self.plan["value_encoding"],
        }
        engine.split(
            events,
            ctx_data=shown,
            tgt_context_key=KEY,
            ctx_primary_key=KEY,
            model_type="TABULAR",
            tgt_encoding_types=of_events,
            ctx_encoding_types=of_context,
            trn_val_split=lambda keys: (keys[~keys.isin(kept_back)], keys[keys.isin(kept_back)]),
            workspace_dir=self.workspace,
        )
        engine.analyze(value_protection=False, workspace_dir=self.workspace)
        engine.encode(workspace_dir=self.workspace)
        if self.plan["clock"] == "cpu":
            _count_cpu_seconds()
        engine.train(
            model=self.plan["model"],
            max_training_time=float(self.plan["minutes"]),
            max_epochs=1000.0,
            max_sequence_window=int(self.plan["window"]),
            enable_flexible_generation=False,
            device="cpu",
            workspace_dir=self.workspace,
        )
        stats = json.loads((self.workspace / "ModelStore" / "tgt-stats" / "stats.json").read_text())
        progress = pd.read_csv(self.workspace / "ModelStore" / "model-data" / "progress-messages.csv")
        return {
            "model": self.plan["model"],
            "encodings": {name: one["encoding_type"] for name, one in stats["columns"].items()},
            "window": self.plan["window"],
            "epochs": float(progress["epoch"].iloc[-1]),
            "value protection": "off",
            "order of columns": "fixed: gap, code, value",
        }

    def sample(self, context: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Sequences for these contexts."""
        engine = import_module("mostlyai.engine")
        engine.set_random_state(int(self.plan["seed"]) + 1)
        engine.generate(ctx_data=context, device="cpu", workspace_dir=self.workspace)
        return context, pd.read_parquet(self.workspace / "SyntheticData")


def _count_cpu_seconds() -> None:
    """Lets the engine's training count CPU seconds of this process where it counts seconds."""
    training: Any = import_module("mostlyai.engine._tabular.training")
    training.time = SimpleNamespace(time=time.process_time)


def _stop_epochs(clock: Callable[[], float], deadline: float) -> list[int]:
    """Lets PAR's loop over epochs end when the time is over; the list fills with the epochs that it began."""
    done: list[int] = []

    def epochs(numbers: Iterable[int], **words: Any) -> Iterator[int]:
        for number in numbers:
            if clock() > deadline:
                return
            done.append(number)
            yield number

    module: Any = import_module("deepecho.models.par")
    module.tqdm = epochs
    return done


class Par:
    """SDV's PARSynthesizer, in as many epochs as its time allows; one epoch is one step over all sequences.

    Args:
        plan: Of `plan.json`; `num_subjects` and `num_events` cap what it learns from.
        folder: Not used.
    """

    def __init__(self, plan: dict[str, Any], folder: Path) -> None:
        self.plan = plan
        self.clock = time.process_time if plan["clock"] == "cpu" else time.perf_counter
        self.model: Any = None

    def fit(self, context: pd.DataFrame, events: pd.DataFrame) -> dict[str, Any]:
        """Trains for so many minutes, preparing the data included."""
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(int(self.plan["seed"]))
        np.random.seed(int(self.plan["seed"]))  # noqa: NPY002 -- the peer draws from it
        keys = context.loc[context["split"] == "train", KEY].iloc[: int(self.plan["num_subjects"])]
        rows = events[events[KEY].isin(set(keys))]
        rows = rows[rows.groupby(KEY).cumcount() < int(self.plan["num_events"])]
        table = rows.merge(context.drop(columns="split"), on=KEY)
        numeric = {*self.plan["numeric_context"], "gap_minutes", "value"}
        columns = {name: {"sdtype": "numerical" if name in numeric else "categorical"} for name in table.columns}
        columns[KEY] = {"sdtype": "id"}
        metadata = import_module("sdv.metadata").Metadata.load_from_dict(
            {"tables": {"t": {"columns": columns, "sequence_key": KEY}}, "relationships": []}
        )
        self.model = import_module("sdv.sequential").PARSynthesizer(
            metadata,
            context_columns=[name for name in context.columns if name not in (KEY, "split")],
            epochs=MOST_EPOCHS,
            cuda=False,
            verbose=False,
        )
        deadline = self.clock() + 60 * float(self.plan["minutes"])
        done = _stop_epochs(self.clock, deadline)
        self.model.fit({"t": table})
        return {
            "epochs": len(done),
            "subjects": len(keys),
            "events": len(table),
            "at most events a subject": int(self.plan["num_events"]),
        }

    def sample(self, context: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Sequences for contexts of its own: given all of its context columns, sdv 2.0.0 fails."""
        drawn = self.model.sample_sequences(num_sequences=len(context))
        table: pd.DataFrame = drawn["t"] if isinstance(drawn, dict) else drawn
        return table[list(context.columns)].drop_duplicates(KEY), table[[KEY, *SEQUENCE]]


PEERS: dict[str, Callable[[dict[str, Any], Path], Peer]] = {"tabular_argn": TabularArgn, "par": Par}


def _clock() -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and of those that it waited for."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in usage)


def main() -> None:
    """Fits, samples and writes."""
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "plan.json").read_text())
    warnings.simplefilter("ignore")  # the peers' own
    context, events = (pd.read_parquet(folder / f"{name}.parquet") for name in ("context", "events"))
    peer: Peer = PEERS[plan["peer"]](plan, folder)
    begin = _clock()
    told = peer.fit(context, events)
    fitted = _clock()
    rng = np.random.default_rng(int(plan["seed"]))
    known = context[context["split"] == "train"].drop(columns="split")
    chosen = known.iloc[rng.integers(len(known), size=int(plan["n"]))].reset_index(drop=True)
    chosen[KEY] = [f"s{i}" for i in range(len(chosen))]
    chosen, sampled = peer.sample(chosen)
    end = _clock()
    chosen.reset_index(drop=True).to_parquet(folder / "sampled_context.parquet")
    sampled[[KEY, *SEQUENCE]].to_parquet(folder / "sampled_events.parquet")
    timing = {
        "settings": told,
        "fit_s": fitted[0] - begin[0],
        "fit_cpu_s": fitted[1] - begin[1],
        "sample_s": end[0] - fitted[0],
        "sample_cpu_s": end[1] - fitted[1],
        "sampled_events": len(sampled),
    }
    (folder / "timing.json").write_text(json.dumps(timing, indent=1))


if __name__ == "__main__":
    main()
