"""Twins between two persons: z and the roots go from one to the other, under the same noise.

z moves on the great circle between both, its length from the one's to the other's: in many dimensions the line between
two draws of N(0, I) leads through the middle, where next to no z lies (White 2016, arXiv 1609.04468). Age and start
move on the line; sex and static facts, which have no middle, change half-way. What follows from the roots, and every
event, is decided by numbers that all twins share: they differ by who they are and not by chance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.timelines.generation.generate import Timeline, timelines_of
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.tile import MaskedMass, Tile, TimelineModel
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.profile import ProfileLaw
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.steering.steer import posteriors, run, subject_keys

Latent = NDArray[np.float32]
_STRAIGHT = 1e-3  # radians: nearer than that the circle is a line, and opposite points have no one circle


def great_circle(first: Latent, last: Latent, part: float) -> Latent:
    """z, (latent,), at a part from 0 to 1 of the way; its length moves on the line between both lengths.

    >>> [round(float(x), 3) for x in great_circle(np.array([1.0, 0.0]), np.array([0.0, 3.0]), 0.5)]
    [1.414, 1.414]
    """
    lengths = np.linalg.norm(first), np.linalg.norm(last)
    if not len(first) or min(lengths) == 0:
        return np.asarray(first + part * (last - first), dtype=np.float32)
    one, other = first / lengths[0], last / lengths[1]
    angle = float(np.arccos(np.clip(one @ other, -1.0, 1.0)))
    if min(angle, np.pi - angle) < _STRAIGHT:
        return np.asarray(first + part * (last - first), dtype=np.float32)
    turned = (np.sin((1 - part) * angle) * one + np.sin(part * angle) * other) / np.sin(angle)
    return np.asarray(((1 - part) * lengths[0] + part * lengths[1]) * turned, dtype=np.float32)


def between(
    model: TimelineModel, records: Sequences, *, num: int, seed: int, mass: MaskedMass | None = None
) -> tuple[list[float], list[Timeline]]:
    """Twins on the way from one record to another, the ends included: parts of the way, and timelines, (num,) each.

    The ends are not the records themselves: they have their roots and the mean of their z, and noise of their own.

    Args:
        model: The model.
        records: Two.
        num: How many twins, 2 or more.
        seed: Decides the noise that they share.
        mass: Counts the masked probability.

    Raises:
        ConfigError: If `num` is below 2.
    """
    if num < 2:
        raise ConfigError(f"twin.n must be 2 or more with twin.between, got {num!r}")
    parts = np.linspace(0.0, 1.0, num).tolist()
    one, other = records.attributes()
    means = posteriors(model, records)[0]
    latent = np.stack([great_circle(means[0], means[1], part) for part in parts])
    law = model.spec.profile
    roots = [_root(law, one, other, part) for part in parts]
    ids: list[int] = np.asarray(records.subject_id).tolist()
    uniforms = generator(seed, "between", "attributes", *ids).random((1, law.num_uniforms))
    attributes = [law.draw(uniforms, [root])[0] for root in roots]
    key = subject_keys(seed, "between", [generator(seed, "between", *ids).integers(2**62).item()])
    tile = Tile(attributes, latent, Noise(np.repeat(key, num)), num)
    return parts, timelines_of(run(model, tile, mass or MaskedMass()), attributes, latent)


def _root(law: ProfileLaw, one: Attributes, other: Attributes, part: float) -> Attributes:
    nearer = one if part < 0.5 else other
    if part in (0.0, 1.0):
        return nearer
    age = (1 - part) * one.age_start_years + part * other.age_start_years
    if np.isnan(age):
        age = nearer.age_start_years
    start = round((1 - part) * one.start_minute + part * other.start_minute)
    return replace(nearer, age_start_years=age, start_minute=start)


__all__ = ["between", "great_circle"]
