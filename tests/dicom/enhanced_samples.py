"""Enhanced multi-frame objects as a scanner would write them, made by pydicom alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, EnhancedCTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

from tests.dicom.samples import ROOT, ct, pixels


def item(**values: Any) -> Dataset:
    """A dataset of some attributes."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced_ct(
    count: int = 3, *, shape: tuple[int, int] = (4, 5), syntax: UID = ExplicitVRLittleEndian, **more: Any
) -> FileDataset:
    """Frames 2.5 mm apart, stored last first; HU of frame i = (i + 1) * stored - 1000, stored as `pixels(i)`."""
    stack = np.stack([pixels(index, shape) for index in range(count)])
    dataset = ct(0, stack[0], syntax=syntax)
    for keyword in (
        *(
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
            "SliceThickness",
            "KVP",
            "BodyPartExamined",
        ),
        *("RescaleSlope", "RescaleIntercept", "AcquisitionNumber"),
    ):
        del dataset[keyword]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.77"
    dataset.NumberOfFrames, dataset.PixelData = count, stack.tobytes()
    region = item(CodeValue="51185008", CodingSchemeDesignator="SCT", CodeMeaning="Chest")
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.75], SliceThickness=2.5)],
        FrameAnatomySequence=[item(FrameLaterality="U", AnatomicRegionSequence=[region])],
        CTXRayDetailsSequence=[item(KVP=120.0)],
        CTExposureSequence=[item(ExposureTimeInms=500.4, XRayTubeCurrentInmA=200.0, ExposureInmAs=100.0)],
        CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
        CTReconstructionSequence=[item(ReconstructionDiameter=350.0)],
    )
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=[
                item(FrameAcquisitionDateTime=f"2020022910111{index}.5", FrameAcquisitionNumber=index + 7, StackID="1")
            ],
            PlanePositionSequence=[item(ImagePositionPatient=[-10, -20, 5 - 2.5 * index])],
            PixelValueTransformationSequence=[item(RescaleSlope=index + 1, RescaleIntercept=-1000, RescaleType="HU")],
            FrameVOILUTSequence=[item(WindowCenter=40 + index, WindowWidth=400)],
        )
        for index in range(count)
    ]
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced_mr(count: int = 2, **more: Any) -> FileDataset:
    """An Enhanced MR of two frames at one place: two echoes."""
    dataset = enhanced_ct(count)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.Modality = "MR"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for keyword in ("CTXRayDetailsSequence", "CTExposureSequence", "CTImageFrameTypeSequence"):
        del shared[keyword]
    shared.MRTimingAndRelatedParametersSequence = [item(RepetitionTime=2500.0, FlipAngle=90.0, EchoTrainLength=1)]
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.MREchoSequence = [item(EffectiveEchoTime=10.5 * (index + 1))]
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]
        del group.PixelValueTransformationSequence
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return dataset
