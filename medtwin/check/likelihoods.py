"""What the model itself says of real and of synthetic records: too likely twins, and whom it remembers.

The pipeline hands in log-likelihoods; nothing here knows the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from medtwin.check.estimates import LEVEL, Distribution, Estimate, Measure
from medtwin.check.marginals import Observations, common_support, ks_distance, total_cdf
from medtwin.check.resample import MIN_CONTROL, NUM_RESAMPLES, Sums, compare, make_plan

Floats = NDArray[np.float64]
TITLES = {
    "likelihood.gap": "Log-likelihood per event under the model: twins against real subjects it did not see, nats",
    "likelihood.ks": "Log-likelihood per event of each subject: KS distance of twins to real subjects it did not see",
    "likelihood.membership": "How well likelihood tells who was in training (area under ROC, 0.5: not at all)",
}


@dataclass(frozen=True)
class LogLikelihoods:
    """What a model says of some subjects.

    Attributes:
        nats: Log-likelihood of each subject's record, or a bound of it, (subjects,), in nats.
        num_events: How many events that is of, (subjects,).

    Raises:
        ValueError: If the two are not alike in shape.
    """

    nats: Floats
    num_events: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.nats.shape != self.num_events.shape or self.nats.ndim != 1:
            raise ValueError(
                f"nats and num_events must be (subjects,) both, got {self.nats.shape} and {self.num_events.shape}"
            )

    def usable(self) -> LogLikelihoods:
        """Those of subjects with events and a finite log-likelihood."""
        kept = (self.num_events > 0) & np.isfinite(self.nats)
        return LogLikelihoods(self.nats[kept].astype(np.float64), self.num_events[kept])

    @property
    def per_event(self) -> Floats:
        """Nats per event of each subject, (subjects,)."""
        return np.asarray(self.nats / self.num_events)

    @property
    def sums(self) -> Floats:
        """Nats and events of each subject, (subjects, 2)."""
        return np.column_stack([self.nats, self.num_events]).astype(np.float64)


def no_likelihood(reason: str) -> list[Measure]:
    """The measures of a check to which no model was handed: they do not apply."""
    return [Measure(name, title, None, 0, reason=reason, applicable=False) for name, title in TITLES.items()]


def likelihood_measures(
    train: LogLikelihoods,
    synthetic: LogLikelihoods,
    control: LogLikelihoods,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[list[Measure], list[Distribution]]:
    """Measures of the model's own log-likelihoods, and their distributions for drawing.

    `likelihood.gap`: distance of the mean per event of the twins to that of the control, subjects that the model did
    not see. `likelihood.ks`: Kolmogorov-Smirnov distance of the subjects' means. Both with the control as the
    reference: the baseline is between its halves, and the control of the estimate is train against control.
    `likelihood.membership`: the area under the ROC curve of training subjects' means above the control's; 0.5 means
    that likelihood does not tell who was in training. What shifts between train and control otherwise counts too.

    Subjects without events, and those whose log-likelihood is not finite, are left out.

    Args:
        train: Of the subjects that the model was trained on.
        synthetic: Of the twins.
        control: Of real subjects that it did not see.
        seed: Decides the resampling.
        num_resamples: Of the bootstrap, for the first two.
    """
    train, synthetic, control = train.usable(), synthetic.usable(), control.usable()
    if len(control.nats) < MIN_CONTROL or len(synthetic.nats) < MIN_CONTROL:
        reason = f"likelihoods need {MIN_CONTROL} twins and {MIN_CONTROL} real subjects that the model did not see"
        unmeasured = [Measure(name, TITLES[name], None, 0, reason=reason) for name in TITLES]
        return [*unmeasured[:2], _membership(train, control)], []
    plan = make_plan(
        len(control.nats),
        len(synthetic.nats),
        len(train.nats),
        seed=seed,
        num_resamples=num_resamples,
        purpose="likelihoods",
    )
    gap = compare(plan, control.sums, synthetic.sums, train.sums, _gap)
    support = common_support(control.per_event, synthetic.per_event)
    histograms = [_histogram(side, support) for side in (control, synthetic, train)]
    ks = compare(plan, histograms[0], histograms[1], histograms[2], ks_distance)
    number = len(control.nats) + len(synthetic.nats)
    shown = Distribution(
        "likelihood",
        "log-likelihood per event, nats",
        support.tolist(),
        *total_cdf(plan, histograms[0], histograms[1]),
    )
    return [
        Measure("likelihood.gap", TITLES["likelihood.gap"], gap.estimate(plan), number),
        Measure("likelihood.ks", TITLES["likelihood.ks"], ks.estimate(plan), number),
        _membership(train, control),
    ], [shown]


def _gap(first: Sums, second: Sums) -> Floats:
    """Distance of the mean nats per event, (draws,)."""
    return np.asarray(np.abs(second[:, 0] / second[:, 1] - first[:, 0] / first[:, 1]))


def _histogram(side: LogLikelihoods, support: Floats) -> sparse.csr_array:
    number = len(side.nats)
    return Observations(np.arange(number), side.per_event, number).histogram(support)


def _membership(train: LogLikelihoods, control: LogLikelihoods) -> Measure:
    """Train against control, with DeLong's interval; the baseline is what ranks say of two samples of one law."""
    name = "likelihood.membership"
    sizes = len(train.nats), len(control.nats)
    if min(sizes) < MIN_CONTROL:
        reason = (
            f"membership needs {MIN_CONTROL} training subjects and as many real subjects that the model did not see"
        )
        return Measure(name, TITLES[name], None, 0, reason=reason)
    area, error = delong(control.per_event, train.per_event)
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    null_error = float(np.sqrt((sum(sizes) + 1) / (12 * sizes[0] * sizes[1])))
    estimate = Estimate(
        area, max(area - reach, 0.0), min(area + reach, 1.0), 0.5, 0.5 + float(stats.norm.ppf(LEVEL)) * null_error
    )
    return Measure(name, TITLES[name], estimate, sum(sizes))


def delong(low: Floats, high: Floats) -> tuple[float, float]:
    """Area under the ROC curve of `high` above `low`, and its standard error.

    Args:
        low: Scores, (rows,), at least 2.
        high: Scores, (other rows,), at least 2.

    Source: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837; by ranks: Sun & Xu 2014, IEEE Signal Process Lett
    21:1389.

    >>> area, error = delong(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    >>> area, round(error, 6)
    (0.875, 0.176777)
    """
    ranks = stats.rankdata(np.concatenate([low, high]))
    below = (ranks[len(low) :] - stats.rankdata(high)) / len(low)  # share of `low` below each of `high`
    above = 1 - (ranks[: len(low)] - stats.rankdata(low)) / len(high)
    error = np.sqrt(np.var(below, ddof=1) / len(high) + np.var(above, ddof=1) / len(low))
    return float(np.mean(below)), float(error)
