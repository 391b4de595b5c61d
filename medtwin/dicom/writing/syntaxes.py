"""Transfer syntaxes that lose nothing: pixels are encoded, decoded again and compared before a file is written."""

from __future__ import annotations

from copy import copy

import numpy as np
import pydicom.uid as uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import Encoder, get_encoder

from medtwin.core.errors import ConfigError
from medtwin.dicom.reading.decode import DECODE_ERRORS
from medtwin.dicom.reading.series import Stored, used_bits
from medtwin.dicom.values import quiet

TRANSFER_SYNTAXES: dict[str, uid.UID] = {
    "explicit_little_endian": uid.ExplicitVRLittleEndian,
    "jpeg_ls": uid.JPEGLSLossless,
    "jpeg_2000": uid.JPEG2000Lossless,
    "rle": uid.RLELossless,
}
"""Name of a setting to transfer syntax."""

_ENCODERS: dict[str, tuple[Encoder, str]] = {
    "jpeg_ls": (get_encoder(uid.JPEGLSLossless), "pyjpegls"),
    "jpeg_2000": (get_encoder(uid.JPEG2000Lossless), "pylibjpeg"),
    "rle": (get_encoder(uid.RLELossless), "pydicom"),
}


class LossError(ValueError):
    """Pixels that an encoder cannot take without loss, or at all."""


def require_codec(transfer_syntax: str) -> None:
    """Refuses a transfer syntax whose encoder is not installed.

    Raises:
        ConfigError: Naming what to install.
    """
    if transfer_syntax in _ENCODERS:
        encoder, plugin = _ENCODERS[transfer_syntax]
        if plugin not in encoder.available_plugins:
            raise ConfigError(f"transfer_syntax={transfer_syntax} needs an encoder: pip install 'medtwin[codecs]'")


def compress(dataset: FileDataset, transfer_syntax: str) -> None:
    """Encodes the pixels of a dataset of Explicit VR Little Endian with one grey frame; no other attribute changes.

    What is decoded again must equal the stored values. Bits above BitsStored, which are no part of a stored value, are
    cleared or filled with the sign.

    Args:
        dataset: Is changed: PixelData and the transfer syntax; on an error nothing is.
        transfer_syntax: A name of `TRANSFER_SYNTAXES`.

    Raises:
        KeyError: If there is no such name.
        LossError: If the pixels do not come back as they were, or the encoder does not take them.
    """
    if TRANSFER_SYNTAXES[transfer_syntax] == uid.ExplicitVRLittleEndian:
        return
    if dataset.get("SamplesPerPixel") != 1 or int(dataset.get("NumberOfFrames") or 1) != 1:
        raise LossError("only one grey frame is encoded")
    encoder, plugin = _ENCODERS[transfer_syntax]
    try:
        stored = _stored_values(dataset)
        trial = _trial(dataset, TRANSFER_SYNTAXES[transfer_syntax])
        options = {keyword: getattr(dataset, attribute) for keyword, attribute in _OPTIONS.items()}
        with quiet():
            encoded = encoder.encode(stored, encoding_plugin=plugin, number_of_frames=1, **options)
            set_encapsulated(trial, encoded)
            decoded = trial.pixel_array
    except DECODE_ERRORS as error:
        raise LossError(f"the encoder of {transfer_syntax} refuses the pixels ({type(error).__name__})") from error
    if decoded.shape != stored.shape or not np.array_equal(decoded, stored):
        raise LossError(f"{transfer_syntax} does not give the pixels back")
    set_encapsulated(dataset, encoded)
    dataset.file_meta.TransferSyntaxUID = TRANSFER_SYNTAXES[transfer_syntax]


def set_encapsulated(dataset: FileDataset, encoded: bytes) -> None:
    """Sets PixelData to one encoded frame (PS3.5 A.4)."""
    dataset.add_new(0x7FE00010, "OB", encapsulate([encoded]))
    dataset["PixelData"].is_undefined_length = True


_OPTIONS = {
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "photometric_interpretation": "PhotometricInterpretation",
}
"""What an encoder is told, and the attribute that says it."""


def _stored_values(dataset: FileDataset) -> Stored:
    kind = "i" if dataset.PixelRepresentation else "u"
    dtype = np.dtype(f"<{kind}{dataset.BitsAllocated // 8}")
    shape = (dataset.Rows, dataset.Columns)
    cells = np.frombuffer(dataset.PixelData, dtype, count=shape[0] * shape[1]).reshape(shape)
    return used_bits(cells.astype(dtype.newbyteorder("=")), dataset.BitsStored)


def _trial(dataset: FileDataset, syntax: uid.UID) -> FileDataset:
    """The Image Pixel module alone, to be decoded from the encoded frame."""
    trial = FileDataset("", {}, file_meta=FileMetaDataset(), is_implicit_VR=False, is_little_endian=True)
    trial.file_meta.TransferSyntaxUID = syntax
    for keyword in _OPTIONS.values():
        trial[keyword] = copy(dataset[keyword])
    return trial
