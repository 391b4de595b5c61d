"""What a person does wrong, and what a source has wrong: one clear message each, and nothing broken."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from medtwin.core.dataset import open_dataset
from medtwin.core.files import read_json
from tests.e2e.conftest import Medtwin

PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [
        {
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
            "value": "MRN-1",
        }
    ],
    "gender": "female",
    "birthDate": "1970-02-03",
}
LAB = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
    "subject": {"reference": "Patient/p1"},
    "effectiveDateTime": "2020-03-08T01:30:00-05:00",
    "valueQuantity": {"value": 0.9, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
}


def rejected(out: Path) -> list[tuple[str, int, str]]:
    with (out / "rejected" / "rejected.csv").open() as file:
        return [(row["file"], int(row["line"]), row["rule"]) for row in csv.DictReader(file)]


def write_ndjson(path: Path, *lines: object) -> None:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is empty"),
        (lambda folder: (folder / "readme.txt").write_text("nothing"), "no FHIR"),
        (lambda folder: (folder / "x.json").write_text('{"resourceType": "Patient", "id": '), "no patient event"),
    ],
)
def test_a_folder_without_a_record_gives_one_line(medtwin: Medtwin, tmp_path: Path, make: object, message: str) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")  # type: ignore[operator]
    done = medtwin("ingest", f"source.fhir={tmp_path / 'in'}", f"out={tmp_path / 'out'}", code=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_bad_lines_are_rejected_and_good_ones_are_read(medtwin: Medtwin, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    wrong = {
        "refuted": {**LAB, "id": "o2", "status": "entered-in-error"},
        "nobody": {**LAB, "id": "o3", "subject": {"reference": "Patient/other"}},
        "text": {**LAB, "id": "o4", "code": {"text": "creatinine of Jane Doe"}},
        "date": {**LAB, "id": "o5", "effectiveDateTime": "2020-13-45"},
    }
    write_ndjson(source / "a.ndjson", PATIENT, LAB, LAB, '{"resourceType": "Obs', *wrong.values())
    medtwin("ingest", f"source.fhir={source}", f"out={out}")
    rules = {line: rule for _, line, rule in rejected(out)}
    assert rules[3] == "duplicate-id"
    assert set(rules) == {3, 4, 5, 6, 7, 8}
    counts = read_json(out / "counts.json")
    assert sum(counts["rejected"].values()) == 6
    codes = open_dataset(out).events()["code"].to_pylist()
    assert codes.count("LOINC//2160-0") == 1
    assert "Jane" not in (out / "rejected" / "rejected.csv").read_text()


def test_a_truncated_gzip_keeps_what_came_before(medtwin: Medtwin, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    lines = [PATIENT] + [{**LAB, "id": f"o{i}", "note": [{"text": str(i) * 50}]} for i in range(4000)]
    whole = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    (source / "a.ndjson.gz").write_bytes(whole[: len(whole) // 2])
    medtwin("ingest", f"source.fhir={source}", f"out={out}")
    ((file, line, _),) = [row for row in rejected(out) if row[2] == "truncated-gzip"]
    assert file == "a.ndjson.gz"
    assert line > 100
    assert open_dataset(out).events()["code"].to_pylist().count("LOINC//2160-0") > 100


def test_one_corrupt_dicom_among_good_ones(medtwin: Medtwin, hospital: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(hospital / "dicom", source)
    files = sorted(source.rglob("*.dcm"))
    single = next(path for path in files if len(list(path.parent.iterdir())) == 1)
    single.write_bytes(single.read_bytes()[:60_000])
    (single.parent / "notes.txt").write_text("not DICOM")
    medtwin("ingest", f"source.dicom={source}", f"out={out}")
    ((file, _, rule),) = rejected(out)
    assert file == single.relative_to(source).as_posix()
    assert "pixel" in rule or "truncated" in rule
    counts = read_json(out / "counts.json")
    assert counts["carried"]["DICOM"] == len(files) - 1


def test_an_unreadable_folder_says_so(medtwin: Medtwin, tmp_path: Path) -> None:
    import os

    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.ndjson").write_text("{}")
    folder.chmod(0)
    try:
        if os.access(folder, os.R_OK):
            pytest.skip("needs a user whom permissions bind; root reads everything")
        done = medtwin("ingest", f"source.fhir={folder}", f"out={tmp_path / 'out'}", code=2)
    finally:
        folder.chmod(0o755)
    assert "cannot be read" in done.stderr


def test_a_foreign_meds_dataset_keeps_its_codes_and_leaves_as_fhir(medtwin: Medtwin, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = tmp_path / "meds"
    (source / "data").mkdir(parents=True)
    (source / "metadata").mkdir()
    codes = [
        "GENDER//F",
        "MEDS_BIRTH",
        "HOSPITAL_ADMISSION//URGENT",
        "LAB//50912//mg/dL",
        "DIAGNOSIS//ICD//10//I509",
        "MEDS_DEATH",
    ]
    years = [None, 1950, 2020, 2020, 2020, 2021]
    table = pa.table(
        {
            "subject_id": [7] * 6,
            "time": pa.array([None if y is None else datetime(y, 1, 1) for y in years], pa.timestamp("us")),
            "code": codes,
            "numeric_value": pa.array([None, None, None, 1.1, None, None], pa.float32()),
        }
    )
    pq.write_table(table, source / "data" / "0.parquet")
    medtwin("ingest", f"source={source}", f"out={tmp_path / 'd'}")
    dataset = open_dataset(tmp_path / "d")
    assert dataset.events()["code"].to_pylist() == codes
    assert dataset.validate() == []
    out = tmp_path / "e"
    medtwin(
        "export", f"dataset={dataset.path}", "formats=[fhir]", "fhir.check=all", "override.reason=test", f"out={out}"
    )
    lab = [json.loads(line) for line in (out / "fhir" / "Observation.ndjson").read_text().splitlines()]
    coded = {each["code"]["coding"][0]["system"] + "|" + each["code"]["coding"][0]["code"] for each in lab}
    assert "urn:medtwin:code:LAB|50912//mg/dL" in coded
    patient = json.loads((out / "fhir" / "Patient.ndjson").read_text())
    assert (patient["gender"], patient["birthDate"], patient["deceasedDateTime"][:4]) == (
        "female",
        "1950-01-01",
        "2021",
    )


def test_every_image_of_every_array_of_an_npz_is_kept(medtwin: Medtwin, tmp_path: Path) -> None:
    import numpy as np

    from medtwin.dicom import open_series

    pixels = np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4)
    path = tmp_path / "x.npz"
    np.savez(path, train_images=pixels[:3], train_labels=[0, 1, 0], val_images=pixels[3:], val_labels=[1, 1])
    medtwin("ingest", f"source.images={path}", "labels=pneumoniamnist", f"out={tmp_path / 'd'}")
    dataset = open_dataset(tmp_path / "d")
    assert dataset.validate() == []
    found = [open_series(dataset.path / row["path"]).pixels()[0] for row in dataset.images().to_pylist()]
    assert sorted(int(image[0, 0]) for image in found) == [0, 16, 32, 48, 64]
    assert sum(labels == ["SNOMED//233604007"] for labels in dataset.images()["labels"].to_pylist()) == 3


def test_an_output_inside_its_source_is_refused(
    medtwin: Medtwin, hospital: Path, dataset: Path, tmp_path: Path
) -> None:
    for verb, source, out in (
        ("ingest", f"source={hospital}", hospital / "fhir" / "x"),
        ("export", f"dataset={dataset}", dataset / "x"),
    ):
        done = medtwin(verb, source, f"out={out}", code=2)
        assert "lies inside" in done.stderr
        assert not out.exists()
    again = medtwin("ingest", f"source={dataset}", f"out={tmp_path / 'd'}", code=2)
    assert "is a medtwin dataset already" in again.stderr


def test_several_runs_in_one_command(medtwin: Medtwin, tmp_path: Path) -> None:
    medtwin("hospital", "-m", "n=2", "seed=1,2", "images=false", f"out={tmp_path}/${{seed}}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert not Path("multirun.yaml").exists()
    assert not Path("multirun").exists()
    one, two = ((tmp_path / name / "fhir" / "Patient.ndjson").read_text() for name in ("1", "2"))
    assert one != two


def test_a_full_disk_gives_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from medtwin import cli

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(cli, "_dispatch", full)
    with pytest.raises(SystemExit) as stop:
        cli.main(["hospital"])
    assert stop.value.code == 2
    expected = "medtwin: No space left on device: somewhere; the same command continues when it is mended"
    assert capsys.readouterr().err.strip() == expected


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from medtwin.core.errors import SourceError
    from medtwin.pipelines.sources import require_source

    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SourceError, match=r"source.fhir: .* cannot be read: change its permissions"):
        require_source(tmp_path, "source.fhir")


def test_a_finished_output_is_left_alone_and_said(medtwin: Medtwin, dataset: Path, hospital: Path) -> None:
    before = (dataset / "manifest.json").read_bytes()
    done = medtwin("ingest", f"source={hospital}", f"out={dataset}")
    assert "is finished already (overwrite=true redoes it)" in done.stdout
    assert (dataset / "manifest.json").read_bytes() == before


def test_real_patients_leave_only_with_a_recorded_reason(medtwin: Medtwin, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_ndjson(source / "a.ndjson", PATIENT, LAB)
    medtwin("ingest", f"source={source}", f"out={out}")
    refused = medtwin("export", f"dataset={out}", f"out={tmp_path / 'e'}", "formats=[fhir]", code=2)
    assert "holds real patients" in refused.stderr
    assert not (tmp_path / "e").exists()
    medtwin(
        "export",
        f"dataset={out}",
        f"out={tmp_path / 'e'}",
        "formats=[fhir]",
        "override.reason=board 7/26",
        "override.by=me",
    )
    (decision,) = read_json(tmp_path / "e" / "provenance.json")["human_decisions"]
    assert decision["reason"] == "board 7/26"
    assert decision["by"] == "me"
    assert "HTEST" not in (tmp_path / "e" / "fhir" / "Observation.ndjson").read_text()
    assert "MRN-1" not in "".join(path.read_text() for path in (tmp_path / "e").rglob("*.ndjson"))


def test_an_instant_survives_the_change_of_clock(medtwin: Medtwin, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    after = {**LAB, "id": "o2", "effectiveDateTime": "2020-03-08T03:10:00-04:00"}
    write_ndjson(source / "a.ndjson", PATIENT, LAB, after)
    medtwin("ingest", f"source={source}", f"out={out}", "pseudonyms.max_shift_weeks=0")
    events = open_dataset(out).events().to_pandas()
    labs = events[events.code == "LOINC//2160-0"].sort_values("time")
    assert [str(time) for time in labs.time] == ["2020-03-08 06:30:00", "2020-03-08 07:10:00"]
    assert list(labs.time_precision) == ["second-05:00", "second-04:00"]


def test_keep_keeps_only_whom_it_names(medtwin: Medtwin, tmp_path: Path) -> None:
    out = tmp_path / "h"
    medtwin("hospital", "n=3", "keep=condition(84114007) & sex(F)", "images=false", f"out={out}")
    patients = [json.loads(line) for line in (out / "fhir" / "Patient.ndjson").read_text().splitlines()]
    assert [patient["gender"] for patient in patients] == ["female"] * 3
    conditions = [json.loads(line) for line in (out / "fhir" / "Condition.ndjson").read_text().splitlines()]
    ill = {c["subject"]["reference"] for c in conditions if c["code"]["coding"][0]["code"] == "84114007"}
    assert len(ill) == 3
    wrong = medtwin("hospital", "n=3", "keep=condition(", f"out={tmp_path / 'x'}", code=2)
    assert "keep" in wrong.stderr
    never = medtwin("hospital", "n=1", "keep=age(1,2)", f"out={tmp_path / 'y'}", code=2)
    assert "must match 1 subjects, matched 0 of" in never.stderr


def test_scans_join_the_record_under_any_of_its_medical_record_numbers(medtwin: Medtwin, tmp_path: Path) -> None:
    import numpy as np

    from medtwin.dicom import Patient, ProjectionImage, Study, projection_to_dataset, synthetic_uid, write_series

    source = tmp_path / "in"
    (source / "scans").mkdir(parents=True)
    second = {**PATIENT["identifier"][0], "value": "OLD-7"}  # type: ignore[index, dict-item]
    write_ndjson(source / "a.ndjson", {**PATIENT, "identifier": [*PATIENT["identifier"], second]}, LAB)  # type: ignore[misc]
    image = ProjectionImage(np.full((64, 64), 7, np.uint8), 8, "PA", (1.0, 1.0))
    for number in ("MRN-1", "OLD-7", "ELSE"):
        study = Study(synthetic_uid(number, "study"), synthetic_uid(number), "real", body_part="CHEST")
        write_series(source / "scans" / number, [projection_to_dataset(image, Patient(number, sex="F"), study)])
    medtwin("ingest", f"source={source}", f"out={tmp_path / 'out'}")
    dataset = open_dataset(tmp_path / "out")
    subjects = dataset.images()["subject_id"].to_pylist()
    assert len(dataset.subject_splits()) == 2
    assert sorted(subjects.count(subject) for subject in set(subjects)) == [1, 2]
