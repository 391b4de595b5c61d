"""The pixel spacing of an image that does not exist: one that the training images have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtwin.core.seeds import uniform_of
from medtwin.scans.conditions import ScanRequest

Spacing = tuple[float, float] | None
_DIGITS = 4  # of mm: 0.1 micrometre


@dataclass(frozen=True)
class SpacingTable:
    """Spacings of the training images at the size of the network, with their counts, by modality and body part.

    An image is drawn under a spacing and written with the same one. Where a request names none, it is drawn from
    those of its modality and body part (of the modality, where the part is not among them), unknown included: a
    model of images of unknown spacing does not invent one.

    Attributes:
        counts: By modality, then body part (`*`: all), pairs of spacing and count.
    """

    counts: Mapping[str, Mapping[str, tuple[tuple[Spacing, int], ...]]]

    @classmethod
    def fit(cls, images: Sequence[ScanRequest]) -> SpacingTable:
        """From the training images."""
        counters: dict[str, dict[str, Counter[Spacing]]] = {}
        for image in images:
            spacing = (
                None if image.spacing_mm is None else (_rounded(image.spacing_mm[0]), _rounded(image.spacing_mm[1]))
            )
            for part in {"*", image.body_part or "*"}:
                counters.setdefault(image.modality, {}).setdefault(part, Counter())[spacing] += 1
        return cls(
            {
                modality: {
                    part: tuple(sorted(counter.items(), key=lambda item: (item[0] is not None, item)))
                    for part, counter in sorted(parts.items())
                }
                for modality, parts in sorted(counters.items())
            }
        )

    def draw(self, request: ScanRequest, seed: int) -> Spacing:
        """The spacing that is asked for, else one drawn by (seed, key of the request)."""
        if request.spacing_mm is not None:
            return request.spacing_mm
        parts = self.counts.get(request.modality, {})
        choices = parts.get(request.body_part or "*") or parts.get("*") or ()
        place = uniform_of(seed, "spacing", request.key) * sum(count for _, count in choices)
        for spacing, count in choices:
            place -= count
            if place < 0:
                return spacing
        return None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            modality: {part: [[s, n] for s, n in choices] for part, choices in parts.items()}
            for modality, parts in self.counts.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SpacingTable:
        """The inverse of `to_json`, also after a round trip through a file."""
        return cls(
            {
                modality: {
                    part: tuple((None if s is None else (s[0], s[1]), n) for s, n in choices)
                    for part, choices in parts.items()
                }
                for modality, parts in value.items()
            }
        )


def _rounded(mm: float) -> float:
    return round(mm, _DIGITS)
