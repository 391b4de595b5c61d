"""`medtwin scan` and the scan of `medtwin export`: what is found does not leave, and is told by no value."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest

from medtwin.core.errors import ConfigError, ReleaseRefusedError
from medtwin.core.files import read_json
from medtwin.core.provenance import read_provenance
from medtwin.core.verdict import Verdict, write_verdict
from medtwin.pipelines.export import export
from medtwin.pipelines.export_settings import ExportSettings, Override
from medtwin.pipelines.identifier_scan import known_of
from medtwin.pipelines.scan import ScanSettings, scan
from tests.check import samples


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    names = [[{"family": f"Quill{chr(97 + i)}", "given": ["Otto"]}] for i in range(20)]
    patients = [{"resourceType": "Patient", "id": f"person-{i:05}", "name": name} for i, name in enumerate(names)]
    (folder / "Patient.ndjson").write_text("\n".join(map(json.dumps, patients)))
    file = folder.with_name("private") / "identifiers.parquet"
    scan(ScanSettings(out=folder / "x", source=folder, known=file))
    return file


def test_the_verb_finds_what_was_planted_and_passes_what_is_clean(
    known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.json").write_text('{"display": "Glucose in serum"}')
    scan(ScanSettings(out=tmp_path / "clean", files=files, known=known))
    assert "nothing found in" in capsys.readouterr().out
    (files / "b.json").write_text('{"display": "Otto Quillc was here"}')
    with pytest.raises(ReleaseRefusedError, match="1 identifiers or what looks like one"):
        scan(ScanSettings(out=tmp_path / "dirty", files=files, known=known))
    printed = capsys.readouterr()
    assert "b.json" in printed.out
    assert "uillc" not in printed.out + printed.err
    rows = list(csv.DictReader((tmp_path / "dirty" / "hits.csv").read_text().splitlines()))
    assert [(row["file"], row["field"], row["kind"], row["source"]) for row in rows] == [
        ("b.json", "display", "name", "source")
    ]
    assert "uillc" not in "".join(path.read_text() for path in (tmp_path / "dirty").glob("*.*"))
    with pytest.raises(ConfigError, match="scan needs files=DIR"):
        ScanSettings(out=tmp_path / "none", known=known)


def test_twins_with_an_identifier_do_not_leave_without_a_reason(known: Path, tmp_path: Path) -> None:
    table = samples.hospital_table(12, seed=1)
    text = ["Quilld, Otto" if i == 3 else None for i in range(len(table))]
    dirty = samples.with_column(table, "text_value", pa.array(text, pa.large_string()))
    for name, rows in (("clean", table), ("dirty", dirty)):
        twins = samples.write_dataset(tmp_path / name, rows, "synthetic")
        write_verdict(tmp_path, Verdict(twins.manifest_hash(), "research", {"codes": "passed"}, "allowed"))
        chosen = {"dataset": twins.path, "formats": ("csv",), "check": tmp_path, "identifiers": known}
        out = tmp_path / f"{name}-export"
        if name == "clean":
            export(ExportSettings(out=out, **chosen))
            assert read_json(out / "identifiers.json")["found"] == []
            continue
        with pytest.raises(ReleaseRefusedError, match="1 identifiers or what looks like one stand in the files"):
            export(ExportSettings(out=out, **chosen))
        assert not out.exists()
        export(ExportSettings(out=out, **chosen, override=Override("a made-up name"), overwrite=True))
        assert "stand in the files" in read_provenance(out)["human_decisions"][0]["decision"]
        assert "uilld" not in (out / "identifiers.json").read_text()


def test_a_file_of_hashes_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    twins = samples.write_dataset(tmp_path / "twins", samples.hospital_table(12, seed=1), "synthetic")
    write_verdict(tmp_path, Verdict(twins.manifest_hash(), "research", {"codes": "passed"}, "allowed"))
    chosen = ExportSettings(
        out=tmp_path / "out", dataset=twins.path, formats=("csv",), check=tmp_path, identifiers=tmp_path / "none"
    )
    with pytest.raises(ConfigError, match=r"identifiers=.*none must be a file that"):
        export(chosen)
    assert not list(tmp_path.glob("out*"))


def test_what_lies_beside_the_dataset_is_used_and_its_own_ids_too(known: Path, tmp_path: Path) -> None:
    real = samples.write_dataset(tmp_path / "real", samples.hospital_table(12, seed=2), "real")
    own = known_of(real, None)
    assert own.counts().get("name") is None
    event = real.events()["event_id"].drop_null()[0].as_py()
    assert list(own.found_in(event, "event_id"))
    beside = tmp_path / "real.private"
    beside.mkdir()
    (beside / "identifiers.parquet").write_bytes(known.read_bytes())
    assert known_of(real, None).counts()["name"] > 0
