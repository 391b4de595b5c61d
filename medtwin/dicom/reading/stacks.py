"""Sorts images into uniform stacks: by series, shape, orientation, view and spacing, then along the slice normal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from medtwin.core.findings import Finding
from medtwin.dicom.reading.headers import ImageFile
from medtwin.dicom.reading.series import Geometry, Instance, Series, normal_of
from medtwin.dicom.terms import PROJECTION_MODALITIES

SAME_PLANE_MM = 0.001
"""Slice positions closer than this are the same plane."""

JITTER_MM = 0.01
"""Deviations up to this are rounding: scanners write positions with 2 to 3 decimals."""

DIRECTION_TOLERANCE = 1e-3
"""Direction cosines closer than this are the same direction (0.06 degrees)."""

GAP_FACTOR = 1.5
"""A step of more than this many slice distances means that slices are missing."""


def stack_series(images: Iterable[ImageFile]) -> list[Series]:
    """The uniform stacks of some images, sorted by patient, study, series and part.

    A SeriesInstanceUID that mixes patients, shapes, orientations, views or spacings is split, never mixed; the largest
    stack is part 0.
    """
    by_uid: dict[str, list[ImageFile]] = defaultdict(list)
    for image in images:
        by_uid[image.header.series_uid].append(image)
    series = [one for group in by_uid.values() for one in _parts(group)]
    return sorted(
        series, key=lambda one: (one.header.patient_id, one.header.study_uid, one.header.series_uid, one.part)
    )


def _parts(group: Sequence[ImageFile]) -> list[Series]:
    stacks: dict[tuple[object, ...], list[ImageFile]] = defaultdict(list)
    directions: list[tuple[float, ...]] = []
    for image in group:
        stacks[_uniform_key(image, directions)].append(image)
    mixed = _mixed(list(stacks))
    ordered = sorted(stacks.values(), key=lambda stack: (-len(stack), _natural_order(stack[0].instance)))
    findings = []
    if mixed:
        message = f"one SeriesInstanceUID mixes {', '.join(mixed)}: it is split into {len(ordered)} series"
        findings = [Finding("mixed-series", message, "warning", group[0].instance.file)]
    return [_series(stack, part, findings) for part, stack in enumerate(ordered)]


_KEY_NAMES = ("patients", "studies", "modalities", "shapes", "orientations", "views", "pixel spacings")


def _uniform_key(image: ImageFile, directions: list[tuple[float, ...]]) -> tuple[object, ...]:
    header, pixel = image.header, image.instance.pixel
    is_projection = header.modality in PROJECTION_MODALITIES
    spacing = tuple(round(value, 4) for value in image.spacing_mm or image.aspect_ratio or ())
    return (
        header.patient_id,
        header.study_uid,
        header.modality,
        (pixel.rows, pixel.columns),
        None if is_projection else _direction_index(image.instance.orientation, directions),
        header.view if is_projection else None,
        spacing,
    )


def _direction_index(orientation: tuple[float, ...] | None, directions: list[tuple[float, ...]]) -> int:
    if orientation is None:
        return -1
    for index, direction in enumerate(directions):
        if max(abs(a - b) for a, b in zip(orientation, direction, strict=True)) <= DIRECTION_TOLERANCE:
            return index
    directions.append(orientation)
    return len(directions) - 1


def _mixed(keys: Sequence[tuple[object, ...]]) -> list[str]:
    return [name for name, values in zip(_KEY_NAMES, zip(*keys, strict=True), strict=True) if len(set(values)) > 1]


def _natural_order(instance: Instance) -> tuple[bool, int, str]:
    return (instance.instance_number is None, instance.instance_number or 0, instance.file)


def _series(stack: Sequence[ImageFile], part: int, findings: Sequence[Finding]) -> Series:
    first = stack[0]
    where = first.instance.file
    if first.header.modality in PROJECTION_MODALITIES:
        instances = sorted((image.instance for image in stack), key=_natural_order)
        slice_spacing, odd = None, _several_projections(len(stack), where)
    else:
        instances, slice_spacing, odd = _sorted_in_space([image.instance for image in stack], where)
    if first.magnification is not None and first.magnification != 1:
        message = "the pixel spacing is that at the detector: in the patient it is smaller, by the stated factor"
        odd.append(Finding("magnified-projection", message, "information", where))
    if first.header.modality == "CT" and first.header.intensity_unit is None:
        odd.append(Finding("no-hounsfield", "the CT has no rescale to Hounsfield units", "warning", where))
    header = next(image.header for image in stack if image.instance is instances[0])
    row_mm, column_mm = first.spacing_mm or (None, None)
    geometry = Geometry(
        rows=first.instance.pixel.rows,
        columns=first.instance.pixel.columns,
        num_slices=len(instances),
        pixel_spacing_row_mm=row_mm,
        pixel_spacing_column_mm=column_mm,
        spacing_source=first.spacing_source,
        slice_spacing_mm=slice_spacing,
        pixel_aspect_ratio=first.aspect_ratio,
        magnification=first.magnification,
    )
    return Series(header, geometry, tuple(instances), part, (*findings, *odd))


def _several_projections(count: int, where: str) -> list[Finding]:
    message = f"{count} projections of one view stand in one series: they are no volume"
    return [Finding("several-projections", message, "warning", where)] if count > 1 else []


def _sorted_in_space(instances: Sequence[Instance], where: str) -> tuple[list[Instance], float | None, list[Finding]]:
    """Slices sorted along their normal, the slice spacing in mm, and what is odd about the positions."""
    normal = normal_of(instances[0].orientation)
    if normal is None or any(instance.position is None for instance in instances):
        ordered = sorted(instances, key=_natural_order)
        message = "slices without position or orientation: they are in the order of InstanceNumber"
        is_volume = len(instances) > 1
        return ordered, None, [Finding("no-position", message, "warning", where)] if is_volume else []
    ordered = sorted(instances, key=lambda one: (float(np.dot(np.asarray(one.position), normal)), _natural_order(one)))
    positions = np.array([one.position for one in ordered], dtype=np.float64)
    spacing, findings = _check_steps(positions, normal, where)
    return ordered, spacing, findings


def _check_steps(
    positions: NDArray[np.float64], normal: NDArray[np.float64], where: str
) -> tuple[float | None, list[Finding]]:
    depth = positions @ normal
    steps = np.diff(depth)
    is_step = steps > SAME_PLANE_MM
    findings = []
    if repeated := int(np.sum(~is_step)):
        message = f"{repeated} slices share the position of another: echoes or time points, not one volume"
        findings.append(Finding("repeated-position", message, "warning", where, repeated))
    if not np.any(is_step):
        return None, findings
    steps = steps[is_step]
    spacing = float(np.sort(steps)[(len(steps) - 1) // 2])
    if missing := int(np.sum(np.maximum(np.rint(steps[steps > GAP_FACTOR * spacing] / spacing) - 1, 1))):
        message = f"about {missing} slices are missing between the first and the last"
        findings.append(Finding("missing-slices", message, "warning", where, missing))
    elif np.max(np.abs(steps - spacing)) > max(JITTER_MM, 0.01 * spacing):
        findings.append(Finding("irregular-spacing", "the slice distances differ by more than 1 %", "warning", where))
    sideways = np.diff(positions - np.outer(depth, normal), axis=0)[is_step]
    if np.max(np.linalg.norm(sideways, axis=1)) > max(JITTER_MM, 0.01 * spacing):
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(np.median(sideways, axis=0)), spacing)))
        message = f"the slices are displaced sideways (gantry tilt, {degrees:.1f} degrees): the stack is no cuboid"
        findings.append(Finding("tilted-stack", message, "warning", where))
    return spacing, findings
