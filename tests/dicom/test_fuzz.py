"""Bytes of valid files changed or cut: no crash, no hang, no silently wrong pixel.

What "silently wrong" means: with a change in the header outside the elements that say how pixels are stored, and
outside the file meta information, an image that is still read has the pixels it had; with a change within the pixels
of a native file, only cells of the changed bytes differ; a file cut within its pixels is never read. A change in a
codestream may decode to something else: that is the pixels themselves.

    MEDTWIN_HYPOTHESIS=search MEDTWIN_FUZZ_EXAMPLES=600 scripts/test tests/dicom/test_fuzz.py

looks for new cases, 600 of each kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from medtwin.core.errors import SourceError
from medtwin.core.sources import Ledger
from medtwin.dicom import read_folder
from medtwin.dicom.values import quiet
from tests.dicom.enhanced_samples import enhanced_ct
from tests.dicom.samples import ct, pixels, save

SHAPE = (40, 36)
EXAMPLES = int(os.environ.get("MEDTWIN_FUZZ_EXAMPLES", "35"))


def compressed(syntax: pydicom.uid.UID) -> FileDataset:
    """A CT slice in a codec."""
    dataset = ct(1, pixels(1, SHAPE), syntax=ExplicitVRLittleEndian)
    dataset.compress(syntax)
    return dataset


def compressed_frames() -> FileDataset:
    """An Enhanced CT in RLE."""
    dataset = enhanced_ct(shape=SHAPE)
    dataset.compress(RLELossless)
    return dataset


SAMPLES: dict[str, Callable[[], FileDataset]] = {
    "native": lambda: ct(1, pixels(1, SHAPE), syntax=ExplicitVRLittleEndian),
    "implicit": lambda: ct(1, pixels(1, SHAPE)),
    "rle": lambda: compressed(RLELossless),
    "jpeg-ls": lambda: compressed(JPEGLSLossless),
    "jpeg-2000": lambda: compressed(JPEG2000Lossless),
    "enhanced": lambda: enhanced_ct(shape=SHAPE),
    "enhanced-rle": compressed_frames,
}
CONTENT: dict[str, bytes] = {}


def content(name: str, folder: Path) -> bytes:
    """The bytes of a sample."""
    if name not in CONTENT:
        CONTENT[name] = save(folder / "sample", SAMPLES[name]()).read_bytes()
    return CONTENT[name]


def stored_of(data: bytes, folder: Path) -> list[np.ndarray] | None:
    """The stored values of each image in the order of frames; None if the file is rejected or ignored."""
    path = folder / "0.dcm"
    path.write_bytes(data)
    ledger = Ledger()
    instances = [one for series in read_folder(folder, ledger) for one in series.instances]
    ledger.carried["DICOM"] = len(instances)
    assert not ledger.imbalance()
    path.unlink()
    path.write_bytes(data)
    if not instances:
        assert ledger.rejects or ledger.flags or ledger.not_carried
        return None
    try:
        return [one.stored() for one in sorted(instances, key=lambda one: one.frame or 0)]
    except SourceError:
        return None


def pixel_start(data: bytes) -> int:
    """Where the element of the pixels begins."""
    return data.rindex(b"\xe0\x7f\x10\x00")


def format_spans(data: bytes, folder: Path) -> list[tuple[int, int]]:
    """Where the elements of the pixel format (group 0028 up to PixelRepresentation) and the file meta stand."""
    path = folder / "spans"
    path.write_bytes(data)
    with quiet():
        dataset = pydicom.dcmread(path)
        spans = []
        for tag in list(dataset.keys()):
            raw = dataset.get_item(tag)
            if 0x00280002 <= tag <= 0x00280103 and hasattr(raw, "value_tell"):
                spans.append((raw.value_tell - 12, raw.value_tell + raw.length))
    path.unlink()
    assert len(spans) > 5
    return [(128, data.index(b"\x08\x00\x05\x00", 132)), *spans]


@pytest.mark.parametrize("name", SAMPLES)
@given(draw=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_changed_header_leaves_the_pixels_or_rejects(
    tmp_path_factory: pytest.TempPathFactory, name: str, draw: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    data = content(name, tmp_path_factory.mktemp("sample"))
    truth = stored_of(data, folder)
    assert truth is not None
    spans = format_spans(data, folder)
    position = st.integers(0, pixel_start(data) - 1).filter(lambda at: not any(low <= at < high for low, high in spans))
    changes = draw.draw(st.lists(st.tuples(position, st.integers(0, 255)), min_size=1, max_size=3))
    garbled = bytearray(data)
    for at, byte in changes:
        garbled[at] = byte
    found = stored_of(bytes(garbled), folder)
    if found is not None:
        assert len(found) == len(truth)
        assert all(np.array_equal(one, other) for one, other in zip(found, truth, strict=True))


@pytest.mark.parametrize("name", SAMPLES)
@given(draw=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_cut_file_is_rejected(tmp_path_factory: pytest.TempPathFactory, name: str, draw: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cut")
    data = content(name, tmp_path_factory.mktemp("sample"))
    keep = draw.draw(st.integers(0, len(data) - 1))
    assert stored_of(data[:keep], folder) is None


@pytest.mark.parametrize("name", SAMPLES)
@given(draw=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_changed_pixels_change_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, name: str, draw: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("pixels")
    data = content(name, tmp_path_factory.mktemp("sample"))
    start = pixel_start(data) + 12
    at = draw.draw(st.integers(start, len(data) - 1))
    garbled = bytearray(data)
    garbled[at] ^= draw.draw(st.integers(1, 255))
    found = stored_of(bytes(garbled), folder)
    if found is None:
        return
    assert all(one.shape == SHAPE for one in found)
    if name in ("native", "implicit", "enhanced"):
        truth = stored_of(data, folder)
        assert truth is not None
        assert sum(int(np.sum(one != other)) for one, other in zip(found, truth, strict=True)) <= 1
