"""Timelines as arrays: the events of one step after the other, the steps of one subject after the other.

A subject is a list of steps. Step 0 holds the static facts and may be empty; every later step is one time at one
encounter and holds at least one event. Within a step events stand in the order of the vocabulary, children after their
event. The arrays are files that are mapped into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medtwin.core.codes import DEATH
from medtwin.core.files import read_json, write_json
from medtwin.core.seeds import uniform_of
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.reading.scales import Scale
from medtwin.timelines.reading.vocabulary import Vocabulary

_INDEX = "columns.json"
_OF_EVENTS = ("token", "value", "half_width", "has_value", "memory", "is_first")
_OF_STEPS = ("minute", "open_minutes")
_OF_SUBJECTS = (
    "sex",
    "age_start_years",
    "start_minute",
    "window_minutes",
    "facts",
    "is_cut",
    "subject_id",
)
_COLUMNS = (*_OF_EVENTS, "event_offsets", *_OF_STEPS, "step_offsets", *_OF_SUBJECTS)


@dataclass(frozen=True)
class Sequences:
    """Many subjects: E events in T steps of S subjects.

    Attributes:
        token: (E,).
        value: (E,) scaled number, 0 where there is none. half_width: (E,) half of the rounding of the source, scaled.
        has_value: (E,) whether there is a number.
        memory: (E, 3) the token's last scaled value before the event, its mean so far, log(1 + number of values).
        is_first: (E,) whether the subject's record says the token for the first time.
        event_offsets: (T + 1,) first event of every step.
        minute: (T,) time of the step, minutes since 1970; of step 0 the subject's start.
        open_minutes: (T,) minutes until the last-ending encounter named by then ends; 0: none is open.
        step_offsets: (S + 1,) first step of every subject.
        sex, age_start_years, start_minute, window_minutes: (S,) attributes; see `_windows`.
        facts: (S, K) which facts the whole record names.
        is_cut: (S,) whether the record goes on after the last step kept.
        subject_id: (S,).
    """

    token: NDArray[np.int32]
    value: NDArray[np.float32]
    half_width: NDArray[np.float32]
    has_value: NDArray[np.bool_]
    memory: NDArray[np.float32]
    is_first: NDArray[np.bool_]
    event_offsets: NDArray[np.int64]
    minute: NDArray[np.int64]
    open_minutes: NDArray[np.float32]
    step_offsets: NDArray[np.int64]
    sex: NDArray[np.int64]
    age_start_years: NDArray[np.float64]
    start_minute: NDArray[np.int64]
    window_minutes: NDArray[np.int64]
    facts: NDArray[np.uint8]
    is_cut: NDArray[np.bool_]
    subject_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.subject_id)

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """(S,) steps of every subject, the one of static facts included."""
        return np.diff(self.step_offsets)

    @property
    def num_events(self) -> NDArray[np.int64]:
        """(S,) events of every subject."""
        return np.diff(self.event_offsets[self.step_offsets])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(S,) steps and events of every subject together: what `max_positions` limits."""
        return self.num_steps + self.num_events

    def attributes(self) -> list[Attributes]:
        """(S,) the attributes of the subjects."""
        columns = (self.sex, self.age_start_years, self.start_minute, self.window_minutes)
        rows = zip(*(column.tolist() for column in columns), self.facts.tolist(), strict=True)
        return [Attributes(sex, age, start, window, tuple(facts)) for sex, age, start, window, facts in rows]

    def step_of_event(self) -> NDArray[np.int64]:
        """(E,) the step that every event stands in."""
        return np.repeat(np.arange(len(self.minute)), np.diff(self.event_offsets))

    def subject_of_step(self) -> NDArray[np.int64]:
        """(T,) the subject that every step belongs to."""
        return np.repeat(np.arange(len(self)), self.num_steps)

    def save(self, folder: Path) -> None:
        """Writes one file per array."""
        files = SequenceFiles(folder)
        files.add(self)
        files.close()

    @classmethod
    def load(cls, folder: Path) -> Sequences:
        """The sequences that `SequenceFiles` wrote, mapped into memory."""
        columns = {}
        for name, form in read_json(folder / _INDEX).items():
            shape, kind = tuple(form["shape"]), np.dtype(form["dtype"])
            path = folder / f"{name}.bin"
            columns[name] = np.memmap(path, kind, "r", shape=shape) if 0 not in shape else np.zeros(shape, kind)
        return cls(**columns)

    @classmethod
    def join(cls, parts: Sequence[Sequences]) -> Sequences:
        """All subjects of several parts, at least one, in their order."""
        names = (*_OF_EVENTS, *_OF_STEPS, *_OF_SUBJECTS)
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        for name in ("event_offsets", "step_offsets"):
            sizes = np.concatenate([np.diff(getattr(part, name)) for part in parts])
            joined[name] = np.concatenate([[0], np.cumsum(sizes)])
        return cls(**joined)

    def take(self, subjects: NDArray[np.int64]) -> Sequences:
        """Some subjects, in the order asked for; their arrays are copied."""
        steps = _ranges(self.step_offsets[:-1][subjects], self.step_offsets[1:][subjects])
        events = _ranges(self.event_offsets[:-1][steps], self.event_offsets[1:][steps])
        chosen = {name: getattr(self, name)[events] for name in _OF_EVENTS}
        chosen |= {name: getattr(self, name)[steps] for name in _OF_STEPS}
        chosen |= {name: getattr(self, name)[subjects] for name in _OF_SUBJECTS}
        chosen["event_offsets"] = np.concatenate([[0], np.cumsum(np.diff(self.event_offsets)[steps])])
        chosen["step_offsets"] = np.concatenate([[0], np.cumsum(self.num_steps[subjects])])
        return Sequences(**chosen)

    def until(self, num_steps: NDArray[np.int64]) -> Sequences:
        """The first steps of every subject, (S,) at least one each, as records that were cut there."""
        steps = _ranges(self.step_offsets[:-1], self.step_offsets[:-1] + num_steps)
        events = _ranges(self.event_offsets[:-1][steps], self.event_offsets[1:][steps])
        kept = {name: getattr(self, name)[events] for name in _OF_EVENTS}
        kept |= {name: getattr(self, name)[steps] for name in _OF_STEPS}
        kept |= {name: getattr(self, name) for name in _OF_SUBJECTS}
        kept["event_offsets"] = np.concatenate([[0], np.cumsum(np.diff(self.event_offsets)[steps])])
        kept["step_offsets"] = np.concatenate([[0], np.cumsum(num_steps)])
        kept["is_cut"] = self.is_cut | (num_steps < self.num_steps)
        return Sequences(**kept)


class SequenceFiles:
    """Sequences that grow on disk, part by part, so that no more than one part is ever in memory.

    Args:
        folder: Made if needed; what it held is replaced.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._paths = {name: folder / f"{name}.bin" for name in _COLUMNS}
        for path in self._paths.values():
            path.write_bytes(b"")
        self._shapes: dict[str, tuple[list[int], str]] = {}
        self._totals = {"event_offsets": 0, "step_offsets": 0}
        self._is_empty = True

    def add(self, part: Sequences) -> None:
        """Appends the subjects of a part."""
        for name, path in self._paths.items():
            array = np.ascontiguousarray(getattr(part, name))
            if name in self._totals:
                total = self._totals[name]
                self._totals[name] = total + int(array[-1])
                array = array + total if self._is_empty else array[1:] + total
            shape = self._shapes.setdefault(name, ([0, *array.shape[1:]], array.dtype.str))[0]
            if shape[1:] != list(array.shape[1:]) or array.dtype.str != self._shapes[name][1]:
                raise ValueError(f"{name} must have the form of the parts before")
            shape[0] += len(array)
            with path.open("ab") as file:
                file.write(array.tobytes())
        self._is_empty = False

    def close(self) -> None:
        """Finishes the files; `Sequences.load` reads them."""
        columns = {name: {"shape": shape, "dtype": kind} for name, (shape, kind) in self._shapes.items()}
        write_json(self._folder / _INDEX, columns)


def _ranges(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integers of all half-open ranges, one range after the other."""
    sizes = np.asarray(stops - starts)
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.zeros(0, np.int64)
    return np.arange(int(sizes.sum())) - np.repeat(before - starts, sizes)


@dataclass(frozen=True)
class SubjectFacts:
    """Per subject of a shard what is not in its token rows: birth (minutes since 1970) and sex index."""

    birth_minute: dict[int, int]
    sex: dict[int, int]


def build_sequences(
    rows: pd.DataFrame,
    token: NDArray[np.int64],
    facts: SubjectFacts,
    vocabulary: Vocabulary,
    scales: Sequence[Scale | None],
    fact_of: NDArray[np.int64],
    max_positions: int,
) -> Sequences | None:
    """The sequences of a shard's subjects that have an event of the vocabulary; None if there is none.

    A record without times is its static facts alone: one step, which starts at 0, and a window of 0 minutes.

    Args:
        rows: Token rows (`medtwin.timelines.reading.rows`).
        token: (rows,) their token, -1 for those outside the vocabulary, which are left out.
        facts: Birth and sex by subject.
        vocabulary: The tokens.
        scales: (V,) of the tokens that carry a number.
        fact_of: (V,) fact that a token names, or -1.
        max_positions: Longer records are cut after the last whole step that fits.
    """
    frame = _sorted_rows(rows, token, vocabulary)
    if not len(frame):
        return None
    index = pd.factorize(frame["subject_id"])[0].astype(np.int64)
    subject = frame["subject_id"].to_numpy()[np.unique(index, return_index=True)[1]]
    whole_facts = np.zeros((len(subject), int(fact_of.max(initial=-1)) + 1), dtype=np.uint8)
    named = fact_of[frame["token"].to_numpy()]
    whole_facts[index[named >= 0], named[named >= 0]] = 1
    step, is_kept = _steps(frame, index, max_positions)
    is_cut = np.zeros(len(subject), dtype=bool)
    is_cut[index[~is_kept]] = True
    frame = frame[is_kept].reset_index(drop=True)
    people = _People(subject, is_cut, whole_facts, facts, vocabulary.where([DEATH]))
    return _arrays(frame, index[is_kept], step[is_kept], people, scales)


@dataclass(frozen=True)
class _People:
    subject: NDArray[np.int64]
    is_cut: NDArray[np.bool_]
    named: NDArray[np.uint8]
    known: SubjectFacts
    death: NDArray[np.int64]


def _sorted_rows(rows: pd.DataFrame, token: NDArray[np.int64], vocabulary: Vocabulary) -> pd.DataFrame:
    known = token >= 0
    frame = rows.loc[known, ["subject_id", "minute", "is_static", "instance", "value", "type"]].copy()
    frame["token"] = token[known]
    frame["encounter"] = pd.factorize(rows["encounter_id"])[0][known]
    frame["root"] = vocabulary.root_of[token[known]]
    frame["late"] = ~frame["is_static"]
    keys = ["subject_id", "late", "minute", "encounter", "root", "instance", "token"]
    return frame.sort_values(keys, kind="stable").reset_index(drop=True)


def _steps(
    frame: pd.DataFrame, index: NDArray[np.int64], max_positions: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Step of every row within its subject, 0 for static facts, and which rows fit, both (rows,)."""
    static = frame["is_static"].to_numpy()
    minute, encounter = frame["minute"].to_numpy(), frame["encounter"].to_numpy()
    new_subject = np.concatenate([[True], index[1:] != index[:-1]])
    changed = np.concatenate([[True], (minute[1:] != minute[:-1]) | (encounter[1:] != encounter[:-1])])
    changed |= new_subject | np.concatenate([[False], static[1:] != static[:-1]])
    new_step = ~static & changed
    first = np.flatnonzero(new_subject)
    steps = np.cumsum(new_step)
    step = steps - (steps[first] - new_step[first])[index]
    place = 1 + (np.arange(len(frame)) - first[index]) + step
    last_of_step = np.maximum.reduceat(place, np.flatnonzero(changed))[np.cumsum(changed) - 1]
    too_long = last_of_step >= max_positions
    # A step is kept whole; the first dated one is kept up to the limit, so that nobody is left without any.
    too_long &= (step > 1) | (place >= max_positions)
    return step, ~too_long


def _arrays(
    frame: pd.DataFrame,
    index: NDArray[np.int64],
    step: NDArray[np.int64],
    people: _People,
    scales: Sequence[Scale | None],
) -> Sequences:
    num = len(people.subject)
    static, minute = frame["is_static"].to_numpy(), frame["minute"].to_numpy()
    num_steps = np.ones(num, dtype=np.int64)
    np.maximum.at(num_steps, index, step + 1)
    step_offsets = np.concatenate([[0], np.cumsum(num_steps)])
    at = step_offsets[index] + step
    sizes = np.bincount(at, minlength=int(step_offsets[-1]))
    start = np.full(num, np.iinfo(np.int64).max)
    np.minimum.at(start, index[~static], minute[~static])
    start[start == np.iinfo(np.int64).max] = 0
    time = np.repeat(start, num_steps)
    time[at[~static]] = minute[~static]
    token = frame["token"].to_numpy()
    value, half_width, has_value = _values(frame, scales)
    memory, is_first = _memory(frame, value, has_value)
    birth = np.array([people.known.birth_minute.get(int(s), -1) for s in people.subject], dtype=np.float64)
    has_birth = np.array([int(s) in people.known.birth_minute for s in people.subject])
    dies = np.zeros(num, dtype=bool)
    dies[index[np.isin(token, people.death) & ~static]] = True
    return Sequences(
        token=token.astype(np.int32),
        value=np.where(has_value, value, 0).astype(np.float32),
        half_width=half_width.astype(np.float32),
        has_value=has_value,
        memory=memory,
        is_first=is_first,
        event_offsets=np.concatenate([[0], np.cumsum(sizes)]),
        minute=time,
        open_minutes=_open_minutes(frame, at, time, step_offsets),
        step_offsets=step_offsets,
        sex=np.array([people.known.sex.get(int(s), 0) for s in people.subject], dtype=np.int64),
        age_start_years=np.where(has_birth, (start - birth) / MINUTES_PER_YEAR, np.nan),
        start_minute=start,
        window_minutes=_windows(people.subject, people.is_cut | dies, time, start, step_offsets),
        facts=people.named,
        is_cut=people.is_cut,
        subject_id=people.subject,
    )


def _windows(
    subject: NDArray[np.int64],
    is_over: NDArray[np.bool_],
    time: NDArray[np.int64],
    start: NDArray[np.int64],
    step_offsets: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Minutes from the start for which each subject is observed, (S,).

    Nobody knows how long a silent record was still looked at: the window ends a random part of the subject's own long
    gap (90th percentile) after the last step, so that stopping is a hazard and not a date. A record that was cut, or
    that ends with death, ends there.
    """
    window = np.zeros(len(subject), dtype=np.int64)
    for row, (first, last) in enumerate(pairwise(step_offsets.tolist())):
        times = np.unique(time[first:last])
        window[row] = times[-1] - start[row]
        if not is_over[row] and len(times) > 1:
            window[row] += int(uniform_of(0, "window", int(subject[row])) * np.quantile(np.diff(times), 0.9))
    return window


def _values(
    frame: pd.DataFrame, scales: Sequence[Scale | None]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Scaled values and half of their rounding, and where there is one, (rows,) each."""
    raw, token = frame["value"].to_numpy(np.float64), frame["token"].to_numpy()
    scaled, half = np.full(len(frame), np.nan), np.zeros(len(frame))
    order = np.argsort(token, kind="stable")
    bounds = np.searchsorted(token[order], np.arange(len(scales) + 1))
    for index, scale in enumerate(scales):
        mine = order[bounds[index] : bounds[index + 1]]
        if scale is not None and len(mine):
            scaled[mine] = np.clip(scale.encode(raw[mine]), -20, 20)
            half[mine] = scale.half_width(raw[mine])
    has_value = np.isfinite(scaled)
    return scaled, np.where(has_value, half, 0.0), has_value


def _memory(
    frame: pd.DataFrame, value: NDArray[np.float64], has_value: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What was said before of each row's token, (rows, 3) as in `Sequences.memory`; and whether it is the first."""
    keys = [frame["subject_id"], frame["token"]]
    first = (frame.groupby(keys).cumcount() == 0).to_numpy()
    series = pd.DataFrame({"value": np.where(has_value, value, 0.0), "n": has_value.astype(np.float64)})
    groups = series.groupby([key.to_numpy() for key in keys])
    total = groups.cumsum().to_numpy() - series.to_numpy()
    latest = series["value"].where(has_value).groupby([key.to_numpy() for key in keys]).ffill()
    before = latest.groupby([key.to_numpy() for key in keys]).shift().fillna(0.0).to_numpy()
    count = total[:, 1]
    mean = np.divide(total[:, 0], count, out=np.zeros_like(count), where=count > 0)
    return np.stack([before, mean, np.log1p(count)], axis=1).astype(np.float32), first


def _open_minutes(
    frame: pd.DataFrame, at: NDArray[np.int64], time: NDArray[np.int64], step_offsets: NDArray[np.int64]
) -> NDArray[np.float32]:
    ends = np.full(len(time), np.iinfo(np.int64).min // 2)
    lengths = frame["value"].to_numpy(np.float64)
    is_encounter = (frame["type"] == "Encounter").to_numpy() & np.isfinite(lengths)
    np.maximum.at(ends, at[is_encounter], time[at[is_encounter]] + lengths[is_encounter].astype(np.int64))
    for start, stop in pairwise(step_offsets.tolist()):
        np.maximum.accumulate(ends[start:stop], out=ends[start:stop])
    return np.maximum(ends - time, 0).astype(np.float32)
