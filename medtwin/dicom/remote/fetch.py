"""Studies of a DICOMweb server into a folder that `read_folder` reads: found by QIDO-RS, fetched by WADO-RS.

Source: DICOM PS3.18-2023, 10.4 (Retrieve), 10.6 (Search).
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import requests

from medtwin.core.errors import OutputError
from medtwin.core.files import read_json, write_json
from medtwin.core.patience import Stopped
from medtwin.core.places import NetworkError
from medtwin.core.sources import Ledger, Reject
from medtwin.dicom.remote.instances import FILE_ERRORS
from medtwin.dicom.remote.multipart import BrokenMultipartError, boundary_of, save_part, split_parts
from medtwin.dicom.remote.session import Passing, WebSession
from medtwin.dicom.remote.settings import WebSource
from medtwin.dicom.remote.web import search_all, value_of

_CHUNK = 1 << 20
_STUDY_UID, _SERIES_UID, _MODALITY, _NUM_INSTANCES = "0020000D", "0020000E", "00080060", "00201209"
# As they are kept first; a server that does not know the parameter is asked without it.
_ACCEPTS = (
    'multipart/related; type="application/dicom"; transfer-syntax=*',
    'multipart/related; type="application/dicom"',
)
# How often a series is asked for that comes with fewer objects than the server states.
_LOOKS = 3
_GONE = frozenset({404, 406, 410})


@dataclass(frozen=True)
class FetchReport:
    """What was fetched, over all runs: studies, series, objects, and bytes."""

    num_studies: int
    num_series: int
    num_objects: int
    num_bytes: int


@dataclass(frozen=True)
class _Series:
    """A series that the server says it has, and the number of objects that it states (None: it does not)."""

    study_uid: str
    series_uid: str
    num_stated: int | None

    @property
    def name(self) -> str:
        """Where its files go. A hash: the identifiers of the source stand in no name and no message."""
        return f"{_short(self.study_uid)}/{_short(self.series_uid)}"


def fetch_studies(
    chosen: WebSource, folder: Path, ledger: Ledger, *, on_number: Callable[[int], None] = lambda number: None
) -> FetchReport:
    """Fetches the series that the settings choose; what an earlier call completed is kept, series by series.

    The folder then holds patients as the server has them: it belongs into scratch, not into an output. A series that
    the server lists and does not give, or gives in part, becomes a reject of the ledger.

    Args:
        chosen: The server and what to read.
        folder: Where `<study>/<series>/<object>.dcm` go; `<folder>.state.json` beside it says what is complete.
        ledger: Takes the series that did not come whole.
        on_number: Told how many objects came with each series.

    Raises:
        NetworkError: If the server cannot be used, or has more bytes than max_bytes.
        OutputError: If the folder was begun with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".partial-*"):
        shutil.rmtree(leftover)
    state = _State(folder, chosen)
    session = WebSession(chosen)
    try:
        listed = sorted(_series(session, chosen), key=lambda each: each.name)
        fetch = _Fetch(session, chosen, folder, state)
        with ThreadPoolExecutor(chosen.concurrency, thread_name_prefix="fetch") as executor:
            try:
                for number in executor.map(fetch.series, listed):
                    on_number(number)
            except BaseException:
                session.pace.stop()
                session.close()
                executor.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        session.close()
    _book(listed, state, ledger)
    done = [state.done[each.name] for each in listed]
    return FetchReport(
        num_studies=len({each.study_uid for each in listed}),
        num_series=len(listed),
        num_objects=sum(each["objects"] for each in done),
        num_bytes=sum(each["bytes"] for each in done),
    )


def _book(listed: list[_Series], state: _State, ledger: Ledger) -> None:
    """The series that did not come whole, as rejects; those that came are counted by who reads the files."""
    for each in listed:
        number, status = state.done[each.name]["objects"], state.done[each.name]["status"]
        if status in _GONE:
            rule, reason = "series-not-given", f"the server lists the series, and answers {status} to WADO-RS for it"
        elif each.num_stated is not None and number < each.num_stated:
            rule = "series-incomplete"
            reason = f"the server states {each.num_stated:,} objects, and gave {number:,}: fetch it again later"
        else:
            continue
        ledger.read["DICOM"] += 1
        ledger.reject(Reject(each.name, 0, "DICOM", rule, reason))


def _series(session: WebSession, chosen: WebSource) -> Iterator[_Series]:
    """The series that the settings choose, each once."""
    for study_uid in _studies(session, chosen):
        seen: set[str] = set()
        place = {"study_instance_uid": study_uid}
        for item in search_all(session, "series", place, page_size=chosen.page_size):
            series_uid = _uid(item, _SERIES_UID)
            modality = value_of(item, _MODALITY)
            if series_uid in seen or (chosen.modalities and modality not in chosen.modalities):
                continue
            seen.add(series_uid)
            stated = value_of(item, _NUM_INSTANCES)
            yield _Series(study_uid, series_uid, int(stated) if stated.isdecimal() else None)


def _studies(session: WebSession, chosen: WebSource) -> list[str]:
    """The UIDs of the studies that the settings choose, sorted."""
    filters: dict[str, str] = {}
    first, last = chosen.days()
    if first is not None or last is not None:
        filters["StudyDate"] = "-".join("" if day is None else day.strftime("%Y%m%d") for day in (first, last))
    wanted: list[dict[str, str]] = [filters]
    if chosen.study_uids:
        wanted = [{**filters, "StudyInstanceUID": uid} for uid in dict.fromkeys(chosen.study_uids)]
    elif chosen.modalities:
        wanted = [{**filters, "ModalitiesInStudy": name} for name in dict.fromkeys(chosen.modalities)]
    found: set[str] = set()
    for each in wanted:
        for item in search_all(session, "studies", filters=each, page_size=chosen.page_size):
            found.add(_uid(item, _STUDY_UID))
    if chosen.study_uids:
        found &= set(chosen.study_uids)  # a server that ignores the filter lists all that it has
    return sorted(found)[: chosen.max_studies]


def _uid(item: Mapping[str, Any], tag: str) -> str:
    uid = value_of(item, tag)
    if not 0 < len(uid) <= 64 or not all(part.isascii() and part.isdecimal() for part in uid.split(".")):
        raise NetworkError(f"the server lists an item whose ({tag[:4]},{tag[4:]}) is no UID")
    return uid


class _State:
    """What earlier calls have completed, on disk beside the folder."""

    def __init__(self, folder: Path, chosen: WebSource) -> None:
        self._path = folder.with_name(f"{folder.name}.state.json")
        self._lock = threading.Lock()
        self._about = {
            "server": chosen.base(),
            "modalities": sorted(chosen.modalities),
            "studies": sorted(chosen.study_uids),
            "days": [chosen.date_from, chosen.date_to],
            "max_studies": chosen.max_studies,
        }
        self.done: dict[str, dict[str, int]] = {}
        if self._path.exists():
            state = read_json(self._path)
            if state.get("about") != self._about:
                raise OutputError(f"{folder} was begun from another server or with other filters: remove it, or repeat")
            self.done = state["done"]

    def save(self, name: str, done: dict[str, int]) -> None:
        """Writes that a series is complete."""
        with self._lock:
            self.done[name] = done
            write_json(self._path, {"about": self._about, "done": self.done})

    def num_bytes(self) -> int:
        """Size of all that is complete."""
        with self._lock:
            return sum(each["bytes"] for each in self.done.values())


class _Fetch:
    """Fetches series, each into a folder that appears when it is whole."""

    def __init__(self, session: WebSession, chosen: WebSource, folder: Path, state: _State) -> None:
        self._session = session
        self._chosen = chosen
        self._folder = folder
        self._state = state
        self._accepts = list(_ACCEPTS)

    def series(self, series: _Series) -> int:
        """Fetches one series unless it is there; returns how many objects it has.

        Raises:
            NetworkError: If it cannot be fetched, for a reason that concerns the server as a whole.
        """
        target = self._folder / series.name
        known = self._state.done.get(series.name)
        if known is not None and (known["objects"] == 0 or target.is_dir()):
            return known["objects"]
        partial = self._folder / f".partial-{series.name.replace('/', '-')}"
        done = self._whole(series, partial)
        if done["objects"]:
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.rename(target)
        shutil.rmtree(partial, ignore_errors=True)
        self._state.save(series.name, done)
        return done["objects"]

    def _whole(self, series: _Series, partial: Path) -> dict[str, int]:
        """Fetches until as many objects have come as the server states; in the end, what there is."""
        for look in range(_LOOKS):
            if look:
                self._session.pace.again(look)
            done = self._session.persist(lambda: self._once(series, partial))
            if done["status"] in _GONE or series.num_stated is None or done["objects"] >= series.num_stated:
                break
        return done

    def _once(self, series: _Series, partial: Path) -> dict[str, int]:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        url = f"{self._session.base}/studies/{series.study_uid}/series/{series.series_uid}"
        answer = self._session.request("GET", url, headers={"Accept": self._accepts[0]}, stream=True)
        with answer:
            if answer.status_code in (400, 406) and len(self._accepts) > 1:
                self._accepts = self._accepts[1:]
                raise Passing("the server does not know transfer-syntax=*")
            if answer.status_code in _GONE:
                return {"objects": 0, "bytes": 0, "status": answer.status_code}
            if answer.status_code not in (200, 204, 206):
                raise NetworkError(f"the server answers {answer.status_code} to WADO-RS for a series: check the url")
            num_objects, num_bytes = self._save(answer, partial)
        return {"objects": num_objects, "bytes": num_bytes, "status": answer.status_code}

    def _save(self, answer: requests.Response, partial: Path) -> tuple[int, int]:
        if answer.status_code == 204:
            return 0, 0
        kind = answer.headers.get("Content-Type", "")
        boundary = boundary_of(kind)
        if boundary is None and not kind.startswith("application/dicom"):
            raise NetworkError("the server's answer to WADO-RS holds no DICOM: is the url its DICOMweb base?")
        room = self._chosen.max_bytes - self._state.num_bytes()
        chunks = self._within(answer.iter_content(_CHUNK), room)
        names: set[str] = set()
        size = 0
        try:
            for part in [chunks] if boundary is None else split_parts(chunks, boundary):
                path = partial / ".part"
                with path.open("wb") as file:
                    size += save_part(part, file)
                name = _object_name(path, len(names))
                names.add(name)
                path.replace(partial / name)
        except BrokenMultipartError as error:
            raise Passing("it does not complete its answers") from error
        return len(names), size

    def _within(self, chunks: Iterator[bytes], room: int) -> Iterator[bytes]:
        for chunk in chunks:
            if self._session.pace.is_stopped:
                raise Stopped
            room -= len(chunk)
            if room < 0:
                raise NetworkError(
                    f"the studies are more than max_bytes={self._chosen.max_bytes:,}: choose fewer, or allow more"
                )
            yield chunk


def _object_name(path: Path, number: int) -> str:
    """A file name that is the same however often, and in whatever order, the object comes."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        uid = str(dataset.get("SOPInstanceUID") or "")
    except FILE_ERRORS:
        uid = ""
    return f"{_short(uid)}.dcm" if uid else f"part-{number:05d}.dcm"


def _short(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:24]
