"""DICOM files to a PACS: side by side, continued after a kill, and asked for afterwards."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from medtwin.core.files import atomic_file
from medtwin.core.patience import Pace, Stopped
from medtwin.core.places import NetworkError
from medtwin.dicom.remote.dimse import DimseCarrier
from medtwin.dicom.remote.instances import (
    Failure,
    Folder,
    Instance,
    Outcome,
    Record,
    by_series,
    parcels,
    read_instances,
)
from medtwin.dicom.remote.journal import Journal
from medtwin.dicom.remote.settings import PacsSettings
from medtwin.dicom.remote.web import WebCarrier

# How long answers that are on their way get when the run is being stopped.
_GRACE_S = 5.0
# How often a PACS that indexes what it took a moment later is asked again for what is not there yet.
_LOOKS = 4


Way = Literal["dimse", "dicomweb"]


class Carrier(Protocol):
    """A way to a PACS."""

    @property
    def pace(self) -> Pace:
        """The waits that all workers share."""

    @property
    def about(self) -> Mapping[str, str]:
        """Which PACS it is, for the journal."""

    def group_of(self, instance: Instance) -> int:
        """Instances of different groups do not go in one parcel."""

    def check(self) -> None:
        """Asks the PACS whether it is there and takes us."""

    def deliver(self, parcel: Sequence[Instance], record: Record) -> None:
        """Stores objects, and records what became of each."""

    def found(self, study_uid: str, series_uid: str) -> set[str]:
        """The SOP Instance UIDs that the PACS holds of a series."""

    def close(self) -> None:
        """Ends the connections."""


@dataclass(frozen=True)
class SendReport:
    """What became of all objects, over all runs that the journal knows of.

    Attributes:
        counts: Objects by what became of them.
        failures: Those that are not in the PACS.
        num_retries: What was sent or asked again in this run.
    """

    counts: dict[str, int]
    failures: list[Failure]
    num_retries: int


class Sender:
    """Sends files; a context manager, for it holds connections and a journal.

    Asks the PACS whether it takes us before anything is sent. The journal lets a killed or stopped run continue: what
    is confirmed is not sent again; what was on its way is, under the same SOP Instance UID, and comes to the same.

    Args:
        files: DICOM files, each with the name by which messages call it.
        chosen: The PACS and how to write to it.
        by: `dimse` (C-STORE) or `dicomweb` (STOW-RS).
        journal: Where the journal is, or will be.

    Raises:
        MedtwinError: For settings, files or a PACS that cannot be used.
    """

    def __init__(self, files: Iterable[tuple[Path, str]], chosen: PacsSettings, by: Way, journal: Path) -> None:
        self._chosen = chosen
        self._folder: Folder = read_instances(files)
        if not chosen.allow_unmarked:
            self._folder.require_marked()
        self._carrier: Carrier = _carrier(chosen, by, self._folder.instances)
        self._num_refused = 0
        try:
            self._carrier.check()
            self._journal = Journal(journal, self._carrier.about)
        except BaseException:
            self._carrier.close()
            raise

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._carrier.close()
        self._journal.close()

    def __len__(self) -> int:
        return len(self._folder.instances)

    def steps(self) -> Iterator[int]:
        """Sends everything; yields how many objects were dealt with, as it goes.

        Raises:
            NetworkError: For what makes going on senseless; the journal has what was done until then.
        """
        left = []
        for each in self._folder.instances:
            outcome = self._journal.outcome(each)
            if outcome is None or not outcome.is_stored:
                left.append(each)
        yield len(self) - len(left)
        self._num_refused = len(self._folder.unfit)
        yield from self._run(self._parcels(left))

    def verify(self) -> Iterator[int]:
        """Asks the PACS, series by series, whether it holds what it took; yields how many objects were looked for.

        What it does not hold is recorded as missing: it counts as a failure, and the next run sends it again.

        Raises:
            NetworkError: If it cannot be asked.
        """
        for (study_uid, series_uid), instances in by_series(self._folder.instances).items():
            taken = [each for each in instances if (known := self._journal.outcome(each)) and known.is_stored]
            absent = taken
            for look in range(_LOOKS):
                if absent:
                    if look:
                        self._carrier.pace.again(look)
                    held = self._carrier.found(study_uid, series_uid)
                    absent = [each for each in absent if each.sop_uid not in held]
            for each in absent:
                self._journal.record(each, Outcome("missing", "not-found"))
            yield len(instances)

    def report(self) -> SendReport:
        """What became of the objects so far."""
        counts: Counter[str] = Counter()
        failures = list(self._folder.unfit)
        counts["unfit"] = len(failures)
        for each in self._folder.instances:
            outcome = self._journal.outcome(each)
            if outcome is None:
                counts["not sent"] += 1
                continue
            named = {"stored": "stored", "warning": f"stored with warning {outcome.status}"}
            counts[named.get(outcome.state, outcome.state)] += 1
            if not outcome.is_stored:
                failures.append(Failure(each.name, each.sop_uid, outcome.status))
        told = {name: number for name, number in sorted(counts.items()) if number}
        return SendReport(told, failures, self._carrier.pace.num_retries)

    def _parcels(self, left: Sequence[Instance]) -> Iterator[list[Instance]]:
        groups: dict[int, list[Instance]] = {}
        for each in left:
            groups.setdefault(self._carrier.group_of(each), []).append(each)
        for group in groups.values():
            yield from parcels(group, max_instances=self._chosen.max_instances, max_bytes=self._chosen.max_bytes)

    def _record(self, instance: Instance, outcome: Outcome) -> None:
        self._journal.record(instance, outcome)
        if not outcome.is_stored:
            self._num_refused += 1
            if self._num_refused > self._chosen.max_failures:
                raise NetworkError(
                    f"{self._num_refused} objects were refused (the last with {outcome.status}), more than "
                    f"pacs.max_failures={self._chosen.max_failures}: rejected/rejected.csv lists them"
                )

    def _deliver(self, parcel: Sequence[Instance]) -> int:
        self._carrier.deliver(parcel, self._record)
        return len(parcel)

    def _run(self, work: Iterator[list[Instance]]) -> Iterator[int]:
        """Delivers parcels side by side, and all of them before it returns."""
        executor = ThreadPoolExecutor(self._chosen.concurrency, thread_name_prefix="send")
        running: set[Future[int]] = set()
        # pydicom warns of odd values in files that are sent as they are; its filter holds for all threads.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for parcel in work:
                    running.add(executor.submit(self._deliver, parcel))
                    if len(running) > 2 * self._chosen.concurrency:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        yield sum(_results(done))
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield sum(_results(done))
            except BaseException:
                self._stop(running)
                raise
            finally:
                executor.shutdown(wait=True, cancel_futures=True)

    def _stop(self, running: set[Future[int]]) -> None:
        """Lets answers on their way come in for a moment, and then hangs up."""
        self._carrier.pace.stop()
        for future in running:
            future.cancel()
        try:
            wait(running, timeout=_GRACE_S)
        finally:
            self._carrier.close()


def check_pacs(chosen: PacsSettings, by: Way) -> None:
    """Asks a PACS, before there is anything to send, whether it is there and takes us.

    Raises:
        MedtwinError: For settings or a PACS that cannot be used.
    """
    carrier = _carrier(chosen, by, ())
    try:
        carrier.check()
    finally:
        carrier.close()


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Writes rejected.csv of an export: which objects are not in the PACS, and why."""
    with atomic_file(path, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "sop_instance_uid", "status"])
        for each in sorted(failures, key=lambda failure: failure.name):
            writer.writerow([each.name, each.sop_uid, each.status])


def _carrier(chosen: PacsSettings, by: Way, instances: Sequence[Instance]) -> Carrier:
    return DimseCarrier(chosen, instances) if by == "dimse" else WebCarrier(chosen)


def _results(done: Iterable[Future[int]]) -> list[int]:
    """The results of finished parcels; the error that began it all, before those that only followed."""
    errors = [error for future in done if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda each: isinstance(each, Stopped)):
        raise error
    return [future.result() for future in done]
