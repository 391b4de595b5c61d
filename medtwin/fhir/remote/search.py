"""A live server read by search: page after page of each type, into NDJSON files that the FHIR reader reads."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

import httpx
import orjson

from medtwin.core.errors import OutputError
from medtwin.core.files import read_json, write_json
from medtwin.core.places import NetworkError
from medtwin.fhir.elements import TABLES
from medtwin.fhir.remote.capability import declared_types, read_capability
from medtwin.fhir.remote.client import FhirClient
from medtwin.fhir.remote.jobs import explain
from medtwin.fhir.remote.places import followed
from medtwin.fhir.remote.settings import ServerSource
from medtwin.fhir.remote.tokens import make_credentials

# Besides the types that become events: what these refer to.
_REFERRED_TO = ("Patient", "Medication", "Practitioner", "PractitionerRole", "Organization", "Location", "Specimen")


@dataclass
class FetchReport:
    """What was fetched.

    Attributes:
        counts: Resources by type.
        notes: What else the server said, counted: outcomes by issue code, resources given twice.
    """

    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def fetch_search(
    chosen: ServerSource,
    folder: Path,
    *,
    on_page: Callable[[int], None] = lambda number: None,
    transport: httpx.BaseTransport | None = None,
) -> FetchReport:
    """Fetches every resource of the chosen types by search; types that an earlier call completed are kept.

    A next page is asked for on the same host only, and at most `max_pages` of a type.

    Args:
        chosen: The server and what to read.
        folder: Where `<Type>.ndjson` go. `<folder>.state.json` beside it says which are complete.
        on_page: Told how many resources each page held.
        transport: For tests: what answers in place of the network.

    Raises:
        NetworkError: If the server cannot be read, or not to the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = FetchState(folder, chosen)
    with FhirClient(chosen, credentials=make_credentials(chosen, transport=transport), transport=transport) as client:
        statement, _ = read_capability(client)
        kinds = [kind for kind in types_to_read(chosen, statement) if kind not in state.done]
        with ThreadPoolExecutor(chosen.concurrency, thread_name_prefix="fetch") as executor:
            try:
                list(executor.map(lambda kind: _fetch_type(client, chosen, kind, folder, (state, on_page)), kinds))
            except BaseException:
                client.pace.stop()
                client.close()
                executor.shutdown(wait=False, cancel_futures=True)
                raise
    return state.report()


def types_to_read(chosen: ServerSource, statement: Mapping[str, Any]) -> list[str]:
    """The resource types to fetch: those asked for, or those that medtwin reads and the server declares.

    Raises:
        NetworkError: If the server declares none of them.
    """
    if chosen.types:
        return list(dict.fromkeys(chosen.types))
    declared = declared_types(statement)
    known = list(dict.fromkeys([*_REFERRED_TO, *TABLES]))
    found = [kind for kind in known if kind in declared] if declared else known
    if "Patient" not in found:
        raise NetworkError("the server declares no Patient: name the resource types with types=[Patient,...]")
    return found


class FetchState:
    """What earlier calls have completed, on disk beside the folder.

    Attributes:
        done: Per type or file that is complete: how many resources it holds, its size and its sha256.
        extra: What the way of fetching wants to remember.

    Raises:
        OutputError: If the folder was begun with other settings.
    """

    def __init__(self, folder: Path, chosen: ServerSource) -> None:
        self._path = folder.with_name(f"{folder.name}.state.json")
        self._lock = threading.Lock()
        self._about = {
            "server": chosen.base(),
            "how": chosen.how,
            "types": sorted(chosen.types),
            "since": chosen.since,
            "level": chosen.level,
            "group": chosen.group,
        }
        self.done: dict[str, dict[str, Any]] = {}
        self.extra: dict[str, Any] = {}
        self.notes: Counter[str] = Counter()
        if self._path.exists():
            state = read_json(self._path)
            if state["about"] != self._about:
                raise OutputError(f"{folder} was begun from another server or for other types: choose another folder")
            self.done, self.extra, self.notes = state["done"], state["extra"], Counter(state["notes"])

    def save(self, name: str | None = None, **done: Any) -> None:
        """Writes what is known, and that a type or file is complete."""
        with self._lock:
            if name is not None:
                self.done[name] = done
            state = {"about": self._about, "done": self.done, "extra": self.extra, "notes": dict(self.notes)}
            write_json(self._path, state)

    def note(self, what: str, number: int = 1) -> None:
        """Counts something that the server said."""
        with self._lock:
            self.notes[what] += number

    def report(self) -> FetchReport:
        """What was fetched, over all calls."""
        counts: Counter[str] = Counter()
        for name, each in self.done.items():
            counts[name.partition(".")[0]] += each["count"]
        return FetchReport(+counts, +self.notes)


def _fetch_type(
    client: FhirClient,
    chosen: ServerSource,
    kind: str,
    folder: Path,
    told: tuple[FetchState, Callable[[int], None]],
) -> None:
    state, on_page = told
    partial = folder / f"{kind}.ndjson.partial"
    query: dict[str, str] = {"_count": str(chosen.page_size)}
    if chosen.since is not None:
        query["_lastUpdated"] = f"ge{chosen.since}"
    with partial.open("wb") as file:
        page = _Pages(client, chosen, kind, file)
        for number in page.read(f"{client.base}/{kind}?{urlencode(query)}"):
            on_page(number)
    for what, number in page.notes.items():
        state.note(what, number)
    if page.num_resources:
        partial.replace(folder / f"{kind}.ndjson")
    else:
        partial.unlink()
    state.save(kind, count=page.num_resources)


class _Pages:
    """The pages of one type, written as they come."""

    def __init__(self, client: FhirClient, chosen: ServerSource, kind: str, file: IO[bytes]) -> None:
        self._client = client
        self._chosen = chosen
        self._kind = kind
        self._file = file
        self._seen: set[bytes] = set()
        self.num_resources = 0
        self.notes: Counter[str] = Counter()

    def read(self, url: str) -> Iterable[int]:
        visited: set[str] = set()
        while url:
            if url in visited:
                raise NetworkError(
                    f"the pages of {self._kind} lead back to one that was read: the server's paging is wrong"
                )
            if len(visited) >= self._chosen.max_pages:
                raise NetworkError(f"{self._kind} has more than max_pages={self._chosen.max_pages} pages: raise it")
            visited.add(url)
            answer = self._client.request("GET", url)
            if answer.status != 200:
                raise NetworkError(f"the server does not let {self._kind} be read: {explain(answer)}; name types=[...]")
            bundle = answer.resource(self._kind)
            if bundle.get("resourceType") != "Bundle":
                raise NetworkError(
                    f"the server answers a search of {self._kind} with no Bundle: is the url its FHIR base?"
                )
            yield self._write(bundle.get("entry") or [])
            url = _next(bundle, answer.url)

    def _write(self, entries: Any) -> int:
        before = self.num_resources
        for entry in entries if isinstance(entries, list) else ():
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict):
                self.notes["entries without a resource"] += 1
            elif resource.get("resourceType") != self._kind:
                self.notes[f"{str(resource.get('resourceType'))[:40]} among the {self._kind}"] += 1
            elif self._is_new(str(resource.get("id"))):
                self._file.write(orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE))
                self.num_resources += 1
            else:
                self.notes[f"{self._kind} given on two pages"] += 1
        if self._file.tell() > self._chosen.max_bytes:
            raise NetworkError(f"{self._kind} is larger than max_bytes={self._chosen.max_bytes:,}: raise it")
        return self.num_resources - before

    def _is_new(self, name: str) -> bool:
        """Pages shift when the server changes meanwhile, and then give a resource twice."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True


def _next(bundle: Mapping[str, Any], url: str) -> str:
    for link in bundle.get("link") or []:
        with suppress(AttributeError):
            if link.get("relation") == "next" and isinstance(link.get("url"), str):
                return followed(link["url"], url, "next page")
    return ""
