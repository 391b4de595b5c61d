"""What is inferred of a known record, so that it can be steered: its z, the noise behind its attributes and events.

Every decision of the model is the inverse of a distribution function at a uniform number. Given z, the numbers that
make the model say a known record are drawn from their law given the record (abduction; Pearl 2009, section 7.1). z
itself is a draw from the encoder's posterior, not its mean: draws are what the decoder was trained with, and the means
of many records vary less than z does. Both give the record back, since the noise is inferred after z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator, purpose_key
from medtwin.timelines.generation.generate import STATIC, Timeline
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.sampler import Sampler
from medtwin.timelines.generation.tile import Drawn, MaskedMass, ScaleTable, Tile, TimelineModel
from medtwin.timelines.reading.attributes import MINUTES_PER_YEAR, Attributes
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.sequences import Sequences
from medtwin.training.threads import torch_threads

FAR = 9.0
"""A normal score beyond all others: what it stands for is the end of what the law of training subjects reaches."""

Ints = NDArray[np.int64]
Latents = NDArray[np.float32]


@dataclass(frozen=True)
class Abducted:
    """What lies behind S known records.

    Attributes:
        attributes: (S,) as the records say.
        latent: (S, latent).
        uniforms: (S, num_uniforms) behind the attributes.
        noise: Behind every decision, settled.
    """

    attributes: Sequence[Attributes]
    latent: Latents
    uniforms: NDArray[np.float64]
    noise: Noise


def posteriors(model: TimelineModel, records: Sequences) -> tuple[Latents, Latents]:
    """Means and log variances of q(z | record), (S, latent) each; every record is read alone."""
    means, log_vars = np.zeros((2, len(records), model.net.latent_dim), dtype=np.float32)
    with torch.inference_mode(), torch_threads(1):
        for row in range(len(records)):
            found = model.net.encode(collate(records.take(np.array([row])), model.spec.gaps))
            means[row], log_vars[row] = found.mean[0].numpy(), found.log_var[0].numpy()
    return means, log_vars


def draw_latents(model: TimelineModel, records: Sequences, seed: int, purpose: str) -> Latents:
    """Draws of z, (S, latent), from the posteriors; each depends on seed, purpose, subject and record only."""
    means, log_vars = posteriors(model, records)
    noise = [
        generator(seed, purpose, "latent", int(subject)).standard_normal(means.shape[1]) for subject in _ids(records)
    ]
    z = means + np.exp(0.5 * log_vars) * np.array(noise).reshape(means.shape)
    return np.asarray(z, dtype=np.float32)


def subject_keys(seed: int, purpose: str, subjects: Sequence[int]) -> NDArray[np.uint64]:
    """(S,) keys of the noise of known subjects."""
    words = [purpose_key(seed, purpose, "timeline", subject) for subject in subjects]
    return np.array([(high << 32 | low) & (2**64 - 1) for high, low, *_ in words], dtype=np.uint64)


def abduct(model: TimelineModel, records: Sequences, seed: int) -> Abducted:
    """What lies behind known records, given the model.

    Args:
        model: The model.
        records: One tile of subjects: those that are together decide on the last digits of each other.
        seed: Decides what the records leave open.
    """
    attributes, latent = records.attributes(), draw_latents(model, records, seed, "abduction")
    rngs = [generator(seed, "abduction", "attributes", subject) for subject in _ids(records)]
    uniforms = [model.spec.profile.abduct([one], rng)[0] for one, rng in zip(attributes, rngs, strict=True)]
    noise = Noise(subject_keys(seed, "abduction", _ids(records)))
    tile = Tile(attributes, latent, noise, len(records), records, records.num_steps)
    run(model, tile, MaskedMass())
    noise.settle()
    return Abducted(attributes, latent, np.array(uniforms), noise)


def run(model: TimelineModel, tile: Tile, mass: MaskedMass) -> Drawn:
    """Draws or follows the records of a tile, the same on any number of cores."""
    with torch.inference_mode(), torch_threads(1):
        return Sampler(model, tile, mass).run()


def known_timelines(model: TimelineModel, records: Sequences) -> list[Timeline]:
    """Known records as timelines, (S,): what a faithful replay gives back. z is left at 0."""
    token, scaled = np.asarray(records.token, np.int64), np.asarray(records.value, np.float64)
    values = np.where(records.has_value, ScaleTable(model.spec.scales).decode(token, scaled)[0], np.nan)
    step, subject = records.step_of_event(), records.subject_of_step()
    number = step - records.step_offsets[:-1][subject[step]]
    minutes = np.where(number == 0, STATIC, records.minute[step])
    bounds = records.event_offsets[records.step_offsets]
    latent = np.zeros(model.net.latent_dim, dtype=np.float32)
    return [
        Timeline(
            row,
            one,
            latent,
            records.token[first:last].tolist(),
            minutes[first:last].tolist(),
            number[first:last].tolist(),
            values[first:last].tolist(),
            bool(records.is_cut[row]),
        )
        for row, (one, first, last) in enumerate(zip(records.attributes(), bounds[:-1], bounds[1:], strict=True))
    ]


def num_same(known: Timeline, replayed: Timeline) -> int:
    """How many events both records have alike at the same place: step, token, time and number."""
    columns = ("steps", "tokens", "minutes")
    size = min(len(known.tokens), len(replayed.tokens))
    same = np.ones(size, dtype=bool)
    for name in columns:
        same &= np.array(getattr(known, name)[:size]) == np.array(getattr(replayed, name)[:size])
    one, other = (np.array(each.values[:size], dtype=np.float64) for each in (known, replayed))
    same &= np.isclose(one, other, rtol=1e-6, atol=1e-9, equal_nan=True)  # a float32 column holds no more digits
    return int(same.sum())


def is_same(known: Timeline, replayed: Timeline) -> bool:
    """Whether a replay gives a known record back whole; of one that was cut, as far as it is known."""
    return num_same(known, replayed) == len(known.tokens) and (
        known.is_cut or len(replayed.tokens) == len(known.tokens)
    )


def outside_support(model: TimelineModel, attributes: Attributes) -> list[str]:
    """Which attributes no training subject is near to: some of `age`, `window` and `facts`.

    `facts` stands for a fact that no training subject of this sex has, or none of an age that the record comes to.
    """
    law = model.spec.profile
    found = []
    age = attributes.age_start_years
    youngest, oldest = law.ages.value(np.array([-FAR, FAR]))
    if age == age and not youngest <= age <= oldest:
        found.append("age")
    if attributes.window_minutes > law.windows.value(np.array([FAR]))[0]:
        found.append("window")
    if any(not _fits(model, attributes, int(fact)) for fact in np.flatnonzero(attributes.facts)):
        found.append("facts")
    return found


def _fits(model: TimelineModel, one: Attributes, fact: int) -> bool:
    """Whether training subjects of a person's sex have a fact, and some at an age that the record comes to."""
    spec = model.spec
    tokens = np.flatnonzero(spec.fact_of == fact)
    if not spec.sex_counts[tokens, one.sex].any():
        return False
    ages = spec.age_range[tokens]
    ages = ages[np.isfinite(ages[:, 0])]
    if not len(ages) or not np.isfinite(one.age_start_years):
        return True
    oldest = one.age_start_years + one.window_minutes / MINUTES_PER_YEAR
    return bool(ages[:, 0].min() <= oldest and one.age_start_years <= ages[:, 1].max())


def one_age(value: float, name: str) -> float:
    """An age in years.

    Raises:
        ConfigError: Naming the setting, if nobody is so old.
    """
    if not 0 <= value <= 120:
        raise ConfigError(f"{name} must be an age from 0 to 120 years, got {value!r}")
    return float(value)


def _ids(records: Sequences) -> list[int]:
    ids: list[int] = np.asarray(records.subject_id).tolist()
    return ids


__all__ = [
    "Abducted",
    "abduct",
    "draw_latents",
    "is_same",
    "known_timelines",
    "num_same",
    "outside_support",
    "posteriors",
    "run",
    "subject_keys",
]
