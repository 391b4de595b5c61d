"""Attribute inference: whether the twin nearest to what is known of a person tells what is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medtwin.check.attack_rows import Attempts, Risk
from medtwin.check.attacks.risk import excess_risk
from medtwin.check.attacks.table import Bools, Floats, People, Scales, nearest_without_each
from medtwin.check.estimates import LEVEL
from medtwin.core.seeds import generator

TITLE = "Who knows all else of a patient learns {} from the nearest twin"
TITLE_OF_ALL = "Who knows all else of a patient learns one of the attributes from the nearest twin"
TOLERANCE = 0.05
"""A number counts as known where the guess is off by so much of it at most."""
NUM_RESAMPLES = 200


@dataclass(frozen=True)
class Guesses:
    """What was guessed of some people.

    Attributes:
        names: Of the attributes.
        is_known: (people, attributes) where there was something to guess.
        is_right: (people, attributes) where the guess was right.
    """

    names: tuple[str, ...]
    is_known: Bools
    is_right: Bools

    def attempts(self, column: int) -> Attempts:
        """Those of one attribute."""
        return Attempts(int(self.is_right[:, column].sum()), int(self.is_known[:, column].sum()))

    def take(self, people: Bools) -> Guesses:
        """Those of some people, a mask."""
        return replace(self, is_known=self.is_known[people], is_right=self.is_right[people])


def guess(targets: People, synthetic: People) -> Guesses:
    """Guesses every known attribute of every target from the twin that is nearest by all others.

    Args:
        targets: Whom to attack.
        synthetic: The twins, at least one.

    Source: Giomi et al. 2023, Proc Priv Enhanc Technol 2023(2):312, section 5.3.
    """
    nearest = nearest_without_each(targets, synthetic, Scales.of(synthetic))
    return _judged(np.take_along_axis(synthetic.values, nearest, axis=0), targets)


def guess_blindly(targets: People, synthetic: People, *, seed: int) -> Guesses:
    """Guesses from the attribute's values among the twins, whoever the target is."""
    rng = generator(seed, "check", "attacks", "blind guesses")
    answers = np.full(targets.values.shape, np.nan)
    for column, values in enumerate(synthetic.values.T):
        known = values[~np.isnan(values)]
        if len(known):
            answers[:, column] = rng.choice(known, size=len(targets))
    return _judged(answers, targets)


def _judged(answers: Floats, targets: People) -> Guesses:
    truth = targets.values
    known = np.isfinite(truth) & np.isfinite(answers).any(axis=0)
    with np.errstate(invalid="ignore"):
        near = np.abs(answers - truth) <= TOLERANCE * np.abs(truth)
    return Guesses(targets.names, known, known & np.where(targets.is_category, answers == truth, near))


def inference_by_attribute(train: Guesses, control: Guesses, naive: Guesses) -> list[Risk]:
    """The risk of each attribute: what holds of everybody alike is no risk, and the control counts it off.

    Args:
        train: Guesses of people whom the twins were learned from.
        control: Of others of the same law.
        naive: Blind ones of the former.
    """
    return [
        excess_risk(
            f"inference of {name}",
            TITLE.format(name),
            train.attempts(column),
            control.attempts(column),
            naive=naive.attempts(column),
        )
        for column, name in enumerate(train.names)
    ]


def inference(train: Guesses, control: Guesses, naive: Guesses, *, seed: int) -> Risk:
    """The risk of all attributes together: guesses that only training makes right, of those that could become right.

    An attribute counts by how often it is not guessed anyhow. The interval is from resampling people of both sides.

    Args:
        train: Guesses of people whom the twins were learned from.
        control: Of others of the same law.
        naive: Blind ones of the former.
        seed: Decides the resampling.
    """
    counts = [Attempts(int(one.is_right.sum()), int(one.is_known.sum())) for one in (train, control, naive)]
    plain = excess_risk("inference", TITLE_OF_ALL, counts[0], counts[1], naive=counts[2])
    if plain.risk is None:
        return plain
    rng = generator(seed, "check", "attacks", "inference")
    rates = [_rates(one, rng) for one in (train, control)]
    told = np.logical_and(*(np.any(one.is_known, axis=0) for one in (train, control)))
    gained = np.where(told, rates[0] - rates[1], 0.0).sum(axis=1)
    missed = np.where(told, 1 - rates[1], 0.0).sum(axis=1)
    if not missed.min() > 0:
        return replace(plain, risk=None, low=None, high=None, reason="everything is guessed anyhow")
    risks = gained / missed
    low, high = np.quantile(risks[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return replace(plain, risk=float(risks[0]), low=min(low, float(risks[0])), high=max(high, float(risks[0])))


def _rates(guesses: Guesses, rng: np.random.Generator) -> Floats:
    """Share of right guesses of each attribute, (1 + resamples, attributes), everybody once in the first row."""
    people = len(guesses.is_known)
    weights = np.ones((1 + NUM_RESAMPLES, people))
    weights[1:] = rng.multinomial(people, np.full(people, 1 / people), NUM_RESAMPLES)
    known = weights @ guesses.is_known
    return np.asarray(weights @ guesses.is_right / np.maximum(known, 1), np.float64)
