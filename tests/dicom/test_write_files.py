"""Files: the fast path, other classes, other encodings, geometry as another library sees it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.fileset import FileSet

from medtwin.core.errors import ConfigError, DatasetError, OutputError
from medtwin.dicom import Volume, open_series, projection_to_dataset, volume_to_datasets, write_series, write_volume
from medtwin.dicom.write import (
    TRANSFER_SYNTAXES,
    compress,
    has_syntax,
    media_name,
    read_entry,
    rewrite_file,
    to_secondary_capture,
    write_dicomdir,
)
from medtwin.dicom.writing import syntaxes
from medtwin.dicom.writing.syntaxes import LossError
from tests.dicom.samples import ct
from tests.dicom.test_write import CASES, CT, MR, PATIENT, RADIOGRAPH, STUDY

COMPRESSED = [name for name in TRANSFER_SYNTAXES if name != "explicit_little_endian"]
VOLUMES = {
    "CT": CT,
    "CT, signed": replace(CT, values=CT.values * 9),
    "CT, one pixel": replace(CT, values=CT.values[:1, :1, :1]),
    "CT of whole numbers": replace(CT, values=np.arange(60, dtype=np.int16).reshape(3, 4, 5)),
    "MR": MR,
    "MR, 16 bits": replace(MR, values=MR.values * 1000),
}


@contextmanager
def file_set(directory: Path) -> Iterator[FileSet]:
    """The file-set of a DICOMDIR; pydicom leaves the removal of its scratch folder to chance."""
    found = FileSet(directory)
    try:
        yield found
    finally:
        found._stage["t"].cleanup()


def _noise(shape: tuple[int, ...] = (2, 40, 48)) -> Volume:
    return replace(CT, values=np.random.default_rng(1).integers(-1024, 3072, shape))


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_written_fast_is_the_same_files(tmp_path: Path, name: str) -> None:
    slow = write_series(tmp_path / "slow", volume_to_datasets(VOLUMES[name], PATIENT, STUDY))
    fast = write_volume(tmp_path / "fast", VOLUMES[name], PATIENT, STUDY)
    assert [path.name for path in fast] == [path.name for path in slow]
    assert [path.read_bytes() for path in fast] == [path.read_bytes() for path in slow]


@pytest.mark.parametrize("syntax", COMPRESSED)
@pytest.mark.parametrize("name", ["CR", "CT", "CT, signed", "MR"])
def test_what_is_compressed_decodes_to_the_same_values(
    tmp_path: Path, name: str, syntax: str, dciodvfy: Callable[[Path], list[str]]
) -> None:
    shape = (40, 48)
    noise = np.random.default_rng(0).integers(0, 4096, shape)
    made = {
        "CR": lambda: projection_to_dataset(replace(RADIOGRAPH, stored=noise.astype(np.uint16)), PATIENT, STUDY),
        "CT": lambda: next(volume_to_datasets(_noise(), PATIENT, STUDY)),
        "CT, signed": lambda: next(volume_to_datasets(replace(CT, values=noise[None] * 16 - 32768), PATIENT, STUDY)),
        "MR": lambda: next(volume_to_datasets(replace(MR, values=noise[None]), PATIENT, STUDY)),
    }[name]()
    wanted = made.pixel_array.copy()
    uid = made.SOPInstanceUID
    compress(made, syntax)
    (path,) = write_series(tmp_path, [made])
    assert np.array_equal(pydicom.dcmread(path).pixel_array, wanted)
    assert (made.SOPInstanceUID, made.file_meta.MediaStorageSOPInstanceUID) == (uid, uid)
    assert has_syntax(path, syntax)
    assert dciodvfy(path) == []


@given(
    cells=st.lists(st.integers(-2048, 2047), min_size=1, max_size=64),
    syntax=st.sampled_from(["jpeg_ls", "rle"]),
    is_signed=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_pixels_come_back_or_are_refused(cells: list[int], syntax: str, is_signed: bool) -> None:
    values = np.array(cells, np.int16)[np.newaxis]
    dataset = ct(0, values if is_signed else (values + 2048).astype(np.uint16))
    dataset.BitsStored, dataset.HighBit = 12, 11  # as scanners do: 12 bits with the sign above
    dataset = _explicit(dataset)
    before = dataset.PixelData
    try:
        compress(dataset, syntax)
    except LossError:
        assert dataset.PixelData == before
        return
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    written.seek(0)
    found = pydicom.dcmread(written).pixel_array
    assert found.reshape(-1).tolist() == [cell if is_signed else cell + 2048 for cell in cells]


def _explicit(dataset: FileDataset) -> FileDataset:
    written = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(written, implicit_vr=False, little_endian=True, enforce_file_format=True)
    written.seek(0)
    return pydicom.dcmread(written)


def test_what_an_encoder_loses_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = write_series(tmp_path / "in", [next(volume_to_datasets(_noise(), PATIENT, STUDY))])

    class Careless:
        available_plugins = ("pyjpegls",)

        def encode(self, stored: np.ndarray, **options: Any) -> bytes:
            encoder, _ = kept
            return bytes(encoder.encode(stored & 0xFFFE, **options))

    kept = syntaxes._ENCODERS["jpeg_ls"]
    monkeypatch.setitem(syntaxes._ENCODERS, "jpeg_ls", (Careless(), "pyjpegls"))
    dataset = pydicom.dcmread(source)
    with pytest.raises(LossError, match="does not give the pixels back"):
        compress(dataset, "jpeg_ls")
    assert not rewrite_file(source, tmp_path / "out.dcm", transfer_syntax="jpeg_ls")
    assert (tmp_path / "out.dcm").read_bytes() == source.read_bytes()


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = write_series(tmp_path, [CASES["CR"]()[0]])
    monkeypatch.setitem(syntaxes._ENCODERS, "jpeg_ls", (syntaxes._ENCODERS["jpeg_ls"][0], "none"))
    with pytest.raises(ConfigError, match=r"medtwin\[codecs\]"):
        rewrite_file(source, tmp_path / "out.dcm", transfer_syntax="jpeg_ls")
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize("name", CASES)
def test_secondary_capture_keeps_pixels_and_identity(
    tmp_path: Path, name: str, dciodvfy: Callable[[Path], list[str]]
) -> None:
    source = CASES[name]()[0]
    before = source.to_json_dict(bulk_data_threshold=1 << 20)
    captured = to_secondary_capture(source)
    assert source.to_json_dict(bulk_data_threshold=1 << 20) == before
    assert captured.SOPClassUID.name == "Secondary Capture Image Storage"
    assert captured.ConversionType == ("SYN" if source.get("SyntheticData") == "YES" else "WSD")
    assert captured.SOPInstanceUID != source.SOPInstanceUID
    assert to_secondary_capture(source).SOPInstanceUID == captured.SOPInstanceUID
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "PixelData", "SyntheticData", "Modality"):
        assert captured.get(keyword) == source.get(keyword)
    assert captured.get("RescaleIntercept") == source.get("RescaleIntercept") or source.Modality == "DX"
    (path,) = write_series(tmp_path, [captured])
    assert dciodvfy(path) == []


def test_a_rewritten_file_is_the_same_file_where_nothing_changes(tmp_path: Path) -> None:
    (source,) = write_series(tmp_path, [CASES["CT"]()[0]])
    target = tmp_path / "out.dcm"
    assert rewrite_file(source, target, transfer_syntax="explicit_little_endian")
    assert target.read_bytes() == source.read_bytes()
    assert not target.samefile(source)
    (noise,) = write_series(tmp_path / "noise", [next(volume_to_datasets(_noise(), PATIENT, STUDY))])
    for syntax in COMPRESSED:
        assert rewrite_file(noise, target, transfer_syntax=syntax)
        back = tmp_path / "back.dcm"
        assert rewrite_file(target, back, transfer_syntax="explicit_little_endian")
        assert pydicom.dcmread(back).PixelData == pydicom.dcmread(noise).PixelData


@pytest.mark.parametrize("content", [b"", b"no DICOM", b"\0" * 128 + b"DICM"])
def test_a_file_that_is_none_is_named_without_its_place(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "images" / "7" / "2.25.1" / "0000.dcm"
    source.parent.mkdir(parents=True)
    source.write_bytes(content)
    with pytest.raises(DatasetError, match=r"^7/2\.25\.1/0000\.dcm cannot be written"):
        rewrite_file(source, tmp_path / "out.dcm", iod="sc", transfer_syntax="explicit_little_endian")
    assert not (tmp_path / "out.dcm").exists()
    with pytest.raises(DatasetError):
        has_syntax(tmp_path / "missing.dcm", "rle")


def test_a_dicomdir_names_every_file(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    files = []
    for number, study in enumerate([STUDY, replace(STUDY, study_uid="2.25.9", series_uid="2.25.10")]):
        made = volume_to_datasets(CT, PATIENT, study)
        for index, path in enumerate(write_series(tmp_path / "in" / str(number), made)):
            target = tmp_path / "disc" / media_name(0, number, 0, index)
            target.parent.mkdir(parents=True, exist_ok=True)
            rewrite_file(path, target, transfer_syntax="explicit_little_endian")
            files.append(target)
    directory = write_dicomdir(tmp_path / "disc", (read_entry(tmp_path / "disc", file) for file in files))
    assert directory.name == "DICOMDIR"
    with file_set(directory) as found:
        assert [Path(instance.path) for instance in found] == files
        assert len(found.find_values("StudyInstanceUID")) == 2
        assert found.find_values("PatientName") == ["Subject^One"]
        for instance, file in zip(found, files, strict=True):
            assert instance.SOPInstanceUID == pydicom.dcmread(file).SOPInstanceUID
            assert all(len(name) <= 8 and name == name.upper() for name in instance.FileID.split("/"))
    assert dciodvfy(directory) == []
    before = directory.read_bytes()
    write_dicomdir(tmp_path / "disc", (read_entry(tmp_path / "disc", file) for file in files))
    assert directory.read_bytes() == before


def test_a_dicomdir_needs_dates_and_counts_what_has_no_number(tmp_path: Path) -> None:
    dataset = CASES["CR"]()[0]
    dataset.StudyID, dataset.InstanceNumber, dataset.StudyTime = "", None, ""
    (named_by_number,) = write_series(tmp_path, [dataset])
    with pytest.raises(OutputError, match="up to 8 of A-Z"):
        write_dicomdir(tmp_path, [read_entry(tmp_path, named_by_number)])
    file = named_by_number.rename(tmp_path / "IM000000")
    with file_set(write_dicomdir(tmp_path, [read_entry(tmp_path, file)])) as (found,):
        assert (found["StudyID"].value, found["InstanceNumber"].value, found["StudyTime"].value) == ("1", 1, "000000")
    dataset.StudyDate = ""
    write_series(tmp_path, [dataset])[0].replace(file)
    with pytest.raises(OutputError, match="a date of every study"):
        write_dicomdir(tmp_path, [read_entry(tmp_path, file)])
    with pytest.raises(OutputError, match="at least one image"):
        write_dicomdir(tmp_path, [])
    with pytest.raises(OutputError, match="1,000,000"):
        media_name(0, 0, 0, 1_000_000)


@pytest.mark.parametrize(
    "volume",
    [
        _noise((3, 4, 5)),
        replace(_noise((3, 4, 5)), orientation=(0, 1, 0, 0, 0, -1), origin_mm=(1.25, -7.5, 100)),
        replace(_noise((3, 4, 5)), orientation=(0.6, 0.8, 0, 0, 0, -1), pixel_spacing_mm=(1 / 3, 2 / 7)),
        replace(MR, values=MR.values[:2]),
    ],
)
def test_another_library_sees_the_same_place_and_values(tmp_path: Path, volume: Volume) -> None:
    sitk = pytest.importorskip("SimpleITK")
    paths = write_volume(tmp_path, volume, PATIENT, STUDY)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    image = reader.Execute()
    axes = np.array(volume.orientation).reshape(2, 3)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    assert np.allclose(direction, np.stack([*axes, np.cross(*axes)], axis=1), atol=1e-6)
    assert np.allclose(image.GetOrigin(), volume.origin_mm, atol=1e-6)
    row, column = volume.pixel_spacing_mm
    assert np.allclose(image.GetSpacing(), (column, row, volume.slice_spacing_mm), atol=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(image), np.rint(volume.values))
    assert np.array_equal(open_series(tmp_path).pixels(), np.rint(volume.values))
