"""Concordance of a risk score with the order of events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medtwin.trials.analysis.follow_up import Floats, FollowUp, Ints, as_codes, follow_up


@dataclass(frozen=True)
class Concordance:
    """Of the pairs whose order of events is known, how many have their risk scores in that order.

    Attributes:
        estimate: Share of concordant pairs; pairs of equal scores count half. standard_error: By its influence.
        concordant, discordant, tied_score: Pairs. tied_time: Pairs of events at one time with different scores.
        tied_both: Pairs of events at one time with equal scores.
    """

    estimate: float
    standard_error: float
    concordant: int
    discordant: int
    tied_score: int
    tied_time: int
    tied_both: int


def concordance(
    time: ArrayLike,
    event: ArrayLike,
    risk_score: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
) -> Concordance:
    """Harrell's concordance: at each event, the subject is compared with those at risk who fare better.

    Args:
        time: (rows,) end of the interval.
        event: (rows,) whether an event ends it.
        risk_score: (rows,) higher where the event is expected earlier; scores within 1e-12 of each other are equal.
        entry: (rows,) start of the interval where it is late.
        strata: (rows,) labels of strata; pairs are formed within them.
        cluster: (rows,) labels within which rows may depend on each other, for the standard error.

    Raises:
        ValueError: For data that make no sense, or without a pair to compare.

    Source: Harrell et al. 1996; standard error by the infinitesimal jackknife, as in Therneau & Atkinson 2020.

    >>> concordance([1, 2, 3], [1, 1, 1], [3.0, 1.0, 2.0]).estimate.__round__(3)
    0.667
    """
    seen = follow_up(time, event, entry)
    score = np.asarray(risk_score, dtype=np.float64)
    if score.shape != seen.time.shape or not np.isfinite(score).all():
        raise ValueError(f"risk_score must be a finite number for each row, got shape {score.shape!r}")
    stratum = as_codes("strata", np.zeros(len(seen)) if strata is None else strata, len(seen))[1]
    tally = np.zeros(5, dtype=np.int64)
    agree, compared = np.zeros(len(seen)), np.zeros(len(seen))
    for s in range(int(stratum.max(initial=-1)) + 1):
        rows = np.flatnonzero(stratum == s)
        counts, agree[rows], compared[rows] = _pairs(seen.of(rows), score[rows])
        tally += counts
    concordant, discordant, tied_score, tied_time, tied_both = (int(each) for each in tally)
    known = concordant + discordant + tied_score
    if not known:
        raise ValueError(f"event must leave a pair whose order is known, got {event!r}")
    estimate = (concordant + tied_score / 2) / known
    influence = (agree - estimate * compared) / known
    code = np.arange(len(seen)) if cluster is None else as_codes("cluster", cluster, len(seen))[1]
    error = float(np.sqrt((np.bincount(code, weights=influence) ** 2).sum()))
    return Concordance(estimate, error, concordant, discordant, tied_score, tied_time, tied_both)


def _pairs(seen: FollowUp, score: Floats) -> tuple[Ints, Floats, Floats]:
    """Counts of pairs, and by row the pairs it is in: those that agree (ties half), and all."""
    tally = np.zeros(5, dtype=np.int64)
    agree, compared = np.zeros(len(seen)), np.zeros(len(seen))
    events = np.flatnonzero(seen.event)
    for i in events:
        at_risk = (seen.entry < seen.time[i]) & (
            (seen.time > seen.time[i]) | (~seen.event & (seen.time == seen.time[i]))
        )
        gap = score[i] - score[at_risk]
        is_tied = np.abs(gap) <= 1e-12
        half = np.where(is_tied, 0.5, gap > 0)
        tally[:3] += ((gap > 0) & ~is_tied).sum(), ((gap < 0) & ~is_tied).sum(), is_tied.sum()
        agree[i] += half.sum()
        compared[i] += len(half)
        agree[at_risk] += half
        compared[at_risk] += 1
        twins = events[(events > i) & (seen.time[events] == seen.time[i])]
        is_equal = np.abs(score[i] - score[twins]) <= 1e-12
        tally[3:] += (~is_equal).sum(), is_equal.sum()
    return tally, agree, compared
