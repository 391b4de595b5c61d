"""How often each training image is shown: classes that are rare more often than they are found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medtwin.scans.conditions import ScanRequest

_DECADE = 10
_NONE = "none found"
_CLASSES: Mapping[str, Callable[[ScanRequest], Hashable]] = {
    "modality": lambda image: image.modality,
    "body_part": lambda image: image.body_part,
    "view": lambda image: image.view,
    "sex": lambda image: image.sex,
    "age": lambda image: None if image.age_years is None else int(image.age_years // _DECADE),
}
BALANCED = ("findings", *_CLASSES)
"""What images may be balanced by; age by decades."""


def class_weights(
    images: Sequence[ScanRequest], balance: Mapping[str, float], findings: Sequence[str]
) -> NDArray[np.float64] | None:
    """How often each image is shown, (images,), or None: all alike.

    The weight is the product, over what is balanced, of (1 / share of the images of its class) to the power that is
    given: 0 as they are, 1 as if all classes were equally frequent. An image counts by the rarest of its findings; that
    nothing was found is a class as well. What is not said of an image has the weight of the mean image.

    Args:
        images: The training images.
        balance: Power by what is balanced (`BALANCED`), each from 0 to 1.
        findings: Those that are learned; of others nothing is known that would balance them.

    Raises:
        ValueError: If something else is to be balanced, or a power is out of its range.

    >>> images = [ScanRequest(str(i), "CR", view="AP" if i else "PA", labels=()) for i in range(4)]
    >>> class_weights(images, {"view": 1.0}, []).round(3).tolist()
    [4.0, 1.333, 1.333, 1.333]
    """
    for name, power in balance.items():
        if name not in BALANCED or not 0 <= power <= 1:
            raise ValueError(f"balance must be powers from 0 to 1 of {', '.join(BALANCED)}, got {name}={power!r}")
    wanted = {name: power for name, power in balance.items() if power}
    if not wanted or not images:
        return None
    weights = np.ones(len(images))
    for name, power in wanted.items():
        rarity = _finding_rarity(images, findings) if name == "findings" else _rarity(images, _CLASSES[name])
        weights *= (
            np.where(np.isnan(rarity), np.nanmean(rarity) if not np.isnan(rarity).all() else 1.0, rarity) ** power
        )
    return weights


def _rarity(images: Sequence[ScanRequest], class_of: Callable[[ScanRequest], Hashable]) -> NDArray[np.float64]:
    """1 / share of each image's class, (images,); NaN where it has none."""
    classes = [class_of(image) for image in images]
    counts = Counter(one for one in classes if one is not None)
    return np.array([math.nan if one is None else counts.total() / counts[one] for one in classes])


def _finding_rarity(images: Sequence[ScanRequest], findings: Sequence[str]) -> NDArray[np.float64]:
    labelled = [None if image.labels is None else image.labels or (_NONE,) for image in images]
    counts = Counter(code for codes in labelled if codes is not None for code in set(codes))
    total, known = sum(codes is not None for codes in labelled), {*findings, _NONE}
    found = []
    for codes in labelled:
        rarities = [total / counts[code] for code in codes or () if code in known]
        found.append(max(rarities) if rarities else math.nan)
    return np.array(found)
