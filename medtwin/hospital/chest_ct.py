"""A short axial chest CT of the same anatomy as the radiograph, in Hounsfield units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtwin.hospital.anatomy import LAWS, Anatomy, Image, Point
from medtwin.hospital.thorax import Ellipsoid, chest_shapes, patch_balls, rib_band, vessel_points

HU_MIN, HU_MAX = -1024, 3071
SLICE_THICKNESS_MM = 5.0
CARINA_BELOW_APEX_MM = 100.0


@dataclass(frozen=True)
class CtSeries:
    """An axial series in DICOM patient coordinates, lowest slice first.

    Attributes:
        voxels: (slices, rows, columns) int16 in HU, -1024 to 3071; rows run to the back, columns to
            the patient's left.
        pixel_spacing_mm: (row, column).
        slice_thickness_mm: Thickness; slices may be further apart than this.
        slice_positions_mm: ImagePositionPatient of each slice: (x, y, z) of its first pixel centre.
        image_orientation: ImageOrientationPatient.
    """

    voxels: NDArray[np.int16]
    pixel_spacing_mm: tuple[float, float]
    slice_thickness_mm: float
    slice_positions_mm: tuple[Point, ...]
    image_orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class _Slice:
    """One axial slice to paint on: hu is (rows, columns) at height z, x and y are pixel centres."""

    def __init__(self, x: Image, y: Image, z: float) -> None:
        self.x, self.y, self.z = x[None, :], y[:, None], z
        self.pitch = float(x[1] - x[0])
        self.hu: Image = np.full((len(y), len(x)), LAWS.hu_air, dtype=np.float32)

    def window(self, shape: Ellipsoid) -> tuple[slice, slice] | None:
        """Rows and columns that an ellipsoid can touch; None where it misses the slice."""
        dz = self.z - shape.center[2]
        across = shape.inverse[:2, :2]
        if shape.inverse[2, 2] > 0.0:
            # Schur complement: the section's centre moves and its size shrinks with dz.
            shift = -np.linalg.solve(across, shape.inverse[:2, 2]) * dz
            rest = shape.inverse[2, 2] + shape.inverse[:2, 2] @ shift / dz if dz else 0.0
            size = 1.0 - rest * dz**2
        else:
            shift, size = np.zeros(2), 1.0
        if size <= 0.0:
            return None
        half = np.sqrt(np.diag(np.linalg.inv(across)) * size)
        spans = []
        for axis, grid in ((1, self.y[:, 0]), (0, self.x[0])):
            middle = shape.center[axis] + shift[axis]
            low = math.floor((middle - half[axis] - grid[0]) / self.pitch)
            high = math.ceil((middle + half[axis] - grid[0]) / self.pitch) + 1
            spans.append(slice(max(low, 0), max(high, 0)))
        return spans[0], spans[1]

    def distance2(self, shape: Ellipsoid, window: tuple[slice, slice]) -> Image:
        """(p - center)^T inverse (p - center) of the pixels of a window: 1 at the surface."""
        q = shape.inverse.astype(np.float32)
        dx = self.x[:, window[1]] - np.float32(shape.center[0])
        dy = self.y[window[0]] - np.float32(shape.center[1])
        dz = np.float32(self.z - shape.center[2])
        along_x = q[0, 0] * dx**2 + 2 * q[0, 2] * dz * dx
        along_y = q[1, 1] * dy**2 + 2 * q[1, 2] * dz * dy + q[2, 2] * dz**2
        return np.asarray(along_x + along_y + 2 * q[0, 1] * dx * dy)

    def fill(self, shape: Ellipsoid, hu: float, within: NDArray[np.bool_] | None = None) -> None:
        """Paint an ellipsoid, only where within is true if it is given."""
        window = self.window(shape)
        if window is None:
            return
        inside = self.distance2(shape, window) <= 1.0
        if within is not None:
            inside &= within[window]
        self.hu[window][inside] = hu

    def mask(self, shape: Ellipsoid) -> NDArray[np.bool_]:
        """Pixels inside an ellipsoid, (rows, columns)."""
        inside = np.zeros(self.hu.shape, dtype=bool)
        window = self.window(shape)
        if window is not None:
            inside[window] = self.distance2(shape, window) <= 1.0
        return inside


def _paint_wall(canvas: _Slice, anatomy: Anatomy, shapes: dict[str, Ellipsoid]) -> None:
    """Skin, fat, muscle, breasts, ribs and spine; the arms are raised out of the field."""
    for name in ("breast_l", "breast_r"):
        if anatomy.breast_mm > 0.0:
            canvas.fill(shapes[name], LAWS.hu_fat + 40.0)  # fat mixed with gland: choice
    canvas.fill(shapes["trunk"], LAWS.hu_fat)
    canvas.fill(shapes["muscle"], LAWS.hu_muscle)
    wall = canvas.mask(shapes["cage"]) & ~canvas.mask(shapes["cavity"])
    rows, columns = np.nonzero(wall)
    x, y = canvas.x[0, columns], canvas.y[rows, 0]
    z = np.full_like(x, canvas.z)
    marrow = LAWS.hu_trabecular + 0.4 * (LAWS.hu_cortical - LAWS.hu_trabecular)
    bone = rib_band(anatomy, x, y, z)
    canvas.hu[rows, columns] = LAWS.hu_muscle + bone * (marrow - LAWS.hu_muscle)


def _paint_lungs(canvas: _Slice, anatomy: Anatomy, shapes: dict[str, Ellipsoid]) -> NDArray[np.bool_]:
    """Aerated, congested and consolidated lung; returns the lung mask, (rows, columns)."""
    organs = ("heart", "atrium", "pulmonary_trunk", "mediastinum", "arch", "aorta", "spine")
    lung = canvas.mask(shapes["cavity"])
    for name in (*organs, "dome_l", "dome_r"):
        window = canvas.window(shapes[name])
        if window is not None:
            lung[window] &= canvas.distance2(shapes[name], window) > 1.0
    base = LAWS.hu_lung + LAWS.hu_lung_copd * anatomy.hyperinflation
    base += LAWS.hu_lung_congestion * anatomy.congestion
    density = np.zeros_like(canvas.hu)
    for ball, weight in patch_balls(anatomy):
        window = canvas.window(ball)
        if window is not None:
            density[window] += weight * np.maximum(1.0 - canvas.distance2(ball, window), 0.0)
    density += _vessel_share(canvas, anatomy)
    air = np.asarray(base + LAWS.hu_lung_per_mm_dorsal * canvas.y, dtype=np.float32)
    hu = air + np.minimum(density, 1.0) * (LAWS.hu_consolidation - air)
    canvas.hu[lung] = hu[lung]
    if anatomy.effusion > 0.0:  # supine: the fluid layers behind the lung
        level = anatomy.chest_half_depth_mm * (1.0 - 0.5 * anatomy.effusion)
        canvas.hu[lung & (canvas.y > level)] = LAWS.hu_effusion
    return lung


def _vessel_share(canvas: _Slice, anatomy: Anatomy) -> Image:
    """Share of blood, 0 to 1, in the pixels of a slice."""
    points, volumes = vessel_points(anatomy)
    near = np.abs(points[:, 2] - canvas.z) < SLICE_THICKNESS_MM / 2.0
    points, volumes = points[near], volumes[near]
    rows, columns = canvas.hu.shape
    u = np.rint((points[:, 0] - canvas.x[0, 0]) / canvas.pitch).astype(int)
    v = np.rint((points[:, 1] - canvas.y[0, 0]) / canvas.pitch).astype(int)
    seen = (u >= 0) & (u < columns) & (v >= 0) & (v < rows)
    share = volumes[seen] / (SLICE_THICKNESS_MM * canvas.pitch**2)
    image = np.bincount(v[seen] * columns + u[seen], share, minlength=rows * columns)
    spread = ndimage.gaussian_filter(image.reshape(rows, columns).astype(np.float32), 0.8)
    return np.asarray(np.minimum(spread, np.float32(1.0)))


def _paint_middle(canvas: _Slice, anatomy: Anatomy, shapes: dict[str, Ellipsoid]) -> None:
    """Mediastinal fat, heart and great vessels, airways, abdomen and spine, in this order."""
    cavity = canvas.mask(shapes["cavity"])
    canvas.fill(shapes["mediastinum"], LAWS.hu_fat, cavity)
    for name in ("dome_l", "dome_r"):
        canvas.fill(shapes[name], LAWS.hu_muscle, cavity)
    for name in ("heart", "atrium", "pulmonary_trunk", "arch", "aorta"):
        canvas.fill(shapes[name], LAWS.hu_blood, cavity)
    if canvas.z > shapes["heart"].center[2] + 20.0:  # the vessels that leave the heart
        for x, radius in ((-10.0, 0.95 * anatomy.aortic_radius_mm), (-26.0, 9.0)):
            vessel = Ellipsoid.of((x, -18.0, 0.0), (radius, radius, math.inf))
            canvas.fill(vessel, LAWS.hu_blood, cavity)
    for name in ("trachea", "bronchus_l", "bronchus_r"):
        canvas.fill(shapes[name], LAWS.hu_air)
    canvas.fill(shapes["stomach_air"], LAWS.hu_air)
    body = shapes["spine"]
    canvas.fill(body, LAWS.hu_cortical)
    cx, cy, _ = body.center
    canvas.fill(Ellipsoid.of((cx, cy, 0.0), (14.5, 11.5, math.inf)), LAWS.hu_trabecular)
    canvas.fill(Ellipsoid.of((cx, cy + 22.0, 0.0), (13.0, 10.0, math.inf)), LAWS.hu_cortical)
    canvas.fill(Ellipsoid.of((cx, cy + 21.0, 0.0), (8.5, 7.0, math.inf)), LAWS.hu_effusion)
    canvas.fill(Ellipsoid.of((cx, cy + 38.0, 0.0), (3.5, 12.0, math.inf)), LAWS.hu_cortical)
    front = -anatomy.chest_half_depth_mm * math.sqrt(
        max(1.0 - (shapes["cage"].center[2] - canvas.z) ** 2 * shapes["cage"].inverse[2, 2], 0.1)
    )
    canvas.fill(Ellipsoid.of((0.0, front - 5.0, 0.0), (19.0, 6.0, math.inf)), LAWS.hu_trabecular)


def _noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> Image:
    """Noise of SD 1 with the grain of a soft-tissue kernel: blurred, without the lowest waves."""
    white = rng.standard_normal(shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(white, (0.0, 0.8, 0.8))
    grain = fine - ndimage.uniform_filter(fine, (0, 9, 9))
    return np.asarray(grain / grain.std(), dtype=np.float32)


def slice_heights(anatomy: Anatomy, num_slices: int) -> NDArray[np.float64]:
    """Evenly spaced heights in mm, (num_slices,), from the middle of the heart to the carina."""
    heart = float(chest_shapes(anatomy)["heart"].center[2])
    carina = anatomy.apex_z_mm - CARINA_BELOW_APEX_MM
    step = round((carina - heart) / max(num_slices - 1, 1), 1)
    return np.round(heart + step * np.arange(num_slices), 1)


def render_ct(anatomy: Anatomy, rng: np.random.Generator, *, num_slices: int = 3, size: int = 256) -> CtSeries:
    """An axial series from the middle of the heart up to the carina.

    Each slice is painted from the organs of the radiograph at its mid-height, blurred by the
    kernel (SD 0.6 pixel), and gets noise of SD ct_noise_sd in air and ct_noise_sd_body inside.

    Args:
        anatomy: The chest; the arms are raised out of the field.
        rng: Noise and table height.
        num_slices: At least 1.
        size: Rows and columns, at least 64.

    Raises:
        ValueError: num_slices or size is too small.
    """
    if num_slices < 1:
        raise ValueError(f"num_slices must be at least 1, got {num_slices!r}")
    if size < 64:
        raise ValueError(f"size must be at least 64, got {size!r}")
    shapes = chest_shapes(anatomy)
    trunk = shapes["trunk"].inverse
    widest = 2.0 / math.sqrt(float(trunk[0, 0]))
    pitch = round(max(340.0, 1.05 * widest) / size, 4)
    grid = (np.arange(size) - (size - 1) / 2.0) * pitch
    y = grid + round(rng.normal(scale=4.0), 1)
    heights = slice_heights(anatomy, num_slices)
    stack = []
    for z in heights:
        canvas = _Slice(grid.astype(np.float32), y.astype(np.float32), float(z))
        _paint_wall(canvas, anatomy, shapes)
        _paint_lungs(canvas, anatomy, shapes)
        _paint_middle(canvas, anatomy, shapes)
        stack.append(canvas.hu)
    hu = ndimage.gaussian_filter(np.stack(stack), (0.0, 0.6, 0.6))
    sd = np.where(hu > -300.0, LAWS.ct_noise_sd_body, LAWS.ct_noise_sd).astype(np.float32)
    hu += sd * _noise(rng, (num_slices, size, size))
    voxels = np.clip(np.rint(hu), HU_MIN, HU_MAX).astype(np.int16)
    positions = tuple((float(grid[0]), float(y[0]), float(z)) for z in heights)
    return CtSeries(voxels, (pitch, pitch), SLICE_THICKNESS_MM, positions)
