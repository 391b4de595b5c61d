"""Gates: a bound on a measure, relative to what real data reaches against itself. Fail closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.special import betaincinv

from medtwin.check.findings import LEVEL, CopyRow, Estimate, Findings, Measure, RuleRow
from medtwin.core.errors import ConfigError
from medtwin.core.verdict import ALLOWED, Outcome

RULES = "rules"
"""What a gate is `of` when it judges the hard rules instead of a measure."""


@dataclass(frozen=True)
class Gate:
    """A bound, by profile.

    Attributes:
        name: Stable name. title: What it asks, in words.
        of: The measure or kind of copy that it judges, or `rules`.
        times_baseline: The value may be so many times what 95 % of real-versus-real comparisons stay within.
        at_most: ... or this, where that is more: a difference too small to matter to the use.
        min_subjects: Real and synthetic subjects below which it says nothing.
        blind_above: A limit above this would let broken data pass: the real subjects are then too few, or too unlike
            each other, for the gate to tell; it is unchecked. None: never.

    Raises:
        ConfigError: If a profile is missing or a number is negative.
    """

    name: str
    title: str
    of: str
    times_baseline: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    min_subjects: int = 50
    blind_above: float | None = None

    def __post_init__(self) -> None:
        for setting in ("times_baseline", "at_most"):
            values = getattr(self, setting)
            if self.of != RULES and set(values) != set(ALLOWED):
                raise ConfigError(
                    f"gate {self.name}: {setting} must name {', '.join(ALLOWED)}, got {', '.join(values)}"
                )
            if any(value < 0 for value in values.values()):
                raise ConfigError(f"gate {self.name}: {setting} must be 0 or more")


def gates_from(config: Mapping[str, Mapping[str, Any]]) -> tuple[Gate, ...]:
    """The gates of a configuration, by name.

    Raises:
        ConfigError: If one is not complete or has unknown settings.
    """
    gates = []
    for name, values in config.items():
        try:
            gates.append(Gate(name, **values))
        except TypeError as error:
            raise ConfigError(f"gate {name}: {error}") from error
    if not gates:
        raise ConfigError("gates must name at least one gate")
    return tuple(gates)


@dataclass(frozen=True)
class GateResult:
    """What a gate says.

    Attributes:
        value: The measured number; None where there is none.
        low, high: Its interval. baseline: The mean real-versus-real value. limit: What it may be.
        reason: Why it is unchecked or not applicable, or what fails.
    """

    name: str
    title: str
    outcome: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    limit: float | None = None
    reason: str = ""


def judge(findings: Findings, gates: Sequence[Gate], profile: str) -> tuple[GateResult, ...]:
    """The outcome of every gate under a profile.

    Raises:
        ConfigError: If the profile is unknown, or a gate is of something that is not measured.
    """
    if profile not in ALLOWED:
        raise ConfigError(f"profile must be one of {', '.join(ALLOWED)}, got {profile!r}")
    measures = {one.name: one for one in findings.measures}
    copies = {one.name: one for one in findings.copies}
    results = []
    for gate in gates:
        if gate.of == RULES:
            results.append(_judge_rules(gate, findings))
        elif gate.of in measures:
            results.append(_judge_measure(gate, measures[gate.of], findings, profile))
        elif gate.of in copies:
            results.append(_judge_copies(gate, copies[gate.of], findings, profile))
        elif gate.of.endswith(".images"):
            results.append(_without_images(gate, findings))
        else:
            known = ", ".join([*measures, *copies, RULES])
            raise ConfigError(f"gate {gate.name}: of must be one of {known}, got {gate.of!r}")
    return tuple(results)


def _without_images(gate: Gate, findings: Findings) -> GateResult:
    if findings.num_images[1]:
        return GateResult(gate.name, gate.title, "unchecked", reason="the images were not read")
    return GateResult(gate.name, gate.title, "not_applicable", reason="the twins have no images")


def _too_few(gate: Gate, findings: Findings) -> str:
    fewest = min(findings.num_real, findings.num_synthetic)
    if fewest >= gate.min_subjects:
        return ""
    return (
        f"needs {gate.min_subjects} subjects on both sides, there are {findings.num_real} and {findings.num_synthetic}"
    )


def _judge_measure(gate: Gate, measure: Measure, findings: Findings, profile: str) -> GateResult:
    estimate = measure.estimate
    if estimate is None:
        outcome: Outcome = "unchecked" if measure.applicable else "not_applicable"
        return GateResult(gate.name, gate.title, outcome, reason=measure.reason)
    if measure.better == "higher":
        estimate = estimate.complement()
    limit = max(gate.times_baseline[profile] * estimate.baseline_worst, gate.at_most[profile])
    reason = _too_few(gate, findings)
    is_within = estimate.value <= limit
    if not reason and is_within and gate.blind_above is not None and limit > gate.blind_above:
        reason = (
            f"real subjects differ too much among themselves to tell: a limit above {gate.blind_above:g} finds nothing"
        )
    outcome = "unchecked" if reason else "passed" if is_within else "failed"
    return _result(gate, outcome, estimate, limit, reason)


def _result(gate: Gate, outcome: Outcome, estimate: Estimate, limit: float, reason: str) -> GateResult:
    return GateResult(
        gate.name, gate.title, outcome, estimate.value, estimate.low, estimate.high, estimate.baseline, limit, reason
    )


def _judge_copies(gate: Gate, copies: CopyRow, findings: Findings, profile: str) -> GateResult:
    """A copy is a copy however few subjects there are; that there is none means something from the floor on."""
    limit = max(gate.times_baseline[profile] * copies.baseline, gate.at_most[profile])
    low, high = exact_interval(copies.num_copies, copies.num_checked)
    reason = _too_few(gate, findings)
    if copies.share > limit:
        outcome: Outcome = "failed"
        reason = f"{copies.num_copies} of {copies.num_checked}"
    elif reason or not copies.num_checked:
        outcome, reason = "unchecked", reason or "there is nothing long enough to look at"
    else:
        outcome = "passed"
    return GateResult(gate.name, gate.title, outcome, copies.share, low, high, copies.baseline, limit, reason)


def exact_interval(hits: int, total: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a share at `LEVEL`; (0, 1) of nothing.

    Source: Clopper & Pearson 1934, Biometrika 26:404.

    >>> exact_interval(0, 0)
    (0.0, 1.0)
    >>> [round(bound, 4) for bound in exact_interval(5, 10)]
    [0.1871, 0.8129]
    """
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(hits, total - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, total - hits, 1 - tail)) if hits < total else 1.0
    return low, high


def is_broken(rule: RuleRow) -> bool:
    """Whether the twins break a rule more than the real subjects may: at all, where no real subject does."""
    return rule.share_synthetic > rule.real_share_high


def _judge_rules(gate: Gate, findings: Findings) -> GateResult:
    if not findings.rules:
        return GateResult(gate.name, gate.title, "unchecked", reason="no rule was given")
    broken = [rule for rule in findings.rules if is_broken(rule)]
    worst = max(findings.rules, key=lambda rule: rule.share_synthetic - rule.real_share_high)
    low, high = exact_interval(min(worst.num_synthetic, findings.num_synthetic), findings.num_synthetic)
    reason = ", ".join(f"{rule.rule} ({rule.num_synthetic})" for rule in broken) or _too_few(gate, findings)
    outcome: Outcome = "failed" if broken else "unchecked" if reason else "passed"
    return GateResult(
        gate.name,
        gate.title,
        outcome,
        worst.share_synthetic,
        low,
        high,
        worst.share_real,
        worst.real_share_high,
        reason,
    )
