"""The data frames of the cases: what R calls them, and the levels of their factors."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tests.trials.reference.cases import read_columns
from tests.trials.reference.evaluate import Frame, as_factor

_LEVELS = {
    "veteran": {"celltype": ["squamous", "smallcell", "adeno", "large"]},
    "cgd": {
        "center": [
            "Harvard Medical Sch",
            "Scripps Institute",
            "Copenhagen",
            "NIH",
            "L.A. Children's Hosp",
            "Mott Children's Hosp",
            "Univ. of Utah",
            "Univ. of Washington",
            "Univ. of Minnesota",
            "Univ. of Zurich",
            "Texas Children's Hosp",
            "Amsterdam",
            "Mt. Sinai Medical Ctr",
        ],
        "treat": ["placebo", "rIFN-g"],
        "sex": ["male", "female"],
        "inherit": ["X-linked", "autosomal"],
        "hos.cat": ["US:NIH", "US:other", "Europe:Amsterdam", "Europe:other"],
    },
    "colon": {"rx": ["Obs", "Lev", "Lev+5FU"]},
    "colon_os_obs_vs_lev5fu": {"rx": ["Obs", "Lev", "Lev+5FU"]},
    "mgus2": {"sex": ["F", "M"]},
    "myeloid": {"trt": ["A", "B"], "sex": ["f", "m"]},
    "pbc_randomised": {"sex": ["m", "f"]},
    "retinopathy": {"laser": ["xenon", "argon"], "eye": ["right", "left"], "type": ["juvenile", "adult"]},
    "orthodont": {"Sex": ["Male", "Female"]},
    "fev_data": {
        "SEX": ["Male", "Female"],
        "ARMCD": ["PBO", "TRT"],
        "RACE": ["Asian", "Black or African American", "White"],
        "AVISIT": ["VIS1", "VIS2", "VIS3", "VIS4"],
    },
    "anorexia": {"Treat": ["CBT", "Cont", "FT"]},
    "epil": {"trt": ["placebo", "progabide"]},
}
"""Levels of the factors of R's data sets in their order, which a CSV file does not keep."""

_FRAMES = {
    "vet": "veteran",
    "veteran": "veteran",
    "lung": "lung",
    "cancer": "lung",
    "gbsg": "gbsg",
    "cgd": "cgd",
    "colon": "colon",
    "col2": "colon_os_obs_vs_lev5fu",
    "mgus2": "mgus2",
    "myeloid": "myeloid",
    "pbcr": "pbc_randomised",
    "retinopathy": "retinopathy",
    "bladder2": "bladder2",
    "an2": "anorexia_cont_vs_ft",
    "anorexia": "anorexia",
    "epil": "epil",
    "ohio": "ohio",
    "respiratory": "respiratory",
    "rsp1": "respiratory_visit4",
    "Orth": "orthodont",
    "Orthodont": "orthodont",
    "fev": "fev_data",
    "fev_data": "fev_data",
}
"""What R's names of data frames are called in `trial_data/`."""


@lru_cache(maxsize=32)
def _read(path: Path) -> Frame:
    frame = Frame(read_columns(path))
    for name, levels in _LEVELS.get(path.stem, {}).items():
        frame[name] = as_factor(frame[name], levels)
    return frame


def data_frames(folder: Path) -> dict[str, Frame]:
    """The data frames of the set-up in `meta.r_setup`, those whose files are there, by R's names."""
    paths = {name: folder / "trial_data" / f"{file}.csv" for name, file in _FRAMES.items()}
    found = {name: _read(path) for name, path in paths.items() if path.is_file()}
    if "colon" in found:
        found["col_os"] = found["colon"].rows(found["colon"]["etype"] == 2)
    return found
