"""The page's example and the script of a whole trial run as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import medtwin
from medtwin.trials.engine.milestones import MilestoneCharacteristics, simulate_milestones

ROOT = Path(medtwin.__file__).parents[1]


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    section = (
        (ROOT / "docs" / "trials.md").read_text().split("\n## Milestones, several endpoints\n")[1].split("\n## ")[0]
    )
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace(", 1000, seed", ", 200, seed"), names)
    found = names["found"]
    assert isinstance(found, MilestoneCharacteristics)
    assert found.power("PFS").value > 0.6
    assert found.acted("safety").value < 1.0
    assert "median hazard ratio OS (final)" in capsys.readouterr().out


def test_the_lung_trial_is_as_its_brief_says(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Issue 118 of RConsortium/pharma-skills, in 1,000 replicates: within four standard errors of both simulations."""
    script = runpy.run_path(str(ROOT / "scripts" / "examples" / "lung_trial.py"))
    assert script["PFS_DESIGN"].events[-1] == 425
    assert script["PFS_DESIGN"].plan.bounds.efficacy.tolist() == pytest.approx([2.80, 2.19], abs=0.005)
    found = simulate_milestones(script["TRIAL"], script["SCENARIOS"][0], 2000, seed=8)
    more = (1 + 2000 / 1000) ** 0.5
    for estimate, published in (
        (found.reached("PFS interim"), 0.82),
        (found.power("PFS"), 0.77),
        (found.power("OS"), 0.40),
        (found.any_rejected, 0.78),
        (found.stopped_at("response gate"), 0.18),
        (found.duration, 39.5),
        (found.acted("checkpoint"), 0.10),
        (found.median_effect("PFS", "final"), 0.70),
        (found.median_effect("OS", "final"), 0.78),
    ):
        assert estimate.value == pytest.approx(published, abs=4 * more * estimate.standard_error)
    # the negative control: the response rate matters
    (worse,) = (script["scenario"]("no response", 0.7, 0.78, 0.25),)
    assert simulate_milestones(script["TRIAL"], worse, 500, seed=8).reached("PFS interim").value < 0.2
    monkeypatch.setattr("sys.argv", ["lung_trial.py", "20"])
    script["main"]()
    assert "no effect on survival: 20 trials" in capsys.readouterr().out
