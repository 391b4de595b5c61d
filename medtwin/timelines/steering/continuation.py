"""Continuing a record: what is known of it stays as it is, and the model says how it might have gone on.

z is drawn from the posterior of the known beginning. Facts of the whole record and the window of observation are drawn
by the profile law given the roots and what the beginning says: a fact that it names holds, and the window reaches
beyond it. Of many candidates for the facts one is chosen by how likely it makes the beginning's facts and window
(sampling, importance, resampling: Rubin 1988); the window is then drawn from its law beyond the known time, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medtwin.core.codes import DEATH
from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.timelines.generation.generate import Timeline, timelines_of
from medtwin.timelines.generation.noise import Noise
from medtwin.timelines.generation.tile import MaskedMass, Tile, TimelineModel
from medtwin.timelines.heads import sample_categories, sample_mixture
from medtwin.timelines.priors.latents import named_so_far
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.gaps import MINUTES_PER_DAY
from medtwin.timelines.reading.profile import ProfileLaw
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.steering.steer import FAR, draw_latents, run, subject_keys

Ints = NDArray[np.int64]
_CANDIDATES = 128


@dataclass(frozen=True)
class Beginning:
    """Where known records are to be continued.

    Attributes:
        num_steps: (S,) steps that are kept, the one of static facts included.
        last_minute: (S,) minutes since 1970 up to which everything is kept.
        is_over: (S,) whether the record ended with death by then: there is nothing to continue.
    """

    num_steps: Ints
    last_minute: Ints
    is_over: NDArray[np.bool_]


def beginnings(
    model: TimelineModel, records: Sequences, *, days: float | None = None, steps: int | None = None
) -> Beginning:
    """Where S records are to be continued: after some days, or some dated steps.

    What is known of a record ends with its last step that is kept; the model decides anew when the next one is. A step
    at the same time as the last one is kept too.

    Args:
        model: The model.
        records: Known.
        days: From the start of each record.
        steps: Dated steps that are kept.

    Raises:
        ConfigError: If not exactly one of both is given, or it is out of range.
    """
    if (days is None) == (steps is None):
        raise ConfigError("twin.until (days) or twin.steps must be given, and not both")
    if days is not None and not 0 <= days <= 50_000:
        raise ConfigError(f"twin.until must be from 0 to 50000 days, got {days!r}")
    if steps is not None and steps < 1:
        raise ConfigError(f"twin.steps must be 1 or more, got {steps!r}")
    first, minute = np.asarray(records.step_offsets[:-1]), np.asarray(records.minute)
    if days is not None:
        last = np.asarray(records.start_minute) + round(days * MINUTES_PER_DAY)
    else:
        last = minute[first + np.minimum(int(steps or 0), records.num_steps - 1)]
    owner = records.subject_of_step()
    is_kept = minute <= last[owner]
    kept, over = np.zeros(len(records), dtype=np.int64), np.zeros(len(records), dtype=bool)
    np.add.at(kept, owner, is_kept)
    step = records.step_of_event()
    died = np.isin(np.asarray(records.token), model.spec.vocabulary.where([DEATH])) & is_kept[step]
    over[owner[step[died & (step > first[owner[step]])]]] = True
    return Beginning(kept, last, over)


def continue_records(
    model: TimelineModel, records: Sequences, beginning: Beginning, *, seed: int, mass: MaskedMass | None = None
) -> list[Timeline]:
    """How S records might have gone on, one timeline each: the steps after those that are kept, numbered on.

    Args:
        model: The model.
        records: Known. One tile: those that are together decide on the last digits of each other.
        beginning: Where they are continued.
        seed: Decides everything; what is drawn of a record depends on seed, subject and beginning.
        mass: Counts the masked probability.
    """
    known = records.until(beginning.num_steps)
    elapsed = beginning.last_minute - np.asarray(records.start_minute)
    known = replace(known, window_minutes=np.maximum(elapsed, 0), is_cut=np.ones(len(known), dtype=bool))
    ids: list[int] = np.asarray(records.subject_id).tolist()
    named = named_so_far(model.spec, known)
    rngs = [generator(seed, "continuation", "attributes", subject) for subject in ids]
    attributes = [
        complete(model.spec.profile, one, facts, rng)
        for one, facts, rng in zip(known.attributes(), named, rngs, strict=True)
    ]
    latent = draw_latents(model, replace(known, facts=named), seed, "continuation")
    noise = Noise(subject_keys(seed, "continuation", ids))
    tile = Tile(attributes, latent, noise, len(known), known, beginning.num_steps)
    drawn = timelines_of(run(model, tile, mass or MaskedMass()), attributes, latent)
    return [_after(timeline, int(num)) for timeline, num in zip(drawn, beginning.num_steps, strict=True)]


def complete(law: ProfileLaw, known: Attributes, named: Sequence[int], rng: np.random.Generator) -> Attributes:
    """The attributes of a subject of whom a beginning is known.

    Args:
        law: Of attributes.
        known: Roots, and the minutes that are known as its window.
        named: (K,) 1 for facts that hold for certain.
        rng: Of this subject.
    """
    net, size = law.net, _CANDIDATES
    with torch.no_grad():
        sex = torch.full((size,), known.sex)
        holds = torch.tensor(np.asarray(named), dtype=torch.float64)
        static, certain = holds[torch.from_numpy(law.is_static)], holds[torch.from_numpy(~law.is_static)]
        aged = net.aged(
            net.first(sex, static.expand(size, -1)), torch.full((size,), known.age_start_years, dtype=torch.float64)
        )
        start = torch.full((size, 1), float(law.starts.score(np.array([known.start_minute], np.float64))[0]))
        roots = torch.cat([aged, start.double()], dim=-1)
        features = net.later_features(roots)
        later = torch.zeros(size, len(certain), dtype=torch.float64)
        uniforms = torch.from_numpy(rng.random((size, len(certain))))
        log_weight = torch.zeros(size, dtype=torch.float64)
        for index in range(len(certain)):
            logit = net.later_logit(features, later, index)
            if certain[index] > 0:
                later[:, index] = 1.0
                log_weight += functional.logsigmoid(logit)
            else:
                later[:, index] = (uniforms[:, index] < torch.sigmoid(logit)).double()
        logit, window = net.window_parameters(roots, later)
        drawn = np.zeros((size, law.num_facts))
        drawn[:, ~law.is_static] = later.numpy()
        dies = law.dies(drawn)
        low = torch.from_numpy(law.window_score(np.full(size, known.window_minutes, np.float64), dies))
        beyond = torch.log(_mass_beyond(window, low).clamp(min=1e-300))
        log_weight += torch.logaddexp(functional.logsigmoid(logit) + beyond, torch.tensor(-700.0, dtype=torch.float64))
        weights = torch.softmax(log_weight, dim=0)
        chosen = int(sample_categories(weights, torch.tensor(rng.random(), dtype=torch.float64)))
        bounds = low[chosen : chosen + 1], torch.tensor([FAR], dtype=torch.float64)
        pair = torch.from_numpy(rng.random((1, 2)))
        score = sample_mixture(window[chosen : chosen + 1], pair, *bounds)
    minutes = round(float(law.window_value(score.numpy(), dies[chosen : chosen + 1])[0]))
    facts = np.zeros(law.num_facts, dtype=np.int64)
    facts[law.is_static], facts[~law.is_static] = static.long().numpy(), later[chosen].long().numpy()
    # The law ends where the longest windows of training subjects do: a record that is known for longer goes on anyhow.
    return replace(known, window_minutes=max(minutes, known.window_minutes + 1), facts=tuple(facts.tolist()))


def _mass_beyond(parameters: Tensor, low: Tensor) -> Tensor:
    """Probability, (n,), of mixtures of normals, (n, 3K), beyond bounds (n,)."""
    logits, means, log_widths = parameters.double().chunk(3, dim=-1)
    part = torch.special.ndtr((means - low[:, None]) / torch.exp(log_widths.clamp(-5.0, 3.0)))
    mass: Tensor = (functional.softmax(logits, dim=-1) * part).sum(dim=-1)
    return mass


def _after(timeline: Timeline, num_steps: int) -> Timeline:
    """What a timeline says after its first steps."""
    first = next((place for place, step in enumerate(timeline.steps) if step >= num_steps), len(timeline.steps))
    names = ("tokens", "minutes", "steps", "values")
    return replace(timeline, **{name: getattr(timeline, name)[first:] for name in names})


__all__ = ["Beginning", "beginnings", "complete", "continue_records", "named_so_far"]
