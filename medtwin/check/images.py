"""Images by their pixels, per modality and view: intensity, Hounsfield units, spectrum, diversity, similarity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medtwin.check.estimates import Distribution, Estimate, Measure
from medtwin.check.findings import CopyRow
from medtwin.check.image_copies import image_copies
from medtwin.check.image_rows import ImageGroup
from medtwin.check.marginals import total_cdf, wasserstein
from medtwin.check.pictures import (
    MAX_IMAGES,
    MAX_SIZE,
    MIN_IMAGES,
    Picture,
    Pixels,
    common_size,
    group_of,
    read_picture,
    read_pictures,
    resample,
    stacked,
    subjects_of,
)
from medtwin.check.resample import Draws, Features, Plan, Sums, average, compare, make_plan
from medtwin.check.similarity import ms_ssim, num_scales
from medtwin.core.seeds import generator

__all__ = [
    "MAX_IMAGES", "MAX_SIZE", "MIN_IMAGES", "TITLES", "Picture", "group_of", "image_measures", "intensity_draws",
    "radial_power", "read_picture", "read_pictures", "resample", "unmeasured",
]  # fmt: skip

NUM_BINS = 128
MIN_SUBJECTS = 4
HOUNSFIELD_BINS = np.arange(-1024.0, 3072.0, 8.0)
"""Points to which Hounsfield units are rounded; 12 bits reach from -1024 to 3071."""
MAX_PAIRS = 2000
MAX_PAIR_SIZE = 64
TITLES = {
    "images.intensity": "Intensity: Wasserstein distance, in shares of the stored range",
    "images.spectrum": "Sharpness and texture: mean distance of log10 radial power",
    "images.diversity": "Diversity: absolute log ratio of the variance between images",
    "images.ms_ssim": "Diversity: difference of the mean MS-SSIM of images of two subjects",
    "images.hounsfield": "CT numbers: Wasserstein distance in Hounsfield units",
}

Floats = NDArray[np.float64]
Sides: TypeAlias = "Sequence[Sequence[Picture]]"


@dataclass(frozen=True)
class _Side:
    """The images of one group on one side, (images, size, size), and whose they are."""

    images: Pixels
    subject: NDArray[np.int64]
    num_subjects: int

    @staticmethod
    def of(pictures: Sequence[Picture], size: int) -> _Side:
        subjects, subject = np.unique(subjects_of(pictures), return_inverse=True)
        return _Side(stacked(pictures, size), subject, len(subjects))

    def by_subject(self, per_image: NDArray[np.floating[Any]]) -> Floats:
        """Sums over the images of each subject, (subjects, numbers)."""
        member = sparse.csr_array(
            (np.ones(len(self.subject)), (self.subject, np.arange(len(self.subject)))),
            shape=(self.num_subjects, len(self.subject)),
        )
        return np.asarray(member @ per_image, np.float64)


@dataclass(frozen=True)
class _Group:
    """One modality and view: reference, twins and, where there are some, control."""

    name: str
    pictures: list[list[Picture]]
    sides: list[_Side]
    plan: Plan
    seed: int

    @staticmethod
    def of(name: str, sides: Sides, seed: int, num_resamples: int) -> _Group:
        pictures = [list(side) for side in sides if side]
        size = common_size(*sides[:2])
        found = [_Side.of(side, size) for side in pictures]
        numbers = [side.num_subjects for side in found] + ([0] if len(found) < 3 else [])
        plan = make_plan(*numbers, seed=seed, num_resamples=num_resamples, purpose=f"images {name}")
        return _Group(name, pictures, found, plan, seed)

    @property
    def size(self) -> int:
        """Rows and columns."""
        return int(self.sides[0].images.shape[-1])

    def features(self, per_image: Callable[[Pixels], Floats]) -> list[Features]:
        """Sums by subject of what each image has, for each side."""
        return [side.by_subject(per_image(side.images)) for side in self.sides]

    def compare(self, features: list[Features], distance: Callable[[Sums, Sums], Floats]) -> Draws:
        """The distance for every draw."""
        return compare(self.plan, features[0], features[1], features[2] if len(features) > 2 else None, distance)


def radial_power(images: Pixels) -> Floats:
    """Log10 of the mean power at each radial frequency, (images, size // 2 - 1), of (images, size, size).

    Frequencies are 1 to size/2 - 1 cycles per image; a Hann window keeps the edges out.
    """
    size = images.shape[-1]
    window = np.hanning(size + 2)[1:-1].astype(np.float32)
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    spectrum = np.fft.fft2(centred * window[:, None] * window[None])
    power = np.abs(spectrum) ** 2
    frequency = np.fft.fftfreq(size, 1 / size)
    radius = np.rint(np.hypot(frequency[:, None], frequency[None])).astype(int).ravel()
    rings = np.arange(1, size // 2)
    member = sparse.csr_array((radius[:, None] == rings).astype(np.float64))
    mean = (member.T @ power.reshape(len(images), -1).T).T / np.asarray(member.sum(axis=0)).ravel()
    return np.asarray(np.log10(mean + 1e-12))


def image_measures(
    real: Sequence[Picture], synthetic: Sequence[Picture], control: Sequence[Picture], *, seed: int, num_resamples: int
) -> tuple[list[Measure], list[ImageGroup], list[CopyRow]]:
    """What pixels say over all groups, a row per group, and the copies."""
    copies = image_copies(real, synthetic, control, seed) if synthetic else []
    groups: list[ImageGroup] = []
    found: dict[str, list[tuple[Draws, float, Plan]]] = {name: [] for name in TITLES}
    for name in sorted({one.group for one in synthetic}):
        sides = [[one for one in side if one.group == name] for side in (real, synthetic, control)]
        if is_comparable(sides):
            group = _Group.of(name, sides, seed, num_resamples)
            row, draws = _compare_group(group)
            groups.append(row)
            for measure, one in draws.items():
                found[measure].append((_scaled(group.plan, one), float(len(sides[1])), group.plan))
    if not groups:
        reason = f"no modality and view has {MIN_IMAGES} images on both sides"
        if not real or not synthetic:
            reason = f"the {'twins' if not synthetic else 'real subjects'} have no images"
        return unmeasured(reason, has_images=bool(synthetic)), [], copies
    has_hounsfield = any(one.hounsfield for one in real)
    return [_measure(name, found[name], has_hounsfield=has_hounsfield) for name in TITLES], groups, copies


def is_comparable(sides: Sides, *, min_images: int = MIN_IMAGES) -> bool:
    """Whether reference and twins have enough images, of enough real subjects."""
    return min(len(sides[0]), len(sides[1])) >= min_images and len(np.unique(subjects_of(sides[0]))) >= MIN_SUBJECTS


def unmeasured(reason: str, *, has_images: bool) -> list[Measure]:
    """The measures of pixels without an estimate; not applicable where the twins have none."""
    return [Measure(name, title, None, 0, "lower", reason, has_images) for name, title in TITLES.items()]


def _measure(name: str, found: list[tuple[Draws, float, Plan]], *, has_hounsfield: bool) -> Measure:
    if found:
        weights = [one[1] for one in found]
        estimate = average([one[0] for one in found], weights).estimate(found[0][2], power=0)
        return Measure(name, TITLES[name], estimate, int(sum(weights)))
    if name == "images.hounsfield":
        reason = f"no group has {MIN_IMAGES} images in Hounsfield units on both sides"
        return Measure(name, TITLES[name], None, 0, "lower", reason, has_hounsfield)
    return Measure(name, TITLES[name], None, 0, "lower", "the images are too small")


def _scaled(plan: Plan, drawn: Draws) -> Draws:
    """The draws at the actual sample sizes, which differ between groups: scaled before they are averaged."""
    control = None
    if drawn.control is not None and plan.control_scale is not None:
        control = drawn.control * plan.control_scale
    return Draws(drawn.bootstrap, drawn.halves * plan.half_scale, control)


def _compare_group(group: _Group) -> tuple[ImageGroup, dict[str, Draws]]:
    support = np.linspace(0, 1, NUM_BINS)
    histograms = [sparse.csr_array(one) for one in group.features(_histogram)]
    spectra = group.features(lambda images: _with_ones(radial_power(images)))
    draws = {
        "images.intensity": group.compare(list(histograms), wasserstein(support, 1.0)),
        "images.spectrum": group.compare(spectra, _spectrum_distance),
        "images.diversity": group.compare(group.features(_moments), _diversity_distance),
        **_similarity_draws(group),
        **_hounsfield_draws(group),
    }
    estimates: Mapping[str, Estimate] = {name: one.estimate(group.plan) for name, one in draws.items()}
    power = [np.asarray(side.sum(axis=0)) for side in spectra[:2]]
    row = ImageGroup(
        group.name,
        len(group.pictures[0]),
        len(group.pictures[1]),
        group.size,
        estimates["images.intensity"],
        estimates["images.spectrum"],
        estimates["images.diversity"],
        Distribution(
            group.name,
            "share of the stored range",
            support.tolist(),
            *total_cdf(group.plan, histograms[0], histograms[1]),
        ),
        list(range(1, group.size // 2)),
        (power[0][:-1] / power[0][-1]).tolist(),
        (power[1][:-1] / power[1][-1]).tolist(),
        estimates.get("images.ms_ssim"),
        estimates.get("images.hounsfield"),
    )
    return row, draws


def intensity_draws(sides: Sides, *, seed: int, num_resamples: int, purpose: str) -> tuple[Plan, Draws]:
    """The Wasserstein distance of intensities alone, of any set of pictures."""
    group = _Group.of(purpose, sides, seed, num_resamples)
    histograms = [sparse.csr_array(one) for one in group.features(_histogram)]
    return group.plan, group.compare(list(histograms), wasserstein(np.linspace(0, 1, NUM_BINS), 1.0))


def _histogram(images: Pixels) -> Floats:
    bins = np.clip(np.rint(images.reshape(len(images), -1) * (NUM_BINS - 1)), 0, NUM_BINS - 1).astype(np.int64)
    return _counts(bins, NUM_BINS)


def _counts(bins: NDArray[np.int64], num_bins: int) -> Floats:
    """How many of each image's numbers are which, (images, bins), of (images, pixels)."""
    offset = np.arange(len(bins))[:, None] * num_bins
    counts = np.bincount((bins + offset).ravel(), minlength=len(bins) * num_bins)
    return np.asarray(counts.reshape(len(bins), num_bins), np.float64)


def _hounsfield_draws(group: _Group) -> dict[str, Draws]:
    """Only where every image has Hounsfield units: a group of both kinds would be compared in part."""
    if not all(one.hounsfield for side in group.pictures for one in side):
        return {}
    features: list[Features] = []
    for pictures, side in zip(group.pictures, group.sides, strict=True):
        low, high = np.array([one.hounsfield for one in pictures], np.float64).T[:, :, None]
        values = low + side.images.reshape(len(pictures), -1) * (high - low)
        step = HOUNSFIELD_BINS[1] - HOUNSFIELD_BINS[0]
        bins = np.clip(np.rint((values - HOUNSFIELD_BINS[0]) / step), 0, len(HOUNSFIELD_BINS) - 1)
        features.append(sparse.csr_array(side.by_subject(_counts(bins.astype(np.int64), len(HOUNSFIELD_BINS)))))
    return {"images.hounsfield": group.compare(features, wasserstein(HOUNSFIELD_BINS, 1.0))}


@dataclass(frozen=True)
class _Pairs:
    """Pairs of images of two subjects: the subjects, (pairs,) each, and how similar the images are."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: Floats

    def mean(self, weights: NDArray[np.floating[Any]]) -> Floats:
        """Weighted mean similarity, (draws,), where subjects are drawn (draws, subjects) times; NaN without a pair."""
        each = (weights[:, self.first] * weights[:, self.second]).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((each @ self.similarity) / each.sum(axis=1))


def _similarity_draws(group: _Group) -> dict[str, Draws]:
    """Mean MS-SSIM of images of two subjects. Source: Odena, Olah & Shlens 2017, ICML (as a measure of diversity)."""
    size, plan = min(group.size, MAX_PAIR_SIZE), group.plan
    if not num_scales(size) or min(side.num_subjects for side in group.sides[:2]) < 2:
        return {}
    pairs = [
        _draw_pairs(side, size, generator(group.seed, "check", "image pairs", group.name, number))
        for number, side in enumerate(group.sides[: 2 if plan.control_scale is None else 3])
    ]
    bootstrap = np.abs(pairs[0].mean(plan.real) - pairs[1].mean(plan.synthetic))
    bootstrap = np.where(np.isnan(bootstrap), bootstrap[0], bootstrap)  # one subject, again and again
    halves = np.abs(pairs[0].mean(plan.half_a) - pairs[0].mean(plan.half_b))
    control = None
    if len(pairs) > 2:
        everybody = np.ones((1, group.sides[2].num_subjects))
        control = float(np.abs(pairs[0].mean(plan.real[:1]) - pairs[2].mean(everybody))[0])
    return {"images.ms_ssim": Draws(bootstrap, halves, control)}


def _draw_pairs(side: _Side, size: int, rng: np.random.Generator) -> _Pairs:
    """At most `MAX_PAIRS` pairs of images of two subjects, without repetition."""
    count = len(side.images)
    first, second = np.triu_indices(count, 1)
    is_fair = side.subject[first] != side.subject[second]
    first, second = first[is_fair], second[is_fair]
    chosen = rng.permutation(len(first))[:MAX_PAIRS]
    first, second = first[chosen], second[chosen]
    images = np.stack([resample(image, size) for image in side.images])
    return _Pairs(side.subject[first], side.subject[second], ms_ssim(images, first, second))


def _with_ones(values: Floats) -> Floats:
    return np.column_stack([values, np.ones(len(values))])


def _moments(images: Pixels) -> Floats:
    """Each pixel, its square, and 1; on a grid of at most 32, where the noise of single pixels has averaged out."""
    size = min(images.shape[-1], 32)
    flat = np.stack([resample(image, size) for image in images]).reshape(len(images), -1).astype(np.float64)
    return np.column_stack([flat, flat**2, np.ones(len(flat))])


def _spectrum_distance(first: Sums, second: Sums) -> Floats:
    means = [side[:, :-1] / np.maximum(side[:, -1:], 1) for side in (first, second)]
    return np.asarray(np.abs(means[0] - means[1]).mean(axis=1))


def _diversity_distance(first: Sums, second: Sums) -> Floats:
    return np.asarray(np.abs(np.log(_variance(second) / _variance(first))))


def _variance(sums: Sums) -> Floats:
    """Mean variance of a pixel between images, (draws,); a millionth of the range squared stands for none."""
    num_pixels = (sums.shape[1] - 1) // 2
    mean = sums[:, :num_pixels] / np.maximum(sums[:, -1:], 1)
    square = sums[:, num_pixels:-1] / np.maximum(sums[:, -1:], 1)
    return np.asarray(np.maximum((square - mean**2).mean(axis=1), 1e-6))
