"""The measurement of errors (`scripts/bench/trials_errors_survival*.py`): broken tests and bounds must be flagged."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medtwin.trials.analysis.batched.survival_order import TrialsInOrder, order_trials
from medtwin.trials.analysis.batched.survival_scores import logrank

sys.path.append(str(Path(__file__).resolve().parents[4] / "scripts" / "bench"))

import trials_errors_survival as script
from trials_errors_store import Store
from trials_errors_survival_laws import LAWS, Law
from trials_errors_survival_runs import engine_designs, engine_row
from trials_errors_survival_tests import FIXED, SEQUENTIAL, Row, SurvivalTest, row_of
from trials_errors_survival_tests import tests_of as offered

LAW = {law.name: law for law in LAWS}


def options(folder: Path, trials: int = 4000, independent: int = 0) -> argparse.Namespace:
    state, page = str(folder / "state.jsonl"), str(folder / "page.md")
    given = ["--trials", str(trials), "--independent", str(independent), "--state", state, "--write", page]
    return script.arguments(given)


def first_test(law: Law) -> SurvivalTest:
    return offered(law)[0]


def test_honest_rows_pass_and_a_test_that_forgets_its_strata_is_flagged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    law = replace(LAW["null, strata, 1:1"], log_risks=(-1.6, -0.8, 0.8, 1.6))

    def unstratified(trials: TrialsInOrder, _: float) -> np.ndarray:
        return logrank(order_trials(trials.time, trials.event, trials.arm)).z

    honest = first_test(law)
    broken = replace(honest, name="broken", z=unstratified)
    plans = [script.Plan(law, [(each, [row_of(law, each, FIXED)]) for each in (honest, broken)])]
    assert script.finish(plans, options(tmp_path)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines[:2]] == ["ok", "MISS"]
    page = (tmp_path / "page.md").read_text()
    assert "2 rows of 4,000 trials or more: 1 as expected, 0 as R finds, 1 missed" in page
    assert "!" in next(line for line in page.splitlines() if line.startswith("| fixed"))


def test_bounds_of_a_wrong_information_fraction_are_flagged(tmp_path: Path) -> None:
    law, test = LAW["null, 1:1"], first_test(LAW["null, 1:1"])
    design = next(each for each in SEQUENTIAL if each.name == "3 looks, O'Brien-Fleming-type")
    right = row_of(law, test, design)
    wrong = replace(right, upper=tuple(design.plan.bounds_at((0.996, 0.998, 1.0)).efficacy.tolist()))
    assert script.finish([script.Plan(law, [(test, [right])])], options(tmp_path)) == 0
    assert script.finish([script.Plan(law, [(test, [wrong])])], options(tmp_path)) == 1


def test_powers_are_near_theory_and_a_wrong_theory_is_flagged(tmp_path: Path) -> None:
    law = LAW["better, 1:1"]
    rows = [(test, [row_of(law, test, FIXED)]) for test in offered(law) if test.kind in ("logrank", "rmst")]
    assert script.finish([script.Plan(law, rows)], options(tmp_path, 2000)) == 0
    off = [(test, [replace(row, expected=row.expected - 0.05) for row in found]) for test, found in rows]
    assert script.finish([script.Plan(law, off)], options(tmp_path, 2000)) == 1


def test_the_engine_runs_its_own_designs(tmp_path: Path) -> None:
    law = LAW["null, 2:1"]
    design = engine_designs(law)[-1]
    plan = script.Plan(law, [], [(design, engine_row(law, design))])
    assert script.finish([plan], options(tmp_path, 2000)) == 0


def test_finished_work_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    law = LAW["null, small, 1:1"]
    test = first_test(law)
    plan = script.Plan(law, [(test, [row_of(law, test, FIXED)])])
    first = script.measure([plan], 2000, Store(tmp_path / "state.jsonl", 1))
    with (tmp_path / "state.jsonl").open("a") as stream:
        stream.write('\n{"seed": 1, "key": ["null, sm')  # killed while it wrote
    monkeypatch.setattr(script, "run_work", lambda work: pytest.fail("done again"))
    assert script.measure([plan], 2000, Store(tmp_path / "state.jsonl", 1)) == first
    with pytest.raises(pytest.fail.Exception, match="done again"):
        script.measure([plan], 2000, Store(tmp_path / "state.jsonl", 2))
    Store(tmp_path / "state.jsonl", 1).add(5, "after what was half written")
    assert Store(tmp_path / "state.jsonl", 1).get("after what was half written") == 5


def test_where_a_row_stops() -> None:
    """Rejected at once; futile and then above; waits and rejects; never; no statistic at first."""
    row = Row("law", "test", "design", (0, 2), (2.5, 2.0), (0.0, 2.0), 0.025)
    z = np.array([[2.6, 9, 0], [-0.1, 9, 3], [1.0, 9, 2.1], [1.0, 9, 1.9], [np.nan, 9, 2.1]])
    assert row.rejects(z).tolist() == [True, False, True, False, True]
    assert replace(row, lower=None).rejects(z).tolist() == [True, True, True, False, True]


def test_every_test_and_law_is_measured() -> None:
    assert len(LAW) == len(LAWS)
    kinds = {test.kind for law in LAWS for test in offered(law)}
    assert kinds == {"logrank", "late", "modest", "maxcombo", "wald", "score", "rmst", "loglog", "naive"}
    assert (
        script.plans_of(LAW["margin, 1:1"], "score . fixed")[0].rows()[0][2].key == "margin, 1:1 | Cox, score | fixed"
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R with survival and mvtnorm")
@pytest.mark.parametrize("name", ["null, small, 2:1", "later, 2:1", "null, minimised, 1:1", "margin, 2:1"])
def test_the_independent_programme_finds_the_same(name: str, tmp_path: Path) -> None:
    law = LAW[name]
    tests = [(test, [row_of(law, test, FIXED)]) for test in offered(law)]
    found = script.measure([script.Plan(law, tests)], 4000, Store(tmp_path / "state.jsonl", 1))
    hits = script.run_independent(law, found, 3000, 5)
    both = [
        replace(each, independent=(hit / 3000, 3000), row=replace(each.row, expected=0.5))
        for each, hit in zip(found, hits, strict=True)
    ]
    assert [each.verdict for each in both] == ["as R"] * len(both)
