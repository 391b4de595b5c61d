"""What an image is drawn under: its conditions as numbers, each known or missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtwin.core.images import ImageRow

CONDITIONS = ("modality", "body_part", "view", "sex", "findings", "age", "spacing", "latent")
"""In the order of `ConditionSpec.widths`; each is dropped in training by itself, so that any subset may be given."""

_AGE_WIDTH = 3
Array = NDArray[np.float32]


@dataclass(frozen=True)
class ScanRequest:
    """An image to draw; what is None is left to the model.

    Attributes:
        key: Names the image: with the seed it decides the noise. Unique within a dataset.
        modality: DICOM modality. body_part, view: Terms of the standard.
        sex: M, F, O. age_years: At imaging.
        labels: Findings as `SYSTEM//code`; empty: none found; None: not said.
        latent: Of the patient, (latent_width,).
        spacing_mm: Row and column, of an image of the size that the model makes.
    """

    key: str
    modality: str
    body_part: str | None = None
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    labels: tuple[str, ...] | None = None
    latent: Array | None = None
    spacing_mm: tuple[float, float] | None = None


class Encoded(NamedTuple):
    """Conditions of n images as numbers.

    Attributes:
        values: (n, sum of widths), 0 where missing.
        known: (n, number of CONDITIONS), 1 or 0.
    """

    values: Array
    known: Array


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a number over the training images; a constant has deviation 1.

    >>> Scale.fit([2.0, 4.0])(5.0), Scale.fit([])(5.0)
    (2.0, 5.0)
    """

    mean: float
    deviation: float

    @classmethod
    def fit(cls, numbers: Iterable[float]) -> Scale:
        """From the known values; mean 0 and deviation 1 where there are none."""
        known = np.fromiter(numbers, dtype=np.float64)
        if not len(known):
            return cls(0.0, 1.0)
        deviation = float(known.std())
        return cls(float(known.mean()), deviation if deviation > 1e-6 else 1.0)

    def __call__(self, number: float) -> float:
        """Its distance from the mean in deviations."""
        return (number - self.mean) / self.deviation


@dataclass(frozen=True)
class ConditionSpec:
    """The conditions that a model has learned, fitted on the training images alone.

    A category that is not in its vocabulary is missing, not an error. Findings that are not in the vocabulary are left
    out; labels of which none is in it are missing, since "none found" would be false.

    Attributes:
        modalities, body_parts, views, sexes, findings: Vocabularies, sorted.
        learned: Pairs of modality and body part (None: not stated) among the training images.
        age: Of the age in years. log_spacing: Of the natural logarithm of the mean spacing in mm.
        latent_width: Numbers of a patient latent; 0: none.
    """

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    views: tuple[str, ...]
    sexes: tuple[str, ...]
    findings: tuple[str, ...]
    learned: tuple[tuple[str, str | None], ...]
    age: Scale
    log_spacing: Scale
    latent_width: int

    @classmethod
    def fit(cls, images: Sequence[ScanRequest], *, min_count: int) -> ConditionSpec:
        """From the training images; a category or finding of fewer than `min_count` images is left out.

        Raises:
            ValueError: If there are no images, min_count is below 1, or the latents differ in width.
        """
        if not images or min_count < 1:
            raise ValueError("there must be training images, and min_count must be 1 or more")
        widths = {len(image.latent) for image in images if image.latent is not None}
        if len(widths) > 1:
            raise ValueError(f"all latents must have one width, got {sorted(widths)}")

        def vocabulary(names: Iterable[str | None]) -> tuple[str, ...]:
            counts = Counter(name for name in names if name is not None)
            return tuple(sorted(name for name, count in counts.items() if count >= min_count))

        pairs = Counter((image.modality, image.body_part) for image in images)
        return cls(
            modalities=vocabulary(image.modality for image in images),
            body_parts=vocabulary(image.body_part for image in images),
            views=vocabulary(image.view for image in images),
            sexes=vocabulary(image.sex for image in images),
            findings=vocabulary(code for image in images for code in sorted(set(image.labels or ()))),
            learned=tuple(sorted((p for p, n in pairs.items() if n >= min_count), key=lambda p: (p[0], p[1] or ""))),
            age=Scale.fit(image.age_years for image in images if image.age_years is not None),
            log_spacing=Scale.fit(_log(image.spacing_mm) for image in images if image.spacing_mm is not None),
            latent_width=widths.pop() if widths else 0,
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of each condition, in the order of CONDITIONS."""
        vocabularies = (self.modalities, self.body_parts, self.views, self.sexes, self.findings)
        return (*(len(v) for v in vocabularies), _AGE_WIDTH, 1, self.latent_width)

    def knows(self, modality: str, body_part: str | None) -> bool:
        """Whether such images were among the training images; any body part where None is asked for."""
        if body_part is None:
            return modality in self.modalities
        return (modality, body_part) in self.learned

    def encode(self, requests: Sequence[ScanRequest]) -> Encoded:
        """The conditions as numbers.

        Raises:
            ValueError: If a latent has another width than those of the training images.
        """
        encoded = [self._encode_one(request) for request in requests]
        values = np.zeros((len(encoded), sum(self.widths)), np.float32)
        known = np.zeros((len(encoded), len(CONDITIONS)), np.float32)
        starts = np.cumsum([0, *self.widths])
        for row, parts in enumerate(encoded):
            for index, part in enumerate(parts):
                if part is not None:
                    values[row, starts[index] : starts[index + 1]] = part
                    known[row, index] = 1.0
        return Encoded(values, known)

    def _encode_one(self, request: ScanRequest) -> tuple[Sequence[float] | Array | None, ...]:
        latent = request.latent
        if latent is not None and self.latent_width and len(latent) != self.latent_width:
            raise ValueError(f"the latent of a request must have {self.latent_width} numbers, got {len(latent)}")
        return (
            _one_hot(request.modality, self.modalities),
            _one_hot(request.body_part, self.body_parts),
            _one_hot(request.view, self.views),
            _one_hot(request.sex, self.sexes),
            self._findings(request.labels),
            None if request.age_years is None else _smooth(self.age(request.age_years)),
            None if request.spacing_mm is None else [self.log_spacing(_log(request.spacing_mm))],
            latent if self.latent_width else None,
        )

    def _findings(self, labels: tuple[str, ...] | None) -> list[float] | None:
        if labels is None or (labels and not set(labels) & set(self.findings)):
            return None
        return [float(code in labels) for code in self.findings]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ConditionSpec:
        """The inverse of `to_json`, also after a round trip through a file."""
        names = ("modalities", "body_parts", "views", "sexes", "findings")
        return cls(
            **{name: tuple(value[name]) for name in names},
            learned=tuple((modality, body_part) for modality, body_part in value["learned"]),
            age=Scale(**value["age"]),
            log_spacing=Scale(**value["log_spacing"]),
            latent_width=value["latent_width"],
        )


def row_to_request(row: ImageRow, spacing_mm: tuple[float, float] | None, latent: Array | None = None) -> ScanRequest:
    """The conditions of an image that exists; `spacing_mm` is that after resizing."""
    return ScanRequest(
        key=row.series_uid,
        modality=row.modality,
        body_part=row.body_part,
        view=row.view,
        sex=row.sex,
        age_years=row.age_years,
        labels=None if row.labels is None else tuple(row.labels),
        latent=latent,
        spacing_mm=spacing_mm,
    )


def _log(spacing_mm: tuple[float, float]) -> float:
    return 0.5 * (math.log(spacing_mm[0]) + math.log(spacing_mm[1]))


def _one_hot(name: str | None, vocabulary: tuple[str, ...]) -> list[float] | None:
    return [float(name == word) for word in vocabulary] if name in vocabulary else None


def _smooth(number: float) -> list[float]:
    """A number as a smooth basis: itself, and one sine and cosine over about four deviations."""
    return [number, math.sin(1.5 * number), math.cos(1.5 * number)]
