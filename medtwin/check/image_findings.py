"""Everything that `check` measures of images: pixels, features, labels, strata and copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medtwin.check.attack_rows import Membership, Risk
from medtwin.check.attacks.images import ImageAttacks, attack_images, no_image_attacks
from medtwin.check.estimates import Measure
from medtwin.check.findings import CopyRow
from medtwin.check.image_features import Encode, Encoded, encode_sides, feature_measures, projected, unmeasured_features
from medtwin.check.image_labels import TITLES as LABEL_TITLES
from medtwin.check.image_labels import label_measures, unmeasured_label
from medtwin.check.image_losses import no_losses
from medtwin.check.image_memory import image_memory, unmeasured_memory
from medtwin.check.image_rows import ImageGroup, ImageLabelRow, ImageStratumRow
from medtwin.check.image_strata import TITLES as STRATUM_TITLES
from medtwin.check.image_strata import mixture_measure, stratum_rows, within_measure
from medtwin.check.images import image_measures, unmeasured
from medtwin.check.pictures import MIN_IMAGES, Picture, subjects_of

MIXTURE, WITHIN = STRATUM_TITLES
MIN_SIZE = 16
"""Pixels below which an image has no features."""


@dataclass(frozen=True)
class ImageFindings:
    """What was found of images: measures, rows by modality and view, by stratum and by label, copies, attacks."""

    measures: tuple[Measure, ...]
    groups: tuple[ImageGroup, ...] = ()
    strata: tuple[ImageStratumRow, ...] = ()
    labels: tuple[ImageLabelRow, ...] = ()
    copies: tuple[CopyRow, ...] = ()
    num_images: tuple[int, int] = (0, 0)
    risks: tuple[Risk, ...] = ()
    memberships: tuple[Membership, ...] = ()


def compare_images(
    real: Sequence[Picture],
    synthetic: Sequence[Picture],
    control: Sequence[Picture],
    *,
    encode: Encode | None,
    seed: int,
    num_resamples: int,
    with_attacks: bool = False,
) -> ImageFindings:
    """Everything that is measured of images.

    Features are of modalities with `MIN_IMAGES` images on both sides, all views together: a missing view moves them,
    and the rows by stratum say whether it is the mixture or the images.

    Args:
        real: The reference (`read_pictures`).
        synthetic: The twins.
        control: Real images unseen in training.
        encode: Images (n, size, size) from 0 to 1 to features (n, d), as `medtwin.scans.features` makes it; None: what
            needs features is not measured, and says so.
        seed: Decides every draw.
        num_resamples: Bootstrap resamples of subjects.
        with_attacks: Also attack the synthetic images.

    Raises:
        ValueError: If the encoder does not give one row of finite numbers per image.
    """
    measures, groups, copies = image_measures(real, synthetic, control, seed=seed, num_resamples=num_resamples)
    if not real or not synthetic:
        rest = not_measured(measures[0].reason, has_images=bool(synthetic)).measures[len(measures) :]
        return ImageFindings((*measures, *rest), copies=tuple(copies))
    measures.append(mixture_measure(real, synthetic, control, seed=seed, num_resamples=num_resamples))
    encoded, reason = _encoded((real, synthetic, control), encode)
    labels: list[ImageLabelRow] = []
    narrow: list[Encoded] | None = None
    risks: tuple[Risk, ...] = ()
    memberships: tuple[Membership, ...] = ()
    if encoded is None:
        measures += unmeasured_features(reason, applicable=True)
        measures.append(Measure(WITHIN, STRATUM_TITLES[WITHIN], None, 0, "lower", reason))
        measures += [unmeasured_label(name, reason) for name in LABEL_TITLES]
        measures += no_image_attacks(reason)
    else:
        narrow = projected(encoded, seed)
        measures += feature_measures(narrow[0], narrow[1], narrow[2], seed=seed, num_resamples=num_resamples)
        measures.append(within_measure(narrow[0], narrow[1], narrow[2], seed=seed, num_resamples=num_resamples))
        of_labels, labels = label_measures(encoded[0], encoded[1], encoded[2], seed=seed, num_resamples=num_resamples)
        measures += of_labels
        attacks = ImageAttacks((), (), tuple(no_image_attacks("the twins were not attacked")))
        if with_attacks:
            attacks = attack_images(narrow[0], narrow[1], narrow[2], seed=seed)
        measures += attacks.measures
        risks, memberships = attacks.risks, attacks.memberships
    measures += image_memory(real, synthetic, control, encoded, seed=seed, num_resamples=num_resamples)
    measures.append(no_losses())
    strata = stratum_rows(real, synthetic, control, narrow, seed=seed, num_resamples=num_resamples)
    rows = tuple(groups), tuple(strata), tuple(labels), tuple(copies)
    return ImageFindings(tuple(measures), *rows, risks=risks, memberships=memberships)


def not_measured(reason: str, *, has_images: bool) -> ImageFindings:
    """All measures of images without an estimate; not applicable where the twins have no images."""
    return ImageFindings(
        (
            *unmeasured(reason, has_images=has_images),
            Measure(MIXTURE, STRATUM_TITLES[MIXTURE], None, 0, "lower", reason, has_images),
            *unmeasured_features(reason, applicable=has_images),
            Measure(WITHIN, STRATUM_TITLES[WITHIN], None, 0, "lower", reason, has_images),
            *(unmeasured_label(name, reason, applicable=has_images) for name in LABEL_TITLES),
            *no_image_attacks(reason, applicable=has_images),
            *unmeasured_memory(reason, applicable=has_images),
            no_losses(),
        )
    )


def _encoded(sides: Sequence[Sequence[Picture]], encode: Encode | None) -> tuple[list[Encoded] | None, str]:
    """The sides with features, of modalities that both have, or why there are none."""
    if encode is None:
        return None, "no encoder of images was given"
    modalities = [
        one
        for one in sorted({one.modality for one in sides[1]})
        if all(sum(each.modality == one for each in side) >= MIN_IMAGES for side in sides[:2])
    ]
    kept = [[one for one in side if one.modality in modalities and one.size >= MIN_SIZE] for side in sides]
    if not kept[0] or not kept[1] or len(np.unique(subjects_of(kept[0]))) < 2:
        return None, f"no modality has {MIN_IMAGES} images of {MIN_SIZE} pixels on both sides"
    return encode_sides(encode, *kept), ""
