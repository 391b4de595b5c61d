"""A live server read by Bulk Data Access: started, asked after, its files fetched side by side, and then cleared away.

Source: HL7 Bulk Data Access 2.0 (STU 2), export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx
import orjson

from medtwin.core.files import file_digest
from medtwin.core.places import NetworkError, is_loopback, origin
from medtwin.fhir.remote.answers import PASSING, issues_of
from medtwin.fhir.remote.capability import read_capability
from medtwin.fhir.remote.client import FhirClient
from medtwin.fhir.remote.jobs import explain, kick_off, poll
from medtwin.fhir.remote.search import FetchReport, FetchState, types_to_read
from medtwin.fhir.remote.settings import ServerSource
from medtwin.fhir.remote.tokens import make_credentials

_NDJSON = "application/fhir+ndjson"
_PLACES = {"system": "$export", "patient": "Patient/$export", "group": "Group/{group}/$export"}


def fetch_export(
    chosen: ServerSource,
    folder: Path,
    *,
    on_file: Callable[[int], None] = lambda number: None,
    transport: httpx.BaseTransport | None = None,
) -> FetchReport:
    """Has the server export Bulk Data, and fetches the files; one that an earlier call completed is kept.

    A killed call goes on where it was: the job is asked after, not started again, and files whose size and sha256 are
    those that were noted are not fetched again.

    Args:
        chosen: The server and what to export.
        folder: Where `<Type>.<n>.ndjson` go. `<folder>.state.json` beside it says what is complete.
        on_file: Told how many resources each file held.
        transport: For tests: what answers in place of the network.

    Raises:
        NetworkError: If the server does not export, or a file is not there, or not what the manifest says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = FetchState(folder, chosen)
    with FhirClient(chosen, credentials=make_credentials(chosen, transport=transport), transport=transport) as client:
        if "manifest" not in state.extra:
            state.extra["manifest"] = _manifest(client, chosen, state)
            state.save()
        manifest = state.extra["manifest"]
        files = _files(manifest)
        fetch = _Fetch(client, chosen, folder, state, needs_token=manifest.get("requiresAccessToken") is True)
        with ThreadPoolExecutor(chosen.concurrency, thread_name_prefix="fetch") as executor:
            try:
                for number in executor.map(fetch.file, files):
                    on_file(number)
            except BaseException:
                client.pace.stop()
                client.close()
                executor.shutdown(wait=False, cancel_futures=True)
                raise
        _clear_away(client, state)
    return state.report()


def _manifest(client: FhirClient, chosen: ServerSource, state: FetchState) -> dict[str, Any]:
    """The manifest of the export, which is started if it was not, or is gone by now."""
    for _ in range(2):
        if "status_url" not in state.extra:
            state.extra["status_url"] = kick_off(client, "GET", _export_url(client, chosen))
            state.save()
        answer = poll(client, state.extra["status_url"], chosen.max_poll_s)
        if answer.status == 200:
            return answer.resource("the manifest of the export")
        if answer.status not in (404, 410):
            raise NetworkError(f"the server's export failed: {explain(answer)}")
        del state.extra["status_url"]
    raise NetworkError("the server does not know the export that it has just started (404)")


def _export_url(client: FhirClient, chosen: ServerSource) -> str:
    statement, _ = read_capability(client)
    query = {"_outputFormat": _NDJSON}
    if chosen.types:
        query["_type"] = ",".join(types_to_read(chosen, statement))
    if chosen.since is not None:
        query["_since"] = chosen.since
    place = _PLACES[chosen.level].format(group=chosen.group)
    return f"{client.base}/{place}?{urlencode(query)}"


def _files(manifest: Mapping[str, Any]) -> list[tuple[str, str, int | None]]:
    """Name, address and stated number of resources of each file; those that tell of errors begin with `.`."""
    found: list[tuple[str, str, int | None]] = []
    for part, prefix in (("output", ""), ("error", ".error.")):
        listed = manifest.get(part, [])
        if not isinstance(listed, list):
            raise NetworkError(f"the manifest of the export has no list of {part} files")
        for number, each in enumerate(listed):
            kind, url = (each.get("type"), each.get("url")) if isinstance(each, dict) else (None, None)
            if not isinstance(kind, str) or not kind.isalpha() or not isinstance(url, str):
                raise NetworkError("the manifest of the export lists a file without a type or an address")
            count = each.get("count")
            found.append((f"{prefix}{kind}.{number:04d}.ndjson", url, count if isinstance(count, int) else None))
    return found


class _Fetch:
    """Fetches the files of an export."""

    def __init__(
        self, client: FhirClient, chosen: ServerSource, folder: Path, state: FetchState, *, needs_token: bool
    ) -> None:
        self._client = client
        self._chosen = chosen
        self._folder = folder
        self._state = state
        self._needs_token = needs_token

    def file(self, listed: tuple[str, str, int | None]) -> int:
        """Fetches one file unless it is there; returns how many resources it holds."""
        name, link, expected = listed
        path = self._folder / name
        known = self._state.done.get(name)
        if known is not None and _is_whole(path, known):
            return int(known["count"])
        url = self._allowed(urljoin(f"{self._client.base}/", link))
        count = self._download(url, path)
        if name.startswith(".error."):
            self._note_errors(path)
            path.unlink()
            return 0
        if expected is not None and count != expected:
            kind = name.partition(".")[0]
            raise NetworkError(f"a file of {kind} holds {count:,} resources, and the manifest says {expected:,}")
        self._state.save(name, count=count, size=path.stat().st_size, sha256=file_digest(path))
        return count

    def _allowed(self, url: str) -> str:
        """The address of a file, if it may be asked for: on the server's host, or on one that the user named."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if origin(url) == origin(self._client.base):
            return url
        if host not in self._chosen.file_hosts:
            raise NetworkError(
                f"a file of the export stands on {host}: allow it with file_hosts=[{host}] if you trust it"
            )
        if parts.scheme != "https" and not is_loopback(host) and not self._chosen.allow_http:
            raise NetworkError(f"a file of the export would come from {host} by plain http: allow_http=true lets it")
        if self._needs_token:
            raise NetworkError(f"the export wants the token to be sent to {host}, another host: that is not done")
        return url

    def _download(self, url: str, path: Path) -> int:
        """Fetches a file, again from its beginning after a fault; returns its number of lines."""
        partial = path.with_name(f"{path.name}.partial")
        for attempt in range(self._chosen.retries + 1):
            try:
                with self._client.stream(url, {"accept": _NDJSON}, with_token=self._needs_token) as response:
                    if response.status_code == 200:
                        count = self._save(response, partial)
                        partial.replace(path)
                        return count
                    if response.status_code not in PASSING:
                        raise NetworkError(
                            f"a file of the export cannot be fetched ({response.status_code}): it may have expired; "
                            "remove the folder to start anew"
                        )
            except httpx.TransportError:
                pass
            self._client.pace.wait(self._client.pace.backoff(attempt))
        raise NetworkError(
            f"a file of the export did not come in {self._chosen.retries + 1} attempts: repeat the command later"
        )

    def _save(self, response: httpx.Response, partial: Path) -> int:
        count, size, last = 0, 0, b"\n"
        with partial.open("wb") as file:
            for part in response.iter_bytes(1 << 20):
                size += len(part)
                if size > self._chosen.max_bytes:
                    raise NetworkError(
                        f"a file of the export is larger than max_bytes={self._chosen.max_bytes:,}: raise it"
                    )
                file.write(part)
                count += part.count(b"\n")
                last = part[-1:]
        return count + (last != b"\n")

    def _note_errors(self, path: Path) -> None:
        with path.open("rb") as file:
            for line in file:
                try:
                    codes, _ = issues_of(orjson.loads(line))
                except orjson.JSONDecodeError:
                    codes = ("unreadable",)
                for code in codes:
                    self._state.note(f"export error: {code}")


def _is_whole(path: Path, known: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == known["size"] and file_digest(path) == known["sha256"]


def _clear_away(client: FhirClient, state: FetchState) -> None:
    """Tells the server that its files may go; whether it listens does not matter to us."""
    try:
        answer = client.request("DELETE", state.extra["status_url"])
        state.note(f"export cleared away on the server ({answer.status})")
    except NetworkError:
        state.note("export not cleared away on the server")
