"""Why a file is not carried."""

from __future__ import annotations


class UnfitError(Exception):
    """A file that cannot be carried: a stable rule name, and a reason without values of the record."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


class NotDicomError(Exception):
    """A file that does not begin as DICOM does."""


class NotImageError(Exception):
    """A DICOM object without an image, such as a report or a DICOMDIR; its message names the SOP class."""
