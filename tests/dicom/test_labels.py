from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtwin.config import build, compose
from medtwin.core.errors import ConfigError, SourceError
from medtwin.core.sources import Ledger
from medtwin.dicom.labels import ArrayTable, LabelledImage, LabelTable

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
