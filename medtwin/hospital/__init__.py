"""The embedded source hospital: people, disease courses and their records, by laws that are known."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtwin.hospital.codes import DESCRIPTIONS
    from medtwin.hospital.ground_truth import subject_truth, truth
    from medtwin.hospital.imaging import ImageOrder
    from medtwin.hospital.keep import kept_indices, parse_keep
    from medtwin.hospital.laws import LAWS, Laws
    from medtwin.hospital.pictures import draw_picture
    from medtwin.hospital.simulate import SubjectRecord, simulate_hospital, simulate_subject

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

# Where each stands: loaded when it is asked for, since a table of codes is wanted more often than a hospital.
_PLACES = {
    "DESCRIPTIONS": "codes",
    "ImageOrder": "imaging",
    "LAWS": "laws",
    "Laws": "laws",
    "SubjectRecord": "simulate",
    "draw_picture": "pictures",
    "kept_indices": "keep",
    "parse_keep": "keep",
    "simulate_hospital": "simulate",
    "simulate_subject": "simulate",
    "subject_truth": "ground_truth",
    "truth": "ground_truth",
}


def __getattr__(name: str) -> Any:
    """What `__all__` names, from its module."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
