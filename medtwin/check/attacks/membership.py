"""Membership: whether a score of a person's record tells that the twins were learned from it.

A score is larger where membership is more likely (`membership_scores`, or the likelihood that the pipeline hands in).
What it is worth is told by the area under the ROC curve and by how many members are found while 1 in 100, or in 1,000,
of the others is accused.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binomtest, norm

from medtwin.check.attack_rows import Membership, TruePositives
from medtwin.check.estimates import LEVEL
from medtwin.check.likelihoods import delong
from medtwin.check.resample import MIN_CONTROL

FALSE_POSITIVES = (0.01, 0.001)
MIN_ACCUSED = 10
"""Others who must be above the threshold: 1,000 of them for 1 % false positives, 10,000 for 0.1 %."""
MIN_PEOPLE = MIN_CONTROL

Floats = NDArray[np.float64]


def membership(name: str, members: Floats, others: Floats, *, group: str = "everybody") -> Membership:
    """What a score is worth.

    Args:
        name: Of the attack.
        members: Scores of people whom the twins were learned from, (members,).
        others: Scores of people of the same law whom they were not, (others,).
        group: Of people.
    """
    sizes = len(members), len(others)
    found = tuple(true_positives(members, others, rate) for rate in FALSE_POSITIVES)
    if min(sizes) < MIN_PEOPLE:
        return Membership(name, group, *sizes, None, None, None, found, too_few(*sizes))
    area, error = delong(others, members)
    # Of perfect separation DeLong's error is 0: no smaller than that of the area which one more pair would make.
    error = max(error, 1 / (2 * min(sizes)) if area in (0, 1) else 0.0)
    reach = float(norm.ppf((1 + LEVEL) / 2)) * error
    return Membership(name, group, *sizes, area, max(area - reach, 0.0), min(area + reach, 1.0), found)


def too_few(num_members: int, num_others: int) -> str:
    """Why nothing is said of so few people."""
    return f"needs {MIN_PEOPLE} people on both sides, there are {num_members} and {num_others}"


def true_positives(members: Floats, others: Floats, false_positives: float) -> TruePositives:
    """Share of members above the threshold that a share of the others is above, with an interval that holds for both.

    The threshold is itself an estimate. Order statistics bound it from both sides with half of the error, and
    Clopper-Pearson's interval of the share above either bound takes the other half: coverage is at least 95 %.

    Args:
        members: Scores, (members,).
        others: Scores, (others,).
        false_positives: Between 0 and 1.

    Raises:
        ValueError: If the rate does not lie between 0 and 1.

    Source: Clopper & Pearson 1934, Biometrika 26:404; why a low rate of false positives: Carlini et al. 2022, IEEE
    S&P, 1897.
    """
    if not 0 < false_positives < 1:
        raise ValueError(f"false_positives must be between 0 and 1, got {false_positives!r}")
    needed = round(MIN_ACCUSED / false_positives)
    if len(others) < needed or not len(members):
        reason = f"not estimable: {needed} people who were not in training are needed, there are {len(others)}"
        return TruePositives(false_positives, None, None, None, reason)
    descending = np.sort(others)[::-1]
    number, error = len(others), (1 - LEVEL) / 2
    accused = np.arange(number)  # of so many others above a threshold, what is the rate of false positives?
    highest = beta.ppf(1 - error / 2, accused + 1, number - accused)
    lowest = beta.ppf(error / 2, np.maximum(accused, 1), number - accused + 1)
    strict = int(np.searchsorted(highest, false_positives, side="right")) - 1
    loose = max(int(np.searchsorted(lowest[1:], false_positives)) + 1, 1)
    middle = int(false_positives * number)
    shares = [float(np.mean(members > descending[min(k, number - 1)])) for k in (max(strict, 0), middle, loose)]
    low, high = (
        binomtest(round(share * len(members)), len(members)).proportion_ci(1 - error, method="exact")
        for share in (shares[0], shares[2])
    )
    return TruePositives(false_positives, shares[1], min(float(low.low), shares[1]), max(float(high.high), shares[1]))
