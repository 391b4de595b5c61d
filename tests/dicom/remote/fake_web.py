"""A DICOMweb server in this process: what it was asked, what it holds, and which faults it is told to have.

With `target` it is a faulty proxy: what it does not spoil goes on to the server there.
"""

from __future__ import annotations

import contextlib
import io
import json
import ssl
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom

BOUNDARY = "of the fake"


class FakeWeb:
    """`script` is consumed first, a step for each request.

    A step is a status, a status with headers, `None` (no fault), `drop` (hang up before anything is done),
    `drop-after` (do it, and hang up), `truncate` (give half of the answer, and hang up), `half` (give half of it as if
    it were whole), `text` (200 with HTML).
    """

    def __init__(self, target: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.script: list[Any] = []
        self.stored: dict[str, bytes] = {}
        self.uids: dict[str, tuple[str, str]] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.reasons: dict[str, list[int]] = {}
        self.max_bytes = 1 << 40
        self.page = 1_000
        self.authorization: str | None = None
        self.hidden: set[str] = set()
        self.says_what_failed = True
        self.unlisted: dict[str, int] = {}
        self._lock = threading.RLock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.handle(self, b"")

            def do_POST(self) -> None:
                fake.handle(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.base = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}/dicom-web"

    def __enter__(self) -> FakeWeb:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def posts(self) -> int:
        """How many requests stored something, or tried to."""
        return sum(1 for method, _ in self.requests if method == "POST")

    def handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._lock:
            self.requests.append((handler.command, handler.path))
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            step = self.script.pop(0) if self.script else None
        if step == "drop":
            handler.close_connection = True
            return
        if isinstance(step, (int, tuple)):
            status, headers = step if isinstance(step, tuple) else (step, {})
            _answer(handler, status, b"no", {"Content-Type": "text/plain", **headers})
            return
        if step == "text":
            _answer(handler, 200, b"<html>Log in</html>", {"Content-Type": "text/html"})
            return
        status, data, headers = self._forward(handler, body) if self.target else self._do(handler, body)
        if step == "drop-after":
            handler.close_connection = True
            return
        if step == "half":
            data = data[: len(data) // 2]
        _answer(handler, status, data, headers, whole=step != "truncate")

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        url = f"{self.target}{handler.path.removeprefix('/dicom-web')}"
        names = ("Accept", "Content-Type")
        headers = {name: handler.headers[name] for name in names if name in handler.headers}
        request = urllib.request.Request(url, body or None, headers, method=handler.command)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), {"Content-Type": answer.headers.get("Content-Type", "")}
        except urllib.error.HTTPError as error:
            return error.code, error.read(), {"Content-Type": error.headers.get("Content-Type", "")}

    def _do(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if self.authorization is not None and handler.headers.get("Authorization") != self.authorization:
            return 401, b"", {}
        parts = urlsplit(handler.path)
        place = parts.path.removeprefix("/dicom-web").strip("/").split("/")
        if handler.command == "POST":
            return self._store(handler, body)
        if len(place) == 4 and place[-1] != "series":
            return self._retrieve(place[3])
        return self._search(place, {name: values[0] for name, values in parse_qs(parts.query).items()})

    def _store(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if len(body) > self.max_bytes:
            return 413, b"", {}
        boundary = handler.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
        good, bad = [], []
        for part in body.split(b"--" + boundary)[1:-1]:
            data = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            dataset = pydicom.dcmread(io.BytesIO(data))
            uid = str(dataset.SOPInstanceUID)
            with self._lock:
                if self.unlisted.get(uid, 0) > 0:  # dropped in silence
                    self.unlisted[uid] -= 1
                    continue
                reason = self.reasons[uid].pop(0) if self.reasons.get(uid) else 0
                if reason and not 0xB000 <= reason < 0xC000:
                    bad.append(_item(uid, "00081197", reason))
                    continue
                self.stored[uid] = data
                self.uids[uid] = (str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
            good.append(_item(uid, "00081196", reason))
        told: dict[str, Any] = {}
        if good:
            told["00081199"] = {"vr": "SQ", "Value": good}
        if bad and self.says_what_failed:
            told["00081198"] = {"vr": "SQ", "Value": bad}
        status = 200 if not bad else 202 if good else 409
        text = json.dumps(told).encode() if self.says_what_failed else b""
        return status, text, {"Content-Type": "application/dicom+json"}

    def _search(self, place: list[str], query: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        tags = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
        found: dict[str, dict[str, Any]] = {}
        for uid, (study, series) in sorted(self.uids.items()):
            if (len(place) > 1 and place[1] != study) or (len(place) > 3 and place[3] != series) or uid in self.hidden:
                continue
            values = {"0020000D": study, "0020000E": series, "00080018": uid}
            key = values[tags[place[-1]]]
            item = {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}
            item["00080060"] = {"vr": "CS", "Value": ["CT"]}
            number = sum(1 for each in self.uids.values() if each[1] == series)
            item["00201209"] = {"vr": "IS", "Value": [number]}
            found.setdefault(key, item)
        offset = int(query.get("offset", 0))
        page = list(found.values())[offset : offset + min(self.page, int(query.get("limit", 1_000)))]
        if not page:
            return 204, b"", {}
        return 200, json.dumps(page).encode(), {"Content-Type": "application/dicom+json"}

    def _retrieve(self, series: str) -> tuple[int, bytes, dict[str, str]]:
        parts = [data for uid, data in sorted(self.stored.items()) if self.uids[uid][1] == series]
        parts = [data for data in parts if not any(uid.encode() in data for uid in self.hidden)]
        if not parts:
            return 404, b"", {}
        start = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"\r\n".join(start + data for data in parts) + f"\r\n--{BOUNDARY}--\r\n".encode()
        return 200, body, {"Content-Type": f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'}


def _item(uid: str, tag: str, reason: int) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason:
        item[tag] = {"vr": "US", "Value": [reason]}
    return item


def _answer(
    handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str], *, whole: bool = True
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    with contextlib.suppress(ConnectionError):  # who asked has seen enough
        handler.end_headers()
        handler.wfile.write(data if whole else data[: len(data) // 2])
    handler.close_connection = handler.close_connection or not whole
