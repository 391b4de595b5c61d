"""Writes new images as DICOM: radiographs (CR, DX) and volumes (CT, MR), single frame, one patient identity with FHIR.

Source of the attributes: DICOM PS3.3-2023, IODs A.2, A.3, A.4, A.8, A.26. Nothing depends on the clock, the machine or
chance: equal input gives equal bytes.
"""

from medtwin.dicom.writing.files import has_syntax, rewrite_file, write_series, write_volume
from medtwin.dicom.writing.findings import Finding, report_of
from medtwin.dicom.writing.media import Entry, media_name, read_entry, write_dicomdir
from medtwin.dicom.writing.projection import ProjectionImage, can_be_dx, projection_to_dataset
from medtwin.dicom.writing.secondary import to_secondary_capture
from medtwin.dicom.writing.study import Origin, Patient, Study, mark_synthetic
from medtwin.dicom.writing.syntaxes import TRANSFER_SYNTAXES, compress, require_codec
from medtwin.dicom.writing.volume import CT_RESCALE_INTERCEPT, CT_WINDOWS_HU, Volume, volume_to_datasets

__all__ = [
    "CT_RESCALE_INTERCEPT",
    "CT_WINDOWS_HU",
    "TRANSFER_SYNTAXES",
    "Entry",
    "Finding",
    "Origin",
    "Patient",
    "ProjectionImage",
    "Study",
    "Volume",
    "can_be_dx",
    "compress",
    "has_syntax",
    "mark_synthetic",
    "media_name",
    "projection_to_dataset",
    "read_entry",
    "report_of",
    "require_codec",
    "rewrite_file",
    "to_secondary_capture",
    "volume_to_datasets",
    "write_dicomdir",
    "write_series",
    "write_volume",
]
