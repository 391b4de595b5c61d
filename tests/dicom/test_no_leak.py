"""What names a patient, planted wherever a file can hold it, is found nowhere in a dataset, its books, or the logs."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pydicom.uid as uid
import pytest
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from medtwin.config import settings
from medtwin.core.pseudonyms import Pseudonyms
from medtwin.core.sources import Ledger
from medtwin.dicom import deidentify_series, read_folder, write_series
from medtwin.dicom.deidentify import DATES, NUMBERS
from medtwin.dicom.terms import MULTIPLE_TERMS, SINGLE_TERMS
from medtwin.dicom.values import quiet
from medtwin.pipelines.ingest import IngestSettings, ingest
from tests.dicom.samples import PSEUDONYMS, ROOT, cr, ct, enhanced, save, words

SECRET = "ZQ4711SECRETJANE"
VALID = {
    **dict.fromkeys(("AE", "CS", "SH", "LO"), "ZQ4711SECRETJANE"),
    **dict.fromkeys(("ST", "LT", "UT", "UC"), "Seen by ZQ4711SECRETJANE; call"),
    "PN": "ZQ4711SECRETJANE^Jane=ZQ4711SECRETJANE",
    "UR": "http://host.example/ZQ4711SECRETJANE",
    "UI": f"{ROOT}.47110815.4711",
    "DA": "19470411",
    "TM": "041147.474711",
    "DT": "19470411041147.474711",
    "AS": "471D",
    "IS": "474711081",
    "DS": "4711.474711",
}
"""A valid value of each text VR; none of them may be found again."""

FLOAT = 4711.474711
BYTES = {"OB", "OW", "UN", "OB or OW", "OF", "OD", "OL", "OV"}
READABLE = {
    # Without these the file is no image that is read at all.
    *words(
        "PatientID Modality PhotometricInterpretation NumberOfFrames SpecificCharacterSet SOPClassUID SOPInstanceUID"
    ),
    *words("StudyInstanceUID SeriesInstanceUID ModalityLUTSequence PixelData FloatPixelData DoubleFloatPixelData"),
    *words("SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence ExtendedOffsetTable"),
    *words("ExtendedOffsetTableLengths PixelDataProviderURL PixelDataQRCode SamplesPerPixel"),
}
MEASURED = {
    *(*NUMBERS, *DATES.values()),
    *words("PatientAge WindowCenter WindowWidth TimezoneOffsetFromUTC"),
    # The same of a frame of an enhanced image
    *words(
        "EffectiveEchoTime InversionTimes ExposureTimeInms XRayTubeCurrentInmA ExposureInmAs FrameAcquisitionDateTime"
    ),
}
"""Numbers, times of day and ages that may stay; dates are shifted."""


ONE_OF_EACH = words(
    "RetrieveAETitle PatientAge ProcedureStepState PatientBirthDate DateTime StationName PatientName OperatorsName "
    "PatientComments ImageComments SeriesDescription ManufacturerModelName StudyDescription InstitutionAddress "
    "TextValue PersonName UID UniversalEntityID RetrieveURL LongCodeValue AcquisitionDateTime FrameAcquisitionDateTime "
    "FrameComments FrameLabel StackID NumericValue ReferencedFrameNumber DeviceSerialNumber "
    "AcquisitionTime AcquisitionDate FrameReferenceDateTime FrameType KVP ConvolutionKernel "
    "WindowCenterWidthExplanation"
)
"""Attributes of every text VR, for the items of sequences; many more would make a file of gigabytes."""

SEQUENCES = words(
    "DeidentificationMethodCodeSequence AnatomicRegionSequence ViewCodeSequence AcquisitionContextSequence "
    "RequestAttributesSequence ContributingEquipmentSequence ReferencedImageSequence SourceImageSequence "
    "OtherPatientIDsSequence ProcedureCodeSequence OriginalAttributesSequence EncryptedAttributesSequence "
    "RadiopharmaceuticalInformationSequence PatientOrientationCodeSequence VOILUTSequence GraphicAnnotationSequence "
    "PerformedProtocolCodeSequence DerivationCodeSequence RealWorldValueMappingSequence IconImageSequence"
)
"""Those that an image may have, and those that are written, so that a copy would be noticed."""

FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def _of_class(make: Callable[..., FileDataset], sop_class: str, modality: str, **more: object) -> FileDataset:
    dataset = (
        make(SOPClassUID=sop_class, Modality=modality, **more)
        if make is cr
        else make(0, SOPClassUID=sop_class, Modality=modality, **more)
    )
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    return dataset


SOURCES: dict[str, Callable[[], FileDataset]] = {
    "CT": lambda: ct(0),
    "MR": lambda: _of_class(ct, uid.MRImageStorage, "MR", ScanningSequence="SE", SequenceVariant="NONE"),
    "PT": lambda: _of_class(ct, uid.PositronEmissionTomographyImageStorage, "PT", Units="BQML"),
    "CR": cr,
    "DX": lambda: _of_class(cr, uid.DigitalXRayImageStorageForPresentation, "DX"),
    "MG": lambda: _of_class(cr, uid.DigitalMammographyXRayImageStorageForProcessing, "MG", ViewPosition="MLO"),
    "SC": lambda: _of_class(cr, uid.SecondaryCaptureImageStorage, "CR", ConversionType="DI"),
    "enhanced CT": lambda: enhanced(uid.EnhancedCTImageStorage, "CT"),
    "enhanced MR": lambda: enhanced(uid.EnhancedMRImageStorage, "MR"),
}


def plant(dataset: Dataset, text_of: Callable[[str], str], *, spared: set[str]) -> None:
    """Puts secrets into every attribute of the dictionary, into private, overlay, curve and unknown ones, and items."""
    for keyword in keyword_dict:
        tag = tag_for_keyword(keyword)
        if tag is None or tag >> 16 < 8 or tag >> 16 == 0xFFFA or keyword in READABLE | spared:
            continue
        if dictionary_VR(keyword) == "FD" and keyword in NUMBERS:
            continue
        _plant_one(dataset, tag, dictionary_VR(keyword), text_of)
    for group in (0x0009, 0x0019, 0x7FE1):
        block = dataset.private_block(group, "ACME 1", create=True)
        for offset, vr in enumerate((*VALID, "UN", "OB", "FD")):
            _plant_one(dataset, block.get_tag(offset), vr, text_of)
    for group in range(0x6000, 0x6006, 2):
        dataset.add_new((group, 0x3000), "OW", SECRET.encode())
        dataset.add_new((group, 0x0022), "LO", text_of("LO"))
        dataset.add_new((group - 0x1000, 0x3000), "OW", SECRET.encode())
        dataset.add_new((group - 0x1000, 0x0022), "LO", text_of("LO"))
    dataset.add_new(0x00215555, "UN", SECRET.encode())
    _plant_items(dataset, text_of, spared)


def _plant_items(dataset: Dataset, text_of: Callable[[str], str], spared: set[str]) -> None:
    """Gives sequences an item with every VR, and plants into the functional groups that are there."""
    item, inner = Dataset(), Dataset()
    for one in (item, inner):
        for keyword in ONE_OF_EACH:
            if keyword not in spared:
                _plant_one(one, tag_for_keyword(keyword) or 0, dictionary_VR(keyword), text_of)
    item.ContentSequence = [inner]
    groups = [group for keyword in FUNCTIONAL_GROUPS for group in dataset.get(keyword, [])]
    for group in groups:
        for element in group:
            for keyword in ONE_OF_EACH:
                if keyword not in element.value[0] and keyword not in spared:
                    _plant_one(element.value[0], tag_for_keyword(keyword) or 0, dictionary_VR(keyword), text_of)
    for keyword in SEQUENCES:
        dataset[keyword] = DataElement(keyword, "SQ", Sequence([item]))


def _plant_one(dataset: Dataset, tag: int, vr: str, text_of: Callable[[str], str]) -> None:
    if vr in VALID:
        dataset[tag] = DataElement(tag, vr, text_of(vr), already_converted=vr in ("DS", "IS"))
    elif vr in BYTES:
        dataset[tag] = DataElement(tag, "UN" if vr == "UN" else "OB", SECRET.encode())
    elif vr == "FD":
        dataset[tag] = DataElement(tag, "FD", FLOAT)


def planted(name: str, text_of: Callable[[str], str], *, spared: set[str]) -> FileDataset:
    """A source whose every corner holds a secret; its UIDs and PatientID too."""
    with quiet():
        dataset = SOURCES[name]()
        plant(dataset, text_of, spared=spared)
        suffix = "4711474711" if spared else SECRET
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, f"{ROOT}.{suffix}")
        dataset.PatientID = SECRET
        meta = dataset.file_meta
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.ImplementationVersionName = SECRET
        for keyword in words(
            "SourceApplicationEntityTitle SendingApplicationEntityTitle ReceivingApplicationEntityTitle"
        ):
            setattr(meta, keyword, SECRET)
        meta.PrivateInformationCreatorUID, meta.PrivateInformation = f"{ROOT}.{suffix}", SECRET.encode()
        dataset.preamble = SECRET.encode().ljust(128, b"\0")
    return dataset


def traces(content: bytes) -> set[str]:
    """The secrets that some bytes hold."""
    found = {match.decode() for match in re.findall(rb"zq4711|secretjane", content.lower())}
    found |= {text for text in (*VALID.values(), "4711474711", "47110815") if text.encode() in content}
    return found | ({"FD"} if struct.pack("<d", FLOAT) in content else set())


def everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All that a directory says, tables as text, names included."""
    for path in sorted(folder.rglob("*")):
        yield f"name of {path.name}", str(path.relative_to(folder)).encode()
        if path.is_file():
            yield path.name, path.read_bytes()
            if path.suffix == ".parquet":
                yield path.name, repr(pq.read_table(path).to_pydict()).encode()


KINDS: dict[str, tuple[Callable[[str], str], set[str]]] = {
    # Text that no VR but a text may have, everywhere; and valid values, wherever no measurement may stand.
    "malformed": (lambda vr: SECRET, set()),
    "valid": (lambda vr: VALID[vr], MEASURED | set(SINGLE_TERMS) | set(MULTIPLE_TERMS) - {"ImageType"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOURCES)
def test_what_is_planted_in_a_source_is_found_in_no_image_book_or_log(
    tmp_path: Path, name: str, kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = planted(name, KINDS[kind][0], spared=KINDS[kind][1])
    with quiet():
        source = save(tmp_path / "in" / "0.dcm", dataset)
    assert source.read_bytes().count(SECRET.encode()) > 2000
    caplog.clear()
    capfd.readouterr()
    ledger = Ledger()
    with caplog.at_level(logging.DEBUG):
        (series,) = read_folder(tmp_path / "in", ledger)
        subject = PSEUDONYMS.subject_id(series.identity)
        paths = write_series(tmp_path / "out", deidentify_series(series, PSEUDONYMS, subject, ledger=ledger))
    assert len(paths) == (3 if name.startswith("enhanced") else 1)
    for path in paths:
        assert traces(path.read_bytes()) == set()
        written = pydicom.dcmread(path)
        assert not any(element.tag.is_private or 0x5000 <= element.tag.group < 0x7FE0 for element in written)
        assert {element.keyword for element in written if element.VR == "SQ"} <= {
            *words("DeidentificationMethodCodeSequence AnatomicRegionSequence ViewCodeSequence"),
            *words("AcquisitionContextSequence RadiopharmaceuticalInformationSequence"),
            *words("PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence"),
        }
    assert traces(f"{ledger}{series!r}{series.findings}".encode()) == set()
    assert traces(caplog.text.encode()) == set()
    assert traces("".join(capfd.readouterr()).encode()) == set()


def test_what_is_planted_ends_nowhere_in_a_dataset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with quiet():
        for index, name in enumerate(SOURCES):
            dataset = planted(name, KINDS["malformed"][0], spared=set())
            for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                setattr(dataset, keyword, f"{ROOT}.{SECRET}.{index}")
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            save(tmp_path / "in" / f"{index}.dcm", dataset)
    caplog.clear()
    capfd.readouterr()
    chosen = {
        "source": {"dicom": str(tmp_path / "in")},
        "out": str(tmp_path / "out"),
        "dicom_label": {
            "_target_": "medtwin.dicom.findings_tag.FindingsTag",
            "tag": "ImageComments",
            "separator": "|",
            "none": "No Finding",
            "codes": {"Mass": "SNOMED//309529002"},
        },
    }
    with caplog.at_level(logging.DEBUG):
        ingest(settings(IngestSettings, chosen))
    images = pq.read_table(tmp_path / "out" / "images.parquet").to_pylist()
    assert len(images) == len(SOURCES)
    assert {image["labels"] for image in images} == {None}
    found = {where: found for where, content in everything(tmp_path / "out") if (found := traces(content))}
    assert found == {}
    assert traces(caplog.text.encode()) == set()
    assert traces("".join(capfd.readouterr()).encode()) == set()


def _without_pixels(dataset: FileDataset) -> None:
    del dataset.PixelData


FAULTS: dict[str, Callable[[FileDataset], None]] = {
    "no pixels": _without_pixels,
    "odd modality": lambda dataset: setattr(dataset, "Modality", SECRET),
    "odd photometry": lambda dataset: setattr(dataset, "PhotometricInterpretation", SECRET),
    "odd class": lambda dataset: setattr(dataset, "SOPClassUID", f"{ROOT}.{SECRET}"),
    "no person": lambda dataset: setattr(dataset, "PatientID", ""),
    "short pixels": lambda dataset: setattr(dataset, "PixelData", SECRET[:8].encode()),
    "odd size": lambda dataset: setattr(dataset, "Rows", 0),
    "odd frames": lambda dataset: dataset.__setitem__(
        "NumberOfFrames", DataElement("NumberOfFrames", "IS", SECRET, already_converted=True)
    ),
    "odd syntax": lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", uid.UID(f"{ROOT}.{SECRET}")),
    "no image": lambda dataset: setattr(dataset, "SOPClassUID", uid.BasicTextSRStorage),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reject_quotes_nothing(tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    dataset = planted("CR", KINDS["malformed"][0], spared=set())
    with quiet():
        FAULTS[fault](dataset)
        path = tmp_path / "0.dcm"
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True, overwrite=True)
    caplog.clear()
    ledger = Ledger()
    with caplog.at_level(logging.DEBUG):
        series = read_folder(tmp_path, ledger)
    assert len(series) + ledger.rejected["DICOM"] + ledger.not_carried["DICOM"] == 1
    assert series == [] or fault in ("odd frames", "odd syntax")
    assert traces(f"{ledger}".encode()) == set()
    assert traces(caplog.text.encode()) == set()


def test_the_search_finds_what_is_there() -> None:
    assert traces(b"x" + SECRET.lower().encode()) == {"zq4711", "secretjane"}
    assert traces(struct.pack("<d", FLOAT)) == {"FD"}
    assert traces(b"19470411") == {"19470411"}
    assert traces(b"nothing") == set()


def test_a_shift_of_zero_is_the_only_way_to_keep_a_date(tmp_path: Path) -> None:
    save(tmp_path / "0.dcm", cr(StudyDate="19470411"))
    (series,) = read_folder(tmp_path, Ledger())
    for weeks, is_kept in ((52, False), (0, True)):
        pseudonyms = Pseudonyms(bytes(range(32)), weeks)
        (dataset,) = deidentify_series(series, pseudonyms, pseudonyms.subject_id(series.identity))
        assert (dataset.StudyDate == "19470411") is is_kept
