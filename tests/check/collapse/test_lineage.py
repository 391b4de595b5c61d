"""Twins of twins need real anchors that none of them was learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from medtwin.check import Findings, Options, Profile, compare_datasets, judge, profile_from
from medtwin.check.collapse.lineage import Lineage, read_relatives
from medtwin.check.collapse.suite import collapse
from medtwin.check.estimates import Measure
from medtwin.check.records import Records, Vocabulary, read_records
from medtwin.config import compose
from medtwin.core.dataset import Dataset
from medtwin.core.errors import ConfigError, DatasetError
from medtwin.core.provenance import describe_input
from tests.check import samples
from tests.check.collapse import chains


@pytest.fixture(scope="module")
def twins(fresh_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return samples.write_dataset(tmp_path_factory.mktemp("twins") / "twins", fresh_table, "synthetic")


def test_twins_of_twins_demand_anchors() -> None:
    with pytest.raises(ConfigError, match=r"anchors must name real patients .*anchors=DIR.* lineage depth 2"):
        Lineage(2)


def test_anchors_are_real_and_earlier_generations_are_not(real: Dataset, twins: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"anchors=.* must hold real patients, its origin is synthetic"):
        Lineage(2, twins)
    with pytest.raises(DatasetError, match=r"generations=.* must hold earlier twins, its origin is simulated"):
        Lineage(2, real, (real,))


def test_anchors_of_the_same_dataset_are_those_that_training_did_not_see(real: Dataset, tmp_path: Path) -> None:
    words = Vocabulary()
    reference, control = (read_records(real, words, [split]) for split in ("train", "held_out"))
    relatives = read_relatives(Lineage(2, real), real, reference, control)
    assert relatives.anchors is not None
    assert relatives.anchors.subjects.tolist() == control.subjects.tolist()
    assert read_relatives(Lineage(), real, reference, control).anchors is control
    other = samples.write_dataset(tmp_path / "other", real.events("train"), "simulated")
    with pytest.raises(DatasetError, match=r"192 of their records stand in the train split of real="):
        read_relatives(Lineage(2, other), real, reference, control)
    with pytest.raises(ConfigError, match="must have tuning or held_out patients: training saw all of them"):
        read_relatives(Lineage(2, other), other, reference, control)


def test_a_synthetic_dataset_without_provenance_has_a_depth_of_one(twins: Dataset, real: Dataset) -> None:
    assert describe_input("synthetic", twins.path).lineage_depth == 1
    assert describe_input("real", real.path).lineage_depth == 0


@pytest.fixture(scope="module")
def gates() -> dict[str, Profile]:
    """The gates of anchors in two profiles."""
    found = {}
    for name in ("research", "public"):
        config = compose("check", ["synthetic=x", "real=x", f"gates={name}"])["gates"]
        judged = {gate: one for gate, one in config["judge"].items() if gate.startswith("anchors")}
        found[name] = profile_from({**config, "judge": judged})
    return found


def test_generations_that_replace_each_other_fail_the_gate_of_growth(gates: dict[str, Profile]) -> None:
    real, anchors = chains.draw(chains.law(), 200, 1), chains.draw(chains.law(), 100, 2)
    made = chains.replaced(real.take(np.arange(100)), 6, 3)

    def outcomes(earlier: list[Records], depth: int, profile: str) -> dict[str, str]:
        found = collapse(real, made[-1], anchors, earlier, seed=0, depth=depth)
        return {one.name: one.outcome for one in judge(Findings(200, 100, 100, found.measures), gates[profile])}

    for profile in gates:
        assert outcomes(made[:-1], 6, profile) == {"anchors": "passed", "anchors-growth": "failed"}
        assert outcomes([], 6, profile) == {"anchors": "passed", "anchors-growth": "unchecked"}
    assert outcomes([], 1, "public")["anchors-growth"] == "not_applicable"


@pytest.mark.slow
def test_rows_of_generations_stand_in_the_findings(real: Dataset, twins: Dataset) -> None:
    found = compare_datasets(real, twins, Options(num_resamples=20, lineage=Lineage(2, real, (twins,))))
    assert {row.generation for row in found.generations} == {0, 1, 2}
    assert not any(row.alarm for row in found.generations)  # the same twins twice
    measures: list[Measure] = [one for one in found.measures if one.name.startswith("collapse.")]
    assert all(one.estimate is not None for one in measures)
