"""Twins of twins through the command line: their depth is known, and a check of them wants real anchors."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from medtwin.core.files import read_json
from medtwin.core.provenance import read_provenance
from tests.check import samples
from tests.e2e.conftest import Medtwin

KEPT = r"^(MEDS_|GENDER//|RACE//|SNOMED//)"


@pytest.mark.slow
def test_twins_of_twins_are_refused_without_anchors_and_measured_with_them(medtwin: Medtwin, tmp_path: Path) -> None:
    patients = samples.hospital_table(110, seed=5)
    patients = patients.filter(pc.match_substring_regex(patients["code"], KEPT))
    real = samples.write_dataset(tmp_path / "real", patients, "simulated", held_out=0.35).path
    source = real
    for generation in (1, 2):
        run, twins = tmp_path / f"run{generation}", tmp_path / f"twins{generation}"
        medtwin("train", f"dataset={source}", "model=markov", f"out={run}")
        medtwin("generate", f"timelines={run}", "n=50", f"out={twins}")
        assert read_provenance(twins)["lineage_depth"] == generation
        source = twins
    asked = ["check", f"synthetic={source}", f"real={real}", "attacks=false", "images=false", "resamples=20"]
    refused = medtwin(*asked, f"out={tmp_path / 'refused'}", code=2)
    assert "anchors must name real patients that no generation was learned from, as in anchors=DIR" in refused.stderr
    assert "the twins have lineage depth 2" in refused.stderr
    assert not (tmp_path / "refused").exists()
    out, earlier = tmp_path / "check", tmp_path / "twins1"
    medtwin(*asked, f"anchors={real}", f"generations=[{earlier}]", f"out={out}")
    findings = read_json(out / "findings.json")
    measures = {one["name"]: one["estimate"] for one in findings["measures"]}
    for name in ("collapse.anchor_excess", "collapse.anchor_growth"):
        assert measures[name]["low"] < measures[name]["value"] < measures[name]["high"]
    assert measures["collapse.anchor_excess"]["value"] > 0  # a chain of first order is no patient
    assert {row["generation"] for row in findings["generations"]} == {0, 1, 2}
    record = read_provenance(out)
    assert {one["role"] for one in record["inputs"]} == {"synthetic", "real", "anchors", "generations"}
    assert record["lineage_depth"] == 2
    medtwin(*asked, f"anchors={earlier}", f"out={tmp_path / 'refused'}", code=2)  # twins are no anchors
