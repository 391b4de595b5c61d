"""The chest radiograph of a parametric thorax, by X-ray projection.

Every organ is an ellipsoid (or an elliptical cylinder), so the path of a ray through it is a closed form.
Coordinates are those of `medtwin.hospital.anatomy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtwin.hospital.anatomy import BITS_STORED, LAWS, Anatomy, Image, Point, View


@dataclass(frozen=True)
class Radiograph:
    """A stored radiograph: MONOCHROME2, air dark, bone bright, the patient's left on the right."""

    pixels: NDArray[np.uint16]  # (size, size), 0 to 4095
    imager_pixel_spacing_mm: tuple[float, float]  # (row, column) pitch at the detector
    view: View
    bits_stored: int = BITS_STORED


class Ellipsoid(NamedTuple):
    """The points p with (p - center)^T inverse (p - center) <= 1; all in mm."""

    center: NDArray[np.float64]  # (3,)
    inverse: NDArray[np.float64]  # (3, 3), zero along the axis of a cylinder

    @classmethod
    def of(cls, center: Point, semi_axes: Point, axis: Point = (1.0, 0.0, 0.0)) -> Ellipsoid:
        """The ellipsoid whose first semi-axis points along axis; inf makes a cylinder."""
        if axis == (1.0, 0.0, 0.0):
            return cls(np.array(center), np.diag(np.array(semi_axes) ** -2.0))
        basis = np.linalg.qr(np.column_stack([axis, np.eye(3)[:, 1:]]))[0]
        return cls(np.array(center), basis @ np.diag(np.array(semi_axes) ** -2.0) @ basis.T)

    @classmethod
    def between(cls, start: Point, end: Point, radius: float) -> Ellipsoid:
        """A spindle from start to end."""
        a, b = np.array(start), np.array(end)
        x, y, z = (a + b) / 2.0
        half = float(np.linalg.norm(b - a)) / 2.0
        return cls.of((x, y, z), (half, radius, radius), tuple(b - a))


def shadow_edges(shape: Ellipsoid, source_y: float, detector_y: float) -> tuple[float, float]:
    """Left and right edge, in mm on the detector, of the shadow thrown from (0, source_y, any z).

    A vertical plane through the source touches the ellipsoid where n^T E n = (n . (c - source))^2.

    >>> unit_ball = Ellipsoid.of((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    >>> [round(x, 3) for x in shadow_edges(unit_ball, 1e6, -1e6)]  # magnified twice
    [-2.0, 2.0]
    """
    e = np.linalg.inv(shape.inverse)
    cx, k = shape.center[0], shape.center[1] - source_y
    slopes = np.roots([e[1, 1] - k**2, 2.0 * (cx * k - e[0, 1]), e[0, 0] - cx**2])
    low, high = sorted(float(m) * (detector_y - source_y) for m in slopes)
    return low, high


def source_and_detector_y(anatomy: Anatomy, view: View) -> tuple[float, float]:
    """Where the X-ray source and the detector are, in mm: PA has its source behind the patient."""
    skin = _body_axes(anatomy)[1] + LAWS.detector_gap_mm
    if view == "PA":
        return LAWS.source_detector_pa_mm - skin, -skin
    return skin - LAWS.source_detector_ap_mm, skin


def _body_axes(anatomy: Anatomy) -> tuple[float, float, float]:
    """Outer half-width and half-depth of the trunk, and the thickness of fat under the skin, mm."""
    fat = 4.0 + 1.3 * max(anatomy.bmi - 18.0, 0.0)  # choice
    return anatomy.chest_half_width_mm + 23.0 + fat, anatomy.chest_half_depth_mm + 20.0 + fat, fat


def chest_shapes(anatomy: Anatomy) -> dict[str, Ellipsoid]:
    """The organs of a subject by name; a trailing _l or _r is the patient's side.

    The heart (ventricles and right atrium) is scaled until its PA shadow is heart_ratio times as
    wide as that of the chest cavity. Proportions are choices after anatomy atlases.
    """
    a, b = anatomy.chest_half_width_mm, anatomy.chest_half_depth_mm
    width, depth, fat = _body_axes(anatomy)
    top, left_dome = anatomy.apex_z_mm, anatomy.left_dome_z_mm
    ball, arch = Ellipsoid.of, anatomy.aortic_radius_mm
    chest, inf = (0.0, 0.0, -30.0), math.inf
    shapes = {
        "trunk": ball((0, 0, -60), (width, depth, 330)),
        "muscle": ball((0, 0, -60), (width - fat, depth - fat, 325)),
        "neck": ball((0, 12, 0), (54, 52, inf)),
        "cage": ball(chest, (a + 9, b + 9, top + 39)),
        "cavity": ball(chest, (a, b, top + 30)),
        "mediastinum": ball((1, 0.1 * b, -20), (27, 0.85 * b, 1.6 * top)),
        "arch": ball((21, 8, top - 85), (arch, 28, arch + 4)),
        "aorta": ball((20, 0.62 * b, 0), (0.85 * arch, 0.85 * arch, inf)),
        "pulmonary_trunk": ball((20, -10, top - 118), (21, 20, 26)),
        "spine": ball((0, 0.78 * b, 0), (17, 14, inf)),
        "trachea": ball((0, 5, top - 30), (8.5, 8, 78)),
        "stomach_air": ball((52, -15, left_dome - 22), (26, 25, 9), (1.0, 0.0, 0.2)),
    }
    drop, flat = left_dome, 1.0 - LAWS.copd_diaphragm_flattening * anatomy.hyperinflation
    for side, sign in (("l", 1.0), ("r", -1.0)):
        dome = left_dome + (LAWS.right_dome_above_left_mm if side == "r" else 0.0)
        shapes["dome_" + side] = ball((sign * 0.5 * a, 5, dome - 88 * flat), (0.55 * a, 1.04 * b, 88 * flat))
        fluid = 12.0 + 55.0 * anatomy.effusion
        shapes["effusion_" + side] = ball((sign * a, 20, dome - 60), (0.5 * fluid, b, fluid + 4))
        shapes["bronchus_" + side] = Ellipsoid.between((sign * 2, 5, top - 100), (sign * 38, 8, top - 128), 6)
        shapes["shoulder_" + side] = ball((sign * 0.74 * width, 10, 96), (0.5 * width, 0.6 * depth, 98))
        shapes["clavicle_" + side] = Ellipsoid.between(
            (sign * 16, -0.62 * b, top - 38), (sign * 92, -0.5 * b, top - 22), 6.5
        )
        shapes["acromion_" + side] = Ellipsoid.between((sign * 78, -0.5 * b, top - 25), (sign * 158, 5, top - 16), 6)
        breast = max(anatomy.breast_mm, 1.0)
        shapes["breast_" + side] = ball(
            (sign * 0.58 * a, 12 - depth, -12 - 0.35 * breast),
            (breast, 0.55 * breast, 0.95 * breast),
        )
    slope, scale = anatomy.heart_slope, 1.0
    source, detector = source_and_detector_y(anatomy, "PA")
    left, right = shadow_edges(shapes["cavity"], source, detector)
    for _ in range(4):  # the shadow is nearly linear in scale: 4 rounds reach 1e-6
        k, z = scale, drop + 34.0 * scale
        shapes["heart"] = ball((25 * k, -26, z), (66 * k, 46 * k, 48 * k), (0.8, -0.35, -slope))
        shapes["atrium"] = ball((-14 * k, -15, z + 6 * k), (27 * k, 36 * k, 43 * k))
        edges = [shadow_edges(shapes[n], source, detector) for n in ("heart", "atrium")]
        heart_width = max(e[1] for e in edges) - min(e[0] for e in edges)
        scale *= anatomy.heart_ratio * (right - left) / heart_width
    return shapes


def rib_band(anatomy: Anatomy, x: Image, y: Image, z: Image) -> Image:
    """Share of bone, 0 to 1, at points of the chest wall: ribs lie in planes that slope forwards.

    Ribs every 25 mm, 13 mm high, dropping 0.45 mm per mm (choice); the front ends are cartilage.
    """
    phase = (z - 0.45 * (y - anatomy.chest_half_depth_mm) - anatomy.rib_offset_mm) / 25.0
    band = np.clip(0.5 + 14.0 * (0.26 - np.abs(phase - np.rint(phase))), 0.0, 1.0)
    cartilage = np.clip((np.abs(x) - 38.0) / 20.0, 0.0, 1.0)
    band *= np.clip((anatomy.apex_z_mm - z) / 20.0, 0.0, 1.0)  # the first rib
    return np.asarray(np.where(y < 0.0, band * cartilage, band), dtype=np.float32)


def patch_balls(anatomy: Anatomy) -> list[tuple[Ellipsoid, float]]:
    """Every patch of consolidation as 6 soft balls with their density at the centre.

    A ball of radius R has density d (1 - r^2 / R^2), whose line integral is d 4/3 h^3 / R^2 for a
    half-chord h. Perihilar oedema is one wide, thin ball on each side.
    """
    rng = np.random.default_rng(anatomy.texture_seed)
    balls = []
    for patch in anatomy.opacities:
        for _ in range(6):
            x, y, z = patch.center_mm + 0.4 * patch.radius_mm * rng.normal(size=3)
            r = patch.radius_mm * float(rng.uniform(0.45, 0.8))
            balls.append((Ellipsoid.of((x, y, z), (r, r, r)), 0.6 * patch.density))
    if anatomy.congestion > 0.0:
        for x in (-50.0, 52.0):
            hilum = (x, 5.0, anatomy.apex_z_mm - 135.0)
            balls.append((Ellipsoid.of(hilum, (62.0, 70.0, 72.0)), 0.14 * anatomy.congestion))
    return balls


def vessel_points(anatomy: Anatomy) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points along the pulmonary vessels: positions (n, 3) in mm and blood volume (n,) in mm3.

    Four generations of a random tree from each hilum; upper vessels widen with congestion.
    """
    rng = np.random.default_rng([anatomy.texture_seed, 1])
    hilum_z = anatomy.apex_z_mm - 135.0
    tilt = np.tile(np.linspace(-1.35, 1.35, 9), 2)
    sign = np.repeat([-1.0, 1.0], 9)
    start = np.column_stack([sign * 28.0, np.full(18, 5.0), hilum_z + 6.0 * sign])
    start = start + rng.normal(0, 5.0, start.shape)
    heading = np.column_stack([sign * np.cos(tilt), rng.normal(0, 0.45, 18), np.sin(tilt)])
    points, volumes = [], []
    for length, radius in ((36.0, 3.6), (30.0, 2.6), (25.0, 1.9), (22.0, 1.3)):
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        steps = np.arange(0.0, length, 1.0)
        along = start[:, None] + steps[None, :, None] * heading[:, None]
        wide = 1.0 + 0.5 * anatomy.congestion * (along[..., 2] > hilum_z)
        points.append(along.reshape(-1, 3))
        volumes.append((math.pi * (radius * wide) ** 2).ravel())
        start = np.repeat(along[:, -1], 2, axis=0)
        heading = np.repeat(heading, 2, axis=0)
        heading = heading + rng.normal(0, 0.42, heading.shape)
    return np.concatenate(points), np.concatenate(volumes)


class Rays(NamedTuple):
    """One ray per pixel: x = x0 + y tx, z = z0 + y tz, with y, towards the back, as parameter."""

    x0: Image  # (1, columns)
    tx: Image
    z0: Image  # (rows, 1)
    tz: Image
    length: Image  # (rows, columns), mm of path per mm of y

    def crop(self, window: tuple[slice, slice]) -> Rays:
        """The rays of a part of the detector."""
        rows, columns = window
        x0, tx, z0, tz, length = self
        return Rays(x0[:, columns], tx[:, columns], z0[rows], tz[rows], length[window])


Interval = tuple[Image, Image]  # y where a ray enters and leaves; equal where it misses


class Exposure(NamedTuple):
    """A point source and a flat detector at y = detector_y; all in mm."""

    source: Point
    detector_y: float
    columns: NDArray[np.floating[Any]]  # x of the pixel centres, left to right
    rows: NDArray[np.floating[Any]]  # z of the pixel centres, top to bottom

    def rays(self) -> Rays:
        """The ray from the source to each pixel."""
        sx, sy, sz = (np.float32(value) for value in self.source)
        reach = np.float32(self.detector_y) - sy
        tx = (self.columns.astype(np.float32)[None, :] - sx) / reach
        tz = (self.rows.astype(np.float32)[:, None] - sz) / reach
        return Rays(sx - tx * sy, tx, sz - tz * sy, tz, np.sqrt(1.0 + tx**2 + tz**2))

    def magnification(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Source-detector over source-object distance, (n,)."""
        return (self.detector_y - self.source[1]) / (y - self.source[1])

    def window(self, shape: Ellipsoid) -> tuple[slice, slice]:
        """Rows and columns that hold the shadow of an ellipsoid."""
        pitch = self.columns[1] - self.columns[0]
        half = np.sqrt(np.diag(np.linalg.inv(shape.inverse)))
        m = self.magnification(shape.center[1] + half[1] * np.array([-1.0, 1.0]))
        spans = []
        for k, first, sign in ((2, self.rows[0], -1.0), (0, self.columns[0], 1.0)):
            edges = (shape.center[k] - self.source[k] + half[k] * np.array([-1.0, 1.0]))[:, None] * m
            index = sign * (self.source[k] + edges - first) / pitch
            low, high = math.floor(index.min()), math.ceil(index.max()) + 1
            spans.append(slice(max(low, 0), max(high, 0)))
        return spans[0], spans[1]


def crossing(rays: Rays, shape: Ellipsoid) -> Interval:
    """Where each ray enters and leaves an ellipsoid, two (rows, columns) arrays of y in mm."""
    q = shape.inverse.astype(np.float32)
    vx, vz = rays.x0 - np.float32(shape.center[0]), rays.z0 - np.float32(shape.center[2])
    vy, tx, tz = np.float32(-shape.center[1]), rays.tx, rays.tz
    qx, qz = q[0, 0] * vx + q[0, 1] * vy, q[2, 2] * vz + q[1, 2] * vy
    a = (q[0, 0] * tx**2 + 2 * q[0, 1] * tx + q[1, 1]) + (q[2, 2] * tz**2 + 2 * q[1, 2] * tz)
    b = (qx * tx + q[0, 1] * vx + q[1, 1] * vy) + (qz * tz + q[1, 2] * vz)
    c = (qx * vx + q[0, 1] * vx * vy + q[1, 1] * vy**2 - 1) + (qz * vz + q[1, 2] * vz * vy)
    if q[0, 2] != 0.0:
        a += 2 * q[0, 2] * tx * tz
        b += q[0, 2] * (vx * tz + vz * tx)
        c += 2 * q[0, 2] * vx * vz
    half = np.sqrt(np.maximum(b * b - a * c, 0)) / a
    middle = -b / a
    return middle - half, middle + half


def _depth(interval: Interval) -> Image:
    return interval[1] - interval[0]


def _crop(interval: Interval, window: tuple[slice, slice]) -> Interval:
    return interval[0][window], interval[1][window]


def _overlap(a: Interval, b: Interval) -> Interval:
    enter = np.maximum(a[0], b[0])
    return enter, np.maximum(enter, np.minimum(a[1], b[1]))


def _hull(intervals: list[Interval]) -> Interval:
    """Smallest interval that covers all those that are hit: a union of organs that touch."""
    far = np.float32(1e6)
    enter = np.minimum.reduce([np.where(i[1] > i[0], i[0], far) for i in intervals])
    leave = np.maximum.reduce([np.where(i[1] > i[0], i[1], -far) for i in intervals])
    return enter, np.maximum(enter, leave)


_HEART = ("heart", "atrium", "pulmonary_trunk")
_MIDDLE = ("mediastinum", "arch", "aorta")
_FLOOR = ("dome_l", "dome_r", "effusion_l", "effusion_r")


def _carve(cavity: Interval, organs: list[Interval]) -> tuple[Image, list[Interval]]:
    """Depth of the cavity less the union of three organs, and the organs inside the cavity."""
    a, b, c = cut = [_overlap(cavity, organ) for organ in organs]
    ab = _overlap(a, b)
    union = _depth(a) + _depth(b) + _depth(c) + _depth(_overlap(ab, c))
    union -= _depth(ab) + _depth(_overlap(a, c)) + _depth(_overlap(b, c))
    return np.maximum(_depth(cavity) - union, 0.0), cut


def _lung_path(
    anatomy: Anatomy, exposure: Exposure, rays: Rays, shapes: dict[str, Ellipsoid], cavity: Interval
) -> Image:
    """Air in the lungs per ray, as mm of y of normally aerated lung."""
    organs = [_hull([crossing(rays, shapes[n]) for n in g]) for g in (_HEART, _MIDDLE, _FLOOR)]
    lung, organs = _carve(cavity, organs)
    air = (1.0 - 0.15 * anatomy.congestion) * lung
    for ball, density in patch_balls(anatomy):
        window = exposure.window(ball)
        part = rays.crop(window)
        chord = crossing(part, ball)
        half = 0.5 * _depth(chord) * part.length
        kept, _ = _carve(_overlap(chord, _crop(cavity, window)), [_crop(o, window) for o in organs])
        inside = kept / np.maximum(_depth(chord), 1e-3)
        per_r2 = density * 4.0 / 3.0 * float(ball.inverse[0, 0])
        air[window] -= per_r2 * half**3 / part.length * inside
    below = max(float(shapes[n].center[2]) for n in ("dome_l", "dome_r"))
    return np.where(rays.z0 > below, np.maximum(air, 0.08 * lung), np.float32(0.0))


def _rib_path(anatomy: Anatomy, rays: Rays, cavity: Interval, cage: Interval) -> Image:
    """Bone per ray in mm of y, where it crosses the chest wall in front and behind."""
    middle = 0.5 * (cage[0] + cage[1])
    missed = cavity[1] <= cavity[0]
    front = cage[0], np.where(missed, middle, cavity[0])
    back = np.where(missed, middle, cavity[1]), cage[1]
    bone: Image = np.zeros_like(middle)
    for wall in (front, back):
        y = 0.5 * (wall[0] + wall[1])
        bone = bone + _depth(wall) * rib_band(anatomy, rays.x0 + y * rays.tx, y, rays.z0 + y * rays.tz)
    return bone


def _vessel_path(anatomy: Anatomy, exposure: Exposure) -> Image:
    """Blood per ray in mm: the volume of the vessels spread over the pixels that they shade."""
    points, volumes = vessel_points(anatomy)
    m, num_rows, num_columns = exposure.magnification(points[:, 1]), len(exposure.rows), len(exposure.columns)
    pitch = float(exposure.columns[1] - exposure.columns[0])
    sx, _, sz = exposure.source
    u = np.rint((sx + m * (points[:, 0] - sx) - exposure.columns[0]) / pitch).astype(int)
    v = np.rint((exposure.rows[0] - sz - m * (points[:, 2] - sz)) / pitch).astype(int)
    seen = (u >= 0) & (u < num_columns) & (v >= 0) & (v < num_rows)
    weights = (volumes * m**2 / pitch**2)[seen]
    path = np.bincount(v[seen] * num_columns + u[seen], weights, minlength=num_rows * num_columns)
    return np.asarray(ndimage.gaussian_filter(path.astype(np.float32).reshape(num_rows, num_columns), 1.6 / pitch))


def attenuation(anatomy: Anatomy, exposure: Exposure) -> Image:
    """Line integral of attenuation along each ray, (rows, columns), without unit."""
    rays, shapes = exposure.rays(), chest_shapes(anatomy)
    trunk, cavity, cage, muscle, neck, spine = (
        crossing(rays, shapes[n]) for n in ("trunk", "cavity", "cage", "muscle", "neck", "spine")
    )
    air = _lung_path(anatomy, exposure, rays, shapes, cavity)
    mu_lung = LAWS.mu_lung * (1.0 - 0.25 * anatomy.hyperinflation)  # choice
    total = LAWS.mu_fat * _depth(trunk) - (LAWS.mu_soft - mu_lung) * air
    total += (LAWS.mu_soft - LAWS.mu_fat) * _depth(muscle)
    total += LAWS.mu_soft * (_depth(neck) - _depth(_overlap(neck, trunk)))
    for name, (mu, outside) in _SOLID.items():
        if name.startswith("breast") and anatomy.breast_mm == 0.0:
            continue
        window = exposure.window(shapes[name])
        part = crossing(rays.crop(window), shapes[name])
        shared = _depth(_overlap(part, _crop(trunk, window))) if outside else 0.0
        total[window] += mu * (_depth(part) - shared)
    level = np.sin((rays.z0 - anatomy.rib_offset_mm) * np.float32(2.0 * math.pi / 25.0))
    vertebra = 0.8 + 0.2 * np.sign(level + np.float32(0.7))  # discs hold no bone
    total += (LAWS.mu_vertebra - LAWS.mu_soft) * vertebra * _depth(spine)
    total += (LAWS.mu_rib - LAWS.mu_soft) * _rib_path(anatomy, rays, cavity, cage)
    lung = np.clip(3.0 * air / np.maximum(_depth(cavity), 1.0), 0.0, 1.0)
    total += (LAWS.mu_soft - mu_lung) * lung * _vessel_path(anatomy, exposure)
    return np.maximum(total * rays.length, 0.0)


# Attenuation added by each further organ, 1/mm, and whether only its part outside the trunk counts.
_SOLID: dict[str, tuple[float, bool]] = {
    "shoulder_l": (LAWS.mu_soft, True),
    "shoulder_r": (LAWS.mu_soft, True),
    "breast_l": (LAWS.mu_fat, True),
    "breast_r": (LAWS.mu_fat, True),
    "trachea": (-LAWS.mu_soft, False),
    "bronchus_l": (-0.7 * LAWS.mu_soft, False),
    "bronchus_r": (-0.7 * LAWS.mu_soft, False),
    "stomach_air": (-LAWS.mu_soft, False),
    "clavicle_l": (LAWS.mu_clavicle - LAWS.mu_soft, False),
    "clavicle_r": (LAWS.mu_clavicle - LAWS.mu_soft, False),
    "acromion_l": (LAWS.mu_clavicle - LAWS.mu_soft, False),
    "acromion_r": (LAWS.mu_clavicle - LAWS.mu_soft, False),
}


def _detect(rng: np.random.Generator, path: Image, view: View, pitch_mm: float) -> Image:
    """Logarithm of the lung's exposure over that of each pixel: scatter, quantum noise, blur."""
    primary = np.exp(-path)
    n = len(path)
    block = n // 32
    coarse = primary[: 32 * block, : 32 * block].reshape(32, block, 32, block).mean((1, 3))
    # Scatter comes from tissue: direct exposure beside the body counts as lung.
    coarse = np.minimum(coarse, np.float32(math.exp(-3.0)))
    wide = ndimage.gaussian_filter(coarse, LAWS.scatter_blur_mm / (pitch_mm * block))
    wide = ndimage.zoom(wide, n / 32, order=1, mode="nearest", grid_mode=True)
    signal = primary + np.float32(LAWS.scatter_pa if view == "PA" else LAWS.scatter_ap) * wide
    chamber = slice(int(0.28 * n), int(0.45 * n))  # automatic exposure: both upper lungs
    left, right = slice(int(0.26 * n), int(0.36 * n)), slice(int(0.64 * n), int(0.74 * n))
    reference = 0.5 * float(signal[chamber, left].mean() + signal[chamber, right].mean())
    quanta = np.float32(LAWS.detected_quanta * (pitch_mm / 1.5625) ** 2)
    signal = signal / np.float32(reference)
    noisy = signal + np.sqrt(signal / quanta) * rng.standard_normal(signal.shape, dtype=np.float32)
    blurred = ndimage.gaussian_filter(noisy, 0.7 / pitch_mm)
    return np.asarray(-np.log(np.maximum(blurred, 1e-4)), dtype=np.float32)


def render_radiograph(anatomy: Anatomy, rng: np.random.Generator, *, view: View, size: int = 256) -> Radiograph:
    """The chest radiograph of an anatomy.

    Beer-Lambert projection at one effective energy with a diverging beam (180 cm PA; 100 cm AP,
    where the heart is farther from the detector), scatter, quantum noise, logarithm, one window.

    Args:
        anatomy: The chest.
        rng: Positioning and noise.
        view: "PA" or "AP".
        size: Rows and columns, a multiple of 32, at least 64.

    Raises:
        ValueError: Unknown view or bad size.
    """
    if view not in ("PA", "AP"):
        raise ValueError(f"view must be 'PA' or 'AP', got {view!r}")
    if size < 64 or size % 32:
        raise ValueError(f"size must be a multiple of 32, at least 64, got {size!r}")
    source_y, detector_y = source_and_detector_y(anatomy, view)
    pitch = LAWS.detector_field_mm / size
    across = (np.arange(size) - (size - 1) / 2.0) * pitch
    # Positioning: a few mm (choice); the beam centre is at the height of the hila.
    shift, height = rng.normal(scale=3.0), 40.0 + rng.normal(scale=5.0)
    exposure = Exposure((shift, source_y, height), detector_y, across + shift, height - across)
    log_exposure = _detect(rng, attenuation(anatomy, exposure), view, pitch)
    low, high = LAWS.log_window
    top = 2**BITS_STORED - 1
    stored = np.clip((log_exposure - low) / (high - low), 0.0, 1.0) * top
    return Radiograph(np.rint(stored).astype(np.uint16), (pitch, pitch), view)
