from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.dataset_writer import EventSpill, write_dataset_metadata, write_events
from medtwin.core.errors import DatasetError, ReleaseRefusedError
from medtwin.core.events import Event, events_to_table
from medtwin.core.files import read_json, write_json, write_manifest
from medtwin.core.provenance import Input, Provenance, describe_input, read_provenance, write_provenance
from medtwin.core.verdict import SHIPPED, Verdict, read_verdict, require_release, write_verdict


def dataset(folder: Path, origin: str) -> Dataset:
    spill = EventSpill(folder.with_name(f"{folder.name}-spill"), 1)
    spill.add(events_to_table([Event(1, datetime(2020, 1, 1), "LOINC//2160-0", numeric_value=1.0)]))
    write_events(folder, spill.close(), split_of=lambda _: "train")
    write_dataset_metadata(folder, "test", origin)
    write_manifest(folder)
    return open_dataset(folder)


def test_simulated_data_leaves_and_real_data_does_not(tmp_path: Path) -> None:
    assert require_release(dataset(tmp_path / "a", "simulated"), None, override_reason=None) is None
    real = dataset(tmp_path / "b", "real")
    with pytest.raises(ReleaseRefusedError, match="holds real patients"):
        require_release(real, None, override_reason=None)
    with pytest.raises(ReleaseRefusedError, match="holds real patients"):
        require_release(real, None, override_reason="   ")
    assert "real patients" in str(require_release(real, None, override_reason="ethics board 7/26"))


@pytest.mark.parametrize(
    ("profile", "outcome", "refused"),
    [
        ("research", "passed", False),
        ("research", "unchecked", False),
        ("research", "failed", True),
        ("partner", "unchecked", True),
        ("public", "not_applicable", False),
        ("public", "failed", True),
        ("public, changed", "unchecked", True),
    ],
)
def test_the_profile_decides_about_synthetic_data(tmp_path: Path, profile: str, outcome: str, refused: bool) -> None:
    twins, check = dataset(tmp_path / "twins", "synthetic"), tmp_path / "check"
    with pytest.raises(ReleaseRefusedError, match="unchecked: run `medtwin check`"):
        require_release(twins, None, override_reason=None)
    gates = {"copies": outcome, "codes": "passed"}
    write_verdict(check, Verdict(twins.manifest_hash(), profile, gates, SHIPPED.get(profile, "refused")))  # type: ignore[arg-type]
    if refused:
        with pytest.raises(ReleaseRefusedError, match=f"{profile} profile refuses .*copies {outcome}"):
            require_release(twins, check, override_reason=None)
    else:
        assert require_release(twins, check, override_reason=None) is None


def test_the_verdict_of_another_dataset_does_not_count(tmp_path: Path) -> None:
    twins, check = dataset(tmp_path / "twins", "synthetic"), tmp_path / "check"
    write_verdict(check, Verdict("0" * 64, "research", {"copies": "passed"}))
    with pytest.raises(ReleaseRefusedError, match="verdict of another dataset"):
        require_release(twins, check, override_reason=None)


def test_a_changed_dataset_does_not_leave_even_with_a_reason(tmp_path: Path) -> None:
    twins = dataset(tmp_path / "twins", "synthetic")
    (twins.path / "metadata" / "codes.parquet").unlink()
    with pytest.raises(DatasetError, match="not what its manifest says"):
        require_release(twins, None, override_reason="because")


@pytest.mark.parametrize(
    "change", [{"gates": {}}, {"gates": {"x": {"outcome": "fine"}}}, {"manifest_sha256": "?"}, {"unchecked": 1}]
)
def test_a_malformed_verdict_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_verdict(tmp_path, Verdict("0" * 64, "research", {"x": "passed"}))
    write_json(tmp_path / "verdict.json", {**read_json(tmp_path / "verdict.json"), **change})
    with pytest.raises(DatasetError, match=r"verdict\.json: \$"):
        read_verdict(tmp_path)


def test_a_shipped_profile_cannot_be_made_to_let_through_what_it_does_not() -> None:
    assert Verdict("0" * 64, "mine", {"x": "unchecked"}, "allowed").refusals() == []
    assert Verdict("0" * 64, "mine", {"x": "unchecked"}).refusals() == ["x unchecked"]
    with pytest.raises(DatasetError, match="unchecked must be refused under the profile public"):
        Verdict("0" * 64, "public", {"x": "passed"}, "allowed")


def test_provenance_names_inputs_by_name_and_hash_never_by_path(tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", "real")
    record = Provenance("ingest", "real", {"n": 1}, 0, [describe_input("meds", source.path)], privacy={"key": "ab"})
    write_provenance(tmp_path, record)
    read = read_provenance(tmp_path)
    assert read["inputs"][0]["manifest_sha256"] == source.manifest_hash()
    assert str(tmp_path) not in (tmp_path / "provenance.json").read_text()
    assert read["software"]["medtwin"]


def test_provenance_that_breaks_its_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not match its schema"):
        write_provenance(tmp_path, Provenance("ingest", "real", {}, 0, [Input("meds", "/a/path")]))
    write_json(tmp_path / "provenance.json", {"version": 2})
    with pytest.raises(DatasetError, match=r"provenance\.json"):
        read_provenance(tmp_path)


def test_the_time_of_provenance_can_be_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    write_provenance(tmp_path, Provenance("hospital", "simulated", {}, 1))
    assert read_provenance(tmp_path)["created"] == "1970-01-01T00:00:00+00:00"
