"""Canaries: made-up people of whom a coin decided who is trained on; how many coins can be told bounds the leak.

Half of the canaries, each by a coin of its own, stand in the training data (`planting` makes them). Whoever scores all
of them and guesses the coins of the most and the least likely ones is right half of the time where nothing leaks.
Training that is epsilon-differentially private bounds how often a guess can be right, hence the guesses bound epsilon
from below.
Exposure says the same of each canary: how far up it stands among others of its law, in bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq
from scipy.stats import binom, norm

from medtwin.check.attack_rows import Membership
from medtwin.check.attacks.membership import membership
from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.records import Records

MAX_EPSILON = 20.0
MIN_CANARIES = 20
TITLES = {
    "canaries.epsilon": "Privacy loss of the training, at least, as the canaries show it (epsilon)",
    "canaries.exposure": "How much further up canaries in training stand than those out of it (exposure, bits)",
}

_BLOCK = 256

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CanaryAudit:
    """What the coins that were told say.

    Attributes:
        epsilon_low: The privacy loss epsilon is at least that, with 95 % confidence; 0 where nothing was told.
        epsilon_most: The most that so many guesses could ever show.
        guesses, right: Coins that were guessed, and rightly.
        told: How well scores tell the canaries in training from the others.
    """

    epsilon_low: float
    epsilon_most: float
    guesses: int
    right: int
    told: Membership


def audit(scores: Floats, is_member: Bools, *, num_guesses: int | None = None) -> CanaryAudit:
    """The lower bound of epsilon that one training run shows.

    Bounds by several numbers of guesses would need a correction; the number is chosen beforehand.

    Args:
        scores: Of each canary, (canaries,), larger where training on it is more likely.
        is_member: Whether its coin put it into training, (canaries,).
        num_guesses: How many of the most likely, and of the least likely, are guessed: half of them each; None: a fifth
            of all canaries.

    Raises:
        ValueError: If the shapes differ, there are fewer than `MIN_CANARIES`, or more guesses than canaries.

    Source: Steinke, Nasr & Jagielski 2023, NeurIPS, Privacy Auditing with One (1) Training Run, theorem 5.2 with
    delta = 0.
    """
    if scores.shape != is_member.shape or scores.ndim != 1 or len(scores) < MIN_CANARIES:
        raise ValueError(
            f"scores and is_member must be of at least {MIN_CANARIES} canaries, got {scores.shape}, {is_member.shape}"
        )
    wanted = len(scores) // 5 if num_guesses is None else num_guesses
    if not 2 <= wanted <= len(scores):
        raise ValueError(f"num_guesses must be between 2 and {len(scores)} canaries, got {wanted!r}")
    half = wanted // 2
    order = np.argsort(scores, kind="stable")
    right = int(is_member[order[-half:]].sum() + (~is_member[order[:half]]).sum())
    told = membership("canaries", scores[is_member], scores[~is_member])
    return CanaryAudit(epsilon_bound(2 * half, right), epsilon_bound(2 * half, 2 * half), 2 * half, right, told)


def epsilon_bound(guesses: int, right: int, *, level: float = LEVEL) -> float:
    """The least epsilon under which so many right guesses are not too many, at most `MAX_EPSILON`.

    Args:
        guesses: 1 or more.
        right: Between 0 and the guesses.
        level: Confidence, one-sided.

    >>> epsilon_bound(100, 50), round(epsilon_bound(100, 100), 2)
    (0.0, 3.49)
    """
    if not 0 <= right <= guesses or guesses < 1:
        raise ValueError(f"right must be between 0 and guesses={guesses}, got {right!r}")

    def excess(epsilon: float) -> float:
        return float(binom.sf(right - 1, guesses, 1 / (1 + math.exp(-epsilon)))) - (1 - level)

    if excess(0.0) > 0:
        return 0.0
    return float(brentq(excess, 0.0, MAX_EPSILON)) if excess(MAX_EPSILON) > 0 else MAX_EPSILON


@dataclass(frozen=True)
class Heard:
    """Scores of canaries, larger where training on them is more likely.

    Attributes:
        members, held_out: Of those whose coin put them into training, and kept them out, (canaries,) each.
        references: Of others of their law that had no coin, (references,).
    """

    members: Floats
    held_out: Floats
    references: Floats

    @staticmethod
    def of(scores: Mapping[int, float], roles: Mapping[int, str]) -> Heard:
        """The scores by role; a canary without a finite score counts as the least likely."""
        found: dict[str, list[float]] = {"member": [], "held_out": [], "reference": []}
        for subject, role in roles.items():
            score = scores.get(subject, -math.inf)
            found[role].append(score if math.isfinite(score) else -math.inf)
        return Heard(*(np.array(found[role], np.float64) for role in found))

    def audit(self) -> CanaryAudit:
        """What the coins say."""
        scores = np.concatenate([self.members, self.held_out])
        return audit(scores, np.repeat([True, False], [len(self.members), len(self.held_out)]))

    def exposures(self) -> tuple[Floats, Floats]:
        """Exposure in bits of the members and of the held-out ones: log2 of (references + 1) over the rank among them.

        Of a score that ties with references the rank is the worst: a score that says nothing exposes nobody.

        Source: Carlini, Liu, Erlingsson, Kos & Song 2019, USENIX Security, The Secret Sharer, section 4.3 and, of ranks
        among a sample, 4.4.
        """
        ascending = np.sort(self.references)
        above = [len(ascending) - np.searchsorted(ascending, one, side="left") for one in (self.members, self.held_out)]
        members, held_out = (np.log2((len(ascending) + 1) / (1 + one)) for one in above)
        return np.asarray(members), np.asarray(held_out)


def no_canaries(reason: str) -> list[Measure]:
    """The measures where no canary was planted: they do not apply."""
    return [Measure(name, title, None, 0, reason=reason, applicable=False) for name, title in TITLES.items()]


def canary_measures(heard: Mapping[str, Heard], *, judged: str) -> tuple[list[Measure], list[Membership]]:
    """The bound of epsilon and the exposure by one score, and whom each score tells.

    `canaries.epsilon` is the lower bound itself: 0 where nothing was told, whatever it could have been; its interval
    ends at what so many guesses could show at most, beyond which the audit says nothing.

    Args:
        heard: Scores by name.
        judged: The name of those that the measures are of; to be chosen before the scores are seen.
    """
    chosen = heard[judged]
    found = chosen.audit()
    coins = len(chosen.members) + len(chosen.held_out)
    epsilon = Estimate(found.epsilon_low, found.epsilon_low, found.epsilon_most, 0.0, 0.0)
    exposures = chosen.exposures()
    gained = float(exposures[0].mean() - exposures[1].mean())
    error = math.sqrt(sum(float(np.var(one, ddof=1)) / len(one) for one in exposures))
    reach, usual = (float(norm.ppf(level)) * error for level in ((1 + LEVEL) / 2, LEVEL))
    exposure = Estimate(gained, gained - reach, gained + reach, 0.0, usual)
    measures = [
        Measure("canaries.epsilon", TITLES["canaries.epsilon"], epsilon, found.guesses),
        Measure("canaries.exposure", TITLES["canaries.exposure"], exposure, coins),
    ]
    return measures, [membership(name, one.members, one.held_out) for name, one in heard.items()]


def twin_scores(canaries: Records, synthetic: Records) -> Floats:
    """How much of what each canary has at one time a twin has at one time too, (canaries,), 0 to 1.

    Args:
        canaries: Their records.
        synthetic: The twins, read with the same vocabulary.
    """
    mine, theirs = _step_codes(canaries), _step_codes(synthetic)
    shared = np.zeros(mine.shape[0])
    for start in range(0, mine.shape[0], _BLOCK):
        both = mine[start : start + _BLOCK] @ theirs.T
        shared[start : start + _BLOCK] = both.max(axis=1).toarray().reshape(-1)
    owner = canaries.steps.subject
    total = np.bincount(owner, weights=np.asarray(mine.sum(axis=1)).reshape(-1), minlength=canaries.num_subjects)
    found = np.bincount(owner, weights=shared, minlength=canaries.num_subjects)
    return np.asarray(found / np.maximum(total, 1))


def _step_codes(records: Records) -> sparse.csr_array:
    """Which codes stand at each step, (steps, codes), 1 or 0."""
    steps = records.steps
    width = len(records.vocabulary.codes)
    pairs = np.unique(steps.step * width + records.code[steps.event])
    return sparse.csr_array(
        (np.ones(len(pairs), np.float32), (pairs // width, pairs % width)), shape=(len(steps.subject), width)
    )
