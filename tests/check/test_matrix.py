"""Every measure of records under every fault: what must move does, what must not does not, and no measure is idle."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pytest

from medtwin.check import Findings, Options, Profile, Rule, compare_records, judge, stratifications_from
from medtwin.check.controls import BREAKS
from medtwin.check.gates import RULES
from medtwin.check.matrix import FRESH, Cell, cells_of, surprises
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.core.seeds import generator
from tests.check import samples

pytestmark = pytest.mark.slow  # two minutes: every measure under every fault

COLUMNS, TIME, TENTH, COPIES, COLLAPSED = (
    "shuffled columns", "shuffled time", "10 % copied", "100 % copied", "collapsed",
)  # fmt: skip
DROPPED, SWAPPED, RENAMED, INVENTED, STRETCHED, DEATHS, NOISE = (
    "subgroup dropped", "units swapped", "units renamed", "codes invented", "time stretched", "early deaths",
    "noise added",
)  # fmt: skip
FAITHFUL = (FRESH, TENTH, COPIES)
"""Real patients, in whole or in part: whatever is measured but copies, they are as good as it gets."""
NUMBERS = (SWAPPED, RENAMED, NOISE)
"""What breaks numbers only."""

# family: the faults that must move every measure of it, and those that must move none of it
EXPECTED: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("prevalence.log_ratio", "prevalence.r2", "prevalence.spearman"): (
        (COLUMNS, COLLAPSED, INVENTED),
        (*FAITHFUL, TIME, *NUMBERS),
    ),
    ("rate.log_ratio", "rate.r2", "rate.log_r2", "codes.kl", "codes.js", "codes.foreign_events"): (
        (COLLAPSED, INVENTED),
        (*FAITHFUL, TIME, COLUMNS, *NUMBERS),
    ),
    ("codes.missing",): ((COLLAPSED, INVENTED), (*FAITHFUL, TIME, COLUMNS, *NUMBERS)),
    ("codes.novel",): ((INVENTED,), (*FAITHFUL, TIME, COLUMNS, *NUMBERS, COLLAPSED)),
    ("values.ks", "values.wasserstein", "values.js"): (
        (COLLAPSED, *NUMBERS),
        (*FAITHFUL, TIME, COLUMNS),
    ),
    ("values.worst_ks",): ((COLLAPSED, SWAPPED, RENAMED), (*FAITHFUL, TIME, COLUMNS)),
    ("values.outside",): ((SWAPPED, NOISE), (*FAITHFUL, TIME, COLUMNS)),
    ("values.foreign_units",): ((RENAMED,), (*FAITHFUL, TIME, COLUMNS, SWAPPED, NOISE)),
    ("values.autocorrelation",): ((COLUMNS, TIME, COLLAPSED, NOISE), FAITHFUL),
    ("values.within_share",): ((COLUMNS, COLLAPSED, NOISE), (*FAITHFUL, TIME)),
    ("lab_correlation.error", "lab_correlation.day_error", "lab_correlation.time_error"): (
        (COLUMNS, TIME, COLLAPSED, NOISE),
        FAITHFUL,
    ),
    ("lab_correlation.between_error",): ((COLUMNS, COLLAPSED), (*FAITHFUL, TIME)),
    ("trajectories.error",): ((COLUMNS, COLLAPSED, SWAPPED), FAITHFUL),
    ("trajectories.change",): ((COLUMNS, TIME, COLLAPSED), FAITHFUL),
    ("trajectories.events",): ((COLUMNS, TIME, COLLAPSED), (*FAITHFUL, *NUMBERS)),
    ("missingness.error", "co_missingness.error"): ((COLUMNS, COLLAPSED), (*FAITHFUL, TIME, *NUMBERS)),
    ("missingness.encounter_error",): ((COLUMNS, COLLAPSED), (*FAITHFUL, TIME, *NUMBERS)),
    ("missingness.day_error", "co_missingness.day_error"): ((COLUMNS, TIME, COLLAPSED), (*FAITHFUL, *NUMBERS)),
    ("gaps.ks", "gaps.log_wasserstein", "follow_up.ks"): (
        (COLLAPSED, DEATHS, STRETCHED),
        (*FAITHFUL, COLUMNS, TIME, INVENTED, *NUMBERS),
    ),
    ("length.ks", "length_by_age.log_ratio"): (
        (COLLAPSED, DEATHS),
        (*FAITHFUL, COLUMNS, TIME, INVENTED, *NUMBERS),
    ),
    ("survival.gap", "survival.rmst", "mortality.difference"): (
        (DEATHS,),
        (*FAITHFUL, COLUMNS, TIME, INVENTED, *NUMBERS),
    ),
    ("length_by_kind.ks", "length_by_kind.worst_ks"): ((COLUMNS, COLLAPSED, DEATHS), (*FAITHFUL, TIME, *NUMBERS)),
    ("gaps_by_kind.ks", "gaps_by_kind.worst_ks"): ((COLUMNS, TIME, COLLAPSED, STRETCHED), (*FAITHFUL, *NUMBERS)),
    (
        "together.log_ratio", "together.error", "together.r2", "transitions.log_ratio", "transitions.error",
        "transitions.r2", "transitions.lags",
    ): ((COLUMNS, TIME, COLLAPSED, INVENTED), (*FAITHFUL, *NUMBERS)),
    (
        "within_subject.log_ratio", "within_subject.error", "within_subject.r2", "encounter.log_ratio",
        "encounter.error", "encounter.r2",
    ): ((COLUMNS, COLLAPSED, INVENTED), (*FAITHFUL, TIME, *NUMBERS)),
    ("c2st.summaries",): ((COLUMNS, COLLAPSED, INVENTED, *NUMBERS), (*FAITHFUL, TIME)),
    ("c2st.sequences",): ((COLUMNS, TIME, COLLAPSED, INVENTED, *NUMBERS), FAITHFUL),
    ("summaries.precision", "summaries.density"): ((COLUMNS, NOISE), (*FAITHFUL, TIME)),
    ("summaries.recall",): ((COLUMNS, COLLAPSED), (*FAITHFUL, TIME)),
    ("summaries.coverage",): ((COLUMNS, COLLAPSED, DROPPED, NOISE), (*FAITHFUL, TIME)),
    ("summaries.vendi",): ((COLLAPSED,), (*FAITHFUL, TIME)),
    ("strata.shares",): ((DROPPED, COLLAPSED), (*FAITHFUL, COLUMNS, TIME, INVENTED, DEATHS, *NUMBERS)),
    ("strata.codes",): ((COLLAPSED, INVENTED), (*FAITHFUL, TIME, *NUMBERS)),
    ("strata.values",): ((COLLAPSED, *NUMBERS), (*FAITHFUL, TIME)),
    ("strata.length",): ((COLLAPSED, DEATHS), (*FAITHFUL, COLUMNS, TIME, INVENTED, *NUMBERS)),
    ("fairness.representation",): ((DROPPED, COLLAPSED), (FRESH, COLUMNS, TIME, INVENTED, DEATHS, *NUMBERS)),
    ("fairness.fidelity", "cells.excess"): ((), (FRESH, TIME)),
    ("collapse.anchor_excess",): ((COLUMNS, COLLAPSED, INVENTED), FAITHFUL),
    ("collapse.self_loss", "collapse.entropy_loss", "collapse.rare_lost"): ((COLLAPSED,), FAITHFUL),
    ("copies.subjects", "copies.near"): ((TENTH, COPIES), tuple({FRESH, *BREAKS} - {TENTH, COPIES})),
    ("duplicates.subjects",): ((COLLAPSED,), tuple({FRESH, *BREAKS} - {COLLAPSED})),
}  # fmt: skip
NOT_OF_RECORDS = (
    "utility.", "fairness.utility", "fairness.target", "fairness.attacks", "collapse.anchor_growth", "attacks.",
    "canaries.", "likelihood.", "identifiers",
)  # fmt: skip
"""Measures that need a task, a target, people who are attacked, a model or generations: tests/check/test_utility.py,
attacks/, fairness/, collapse/ and test_disclosure.py break data of their own."""


@pytest.fixture(scope="module")
def found() -> dict[str, Findings]:
    """The findings of every fault, of the embedded hospital."""
    words = Vocabulary()
    real, fresh, control = (hospital(number, seed, words) for number, seed in ((240, 1), (240, 2), (80, 3)))
    options = Options(0, 40, strata=stratifications_from({"sex": ["GENDER//"], "age": [], "race": ["RACE//"]}))
    broken = {FRESH: fresh}
    broken.update({name: how(fresh, real, generator(0, "fault", name)) for name, how in BREAKS.items()})
    return {name: compare_records(real, twins, control, options) for name, twins in broken.items()}


def hospital(number: int, seed: int, words: Vocabulary) -> Records:
    table: pa.Table = samples.hospital_table(number, seed)
    return tables_to_records([table], words)


@pytest.fixture(scope="module")
def cells(found: Mapping[str, Findings]) -> list[Cell]:
    return [cell for fault, findings in found.items() for cell in cells_of(fault, findings)]


def test_what_must_move_moves_and_what_must_not_does_not(cells: list[Cell]) -> None:
    moves = {name: must for names, (must, _) in EXPECTED.items() for name in names}
    stays = {name: still for names, (_, still) in EXPECTED.items() for name in names}
    assert surprises(cells, moves, stays) == []


def test_no_measure_is_idle(cells: list[Cell]) -> None:
    expected = [name for names in EXPECTED for name in names]
    assert len(expected) == len(set(expected))
    assert {cell.measure for cell in cells if not cell.measure.startswith(NOT_OF_RECORDS)} == set(expected)


@pytest.mark.parametrize("profile", ["research", "partner", "public"])
def test_every_gate_of_records_fails_its_controls_and_passes_a_fresh_draw(
    found: Mapping[str, Findings], shipped: tuple[dict[str, Profile], tuple[Rule, ...]], profile: str
) -> None:
    known = {one.name for one in (*found[FRESH].measures, *found[FRESH].copies)}
    chosen = shipped[0][profile]
    gates = tuple(gate for gate in chosen.gates if gate.metric in known and gate.metric != RULES)
    judging = Profile(chosen.name, chosen.about, chosen.unchecked, gates)
    outcomes = {fault: {one.name: one.outcome for one in judge(one, judging)} for fault, one in found.items()}
    asked = [gate for gate in gates if not gate.metric.startswith(NOT_OF_RECORDS)]
    assert len(asked) > 25
    assert {gate.name: outcomes[FRESH][gate.name] for gate in asked} == {gate.name: "passed" for gate in asked}
    missed = [
        (gate.name, fault)
        for gate in asked
        for fault in gate.control
        if fault in BREAKS and outcomes[fault][gate.name] != "failed"
    ]
    assert missed == []


def test_moving_is_told_from_staying(cells: list[Cell]) -> None:
    one = Cell("x", COLLAPSED, 0.2, 0.1, True)
    still = Cell("x", FRESH, 0.1, 0.1, False)
    assert surprises([one, still], {"x": [COLLAPSED]}, {"x": [FRESH]}) == []
    assert surprises([one], {}, {"x": [COLLAPSED]}) == ["x must stay under collapsed, and moves: 0.2 of 0.1"]
    assert surprises([still], {"x": [FRESH]}, {}) == [f"x must move under {FRESH}, and stays: 0.1 of 0.1"]
    assert {cell.moved for cell in cells} == {True, False}
