"""`medtwin generate`: trained runs -> synthetic twins: timelines, then the scans that those timelines call for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from medtwin.config import settings
from medtwin.core.dataset import open_dataset
from medtwin.core.dataset_writer import EventSpill, SplitRule, num_buckets, write_dataset_metadata, write_events
from medtwin.core.errors import ConfigError
from medtwin.core.events import events_to_table
from medtwin.core.files import file_digest, read_json, write_json, write_table
from medtwin.core.images import images_to_table
from medtwin.core.output import Output, is_finished, writing
from medtwin.core.provenance import (
    PROVENANCE,
    Provenance,
    describe_input,
    training_subjects,
    write_provenance,
)
from medtwin.pipelines.generate_blocks import BlockCounts, read_block, read_counts, records_of
from medtwin.pipelines.generate_scans import Scans
from medtwin.pipelines.generate_settings import (
    GenerateSettings,
)
from medtwin.pipelines.runs import MODEL
from medtwin.pipelines.say import tell, tell_counts
from medtwin.pipelines.sources import fingerprint, public_config, require_outside
from medtwin.twins.rules import ScanCall, scan_calls
from medtwin.twins.studies import Drawn, counts_by_modality, with_studies, without_series

if TYPE_CHECKING:
    from medtwin.timelines.generation.source import TimelineSource
    from medtwin.timelines.generation.tile import TimelineModel


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
    if chosen.twin.of is not None:
        require_outside(chosen.out, chosen.twin.of)
        config["twin_state"] = _dataset_state(chosen.twin.of)
    # How many images are drawn before any is handed out changes nothing of them.
    config["sampling"] = {name: value for name, value in config["sampling"].items() if name != "batch_size"}
    with writing(chosen.out, config, overwrite=chosen.overwrite) as output:
        if output is None:
            tell(f"{chosen.out} is finished already (overwrite=true redoes it)")
            return chosen.out
        try:
            _Generation(chosen, config, output, runs).run()
        except ConfigError:
            if not any(output.scratch("timelines").iterdir()):
                shutil.rmtree(output.path)  # nothing was made: other settings need not be told to overwrite it
            raise
    _tell_result(chosen.out)
    return chosen.out


_MODELS = {
    "timelines": (
        ("medtwin.timelines.training.module.TemporalVAEModule", "medtwin.timelines.baselines.BaselineModule"),
        "a temporal VAE (model=temporal_vae) or a baseline (model=markov, ...)",
    ),
    "scans": (
        (
            "medtwin.scans.module.ScanDiffusionModule",
            "medtwin.scans.shortcut.ScanShortcutModule",
            "medtwin.scans.baselines.ScanBaselineModule",
        ),
        "a diffusion model (model=scan_diffusion or scan_shortcut) or a baseline (model=scan_gmm or scan_gan)",
    ),
}


def _state(run: Path) -> str:
    """What a run has learned: its weights and what it knows of the data, not its logs, which tell how long it took."""
    learned = [run / MODEL, *sorted(path for path in (run / "data").rglob("*") if path.is_file())]
    return blake2b("".join(file_digest(path) for path in learned).encode(), digest_size=32).hexdigest()


def _dataset_state(path: Path) -> str:
    dataset = open_dataset(path)
    return dataset.manifest_hash() if dataset.is_finished else fingerprint(path)


def _require_run(role: str, run: Path) -> None:
    """Refuses what is no finished run of the model that the role needs, before anything is written."""
    targets, what = _MODELS[role]
    if not is_finished(run):
        raise ConfigError(f"{role}={run} must be a finished run of `medtwin train`")
    model = read_json(run / PROVENANCE).get("config", {}).get("model", {})
    if model.get("_target_") not in targets:
        raise ConfigError(f"{role}={run} must be the run of {what}")


class _Generation:
    """One run of the verb."""

    def __init__(
        self, chosen: GenerateSettings, config: Mapping[str, Any], output: Output, runs: Mapping[str, Path]
    ) -> None:
        self.chosen, self.config, self.output, self.runs = chosen, config, output, runs
        name = "/".join([*config["runs_state"].values(), str(chosen.seed)])
        self.scans = Scans(chosen, output, name)

    def run(self) -> None:
        """Timelines, then scans, then the directory."""
        from medtwin.pipelines.generate_timelines import load_model, load_source, write_timelines
        from medtwin.pipelines.generate_twins import write_twins

        run, sex_specific = self.chosen.timelines, self.chosen.masks.sex_specific
        name = self.config["runs_state"]["timelines"]
        model: TimelineModel | TimelineSource
        if self.chosen.twin.of is None:
            model = load_source(run, sex_specific)
            blocks = write_timelines(self.chosen, model, self.output, name)
        else:
            model = load_model(run, sex_specific)
            blocks = write_twins(self.chosen, model, self.output, name)
        counts = read_counts(blocks)
        if not counts.subjects:
            raise ConfigError("twin.of: there is no twin to make: every record is over by then")
        calls: dict[int, list[ScanCall]] = {}
        for block in blocks:
            for events in records_of(read_block(block)):
                rules, has_studies = self.chosen.scan_rules, model.spec.names_studies
                calls[events[0].subject_id] = scan_calls(events, rules, names_studies=has_studies)
        drawn = self.scans.draw(blocks, calls) if self.chosen.scans is not None else {}
        spill = EventSpill(self._fresh("spill"), num_buckets(sum(block.stat().st_size for block in blocks)))
        for block in blocks:
            spill.add(_with_studies(read_block(block), drawn))
        rule = SplitRule(self.chosen.seed)
        written = write_events(self.output.path, spill.close(), split_of=rule, descriptions=model.spec.descriptions)
        if self.scans.images:
            write_table(self.output.path / "images.parquet", images_to_table(self.scans.images))
        made = [each.call for scans in drawn.values() for each in scans]
        self._write_counts(
            counts, calls, made, {"events": written.num_events, "rows": written.num_rows, **written.flags}
        )
        self._write_metadata(counts)

    def _fresh(self, name: str) -> Path:
        folder = self.output.scratch(name)
        shutil.rmtree(folder)
        return folder

    def _write_counts(
        self,
        block_counts: BlockCounts,
        calls: Mapping[int, Sequence[ScanCall]],
        made: Sequence[ScanCall],
        written: Mapping[str, int],
    ) -> None:
        called = counts_by_modality([call for each in calls.values() for call in each])
        drawn = Counter(counts_by_modality(made))
        counts = {
            "twins": block_counts.subjects,
            "twins with a scan": len({call.subject_id for call in made}),
            **{name: int(number) for name, number in written.items() if number},
            "scans called for": called,
            "scans made": dict(drawn),
            "scans not made": {kind: count - drawn[kind] for kind, count in called.items() if count > drawn[kind]},
            **block_counts.report(),
        }
        if self.chosen.twin.of is not None:
            counts["outside_support"] = dict(sorted(block_counts.outside.items()))
        if "factual_reconstructed" in block_counts.pairs:
            counts["originals that a replay gives back whole"] = sum(block_counts.pairs["factual_reconstructed"])
        write_json(self.output.path / "counts.json", counts)

    def _write_metadata(self, counts: BlockCounts) -> None:
        path, chosen = self.output.path, self.chosen
        write_dataset_metadata(path, chosen.out.name, "synthetic")
        inputs = [describe_input(role, run) for role, run in self.runs.items()]
        if chosen.twin.of is not None:
            inputs.append(describe_input("twin.of", chosen.twin.of))
            self._write_pairs(counts.pairs)
        depth = 1 + max(part.lineage_depth for part in inputs)
        learned = [count for run in self.runs.values() if (count := training_subjects(run)) is not None]
        fewest = min(learned, default=None)
        made = Provenance("generate", "synthetic", self.config, chosen.seed, inputs, depth, training_subjects=fewest)
        write_provenance(path, made)

    def _write_pairs(self, pairs: Mapping[str, Sequence[Any]]) -> None:
        """Of whom the twins are: one file, named for what was asked."""
        from medtwin.pipelines.generate_twins import changes_record

        twin, folder = self.chosen.twin, self.output.path / "metadata"
        name = (
            "interpolation" if twin.between is not None else "counterfactual" if self.chosen.changes else "continuation"
        )
        types = {"factual_reconstructed": pa.bool_(), "part": pa.float64()}
        columns = {key: pa.array(column, types.get(key, pa.int64())) for key, column in pairs.items()}
        if "known_until" in columns:
            columns["known_until"] = (
                pc.multiply(columns["known_until"], 60).cast(pa.timestamp("s")).cast(pa.timestamp("us"))
            )
        write_table(folder / f"{name}.parquet", pa.table(columns))
        if self.chosen.changes:
            write_json(folder / "counterfactual.json", changes_record(self.chosen))


def _with_studies(table: pa.Table, drawn: Mapping[int, Sequence[Drawn]]) -> pa.Table:
    """The records of a block, whose imaging studies name the scans drawn and no others."""
    if not any(subject in drawn for subject in pc.unique(table["subject_id"]).to_pylist()):
        return without_series(table)
    rows = (
        event for events in records_of(table) for event in with_studies(events, drawn.get(events[0].subject_id, []))
    )
    return events_to_table(rows)


def _tell_result(out: Path) -> None:
    counts = read_json(out / "counts.json")
    rows: list[dict[str, object]] = []
    for name, value in counts.items():
        if name in ("facts", "facts in the record"):  # too many to be read here
            continue
        if isinstance(value, Mapping):
            rows += [{"what": f"{name}: {kind}", "number": number} for kind, number in value.items()]
        else:
            rows.append({"what": name, "number": f"{value:.2%}" if isinstance(value, float) else value})
    tell_counts(f"{out}:", rows)


__all__ = ["GenerateSettings", "generate", "main"]
