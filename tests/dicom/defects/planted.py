"""The defects: each breaks one sentence of DICOM PS3.3, PS3.5 or PS3.10, and names the attribute that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag, Tag

Damage = Callable[[Dataset], None]


@dataclass(frozen=True)
class Defect:
    """One planted defect.

    Attributes:
        iod: The base it is planted in. name: What was done. damage: Does it.
        attribute: Keyword that a finding must name to count as having found it.
    """

    iod: str
    name: str
    damage: Damage
    attribute: str

    def __str__(self) -> str:
        return f"{self.iod}: {self.name}"


def _drop(keyword: str) -> Damage:
    return lambda dataset: delattr(dataset, keyword)


def _put(keyword: str, value: Any, vr: str | None = None) -> Damage:
    def damage(dataset: Dataset) -> None:
        if vr is None:
            setattr(dataset, keyword, value)
            return
        tag = tag_for_keyword(keyword)
        assert tag is not None
        dataset[keyword] = DataElement(Tag(tag), vr, value)

    return damage


def _raw(keyword: str, vr: str, value: bytes) -> Damage:
    """Puts bytes that pydicom would refuse to set, as a file may hold them."""

    def damage(dataset: Dataset) -> None:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        dataset[tag] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)

    return damage


def _put_all(**values: Any) -> Damage:
    def damage(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return damage


def _inside(path: str, damage: Damage) -> Damage:
    """Does the damage in the first item of nested sequences, `A.B`."""

    def inner(dataset: Dataset) -> None:
        for keyword in path.split("."):
            dataset = dataset[keyword].value[0]
        damage(dataset)

    return inner


def _in_meta(damage: Damage) -> Damage:
    def inner(dataset: Dataset) -> None:
        damage(dataset.file_meta)

    return inner


def _add_private(dataset: Dataset) -> None:
    dataset.add_new(0x00091001, "LO", "no creator")


def _shorten_frames(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]


def _double_segment(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].SegmentNumber = 1


def _double_region(dataset: Dataset) -> None:
    dataset.AnatomicRegionSequence = [dataset.AnatomicRegionSequence[0], dataset.AnatomicRegionSequence[0]]


def _bytes_of_latin(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = None
    dataset["PatientName"] = DataElement(Tag(0x00100010), "PN", "M\u00fcller")
    del dataset.SpecificCharacterSet


_IN_EQUIPMENT = "ContributingEquipmentSequence"
_IN_PURPOSE = "ContributingEquipmentSequence.PurposeOfReferenceCodeSequence"
_IN_FRAME = "PerFrameFunctionalGroupsSequence"
_IN_SHARED = "SharedFunctionalGroupsSequence"


def _each(iod: str, *rows: tuple[str, Damage, str]) -> list[Defect]:
    return [Defect(iod, *row) for row in rows]


DEFECTS: list[Defect] = [
    *_each(
        "CT",
        ("no frame of reference", _drop("FrameOfReferenceUID"), "FrameOfReferenceUID"),
        ("no pixels", _drop("PixelData"), "PixelData"),
        ("empty rescale slope", _put("RescaleSlope", None), "RescaleSlope"),
        ("rescale slope of 0", _put("RescaleSlope", "0"), "RescaleSlope"),
        ("rescale intercept is a word", _raw("RescaleIntercept", "DS", b"abc "), "RescaleIntercept"),
        ("no birth date", _drop("PatientBirthDate"), "PatientBirthDate"),
        ("no KVP", _drop("KVP"), "KVP"),
        ("no acquisition number", _drop("AcquisitionNumber"), "AcquisitionNumber"),
        ("no series number", _drop("SeriesNumber"), "SeriesNumber"),
        ("no position indicator", _drop("PositionReferenceIndicator"), "PositionReferenceIndicator"),
        ("no patient position", _drop("PatientPosition"), "PatientPosition"),
        ("sex X", _put("PatientSex", "X"), "PatientSex"),
        ("parallel directions", _put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "ImageOrientationPatient"),
        (
            "directions not of unit length",
            _put("ImageOrientationPatient", [2, 0, 0, 0, 1, 0]),
            "ImageOrientationPatient",
        ),
        ("spacing of 0", _put("PixelSpacing", [0.7, 0]), "PixelSpacing"),
        ("one spacing", _put("PixelSpacing", [0.7]), "PixelSpacing"),
        ("two coordinates", _put("ImagePositionPatient", [0, 0]), "ImagePositionPatient"),
        ("negative thickness", _put("SliceThickness", "-1"), "SliceThickness"),
        ("more rows than pixels", _put("Rows", 5), "PixelData"),
        ("high bit 12 of 12", _put("HighBit", 12), "HighBit"),
        ("17 of 16 bits stored", _put_all(BitsStored=17, HighBit=16), "BitsStored"),
        ("pixel representation 2", _put("PixelRepresentation", 2), "PixelRepresentation"),
        ("MONOCHROME3", _put("PhotometricInterpretation", "MONOCHROME3"), "PhotometricInterpretation"),
        ("three samples of grey", _put("SamplesPerPixel", 3), "SamplesPerPixel"),
        ("UID with a leading zero", _put("StudyInstanceUID", "1.02.3"), "StudyInstanceUID"),
        ("UID of 65 characters", _put("SeriesInstanceUID", "1." + "2" * 63), "SeriesInstanceUID"),
        ("UID with a letter", _put("FrameOfReferenceUID", "1.2.a"), "FrameOfReferenceUID"),
        ("31 February", _put("StudyDate", "20230231"), "StudyDate"),
        ("date with hyphens", _put("SeriesDate", "2024-01-02"), "SeriesDate"),
        ("25 o'clock", _put("StudyTime", "250000"), "StudyTime"),
        ("age without unit", _put("PatientAge", "54"), "PatientAge"),
        ("offset of 25 hours", _put("TimezoneOffsetFromUTC", "+2500"), "TimezoneOffsetFromUTC"),
        ("image type of one value", _put("ImageType", "DERIVED"), "ImageType"),
        (
            "image type neither original nor derived",
            _put("ImageType", ["SYNTHETIC", "SECONDARY", "AXIAL"]),
            "ImageType",
        ),
        ("modality of another class", _put("Modality", "MR"), "Modality"),
        ("patient stands on the head", _put("PatientPosition", "UPSIDE"), "PatientPosition"),
        ("equipment without maker", _inside(_IN_EQUIPMENT, _drop("Manufacturer")), "Manufacturer"),
        (
            "equipment without purpose",
            _inside(_IN_EQUIPMENT, _put("PurposeOfReferenceCodeSequence", [])),
            "PurposeOfReferenceCodeSequence",
        ),
        ("code without meaning", _inside(_IN_PURPOSE, _drop("CodeMeaning")), "CodeMeaning"),
        ("code without scheme", _inside(_IN_PURPOSE, _drop("CodingSchemeDesignator")), "CodingSchemeDesignator"),
        ("code without value", _inside(_IN_PURPOSE, _drop("CodeValue")), "CodeValue"),
        ("identity removed by nothing", _put("PatientIdentityRemoved", "YES"), "DeidentificationMethod"),
        ("window without width", _drop("WindowWidth"), "WindowWidth"),
        ("window of width 0", _put("WindowWidth", "0"), "WindowWidth"),
        ("two centres, one width", _put_all(WindowCenter=[40, 50], WindowWidth=[400]), "WindowWidth"),
        ("LO of 65 characters", _put("SeriesDescription", "S" * 65), "SeriesDescription"),
        ("SH of 17 characters", _put("AccessionNumber", "A" * 17), "AccessionNumber"),
        ("DS of 17 characters", _put("SpacingBetweenSlices", "2.500000000000000"), "SpacingBetweenSlices"),
        ("two model names", _put("ManufacturerModelName", ["one", "two"]), "ManufacturerModelName"),
        ("lower-case code string", _put("BodyPartExamined", "chest"), "BodyPartExamined"),
        ("IS is a word", _raw("InstanceNumber", "IS", b"one "), "InstanceNumber"),
        ("IS beyond 32 bits", _raw("InstanceNumber", "IS", b"2147483648"), "InstanceNumber"),
        ("rows of VR SS", _put("Rows", 4, "SS"), "Rows"),
        ("text of VR LO in a SH", _put("StudyID", "1", "LO"), "StudyID"),
        ("control character", _put("SeriesDescription", "SYNTHETIC\x07"), "SeriesDescription"),
        ("side of a chest", _put("Laterality", ""), "Laterality"),
        ("unknown character set", _put("SpecificCharacterSet", "ISO_IR 999"), "SpecificCharacterSet"),
        ("umlaut without character set", _bytes_of_latin, "PatientName"),
        ("private element without creator", _add_private, "(0009,1001)"),
        ("lossy without ratio", _put("LossyImageCompression", "01"), "LossyImageCompressionRatio"),
        ("perhaps synthetic", _put("SyntheticData", "MAYBE"), "SyntheticData"),
        ("no rescale intercept", _drop("RescaleIntercept"), "RescaleIntercept"),
        (
            "meta names another instance",
            _in_meta(_put("MediaStorageSOPInstanceUID", "1.2.3")),
            "MediaStorageSOPInstanceUID",
        ),
        ("meta names another class", _in_meta(_put("MediaStorageSOPClassUID", "1.2.3")), "MediaStorageSOPClassUID"),
        (
            "meta names a class as transfer syntax",
            _in_meta(_put("TransferSyntaxUID", "1.2.840.10008.5.1.4.1.1.2")),
            "TransferSyntaxUID",
        ),
        ("no implementation class", _in_meta(_drop("ImplementationClassUID")), "ImplementationClassUID"),
    ),
    *_each(
        "MR",
        ("no scanning sequence", _drop("ScanningSequence"), "ScanningSequence"),
        ("unknown scanning sequence", _put("ScanningSequence", "XX"), "ScanningSequence"),
        ("no sequence variant", _drop("SequenceVariant"), "SequenceVariant"),
        ("unknown sequence variant", _put("SequenceVariant", "XX"), "SequenceVariant"),
        ("no scan options", _drop("ScanOptions"), "ScanOptions"),
        ("four-dimensional acquisition", _put("MRAcquisitionType", "4D"), "MRAcquisitionType"),
        ("no echo time", _drop("EchoTime"), "EchoTime"),
        ("no echo train length", _drop("EchoTrainLength"), "EchoTrainLength"),
        ("repetition time is a word", _raw("RepetitionTime", "DS", b"abc "), "RepetitionTime"),
        ("inversion without its time", _put_all(ScanningSequence="IR"), "InversionTime"),
        ("no directions", _drop("ImageOrientationPatient"), "ImageOrientationPatient"),
        ("no slice thickness", _drop("SliceThickness"), "SliceThickness"),
        ("image type of two values", _put("ImageType", ["DERIVED", "SECONDARY"]), "ImageType"),
        ("angiography perhaps", _put("AngioFlag", "X"), "AngioFlag"),
        ("8-bit MR", _put("BitsAllocated", 8), "BitsAllocated"),
    ),
    *_each(
        "CR",
        ("no body part", _drop("BodyPartExamined"), "BodyPartExamined"),
        ("no view", _drop("ViewPosition"), "ViewPosition"),
        ("view FRONT", _put("ViewPosition", "FRONT"), "ViewPosition"),
        ("no patient orientation", _drop("PatientOrientation"), "PatientOrientation"),
        ("orientation of no patient", _put("PatientOrientation", ["X", "Y"]), "PatientOrientation"),
        ("negative spacing", _put("ImagerPixelSpacing", [-1, 1]), "ImagerPixelSpacing"),
        ("no modality", _drop("Modality"), "Modality"),
        ("no instance number", _drop("InstanceNumber"), "InstanceNumber"),
        ("aspect ratio 1 to 0", _put("PixelAspectRatio", [1, 0]), "PixelAspectRatio"),
        ("no manufacturer", _drop("Manufacturer"), "Manufacturer"),
        ("no study", _drop("StudyInstanceUID"), "StudyInstanceUID"),
    ),
    *_each(
        "DX",
        ("no intent", _drop("PresentationIntentType"), "PresentationIntentType"),
        ("intent of another class", _put("PresentationIntentType", "FOR PROCESSING"), "PresentationIntentType"),
        ("no laterality", _drop("ImageLaterality"), "ImageLaterality"),
        ("laterality Q", _put("ImageLaterality", "Q"), "ImageLaterality"),
        ("no intensity relationship", _drop("PixelIntensityRelationship"), "PixelIntensityRelationship"),
        ("sign 2", _put("PixelIntensityRelationshipSign", 2), "PixelIntensityRelationshipSign"),
        ("no rescale type", _drop("RescaleType"), "RescaleType"),
        ("rescale slope 2", _put("RescaleSlope", "2"), "RescaleSlope"),
        ("no presentation LUT", _drop("PresentationLUTShape"), "PresentationLUTShape"),
        ("presentation LUT inverts MONOCHROME2", _put("PresentationLUTShape", "INVERSE"), "PresentationLUTShape"),
        ("burned-in annotation unsaid", _drop("BurnedInAnnotation"), "BurnedInAnnotation"),
        ("lossy compression unsaid", _drop("LossyImageCompression"), "LossyImageCompression"),
        ("no detector type", _drop("DetectorType"), "DetectorType"),
        ("no acquisition context", _drop("AcquisitionContextSequence"), "AcquisitionContextSequence"),
        ("no detector spacing", _drop("ImagerPixelSpacing"), "ImagerPixelSpacing"),
        ("two regions", _double_region, "AnatomicRegionSequence"),
        ("region without code", _inside("AnatomicRegionSequence", _drop("CodeValue")), "CodeValue"),
        ("no patient orientation", _drop("PatientOrientation"), "PatientOrientation"),
        ("image type of two values", _put("ImageType", ["DERIVED", "SECONDARY"]), "ImageType"),
    ),
    *_each(
        "SC",
        ("no conversion type", _drop("ConversionType"), "ConversionType"),
        ("conversion type XYZ", _put("ConversionType", "XYZ"), "ConversionType"),
        ("no patient name", _drop("PatientName"), "PatientName"),
        ("colour without planes", _put_all(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "PlanarConfiguration"),
        (
            "palette colour without palette",
            _put("PhotometricInterpretation", "PALETTE COLOR"),
            "RedPaletteColorLookupTableDescriptor",
        ),
        ("capture date is a word", _put("DateOfSecondaryCapture", "today"), "DateOfSecondaryCapture"),
        ("no class", _drop("SOPClassUID"), "SOPClassUID"),
    ),
    *_each(
        "SEG",
        ("no segments", _drop("SegmentSequence"), "SegmentSequence"),
        ("no segmentation type", _drop("SegmentationType"), "SegmentationType"),
        ("segmentation type FUZZY", _put("SegmentationType", "FUZZY"), "SegmentationType"),
        ("binary of 8 bits", _put_all(BitsAllocated=8, BitsStored=8, HighBit=7), "BitsAllocated"),
        ("segment without label", _inside("SegmentSequence", _drop("SegmentLabel")), "SegmentLabel"),
        (
            "segment without algorithm type",
            _inside("SegmentSequence", _drop("SegmentAlgorithmType")),
            "SegmentAlgorithmType",
        ),
        (
            "automatic by no algorithm",
            _inside("SegmentSequence", _drop("SegmentAlgorithmName")),
            "SegmentAlgorithmName",
        ),
        (
            "segment without category",
            _inside("SegmentSequence", _drop("SegmentedPropertyCategoryCodeSequence")),
            "SegmentedPropertyCategoryCodeSequence",
        ),
        ("a frame less than said", _shorten_frames, "PerFrameFunctionalGroupsSequence"),
        ("no dimension organization", _drop("DimensionOrganizationSequence"), "DimensionOrganizationSequence"),
        (
            "frame of an unknown segment",
            _inside(f"{_IN_FRAME}.SegmentIdentificationSequence", _put("ReferencedSegmentNumber", 9)),
            "ReferencedSegmentNumber",
        ),
        ("two segments of one number", _double_segment, "SegmentNumber"),
        ("no pixel measures", _inside(_IN_SHARED, _drop("PixelMeasuresSequence")), "PixelMeasuresSequence"),
        ("no number of frames", _drop("NumberOfFrames"), "NumberOfFrames"),
        (
            "index of three dimensions",
            _inside(f"{_IN_FRAME}.FrameContentSequence", _put("DimensionIndexValues", [1, 1, 1])),
            "DimensionIndexValues",
        ),
        ("no content label", _drop("ContentLabel"), "ContentLabel"),
        ("no content description", _drop("ContentDescription"), "ContentDescription"),
        ("frame without position", _inside(_IN_FRAME, _drop("PlanePositionSequence")), "PlanePositionSequence"),
        (
            "source image without UID",
            _inside(f"{_IN_FRAME}.DerivationImageSequence.SourceImageSequence", _drop("ReferencedSOPInstanceUID")),
            "ReferencedSOPInstanceUID",
        ),
        ("no serial number", _drop("DeviceSerialNumber"), "DeviceSerialNumber"),
    ),
]

SeriesDamage = Callable[[list[FileDataset]], None]


@dataclass(frozen=True)
class SeriesDefect:
    """One defect planted in a series of three slices, each of which is valid by itself."""

    name: str
    damage: SeriesDamage
    attribute: str

    def __str__(self) -> str:
        return self.name


def _in_last(keyword: str, value: Any) -> SeriesDamage:
    return lambda datasets: setattr(datasets[-1], keyword, value)


def _copy_instance(datasets: list[FileDataset]) -> None:
    datasets[1].SOPInstanceUID = datasets[0].SOPInstanceUID
    datasets[1].file_meta.MediaStorageSOPInstanceUID = datasets[0].SOPInstanceUID


def _crop(datasets: list[FileDataset]) -> None:
    datasets[-1].Rows = 2
    datasets[-1].PixelData = datasets[-1].PixelData[:20]


def _in_all(keyword: str, *values: Any) -> SeriesDamage:
    def damage(datasets: list[FileDataset]) -> None:
        for dataset, value in zip(datasets, values, strict=True):
            setattr(dataset, keyword, value)

    return damage


SERIES_DEFECTS: list[SeriesDefect] = [
    SeriesDefect("another patient", _in_last("PatientID", "MT-0002"), "PatientID"),
    SeriesDefect("another sex", _in_last("PatientSex", "M"), "PatientSex"),
    SeriesDefect("another study date", _in_last("StudyDate", "20240103"), "StudyDate"),
    SeriesDefect("another study", _in_last("StudyInstanceUID", "2.25.1"), "StudyInstanceUID"),
    SeriesDefect("another modality", _in_last("Modality", "PT"), "Modality"),
    SeriesDefect("another series number", _in_last("SeriesNumber", 7), "SeriesNumber"),
    SeriesDefect("another frame of reference", _in_last("FrameOfReferenceUID", "2.25.1"), "FrameOfReferenceUID"),
    SeriesDefect("another accession number", _in_last("AccessionNumber", "A2"), "AccessionNumber"),
    SeriesDefect("one instance twice", _copy_instance, "SOPInstanceUID"),
    SeriesDefect("a missing slice", _in_last("ImagePositionPatient", ["0", "0", "10"]), "ImagePositionPatient"),
    SeriesDefect(
        "two slices at one place", _in_last("ImagePositionPatient", ["0", "0", "2.5"]), "ImagePositionPatient"
    ),
    SeriesDefect("another size", _crop, "Rows"),
    SeriesDefect("another spacing", _in_last("PixelSpacing", ["0.7", "0.9"]), "PixelSpacing"),
    SeriesDefect(
        "another direction",
        _in_last("ImageOrientationPatient", ["0", "1", "0", "1", "0", "0"]),
        "ImageOrientationPatient",
    ),
]
