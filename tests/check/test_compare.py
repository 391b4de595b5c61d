from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from medtwin.check import Options, compare_datasets, stratifications_from
from medtwin.check.compare import STAGES
from medtwin.check.disclosure import shareable
from medtwin.check.estimates import Distribution
from medtwin.check.findings import AgeRow, CodeRow, Findings
from medtwin.core.dataset import Dataset
from medtwin.core.disclosure import SMALLEST_CELL
from medtwin.core.errors import DatasetError
from medtwin.core.events import Event, events_to_table
from tests.check import samples


@pytest.fixture(scope="module")
def twins(fresh_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return samples.write_dataset(tmp_path_factory.mktemp("twins") / "twins", fresh_table, "synthetic")


def test_every_number_stands_beside_a_baseline_an_interval_and_a_control(real: Dataset, twins: Dataset) -> None:
    stages: list[str] = []
    options = Options(num_resamples=20, strata=stratifications_from({"sex": ["GENDER//"]}))
    found = compare_datasets(real.path, str(twins.path), options, watch=lambda names: stages.extend(names) or names)
    assert stages == ["records", *STAGES, "images"]
    assert (found.num_real, found.num_control, found.num_synthetic) == (192, 48, 150)
    apart = ("images", "utility", "rules", "attacks", "fairness", "cells", "canaries", "likelihood", "identifiers")
    measured = [one for one in found.measures if not one.name.startswith((*apart, "collapse"))]
    assert len(measured) == len({one.name for one in measured}) >= 20
    for one in measured:
        assert one.estimate is not None, one
        assert one.estimate.low <= one.estimate.value <= one.estimate.high
        assert one.estimate.control is not None or one.name.startswith("strata.")  # a group of the control may be small
    assert len(found.deciles) == 10
    assert {row.unit for row in found.values} >= {"mg/dL", "mm[Hg]", "%"}
    assert {row.kind for row in found.pairs} == {"together", "within-subject", "next", "encounter"}
    assert all(row.first != row.second for row in found.pairs if row.kind == "together")
    with pytest.raises(KeyError, match="there is no measure 'x'"):
        found.measure("x")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_findings_and_another_one_other_intervals(real: Dataset, twins: Dataset) -> None:
    first, again, other = (compare_datasets(real, twins, Options(seed, 20)) for seed in (0, 0, 1))
    assert first == again
    drawn = (
        "c2st",
        "summaries",
        "strata",
        "collapse",
    )  # of a choice of subjects or groups: the seed decides values, too
    pairs = [
        (a.estimate, b.estimate)
        for a, b in zip(first.measures, other.measures, strict=True)
        if not a.name.startswith(drawn)
    ]
    assert all(a is b is None or a.value == b.value for a, b in pairs if a and b and a.value)
    assert any(a != b for a, b in pairs)


def test_a_dataset_against_itself_is_all_copies(real: Dataset, tmp_path: Path) -> None:
    same = samples.write_dataset(tmp_path / "same", real.events("train"), "synthetic")
    found = compare_datasets(real, same, Options(num_resamples=20))
    assert found.measure("values.ks").estimate.value == 0  # type: ignore[union-attr]
    assert found.measure("prevalence.r2").estimate.value == 1  # type: ignore[union-attr]
    assert found.copies[0].share == 1
    assert found.notes["closest record of a twin, median Jaccard distance"] == 0


def test_datasets_that_cannot_be_compared_are_refused(real: Dataset, twins: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="are the same directory"):
        compare_datasets(real, real)
    with pytest.raises(DatasetError, match="its origin is synthetic: are synthetic= and real= swapped"):
        compare_datasets(twins, real)
    patients = samples.write_dataset(tmp_path / "patients", twins.events(), "real")
    with pytest.raises(DatasetError, match="must not hold real patients"):
        compare_datasets(real, patients)
    foreign = events_to_table(Event(i, None, "LOCAL//x") for i in (1, 2))
    with pytest.raises(DatasetError, match="no code in common"):
        compare_datasets(real, samples.write_dataset(tmp_path / "foreign", foreign, "synthetic"))
    single = events_to_table([Event(1, None, "GENDER//F")])
    with pytest.raises(DatasetError, match=r"synthetic=.* must hold at least 2 subjects, got 1"):
        compare_datasets(real, samples.write_dataset(tmp_path / "single", single, "synthetic"))


def test_twins_without_numbers_times_or_images_are_measured_as_far_as_they_go(real: Dataset, tmp_path: Path) -> None:
    facts = events_to_table(Event(i, None, f"GENDER//{'FM'[i % 2]}") for i in range(60))
    found = compare_datasets(
        real, samples.write_dataset(tmp_path / "facts", facts, "synthetic"), Options(num_resamples=20)
    )
    assert found.measure("values.ks").estimate.value == 1  # type: ignore[union-attr]
    assert found.measure("gaps.ks").estimate.value == 1  # type: ignore[union-attr]
    assert found.measure("images.intensity").applicable is False
    bare = compare_datasets(
        samples.write_dataset(tmp_path / "also", facts, "simulated"), tmp_path / "facts", Options(num_resamples=20)
    )
    assert bare.measure("gaps.ks").applicable is False
    assert bare.measure("values.ks").applicable is False
    assert bare.measure("together.log_ratio").estimate is None


def test_findings_about_real_patients_tell_of_no_few_people() -> None:
    def code(name: str, count: int) -> CodeRow:
        return CodeRow(name, name, count, 5, 0.1, 0.1, 1, 1, 0, 0, 0)

    curve = Distribution("length", "events", [1, 2, 3, 4], [0.005, 0.5, 0.99, 1.0], [0.1, 0.2, 0.3, 1.0])
    rows = (code("none", 0), code("few", SMALLEST_CELL - 1), code("many", SMALLEST_CELL))
    bands = {"0-17": 3, "18-39": 30, "40-59": 300}
    ages = tuple(AgeRow(band, count, 9, 1.0, 2.0, 3.0, 4.0) for band, count in bands.items())
    found = shareable(Findings(99, 99, 0, (), rows, (), (), (curve,), (), ages, (), (), ()))
    assert [row.code for row in found.codes] == ["none", "many"]
    assert found.distributions[0].support == [2, 3]
    assert found.ages[0] == AgeRow("0-17", None, 9, None, 2.0, None, 4.0)
    assert found.ages[1] == replace(ages[1], num_real=None)  # it would give the first away
    assert found.ages[2] == ages[2]
    assert found.notes["codes of 1 to 10 real subjects, left out of the table"] == 1
