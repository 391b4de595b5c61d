"""Rows of the benches of images: is more of the training patients in drawn images than chance would put there?"""

from __future__ import annotations

from medtwin.check.image_copies import image_copies
from medtwin.check.image_features import Encoded
from medtwin.check.image_memory import image_memory

EXPLAINED = (
    "`image-memory` of check: 0, beyond chance nothing is of training patients; 1, all. What chance does at most, "
    "and near copies of training images, beside those that real images of other patients are."
)
HEADS = "memory | by chance | near copies | of real ones"
NUM_RESAMPLES = 200


def remembered(real: Encoded, made: Encoded, other: Encoded) -> str:
    """The cells under HEADS: of drawn images, beside training images and those of other patients."""
    known, drawn, others = list(real.pictures), list(made.pictures), list(other.pictures)
    found = image_memory(known, drawn, others, [real, made, other], seed=0, num_resamples=NUM_RESAMPLES)
    copies, told = image_copies(known, drawn, others, seed=0)[0], found[0].estimate
    memory = "- | -"
    if told is not None:
        memory = f"{told.value:.3f} ({told.low:.3f} to {told.high:.3f}) | {told.baseline_worst:.3f}"
    return f"{memory} | {copies.share:.1%} | {copies.baseline:.1%}"
