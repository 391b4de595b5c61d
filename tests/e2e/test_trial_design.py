"""scripts/examples/trial_design.py, as a statistician would run it, with fewer trials."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "examples" / "trial_design.py"


def test_the_script_goes_from_a_design_to_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("trial_design", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "NUM_TRIALS", 500)
    script.main(tmp_path / "designs")
    said = capsys.readouterr().out
    assert "343.8 events" in said
    engine, data = re.findall(r"z = (\S+), hazard ratio ([\d.]+)", said)
    assert engine == data
    assert said.count("of the error of independent draws") == 20
    assert {path.name for path in (tmp_path / "designs").iterdir()} >= {"report.html", "report.md", "comparison.json"}
