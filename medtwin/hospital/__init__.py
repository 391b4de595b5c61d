"""The embedded source hospital: people, disease courses and their records, by laws that are known."""

from medtwin.hospital.codes import DESCRIPTIONS
from medtwin.hospital.imaging import ImageOrder
from medtwin.hospital.keep import kept_indices, parse_keep
from medtwin.hospital.laws import LAWS, Laws
from medtwin.hospital.pictures import draw_picture
from medtwin.hospital.simulate import SubjectRecord, simulate_hospital, simulate_subject
from medtwin.hospital.truth import subject_truth, truth

__all__ = [
    "DESCRIPTIONS",
    "LAWS",
    "ImageOrder",
    "Laws",
    "SubjectRecord",
    "draw_picture",
    "kept_indices",
    "parse_keep",
    "simulate_hospital",
    "simulate_subject",
    "subject_truth",
    "truth",
]
