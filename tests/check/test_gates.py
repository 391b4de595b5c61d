"""Every gate passes an independent draw of the real law, and fails what it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from medtwin.check import Findings, Gate, GateResult, Rule, compare_datasets, gates_from, judge
from medtwin.check.findings import Estimate, Measure
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError
from tests.check import samples

Shipped = tuple[tuple[Gate, ...], tuple[Rule, ...]]
Outcomes = Callable[[str, pa.Table], dict[str, GateResult]]
PROFILES = ("research", "partner", "public")


@pytest.fixture(scope="module")
def findings_of(real: Dataset, shipped: Shipped, folder: Path) -> Callable[[str, pa.Table], Findings]:
    found: dict[str, Findings] = {}

    def _findings_of(name: str, table: pa.Table) -> Findings:
        if name not in found:
            twins = samples.write_dataset(folder / name, table, "synthetic")
            found[name] = compare_datasets(real, twins, rules=shipped[1], num_resamples=30)
        return found[name]

    return _findings_of


def results(findings: Findings, gates: tuple[Gate, ...], profile: str = "research") -> dict[str, GateResult]:
    return {one.name: one for one in judge(findings, gates, profile)}


@pytest.mark.parametrize("profile", PROFILES)
def test_an_independent_draw_passes_every_gate(
    findings_of: Callable[[str, pa.Table], Findings], fresh_table: pa.Table, shipped: Shipped, profile: str
) -> None:
    found = results(findings_of("fresh", fresh_table), shipped[0], profile)
    expected = {name: "not_applicable" if name.startswith("image-") else "passed" for name in found}
    assert {name: one.outcome for name, one in found.items()} == expected


BREAKS: dict[str, tuple[Callable[[pa.Table], pa.Table], set[str], set[str]]] = {
    # name: how, the gates that must fail, the gates that must not notice
    "shuffled_codes": (samples.shuffled_codes, {"together", "transitions"}, {"values", "gaps", "rate", "copies"}),
    "shuffled_times": (
        samples.shuffled_times,
        {"together", "transitions", "gaps", "follow-up"},
        {"values", "prevalence", "vocabulary"},
    ),
    "times_within": (
        samples.shuffled_times_within,
        {"together", "transitions"},
        {"values", "prevalence", "gaps", "length", "follow-up"},
    ),
    "permuted_values": (samples.permuted_values, {"values", "worst-value", "value-range"}, {"prevalence", "together"}),
    "swapped_units": (samples.swapped_units, {"worst-value", "value-range"}, {"prevalence", "together", "gaps"}),
    "renamed_codes": (samples.renamed_codes, {"vocabulary", "prevalence", "rate"}, {"gaps", "length"}),
    "collapsed": (
        samples.collapsed,
        {"prevalence", "rate", "values", "length", "follow-up", "together", "duplicates"},
        {"plausibility"},
    ),
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("profile", ["research", "public"])
def test_broken_data_fails_the_gates_that_look_for_it(
    findings_of: Callable[[str, pa.Table], Findings], fresh_table: pa.Table, shipped: Shipped, name: str, profile: str
) -> None:
    how, must_fail, must_pass = BREAKS[name]
    found = results(findings_of(name, how(fresh_table)), shipped[0], profile)
    assert {gate for gate in must_fail if found[gate].outcome != "failed"} == set()
    if profile == "research":
        assert {gate for gate in must_pass if found[gate].outcome != "passed"} == set()


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_copied_patients_fail_the_gate_of_copies_although_all_else_is_perfect(
    findings_of: Callable[[str, pa.Table], Findings],
    fresh_table: pa.Table,
    real: Dataset,
    shipped: Shipped,
    share: float,
) -> None:
    twins = samples.copied(fresh_table, real.events("train"), share)
    found = results(findings_of(f"copied{share}", twins), shipped[0])
    assert found["copies"].outcome == "failed"
    assert found["copies"].value == pytest.approx(share, abs=0.02)  # records of fewer than 8 events are not looked at
    others = {name for name, one in found.items() if one.outcome == "failed"} - {"copies"}
    assert others == set()


def test_few_subjects_are_unchecked_and_a_copy_is_a_copy_all_the_same(
    fresh_table: pa.Table, real: Dataset, shipped: Shipped, folder: Path
) -> None:
    subjects = np.unique(fresh_table["subject_id"].to_numpy())[:20]
    few = fresh_table.filter(pa.array(np.isin(fresh_table["subject_id"].to_numpy(), subjects)))
    for name, table, outcome in (
        ("few", few, "unchecked"),
        ("few_copied", samples.copied(few, real.events("train"), 0.2), "failed"),
    ):
        twins = samples.write_dataset(folder / name, table, "synthetic")
        found = results(compare_datasets(real, twins, rules=shipped[1], num_resamples=20), shipped[0])
        assert found["copies"].outcome == outcome
        assert found["values"].outcome == "unchecked"
        assert "needs 50 subjects" in found["values"].reason


def test_one_pregnant_man_is_one_too_many(fresh_table: pa.Table, real: Dataset, shipped: Shipped, folder: Path) -> None:
    men = fresh_table.filter(pa.compute.equal(fresh_table["code"], "GENDER//M"))["subject_id"].to_pylist()
    rows = np.flatnonzero(fresh_table["subject_id"].to_numpy() == men[0])
    code = fresh_table["code"].to_pylist()
    code[rows[-2]] = "SNOMED//72892002"
    twins = samples.write_dataset(folder / "man", samples.with_column(fresh_table, "code", pa.array(code)), "synthetic")
    found = results(compare_datasets(real, twins, rules=shipped[1], num_resamples=20), shipped[0])
    assert found["plausibility"].outcome == "failed"
    assert found["plausibility"].reason == "no-pregnancy-of-men (1)"


def finding(measure: Measure, *, num: int = 100) -> Findings:
    return Findings(num, num, 0, (measure,), (), (), (), (), (), (), (), (), ())


def gate(**more: object) -> Gate:
    bounds = dict.fromkeys(PROFILES, 2.0)
    return Gate("g", "g?", "x", bounds, dict.fromkeys(PROFILES, 0.1), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "worst", "outcome"),
    [(0.1, 0.01, "passed"), (0.11, 0.01, "failed"), (0.4, 0.2, "passed"), (0.41, 0.2, "failed")],
)
def test_the_limit_is_the_larger_of_both_bounds(value: float, worst: float, outcome: str) -> None:
    measure = Measure("x", "x", Estimate(value, 0, 1, worst / 2, worst), 5)
    assert judge(finding(measure), [gate()], "research")[0].outcome == outcome
    assert judge(finding(measure, num=49), [gate()], "research")[0].outcome == "unchecked"


def test_a_limit_that_lets_everything_pass_leaves_the_gate_unchecked() -> None:
    measure = Measure("x", "x", Estimate(0.9, 0, 1, 0.3, 0.6), 5)  # twice 0.6: more than any KS distance
    assert judge(finding(measure), [gate()], "research")[0].outcome == "passed"
    result = judge(finding(measure), [gate(blind_above=0.95)], "research")[0]
    assert (result.outcome, result.limit) == ("unchecked", 1.2)
    assert "too much among themselves" in result.reason
    worse = Measure("x", "x", Estimate(1.3, 0, 1, 0.3, 0.6), 5)
    assert judge(finding(worse), [gate(blind_above=0.95)], "research")[0].outcome == "failed"
    sharp = Measure("x", "x", Estimate(0.9, 0, 1, 0.1, 0.2), 5)
    assert judge(finding(sharp), [gate(blind_above=0.95)], "research")[0].outcome == "failed"


def test_higher_is_better_is_judged_by_what_is_missing_to_one() -> None:
    estimate = Estimate(0.95, 0.9, 0.99, 0.99, 0.98)
    result = judge(finding(Measure("x", "x", estimate, 5, "higher")), [gate()], "research")[0]
    assert (result.outcome, result.value) == ("passed", pytest.approx(0.05))
    low = replace(estimate, value=0.8)
    assert judge(finding(Measure("x", "x", low, 5, "higher")), [gate()], "research")[0].outcome == "failed"


def test_what_cannot_be_measured_never_passes() -> None:
    nothing = Measure("x", "x", None, 0, "lower", "no pairs", True)
    assert judge(finding(nothing), [gate()], "research")[0].outcome == "unchecked"
    none = replace(nothing, applicable=False)
    assert judge(finding(none), [gate()], "research")[0].outcome == "not_applicable"


def test_gates_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="profile must be one of"):
        judge(finding(Measure("x", "x", None, 0)), [gate()], "friends")
    with pytest.raises(ConfigError, match="of must be one of x, rules, got 'y'"):
        judge(finding(Measure("x", "x", None, 0)), [replace(gate(), of="y")], "research")
    with pytest.raises(ConfigError, match="at_most must name research, partner, public"):
        gates_from(
            {"g": {"title": "?", "of": "x", "at_most": {"research": 1}, "times_baseline": dict.fromkeys(PROFILES, 1)}}
        )
    with pytest.raises(ConfigError, match=r"gate g: .*unexpected keyword argument 'limit'"):
        gates_from({"g": {"title": "?", "of": "x", "limit": 1}})
    with pytest.raises(ConfigError, match="0 or more"):
        gates_from(
            {
                "g": {
                    "title": "?",
                    "of": "x",
                    "at_most": dict.fromkeys(PROFILES, -1),
                    "times_baseline": dict.fromkeys(PROFILES, 1),
                }
            }
        )
    with pytest.raises(ConfigError, match="at least one gate"):
        gates_from({})
