"""What validators of others find in the FHIR files of an export: Medplum's strict one, google-fhir-r4.

    .venv/bin/python -m tests.fhir.export_findings my/export/fhir [--each 400 25]

Both look at a sample spread evenly over each type; they come with scripts/peers. Exits with 1 if either finds anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.peers import google_findings, medplum_findings

Resources = list[dict[str, Any]]


def sample(folder: Path, num_each: int) -> Resources:
    """Evenly spread resources of every type, the first and the last among them."""
    found: Resources = []
    for path in sorted(folder.glob("*.ndjson")):
        lines = path.read_bytes().splitlines()
        step = max(1, len(lines) // num_each)
        found += [json.loads(line) for line in {*lines[::step], lines[-1]}]
    return found


def main() -> int:
    """Tells how many of each sample were found wrong, and by type and issue what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of NDJSON files")
    parser.add_argument("--each", type=int, nargs=2, default=(400, 25), help="resources of each type for either")
    given = parser.parse_args()
    is_wrong = False
    for name, find, number in zip(("medplum", "google"), (medplum_findings, google_findings), given.each, strict=True):
        findings, summary = find(sample(given.folder, number))
        is_wrong |= bool(findings)
        sys.stdout.write(f"{name}: {summary['resources']:,} resources, {summary['invalid']:,} invalid\n")
        counted = Counter((one["type"], json.dumps(one.get("issues", one.get("text")))[:200]) for one in findings)
        for (kind, issue), count in counted.most_common(20):
            sys.stdout.write(f"  {count:,} {kind}: {issue}\n")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
