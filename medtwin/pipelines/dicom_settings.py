"""The settings of the DICOM files that `medtwin export` writes or sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medtwin.core.errors import ConfigError


@dataclass(frozen=True)
class DicomSettings:
    """The `dicom` group of configs/export.yaml.

    Attributes:
        iod: `source`: the SOP class that the dataset has; `sc`: Secondary Capture.
        transfer_syntax: How the pixels are encoded; all of these give every stored value back.
        layout: `uids`: PatientID/study/series/0000.dcm; `media`: PT000000/ST000000/SE000000/IM000000, names of 8
            characters as PS3.10 8.2 wants them; None: media where there is a DICOMDIR, else uids.
        dicomdir: Also a DICOMDIR, which names every file.
        sr: Also a structured report on each labelled series, which says what its labels say.
        workers: Processes that convert at once; the files are the same for any number.
    """

    iod: Literal["source", "sc"] = "source"
    transfer_syntax: Literal["explicit_little_endian", "jpeg_ls", "jpeg_2000", "rle"] = "explicit_little_endian"
    layout: Literal["uids", "media"] | None = None
    dicomdir: bool = False
    sr: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.dicomdir and self.layout == "uids":
            raise ConfigError("dicom.dicomdir=true needs dicom.layout=media: a DICOMDIR names files of 8 characters")
        if self.workers < 1:
            raise ConfigError(f"dicom.workers must be 1 or more, got {self.workers}")

    @property
    def has_media_names(self) -> bool:
        """Whether files have the names of media."""
        return self.layout == "media" or self.dicomdir

    @property
    def keeps_files(self) -> bool:
        """Whether the dataset's files are what is wanted, if their transfer syntax is Explicit VR Little Endian."""
        return self.iod == "source" and self.transfer_syntax == "explicit_little_endian"
