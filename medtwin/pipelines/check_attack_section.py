"""The section of a check's page about attacks: who is worse off because the twins were learned from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from medtwin.check import Findings
from medtwin.check.attack_rows import GroupRisk, Membership, Risk, TruePositives
from medtwin.pipelines.report_text import Cells
from medtwin.report import Section, Table

NUM_ATTRIBUTES = 10
_RISKS = ["attack", "risk", "interval", "right of training patients", "of others", "without the twins"]


def attacks_section(findings: Findings) -> Section | None:
    """The risks, those of groups, and what tells who was in training; None where the twins were not attacked."""
    if not findings.risks and not findings.memberships:
        return None
    general = [one for one in findings.risks if not one.name.startswith("inference of")]
    single = [one for one in findings.risks if one.name.startswith("inference of") and one.low is not None]
    single = sorted(single, key=lambda one: -(one.low or 0.0))[:NUM_ATTRIBUTES]
    text = (
        "Each attack is tried on patients that the twins were learned from and on real ones that training did not see. "
        "The risk is the share of the former whom it finds only because of that: 0 of harmless twins, 1 where all of "
        "them are found. What an attack finds of others too is not the twins' doing. Nothing here makes the twins "
        "anonymous: another attack may find more."
    )
    parts = [
        Table(_RISKS, [_risk(one.title, one) for one in general], "What is learned of everybody"),
        Table(_RISKS, [_risk(one.name, one) for one in single], "Attributes that are inferred most"),
    ]
    known = [one for one in findings.group_risks if one.risk.risk is not None]
    groups: list[Cells] = [_risk(f"{one.risk.name}, {one.division} {one.group}", one.risk) for one in known]
    if findings.group_risks:
        parts.append(Table(_RISKS, groups, "The same in groups", _unknown(findings.group_risks)))
    columns = [
        "score",
        "patients",
        "training, others",
        "area under ROC",
        "interval",
        "found at 1 % false alarms",
        "at 0.1 %",
    ]
    parts.append(
        Table(
            columns,
            [_membership(one) for one in findings.memberships],
            "Who was in training",
            "0.5: the score does not tell. Found: share of training patients while 1 in 100, or 1,000, of the others "
            "are taken for one; not estimable below 1,000 and 10,000 others. No gate looks at the distance to the "
            "nearest twin.",
        )
    )
    return Section("What an attacker learns", [text], parts)


def _unknown(risks: Sequence[GroupRisk]) -> str:
    """How many risks of groups are not known, and why, in a sentence; empty of none."""
    counts = Counter(one.risk.reason for one in risks if one.risk.risk is None)
    told = "; ".join(f"{number}: {reason}" for reason, number in counts.most_common())
    return f"Not estimable, and in tables/risks.csv: {told}." if told else ""


def attack_tables(findings: Findings) -> dict[str, list[dict[str, Any]]]:
    """The rows of tables/risks.csv and tables/memberships.csv."""
    named = [("", "everybody", one) for one in findings.risks]
    named += [(one.division, one.group, one.risk) for one in findings.group_risks]
    risks = [
        {
            "attack": one.name,
            "division": division,
            "group": group,
            "risk": one.risk,
            "low": one.low,
            "high": one.high,
            "rate_train": one.train.rate if one.train.tried else None,
            "rate_control": one.control.rate if one.control.tried else None,
            "rate_naive": one.naive.rate if one.naive and one.naive.tried else None,
            "attempts_train": one.train.tried,
            "attempts_control": one.control.tried,
            "scale": one.scale,
            "reason": one.reason,
        }
        for division, group, one in named
    ]
    memberships = [
        {
            "score": one.name,
            "group": one.group,
            "num_members": one.num_members,
            "num_others": one.num_others,
            "area": one.area,
            "low": one.low,
            "high": one.high,
            **{f"{part}_at_{each.false_positives:g}": getattr(each, part)
               for each in one.found for part in ("rate", "low", "high")},
            "reason": one.reason,
        }
        for one in findings.memberships
    ]  # fmt: skip
    return {"risks": risks, "memberships": memberships}


def _risk(title: str, one: Risk) -> Cells:
    blind = None if one.naive is None or not one.naive.tried else f"{one.naive.rate:.1%}"
    if one.risk is None or one.low is None or one.high is None:
        return [title, None, one.reason, None, None, blind]
    ends = f"{one.low:.3f} \N{EN DASH} {one.high:.3f}"
    return [title, f"{one.risk:.3f}", ends, f"{one.train.rate:.1%}", f"{one.control.rate:.1%}", blind]


def _membership(one: Membership) -> Cells:
    sizes = f"{one.num_members:,}, {one.num_others:,}"
    if one.area is None or one.low is None or one.high is None:
        return [one.name, one.group, sizes, None, one.reason, None, None]
    ends = f"{one.low:.3f} \N{EN DASH} {one.high:.3f}"
    return [one.name, one.group, sizes, f"{one.area:.3f}", ends, *(_found(each) for each in one.found)]


def _found(one: TruePositives) -> str | None:
    if one.rate is None or one.low is None or one.high is None:
        return None
    return f"{one.rate:.1%} ({one.low:.1%} \N{EN DASH} {one.high:.1%})"
