from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from medtwin.check.estimates import Estimate, Measure
from medtwin.check.findings import CodeRow, Findings
from medtwin.check.gates import GateResult
from medtwin.check.schema import VERSION, findings_schema
from medtwin.core.files import read_json
from medtwin.core.paths import schema_dir


def record(**more: Any) -> dict[str, Any]:
    measure = Measure("x.y", "X", Estimate(0.1, 0.0, 0.2, 0.05, 0.1), 5)
    code = CodeRow("A", "a", 20, 10, 0.2, 0.1, 1.0, 1.0, -0.7, -1.0, -0.4)
    gate = GateResult("g", "G?", "passed", 0.1)
    plain = {
        "version": VERSION,
        "profile": "research",
        "gates": [{name: getattr(gate, name) for name in gate.__dataclass_fields__}],
        "utility": None,
    }
    return {**plain, **Findings(20, 10, 0, (measure,), (code,)).to_dict(), **more}


def errors(value: dict[str, Any]) -> list[str]:
    # As JSON has it: tuples are lists.
    import json

    return [one.json_path for one in Draft202012Validator(findings_schema()).iter_errors(json.loads(json.dumps(value)))]


def test_the_schema_that_ships_is_the_one_that_the_dataclasses_have() -> None:
    schema = findings_schema()
    Draft202012Validator.check_schema(schema)
    assert read_json(schema_dir() / "findings.schema.json") == schema, "run scripts/schemas"


def test_findings_match_their_schema() -> None:
    assert errors(record()) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"version": 1}, "$.version"),
        ({"gates": [{"name": "g"}]}, "$.gates[0]"),
        ({"num_real": "many"}, "$.num_real"),
        ({"measures": [{"name": "x"}]}, "$.measures[0]"),
        ({"num_images": [1]}, "$.num_images"),
        ({"utility": {}}, "$.utility"),
        ({"more": 1}, "$"),
    ],
)
def test_what_does_not_match_is_found(change: dict[str, Any], where: str) -> None:
    assert where in errors(record(**change))
