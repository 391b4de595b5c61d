"""Twins of somebody: the same person changed, a record continued, or persons between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medtwin.config import settings
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import ConfigError
from medtwin.core.events import EVENT_SCHEMA, Event, sort_events, table_to_events
from medtwin.core.files import read_json
from medtwin.core.output import Output
from medtwin.core.provenance import PROVENANCE
from medtwin.pipelines.generate_blocks import BlockCounts, write_block
from medtwin.pipelines.generate_settings import GenerateSettings, PlanSettings
from medtwin.pipelines.generate_timelines import plan_of
from medtwin.pipelines.latents import load_prior_of
from medtwin.pipelines.say import progress
from medtwin.timelines.generation.generate import TILE, Timeline, draw_people, noise_keys, run_tile, timelines_of
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.records import Known, RecordWriter, rows_to_table, twin_event_id, twin_subject_id
from medtwin.timelines.generation.tile import MaskedMass, Tile, TimelineModel
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.reading.vocabulary import fact_name
from medtwin.timelines.steering.continuation import beginnings, continue_records
from medtwin.timelines.steering.counterfactual import Change, moved, predict
from medtwin.timelines.steering.interpolation import between
from medtwin.timelines.steering.steer import abduct, is_same, known_timelines, num_same, outside_support, run
from medtwin.twins.studies import without_scans

BLOCK = 128
"""Subjects of a shard that are read together. Part of what a seed means: others give other last digits."""

CLAIM = (
    "attribute-controlled generation: what changes with an attribute is what differs between training subjects; "
    "no effect of a cause is claimed"
)
_DECEASED = "DECEASED//true"


@dataclass(frozen=True)
class Whose:
    """Whose twins are made, and by what.

    Attributes:
        chosen: The settings.
        dataset: Of twin.of.
        model: Of the run.
        run: Names the state of the run.
    """

    chosen: GenerateSettings
    dataset: Dataset
    model: TimelineModel
    run: str

    def twin_id(self, subject: int) -> int:
        """The id of a twin; another change, seed, run or source gives another."""
        twin = self.chosen.twin
        asked = [self.chosen.set.given(), self.chosen.add.age, twin.until, twin.steps, twin.between]
        digest = hashlib.sha256(json.dumps([self.run, asked], sort_keys=True).encode()).hexdigest()
        return twin_subject_id(digest, self.chosen.seed, subject)

    def wanted(self) -> list[int] | None:
        """Subjects whose twins are wanted, in the order of the dataset; None: all.

        Raises:
            ConfigError: If the dataset has no such subject.
        """
        twin = self.chosen.twin
        named = twin.subjects if twin.between is None else twin.between
        if named is not None:
            known = self.dataset.subject_splits()
            if missing := [subject for subject in named if subject not in known]:
                setting = "twin.subjects" if twin.between is None else "twin.between"
                raise ConfigError(f"{setting}: {self.dataset.path} has no subject {missing[0]}")
            return list(named)
        if twin.n is None:
            return None
        found: list[int] = []
        for table in self.dataset.iter_events():
            found += pc.unique(table["subject_id"]).to_pylist()
            if len(found) >= twin.n:
                return found[: twin.n]
        raise ConfigError(f"twin.n must be at most {len(found)}, the subjects of {self.dataset.path}, got {twin.n}")


def write_twins(chosen: GenerateSettings, model: TimelineModel, output: Output, run_state: str) -> list[Path]:
    """The files of twins of somebody, block by block; those of a killed run are kept.

    Args:
        chosen: The settings, with twin.of.
        model: Of the run.
        output: Where scratch files go.
        run_state: Names the state of the run.

    Raises:
        ConfigError: If what is asked for is not known to the model or the dataset.
    """
    if chosen.twin.of is None:
        raise ConfigError("twin.of=... is required")
    whose = Whose(chosen, open_dataset(chosen.twin.of), model, run_state)
    folder = output.scratch("timelines")
    if chosen.twin.between is not None:
        return _write_between(whose, folder)
    if not model.spec.has_times and (chosen.set.window_years is not None or not chosen.changes):
        raise ConfigError("twin.until and set.window_years: no record that the model learned from has a date")
    if not chosen.changes:
        return _write_records(whose, folder, _continued)
    Change.of(model.spec.profile, chosen.set.given(), chosen.add.age or 0.0)  # refused before anything is drawn
    made = own_twins(whose)
    return _write_own(whose, folder, made) if made is not None else _write_records(whose, folder, _changed)


def changes_record(chosen: GenerateSettings) -> dict[str, Any]:
    """What counterfactual.json says."""
    added = {} if chosen.add.age is None else {"add": {"age": chosen.add.age}}
    graph = {} if chosen.twin.graph is None else {"graph": chosen.twin.graph}
    claim = CLAIM if chosen.twin.graph is None else "counterfactuals under the causal graph that the user states"
    return {"set": chosen.set.given(), **added, "claim": claim, **graph}


# --- twins of records that are known by what they say ---


def _write_records(whose: Whose, folder: Path, make: Any) -> list[Path]:
    wanted, blocks = whose.wanted(), []
    names = None if wanted is None else np.array(sorted(wanted), np.int64)
    for name, table, records in _blocks(whose, names):
        path = folder / f"{name}.arrow"
        blocks.append(path)
        if not path.is_file():
            write_block(path, *make(whose, table, records, names))
    if not blocks:
        raise ConfigError(f"twin.of: no subject of {whose.dataset.path} that is wanted has a dated event")
    return blocks


def _blocks(whose: Whose, names: NDArray[np.int64] | None) -> Iterator[tuple[str, pa.Table, Sequences]]:
    """Blocks of subjects of whom some are wanted: a name, the events of their shard, and their records."""
    shards = progress(whose.dataset.iter_events(), "twins", total=len(whose.dataset.shards()), unit="shard")
    for shard, table in enumerate(shards):
        if names is not None and not pc.any(pc.is_in(table["subject_id"], value_set=pa.array(names))).as_py():
            continue
        if (whole := whose.model.spec.sequences(table)) is None:
            continue
        for start in range(0, len(whole), BLOCK):
            records = whole.take(np.arange(start, min(start + BLOCK, len(whole))))
            if names is None or np.isin(records.subject_id, names).any():
                yield f"{shard:05d}-{start:08d}", table, records


def _rows_wanted(records: Sequences, names: NDArray[np.int64] | None) -> list[int]:
    is_wanted = np.ones(len(records), dtype=bool) if names is None else np.isin(records.subject_id, names)
    rows: list[int] = np.flatnonzero(is_wanted).tolist()
    return rows


def _changed(
    whose: Whose, table: pa.Table, records: Sequences, names: NDArray[np.int64] | None
) -> tuple[pa.Table, BlockCounts]:
    """Counterfactual twins of a block: abduction, action, prediction."""
    chosen, model = whose.chosen, whose.model
    found = abduct(model, records, chosen.seed)
    size, mass = len(records), MaskedMass()
    tile = Tile(found.attributes, found.latent, found.noise, size)
    replayed = timelines_of(run(model, tile, MaskedMass()), found.attributes, found.latent)
    change = Change.of(model.spec.profile, chosen.set.given(), chosen.add.age or 0.0)
    attributes = predict(model.spec.profile, found.attributes, found.uniforms, change)
    latent = moved(model, found.latent, found.attributes, attributes)
    twins = timelines_of(run(model, replace(tile, attributes=attributes, latent=latent), mass), attributes, latent)
    known, counts, writer, rows = known_timelines(model, records), BlockCounts(), RecordWriter(model.spec), []
    for row in _rows_wanted(records, names):
        subject = int(records.subject_id[row])
        twin = whose.twin_id(subject)
        rows += writer.rows(twins[row], twin)
        counts.count(twins[row], model.spec, change.facts)
        counts.outside.update(outside_support(model, attributes[row]))
        counts.more["events of the originals"] += len(known[row].tokens)
        counts.more["events of the originals that a replay gives back"] += num_same(known[row], replayed[row])
        is_back = is_same(known[row], replayed[row])
        counts.add_pair(subject_id=twin, factual_id=subject, factual_reconstructed=is_back)
    counts.add_mass(mass)
    return rows_to_table(rows), counts


def _continued(
    whose: Whose, table: pa.Table, records: Sequences, names: NDArray[np.int64] | None
) -> tuple[pa.Table, BlockCounts]:
    """Records of a block that go on: what is known of them, under new ids, and what the model says after it."""
    model, twin = whose.model, whose.chosen.twin
    mass, counts, writer = MaskedMass(), BlockCounts(), RecordWriter(model.spec)
    beginning = beginnings(model, records, days=twin.until, steps=twin.steps)
    timelines = continue_records(model, records, beginning, seed=whose.chosen.seed, mass=mass)
    rows: list[tuple[Any, ...]] = []
    for row in _rows_wanted(records, names):
        subject, last = int(records.subject_id[row]), int(beginning.last_minute[row])
        if beginning.is_over[row]:
            counts.more["not continued: dead by then"] += 1
            continue
        known = known_events(table, subject, last, whose.twin_id(subject))
        rows += [tuple(getattr(event, name) for name in EVENT_SCHEMA.names) for event in known.events]
        rows += writer.rows(timelines[row], whose.twin_id(subject), known)
        counts.more["rows that were known"] += len(known.events)
        named = {name for event in known.events for name in (event.code, fact_name(event.code, event.text_value))}
        counts.count(timelines[row], model.spec, known=named)
        counts.outside.update(outside_support(model, timelines[row].attributes))
        counts.add_pair(subject_id=whose.twin_id(subject), factual_id=subject, known_until=last)
    counts.add_mass(mass)
    return rows_to_table(rows), counts


def known_events(table: pa.Table, subject: int, last_minute: int, twin: int) -> Known:
    """The rows of a subject up to a time, of another id; ids of events and what refers to them are renamed too.

    Whether the subject is dead is no fact of the beginning, though it may stand among static ones.

    Args:
        table: Events with every column of `EVENT_SCHEMA`.
        subject: Whose.
        last_minute: Minutes since 1970; what is of that minute is kept.
        twin: The new id.
    """
    mine = table.filter(pc.equal(table["subject_id"], subject))
    stop = np.datetime64((last_minute + 1) * 60, "s").astype("datetime64[us]")
    is_early = pc.fill_null(pc.less(mine["time"], pa.scalar(stop, pa.timestamp("us"))), True)
    kept = table_to_events(mine.filter(pc.and_(is_early, pc.not_equal(mine["code"], _DECEASED))))
    new_ids: dict[str, str] = {}
    for event in kept:
        for name in (event.event_id, event.encounter_id):
            if name is not None and not _is_component(event, name):
                new_ids.setdefault(name, twin_event_id(twin, len(new_ids) + 1))
    num_ids = len(new_ids)
    for event in kept:
        if event.event_id is not None and event.parent_id is not None and event.event_id not in new_ids:
            stem = new_ids.get(event.parent_id, event.parent_id)
            new_ids[event.event_id] = stem + event.event_id.removeprefix(event.parent_id)
    return Known([_renamed(event, twin, new_ids) for event in kept], num_ids)


def _is_component(event: Event, name: str) -> bool:
    """Whether a name is `<event>.<n>`, which follows from the name of the event."""
    return name == event.event_id and event.parent_id is not None and name.startswith(f"{event.parent_id}.")


def _renamed(event: Event, twin: int, new_ids: Mapping[str, str]) -> Event:
    def new(name: str | None) -> str | None:
        return None if name is None else new_ids.get(name, name)

    return replace(
        event,
        subject_id=twin,
        event_id=new(event.event_id),
        parent_id=new(event.parent_id),
        encounter_id=new(event.encounter_id),
        text_value=event.text_value if event.parent_id is None else new(event.text_value),  # a reference
    )


# --- twins of twins that this run made: nothing has to be inferred ---


def own_twins(whose: Whose) -> dict[int, int] | None:
    """Number by subject id, where this run in its present state made the dataset, with these masks; else None."""
    path = whose.dataset.path / PROVENANCE
    if not path.is_file() or (record := read_json(path)).get("verb") != "generate":
        return None
    config = record["config"]
    is_of_this_run = config.get("runs_state", {}).get("timelines") == whose.run
    if not is_of_this_run or config.get("twin", {}).get("of") is not None:
        return None
    if config.get("masks") != {"sex_specific": _plain(whose.chosen.masks.sex_specific)}:
        return None
    return {twin_subject_id(whose.run, config["seed"], index): index for index in range(config["n"])}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=list))


def _write_own(whose: Whose, folder: Path, made: Mapping[int, int]) -> list[Path]:
    """Counterfactual twins by the z and the noise that their originals were made with."""
    wanted = whose.wanted()
    numbers = sorted(made[subject] for subject in (made if wanted is None else wanted))
    tiles: dict[int, list[int]] = {}
    for number in numbers:
        tiles.setdefault(number // TILE * TILE, []).append(number)
    blocks = []
    digests: dict[int, bytes] = {}
    for start, mine in progress(tiles.items(), "twins", total=len(tiles), unit="tile"):
        path = folder / f"own-{start:08d}.arrow"
        blocks.append(path)
        if not path.is_file():
            digests = digests or _digests(whose)
            write_block(path, *_own_tile(whose, start, mine, digests))
    return blocks


def _digests(whose: Whose) -> dict[int, bytes]:
    """Of every record of the dataset, by subject, but for what its scans have written into it."""
    found: dict[int, bytes] = {}
    for table in whose.dataset.iter_events():
        if (records := whose.model.spec.sequences(without_scans(table))) is not None:
            known = map(_digest, known_timelines(whose.model, records))
            found.update(zip(np.asarray(records.subject_id).tolist(), known, strict=True))
    return found


def _digest(timeline: Timeline) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("steps", "tokens", "minutes"):
        digest.update(np.array(getattr(timeline, name), np.int64).tobytes())
    digest.update(np.array(timeline.values, np.float32).tobytes())  # as a column holds them
    return digest.digest()


def _own_tile(
    whose: Whose, start: int, numbers: Sequence[int], digests: Mapping[int, bytes]
) -> tuple[pa.Table, BlockCounts]:
    chosen, model, law = whose.chosen, whose.model, whose.model.spec.profile
    config = read_json(whose.dataset.path / PROVENANCE)["config"]
    plan = plan_of(settings(PlanSettings, config["plan"], "plan"), config["n"])
    seed, mass, num_needed = config["seed"], MaskedMass(), max(numbers) - start + 1
    people = draw_people(model, start, num_needed, seed=seed, plan=plan, prior=load_prior_of(chosen.timelines))
    factual = run_tile(model, people, Noise(noise_keys(seed, range(start, start + TILE))), MaskedMass())
    change = Change.of(law, chosen.set.given(), chosen.add.age or 0.0)
    attributes = predict(law, people.attributes, people.uniforms, change)
    latent = moved(model, people.latent, people.attributes, attributes)
    twins = run_tile(model, replace(people, attributes=attributes, latent=latent), Noise(people.keys), mass)
    counts, writer, rows = BlockCounts(), RecordWriter(model.spec), []
    for number in numbers:
        subject, place = twin_subject_id(whose.run, seed, number), number - start
        twin = whose.twin_id(subject)
        rows += writer.rows(twins[place], twin)
        counts.count(twins[place], model.spec, change.facts)
        counts.outside.update(outside_support(model, attributes[place]))
        back = _reread(model, factual[place], subject)
        is_back = digests.get(subject) == (None if back is None else _digest(back))
        counts.add_pair(subject_id=twin, factual_id=subject, factual_reconstructed=is_back)
    counts.add_mass(mass)
    return rows_to_table(rows), counts


def _reread(model: TimelineModel, timeline: Timeline, subject: int) -> Timeline | None:
    """A timeline as it is read back from its own rows."""
    table = sort_events(rows_to_table(RecordWriter(model.spec).rows(timeline, subject)))
    records = model.spec.sequences(without_scans(table))
    return None if records is None else known_timelines(model, records)[0]


# --- between two ---


def _write_between(whose: Whose, folder: Path) -> list[Path]:
    chosen, model = whose.chosen, whose.model
    path, pair = folder / "between.arrow", whose.wanted() or []
    if path.is_file():
        return [path]
    records: dict[int, Sequences] = {}
    wanted = pa.array(sorted(pair), pa.int64())
    for table in whose.dataset.iter_events():
        part = model.spec.sequences(table.filter(pc.is_in(table["subject_id"], value_set=wanted)))
        for row, subject in enumerate([] if part is None else np.asarray(part.subject_id).tolist()):
            records[subject] = part.take(np.array([row]))  # type: ignore[union-attr]
    if missing := [subject for subject in pair if subject not in records]:
        raise ConfigError(f"twin.between: subject {missing[0]} has no dated event that the model knows of")
    mass, counts, writer, rows = MaskedMass(), BlockCounts(), RecordWriter(model.spec), []
    ends = Sequences.join([records[subject] for subject in pair])
    parts, twins = between(model, ends, num=chosen.twin.n or 0, seed=chosen.seed, mass=mass)
    for number, (part_of_way, twin) in enumerate(zip(parts, twins, strict=True)):
        subject = whose.twin_id(number)
        rows += writer.rows(twin, subject)
        counts.count(twin, model.spec)
        counts.outside.update(outside_support(model, twin.attributes))
        counts.add_pair(subject_id=subject, first_id=pair[0], last_id=pair[1], part=part_of_way)
    counts.add_mass(mass)
    write_block(path, rows_to_table(rows), counts)
    return [path]


__all__ = ["BLOCK", "CLAIM", "Whose", "changes_record", "known_events", "own_twins", "write_twins"]
