"""Evaluates FHIRPath with fhirpathpy, an independent implementation, in an environment of its own.

Run as a program it reads JSON lines `[element, type or path, expression, resource]` and writes the answers, or null.
fhirpathpy needs another antlr4 than Hydra, so the two cannot share an interpreter.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / ".peers" / "fhirpathpy"


def evaluate_all(questions: list[tuple[Any, str, str, Any]]) -> list[Any]:
    """The answers of fhirpathpy; None where it has none."""
    text = "\n".join(json.dumps(each) for each in questions)
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(
        [sys.executable, __file__],
        input=text,
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _main() -> None:
    import fhirpathpy
    from fhirpathpy.models import models

    for line in sys.stdin:
        element, base, expression, resource = json.loads(line)
        answer = None
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            path = {"base": base, "expression": expression}
            context = {"resource": resource, "rootResource": resource, "ucum": "http://unitsofmeasure.org"}
            found = fhirpathpy.evaluate(element, path, context, models["r4"])
            answer = found if found in ([True], [False], []) else None
        sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main()
