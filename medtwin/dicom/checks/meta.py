"""Rules of the file meta information (PS3.10 7.1)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medtwin.dicom.checks.collect import Collector, text_of

_TYPE_1 = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID")
_SAME = {"MediaStorageSOPClassUID": "SOPClassUID", "MediaStorageSOPInstanceUID": "SOPInstanceUID"}


def check_meta(dataset: Dataset, found: Collector) -> None:
    """Adds findings, rule `file-meta`, on the file meta of a dataset; nothing where it has none (it is no file)."""
    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        return
    for keyword in _TYPE_1:
        if not text_of(meta, keyword):
            found.add("file-meta", f"{keyword} must be present with a value in the file meta information")
    for keyword, twin in _SAME.items():
        if text_of(meta, keyword) and text_of(meta, keyword) != text_of(dataset, twin):
            found.add("file-meta", f"{keyword} of the file meta information must be {twin}")
    syntax = text_of(meta, "TransferSyntaxUID")
    if syntax and not syntax.startswith("1.2.840.10008."):
        found.add("file-meta", "TransferSyntaxUID must be a transfer syntax of the standard to be read", "warning")
    elif syntax and UID(syntax).type != "Transfer Syntax":
        found.add("file-meta", "TransferSyntaxUID must be a transfer syntax")
