"""Attacks on synthetic images: who was in training, and whose images come back, against images training did not see.

Images are compared by the features of an encoder (`check.image_features`), and people are the unit: a person's score is
that of the image that gives most away. Half of the control is the reference of the other half, as for records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from medtwin.check.attack_rows import Attempts, Membership, Risk
from medtwin.check.attacks.measures import REACH, area_measure, risk_measure
from medtwin.check.attacks.membership import MIN_PEOPLE, membership, too_few
from medtwin.check.attacks.membership_scores import density_ratio
from medtwin.check.attacks.risk import excess_risk
from medtwin.check.estimates import Measure
from medtwin.check.image_features import Encoded
from medtwin.check.pictures import subjects_of
from medtwin.core.seeds import generator

MEMBERSHIP, COPIES = "attacks.images.membership", "attacks.images.copies"
TITLES = {
    MEMBERSHIP: "Who was in training, by the best attack on images (area under ROC, 0.5: not at all)",
    COPIES: "Patients whose images come back among the synthetic ones: risk of training patients beyond that of others",
}
QUANTILE = 0.01
"""A synthetic image is near to a person where only so many of the images that training did not see have one as near."""
NUM_REFERENCES = 50
"""Reference images that the quantile needs."""
MAX_IMAGES = 3000
SMALLEST = 1e-9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scores = tuple[Floats, Floats]


@dataclass(frozen=True)
class ImageAttacks:
    """What attacks on images find: the risk of copies, whom scores tell, and what gates judge of it."""

    risks: tuple[Risk, ...]
    memberships: tuple[Membership, ...]
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class _Side:
    """Features of images, (images, features), whose they are, and in which fold these people are, (images,)."""

    features: Floats
    subject: Ints
    fold: Ints

    @staticmethod
    def of(encoded: Encoded, rng: np.random.Generator) -> _Side:
        """At most `MAX_IMAGES` of them, drawn, with people dealt into two folds."""
        rows = np.sort(rng.permutation(len(encoded.pictures))[:MAX_IMAGES])
        subjects = np.asarray(subjects_of(encoded.pictures), np.int64)[rows]
        different, subject = np.unique(subjects, return_inverse=True)
        fold = (rng.permutation(len(different)) % 2)[subject]
        return _Side(encoded.features[rows], subject, fold)

    @property
    def num_subjects(self) -> int:
        """How many people there are."""
        return int(self.subject.max(initial=-1)) + 1

    def best(self, per_image: Floats) -> Floats:
        """The largest score of each person, (people,)."""
        found = np.full(self.num_subjects, -np.inf)
        np.maximum.at(found, self.subject, per_image)
        return found


def no_image_attacks(reason: str, *, applicable: bool = True) -> list[Measure]:
    """The measures where images were not attacked."""
    return [Measure(name, title, None, 0, "lower", reason, applicable) for name, title in TITLES.items()]


def attack_images(
    train: Encoded,
    synthetic: Encoded,
    control: Encoded,
    *,
    seed: int,
    scores: Mapping[str, Scores] | None = None,
) -> ImageAttacks:
    """Membership by two ratios of densities and by what is handed in, and the risk that images come back.

    Args:
        train: Images that the model was trained on, with their features.
        synthetic: What it made.
        control: Real images that training did not see, of the same law.
        seed: Decides draws and folds.
        scores: Further scores of people by name, larger where membership is more likely, such as minus the loss of the
            model: of people of train and of control.

    Source: van Breugel, Sun, Qian & van der Schaar 2023, AISTATS, PMLR 206:3493 (ratios of densities as an attack);
    Giomi et al. 2023, Proc Priv Enhanc Technol 2023(2):312 (the risk against a control).
    """
    rng = generator(seed, "check", "attacks", "images")
    sides = [_Side.of(one, rng) for one in (train, synthetic, control)]
    people = sides[0].num_subjects, sides[2].num_subjects
    if min(people) < MIN_PEOPLE or len(sides[1].features) < MIN_PEOPLE:
        return ImageAttacks((), (), tuple(no_image_attacks(too_few(*people))))
    found: dict[str, Scores] = {
        "images, neighbour ratio": _with_reference(sides, _neighbour_ratio),
        "images, density ratio": _with_reference(sides, density_ratio),
        **(scores or {}),
    }
    memberships = [membership(name, *one) for name, one in found.items()]
    risk = _copies(sides)
    return ImageAttacks((risk,), tuple(memberships), (_best(memberships), risk_measure(COPIES, TITLES[COPIES], risk)))


def _with_reference(sides: Sequence[_Side], score: Callable[[Floats, Floats, Floats], Floats]) -> Scores:
    """Scores of people of train and control, each against the half of the control that they are not in."""
    train, twins, control = sides
    per_image = np.zeros(len(train.subject)), np.zeros(len(control.subject))
    for fold in (0, 1):
        reference = control.features[control.fold != fold]
        for scores, side in zip(per_image, (train, control), strict=True):
            rows = side.fold == fold
            scores[rows] = score(side.features[rows], twins.features, reference)
    return train.best(per_image[0]), control.best(per_image[1])


def _neighbour_ratio(images: Floats, twins: Floats, reference: Floats) -> Floats:
    """How much nearer the nearest synthetic image is than the nearest reference one, as a logarithm, (images,)."""
    far, near = (cdist(images, side).min(axis=1) + SMALLEST for side in (reference, twins))
    return np.asarray(np.log(far) - np.log(near))


def _copies(sides: Sequence[_Side]) -> Risk:
    """The share of training people near to whom a synthetic image lies, beyond that of others."""
    train, twins, control = sides
    smallest = min(int(np.sum(control.fold == fold)) for fold in (0, 1))
    if smallest < NUM_REFERENCES:
        reason = f"needs {2 * NUM_REFERENCES} images that training did not see, there are {len(control.subject)}"
        return Risk.unknown("images.copies", TITLES[COPIES], reason)
    distance = [cdist(side.features, twins.features).min(axis=1) for side in (train, control)]
    near = [np.full(len(one), -1.0) for one in distance]
    for fold in (0, 1):
        bound = float(np.quantile(distance[1][control.fold != fold], QUANTILE))
        for hits, far, side in zip(near, distance, (train, control), strict=True):
            rows = side.fold == fold
            hits[rows] = far[rows] < bound
    found = [side.best(hits) for side, hits in zip((train, control), near, strict=True)]
    attempts = [Attempts(int(one.sum()), len(one)) for one in found]
    return excess_risk("images.copies", TITLES[COPIES], attempts[0], attempts[1])


def _best(memberships: Sequence[Membership]) -> Measure:
    """The largest area, with the interval and the baseline of the best of so many."""
    told = [one for one in memberships if one.area is not None and one.high is not None]
    best = max(told, key=lambda one: one.area or 0.0)
    area, low, high = best.area or 0.0, best.low or 0.0, best.high or 1.0
    spread = (high - area if high < 1 else area - low) / REACH
    people = best.num_members + best.num_others
    return area_measure(MEMBERSHIP, TITLES[MEMBERSHIP], area, spread, num_attacks=len(told), num_people=people)
