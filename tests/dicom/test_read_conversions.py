from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medtwin.core.sources import Ledger
from medtwin.dicom import Series, read_folder
from tests.dicom.enhanced_samples import item
from tests.dicom.samples import PSEUDONYMS, cr, ct, save


def read(folder: Path, colour: str = "refuse") -> tuple[list[Series], Ledger]:
    ledger = Ledger()
    return read_folder(folder, ledger, colour), ledger  # type: ignore[arg-type]


def rgb(values: list[list[int]], **more: object) -> FileDataset:
    """A colour radiograph of one row."""
    dataset = cr(np.zeros((1, len(values)), np.uint8))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    data = np.array(values, np.uint8).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_colour_is_refused_or_read_as_luminance(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    dataset = rgb([[255, 0, 0], [0, 255, 0], [0, 0, 255], [7, 7, 7]])
    if syntax == RLELossless:
        dataset.compress(syntax)
    save(tmp_path / "a", dataset)
    _, ledger = read(tmp_path)
    assert ledger.rules == {"colour": 1}
    assert "colour=grey" in ledger.rejects[0].reason
    (series,), ledger = read(tmp_path, "grey")
    assert series.pixels().tolist() == [[[76, 150, 29, 7]]]  # 0.299, 0.587, 0.114 of 255, rounded
    (instance,) = series.instances
    assert (instance.photometric, instance.conversion, instance.pixel.bits_stored) == ("MONOCHROME2", "grey", 8)
    assert ledger.flags == {"DICOM.colour-to-grey": 1}


def test_every_equal_triple_is_its_own_grey(tmp_path: Path) -> None:
    save(tmp_path / "a", rgb([[value] * 3 for value in range(256)]))
    (series,), _ = read(tmp_path, "grey")
    assert np.array_equal(series.pixels()[0, 0], np.arange(256))


def test_full_range_ybr_is_its_first_component(tmp_path: Path) -> None:
    save(tmp_path / "a", rgb([[y, 128, 128] for y in (0, 16, 100, 255)], PhotometricInterpretation="YBR_FULL"))
    (series,), _ = read(tmp_path, "grey")
    assert series.pixels()[0, 0].tolist() == [0, 16, 100, 255]


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    dataset = cr(np.array([[0, 1, 2, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for name, values in (("Red", [10, 20, 255, 9]), ("Green", [10, 30, 0, 9]), ("Blue", [10, 40, 0, 9])):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4, 0, 8])
        setattr(dataset, f"{name}PaletteColorLookupTableData", bytes(values))
    save(tmp_path / "a", dataset)
    (series,), _ = read(tmp_path, "grey")
    # 0.299 * 20 + 0.587 * 30 + 0.114 * 40 = 28.15; 0.299 * 255 = 76.2
    assert series.pixels()[0, 0].tolist() == [10, 28, 76, 28]


def test_a_palette_without_tables_is_rejected(tmp_path: Path) -> None:
    save(tmp_path / "a", cr(np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR"))
    assert read(tmp_path, "grey")[1].rules == {"undecodable": 1}


def test_real_colour_files_agree_with_pillow_luminance(tmp_path: Path) -> None:
    name = str(get_testdata_file("SC_rgb_rle.dcm"))
    dataset = pydicom.dcmread(name)
    dataset.Modality, dataset.PatientID = "CR", "x"
    save(tmp_path / "a", dataset)
    (series,), _ = read(tmp_path, "grey")
    truth = np.rint(dataset.pixel_array.astype(np.float64) @ [0.299, 0.587, 0.114])
    assert np.array_equal(series.pixels()[0], truth)


def test_another_word_for_colour_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="colour must be refuse or grey"):
        read(tmp_path, "gray")


def lut(descriptor: list[int], data: object) -> list[Dataset]:
    """A Modality LUT Sequence."""
    return [item(LUTDescriptor=descriptor, ModalityLUTType="US", LUTData=data)]


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    table = np.array([100, 300, 4000], "<u2").tobytes()
    dataset = cr(np.array([[0, 5, 6, 7, 255]], np.uint8), ModalityLUTSequence=lut([3, 5, 12], table))
    dataset.ModalityLUTSequence[0]["LUTData"].VR = "OW"
    save(tmp_path / "a", dataset)
    (series,), ledger = read(tmp_path)
    assert series.pixels()[0, 0].tolist() == [100, 100, 300, 4000, 4000]
    pixel = series.instances[0].pixel
    assert (pixel.bits_stored, pixel.bits_allocated, pixel.is_signed) == (12, 16, False)
    assert ledger.flags == {"DICOM.modality-lut-applied": 1}


def test_a_modality_lut_of_signed_values_begins_below_zero(tmp_path: Path) -> None:
    values = np.array([[-3, -2, -1, 0]], np.int16)
    dataset = ct(0, values, syntax=ExplicitVRLittleEndian, ModalityLUTSequence=lut([3, -2, 8], [1, 2, 3]))
    dataset.ModalityLUTSequence[0]["LUTDescriptor"].VR = "SS"
    dataset.ModalityLUTSequence[0]["LUTData"].VR = "US"
    del dataset.RescaleSlope, dataset.RescaleIntercept
    save(tmp_path / "a", dataset)
    (series,), _ = read(tmp_path)
    assert series.pixels()[0, 0].tolist() == [1, 1, 2, 3]


def test_a_modality_lut_comes_before_the_inversion_of_monochrome1(tmp_path: Path) -> None:
    dataset = cr(np.array([[0, 1]], np.uint8), PhotometricInterpretation="MONOCHROME1")
    dataset.ModalityLUTSequence = lut([2, 0, 12], [1000, 4000])
    dataset.ModalityLUTSequence[0]["LUTData"].VR = "US"
    save(tmp_path / "a", dataset)
    (series,), _ = read(tmp_path)
    assert series.pixels(invert_monochrome1=True)[0, 0].tolist() == [3095, 95]


@pytest.mark.parametrize(
    "sequence",
    [
        lut([4, 0, 12], [1, 2, 3]),
        lut([3, 0, 20], [1, 2, 3]),
        lut([3, 0, 8], [1, 2, 300]),
        lut([3, 0], [1, 2, 3]),
        lut([3, 0, 8], [1, 2, 3]) * 2,
        [Dataset()],
    ],
)
def test_a_wrong_modality_lut_is_rejected(tmp_path: Path, sequence: list[Dataset]) -> None:
    dataset = cr(np.array([[0, 1]], np.uint8), ModalityLUTSequence=sequence)
    for one in sequence:
        if "LUTData" in one:
            one["LUTData"].VR = "US"
    save(tmp_path / "a", dataset)
    assert read(tmp_path)[1].rules == {"modality-lut": 1}


def test_converted_pixels_can_be_deidentified(tmp_path: Path) -> None:
    from medtwin.dicom import deidentify_series

    dataset = cr(np.array([[0, 1]], np.uint8), ModalityLUTSequence=lut([2, 0, 12], [1000, 4000]))
    dataset.ModalityLUTSequence[0]["LUTData"].VR = "US"
    save(tmp_path / "a", dataset)
    (series,), _ = read(tmp_path)
    (out,) = deidentify_series(series, PSEUDONYMS, 1)
    assert out.pixel_array.tolist() == [[1000, 4000]]
    assert (out.BitsStored, out.PixelRepresentation) == (12, 0)
    assert "ModalityLUTSequence" not in out
