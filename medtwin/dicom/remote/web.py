"""STOW-RS and QIDO-RS: objects to a DICOMweb server, as their files are, and what it then holds.

Source: DICOM PS3.18-2023, 10.5 (Store), 10.6 (Search); PS3.18 annex I.2 (Store Instances Response Module).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient

from medtwin.core.places import NetworkError
from medtwin.dicom.remote.instances import Instance, Outcome, Record
from medtwin.dicom.remote.session import WebSession
from medtwin.dicom.remote.settings import PacsSettings

_CHUNK = 1 << 20
_PAGE = 1_000
_MAX_PAGES = 100_000
_ANSWERED = frozenset({200, 202, 409})
# What may be the fault of one object among those of a request, which are then sent by halves.
_DIVIDES = frozenset({400, 406, 411, 413, 415, 422})
_WRONG_PLACE = frozenset({404, 405, 410, 501})
# PS3.18 table I.2-2; out of resources passes.
_OUT_OF_RESOURCES = "A7"
_DUPLICATE = 0x0111
_SOP_UID = "00080018"


class WebCarrier:
    """Takes objects to a DICOMweb server; safe to share between threads.

    The bodies of requests are the files themselves: what `dicomweb_client.store_instances` would parse, encode again
    and hold three times in memory. Searches go through that client, over the same session.

    Args:
        chosen: The server and how to write to it.

    Raises:
        MedtwinError: For settings that cannot be used.
    """

    def __init__(self, chosen: PacsSettings) -> None:
        self._session = WebSession(chosen)
        self.pace = self._session.pace
        self.about = {"pacs": self._session.base, "by": "STOW-RS"}
        self._retries = chosen.retries

    def close(self) -> None:
        """Ends the connections, requests under way included as soon as they notice."""
        self._session.close()

    def check(self) -> None:
        """Asks the server for one study, which says whether it is there, and takes us.

        Raises:
            NetworkError: If not.
        """
        search(self._session, "studies", limit=1)

    def group_of(self, instance: Instance) -> int:
        """One for all: a request may hold any objects."""
        return 0

    def deliver(self, parcel: Sequence[Instance], record: Record) -> None:
        """Stores objects, and records what became of each.

        Raises:
            NetworkError: For what makes going on senseless.
            Stopped: If the run is being stopped.
        """
        left = dict.fromkeys(parcel, Outcome("refused", "not-confirmed"))
        for attempt in range(self._retries + 1):
            answer = self._session.persist(lambda left=left: self._post(list(left)))  # type: ignore[misc]
            if answer.status_code in _WRONG_PLACE:
                raise NetworkError(
                    f"the server answers {answer.status_code} to STOW-RS: is the url its DICOMweb base, below which "
                    "/studies stands, and does it take objects?"
                )
            if answer.status_code not in _ANSWERED:
                self._refused(list(left), answer.status_code, record)
                return
            unknown, left = _book(list(left), answer, record)
            if len(unknown) > 1:
                self._halves(unknown, record)  # the server does not say which of them it took
            else:
                left |= dict.fromkeys(unknown, Outcome("refused", "not-confirmed"))
            if not left:
                return
            if attempt < self._retries:
                self.pace.again(attempt)
        for each, outcome in left.items():
            record(each, outcome)

    def found(self, study_uid: str, series_uid: str) -> set[str]:
        """The SOP Instance UIDs that the server holds of a series.

        Raises:
            NetworkError: If it cannot be asked.
        """
        place = {"study_instance_uid": study_uid, "series_instance_uid": series_uid}
        return {uid for item in search_all(self._session, "instances", place) if (uid := value_of(item, _SOP_UID))}

    def _refused(self, left: list[Instance], status: int, record: Record) -> None:
        if len(left) > 1:
            self._halves(left, record)
            return
        if status not in _DIVIDES:
            raise NetworkError(f"the server answers {status} to STOW-RS, which is no answer to it: check the url")
        record(left[0], Outcome("refused", f"http-{status}"))

    def _halves(self, left: list[Instance], record: Record) -> None:
        middle = len(left) // 2
        self.deliver(left[:middle], record)
        self.deliver(left[middle:], record)

    def _post(self, instances: list[Instance]) -> requests.Response:
        boundary = f"medtwin-{uuid.uuid4().hex}"
        start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        end = f"--{boundary}--\r\n".encode()
        size = sum(len(start) + each.size + 2 for each in instances) + len(end)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary="{boundary}"',
            "Content-Length": str(size),
            "Accept": "application/dicom+json",
        }
        url = f"{self._session.base}/studies"
        return self._session.request("POST", url, body=lambda: _body(instances, start, end), headers=headers)


def _body(instances: Sequence[Instance], start: bytes, end: bytes) -> Iterator[bytes]:
    for each in instances:
        yield start
        left = each.size
        try:
            with each.path.open("rb") as file:
                while part := file.read(_CHUNK):
                    left -= len(part)
                    yield part
        except OSError as error:
            raise NetworkError(f"{each.name}: cannot be read any more ({type(error).__name__})") from error
        if left:
            raise NetworkError(f"{each.name}: has changed since it was listed; repeat the command")
        yield b"\r\n"
    yield end


def _book(
    sent: list[Instance], answer: requests.Response, record: Record
) -> tuple[list[Instance], dict[Instance, Outcome]]:
    """Records what an answer says of each object; returns those it is silent about, and those to try again."""
    told = _parse_store_response(answer)
    unknown, again = [], {}
    for each in sent:
        outcome = told.get(each.sop_uid)
        if outcome is None and answer.status_code == 200 and not told:
            outcome = Outcome("stored", "200")  # PS3.18 table 10.5.3-1: all were stored; it does not list them
        if outcome is None:
            unknown.append(each)
        elif outcome.state == "refused" and outcome.status.startswith(_OUT_OF_RESOURCES):
            again[each] = outcome
        else:
            record(each, outcome)
    return unknown, again


def _parse_store_response(answer: requests.Response) -> dict[str, Outcome]:
    """Outcomes by SOP Instance UID; nothing where the body cannot be read."""
    try:
        value = json.loads(answer.content) if answer.content else {}
    except (ValueError, UnicodeDecodeError):
        return {}
    told: dict[str, Outcome] = {}
    for item in value if isinstance(value, list) else [value]:
        for each in _sequence(item, "00081199"):
            if uid := value_of(each, "00081155"):
                reason = _code(each, "00081196")
                told[uid] = Outcome("warning", f"{reason:04X}") if reason else Outcome("stored", "0000")
        for each in _sequence(item, "00081198"):
            if uid := value_of(each, "00081155"):
                told[uid] = _failed(_code(each, "00081197"))
    return told


def _failed(reason: int) -> Outcome:
    if reason == _DUPLICATE:  # it holds one already, of an earlier attempt whose answer was lost
        return Outcome("warning", f"{reason:04X}")
    return Outcome("refused", f"{reason:04X}" if reason else "no-reason")


def _sequence(item: Any, tag: str) -> list[Any]:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def value_of(item: Any, tag: str) -> str:
    """The first value of an element of DICOM JSON, as text; empty if there is none.

    >>> value_of({"0020000D": {"vr": "UI", "Value": ["1.2"]}}, "0020000D")
    '1.2'
    """
    values = _sequence(item, tag)
    return str(values[0]).strip() if values and isinstance(values[0], (str, int, float)) else ""


def _code(item: Any, tag: str) -> int:
    text = value_of(item, tag)
    return int(text) if text.isdecimal() else 0


def search(
    session: WebSession,
    level: str,
    place: Mapping[str, str] | None = None,
    filters: Mapping[str, str] | None = None,
    *,
    limit: int,
    offset: int = 0,
) -> list[Mapping[str, Any]]:
    """One page of a QIDO-RS search, in DICOM JSON.

    Args:
        session: Of the server.
        level: `studies`, `series` or `instances`.
        place: Study and series to search in, as dicomweb-client names them.
        filters: Keyword to value.
        limit: Items of the page, at most.
        offset: Items before the page.

    Raises:
        NetworkError: If the server does not answer, or not with DICOM JSON.
    """
    client = DICOMwebClient(session.base, session=_Searching(session), timeout=session.timeout)
    client.set_http_retry_params(retry=False)
    ask = getattr(client, f"search_for_{level}")

    def attempt_once() -> Any:
        try:
            return ask(**(place or {}), search_filters=dict(filters or {}) or None, limit=limit, offset=offset)
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            raise NetworkError(
                f"the server answers {status} to QIDO-RS for {level}: is the url its DICOMweb base?"
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise NetworkError(
                f"the server's answer to QIDO-RS for {level} is no JSON: is the url its DICOMweb base?"
            ) from error

    found = session.persist(attempt_once)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise NetworkError(f"the server's answer to QIDO-RS for {level} is no DICOM JSON: is the url its base?")
    return found


def search_all(
    session: WebSession,
    level: str,
    place: Mapping[str, str] | None = None,
    filters: Mapping[str, str] | None = None,
    page_size: int = _PAGE,
) -> Iterator[Mapping[str, Any]]:
    """All that a QIDO-RS search finds, page by page; a server that does not page is asked once.

    Raises:
        NetworkError: If the server does not answer, or gives pages without end.
    """
    seen: set[str] = set()
    offset = 0
    for _ in range(_MAX_PAGES):
        page = search(session, level, place, filters, limit=page_size, offset=offset)
        new = {key: each for each in page if (key := json.dumps(each, sort_keys=True)) not in seen}
        yield from new.values()
        seen.update(new)
        offset += len(page)
        # A server may give fewer than asked for and have more; one that ignores `offset` gives the same again.
        if not new:
            return
    raise NetworkError(f"the server gives more than {_MAX_PAGES:,} pages of {level}")


class _Searching(requests.Session):
    """The session as dicomweb-client sees it: its requests go through ours, and are judged there."""

    def __init__(self, session: WebSession) -> None:
        super().__init__()
        self._session = session

    def get(self, url: Any, **settings: Any) -> requests.Response:  # type: ignore[override]
        return self._session.request("GET", str(url), headers=settings.get("headers"))
