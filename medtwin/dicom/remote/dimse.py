"""C-STORE over associations that are kept; C-ECHO before, C-FIND afterwards.

Source: DICOM PS3.4-2023 annexes A, B, C; PS3.7 9.1; PS3.8 7.1 and 9.3.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from medtwin.core.patience import Pace, Stopped
from medtwin.core.places import NetworkError
from medtwin.dicom.remote.instances import FILE_ERRORS, Instance, Outcome, Record
from medtwin.dicom.remote.session import tls_context
from medtwin.dicom.remote.settings import PacsSettings
from medtwin.dicom.uids import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION

MAX_CONTEXTS = 128
"""PS3.8 9.3.2.2: the odd numbers from 1 to 255."""

_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007})
"""PS3.4 table B.2-1 and PS3.7 annex C: stored, and something to say."""

_DUPLICATE = 0x0111
_PENDING = frozenset({0xFF00, 0xFF01})
_REJECTED = {
    (1, 2): "does not support the application context",
    (1, 3): "does not know our AE title: register calling_aet there, or use one that it knows",
    (1, 7): "is not called that: check called_aet",
    (2, 2): "does not support this version of the protocol",
}
"""PS3.8 table 9-21, by source and reason."""


class _DroppedError(Exception):
    """The association ended under us, or the answer did not come in time."""


class _NothingAcceptedError(NetworkError):
    """The PACS accepts the association, and none of its presentation contexts."""


class DimseCarrier:
    """Takes objects to a PACS by C-STORE; safe to share between threads, each of which uses its own associations.

    An association is kept for the next objects. Every SOP class is offered in the transfer syntaxes of its files, one
    to a presentation context, so that the PACS cannot choose among them; what is not compressed also in Implicit VR
    Little Endian, which every PACS takes (PS3.5 10.1).

    Args:
        chosen: The PACS and how to write to it.
        instances: All that will be sent.

    Raises:
        MedtwinError: For settings that cannot be used.
    """

    def __init__(self, chosen: PacsSettings, instances: Sequence[Instance]) -> None:
        self._host, self._port = chosen.peer()
        self._chosen = chosen
        self.pace = Pace(chosen.max_wait_s)
        self.about = {"pacs": f"{self._host}:{self._port}", "called_aet": chosen.called_aet.strip(), "by": "C-STORE"}
        self._tls = (tls_context(chosen), self._host) if chosen.tls else None
        self._ae = AE(ae_title=chosen.calling_aet.strip())
        self._ae.implementation_class_uid = IMPLEMENTATION_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION
        self._ae.connection_timeout = chosen.connect_timeout_s
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = chosen.read_timeout_s
        self._groups = context_groups(instances)
        self._lock = threading.Lock()
        self._idle: dict[int, list[Association]] = {}
        self._open: set[Association] = set()
        self._is_closed = False

    def close(self) -> None:
        """Ends the associations: idle ones are released, those at work aborted."""
        with self._lock:
            self._is_closed = True
            idle = [each for group in self._idle.values() for each in group]
            busy = self._open - set(idle)
            self._idle.clear()
        for association in idle:
            if association.is_established:
                association.release()
        for association in busy:
            association.abort()
            # Who waits for an answer would else wait for it until dimse_timeout.
            association.dimse.msg_queue.put((None, None))

    def check(self) -> None:
        """C-ECHO.

        Raises:
            NetworkError: If the PACS cannot be reached, rejects us, or does not answer.
        """
        with _quiet_sockets():
            association = self._persist([build_context(Verification)])
        try:
            answer = association.send_c_echo()
            if answer.get("Status") != 0:
                raise NetworkError(f"{self._name()} accepts an association, and does not answer C-ECHO with success")
        finally:
            self._end(association)

    def group_of(self, instance: Instance) -> int:
        """Which association can take an instance: there are more than one where SOP classes are very many."""
        return self._groups[instance.sop_class, instance.syntax][0]

    def deliver(self, parcel: Sequence[Instance], record: Record) -> None:
        """Stores objects that one association can take, one by one, and records what became of each.

        Raises:
            NetworkError: For what makes going on senseless.
            Stopped: If the run is being stopped.
        """
        left = list(parcel)
        attempt = 0
        while left:
            association = self._take(self.group_of(left[0]))
            try:
                while left:
                    outcome = self._store(association, left[0])
                    if outcome.state == "refused" and outcome.status.startswith("A7") and attempt < self._retries:
                        self.pace.again(attempt)
                        attempt += 1
                        continue
                    record(left.pop(0), outcome)
                    attempt = 0
            except _DroppedError as error:
                self._end(association)
                if attempt >= self._retries:  # it drops this object again and again, and accepts associations
                    record(left.pop(0), Outcome("refused", "dropped"))
                    attempt = 0
                    continue
                self._again(attempt, error)
                attempt += 1
            except BaseException:
                self._end(association)
                raise
            else:
                self._give_back(self.group_of(parcel[0]), association)

    def found(self, study_uid: str, series_uid: str) -> set[str]:
        """The SOP Instance UIDs that the PACS holds of a series, by C-FIND (Study Root, IMAGE level).

        Raises:
            NetworkError: If it cannot be asked.
        """
        for attempt in range(self._retries + 1):
            try:
                with _quiet_sockets():
                    association = self._persist([build_context(StudyRootQueryRetrieveInformationModelFind)])
            except _NothingAcceptedError as error:
                raise NetworkError(f"{self._name()} does not take C-FIND from us: use pacs.verify=false") from error
            try:
                return self._find(association, study_uid, series_uid)
            except _DroppedError as error:
                if attempt < self._retries:
                    self._again(attempt, error)
            finally:
                self._end(association)
        raise NetworkError(f"{self._name()} does not answer C-FIND: use pacs.verify=false, or repeat the command later")

    @property
    def _retries(self) -> int:
        return self._chosen.retries

    def _name(self) -> str:
        return f"the PACS at {self._host}:{self._port}"

    def _find(self, association: Association, study_uid: str, series_uid: str) -> set[str]:
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study_uid, series_uid, ""
        found: set[str] = set()
        with _raising_dropped():
            for status, item in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
                if "Status" not in status:
                    raise _DroppedError
                if status.Status in _PENDING:
                    if item is not None and item.get("SOPInstanceUID"):
                        found.add(str(item.SOPInstanceUID))
                elif status.Status != 0:
                    raise NetworkError(
                        f"{self._name()} answers C-FIND with {status.Status:04X}: use pacs.verify=false if it is not "
                        "meant to be asked"
                    )
        return found

    def _store(self, association: Association, instance: Instance) -> Outcome:
        accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}
        offered = self._groups[instance.sop_class, instance.syntax][1]
        if not any((cx.abstract_syntax, cx.transfer_syntax[0]) in accepted for cx in offered):
            return Outcome("refused", "context-not-accepted")
        try:
            dataset = pydicom.dcmread(instance.path)
        except FILE_ERRORS as error:
            raise NetworkError(f"{instance.name}: cannot be read any more ({type(error).__name__})") from error
        with _raising_dropped():
            answer = association.send_c_store(dataset)
        if "Status" not in answer:
            raise _DroppedError
        return _outcome(int(answer.Status))

    def _take(self, group: int) -> Association:
        """An association for a group: one that is idle, else a new one."""
        with self._lock:
            while idle := self._idle.get(group):
                association = idle.pop()
                if association.is_established:
                    return association
                self._open.discard(association)
        contexts = [cx for number, offered in self._groups.values() if number == group for cx in offered]
        unique = {(str(cx.abstract_syntax), *map(str, cx.transfer_syntax)): cx for cx in contexts}
        return self._persist(list(unique.values()))

    def _give_back(self, group: int, association: Association) -> None:
        with self._lock:
            if not self._is_closed and association.is_established:
                self._idle.setdefault(group, []).append(association)
                return
        self._end(association)

    def _end(self, association: Association) -> None:
        with self._lock:
            self._open.discard(association)
        if association.is_established:
            association.release()
        _close_socket(association)

    def _persist(self, contexts: list[PresentationContext]) -> Association:
        """A new association, once a fault that may pass has passed."""
        for attempt in range(self._retries + 1):
            self.pace.wait()
            association, reason = self._associate(contexts)
            if reason is None:
                with self._lock:
                    self._open.add(association)
                return association
            if attempt < self._retries:
                self._again(attempt)
        raise NetworkError(
            f"{self._name()} {reason} after {self._retries + 1} attempts: repeat the command later, it continues "
            "where it was"
        )

    def _associate(self, contexts: list[PresentationContext]) -> tuple[Association, str | None]:
        """An association, and what fault that may pass kept it from being established."""
        connected = threading.Event()
        # A context remembers the answer of an association, so each association has its own.
        own = [build_context(cx.abstract_syntax or "", list(cx.transfer_syntax)) for cx in contexts]
        try:
            association = self._ae.associate(
                self._host,
                self._port,
                contexts=own,
                ae_title=self._chosen.called_aet.strip(),
                max_pdu=self._chosen.max_pdu,
                tls_args=self._tls,
                evt_handlers=[(evt.EVT_CONN_OPEN, lambda event: connected.set())],
            )
        except OSError as error:  # the name of the host
            raise NetworkError(f"{self._host} is not known: check pacs.host") from error
        if association.is_established:
            return association, None
        _close_socket(association)
        if association.is_rejected:
            self._raise_if_lasting(association.acceptor.primitive)
            return association, "rejects associations"
        if not association.accepted_contexts and association.rejected_contexts:
            raise _NothingAcceptedError(f"{self._name()} accepts none of the {len(own)} kinds of objects offered to it")
        if connected.is_set():
            return association, "hangs up when an association is requested"
        return association, "cannot be reached" if self._tls is None else "cannot be reached, or not by TLS"

    def _raise_if_lasting(self, answer: Any) -> None:
        if answer is None or answer.result != 1:
            return
        why = _REJECTED.get((answer.result_source, answer.diagnostic), "rejects our associations for good")
        raise NetworkError(f"{self._name()} {why}")

    def _again(self, attempt: int, error: Exception | None = None) -> None:
        if self.pace.is_stopped:
            raise Stopped from error
        self.pace.again(attempt)


def context_groups(
    instances: Sequence[Instance],
) -> dict[tuple[str, str], tuple[int, list[PresentationContext]]]:
    """For each SOP class and transfer syntax: which association it goes over, and what is offered there for it.

    No association is asked for more than 128 presentation contexts.
    """
    groups: dict[tuple[str, str], tuple[int, list[PresentationContext]]] = {}
    number, offered = 0, set[tuple[str, str]]()
    for sop_class, syntax in sorted({(each.sop_class, each.syntax) for each in instances}):
        wanted = [syntax]
        if UID(syntax) == ExplicitVRLittleEndian:
            wanted.append(ImplicitVRLittleEndian)
        new = {(sop_class, each) for each in wanted}
        if len(offered | new) > MAX_CONTEXTS:
            number, offered = number + 1, set()
        offered |= new
        groups[sop_class, syntax] = (number, [build_context(sop_class, each) for each in wanted])
    return groups


def _close_socket(association: Association) -> None:
    """Closes the socket of an association that has ended; pynetdicom leaves some to the garbage collector."""
    holder = association.dul.socket
    if holder is not None and holder.socket is not None:
        with contextlib.suppress(OSError):
            holder.socket.close()


@contextlib.contextmanager
def _quiet_sockets() -> Iterator[None]:
    """Keeps quiet that pynetdicom leaves a socket that could not connect to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@contextlib.contextmanager
def _raising_dropped() -> Iterator[None]:
    """Takes RuntimeError and OSError as what they are here: pynetdicom's words for an association that has ended."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise _DroppedError from error


def _outcome(status: int) -> Outcome:
    if status == 0:
        return Outcome("stored", "0000")
    is_stored = status in _WARNINGS or status == _DUPLICATE
    return Outcome("warning" if is_stored else "refused", f"{status:04X}")
