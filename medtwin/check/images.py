"""Images by intensity, spectrum and diversity, per modality and view; copies of training images by correlation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medtwin.check.findings import CopyRow, Distribution, ImageGroup, Measure
from medtwin.check.marginals import total_cdf, wasserstein
from medtwin.check.resample import Draws, Plan, Sums, average, compare, make_plan
from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.images import ImageRow, table_to_images
from medtwin.core.seeds import generator

NUM_BINS = 128
MAX_IMAGES = 1500
"""Series read of each side, a random choice above: the cost is in reading them, and the numbers are steady by then."""
MAX_SIZE = 128
MIN_IMAGES = 20
"""Images of a modality and view, on both sides, below which the group is not compared."""
CLOSER = 0.5
QUANTILE = 0.01
"""A copy is closer to a training image than `CLOSER` times the distance that 99 % of real images keep from those of
other subjects. Not all: one patient who stands in the data under two names must not lift the limit for everybody."""
NUM_HALVES = 5
TITLES = {
    "images.intensity": "Intensity: Wasserstein distance, in shares of the stored range",
    "images.spectrum": "Sharpness and texture: mean distance of log10 radial power",
    "images.diversity": "Diversity: absolute log ratio of the variance between images",
}

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """One series of a dataset.

    Attributes:
        pixels: Its middle image, 0 to 1 over the stored range, (size, size), averaged down to at most `MAX_SIZE`.
        digest: Of the pixels as they stand. size: The smaller of rows and columns as they stand.
    """

    subject_id: int
    group: str
    pixels: Pixels
    digest: bytes
    size: int


def read_pictures(
    dataset: Dataset, splits: Sequence[str], *, seed: int, max_images: int = MAX_IMAGES
) -> Iterator[Picture]:
    """The pictures of the subjects of some splits; at most `max_images`, chosen by the seed."""
    chosen = set(splits)
    split_of = dataset.subject_splits()
    rows = [row for row in table_to_images(dataset.images()) if split_of.get(row.subject_id, "data") in chosen]
    if len(rows) > max_images:
        kept = np.sort(generator(seed, "check", "images").permutation(len(rows))[:max_images])
        rows = [rows[i] for i in kept]
    for row in rows:
        yield read_picture(dataset, row)


def group_of(row: ImageRow) -> str:
    """Modality and view, as in `CR PA`."""
    return f"{row.modality} {row.view}" if row.view else row.modality


def read_picture(dataset: Dataset, row: ImageRow) -> Picture:
    """The middle image of a series.

    Raises:
        DatasetError: If the series has no images or its pixels cannot be read.
    """
    from medtwin.core.errors import SourceError
    from medtwin.dicom import open_series

    try:
        series = open_series(dataset.path / row.path)
        volume = series.pixels(invert_monochrome1=True)
    except SourceError as error:
        raise DatasetError(f"{dataset.path}: {row.path} cannot be read: {error}") from error
    pixels = volume[len(volume) // 2]
    instance = series.instances[len(volume) // 2]
    low, high = (bound * instance.slope + instance.intercept for bound in instance.pixel.stored_range)
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes() + repr(pixels.shape).encode(), digest_size=16)
    unit = ((pixels - low) / (high - low)).astype(np.float32)
    size = min(pixels.shape)
    return Picture(row.subject_id, group_of(row), resample(unit, min(size, MAX_SIZE)), digest.digest(), size)


def resample(image: Pixels, size: int) -> Pixels:
    """The image at (size, size); each pixel is the mean of the area that it covers, so that nothing aliases."""
    from PIL import Image

    if image.shape == (size, size):
        return image
    enlarges = size > min(image.shape)
    how = Image.Resampling.BILINEAR if enlarges else Image.Resampling.BOX
    return np.asarray(Image.fromarray(image).resize((size, size), how), np.float32)


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


@dataclass(frozen=True)
class _Side:
    """The images of one group on one side, (images, size, size), and whose they are."""

    images: Pixels
    subject: NDArray[np.int64]
    num_subjects: int

    @staticmethod
    def of(pictures: Sequence[Picture], size: int) -> _Side:
        images = np.stack([resample(one.pixels, size) for one in pictures])
        subjects, subject = np.unique([one.subject_id for one in pictures], return_inverse=True)
        return _Side(images, subject, len(subjects))

    def by_subject(self, per_image: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sums over the images of each subject, (subjects, numbers)."""
        member = sparse.csr_array(
            (np.ones(len(self.subject)), (self.subject, np.arange(len(self.subject)))),
            shape=(self.num_subjects, len(self.subject)),
        )
        return np.asarray(member @ per_image, np.float64)


def image_measures(
    real: Sequence[Picture], synthetic: Sequence[Picture], control: Sequence[Picture], *, seed: int, num_resamples: int
) -> tuple[list[Measure], list[ImageGroup], list[CopyRow]]:
    """The measures of images over all groups, a row per group, and the copies."""
    groups: list[ImageGroup] = []
    draws: list[tuple[Plan, Draws, Draws, Draws]] = []
    names = sorted({one.group for one in synthetic})
    for name in names:
        sides = [[one for one in side if one.group == name] for side in (real, synthetic, control)]
        if min(len(sides[0]), len(sides[1])) >= MIN_IMAGES and len({one.subject_id for one in sides[0]}) >= 4:
            group, drawn = _compare_group(name, sides, seed, num_resamples)
            groups.append(group)
            draws.append(drawn)
    if not groups:
        reason = f"no modality and view has {MIN_IMAGES} images on both sides"
        if not real or not synthetic:
            reason = f"the {'twins' if not synthetic else 'real subjects'} have no images"
        copies = _copies(real, synthetic, control, seed) if synthetic else []
        return unmeasured(reason, has_images=bool(synthetic)), [], copies
    weights = [float(group.num_synthetic) for group in groups]
    measures = []
    for number, (name, title) in enumerate(TITLES.items(), start=1):
        scaled = [_scaled(drawn[0], drawn[number]) for drawn in draws]  # type: ignore[arg-type]
        estimate = average(scaled, weights).estimate(draws[0][0], power=0)
        measures.append(Measure(name, title, estimate, int(sum(weights))))
    return measures, groups, _copies(real, synthetic, control, seed)


def unmeasured(reason: str, *, has_images: bool) -> list[Measure]:
    """The measures of images without an estimate; not applicable where the twins have none."""
    return [Measure(name, title, None, 0, "lower", reason, has_images) for name, title in TITLES.items()]


def _scaled(plan: Plan, drawn: Draws) -> Draws:
    """The draws at the actual sample sizes, which differ between groups: scaled before they are averaged."""
    control = None
    if drawn.control is not None and plan.control_scale is not None:
        control = drawn.control * plan.control_scale
    return Draws(drawn.bootstrap, drawn.halves * plan.half_scale, control)


def _compare_group(
    name: str, sides: list[list[Picture]], seed: int, num_resamples: int
) -> tuple[ImageGroup, tuple[Plan, Draws, Draws, Draws]]:
    size = int(min(min(one.size for one in side) for side in sides[:2]))
    size = min(size, MAX_SIZE)
    groups = [_Side.of(side, size) for side in sides if side]
    numbers = [side.num_subjects for side in groups] + ([0] if len(groups) < 3 else [])
    plan = make_plan(*numbers, seed=seed, num_resamples=num_resamples, purpose=f"images {name}")
    support = np.linspace(0, 1, NUM_BINS)
    histograms = [sparse.csr_array(side.by_subject(_histogram(side.images))) for side in groups]
    spectra = [side.by_subject(_with_ones(radial_power(side.images))) for side in groups]
    moments = [side.by_subject(_moments(side.images)) for side in groups]
    intensity = compare(plan, *_three(histograms), wasserstein(support, 1.0))
    spectrum = compare(plan, *_three(spectra), _spectrum_distance)
    diversity = compare(plan, *_three(moments), _diversity_distance)
    power = [side.sum(axis=0)[:-1] / side.sum(axis=0)[-1] for side in spectra[:2]]
    group = ImageGroup(
        name,
        len(sides[0]),
        len(sides[1]),
        size,
        intensity.estimate(plan),
        spectrum.estimate(plan),
        diversity.estimate(plan),
        Distribution(
            name, "share of the stored range", support.tolist(), *total_cdf(plan, histograms[0], histograms[1])
        ),
        list(range(1, size // 2)),
        power[0].tolist(),
        power[1].tolist(),
    )
    return group, (plan, intensity, spectrum, diversity)


def _three(features: list[NDArray[np.float64]] | list[sparse.csr_array]) -> tuple[object, object, object]:
    return features[0], features[1], features[2] if len(features) > 2 else None


def _histogram(images: Pixels) -> Floats:
    bins = np.clip(np.rint(images.reshape(len(images), -1) * (NUM_BINS - 1)), 0, NUM_BINS - 1).astype(np.int64)
    offset = np.arange(len(images))[:, None] * NUM_BINS
    counts = np.bincount((bins + offset).ravel(), minlength=len(images) * NUM_BINS)
    return np.asarray(counts.reshape(len(images), NUM_BINS), np.float64)


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


def _copies(
    real: Sequence[Picture], synthetic: Sequence[Picture], control: Sequence[Picture], seed: int
) -> list[CopyRow]:
    """Synthetic images closer to a training image than real images of different subjects are to each other."""
    near: list[Floats] = []
    ordinary: list[Floats] = []
    for name in sorted({one.group for one in synthetic} & {one.group for one in real}):
        sides = [[one for one in side if one.group == name] for side in (real, synthetic, control)]
        if len({one.subject_id for one in sides[0]}) < 4:
            continue
        size = min(64, *(one.size for side in sides for one in side))
        arrays = _residuals(sides, size)
        near.append(_smallest_distance(arrays[1], arrays[0]))
        ordinary.append(_ordinary_distances(sides[0], arrays[0], seed))
        if len(arrays[2]):
            ordinary.append(_smallest_distance(arrays[2], arrays[0]))
    digests = {one.digest for one in real}
    exact = sum(one.digest in digests for one in synthetic)
    distances = np.concatenate(near) if near else np.zeros(0)
    reference = np.concatenate(ordinary) if ordinary else np.zeros(0)
    limit = CLOSER * float(np.quantile(reference, QUANTILE)) if len(reference) else 0.0
    num_copies = max(int(np.sum(distances < limit)), exact)
    return [
        CopyRow(
            "copies.images",
            "Images nearer to a training image than real images of two subjects ever are",
            limit,
            num_copies,
            len(synthetic),
            num_copies / max(len(synthetic), 1),
            float(np.mean(reference < limit)) if len(reference) else 0.0,
            f"1 - correlation with the nearest, the mean image taken away; {exact} are equal to the pixel",
        ),
        CopyRow(
            "duplicates.images",
            "Images equal to another synthetic image to the pixel",
            1.0,
            _num_repeated(synthetic),
            len(synthetic),
            _num_repeated(synthetic) / max(len(synthetic), 1),
            _num_repeated(real) / max(len(real), 1),
        ),
    ]


def _num_repeated(pictures: Iterable[Picture]) -> int:
    _, count = np.unique([one.digest for one in pictures], return_counts=True)
    return int(count[count > 1].sum())


def _residuals(sides: list[list[Picture]], size: int) -> list[Pixels]:
    """Images less the mean training image, each of mean 0 and length 1, (images, pixels)."""
    flat = [
        np.stack([resample(one.pixels, size) for one in side]).reshape(len(side), -1)
        if side
        else np.zeros((0, size * size), np.float32)
        for side in sides
    ]
    mean = flat[0].mean(axis=0)
    found = []
    for images in flat:
        rest = images - mean
        rest = rest - rest.mean(axis=1, keepdims=True)
        found.append(rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-9))
    return found


def _smallest_distance(of: Pixels, among: Pixels) -> Floats:
    """1 - correlation with the nearest of the others, (images,)."""
    blocks = [1 - (of[start : start + 256] @ among.T).max(axis=1) for start in range(0, len(of), 256)]
    return np.concatenate(blocks).astype(np.float64) if blocks else np.zeros(0)


def _ordinary_distances(pictures: list[Picture], arrays: Pixels, seed: int) -> Floats:
    """Distances from one half of the real subjects' images to the other half's."""
    subjects, subject = np.unique([one.subject_id for one in pictures], return_inverse=True)
    rng = generator(seed, "check", "image copies")
    found = []
    for _ in range(NUM_HALVES):
        chosen = (rng.permutation(len(subjects)) < len(subjects) // 2)[subject]
        found.append(_smallest_distance(arrays[chosen], arrays[~chosen]))
    return np.concatenate(found)
