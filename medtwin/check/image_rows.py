"""Rows about images: by modality and view, by what is seen in them, by view, sex and age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from medtwin.check.estimates import Distribution, Estimate


@dataclass(frozen=True)
class ImageGroup:
    """The images of one modality and view on both sides.

    Attributes:
        size: Rows and columns to which both were resampled.
        intensities: Share of pixels by stored intensity, 0 to 1, as cumulative shares.
        frequency: Cycles per image. power_real, power_synthetic: Mean log10 power there.
        ms_ssim: None where the images are too small. hounsfield: None where not all are in Hounsfield units.
    """

    name: str
    num_real: int
    num_synthetic: int
    size: int
    intensity: Estimate
    spectrum: Estimate
    diversity: Estimate
    intensities: Distribution = field(repr=False)
    frequency: Sequence[float] = field(repr=False)
    power_real: Sequence[float] = field(repr=False)
    power_synthetic: Sequence[float] = field(repr=False)
    ms_ssim: Estimate | None = None
    hounsfield: Estimate | None = None


@dataclass(frozen=True, slots=True)
class ImageLabelRow:
    """What a classifier makes of a finding, of view, sex or age in images; areas under the ROC curve.

    Attributes:
        kind: `tstr`: trained on twins, tested on real images. `adherence`: trained on real images, tested on twins.
        target: A finding's code, `view ...`, `sex`, or `age` (then: the share of pairs in the right order).
        with_real, with_synthetic: Images that have it; None of age.
        area: Of the twins, and its interval. ceiling: The same with other real images in their place.
        floor: What 95 % of permuted labels stay below.
        loss: Ceiling less area; its baseline is between parts of the real images.
        tested: Which real images the ceiling is of: the control, or the reference, cross-fitted.
    """

    kind: Literal["tstr", "adherence"]
    target: str
    num_real: int
    num_synthetic: int
    with_real: int | None
    with_synthetic: int | None
    area: float
    low: float
    high: float
    ceiling: float
    floor: float
    loss: Estimate
    tested: Literal["control", "reference"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ImageStratumRow:
    """The images of one modality and view, sex or band of age.

    Attributes:
        division: What it is divided by: `view`, `sex`, `age`. stratum: As in `CR PA`, `CR PA, F`, `CR PA, 40-64`.
        share_real, share_synthetic: Share of all images of the modality.
        intensity: Wasserstein distance in shares of the stored range. frechet: Of features. None: too few images.
    """

    division: Literal["view", "sex", "age"]
    stratum: str
    num_real: int
    num_synthetic: int
    share_real: float
    share_synthetic: float
    intensity: Estimate | None
    frechet: Estimate | None
