"""The coded values that may pass: closed lists from the standard, so that no identifier hides in a code string.

Sources: DICOM PS3.3-2023 (attribute named at each list); body parts: PS3.16-2023 Annex L, Table L-1, without the
vessels and cavities that only ultrasound and endoscopy use.
"""

from __future__ import annotations


def _terms(text: str) -> frozenset[str]:
    return frozenset(text.split())


PAIRED_BODY_PARTS = _terms(
    """
    ACJOINT ADRENAL ANKLE AXILLA BREAST BRONCHUS BUTTOCK CALCANEUS CALF CAROTID CHEEK CLAVICLE CORNEA CORONARYARTERY EAR
    ELBOW EXTREMITY EYE EYELID FEMUR FIBULA FINGER FLANK FOOT FOREARM GLUTEAL HAND HIP HUMERUS IAC ILIUM KIDNEY KNEE
    LOWERLEG LOWERLIMB LUNG MASTOID OPTICCANAL ORBIT OVARY PAROTID PATELLA RADIUS RADIUSULNA RIB SCAPULA SCJOINT SCLERA
    SESAMOID SHOULDER SIJOINT SUBMANDIBULAR TESTIS THIGH THUMB THYMUS TIBIA TIBIAFIBULA TMJ TOE ULNA UPPERARM UPPERLIMB
    URETER WRIST ZYGOMA
    """
)
"""Body parts of which there are two (Table L-1, column Paired): only these take a Laterality."""

UNPAIRED_BODY_PARTS = _terms(
    """
    ABDOMEN ABDOMENPELVIS AORTA AORTICARCH APPENDIX BACK BILEDUCT BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN
    CHESTABDPELVIS CIRCLEOFWILLIS COCCYX COLON CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART
    ILEUM INTRACRANIAL JAW JEJUNUM LARGEINTESTINE LARYNX LIVER LSPINE LSSPINE MANDIBLE MAXILLA MEDIASTINUM MOUTH
    NASOPHARYNX NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PELVISLOWEXTREMT PENIS PERINEUM
    PHANTOM PHARYNX PROSTATE RECTUM RETROPERITONEUM SCALP SCROTUM SELLA SKULL SMALLINTESTINE SPINALCORD SPINE SPLEEN
    SSPINE STERNUM STOMACH THORACICAORTA THORAX THYROID TLSPINE TONGUE TRACHEA TRUNK TSPINE URETHRA UTERUS VAGINA VULVA
    WHOLEBODY
    """
)

BODY_PARTS = PAIRED_BODY_PARTS | UNPAIRED_BODY_PARTS | frozenset({"ARM", "LEG"})
"""BodyPartExamined; ARM and LEG are from earlier editions of the table and common in archives."""

HEAD_BODY_PARTS = _terms(
    "BRAIN CEREBELLUM CIRCLEOFWILLIS EAR EYE FACE HEAD HEADNECK IAC INTRACRANIAL JAW MANDIBLE MASTOID MAXILLA MOUTH "
    "NASOPHARYNX NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT SCALP SELLA SKULL TMJ WHOLEBODY "
    "ZYGOMA"
)
"""Body parts whose volumes may show a face that can be recognised."""

ANATOMIC_REGIONS: dict[str, tuple[str, str]] = {
    "ABDOMEN": ("818981001", "Abdomen"),
    "ANKLE": ("70258002", "Ankle joint"),
    "CHEST": ("816094009", "Chest"),
    "CSPINE": ("122494005", "Cervical spine"),
    "ELBOW": ("16953009", "Elbow joint"),
    "FOOT": ("56459004", "Foot"),
    "HAND": ("85562004", "Hand"),
    "HIP": ("24136001", "Hip joint"),
    "KNEE": ("72696002", "Knee"),
    "LSPINE": ("122496007", "Lumbar spine"),
    "PELVIS": ("816092008", "Pelvis"),
    "SHOULDER": ("16982005", "Shoulder"),
    "SKULL": ("89546000", "Skull"),
    "TSPINE": ("122495006", "Thoracic spine"),
    "WRIST": ("74670003", "Wrist joint"),
}
"""SNOMED CT code and meaning of the body parts that are radiographed (Table L-1): AnatomicRegionSequence of DX."""

PROJECTION_MODALITIES = frozenset({"CR", "DX", "MG", "RG", "IO", "PX"})
"""Each image of these stands alone: no position in the patient, spacing at the detector."""

MODALITIES = PROJECTION_MODALITIES | frozenset({"CT", "MR", "PT"})

SINGLE_TERMS: dict[str, frozenset[str]] = {
    "Modality": MODALITIES,
    "PatientSex": frozenset({"M", "F", "O"}),
    "BodyPartExamined": BODY_PARTS,
    # CR and DX C.8.1.1, C.8.11.5.1.1; mammography C.8.11.7 (CID 4014).
    "ViewPosition": _terms("AP PA LL RL RLD LLD RLO LLO RAO LAO LPO RPO LAT ML LM CC MLO LMO XCCL XCCM SIO ISO FB TAN"),
    "Laterality": frozenset({"R", "L"}),
    "ImageLaterality": frozenset({"R", "L", "U", "B"}),
    # C.7.3.1.1.2
    "PatientPosition": _terms("HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL"),
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "PixelIntensityRelationship": frozenset({"LIN", "LOG", "DISP"}),
    "MRAcquisitionType": frozenset({"2D", "3D"}),
    "RotationDirection": frozenset({"CW", "CC"}),
    "DetectorType": frozenset({"DIRECT", "SCINTILLATOR", "STORAGE", "FILM"}),
    "ConversionType": frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"}),
    "QualityControlImage": frozenset({"YES", "NO", "BOTH"}),
    "BurnedInAnnotation": frozenset({"YES", "NO"}),
    "RecognizableVisualFeatures": frozenset({"YES", "NO"}),
    "LossyImageCompression": frozenset({"00", "01"}),
    # C.12.1.1: a synthetic or research image stays marked as one.
    "SyntheticData": frozenset({"YES", "NO"}),
    "ContentQualification": frozenset({"PRODUCT", "RESEARCH", "SERVICE"}),
    # C.8.9.1.1 (PET)
    "Units": frozenset({"CNTS", "NONE", "CPS", "BQML", "MGMINML", "UMOLMINML", "PROPCNTS", "GML", "PCNT"}),
    "DecayCorrection": frozenset({"NONE", "START", "ADMIN"}),
    "CountsSource": frozenset({"EMISSION", "TRANSMISSION"}),
    "CollimatorType": frozenset({"NONE", "RING"}),
    # C.8.11.5 and C.8.11.7 (DX positioning, mammography)
    "PositionerType": _terms("CARM COLUMN MAMMOGRAPHIC PANORAMIC CEPHALOSTAT RIGID NONE"),
    "BreastImplantPresent": frozenset({"YES", "NO"}),
    "PartialView": frozenset({"YES", "NO"}),
}
"""Attributes of one value and the terms that they may have."""

MULTIPLE_TERMS: dict[str, frozenset[str]] = {
    # C.7.6.1.1.2; value 3 of CT C.8.2.1.1.1, of MR C.8.3.1.1.1; then what scanners write for reformatted images.
    "ImageType": _terms(
        "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER OTHER REFORMATTED AVERAGE MPR MIP MIN_IP MAX_IP NORM M P "
        "ND DIS2D DIS3D FFE SE IR M_FFE M_SE M_IR PROJECTION_IMAGE VOLUME RESAMPLED DIFFUSION ADC"
    ),
    # C.8.3.1
    "ScanningSequence": frozenset({"SE", "IR", "GR", "EP", "RM"}),
    "SequenceVariant": frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"}),
    "ScanOptions": frozenset({"PER", "RG", "CG", "PPG", "FC", "PFF", "PFP", "SP", "FS"}),
    # C.9.2.1 of PET
    "SeriesType": frozenset({"STATIC", "DYNAMIC", "GATED", "WHOLE BODY", "IMAGE", "REPROJECTION"}),
    "CorrectedImage": frozenset({"DECY", "ATTN", "SCAT", "DTIM", "MOTN", "PMOT", "CLN", "RAN", "RADL", "DCAL", "NORM"}),
    "LossyImageCompressionMethod": frozenset(
        {"ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_13818_2", "ISO_14496_10", "ISO_15444_15"}
    ),
}
"""Attributes of several values; a value outside the list, and all that follow it, stay out."""

MANUFACTURERS: dict[str, str] = {
    "AGFA": "Agfa",
    "CANON": "Canon Medical Systems",
    "CARESTREAM": "Carestream Health",
    "EASTMAN KODAK": "Carestream Health",
    "FUJI": "FUJIFILM",
    "GE": "GE MEDICAL SYSTEMS",
    "HITACHI": "Hitachi",
    "HOLOGIC": "Hologic",
    "KODAK": "Carestream Health",
    "KONICA": "KONICA MINOLTA",
    "PHILIPS": "Philips",
    "SAMSUNG": "Samsung",
    "SHIMADZU": "Shimadzu",
    "SIEMENS": "SIEMENS",
    "TOSHIBA": "TOSHIBA",
    "UIH": "UIH",
    "UNITED IMAGING": "UIH",
    "VARIAN": "Varian",
}
"""First word of Manufacturer to the name that is written; other makers stay out."""

RESCALE_TYPES = frozenset({"HU", "OD", "US", "MGML", "Z_EFF", "ED", "EDW"})
"""RescaleType (C.11.1.1.2): long strings, closed all the same."""

HOUNSFIELD_SPELLINGS = frozenset({"HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS", "HOUNDSFIELD UNIT"})


def manufacturer_of(text: str) -> str | None:
    """The listed maker that a Manufacturer begins with; None for any other.

    >>> manufacturer_of("Philips Medical Systems")
    'Philips'
    """
    upper = text.strip().upper()
    words = upper.split()
    for name, written in MANUFACTURERS.items():
        if upper == name or (words and (words[0].strip(",.") == name or upper.startswith(f"{name} "))):
            return written
    return "FUJIFILM" if upper.startswith("FUJIFILM") else None
