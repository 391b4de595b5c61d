"""What a gate of a shipped profile says of one measure."""

from __future__ import annotations

from medtwin.check import Findings, Measure, Profile, Rule, judge

Shipped = tuple[dict[str, Profile], tuple[Rule, ...]]


def outcome(measure: Measure, gate: str, shipped: Shipped, profile: str = "partner", *, number: int = 500) -> str:
    one = shipped[0][profile]
    gates = tuple(each for each in one.gates if each.name == gate)
    assert [each.metric for each in gates] == [measure.name]
    (found,) = judge(Findings(number, number, 0, (measure,)), Profile(one.name, one.about, one.unchecked, gates))
    return found.outcome
