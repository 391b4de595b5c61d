"""A parametric thorax: the laws of its anatomy, and the chest of one person drawn from them.

Coordinates are DICOM patient coordinates in mm: x to the patient's left, y to the back, z to the
head; the origin is in the midline, half-way between front and back of the chest cavity. Every organ
is an ellipsoid (or an elliptical cylinder), so the path of a ray through it is a closed form.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Side = Literal["left", "right"]
Zone = Literal["upper", "middle", "lower"]
View = Literal["PA", "AP"]
Point = tuple[float, float, float]
Image = NDArray[np.floating[Any]]  # float32 in practice

BITS_STORED = 12


@dataclass(frozen=True)
class ImagingLaws:
    """The constants of the imaging laws. "Choice" marks a number that is ours, not published.

    The proportions of the drawing (sizes and places of organs) stand in draw_anatomy and chest_shapes: all choices.
    """

    # Cardiothoracic ratio (CTR) on a PA view. Mensah et al. 2015, Ghana Med J 49:159 (n = 1989):
    # mean 0.452 in men and 0.467 in women, rising with age (slope: choice, no number given).
    ctr_male_at_50: float = 0.452
    ctr_female_at_50: float = 0.467
    ctr_per_year: float = 0.0005
    # SD 0.030 (men), 0.042 (women) in 567 healthy young adults (Nnamdi Azikiwe University, AJOL ijbair 180647).
    ctr_sd: float = 0.036
    # Philbin et al. 1998, Arch Intern Med 158:501: mean 0.53 (SD 0.07) in 7476 heart failure
    # patients, NYHA I-IV. +0.10 at severity 1 gives 0.53 at severity 0.7.
    ctr_per_heart_failure: float = 0.10
    # The heart is smaller on CT in COPD (2017, Int J COPD 12:3123); size of the effect: choice.
    ctr_per_hyperinflation: float = -0.03
    ctr_min: float = 0.32  # choice, keeps the anatomy drawable
    ctr_max: float = 0.72  # choice
    # Inner chest half-width. Diameter on PA films 265 mm (SD 20) in young adults (University of
    # Jos students, EA Journals); split by sex: choice.
    chest_half_width_male_mm: float = 136.0
    chest_half_width_female_mm: float = 122.0
    chest_half_width_sd_mm: float = 6.0
    chest_depth_to_width: float = 0.67  # choice
    # COPD: depressed, flattened diaphragm and deeper chest (Mueller & Coxson 2002, Thorax 57:982);
    # sizes of the effects: choice.
    copd_diaphragm_drop_mm: float = 18.0
    copd_diaphragm_flattening: float = 0.35
    copd_depth_gain: float = 0.10
    right_dome_above_left_mm: float = 12.0  # 1 to 2 cm, standard radiology teaching
    congestion_threshold: float = 0.25  # severity where congestion starts: choice
    effusion_threshold: float = 0.55  # severity where effusion starts: choice
    # Pneumonia: lower zones most often; all numbers of this block are choices.
    pneumonia_zone_weights: tuple[float, float, float] = (0.25, 0.2, 0.55)  # upper, middle, lower
    pneumonia_bilateral: float = 0.25
    pneumonia_radius_mm: tuple[float, float] = (28.0, 46.0)
    pneumonia_density: tuple[float, float] = (0.45, 0.95)
    # Linear attenuation at 60 keV, 1/mm: NIST XCOM mass attenuation (Hubbell & Seltzer, NISTIR
    # 5632) times ICRU-44 density, for soft tissue, adipose and inflated lung (0.26 g/cm3).
    mu_soft: float = 0.0217
    mu_fat: float = 0.0188
    mu_lung: float = 0.0053
    # Bone as marrow plus cortex (cortical alone: 0.0604 at 1.92 g/cm3); mixtures: choice.
    mu_vertebra: float = 0.0255
    mu_rib: float = 0.0390
    mu_clavicle: float = 0.0350
    # Source to detector: 180 cm PA, 100 cm AP bedside (European guidelines EUR 16260; Chon 2011).
    source_detector_pa_mm: float = 1800.0
    source_detector_ap_mm: float = 1000.0
    detector_gap_mm: float = 10.0  # skin to detector: choice
    detector_field_mm: float = 400.0  # 35 x 43 and 43 x 43 cm cassettes are usual
    scatter_pa: float = 0.25  # scatter to mean primary, with grid: choice
    scatter_ap: float = 0.40  # without grid: choice
    scatter_blur_mm: float = 40.0  # choice
    detected_quanta: float = 12000.0  # per pixel behind the lung at 256 x 256: choice
    log_window: tuple[float, float] = (-1.0, 2.2)  # of -ln(exposure / lung exposure): choice
    # CT numbers. Air is -1000 by definition. Usual ranges (Buzug 2008, Computed Tomography, p. 475; Prokop 2003): lung
    # in inspiration -850 to -910, fat -100 to -50, soft tissue 25 to 60, blood 40 to 65; points in them: choice.
    hu_air: float = -1000.0
    hu_lung: float = -850.0
    hu_fat: float = -100.0
    hu_muscle: float = 50.0
    hu_blood: float = 40.0
    hu_effusion: float = 10.0  # transudate, 0 to 20
    hu_consolidation: float = 40.0  # airless lung: soft tissue
    hu_trabecular: float = 180.0  # vertebral marrow of a middle-aged adult: choice
    hu_cortical: float = 900.0  # choice: cortex blurred with marrow at 1.4 mm pixels
    hu_lung_copd: float = -60.0  # shift at full hyperinflation (emphysema < -950): choice
    hu_lung_congestion: float = 120.0  # shift at full congestion: choice
    hu_lung_per_mm_dorsal: float = 0.3  # gravity, supine: choice
    ct_noise_sd: float = 20.0  # SD in HU, in air: low-dose chest; choice
    ct_noise_sd_body: float = 25.0  # SD in HU, inside the body: choice


LAWS = ImagingLaws()


def laws_as_dict() -> dict[str, float | tuple[float, ...]]:
    """The imaging laws by name, for ``truth.json``.

    >>> laws_as_dict()["source_detector_pa_mm"]
    1800.0
    """
    return asdict(LAWS)


@dataclass(frozen=True)
class Opacity:
    """A patch of consolidation."""

    side: Side  # of the patient
    zone: Zone
    center_mm: Point  # in patient coordinates
    radius_mm: float  # of the whole patch
    density: float  # 0 is aerated lung, 1 is airless lung


@dataclass(frozen=True)
class Anatomy:
    """One subject's chest: the cause of both the radiograph and the CT."""

    sex: str  # "male" or "female"
    age_years: float
    bmi: float  # kg/m2
    heart_ratio: float  # true cardiothoracic ratio on a PA view
    hyperinflation: float  # 0 none to 1 severe COPD
    congestion: float  # 0 none to 1: perihilar and interstitial oedema, upper-lobe diversion
    effusion: float  # 0 none to 1: pleural fluid on both sides
    opacities: tuple[Opacity, ...]  # patches of pneumonia
    chest_half_width_mm: float  # inner, at the widest
    chest_half_depth_mm: float
    apex_z_mm: float  # of the lungs
    left_dome_z_mm: float  # top of the left diaphragm
    heart_slope: float  # of the long axis, downwards
    aortic_radius_mm: float
    breast_mm: float  # half-width, 0 in men
    rib_offset_mm: float  # height of the rib pattern
    texture_seed: int  # vessels and patch shapes: all images of a subject share them


def draw_anatomy(
    rng: np.random.Generator,
    *,
    sex: str,
    age_years: float,
    bmi: float,
    heart_failure: float = 0.0,
    copd: bool = False,
    pneumonia: bool = False,
) -> Anatomy:
    """An anatomy drawn from the laws.

    CTR ~ N(mean(sex) + ctr_per_year (age - 50) + ctr_per_heart_failure * heart_failure
    + ctr_per_hyperinflation * hyperinflation, ctr_sd), truncated to [ctr_min, ctr_max].

    Args:
        rng: Source of all randomness; the same number of draws whatever the diseases.
        sex: "male" or "female".
        age_years: 18 to 110.
        bmi: 12 to 70 kg/m2.
        heart_failure: Severity, 0 to 1.
        copd: Whether the lungs are hyperinflated, to a random degree of 0.5 to 1.
        pneumonia: Whether there are one or two patches of consolidation.

    Raises:
        ValueError: An argument is out of its range.
    """
    if sex not in ("male", "female"):
        raise ValueError(f"sex must be 'male' or 'female', got {sex!r}")
    for name, value, low, high in (
        ("age_years", age_years, 18.0, 110.0),
        ("bmi", bmi, 12.0, 70.0),
        ("heart_failure", heart_failure, 0.0, 1.0),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value!r}")
    female = sex == "female"
    hyperinflation = float(rng.uniform(0.5, 1.0)) * copd
    n = rng.normal(size=8).tolist()
    half_width = LAWS.chest_half_width_female_mm if female else LAWS.chest_half_width_male_mm
    half_width += LAWS.chest_half_width_sd_mm * n[0]
    depth = LAWS.chest_depth_to_width * (1.0 + LAWS.copd_depth_gain * hyperinflation)
    left_dome = -46.0 + 7.0 * n[1] - LAWS.copd_diaphragm_drop_mm * hyperinflation
    # Obesity lifts the diaphragm; breasts grow with bmi: choices.
    left_dome += 0.6 * min(max(bmi - 25.0, 0.0), 20.0)
    texture_seed = int(rng.integers(2**31))
    opacities = _draw_opacities(rng, half_width, left_dome)
    return Anatomy(
        sex=sex,
        age_years=age_years,
        bmi=bmi,
        heart_ratio=_draw_heart_ratio(rng, female, age_years, heart_failure, hyperinflation),
        hyperinflation=hyperinflation,
        congestion=_ramp(heart_failure, LAWS.congestion_threshold) * float(rng.uniform(0.6, 1.0)),
        effusion=_ramp(heart_failure, LAWS.effusion_threshold) * float(rng.uniform(0.3, 1.0)),
        opacities=opacities if pneumonia else (),
        chest_half_width_mm=half_width,
        chest_half_depth_mm=half_width * depth * (1.0 + 0.04 * n[2]),
        apex_z_mm=(172.0 if female else 184.0) + 6.0 * n[3],
        left_dome_z_mm=left_dome,
        heart_slope=float(np.clip(0.55 + 0.08 * n[4] + 0.2 * hyperinflation, 0.3, 0.95)),
        aortic_radius_mm=float(np.clip(14.0 + 0.08 * (age_years - 40.0) + 1.5 * n[5], 11.0, 24.0)),
        breast_mm=float(np.clip(52.0 + 1.2 * (bmi - 25.0) + 5.0 * n[6], 35.0, 75.0)) * female,
        rib_offset_mm=5.0 * n[7],
        texture_seed=texture_seed,
    )


def _ramp(value: float, start: float) -> float:
    return max(0.0, (value - start) / (1.0 - start))


def _draw_heart_ratio(
    rng: np.random.Generator,
    female: bool,
    age_years: float,
    heart_failure: float,
    hyperinflation: float,
) -> float:
    mean = LAWS.ctr_female_at_50 if female else LAWS.ctr_male_at_50
    mean += LAWS.ctr_per_year * (age_years - 50.0)
    mean += LAWS.ctr_per_heart_failure * heart_failure
    mean += LAWS.ctr_per_hyperinflation * hyperinflation
    return float(np.clip(mean + LAWS.ctr_sd * rng.normal(), LAWS.ctr_min, LAWS.ctr_max))


def _draw_opacities(rng: np.random.Generator, half_width: float, left_dome: float) -> tuple[Opacity, ...]:
    """One patch, or one on each side."""
    zones: tuple[Zone, ...] = ("upper", "middle", "lower")
    sides: tuple[Side, ...] = ("left", "right")
    first = int(rng.integers(2))
    bilateral = bool(rng.random() < LAWS.pneumonia_bilateral)
    patches = []
    for k in range(2):
        side = sides[(first + k) % 2]
        zone = zones[int(rng.choice(3, p=LAWS.pneumonia_zone_weights))]
        lateral = {"upper": 0.46, "middle": 0.62, "lower": 0.64}[zone] * half_width
        x = (lateral + (6.0 if side == "left" else 0.0)) * (1.0 if side == "left" else -1.0)
        y = {"upper": 5.0, "middle": -25.0, "lower": 25.0}[zone]
        z = {"upper": 95.0, "middle": 35.0, "lower": left_dome + 35.0}[zone]
        jx, jy, jz = rng.normal(scale=7.0, size=3)
        radius = float(rng.uniform(*LAWS.pneumonia_radius_mm))
        density = float(rng.uniform(*LAWS.pneumonia_density))
        patches.append(Opacity(side, zone, (x + jx, y + jy, z + jz), radius, density))
    return tuple(patches) if bilateral else tuple(patches[:1])
