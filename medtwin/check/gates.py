"""Gates: a bound on a measure, relative to what real data reaches against itself. Fail closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scipy.special import betaincinv

from medtwin.check.controls import BREAKS
from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.findings import CopyRow, Findings, RuleRow
from medtwin.check.image_controls import IMAGE_BREAKS
from medtwin.check.rules import IMPOSSIBLE
from medtwin.core.errors import ConfigError
from medtwin.core.verdict import SHIPPED, Outcome, Unchecked

MAX_NAMES = 6
"""Broken rules that a gate names; all of them stand in the findings."""
IMAGE_COPIES = ("copies.images", "copies.images_near", "duplicates.images")
"""Kinds of copies that are not counted where no image is read."""
RULES = "rules"
"""The metric of a gate that judges the hard rules instead of a measure."""
OTHER_CONTROLS = (
    "impossible events",
    "numbers dealt anew",
    "outcomes dealt anew",
    "canaries remembered",
    "generations replaced",
    "identifiers planted",
    "every image copied",
    "losses of training images halved",
    "outcomes of a group dealt anew",
    "numbers of a group moved",
    "a group copied",
    "small cells copied",
)
"""Faults that are made of event tables, in tests/check, besides those of `controls` and `image_controls`."""


@dataclass(frozen=True)
class Gate:
    """A bound.

    Attributes:
        name: Stable name. title: What it asks, in words.
        metric: The measure or kind of copy that it judges, or `rules`.
        bound: The value may be so much: a difference too small to matter to the use.
        times_baseline: ... or so many times what 95 % of real-versus-real comparisons stay within, where that is more.
        control: The faults that must fail it, by name: of `BREAKS`, `IMAGE_BREAKS` or `OTHER_CONTROLS`.
        min_subjects: Real and synthetic subjects below which it says nothing.
        blind_above: A limit above this would let its controls pass: the real subjects are then too few, or too unlike
            each other, for the gate to tell; it is unchecked. None: never.
        rules: Of the metric `rules`: those of what cannot be, or all of them.
        by_interval: It passes where all of the interval is within the bound, fails where all of it is beyond, and is
            unchecked between: a risk is to be excluded, not only not to be found.
        is_exact: What chance does is known however few subjects there are: it fails below `min_subjects` too.

    Raises:
        ConfigError: If a number is missing or negative, or no control is named.
    """

    name: str
    title: str
    metric: str
    control: tuple[str, ...]
    bound: float | None = None
    times_baseline: float = 0.0
    min_subjects: int = 50
    blind_above: float | None = None
    rules: Literal["impossible", "all"] = "impossible"
    by_interval: bool = False
    is_exact: bool = False

    def __post_init__(self) -> None:
        known = [*BREAKS, *IMAGE_BREAKS, *OTHER_CONTROLS]
        if not self.control or (unknown := [name for name in self.control if name not in known]):
            raise ConfigError(
                f"gate {self.name}: control must name faults that fail it, of {', '.join(known)}; got "
                f"{', '.join(unknown) if self.control else 'none'}"
            )
        if self.rules not in ("impossible", "all"):
            raise ConfigError(f"gate {self.name}: rules must be impossible or all, got {self.rules!r}")
        if self.metric == RULES:
            return
        if self.bound is None:
            raise ConfigError(f"gate {self.name}: bound must be given, as in gates.judge.{self.name}.bound=0.1")
        for setting, value in (("bound", self.bound), ("times_baseline", self.times_baseline)):
            if value < 0:
                raise ConfigError(f"gate {self.name}: {setting} must be 0 or more, got {value:g}")


@dataclass(frozen=True)
class Profile:
    """The gates of one use of the twins.

    Attributes:
        name: As in `public`. about: What it is for, in words.
        unchecked: What a gate that is unchecked means: `allowed` lets the twins through, `refused` does not.
        gates: In the order in which they are told.

    Raises:
        ConfigError: If there is no gate, or unchecked has another value.
    """

    name: str
    about: str
    unchecked: Unchecked
    gates: tuple[Gate, ...]

    def __post_init__(self) -> None:
        if not self.gates:
            raise ConfigError("gates.judge must name at least one gate")
        if self.unchecked not in ("allowed", "refused"):
            raise ConfigError(f"gates.unchecked must be allowed or refused, got {self.unchecked!r}")


def profile_from(config: Mapping[str, Any], shipped: Mapping[str, Any] | None = None) -> Profile:
    """The profile of a configuration (`configs/gates/`).

    Args:
        config: With profile, about, unchecked and judge.
        shipped: The profile of this name as it ships; where it differs, the name says so, and with it the verdict.

    Raises:
        ConfigError: If it is not complete or has unknown settings.
    """
    values = dict(config)
    try:
        name, about, unchecked, judged = (values.pop(key) for key in ("profile", "about", "unchecked", "judge"))
    except KeyError as error:
        raise ConfigError(f"gates must have {error.args[0]}: choose gates={', gates='.join(SHIPPED)}") from error
    if values:
        raise ConfigError(f"gates has no setting {next(iter(values))!r}, only profile, about, unchecked and judge")
    gates = []
    for gate, settings in judged.items():
        try:
            gates.append(Gate(gate, **{**settings, "control": tuple(settings.get("control") or ())}))
        except TypeError as error:
            raise ConfigError(f"gate {gate}: {error}") from error
    if shipped is not None and config != shipped:
        name = f"{name}, changed"
    return Profile(name, about, unchecked, tuple(gates))


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


def judge(findings: Findings, profile: Profile) -> tuple[GateResult, ...]:
    """The outcome of every gate.

    Raises:
        ConfigError: If a gate is of something that is not measured.
    """
    measures = {one.name: one for one in findings.measures}
    copies = {one.name: one for one in findings.copies}
    results = []
    for gate in profile.gates:
        if gate.metric == RULES:
            results.append(_judge_rules(gate, findings))
        elif gate.metric in measures:
            results.append(_judge_measure(gate, measures[gate.metric], findings))
        elif gate.metric in copies:
            results.append(_judge_copies(gate, copies[gate.metric], findings))
        elif gate.metric in IMAGE_COPIES:
            results.append(_without_images(gate, findings))
        else:
            known = ", ".join([*measures, *copies, RULES])
            raise ConfigError(f"gate {gate.name}: metric must be one of {known}, got {gate.metric!r}")
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


def limit_of(gate: Gate, estimate: Estimate) -> float:
    """What a value may be, lower being better: the bound, or more where real data differs more among itself."""
    return max(gate.times_baseline * estimate.baseline_worst, gate.bound or 0.0)


def _judge_measure(gate: Gate, measure: Measure, findings: Findings) -> GateResult:
    estimate = measure.estimate
    if estimate is None:
        outcome: Outcome = "unchecked" if measure.applicable else "not_applicable"
        return GateResult(gate.name, gate.title, outcome, reason=measure.reason)
    if measure.better == "higher":
        estimate = estimate.complement()
    if gate.by_interval:
        return _judge_interval(gate, estimate, _too_few(gate, findings))
    limit = limit_of(gate, estimate)
    is_within = estimate.value <= limit  # false of NaN, which fails
    reason = _too_few(gate, findings)
    if not reason and is_within and gate.blind_above is not None and limit > gate.blind_above:
        reason = (
            f"real subjects differ too much among themselves to tell: a limit above {gate.blind_above:g} finds nothing"
        )
    if not is_within and gate.is_exact:
        reason = ""
    outcome = "unchecked" if reason else "passed" if is_within else "failed"
    return _result(gate, outcome, estimate, limit, reason)


def _judge_interval(gate: Gate, estimate: Estimate, reason: str) -> GateResult:
    bound = gate.bound or 0.0
    outcome: Outcome = "failed"
    if not estimate.low > bound:
        if not reason and not estimate.high <= bound:
            reason = f"{bound:g} cannot be excluded: the interval ends at {estimate.high:.2g}"
        outcome = "unchecked" if reason else "passed"
    return _result(gate, outcome, estimate, bound, "" if outcome == "failed" else reason)


def _result(gate: Gate, outcome: Outcome, estimate: Estimate, limit: float, reason: str) -> GateResult:
    return GateResult(
        gate.name, gate.title, outcome, estimate.value, estimate.low, estimate.high, estimate.baseline, limit, reason
    )


def _judge_copies(gate: Gate, copies: CopyRow, findings: Findings) -> GateResult:
    """A copy is a copy however few subjects there are; that there is none means something from the floor on."""
    limit = max(gate.times_baseline * copies.baseline, gate.bound or 0.0)
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
    return rule.outcome == "broken"


def _judge_rules(gate: Gate, findings: Findings) -> GateResult:
    judged = [one for one in findings.rules if gate.rules == "all" or one.kind in IMPOSSIBLE]
    tested = [one for one in judged if one.outcome in ("kept", "broken")]
    if not tested:
        reason = "no rule applies to anybody on both sides" if judged else "no rule was given"
        return GateResult(gate.name, gate.title, "unchecked", reason=reason)
    broken = [one for one in tested if is_broken(one)]
    worst = max(broken or tested, key=lambda one: one.share_synthetic - one.real_share_high)
    low, high = exact_interval(min(worst.num_synthetic, worst.applicable[1]), worst.applicable[1])
    names = [f"{one.rule} ({one.num_synthetic})" for one in broken]
    told = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
    reason = told or _too_few(gate, findings)
    outcome: Outcome = "failed" if broken else "unchecked" if reason else "passed"
    numbers = worst.share_synthetic, low, high, worst.share_real, worst.real_share_high
    return GateResult(gate.name, gate.title, outcome, *numbers, reason)
