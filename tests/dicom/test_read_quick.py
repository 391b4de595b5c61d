"""The fast look at a header says what pydicom says, or nothing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medtwin.dicom.reading import headers
from medtwin.dicom.reading.faults import NotDicomError, NotImageError, UnfitError
from medtwin.dicom.reading.quick import read_quickly
from tests.dicom.enhanced_samples import item
from tests.dicom.samples import cr, ct, save, words


def both(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """What the reader says with the fast look and without."""
    fast = outcome(path)
    with monkeypatch.context() as patch:
        patch.setattr(headers, "read_quickly", lambda *_: None)
        return fast, outcome(path)


def outcome(path: Path) -> Any:
    """Images or the error."""
    try:
        return headers.read_image_file(path, "f")
    except (UnfitError, NotImageError, NotDicomError) as error:
        return type(error).__name__, getattr(error, "rule", ""), str(error)


def is_quick(path: Path) -> bool:
    """Whether the fast look takes the file."""
    with path.open("rb") as stream:
        return read_quickly(stream, path.stat().st_size) is not None


def test_on_every_file_that_pydicom_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [Path(name) for name in sorted(set(get_testdata_files())) if Path(name).is_file()]
    taken = 0
    for path in paths:
        fast, slow = both(path, monkeypatch)
        assert fast == slow, path.name
        taken += is_quick(path)
    assert taken > 30


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_plain_files_are_taken(tmp_path: Path, syntax: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct(0, syntax=syntax, RequestAttributesSequence=[item(ScheduledProcedureStepID="1")])
    dataset["RequestAttributesSequence"].is_undefined_length = True
    path = save(tmp_path / "0", dataset)
    assert is_quick(path)
    fast, slow = both(path, monkeypatch)
    assert fast == slow
    compressed = ct(0, syntax=ExplicitVRLittleEndian)
    compressed.compress(RLELossless)
    path = save(tmp_path / "1", compressed)
    assert is_quick(path)
    fast, slow = both(path, monkeypatch)
    assert fast == slow


def test_a_long_header_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct(0)
    dataset.add_new(0x00091010, "OB", b"\1" * 40_000)
    path = save(tmp_path / "0", dataset)
    assert is_quick(path)
    fast, slow = both(path, monkeypatch)
    assert fast == slow


TEXTS = st.one_of(
    st.text("0123456789.-+eE\\ ", max_size=18),
    st.text("ABCPXx_ \\^0179", max_size=20),
    st.sampled_from(
        ["006M", "2020.01.02", "20200102", "12:30", "Müller", "1e5", "nan", "inf", "AP", "HU", "120", "1\\1"]
    ),
)
KEYWORDS = st.sampled_from(
    words(
        """
        PatientID Modality PatientSex BodyPartExamined ViewPosition PatientAge PatientBirthDate StudyDate StudyTime
        TimezoneOffsetFromUTC RescaleSlope RescaleIntercept RescaleType SliceThickness KVP Manufacturer InstanceNumber
        PixelSpacing ImagePositionPatient ImageOrientationPatient ImagerPixelSpacing PixelAspectRatio StudyInstanceUID
        NumberOfFrames BurnedInAnnotation PhotometricInterpretation SpecificCharacterSet
        """
    )
)


@given(changes=st.dictionaries(KEYWORDS, TEXTS, max_size=4), is_implicit=st.booleans())
@settings(max_examples=120, deadline=None)
def test_on_headers_of_any_values(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, str], is_implicit: bool
) -> None:
    path = save(
        tmp_path_factory.mktemp("values") / "0",
        ct(0, syntax=ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian),
    )
    rewrite(path, {keyword: text.encode("latin-1") for keyword, text in changes.items()}, is_implicit)
    with pytest.MonkeyPatch.context() as patch:
        fast, slow = both(path, patch)
    assert fast == slow


def raw_value(dataset: Any, tag: Any) -> bytes:
    """The bytes of a value; pydicom has converted that of the character set already."""
    value = dataset.get_item(tag).value
    return value if isinstance(value, bytes) else b"ISO_IR 100" if value else b""


def rewrite(path: Path, changes: dict[str, bytes], is_implicit: bool) -> None:
    """Sets values in a file as they are; pydicom would check them."""
    dataset = pydicom.dcmread(path)
    values = {int(tag): (dictionary_VR(tag), raw_value(dataset, tag)) for tag in dataset.keys()}  # noqa: SIM118
    for keyword, value in changes.items():
        values[int(tag_for_keyword(keyword) or 0)] = (dictionary_VR(keyword), value + b" " * (len(value) % 2))
    data = path.read_bytes()
    out = data[: data.index(struct.pack("<HH", 8, 5), 132)]
    for tag, (vr, value) in sorted(values.items()):
        out += struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if is_implicit:
            out += struct.pack("<L", len(value))
        elif tag == 0x7FE00010:
            out += b"OW\0\0" + struct.pack("<L", len(value))
        else:
            out += vr.encode() + struct.pack("<H", len(value))
        out += value
    path.write_bytes(out)


@given(changes=st.lists(st.tuples(st.integers(128, 900), st.integers(0, 255)), min_size=1, max_size=4))
@example(changes=[(258, 0)])  # an element of group 0: pydicom warns
@example(changes=[(747, 128)])  # a tag beyond the pixels
@settings(max_examples=150, deadline=None)
def test_on_garbled_headers(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]) -> None:
    path = save(tmp_path_factory.mktemp("garbled") / "0", cr(np.zeros((3, 5), np.uint8)))
    garbled = bytearray(path.read_bytes())
    for position, byte in changes:
        garbled[position % len(garbled)] = byte
    path.write_bytes(garbled)
    if not is_quick(path):
        return
    with pytest.MonkeyPatch.context() as patch:
        fast, slow = both(path, patch)
    assert fast == slow
