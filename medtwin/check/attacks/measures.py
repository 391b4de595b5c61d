"""What attacks find as measures, which gates judge."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import norm

from medtwin.check.attack_rows import Membership, Risk
from medtwin.check.attacks.suite import EVERYBODY, NEAREST_TWIN, WORST, AttackFindings, group_name
from medtwin.check.estimates import LEVEL, Estimate, Measure

TITLES = {
    "attacks.singling_out.one": "Singling out by one attribute: risk of training patients beyond that of others",
    "attacks.singling_out.several": "Singling out by several: risk of training patients beyond that of others",
    "attacks.linkability": "Linking two parts of what is known: risk of training patients beyond that of others",
    "attacks.inference": "Inferring what is not known: risk of training patients beyond that of others",
    "attacks.membership": "Who was in training, by the best attack (area under ROC, 0.5: not at all)",
    "attacks.membership_worst": "The same of the tenth of patients that is least like others",
}

REACH = float(norm.ppf((1 + LEVEL) / 2))
"""Standard errors from an estimate to either end of its interval."""


def no_attacks(reason: str) -> list[Measure]:
    """The measures of a check without attacks: not measured."""
    return [Measure(name, title, None, 0, reason=reason) for name, title in TITLES.items()]


def attack_measures(found: AttackFindings) -> list[Measure]:
    """The risks of everybody, and the membership attack that does best, of everybody and of the worst tenth."""
    measures = [risk_measure(f"attacks.{one.name}", TITLES[f"attacks.{one.name}"], one) for one in found.risks]
    for name, group in (("attacks.membership", EVERYBODY), ("attacks.membership_worst", WORST)):
        measures.append(best_membership(name, found.memberships, group_name(group)))
    return measures


def risk_measure(name: str, title: str, risk: Risk) -> Measure:
    """A risk as a measure: harmless twins have none, and by chance no more than the width of its interval says."""
    if risk.risk is None or risk.low is None or risk.high is None:
        return Measure(name, title, None, 0, reason=risk.reason)
    spread = (risk.high - risk.low) / 2 / REACH
    estimate = Estimate(risk.risk, risk.low, risk.high, 0.0, spread * float(norm.ppf(LEVEL)))
    return Measure(name, title, estimate, risk.train.tried)


def area_measure(name: str, title: str, area: float, spread: float, *, num_attacks: int, num_people: int) -> Measure:
    """The largest area of some attacks as a measure, with the interval and the baseline of the best of so many.

    Args:
        name: Of the measure.
        title: Of it.
        area: Under the ROC curve, of the best attack.
        spread: Its standard error.
        num_attacks: Among which it is the best.
        num_people: Behind it.
    """
    reach = spread * float(norm.ppf(1 - (1 - LEVEL) / 2 / num_attacks))
    worst = 0.5 + spread * float(norm.ppf(1 - (1 - LEVEL) / num_attacks))
    estimate = Estimate(area, max(area - reach, 0.0), min(area + reach, 1.0), 0.5, worst)
    return Measure(name, title, estimate, num_people)


def best_membership(name: str, memberships: Sequence[Membership], group: str) -> Measure:
    """The largest area of a group's attacks, but for distances to the nearest twin.

    Its interval and baseline are those of the best of so many.

    Args:
        name: Of the measure.
        memberships: Of all attacks and groups.
        group: Which one.
    """
    told = [one for one in memberships if one.group == group and one.name != NEAREST_TWIN and one.area is not None]
    if not told:
        reason = next((one.reason for one in memberships if one.group == group), "no attack was made")
        return Measure(name, TITLES[name], None, 0, reason=reason)
    best = max(told, key=lambda one: one.area or 0.0)
    assert best.area is not None
    assert best.high is not None
    spread, people = (best.high - best.area) / REACH, best.num_members + best.num_others
    return area_measure(name, TITLES[name], best.area, spread, num_attacks=len(told), num_people=people)
