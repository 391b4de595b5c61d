"""Who was in training, by how well the model itself denoises their images: an attack of somebody who has the model.

The pipeline hands in losses; nothing here knows the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medtwin.check.attack_rows import Membership
from medtwin.check.attacks.membership import MIN_PEOPLE, membership
from medtwin.check.estimates import Estimate, Measure

NAME = "images.losses"
TITLE = "Who was in training, by the denoising losses of their images (area under ROC, 0.5: not at all)"
_LEVEL = 1.645
"""Standard errors that 95 % of areas of chance stay below."""

Floats = NDArray[np.float64]


def no_losses() -> Measure:
    """The measure where no losses were handed in: not applicable."""
    return Measure(NAME, TITLE, None, 0, "lower", "no model that made the images was named (scans=RUN)", False)


def loss_scores(losses: Floats, subject: NDArray[np.int64], reference: Floats) -> Floats:
    """How likely each subject was in training, (subjects,): the mean over their images of how small the losses are.

    A loss counts by its logarithm, in deviations of the reference at its noise level, since those differ by orders of
    magnitude.

    Args:
        losses: Denoising losses, (images, noise levels), positive.
        subject: Whose the images are, (images,).
        reference: Losses of images that set mean and deviation, (reference images, noise levels), at least 2.

    Raises:
        ValueError: If a loss is not positive and finite, or the shapes do not fit.

    Source: Matsumoto, Miura & Yanai 2023, IEEE S&P Workshops (membership by losses of diffusion models).
    """
    for name, one in (("losses", losses), ("reference", reference)):
        if one.ndim != 2 or not (np.isfinite(one) & (one > 0)).all():
            raise ValueError(f"{name} must be (images, noise levels) of positive finite numbers, got {one.shape}")
    logs = np.log(reference)
    small = -((np.log(losses) - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-9)).mean(axis=1)
    _, number = np.unique(subject, return_inverse=True)
    return np.asarray(np.bincount(number, small) / np.bincount(number))


def loss_measure(
    training: tuple[Floats, NDArray[np.int64]], control: tuple[Floats, NDArray[np.int64]]
) -> tuple[Measure, Membership]:
    """The area under the ROC curve of training subjects' scores above the control's, and what is found at low error.

    Not measured where either side has fewer than `MIN_PEOPLE` subjects.

    Args:
        training: Losses, (images, noise levels), and whose they are, of the images that the model learned from.
        control: The same of real images that it did not see.
    """
    number = [len(np.unique(side[1])) for side in (training, control)]
    if min(number) < MIN_PEOPLE:
        members, others = (np.zeros(one) for one in number)
    else:
        members, others = (loss_scores(*side, control[0]) for side in (training, control))
    told = membership("denoising loss of images", members, others)
    if told.area is None or told.low is None or told.high is None:
        return Measure(NAME, TITLE, None, 0, reason=told.reason), told
    sizes = len(members), len(others)
    null = float(np.sqrt((sum(sizes) + 1) / (12 * sizes[0] * sizes[1])))
    estimate = Estimate(told.area, told.low, told.high, 0.5, 0.5 + _LEVEL * null)
    return Measure(NAME, TITLE, estimate, sum(sizes)), told
