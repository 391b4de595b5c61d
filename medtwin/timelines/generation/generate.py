"""New timelines from a trained temporal VAE: fixed tiles of subjects, noise of each subject's own.

Subject *i* depends on (seed, i) only: its latent, attributes and every uniform number come from its own generators, and
it stands in the same row of the same tile whatever else is generated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator, purpose_key
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.plans import Plan, Target
from medtwin.timelines.generation.sampler import Sampler
from medtwin.timelines.generation.tile import Drawn, MaskedMass, Tile, TimelineModel
from medtwin.timelines.priors import NormalPrior, Prior
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.profile import ProfileLaw
from medtwin.timelines.reading.spec import TimelineSpec
from medtwin.training.threads import torch_threads

TILE = 256
"""Subjects that are generated together. Part of what a seed means: another tile gives other last digits."""

STATIC = -(2**62)
"""The time of a static fact."""

_MOST_CANDIDATES = 100_000  # among whom attributes that meet the targets are looked for
_CANDIDATES, _LARGEST = 64, 4096  # at first, and at most at a time


@dataclass
class Timeline:
    """One generated timeline.

    Attributes:
        index: Number of the twin.
        attributes: As drawn.
        latent: (latent,) z.
        tokens: Of every event, in order. minutes: Its time (minutes since 1970), or `STATIC`.
        steps: Number of the step that it stands in; static facts are step 0.
        values: Its number in the unit of the source, or nan.
        is_cut: Whether the record was longer than the model's context, and ends early.
    """

    index: int
    attributes: Attributes
    latent: NDArray[np.float32]
    tokens: list[int] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    is_cut: bool = False


@dataclass(frozen=True)
class People:
    """Who is to be generated: one tile of subjects, of whom the first may be all that is wanted.

    Attributes:
        start: Number of the first subject. num_needed: Subjects that are wanted.
        uniforms: (TILE, num_uniforms) behind the attributes.
        attributes: (TILE,).
        latent: (TILE, latent).
        keys: (TILE,) of the noise.
        targets: (TILE,) what was asked of them.
    """

    start: int
    num_needed: int
    uniforms: NDArray[np.float64]
    attributes: Sequence[Attributes]
    latent: NDArray[np.float32]
    keys: NDArray[np.uint64]
    targets: Sequence[Target]


class DrawsPeople(Protocol):
    """What is asked of a model before its records: the temporal VAE's, or a baseline's."""

    @property
    def spec(self) -> TimelineSpec:
        """Of the run."""

    @property
    def latent_dim(self) -> int:
        """Numbers of z."""


def draw_people(
    model: DrawsPeople,
    start: int,
    num_needed: int,
    *,
    seed: int,
    plan: Plan | None = None,
    prior: Prior | None = None,
) -> People:
    """The subjects of one tile, before their records.

    Args:
        model: The model.
        start: Number of the first, a multiple of TILE.
        num_needed: How many of the tile are wanted, 1 to TILE.
        seed: Decides everything.
        plan: Whom to make; None: as the training subjects are.
        prior: What z is drawn from; None: N(0, I).

    Raises:
        ConfigError: If no attributes meet the targets, or a phenotype is asked for that the prior does not have.
        ValueError: If `start` is no multiple of TILE.
    """
    if start % TILE:
        raise ValueError(f"start must be a multiple of {TILE}, got {start!r}")
    plan = plan or Plan()
    law, numbers = model.spec.profile, range(start, start + TILE)
    group_of, targets = plan.of_twins(start + TILE)[start:], plan.targets(model.spec.profile)
    pairs = [
        draw_attributes(law, generator(seed, "attributes", index), targets[group])
        for index, group in zip(numbers, group_of, strict=True)
    ]
    attributes = [pair[1] for pair in pairs]
    latent = _latents(model, numbers, seed, [plan.groups[group].phenotype for group in group_of], prior)
    if isinstance(model, TimelineModel) and model.shift is not None:
        latent = model.shift.place(law, attributes, latent)
    return People(
        start=start,
        num_needed=num_needed,
        uniforms=np.stack([pair[0] for pair in pairs]),
        attributes=attributes,
        latent=latent,
        keys=noise_keys(seed, numbers),
        targets=[targets[group] for group in group_of],
    )


def _latents(
    model: DrawsPeople, numbers: Sequence[int], seed: int, phenotype: Sequence[int | None], prior: Prior | None
) -> NDArray[np.float32]:
    dim = model.latent_dim
    if prior is None and dim:
        prior = NormalPrior(dim)
    asked = set(phenotype)
    if prior is None:
        if asked != {None}:
            raise ConfigError("plan.phenotype must be null: the model has no latent")
        return np.zeros((len(numbers), 0), dtype=np.float32)
    if prior.dim != dim:
        raise ConfigError(f"the prior is one of {prior.dim} numbers, the model has {dim}: train again")
    latent = np.zeros((len(numbers), dim), dtype=np.float32)
    for component in sorted(asked, key=lambda each: -1 if each is None else each):
        rows = [row for row, each in enumerate(phenotype) if each == component]
        try:
            latent[rows] = prior.draw_many([generator(seed, "latent", numbers[row]) for row in rows], component)
        except ConfigError as error:
            raise ConfigError(f"plan.phenotype: {error}") from error
    return latent


def noise_keys(seed: int, numbers: Sequence[int]) -> NDArray[np.uint64]:
    """(n,) keys of the noise of subjects."""
    parts = [purpose_key(seed, "timeline", index) for index in numbers]
    return np.array([(high << 32 | low) & (2**64 - 1) for high, low, *_ in parts], dtype=np.uint64)


def draw_attributes(
    law: ProfileLaw, rng: np.random.Generator, target: Target
) -> tuple[NDArray[np.float64], Attributes]:
    """Attributes of a new subject that meet a target exactly in law, by rejection, and the numbers behind them.

    Args:
        law: Of attributes.
        rng: Of this subject alone.
        target: What they are to be.

    Raises:
        ConfigError: If next to nobody has it.
    """
    if target.is_open:
        uniforms = rng.random((1, law.num_uniforms))
        return uniforms[0], law.draw(uniforms)[0]
    tried, size = 0, _CANDIDATES
    while tried < _MOST_CANDIDATES:
        uniforms = rng.random((size, law.num_uniforms))
        for row, attributes in enumerate(law.draw(uniforms)):
            if target.is_met(attributes):
                return uniforms[row], attributes
        tried, size = tried + size, min(2 * size, _LARGEST)
    raise ConfigError(
        f"plan: nobody among {tried} drawn has all that was asked for; next to no training subject has: "
        "ask for less, or for a wider range"
    )


def generate_timelines(
    model: TimelineModel,
    *,
    num_subjects: int,
    seed: int,
    first: int = 0,
    mass: MaskedMass | None = None,
    plan: Plan | None = None,
    prior: Prior | None = None,
) -> Iterator[Timeline]:
    """Timelines of new subjects, in the order of their numbers.

    Args:
        model: The model.
        num_subjects: How many.
        seed: Decides everything; subject i depends on (seed, i) only.
        first: Number of the first subject, a multiple of TILE.
        mass: Counts the masked probability.
        plan: Whom to make; None: as the training subjects are.
        prior: What z is drawn from; None: N(0, I).

    Raises:
        ConfigError: If no attributes meet the targets.
        ValueError: If `first` is no multiple of TILE.
    """
    for start in range(first, first + num_subjects, TILE):
        needed = min(TILE, first + num_subjects - start)
        people = draw_people(model, start, needed, seed=seed, plan=plan, prior=prior)
        yield from run_tile(model, people, Noise(people.keys), mass or MaskedMass())


def run_tile(model: TimelineModel, people: People, noise: Noise, mass: MaskedMass) -> list[Timeline]:
    """The timelines of the subjects of a tile that are wanted, drawn with some noise."""
    tile = Tile(people.attributes, people.latent, noise, people.num_needed)
    with torch.inference_mode(), torch_threads(1):
        drawn = Sampler(model, tile, mass).run()
    wanted = people.attributes[: people.num_needed]
    return timelines_of(drawn, wanted, people.latent, first=people.start)


def timelines_of(
    drawn: Drawn, attributes: Sequence[Attributes], latent: NDArray[np.float32], first: int = 0
) -> list[Timeline]:
    """What was drawn of the first subjects of a tile, one by one.

    Args:
        drawn: Of the tile.
        attributes: Of those that are wanted.
        latent: Their z, (rows, latent), one row at least for each.
        first: Number of the first.
    """
    order = np.lexsort((np.arange(len(drawn.row)), drawn.row))
    bounds = np.searchsorted(drawn.row[order], np.arange(len(attributes) + 1))
    minute = np.where(drawn.step == 0, STATIC, drawn.minute)
    timelines = []
    for row, one in enumerate(attributes):
        mine = order[bounds[row] : bounds[row + 1]]
        timelines.append(
            Timeline(
                first + row,
                one,
                latent[row],
                drawn.token[mine].tolist(),
                minute[mine].tolist(),
                drawn.step[mine].tolist(),
                drawn.value[mine].tolist(),
                bool(drawn.is_cut[row]),
            )
        )
    return timelines


__all__ = [
    "STATIC",
    "TILE",
    "MaskedMass",
    "People",
    "Timeline",
    "TimelineModel",
    "draw_attributes",
    "draw_people",
    "generate_timelines",
    "noise_keys",
    "run_tile",
    "timelines_of",
]
