"""A process that sends a folder, to be killed: `python sending.py FOLDER JOURNAL '{"url": ...}'`; prints its report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from medtwin.fhir.server import Sender, ServerSettings


def main(folder: str, journal: str, chosen: str) -> None:
    with Sender(Path(folder), ServerSettings(**json.loads(chosen)), Path(journal)) as sender:
        sum(sender.steps())
        report = sender.report()
    loaded = [name for name in ("torch", "hydra", "lightning", "monai") if name in sys.modules]
    told = {"counts": report.counts, "failures": len(report.failures), "loaded": loaded}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
