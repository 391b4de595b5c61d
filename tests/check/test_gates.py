"""Every gate passes an independent draw of the real law, and fails what it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from medtwin.check import (
    Findings,
    Gate,
    GateResult,
    Options,
    Profile,
    Rule,
    compare_datasets,
    judge,
    profile_from,
    stratifications_from,
)
from medtwin.check.estimates import Estimate, Measure
from medtwin.config import compose
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError
from tests.check import samples

Shipped = tuple[dict[str, Profile], tuple[Rule, ...]]
Outcomes = Callable[[str, pa.Table], dict[str, GateResult]]
PROFILES = ("research", "partner", "public")
ATTACKS = (
    "singling-out",
    "singling-out-several",
    "linkability",
    "inference",
    "membership",
    "membership-worst",
    "attacks-by-group",
)
STRATA = stratifications_from({"sex": ["GENDER//"], "age": []})


@pytest.fixture(scope="module")
def findings_of(real: Dataset, shipped: Shipped, folder: Path) -> Callable[[str, pa.Table], Findings]:
    found: dict[str, Findings] = {}

    def _findings_of(name: str, table: pa.Table) -> Findings:
        if name not in found:
            twins = samples.write_dataset(folder / name, table, "synthetic")
            found[name] = compare_datasets(real, twins, Options(num_resamples=30, rules=shipped[1], strata=STRATA))
        return found[name]

    return _findings_of


def results(findings: Findings, shipped: Shipped, profile: str = "research") -> dict[str, GateResult]:
    return {one.name: one for one in judge(findings, shipped[0][profile])}


@pytest.mark.parametrize("profile", PROFILES)
def test_an_independent_draw_passes_every_gate(
    findings_of: Callable[[str, pa.Table], Findings], fresh_table: pa.Table, shipped: Shipped, profile: str
) -> None:
    found = results(findings_of("fresh", fresh_table), shipped, profile)
    # No images, no task, no model.
    without = {name for name in found if name.startswith("image-")} | {"usefulness", "membership-model", "canaries"}
    without |= {"usefulness-by-group", "representation-target", "anchors-growth"}
    expected = {name: "not_applicable" if name in without else "passed" for name in found}
    expected["identifiers"] = "unchecked"  # of files, which are looked at by the pipeline
    expected |= dict.fromkeys(ATTACKS, "unchecked")  # not made here: test_attacks_fail_the_gates_where_twins_are_copies
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
SLOW = ("times_within", "swapped_units")  # every gate that these must fail is failed by another, too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in BREAKS]
)
@pytest.mark.parametrize("profile", ["research", "public"])
def test_broken_data_fails_the_gates_that_look_for_it(
    findings_of: Callable[[str, pa.Table], Findings], fresh_table: pa.Table, shipped: Shipped, name: str, profile: str
) -> None:
    how, must_fail, must_pass = BREAKS[name]
    found = results(findings_of(name, how(fresh_table)), shipped, profile)
    assert {gate for gate in must_fail if found[gate].outcome != "failed"} == set()
    if profile == "research":
        assert {gate for gate in must_pass if found[gate].outcome != "passed"} == set()


@pytest.mark.parametrize("share", [0.1, pytest.param(1.0, marks=pytest.mark.slow)])
def test_copied_patients_fail_the_gate_of_copies_although_all_else_is_perfect(
    findings_of: Callable[[str, pa.Table], Findings],
    fresh_table: pa.Table,
    real: Dataset,
    shipped: Shipped,
    share: float,
) -> None:
    twins = samples.copied(fresh_table, real.events("train"), share)
    found = results(findings_of(f"copied{share}", twins), shipped)
    assert found["copies"].outcome == "failed"
    assert found["copies"].value == pytest.approx(share, abs=0.02)  # records of fewer than 8 events are not looked at
    assert {name for name, one in found.items() if one.outcome == "failed"} == {"copies", "near-copies"}


@pytest.mark.slow
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
        found = results(compare_datasets(real, twins, Options(num_resamples=20, rules=shipped[1])), shipped)
        assert found["copies"].outcome == outcome
        assert found["values"].outcome == "unchecked"
        assert "needs 50 subjects" in found["values"].reason


def test_one_pregnant_man_is_one_too_many(fresh_table: pa.Table, real: Dataset, shipped: Shipped, folder: Path) -> None:
    men = fresh_table.filter(pa.compute.equal(fresh_table["code"], "GENDER//M"))["subject_id"].to_pylist()
    rows = np.flatnonzero(fresh_table["subject_id"].to_numpy() == men[0])
    code = fresh_table["code"].to_pylist()
    code[rows[-2]] = "SNOMED//72892002"
    twins = samples.write_dataset(folder / "man", samples.with_column(fresh_table, "code", pa.array(code)), "synthetic")
    found = results(compare_datasets(real, twins, Options(num_resamples=20, rules=shipped[1])), shipped)
    assert found["plausibility"].outcome == "failed"
    assert "no-pregnancy-of-men (1)" in found["plausibility"].reason


def finding(measure: Measure, *, num: int = 100) -> Findings:
    return Findings(num, num, 0, (measure,))


def gate(**more: object) -> Gate:
    return Gate("g", "g?", "x", ("collapsed",), 0.1, 2.0, **more)  # type: ignore[arg-type]


def judged(measure: Measure, one: Gate, *, num: int = 100) -> GateResult:
    (result,) = judge(finding(measure, num=num), Profile("mine", "a test", "refused", (one,)))
    return result


@pytest.mark.parametrize(
    ("value", "worst", "outcome"),
    [(0.1, 0.01, "passed"), (0.11, 0.01, "failed"), (0.4, 0.2, "passed"), (0.41, 0.2, "failed")],
)
def test_the_limit_is_the_larger_of_both_bounds(value: float, worst: float, outcome: str) -> None:
    measure = Measure("x", "x", Estimate(value, 0, 1, worst / 2, worst), 5)
    assert judged(measure, gate()).outcome == outcome
    assert judged(measure, gate(), num=49).outcome == "unchecked"


def test_a_limit_that_lets_everything_pass_leaves_the_gate_unchecked() -> None:
    measure = Measure("x", "x", Estimate(0.9, 0, 1, 0.3, 0.6), 5)  # twice 0.6: more than any KS distance
    assert judged(measure, gate()).outcome == "passed"
    result = judged(measure, gate(blind_above=0.95))
    assert (result.outcome, result.limit) == ("unchecked", 1.2)
    assert "too much among themselves" in result.reason
    worse = Measure("x", "x", Estimate(1.3, 0, 1, 0.3, 0.6), 5)
    assert judged(worse, gate(blind_above=0.95)).outcome == "failed"
    sharp = Measure("x", "x", Estimate(0.9, 0, 1, 0.1, 0.2), 5)
    assert judged(sharp, gate(blind_above=0.95)).outcome == "failed"


def test_higher_is_better_is_judged_by_what_is_missing_to_one() -> None:
    estimate = Estimate(0.95, 0.9, 0.99, 0.99, 0.98)
    result = judged(Measure("x", "x", estimate, 5, "higher"), gate())
    assert (result.outcome, result.value) == ("passed", pytest.approx(0.05))
    low = replace(estimate, value=0.8)
    assert judged(Measure("x", "x", low, 5, "higher"), gate()).outcome == "failed"


def test_what_cannot_be_measured_never_passes() -> None:
    nothing = Measure("x", "x", None, 0, "lower", "no pairs", True)
    assert judged(nothing, gate()).outcome == "unchecked"
    assert judged(replace(nothing, applicable=False), gate()).outcome == "not_applicable"
    no_number = Measure("x", "x", Estimate(float("nan"), 0, 1, 0.1, 0.2), 5)
    assert judged(no_number, gate()).outcome == "failed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": {}}, "at least one gate"),
        ({"unchecked": "maybe"}, "unchecked must be allowed or refused, got 'maybe'"),
        ({"limit": 1}, "gates has no setting 'limit'"),
        ({"judge": {"g": {"limit": 1}}}, r"gate g: .*unexpected keyword argument 'limit'"),
        ({"judge": {"g": {"bound": None}}}, r"gate g: bound must be given, as in gates\.judge\.g\.bound=0\.1"),
        ({"judge": {"g": {"bound": -1}}}, "gate g: bound must be 0 or more, got -1"),
        ({"judge": {"g": {"control": []}}}, "gate g: control must name faults that fail it, of .*collapsed.* got none"),
        ({"judge": {"g": {"control": ["evil"]}}}, "gate g: control must .* got evil"),
    ],
)
def test_profiles_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    good = {"title": "?", "metric": "x", "control": ["collapsed"], "bound": 1}
    config = {"profile": "mine", "about": "a test", "unchecked": "refused", "judge": {"g": good}}
    assert profile_from(config).gates == (Gate("g", "?", "x", ("collapsed",), 1),)
    judging = {name: {**good, **settings} for name, settings in changes.get("judge", config["judge"]).items()}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=message):
        profile_from({**config, **changes, "judge": judging})


def test_a_profile_without_bounds_or_of_something_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="gates must have profile: choose gates=research, gates=partner"):
        profile_from({"judge": {}})
    with pytest.raises(ConfigError, match="metric must be one of x, rules, got 'y'"):
        judged(Measure("x", "x", None, 0), replace(gate(), metric="y"))


def test_a_changed_profile_says_so_in_its_name() -> None:
    config = compose("check", ["synthetic=x", "real=x", "gates=public"])["gates"]
    assert profile_from(config, config).name == "public"
    assert profile_from({**config, "unchecked": "allowed"}, config).name == "public, changed"


def test_every_profile_asks_the_same_and_a_stricter_one_allows_no_more(shipped: Shipped) -> None:
    research, partner, public = (shipped[0][name] for name in PROFILES)
    assert [one.unchecked for one in (research, partner, public)] == ["allowed", "refused", "refused"]
    for wide, strict in ((research, partner), (partner, public)):
        for one, other in zip(wide.gates, strict.gates, strict=True):
            assert (one.name, one.metric, one.control) == (other.name, other.metric, other.control)
            assert (other.bound or 0) <= (one.bound or 0), one.name
            assert other.times_baseline <= one.times_baseline, one.name
            assert other.min_subjects >= one.min_subjects, one.name


@pytest.mark.parametrize("profile", PROFILES)
def test_gates_of_rules_fail_the_controls_that_they_name(
    findings_of: Callable[[str, pa.Table], Findings], fresh_table: pa.Table, shipped: Shipped, profile: str
) -> None:
    faults = {
        "shuffled columns": ("shuffled_codes", samples.shuffled_codes),
        "numbers dealt anew": ("permuted_values", samples.permuted_values),
        "impossible events": ("shuffled_times", samples.shuffled_times),  # some before birth, some after death
    }
    outcomes = {
        fault: results(findings_of(name, how(fresh_table)), shipped, profile) for fault, (name, how) in faults.items()
    }
    gates = {gate.name: gate for gate in shipped[0][profile].gates}
    for name in ("plausibility", "rules", "identities"):
        for fault in gates[name].control:
            assert outcomes[fault][name].outcome == "failed", (name, fault)


@pytest.fixture(scope="module")
def attacked(real: Dataset, fresh_table: pa.Table, folder: Path) -> dict[float, Findings]:
    """Attacks on an independent draw, and on twins that are copies of the training subjects."""
    found = {}
    for share in (0.0, 1.0):
        table = samples.copied(fresh_table, real.events("train"), share) if share else fresh_table
        twins = samples.write_dataset(folder / f"attacked{share}", table, "synthetic")
        found[share] = compare_datasets(real, twins, Options(num_resamples=20, with_attacks=True))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_attacks_fail_the_gates_where_twins_are_copies(
    attacked: dict[float, Findings], shipped: Shipped, profile: str
) -> None:
    clean, copied = (results(attacked[share], shipped, profile) for share in (0.0, 1.0))
    assert {name for name in ATTACKS if clean[name].outcome == "failed"} == set()
    assert {name for name in ATTACKS if copied[name].outcome == "passed"} == set()
    assert {copied[name].outcome for name in ("singling-out", "linkability", "inference", "membership")} == {"failed"}
    unchecked = [clean[name].reason for name in ATTACKS if clean[name].outcome == "unchecked"]
    assert all("cannot be excluded: the interval ends at" in one or "needs" in one for one in unchecked)


def test_a_risk_passes_fails_or_is_not_known() -> None:
    gate = Gate("x", "X?", "attacks.linkability", ("100 % copied",), bound=0.09, by_interval=True)
    profile = Profile("p", "", "refused", (gate,))

    def outcome(low: float, value: float, high: float, number: int = 500) -> GateResult:
        estimate = Estimate(value, low, high, 0.0, 0.0)
        findings = Findings(number, number, number, (Measure("attacks.linkability", "", estimate, number),))
        return judge(findings, profile)[0]

    assert outcome(-0.01, 0.02, 0.05).outcome == "passed"
    between = outcome(0.0, 0.06, 0.12)
    assert between.outcome == "unchecked"
    assert between.reason == "0.09 cannot be excluded: the interval ends at 0.12"
    assert outcome(0.1, 0.12, 0.14).outcome == "failed"
    assert outcome(-0.01, 0.02, 0.05, number=20).outcome == "unchecked"
    assert outcome(0.1, 0.12, 0.14, number=20).outcome == "failed"
