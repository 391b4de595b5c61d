"""Timelines as arrays: positions of one subject after the other, in memory-mapped files.

A sequence is BOS, the static facts, then for every step a STEP position (its time) and its EVENT positions. A step is
one time and one encounter; within it events stand in the order of the vocabulary, children after their event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medtwin.core.seeds import uniform_of
from medtwin.timelines.attributes import Attributes
from medtwin.timelines.scales import Scale
from medtwin.timelines.vocabulary import Vocabulary

PAD, BOS, STEP, EVENT = 0, 1, 2, 3


@dataclass(frozen=True)
class Sequences:
    """The positions of many subjects, P in all, of S subjects.

    Attributes:
        kind: (P,) BOS, STEP or EVENT.
        token: (P,) of an EVENT, else 0.
        value: (P,) scaled number of an EVENT, 0 where it has none.
        has_value: (P,) whether it has one.
        minute: (P,) time of the step, minutes since 1970; of BOS and static facts the subject's start.
        open_minutes: (P,) minutes until the last-ending encounter named so far ends; 0: none is open.
        memory: (P, 3) of an EVENT: the token's last scaled value, its mean so far, log(1 + number of values) before.
        is_first: (P,) whether the subject's record says the token for the first time.
        offsets: (S + 1,) first position of every subject.
        sex, age_start_years, start_minute, window_minutes: (S,) attributes; see `_windows`.
        conditions: (S, K) index conditions.
        is_cut: (S,) whether the record goes on after the last step kept.
        subject_id: (S,).
    """

    kind: NDArray[np.uint8]
    token: NDArray[np.int32]
    value: NDArray[np.float32]
    has_value: NDArray[np.bool_]
    minute: NDArray[np.int64]
    open_minutes: NDArray[np.float32]
    memory: NDArray[np.float32]
    is_first: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    sex: NDArray[np.int64]
    age_start_years: NDArray[np.float64]
    start_minute: NDArray[np.int64]
    window_minutes: NDArray[np.int64]
    conditions: NDArray[np.uint8]
    is_cut: NDArray[np.bool_]
    subject_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.subject_id)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(S,) positions of every subject."""
        return np.diff(self.offsets)

    def attributes(self) -> list[Attributes]:
        """(S,) the attributes of the subjects."""
        columns = (self.sex, self.age_start_years, self.start_minute, self.window_minutes)
        plain = [column.tolist() for column in columns]
        rows = zip(*plain, self.conditions.tolist(), strict=True)
        return [Attributes(sex, age, start, window, tuple(flags)) for sex, age, start, window, flags in rows]

    def save(self, folder: Path) -> None:
        """Writes one .npy file per array."""
        folder.mkdir(parents=True, exist_ok=True)
        for column in fields(self):
            np.save(folder / f"{column.name}.npy", getattr(self, column.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Sequences:
        """The sequences that `save` wrote, memory-mapped."""
        return cls(
            **{c.name: np.load(folder / f"{c.name}.npy", mmap_mode="r", allow_pickle=False) for c in fields(cls)}
        )

    @classmethod
    def join(cls, parts: Sequence[Sequences]) -> Sequences:
        """All subjects of several parts, at least one, in their order."""
        joined = {
            column.name: np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(cls)
            if column.name != "offsets"
        }
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(**joined, offsets=np.concatenate([[0], np.cumsum(lengths)]))


@dataclass(frozen=True)
class SubjectFacts:
    """Per subject of a shard what is not in its token rows: birth (minutes since 1970 or nan) and sex index."""

    birth_minute: dict[int, int]
    sex: dict[int, int]


def build_sequences(
    rows: pd.DataFrame,
    token: NDArray[np.int64],
    facts: SubjectFacts,
    vocabulary: Vocabulary,
    scales: Sequence[Scale | None],
    condition_of: NDArray[np.int64],
    max_positions: int,
) -> Sequences | None:
    """The sequences of a shard's subjects that have a dated event; None if there is none.

    Args:
        rows: Token rows (`medtwin.timelines.rows`).
        token: (rows,) their token, -1 for those outside the vocabulary, which are left out.
        facts: Birth and sex by subject.
        vocabulary: The tokens.
        scales: (V,) of the tokens that carry a number.
        condition_of: (V,) index condition of a token, or -1.
        max_positions: Longer records are cut after the last whole step that fits.
    """
    frame = _sorted_rows(rows, token, vocabulary)
    dated = set(frame.loc[~frame["is_static"], "subject_id"].unique().tolist())
    frame = frame[frame["subject_id"].isin(dated)].reset_index(drop=True)
    if not len(frame):
        return None
    subject, start_of = np.unique(frame["subject_id"].to_numpy(), return_index=True)
    order = np.argsort(start_of)
    subject = subject[order]
    placed, is_cut = _positions(frame, max_positions)
    frame = frame[placed >= 0].reset_index(drop=True)
    return _arrays(frame, placed[placed >= 0], subject, is_cut, facts, scales, condition_of)


def _sorted_rows(rows: pd.DataFrame, token: NDArray[np.int64], vocabulary: Vocabulary) -> pd.DataFrame:
    known = token >= 0
    frame = rows.loc[known, ["subject_id", "minute", "is_static", "instance", "value", "type"]].copy()
    frame["token"] = token[known]
    frame["encounter"] = pd.factorize(rows["encounter_id"])[0][known]
    frame["root"] = vocabulary.root_of[token[known]]
    frame["late"] = ~frame["is_static"]
    keys = ["subject_id", "late", "minute", "encounter", "root", "instance", "token"]
    return frame.sort_values(keys, kind="stable").reset_index(drop=True)


def _positions(frame: pd.DataFrame, max_positions: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Position of every row within its subject, -1 where it is cut off, and which subjects were cut, in their order."""
    subject, static = frame["subject_id"].to_numpy(), frame["is_static"].to_numpy()
    minute, encounter = frame["minute"].to_numpy(), frame["encounter"].to_numpy()
    new_subject = np.concatenate([[True], subject[1:] != subject[:-1]])
    changed = np.concatenate([[True], (minute[1:] != minute[:-1]) | (encounter[1:] != encounter[:-1])])
    changed |= new_subject | np.concatenate([[False], static[1:] != static[:-1]])
    new_step = ~static & changed
    index = np.cumsum(new_subject) - 1
    first = np.flatnonzero(new_subject)
    steps = np.cumsum(new_step)
    step_in_subject = steps - (steps[first] - new_step[first])[index]
    place = 1 + (np.arange(len(frame)) - first[index]) + step_in_subject
    last_of_step = np.maximum.reduceat(place, np.flatnonzero(changed))[np.cumsum(changed) - 1]
    too_long = last_of_step >= max_positions
    # A step is kept whole; the first dated one is kept up to the limit, so that nobody is left without any.
    too_long &= (step_in_subject > 1) | (place >= max_positions)
    is_cut = np.zeros(index[-1] + 1, dtype=bool)
    is_cut[index[too_long]] = True
    return np.where(too_long, -1, place), is_cut


def _arrays(
    frame: pd.DataFrame,
    place: NDArray[np.int64],
    subject: NDArray[np.int64],
    is_cut: NDArray[np.bool_],
    facts: SubjectFacts,
    scales: Sequence[Scale | None],
    condition_of: NDArray[np.int64],
) -> Sequences:
    index = np.searchsorted(subject, frame["subject_id"].to_numpy())
    lengths = np.zeros(len(subject), dtype=np.int64)
    np.maximum.at(lengths, index, place + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    at = offsets[index] + place
    static = frame["is_static"].to_numpy()
    minute = frame["minute"].to_numpy()
    start = np.full(len(subject), np.iinfo(np.int64).max)
    np.minimum.at(start, index[~static], minute[~static])
    size = int(offsets[-1])
    kind = np.full(size, STEP, dtype=np.uint8)
    kind[at], kind[offsets[:-1]] = EVENT, BOS
    token = np.zeros(size, dtype=np.int32)
    token[at] = frame["token"].to_numpy()
    value, has_value = _values(frame, scales)
    scaled, flags = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=bool)
    scaled[at], flags[at] = np.where(has_value, value, 0), has_value
    time = np.full(size, -1, dtype=np.int64)
    time[at] = np.where(static, start[index], minute)
    time[offsets[:-1]] = start
    steps = np.flatnonzero(kind == STEP)
    time[steps] = time[steps + 1]
    memory, first = _memory(frame, value, has_value)
    whole_memory, whole_first = np.zeros((size, 3), dtype=np.float32), np.zeros(size, dtype=bool)
    whole_memory[at], whole_first[at] = memory, first
    conditions = np.zeros((len(subject), int(condition_of.max(initial=-1)) + 1), dtype=np.uint8)
    named = condition_of[frame["token"].to_numpy()]
    conditions[index[named >= 0], named[named >= 0]] = 1
    birth = np.array([facts.birth_minute.get(int(s), -1) for s in subject], dtype=np.float64)
    has_birth = np.array([int(s) in facts.birth_minute for s in subject])
    return Sequences(
        kind=kind,
        token=token,
        value=scaled,
        has_value=flags,
        minute=time,
        open_minutes=_open_minutes(frame, at, index, time, offsets),
        memory=whole_memory,
        is_first=whole_first,
        offsets=offsets,
        sex=np.array([facts.sex.get(int(s), 0) for s in subject], dtype=np.int64),
        age_start_years=np.where(has_birth, (start - birth) / 525_960.0, np.nan),
        start_minute=start,
        window_minutes=_windows(subject, is_cut, index[~static], minute[~static], start),
        conditions=conditions,
        is_cut=is_cut,
        subject_id=subject,
    )


def _windows(
    subject: NDArray[np.int64],
    is_cut: NDArray[np.bool_],
    index: NDArray[np.int64],
    minute: NDArray[np.int64],
    start: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Minutes from the start for which each subject is observed, (S,).

    Nobody knows how long a silent record was still looked at: the window ends a random part of the subject's own long
    gap (90th percentile) after the last step, so that stopping is a hazard and not a date. A cut record ends there.
    """
    window = np.zeros(len(subject), dtype=np.int64)
    bounds = np.searchsorted(index, np.arange(len(subject) + 1))
    for row, (first, last) in enumerate(pairwise(bounds.tolist())):
        times = np.unique(minute[first:last])
        window[row] = times[-1] - start[row]
        if not is_cut[row] and len(times) > 1:
            window[row] += int(uniform_of(0, "window", int(subject[row])) * np.quantile(np.diff(times), 0.9))
    return window


def _values(frame: pd.DataFrame, scales: Sequence[Scale | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scaled values, (rows,), and where there is one."""
    raw, token = frame["value"].to_numpy(np.float64), frame["token"].to_numpy()
    scaled = np.full(len(frame), np.nan)
    for index in np.unique(token[np.isfinite(raw)]):
        scale = scales[index]
        if scale is not None:
            mine = token == index
            scaled[mine] = np.clip(scale.encode(raw[mine]), -20, 20)
    return scaled, np.isfinite(scaled)


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
    frame: pd.DataFrame,
    at: NDArray[np.int64],
    index: NDArray[np.int64],
    time: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> NDArray[np.float32]:
    ends = np.full(len(time), np.iinfo(np.int64).min // 2)
    lengths = frame["value"].to_numpy(np.float64)
    is_encounter = (frame["type"] == "Encounter").to_numpy() & np.isfinite(lengths)
    ends[at[is_encounter]] = frame["minute"].to_numpy()[is_encounter] + lengths[is_encounter].astype(np.int64)
    for start, stop in pairwise(offsets.tolist()):
        np.maximum.accumulate(ends[start:stop], out=ends[start:stop])
    return np.maximum(ends - time, 0).astype(np.float32)
