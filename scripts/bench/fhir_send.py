#!/usr/bin/env python3
"""Times sending to the test server, by preset and way of writing, without and with faults.

    .venv/bin/python scripts/bench/fhir_send.py [--subjects 50] [--folder NDJSON] [--write docs/results/fhir_send.md]

The resources are those of an embedded hospital, or of a folder of NDJSON. The server (tests/servers/fhir) is emptied
before each run, and does not validate, so that it is the sender which is measured. With faults, one request in ten is
answered with 429 or 503, and one answer in fifty is lost after the server did what was asked. After each run the server
must hold every resource once. CPU seconds are those of the sender (user and system).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx

from medtwin.config import compose, settings
from medtwin.fhir.server import AuthSettings, Sender, ServerSettings

ROOT = Path(__file__).resolve().parent.parent.parent
PRESETS = ("default", "hapi", "azure", "google", "healthlake", "medplum")
FAULTS = [
    {"kind": "status", "status": 429, "retryAfter": 0, "probability": 0.05, "count": 1_000_000, "match": "POST"},
    {"kind": "status", "status": 503, "probability": 0.05, "count": 1_000_000, "match": "POST"},
    {"kind": "dropAfterCommit", "probability": 0.02, "count": 1_000_000, "match": "POST"},
]


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """The root url of a test server that ends with the block."""
    command = ["node", str(ROOT / "tests" / "servers" / "fhir" / "server.mjs"), "--tied"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("listening "):
        raise SystemExit("the test server does not start: run scripts/peers")
    try:
        yield line.split()[1].removesuffix("/fhir")
    finally:
        process.kill()
        process.communicate()


def settings_of(preset: str, base: str) -> ServerSettings:
    """The settings of a preset, for the server on this machine."""
    chosen = settings(ServerSettings, compose("export", ["dataset=none", f"server={preset}"])["server"] | {"url": base})
    return replace(chosen, auth=AuthSettings())


def run(folder: Path, root: str, chosen: ServerSettings, is_faulty: bool) -> dict[str, object]:
    """Sends the folder to the emptied server; one row of the table."""
    limits = {"maxEntries": 500, "maxBytes": 50_000_000, "validate": False}
    httpx.post(
        f"{root}/_control", json={"reset": True, "options": limits, "faults": FAULTS if is_faulty else [], "seed": 5}
    )
    with tempfile.TemporaryDirectory() as scratch:
        wall, cpu = time.perf_counter(), time.process_time()
        with Sender(folder, chosen, Path(scratch) / "journal.jsonl") as sender:
            number = sum(sender.steps())
            report = sender.report()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    held = sum(httpx.post(f"{root}/_control", json={"faults": []}).json()["counts"].values())
    if held != number or report.failures:
        raise SystemExit(f"the server holds {held} of {number} resources, {len(report.failures)} were refused")
    posts = [each for each in httpx.get(f"{root}/_log", timeout=60).json() if each["method"] == "POST"]
    sent = sum(each["bytes"] for each in posts if "/_" not in each["path"])
    return {
        "write": chosen.write,
        "faults": "yes" if is_faulty else "no",
        "requests": f"{len(posts):,}",
        "sent again": f"{report.num_retries:,}",
        "MB": f"{sent / 1e6:.1f}",
        "resources/s": f"{number / wall:,.0f}",
        "per CPU s": f"{number / cpu:,.0f}",
    }


def main() -> None:
    """Runs all presets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=50)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, running_server() as root:
        folder = chosen.folder
        if folder is None:
            out = Path(scratch) / "hospital"
            order = ["hospital", f"n={chosen.subjects}", "seed=1", f"out={out}"]
            subprocess.run([sys.executable, "-m", "medtwin", *order], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            folder = out / "fhir"
        rows = []
        for preset in chosen.presets:
            for write in ("put", "if_none_exist"):
                for is_faulty in (False, True):
                    put = replace(settings_of(preset, f"{root}/fhir"), write=write)
                    rows.append({"preset": preset, **run(folder, root, put, is_faulty)})
                    print(json.dumps(rows[-1]), flush=True)
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    print("\n".join(lines))
    if chosen.write is not None:
        chosen.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
