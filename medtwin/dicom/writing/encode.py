"""What every dataset that we write has in common: its pixels, its codes, its file meta, and its bytes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from medtwin.dicom.reading.decode import DECODE_ERRORS
from medtwin.dicom.reading.series import Stored
from medtwin.dicom.terms import ANATOMIC_REGIONS
from medtwin.dicom.uids import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION
from medtwin.dicom.values import PARSE_ERRORS

READ_ERRORS = (*PARSE_ERRORS, *DECODE_ERRORS, InvalidDicomError)
"""What pydicom raises on a file that is no DICOM, or whose header or pixels are malformed."""

_CHARACTER_SET = "ISO_IR 192"
_GROUP_LENGTH = 0x00020000


def code_item(code: Code) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def region_items(body_part: str | None) -> list[Dataset]:
    """AnatomicRegionSequence for a BodyPartExamined (PS3.3 10.5); empty where `terms.ANATOMIC_REGIONS` lacks it."""
    if body_part not in ANATOMIC_REGIONS:
        return []
    value, meaning = ANATOMIC_REGIONS[body_part]
    return [code_item(Code(value, "SCT", meaning))]


def set_pixels(dataset: Dataset, cells: Stored, *, bits_stored: int, photometric: str) -> None:
    """Sets the Image Pixel module (PS3.3 C.7.6.3) for one grey frame.

    Args:
        dataset: Is changed.
        cells: (rows, columns) integers of 8 or 16 bits: stored values.
        bits_stored: Bits in use.
        photometric: MONOCHROME1 or MONOCHROME2.
    """
    bits_allocated = cells.dtype.itemsize * 8
    data = cells.astype(cells.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = cells.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits_allocated, bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(np.issubdtype(cells.dtype, np.signedinteger))
    dataset.add_new(0x7FE00010, "OB" if bits_allocated == 8 else "OW", data + b"\0" * (len(data) % 2))


def check_positive(name: str, values: Iterable[float]) -> None:
    """Refuses numbers that are not positive and finite.

    Raises:
        ValueError: If one is not.
    """
    if not all(np.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"{name} must be positive, got {tuple(values)!r}")


def file_dataset(dataset: Dataset) -> FileDataset:
    """The dataset with preamble and file meta (PS3.10 7.1); equal input gives equal bytes."""
    dataset.SpecificCharacterSet = _CHARACTER_SET
    meta = _file_meta(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    return FileDataset("", dataset, preamble=b"\0" * 128, file_meta=meta, is_implicit_VR=False, is_little_endian=True)


class SharedElements:
    """The elements that the files of a series share, encoded once; Explicit VR Little Endian.

    Args:
        template: A dataset without what the files have each of their own.
    """

    def __init__(self, template: Dataset) -> None:
        template.SpecificCharacterSet = _CHARACTER_SET
        self._sop_class = str(template.SOPClassUID)
        self._parts = {int(element.tag): _encoded(element) for element in template}

    def file_with(self, own: Dataset) -> bytes:
        """The bytes of the file that has the shared elements and those of `own`, which win; one is SOPInstanceUID."""
        parts = self._parts | {int(element.tag): _encoded(element) for element in own}
        meta = _file_meta(self._sop_class, str(own.SOPInstanceUID))
        head = b"".join(_encoded(element) for element in meta if element.tag != _GROUP_LENGTH)
        length = DataElement(_GROUP_LENGTH, "UL", len(head))
        return b"".join([b"\0" * 128, b"DICM", _encoded(length), head, *(parts[tag] for tag in sorted(parts))])


def _file_meta(sop_class: str, sop_instance: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return meta


def _encoded(element: DataElement) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, ["utf8"])
    return buffer.getvalue()
