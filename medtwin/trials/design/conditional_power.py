"""What the rest of a group-sequential trial will bring, given the statistic at a look.

Given Z_L = z at information I_L, the process after it is independent: its own statistic at look k, of information
I_k - I_L, crosses (b_k sqrt(I_k) - z sqrt(I_L)) / sqrt(I_k - I_L) where the trial crosses b_k.

Source: Lan & Wittes 1988, Biometrics 44:579; Proschan & Hunsberger 1995, Biometrics 51:1315; Jennison & Turnbull 2000,
Group Sequential Methods, chapter 10; Mueller & Schaefer 2001, Biometrics 57:886.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from medtwin.trials.design.boundaries import Exits, exit_probabilities
from medtwin.trials.design.changing_effects import exits_with_means

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Remainder:
    """The looks after one at which the statistic is known, as a trial of its own.

    Attributes:
        information: (later,) since that look.
        upper: (later,) z bounds of its own statistic. lower: (later,) z bounds, -inf for none.
    """

    information: Floats
    upper: Floats
    lower: Floats

    def exits(self, theta: ArrayLike) -> Exits:
        """Where it stops under an effect, one or (later,): that of the mean theta_k (I_k - I_L) of the score since."""
        effect = np.broadcast_to(np.asarray(theta, dtype=np.float64), self.information.shape)
        return exits_with_means(self.information, self.upper, self.lower, effect * np.sqrt(self.information))

    def power(self, theta: ArrayLike) -> float:
        """P(an upper bound is crossed) under an effect."""
        return self.exits(theta).power

    def at_information(self, information: ArrayLike) -> Remainder:
        """The same bounds at other information, as when the rest of a trial is enlarged and its weights are kept.

        Source: Cui, Hung & Wang 1999, Biometrics 55:853.
        """
        return Remainder(np.asarray(information, dtype=np.float64), self.upper, self.lower)


def remainder(
    look: int, z: float, information: ArrayLike, upper: ArrayLike, lower: ArrayLike | None = None
) -> Remainder:
    """The rest of a trial after a look.

    Args:
        look: From 1, of the looks of the trial, not the last.
        z: The statistic there.
        information: (looks,) information, increasing.
        upper: (looks,) z bounds, inf for none.
        lower: (looks,) z bounds, -inf or None for none.

    Raises:
        ValueError: If the look is not one before the last.

    >>> rest = remainder(1, 1.2, [0.5, 1.0], [2.9626, 1.9686])
    >>> round(rest.power(0.0), 4)
    0.0566
    """
    total = np.asarray(information, dtype=np.float64)
    if not 1 <= look < len(total):
        raise ValueError(f"look must be from 1 to {len(total) - 1}, got {look!r}")
    known, later = total[look - 1], total[look:]
    step = later - known

    def since(bounds: ArrayLike) -> Floats:
        b = np.asarray(bounds, dtype=np.float64)[look:]
        return np.asarray((b * np.sqrt(later) - z * np.sqrt(known)) / np.sqrt(step))

    none = np.full(len(total), -np.inf)
    return Remainder(step, since(upper), since(none if lower is None else lower))


def effect_since(theta: ArrayLike, look: int, information: ArrayLike) -> Floats:
    """The effect of the increments after a look, (later,), from the effects at all looks, (looks,).

    The score at look k has mean theta_k I_k, so what comes after look L has mean theta_k I_k - theta_L I_L.
    """
    total = np.asarray(information, dtype=np.float64)
    score = np.asarray(theta, dtype=np.float64) * total
    return np.asarray((score[look:] - score[look - 1]) / (total[look:] - total[look - 1]))


def predictive_power(
    look: int,
    z: float,
    information: ArrayLike,
    upper: ArrayLike,
    lower: ArrayLike | None,
    prior: tuple[ArrayLike, ArrayLike],
) -> Floats:
    """P(first crossing the upper bound at each later look), (later,), averaged over the posterior of the effect.

    Args:
        look: From 1, where the statistic is known.
        z: The statistic there.
        information: (looks,) information.
        upper: (looks,) z bounds.
        lower: (looks,) z bounds; None: none.
        prior: Effects and their weights, both (points,), weights of any sum.

    Raises:
        ValueError: If the weights are negative or all 0.

    Source: Spiegelhalter, Freedman & Blackburn 1986, Control Clin Trials 7:8.
    """
    theta, weights = (np.asarray(each, dtype=np.float64) for each in prior)
    known = float(np.asarray(information, dtype=np.float64)[look - 1])
    posterior = weights * norm.pdf(z - theta * math.sqrt(known))
    if (weights < 0).any() or posterior.sum() <= 0:
        raise ValueError("prior must be weights of 0 or more, some of them where the data are possible")
    rest = remainder(look, z, information, upper, lower)
    each = np.array([rest.exits(effect).upper for effect in theta])
    return np.asarray(posterior @ each / posterior.sum())


def probability_of_success(
    information: ArrayLike, upper: ArrayLike, lower: ArrayLike | None, prior: tuple[ArrayLike, ArrayLike], look: int = 0
) -> float:
    """P(an upper bound is crossed) averaged over a prior of the effect, given that the trial goes on after a look.

    Args:
        information: (looks,) information.
        upper: (looks,) z bounds.
        lower: (looks,) z bounds; None: none.
        prior: Effects and their weights, both (points,); without a look, their sum should be 1.
        look: From 1, no bound having been crossed by then; 0: before the trial.

    Source: Spiegelhalter, Freedman & Blackburn 1986, Control Clin Trials 7:8.
    """
    theta, weights = (np.asarray(each, dtype=np.float64) for each in prior)
    root = math.sqrt(float(np.asarray(information, dtype=np.float64)[-1]))
    exits = [exit_probabilities(information, upper, lower, float(effect) * root) for effect in theta]
    later = float(weights @ [each.upper[look:].sum() for each in exits])
    if look == 0:
        return later
    stopped = [each.upper[:look].sum() + each.lower[:look].sum() for each in exits]
    return later / float(weights @ (1.0 - np.array(stopped)))


def predicted_statistic(
    z: float, information: tuple[float, float], prior: tuple[ArrayLike, ArrayLike], probability: float
) -> float:
    """A quantile of the posterior predictive law of the z statistic at a later information.

    Args:
        z: The statistic now.
        information: Now, and later.
        prior: Effects and their weights, both (points,).
        probability: Of the quantile.

    Raises:
        ValueError: If information does not grow.
    """
    known, later = information
    if not 0 < known < later:
        raise ValueError(f"information must be above 0 and grow, got {information!r}")
    theta, weights = (np.asarray(each, dtype=np.float64) for each in prior)
    posterior = weights * norm.pdf(z - theta * math.sqrt(known))
    posterior = posterior / posterior.sum()
    mean = (z * math.sqrt(known) + theta * (later - known)) / math.sqrt(later)
    spread = math.sqrt((later - known) / later)
    low, high = float(mean.min()) - 10.0, float(mean.max()) + 10.0
    return float(brentq(lambda y: posterior @ norm.cdf((y - mean) / spread) - probability, low, high, xtol=1e-11))


@dataclass(frozen=True)
class TwoStage:
    """A two-stage trial in units of patients or events, whose second stage may be resized.

    Attributes:
        first: Patients of the first stage. planned: Of both stages.
        bounds: z bounds for rejection at either look.
    """

    first: float
    planned: float
    bounds: tuple[float, float]

    def __post_init__(self) -> None:
        if not 0 < self.first < self.planned:
            raise ValueError(f"first must be above 0 and below the planned {self.planned}, got {self.first!r}")

    def weighted(self, z1: float, second: float = math.nan) -> float:
        """The bound of the second stage's own z if both stages keep their planned weights; `second` does not matter.

        Source: Lehmacher & Wassmer 1999, Biometrics 55:1286; Cui, Hung & Wang 1999.
        """
        t = self.first / self.planned
        return (self.bounds[1] - z1 * math.sqrt(t)) / math.sqrt(1 - t)

    def sufficient(self, z1: float, second: float) -> float:
        """The bound of the second stage's own z if all patients weigh the same, whatever the second stage's size.

        Source: Chen, DeMets & Lan 2004, Stat Med 23:1023.
        """
        total = self.first + second
        return (self.bounds[1] * math.sqrt(total) - z1 * math.sqrt(self.first)) / math.sqrt(second)

    def fisher(self, z1: float, second: float = math.nan) -> float:
        """The bound of the second stage's own z if the product of the two p values is tested; `second` does not matter.

        Source: Bauer & Koehne 1994, Biometrics 50:1029.
        """
        product = math.exp(-0.5 * float(chi2.isf(norm.sf(self.bounds[1]), 4)))
        p2 = product / float(norm.sf(z1))
        return float(norm.isf(p2)) if p2 < 1 else -math.inf

    def conditional_power(
        self, z1: float, second: float, rule: Callable[[float, float], float], theta: float | None = None
    ) -> float:
        """P(rejection in the second stage).

        Args:
            z1: The statistic of the first stage.
            second: Patients of the second stage.
            rule: `weighted`, `sufficient` or `fisher` of this trial.
            theta: Effect per root patient; None: the estimate z1 / sqrt(first).
        """
        effect = z1 / math.sqrt(self.first) if theta is None else theta
        return float(norm.sf(rule(z1, second) - effect * math.sqrt(second)))

    def resized(
        self,
        z1: float,
        power: float,
        rule: Callable[[float, float], float],
        theta: float | None = None,
        largest: float = 1e7,
    ) -> float:
        """Patients of a second stage with this conditional power, at most `largest`."""

        def lack(second: float) -> float:
            return self.conditional_power(z1, second, rule, theta) - power

        if lack(largest) < 0:
            return largest
        return 0.0 if lack(1e-9) > 0 else float(brentq(lack, 1e-9, largest, xtol=1e-9))

    def promising_zone(
        self,
        zone: tuple[float, float],
        z1: float,
        power: float,
        rule: Callable[[float, float], float],
        theta: float,
        largest: float,
    ) -> float:
        """Patients of both stages if the second is resized where the conditional power as planned lies in a zone.

        Args:
            zone: From (included) and to (not included) which conditional power it is resized.
            z1: The statistic of the first stage.
            power: Conditional power wanted in the zone.
            rule: See `conditional_power`.
            theta: Effect per root patient.
            largest: The most patients of both stages.

        Source: Mehta & Pocock 2011, Stat Med 30:3267.
        """
        planned = self.conditional_power(z1, self.planned - self.first, rule, theta)
        if not zone[0] <= planned < zone[1]:
            return self.planned
        return min(self.first + self.resized(z1, power, rule, theta), largest)
