"""What every dataset that we write has in common: its pixels, its codes and its file meta."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from medtwin.dicom.reading.series import Stored
from medtwin.dicom.terms import ANATOMIC_REGIONS
from medtwin.dicom.uids import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION


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


def file_dataset(dataset: Dataset) -> FileDataset:
    """The dataset with preamble and file meta (PS3.10 7.1); equal input gives equal bytes."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(str(dataset.SOPClassUID))
    meta.MediaStorageSOPInstanceUID = UID(str(dataset.SOPInstanceUID))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return FileDataset("", dataset, preamble=b"\0" * 128, file_meta=meta, is_implicit_VR=False, is_little_endian=True)
