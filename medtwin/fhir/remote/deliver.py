"""One parcel to the server: sent, divided where it is too large or refused, and every resource accounted for."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from medtwin.core.places import NetworkError
from medtwin.fhir.remote.answers import PASSING, Entry, issues_of, read_entries, what_became
from medtwin.fhir.remote.client import Answer, FhirClient
from medtwin.fhir.remote.entries import conditional_entry, full_url, put_entry, to_bundle
from medtwin.fhir.remote.journal import Failure, Journal, Tally
from medtwin.fhir.remote.packing import Packing, Parcel, halve
from medtwin.fhir.remote.settings import ServerSettings
from medtwin.fhir.remote.store import Line

# These say that the place or the form of the request is wrong, whatever stands in it.
_WRONG_PLACE = frozenset({404, 405, 406, 415, 501})
_HEADERS = {"prefer": "return=minimal"}


class Delivery:
    """Brings parcels to a server and writes in the journal what became of them; safe to share between threads.

    Args:
        client: The server.
        journal: What earlier runs did.
        chosen: How to write.
        started: The server's time when the export began.
        kept: Keys whose server ids are needed beyond their own chain.
    """

    def __init__(
        self,
        client: FhirClient,
        journal: Journal,
        chosen: ServerSettings,
        *,
        started: datetime | None = None,
        kept: Collection[str] = frozenset(),
    ) -> None:
        self._client = client
        self._journal = journal
        self._chosen = chosen
        self._packing = Packing.of(chosen)
        self._started = started
        self._kept = kept
        self._ids: dict[str, str] = {}
        self._failed: set[str] = set()
        self._too_large: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def deliver_chain(self, parcels: Sequence[Parcel]) -> int:
        """Delivers parcels one after the other; returns how many resources were dealt with.

        Raises:
            NetworkError: For what makes going on senseless.
            Stopped: If the run is being stopped.
        """
        ids: dict[str, str] = {}
        for parcel in parcels:
            self._deliver(parcel, ids)
        return sum(map(len, parcels))

    def _deliver(self, parcel: Parcel, ids: dict[str, str]) -> None:
        state = self._journal.state(parcel.digest)
        if state == "divided":
            self._deliver_halves(parcel, ids)
            return
        if state in ("concluded", "continued"):
            tally = self._journal.tally(parcel.digest)
            self._learn(tally, ids)
            failed = [each.key for each in tally.failures]
            if len(failed) < len(parcel):  # else nothing of it is on the server, and it goes once more as a whole
                rest = [*tally.rest, failed] if failed else tally.rest
                self._continue(parcel, replace(tally, failures=[], rest=rest), ids)
                return
        self._journal.record(parcel.digest, "sent")
        self._send(parcel, ids)

    def _continue(self, parcel: Parcel, tally: Tally, ids: dict[str, str]) -> None:
        """Delivers what is left of a parcel as parcels of their own."""
        if not tally.rest:
            return
        self._journal.record(parcel.digest, "continued", tally)
        for keys in map(frozenset, tally.rest):
            self._deliver(Parcel(tuple(line for line in parcel.lines if line.key in keys)), ids)

    def _deliver_halves(self, parcel: Parcel, ids: dict[str, str]) -> None:
        halves = halve(parcel, self._packing)
        assert halves is not None, "only what can be divided is recorded as divided"
        for half in halves:
            self._deliver(half, ids)

    def _send(self, parcel: Parcel, ids: dict[str, str]) -> None:
        """Sends a parcel until each of its resources is confirmed or refused."""
        tally = Tally()
        left = self._without_orphans(parcel.lines, tally)
        for attempt in range(self._client.retries + 1):
            if not left:
                break
            body = self._body(left, ids)
            if self._is_known_too_large(body, left):
                self._divide(parcel, left, tally, ids)
                return
            answer = self._client.request("POST", self._client.base, content=body, headers=_HEADERS)
            if answer.status not in (200, 201):
                self._refused(parcel, left, answer, tally, ids)
                return
            left = self._sort(left, read_entries(answer.resource("a bundle"), len(left)), tally)
            self._learn(tally, ids)
            if left and attempt < self._client.retries:
                self._client.pace.wait(self._client.pace.backoff(attempt))
        tally.failures += [Failure(line.key, 503, ("still-failing",)) for line in left]
        self._conclude(parcel, tally)

    def _refused(self, parcel: Parcel, left: list[Line], answer: Answer, tally: Tally, ids: dict[str, str]) -> None:
        """A request that was refused as a whole: divided, to find which of its resources is to blame."""
        if answer.status == 413:
            self._remember_too_large(self._body(left, ids), left)
            self._divide(parcel, left, tally, ids)
            return
        if answer.status in _WRONG_PLACE and (answer.status != 404 or not self._journal.num("concluded")):
            raise NetworkError(f"the server answers {answer.status} to a bundle: is the url its FHIR base?")
        if halve(Parcel(tuple(left)), self._packing) is not None:
            self._divide(parcel, left, tally, ids)
            return
        outcome = answer.resource("a bundle") if b"OperationOutcome" in answer.body else None
        codes, elements = issues_of(outcome)
        tally.failures += [Failure(line.key, answer.status, codes, elements) for line in left]
        self._conclude(parcel, tally)

    def _divide(self, parcel: Parcel, left: list[Line], tally: Tally, ids: dict[str, str]) -> None:
        if len(left) < len(parcel):
            self._continue(parcel, replace(tally, rest=[[line.key for line in left]]), ids)
            return
        if halve(parcel, self._packing) is None:
            raise NetworkError(_cannot_divide(parcel, self._packing))
        self._journal.record(parcel.digest, "divided")
        self._deliver_halves(parcel, ids)

    def _conclude(self, parcel: Parcel, tally: Tally) -> None:
        with self._lock:
            self._failed.update(each.key for each in tally.failures)
            num_failed = len(self._failed)
        self._journal.record(parcel.digest, "concluded", tally)
        if num_failed > self._chosen.max_failures:
            codes = ", ".join(sorted({code for each in tally.failures for code in each.codes}))
            raise NetworkError(
                f"the server refused {num_failed} resources (the last for: {codes}), more than "
                f"server.max_failures={self._chosen.max_failures}: rejected/rejected.csv lists them"
            )

    def _without_orphans(self, lines: Sequence[Line], tally: Tally) -> list[Line]:
        """The resources whose targets were not refused; the others would point at nothing."""
        left = []
        for line in lines:
            if self._packing.is_ordered and any(target in self._failed for target in line.targets):
                tally.failures.append(Failure(line.key, 0, ("target-refused",)))
                self._failed.add(line.key)
            else:
                left.append(line)
        return left

    def _body(self, lines: Sequence[Line], ids: dict[str, str]) -> bytes:
        if self._chosen.write == "put":
            entries = [put_entry(line, self._client.base) for line in lines]
        else:
            here = {line.key for line in lines}
            entries = []
            for line in lines:
                known = {key: full_url(key) for key in line.targets if key in here}
                known |= {key: found for key in line.targets if (found := self._id(key, ids)) is not None}
                entries.append(conditional_entry(line, known))
        return to_bundle(self._chosen.bundle, entries)

    def _id(self, key: str, ids: dict[str, str]) -> str | None:
        return ids.get(key) or self._ids.get(key)

    def _sort(self, lines: list[Line], entries: list[Entry], tally: Tally) -> list[Line]:
        """Books what the entries say; returns the resources whose fault may pass."""
        is_conditional = self._chosen.write == "if_none_exist"
        again = []
        for line, entry in zip(lines, entries, strict=True):
            if 200 <= entry.status < 300:
                tally.done[line.type, what_became(entry, self._started, is_conditional=is_conditional)] += 1
                if is_conditional and entry.location is not None:
                    tally.ids[line.key] = entry.location
            elif entry.status in PASSING:
                again.append(line)
            else:
                tally.failures.append(Failure(line.key, entry.status, *issues_of(entry.outcome)))
        return again

    def _learn(self, tally: Tally, ids: dict[str, str]) -> None:
        ids.update(tally.ids)
        self._ids.update({key: value for key, value in tally.ids.items() if key in self._kept})

    def _is_known_too_large(self, body: bytes, lines: Sequence[Line]) -> bool:
        """Whether as much, both in entries and in bytes, was refused before: which was too much, nobody told."""
        return len(lines) > 1 and any(len(lines) >= num and len(body) >= size for num, size in self._too_large)

    def _remember_too_large(self, body: bytes, lines: Sequence[Line]) -> None:
        with self._lock:
            if not self._is_known_too_large(body, lines):
                self._too_large.append((len(lines), len(body)))


def _cannot_divide(parcel: Parcel, packing: Packing) -> str:
    size = sum(map(packing.size, parcel.lines))
    if len(parcel) == 1:
        return f"{parcel.lines[0].key} alone, {size:,} bytes, is larger than the server accepts (413)"
    kinds = ", ".join(sorted({line.type for line in parcel.lines}))
    return (
        f"{len(parcel)} resources that refer to each other in a ring ({kinds}), {size:,} bytes, are more than the "
        "server accepts in one request (413): server.integrity=false divides them, if it does not check references"
    )
