"""The reader of R calls, the rule of agreement and the bar."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trials.reference.cases import Case, agrees
from tests.trials.reference.dispatch import judge
from tests.trials.reference.rcalls import Call, Name, RSyntaxError, parse, value
from tests.trials.reference.verdict import Judged, Verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c(1, 2:4)", [1.0, 2.0, 3.0, 4.0]),
        ("-2^2", -4.0),
        ("c(log(2)/12*.7, 1e-3)", [math.log(2) / 12 * 0.7, 0.001]),
        ("rep('sfOF', 2)", ["sfOF", "sfOF"]),
        ("matrix(c(1,2,3,4,5,6), 2, 3, byrow=TRUE)", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        ("matrix(c(1,2,3,4,5,6), nrow=2)", [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]),
        ("matrix(1:4, ncol=2)", [[1.0, 3.0], [2.0, 4.0]]),
        ("seq(.1, .3, .1)", pytest.approx([0.1, 0.2, 0.3])),
        ("TRUE", True),
        ("NULL", None),
        ("2 - 1 - 1", 0.0),
    ],
)
def test_values(text: str, expected: Any) -> None:
    assert value(parse(text)) == expected


def test_arguments_by_name_and_place() -> None:
    call = parse("rpact:::.getValues(0.3, sided=2, design = getDesign(kMax=3L))")
    assert call.name == ".getValues"
    assert (call.value("rate", position=0), call.value("sided"), call.value("alpha", 0.025)) == (0.3, 2.0, 0.025)
    assert call.get("design") == Call("getDesign", (), {"kMax": 3.0})


def test_formulas_and_comparisons() -> None:
    call = parse("coxph(Surv(time, status==2) ~ sex + strata(inst), data=lung)")
    left, right = call.args[0].args
    assert left == Call("Surv", (Name("time"), Call("==", (Name("status"), 2.0))))
    assert right == Call("+", (Name("sex"), Call("strata", (Name("inst"),))))
    block = parse("{m<-mgus2; m$et<-ifelse(m$pstat==0,m$futime,m$ptime); crr(m$et)}")
    assert [line.name for line in block.args] == ["<-", "<-", "crr"]


@pytest.mark.parametrize("text", ["f(1", "c(1,, 2) +", "a @ b", "f(1))"])
def test_what_is_not_r_is_refused(text: str) -> None:
    with pytest.raises(RSyntaxError):
        parse(text)


def case_of(outputs: dict[str, Any], category: str = "nothing") -> Case:
    tolerance = {"abs": 0.01, "rel": 0.1}
    return Case(Path(), {"id": "one", "category": category, "outputs": outputs, "tolerance": tolerance, "inputs": {}})


@pytest.mark.parametrize(
    ("expected", "found", "good"),
    [
        (1.0, 1.1, True),
        (1.0, 1.12, False),
        ([1.0, 2.0], [1.0, 2.0, 3.0], False),
        ([[1.0], [2.0]], [1.05, 2.05], True),
        (None, math.nan, True),
        (None, 1.0, False),
        (1.0, math.nan, False),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
        (True, True, True),
    ],
)
def test_the_rule_of_agreement(expected: Any, found: Any, good: bool) -> None:
    assert agrees(case_of({"x": expected}), "x", found) is good


def test_what_nobody_answers_counts_as_wrong() -> None:
    judged = judge(case_of({"x": 1.0, "y": 2.0}))
    assert judged.missing == ("x", "y")
    assert judged.total == 2
    assert not Verdict([Judged("one", "gs_boundary", {}, ("x",), "nobody")]).passed


def test_the_bar_is_pooled_and_of_each_category() -> None:
    many = Judged("many", "gs_boundary", {str(i): True for i in range(200)})
    few = Judged("few", "procova", {"a": True, "b": False})
    assert not Verdict([many, few]).passed
    assert Verdict([many, Judged("few", "procova", {"a": True, "b": True})]).passed
    bad = Judged("bad", "gs_boundary", {str(i): i > 6 for i in range(200)})
    assert not Verdict([bad]).passed
    assert Verdict([many, Judged("other", "dose_finding", {"a": False})]).passed


def test_the_command_fails_below_the_bar(tmp_path: Path) -> None:
    raw = {
        "id": "gone",
        "category": "gs_boundary",
        "r_call": "getDesignOfTomorrow(kMax=2)",
        "r_extract": "x",
        "inputs": {},
        "outputs": {"critical_values": [1.0]},
        "tolerance": {"abs": 1e-6, "rel": 0},
    }
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"cases": [raw]}))
    done = subprocess.run(
        [sys.executable, "-m", "tests.trials.reference", str(file)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 1
    assert "gs_boundary/gone: critical_values" in done.stdout
    assert "NOT passed" in done.stdout
