from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medtwin.config import build, compose
from medtwin.core.errors import ConfigError, SourceError
from medtwin.core.files import read_json
from medtwin.core.paths import config_dir
from medtwin.core.sources import Ledger
from medtwin.dicom import open_series
from medtwin.dicom.findings_tag import FindingsTag
from medtwin.dicom.labels import ArrayTable, LabelledImage, LabelTable
from medtwin.pipelines.ingest import main
from tests.dicom.samples import ROOT, cr, ct, save

TABLE = LabelTable(
    file="file",
    subject="who",
    study=["who", "visit"],
    modality="CR",
    body_part="CHEST",
    sex={"column": "sex", "values": {"m": "M", "f": "F"}},
    view={"column": "view", "values": {"pa": "PA"}},
    age_years="age",
    time={"column": "date", "format": "%Y-%m-%d"},
    findings={
        "column": "found",
        "separator": "|",
        "none": "none",
        "codes": {"p": "SNOMED//233604007", "e": "SNOMED//1"},
    },
    spacing_mm={"row": "sy", "column": "sx", "original_rows": "h", "original_columns": "w"},
)
HEAD = "file,who,visit,sex,view,age,date,found,sx,sy,w,h\n"
GOOD = "a.png,7,1,f,pa,50,2020-01-02,p|e,0.2,0.1,40,60"


def read(folder: Path, *lines: str, table: LabelTable = TABLE) -> tuple[list[LabelledImage], Ledger]:
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(20, 10)).save(folder / "a.png")
    (folder / "labels.csv").write_text(HEAD + "\n".join(lines) + "\n")
    ledger = Ledger()
    images = list(table.read(folder, folder / "labels.csv", ledger))
    assert ledger.imbalance() == {}
    return images, ledger


def test_a_row_becomes_an_image_with_the_true_spacing_of_its_stored_pixels(tmp_path: Path) -> None:
    ((image,), _) = read(tmp_path, GOOD)
    assert image.pixels.shape == (20, 10)
    assert np.array_equal(image.pixels, np.arange(200, dtype=np.uint8).reshape(20, 10))
    assert image.spacing_mm == pytest.approx((0.1 * 60 / 20, 0.2 * 40 / 10))
    assert (image.subject, image.study, image.sex, image.view, image.age_years) == ("7", "7/1", "F", "PA", 50.0)
    assert image.labels == ["SNOMED//1", "SNOMED//233604007"]
    assert image.time == datetime(2020, 1, 2)


def test_unknown_and_negative_are_not_the_same(tmp_path: Path) -> None:
    rows = ["a.png,7,1,f,pa,95,2020-01-02,none,0.2,0.1,40,60"]
    assert read(tmp_path, *rows)[0][0].labels == []
    image = read(tmp_path, "a.png,7,1,,,,,,,,,")[0][0]
    assert (image.labels, image.sex, image.view, image.age_years, image.spacing_mm, image.time) == (None,) * 6


def test_ages_over_89_are_90(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD.replace(",50,", ",97,"))[0][0].age_years == 90.0


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (GOOD.replace("a.png", "gone.png"), "missing-image"),
        (GOOD.replace("a.png", "../../etc/passwd"), "outside-source"),
        (GOOD.replace("a.png", "labels.csv"), "unreadable-image"),
        (GOOD.replace("a.png", "cut.png"), "unreadable-image"),
        (GOOD.replace("a.png", "colour.png"), "not-grey"),
        (GOOD.replace(",7,", ",,"), "no-subject"),
        (GOOD.replace(",f,", ",x,"), "unknown-sex"),
        (GOOD.replace(",pa,", ",oblique,"), "unknown-view"),
        (GOOD.replace(",50,", ",500,"), "bad-age"),
        (GOOD.replace(",50,", ",elderly,"), "bad-age"),
        (GOOD.replace("2020-01-02", "2020-13-02"), "bad-date"),
        (GOOD.replace("p|e", "p|zzz"), "unknown-finding"),
        (GOOD.replace("0.1", "-0.1"), "bad-spacing"),
        (GOOD.replace("0.1", "nan"), "bad-spacing"),
    ],
)
def test_a_bad_row_is_rejected_with_its_line_and_rule_and_the_good_one_is_read(
    tmp_path: Path, row: str, rule: str
) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256).astype(np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    images, ledger = read(tmp_path, row, GOOD)
    rejected = [(r.file, r.line, r.rule) for r in ledger.rejects]
    assert rejected == [("labels.csv", 2, rule)]
    assert len(images) == 1
    assert not any(value and value in ledger.rejects[0].reason for value in ("zzz", "oblique", "elderly", "passwd"))


def test_the_same_file_twice_and_files_without_a_row(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "extra.png")
    images, ledger = read(tmp_path, GOOD, GOOD)
    assert [r.rule for r in ledger.rejects] == ["duplicate-image"]
    assert len(images) == 1
    assert ledger.flags == {"image-without-label-row": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "lacks the columns file"),
        (HEAD.encode(), "has no rows"),
        (b"\xff\xfe", "no UTF-8 CSV"),
        (None, "is no file"),
    ],
)
def test_an_unusable_table_says_so(tmp_path: Path, text: bytes | None, message: str) -> None:
    if text is not None:
        (tmp_path / "labels.csv").write_bytes(text)
    with pytest.raises(SourceError, match=message):
        list(TABLE.read(tmp_path, tmp_path / "labels.csv", Ledger()))


def test_a_mapping_that_lacks_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="sex needs values"):
        replace(TABLE, sex={"column": "sex"})
    with pytest.raises(SourceError, match=r"needs source\.labels"):
        list(TABLE.read(Path(), None, Ledger()))


def test_an_npz_is_read_and_its_faults_are_said(tmp_path: Path) -> None:
    table = ArrayTable({"train": "train"}, [[], ["SNOMED//233604007"]], "CR", "CHEST")
    path = tmp_path / "x.npz"
    np.savez(path, train_images=np.zeros((3, 4, 4), np.uint8), train_labels=np.array([[0], [1], [5]]))
    ledger = Ledger()
    images = list(table.read(path, None, ledger))
    assert [(image.subject, image.labels) for image in images] == [("train-0", []), ("train-1", ["SNOMED//233604007"])]
    assert [(r.line, r.rule) for r in ledger.rejects] == [(3, "unknown-class")]
    np.savez(path, other=np.zeros(3))
    with pytest.raises(SourceError, match="must hold arrays such as train_images"):
        list(table.read(path, None, Ledger()))
    path.write_bytes(b"PK not a zip")
    with pytest.raises(SourceError, match="no readable npz"):
        list(table.read(path, None, Ledger()))
    np.savez(path, train_images=np.zeros((3, 4, 4)), train_labels=np.zeros(3))
    with pytest.raises(SourceError, match="uint8 or uint16"):
        list(table.read(path, None, Ledger()))


@pytest.mark.real
def test_the_nih_table_reads_whole(public_data: Path) -> None:
    folder = public_data / "nih_cxr"
    table = build(compose("ingest", ["labels=nih_cxr"])["labels"])
    ledger = Ledger()
    images = list(table.read(folder / "png256", folder / "labels.csv", ledger))
    assert len(images) == 802
    assert len({image.subject for image in images}) == 550
    assert ledger.rejects == []
    assert sum("SNOMED//233604007" in (image.labels or []) for image in images) == 802 - 413
    assert all(0.3 < (image.spacing_mm or (0, 0))[0] < 2.5 for image in images)


# --- labels of a named tag

TAG = FindingsTag("ImageComments", "|", "none", {"p": "SNOMED//233604007", "e": "SNOMED//1"})


def labels_of(folder: Path, *comments: str | None, tag: FindingsTag = TAG) -> tuple[list[str] | None, Ledger]:
    """What a CT series says whose slices have these comments."""
    for index, comment in enumerate(comments):
        save(folder / f"{index}", ct(index, **({} if comment is None else {tag.tag: comment})))
    ledger = Ledger()
    return tag.labels(open_series(folder), ledger), ledger


@pytest.mark.parametrize(
    ("comments", "labels", "flags"),
    [
        (["p|e"], ["SNOMED//1", "SNOMED//233604007"], {}),
        ([" e | "], ["SNOMED//1"], {}),
        (["none"], [], {}),
        (["none", "p"], ["SNOMED//233604007"], {}),
        (["p", None, ""], ["SNOMED//233604007"], {}),
        ([None], None, {"DICOM.label-absent": 1}),
        ([" |"], None, {"DICOM.label-absent": 1}),
        (["p|Seen by Dr Doe"], None, {"DICOM.label-unknown": 1}),
        (["p", "Doe", "Roe"], None, {"DICOM.label-unknown": 1}),
        (["P"], None, {"DICOM.label-unknown": 1}),
    ],
)
def test_a_tag_gives_labels_of_its_vocabulary_only(
    tmp_path: Path, comments: list[str | None], labels: list[str] | None, flags: dict[str, int]
) -> None:
    found, ledger = labels_of(tmp_path, *comments)
    assert found == labels
    assert dict(ledger.flags) == flags
    assert "Doe" not in f"{ledger}"


def test_a_tag_is_read_in_the_character_set_of_the_file(tmp_path: Path) -> None:
    tag = FindingsTag("StudyDescription", "|", "ohne Befund", {"Erguß": "A//1"})
    found, _ = labels_of(tmp_path, "Erguß", tag=tag)
    assert found == ["A//1"]


def test_a_tag_of_several_values_is_separated_as_such(tmp_path: Path) -> None:
    tag = FindingsTag("ImageType", "\\", "NORMAL", {"MASS": "A//1", **dict.fromkeys(["ORIGINAL", "PRIMARY"], "B//2")})
    found, _ = labels_of(tmp_path, ["ORIGINAL", "PRIMARY", "MASS"], tag=tag)  # type: ignore[arg-type]
    assert found == ["A//1", "B//2"]


def test_a_file_that_is_gone_has_no_label(tmp_path: Path) -> None:
    save(tmp_path / "0", ct(0, ImageComments="p"))
    series, ledger = open_series(tmp_path), Ledger()
    (tmp_path / "0").unlink()
    assert TAG.labels(series, ledger) is None
    assert ledger.flags == {"DICOM.label-unknown": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tag": "NoSuchTag"}, "keyword of a text attribute"),
        ({"tag": "PatientName"}, "keyword of a text attribute"),
        ({"tag": "PatientID"}, "keyword of a text attribute"),
        ({"tag": "Rows"}, "keyword of a text attribute"),
        ({"separator": ""}, "separator must be a text"),
        ({"codes": {}}, "at least one finding"),
        ({"codes": {"p": "233604007"}}, "must be SYSTEM//code"),
        ({"codes": {"p": "SNOMED//"}}, "must be SYSTEM//code"),
        ({"none": "p"}, "none no finding"),
    ],
)
def test_a_mapping_of_a_tag_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TAG, **change)


@pytest.mark.parametrize("option", sorted(path.stem for path in (config_dir() / "dicom_label").glob("*.yaml")))
def test_every_tag_mapping_builds(option: str) -> None:
    built = build(compose("ingest", [f"dicom_label={option}"])["dicom_label"], "dicom_label")
    assert built == {} if option == "none" else isinstance(built, FindingsTag)


def test_the_findings_of_nih_have_one_code_each_wherever_they_stand() -> None:
    config = compose("ingest", ["labels=nih_cxr", "dicom_label=nih_cxr"])
    assert config["labels"]["findings"]["codes"] == config["dicom_label"]["codes"]
    assert len(config["dicom_label"]["codes"]) == 14


# --- through `medtwin ingest`


def ingested(tmp_path: Path, *overrides: str) -> tuple[list[dict[str, Any]], pa.Table, dict[str, Any]]:
    """The images, events and counts of a dataset."""
    main(compose("ingest", [f"source.dicom={tmp_path / 'in'}", f"out={tmp_path / 'out'}", *overrides]))
    images = pq.read_table(tmp_path / "out" / "images.parquet").to_pylist()
    events = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out" / "data").rglob("*.parquet"))])
    return images, events, read_json(tmp_path / "out" / "counts.json")


def conclusions(events: pa.Table) -> list[str]:
    found = [code for code in events["code"].to_pylist() if "conclusionCode" in code]
    return sorted(code.partition("conclusionCode//")[2] for code in found)


@pytest.mark.parametrize("setting", ["dicom_label=nih_cxr", "source.dicom_label=nih_cxr"])
def test_labels_become_a_report_and_text_stays_out(tmp_path: Path, setting: str) -> None:
    texts = ["Effusion|Mass", "No Finding", "Effusion, as Dr Doe said", None]
    for index, text in enumerate(texts):
        more = {} if text is None else {"ImageComments": text}
        uids = {
            f"{kind}InstanceUID": f"{ROOT}.{place}.{index}" for place, kind in enumerate(("SOP", "Study", "Series"), 50)
        }
        save(tmp_path / "in" / f"{index}.dcm", cr(**more, **uids))
    images, events, counts = ingested(tmp_path, setting)
    found = sorted((image["labels"] for image in images), key=str)
    assert found == [None, None, ["SNOMED//309529002", "SNOMED//60046008"], []]
    assert conclusions(events) == ["SNOMED//17621005", "SNOMED//309529002", "SNOMED//60046008"]
    assert counts["flags"] == {"DICOM.label-absent": 1, "DICOM.label-unknown": 1}
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"Doe" in path.read_bytes()]


def test_the_findings_of_all_series_of_a_study_make_its_report(tmp_path: Path) -> None:
    for index, text in enumerate(["No Finding", "Mass"]):
        uids = {"SOPInstanceUID": f"{ROOT}.50.{index}", "SeriesInstanceUID": f"{ROOT}.51.{index}"}
        save(tmp_path / "in" / f"{index}.dcm", cr(ImageComments=text, **uids))
    images, events, _ = ingested(tmp_path, "dicom_label=nih_cxr")
    assert sorted(len(image["labels"]) for image in images) == [0, 1]
    assert conclusions(events) == ["SNOMED//309529002"]


@pytest.mark.parametrize(("reported", "differ"), [(None, 0), ("309529002", 0), ("60046008", 1)])
def test_a_study_of_the_record_gets_the_report_that_it_lacks(tmp_path: Path, reported: str | None, differ: int) -> None:
    patient = {"system": "urn:x", "value": "MR4711", "type": {"coding": [{"code": "MR"}]}}
    resources: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": "p", "identifier": [patient]},
        {
            "resourceType": "ImagingStudy",
            "id": "s",
            "status": "available",
            "subject": {"reference": "Patient/p"},
            "started": "2020-02-29T10:11:12Z",
            "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CR"}],
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{ROOT}.1"}],
        },
    ]
    if reported is not None:
        code = {"system": "http://snomed.info/sct", "code": reported}
        resources.append(
            {
                "resourceType": "DiagnosticReport",
                "id": "r",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4"}]},
                "subject": {"reference": "Patient/p"},
                "effectiveDateTime": "2020-02-29T10:11:12Z",
                "imagingStudy": [{"reference": "ImagingStudy/s"}],
                "conclusionCode": [{"coding": [code]}],
            }
        )
    (tmp_path / "fhir").mkdir()
    (tmp_path / "fhir" / "all.ndjson").write_text("\n".join(map(json.dumps, resources)) + "\n")
    save(tmp_path / "in" / "0.dcm", cr(ImageComments="Mass"))
    images, events, counts = ingested(tmp_path, f"source.fhir={tmp_path / 'fhir'}", "dicom_label=nih_cxr")
    assert [image["labels"] for image in images] == [[f"SNOMED//{reported or '309529002'}"]]
    assert conclusions(events) == [f"SNOMED//{reported or '309529002'}"]
    assert counts["flags"].get("DICOM.label-differs-from-report", 0) == differ
    assert counts["dataset"]["subjects"] == 1
    assert counts["rules"] == {}
    rows = events.to_pylist()
    (study,) = {row["event_id"] for row in rows if row["resource"] == "ImagingStudy" and row["event_id"]}
    (named,) = (row["text_value"] for row in rows if row["code"].endswith("DiagnosticReport.imagingStudy"))
    assert named == study


def test_labels_without_scans_are_refused(tmp_path: Path) -> None:
    (tmp_path / "fhir").mkdir()
    (tmp_path / "fhir" / "a.json").write_text("{}")
    with pytest.raises(ConfigError, match="dicom_label goes with DICOM files"):
        main(compose("ingest", [f"source.fhir={tmp_path / 'fhir'}", f"out={tmp_path / 'out'}", "dicom_label=nih_cxr"]))


def test_scans_in_an_archive_and_in_colour_are_read_on_request(tmp_path: Path) -> None:
    path = save(tmp_path / "made.dcm", cr())
    colour = cr(SOPInstanceUID=f"{ROOT}.99")
    colour.SamplesPerPixel, colour.PhotometricInterpretation, colour.PlanarConfiguration = 3, "RGB", 0
    colour.PixelData = bytes(range(45)) + b"\0"
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "disc.zip", "w") as file:
        file.write(path, "a.dcm")
        file.write(save(tmp_path / "colour.dcm", colour), "b.dcm")
    images, _, counts = ingested(tmp_path)
    assert len(images) == 1
    assert counts["rules"] == {"colour": 1}
    assert not list((tmp_path / "out").rglob("archives"))
    images, _, counts = ingested(tmp_path, "source.colour=grey", "overwrite=true")
    assert sum(image["num_slices"] for image in images) == 2
    assert counts["rules"] == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source.dicomweb.url=http://pacs.example.org/dicom-web"], "source.dicomweb: url is plain http"),
        (["source.dicomweb.url=https://pacs.example.org/dicom-web", "source.dicom=x"], "choose one"),
        (["source.dicomweb.url=https://pacs.example.org/dicom-web", "source.meds=x"], "source.meds stands alone"),
        (["source.dicomweb.modalities=[CT]"], "source=DIR is required"),
        (["source.colour=blue", "source.dicom=x"], "source.colour must be one of refuse, grey"),
        (["source.dicom_label=nope", "source.dicom=x"], "dicom_label has no option 'nope'"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        main(compose("ingest", [*overrides, f"out={tmp_path / 'out'}"]))
