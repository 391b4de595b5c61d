"""Runs the cases of a reference file through medtwin and says which agree.

    python -m tests.trials.reference FILE.json [--only CATEGORY ...] [--verbose]

Datasets are read from `trial_data/` beside the file. Printed: outputs within tolerance, by category and pooled over the
deterministic categories that medtwin covers, then every output that is not, by name. Exit code 1 below the bar: 97 %
pooled, and 85 % in each of these categories.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.trials.reference.cases import read_cases
from tests.trials.reference.dispatch import judge
from tests.trials.reference.verdict import Verdict


def main() -> int:
    """The exit code: 0 at or above the bar."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trials.reference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="cases in the schema medtwin-trial-reference/1")
    parser.add_argument("--only", nargs="+", help="categories to run; the bar is then only told of these")
    parser.add_argument("--verbose", action="store_true", help="show the values of outputs that do not agree")
    chosen = parser.parse_args()
    if not chosen.file.is_file():
        parser.error(f"no file at {chosen.file}")
    cases = [case for case in read_cases(chosen.file) if not chosen.only or case.category in chosen.only]
    verdict = Verdict([judge(case) for case in cases])
    sys.stdout.write(verdict.text(verbose=chosen.verbose) + "\n")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
