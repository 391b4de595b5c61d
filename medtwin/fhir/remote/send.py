"""A folder of NDJSON to a FHIR server: what is shared first, then the subjects side by side, then the rest."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import httpx

from medtwin.core.files import atomic_file
from medtwin.core.patience import Stopped
from medtwin.fhir.remote.capability import read_capability, require_capability
from medtwin.fhir.remote.client import FhirClient
from medtwin.fhir.remote.deliver import Delivery
from medtwin.fhir.remote.journal import Failure, Journal
from medtwin.fhir.remote.packing import Packing, Parcel, pack
from medtwin.fhir.remote.settings import ServerSettings
from medtwin.fhir.remote.store import ResourceStore
from medtwin.fhir.remote.tokens import make_credentials

# How long answers that are on their way get when the run is being stopped.
_GRACE_S = 5.0


@dataclass(frozen=True)
class SendReport:
    """What became of all resources, over all runs that the journal knows of.

    Attributes:
        counts: By type and by what happened: `Patient created`, `Observation updated`, `Encounter refused`, ...
        failures: The resources that the server did not take.
        num_retries: Requests sent again in this run.
    """

    counts: dict[str, int]
    failures: list[Failure]
    num_retries: int


class Sender:
    """Sends a folder; a context manager, for it holds connections and a journal.

    Asks the server what it can do before anything is sent. The journal lets a killed or stopped run continue: what is
    confirmed is not sent again, what was on its way is, and comes to the same.

    Args:
        folder: NDJSON files.
        chosen: The server and how to write to it.
        journal: Where the journal is, or will be.
        transport: For tests: what answers in place of the network.

    Raises:
        MedtwinError: For settings, resources or a server that cannot be used.
    """

    def __init__(
        self, folder: Path, chosen: ServerSettings, journal: Path, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._chosen = chosen
        self._store = ResourceStore(folder)
        if not chosen.allow_untagged:
            self._store.require_tagged()
        self._client = FhirClient(
            chosen, credentials=make_credentials(chosen, transport=transport), transport=transport
        )
        try:
            statement, clock = read_capability(self._client)
            if chosen.check_capability:
                require_capability(statement, chosen, self._store.counts)
            about = {"server": chosen.base(), "write": chosen.write, "bundle": chosen.bundle}
            self._journal = Journal(journal, about)
        except BaseException:
            self._client.close()
            raise
        started = self._journal.start(clock.isoformat() if clock is not None else "")
        moment = datetime.fromisoformat(started) if started else None
        self._shared, self._last = self._store.shared(), self._store.last()
        kept = {line.key for line in self._shared} | {key for line in self._last for key in line.targets}
        self._delivery = Delivery(self._client, self._journal, chosen, started=moment, kept=kept)

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._journal.close()

    def __len__(self) -> int:
        return len(self._store)

    def steps(self) -> Iterator[int]:
        """Sends everything; yields how many resources were dealt with, as it goes.

        Raises:
            NetworkError: For what makes going on senseless; the journal has what was done until then.
            ConfigError: If resources cannot be divided into requests of the size that is allowed.
        """
        packing = Packing.of(self._chosen)
        for groups in ([self._shared], self._store.subjects(), [self._last]):
            yield from self._run(pack((group for group in groups if group), packing))

    def report(self) -> SendReport:
        """What became of the resources so far."""
        total = self._journal.total()
        counts = {f"{kind} {what}": number for (kind, what), number in total.done.items()}
        for failure in total.failures:
            name = f"{failure.key.partition('/')[0]} refused"
            counts[name] = counts.get(name, 0) + 1
        return SendReport(dict(sorted(counts.items())), total.failures, self._client.num_retries)

    def _run(self, chains: Iterable[list[Parcel]]) -> Iterator[int]:
        """Delivers chains side by side, and all of them before it returns."""
        executor = ThreadPoolExecutor(self._chosen.concurrency, thread_name_prefix="send")
        running: set[Future[int]] = set()
        try:
            for chain in chains:
                running.add(executor.submit(self._delivery.deliver_chain, chain))
                if len(running) > 2 * self._chosen.concurrency:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from _results(done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from _results(done)
        except BaseException:
            self._stop(running)
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _stop(self, running: set[Future[int]]) -> None:
        """Lets answers on their way come in for a moment, and then hangs up."""
        self._client.pace.stop()
        for future in running:
            future.cancel()
        try:
            wait(running, timeout=_GRACE_S)
        finally:
            self._client.close()


def check_server(chosen: ServerSettings) -> None:
    """Asks a server, before there is anything to send, whether it is there, speaks R4 and does what we need.

    Raises:
        MedtwinError: For settings or a server that cannot be used.
    """
    with FhirClient(chosen, credentials=make_credentials(chosen)) as client:
        statement, _ = read_capability(client)
        if chosen.check_capability:
            require_capability(statement, chosen, ())


def _results(done: Iterable[Future[int]]) -> list[int]:
    """The results of finished chains; the error that began it all, before those that only followed."""
    errors = [error for future in done if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda each: isinstance(each, Stopped)):
        raise error
    return [future.result() for future in done]


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Writes rejected.csv of an export: what the server did not take, and why, in codes alone."""
    with atomic_file(path, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["resource", "id", "status", "rule", "elements"])
        for each in sorted(failures, key=lambda failure: failure.key):
            kind, _, name = each.key.partition("/")
            writer.writerow([kind, name, each.status, " ".join(each.codes), " ".join(each.elements)])
