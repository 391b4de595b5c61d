"""How much more often twins break the rules than real subjects do, with interval and baseline as of every measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Measure
from medtwin.check.facts import Ints
from medtwin.check.plausibility import RuleCounter
from medtwin.check.resample import Plan, Sums, compare
from medtwin.check.rules import Rule

Floats = NDArray[np.float64]


def rule_measures(
    rules: Sequence[Rule],
    counters: tuple[RuleCounter, RuleCounter, RuleCounter | None],
    subjects: tuple[Ints, Ints, Ints | None],
    plan: Plan,
) -> list[Measure]:
    """The share of events that break a rule beyond the share of real events that do, averaged over rules.

    Args:
        rules: Those that were counted.
        counters: What was counted of the reference, the twins, and the control if there is one.
        subjects: Their ids as the plan has them, ascending.
        plan: How subjects are drawn.

    Returns:
        `rules.identities`: of numbers that must follow from each other; 0: as in the reference, 1: all are wrong.
        `rules.others`: of every other rule.
    """
    wanted: tuple[tuple[str, str, Callable[[Rule], bool]], ...] = (
        ("rules.identities", "Numbers that do not follow from each other, beyond real ones", _is_identity),
        ("rules.others", "Events that break a rule, beyond real ones", lambda rule: not _is_identity(rule)),
    )
    sides = [
        None if counter is None or ids is None else counter.counts(ids)
        for counter, ids in zip(counters, subjects, strict=True)
    ]
    return [_measure(name, title, [is_of(rule) for rule in rules], sides, plan) for name, title, is_of in wanted]


def _is_identity(rule: Rule) -> bool:
    return rule.kind == "identity"


def _measure(
    name: str,
    title: str,
    is_meant: list[bool],
    sides: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]] | None],
    plan: Plan,
) -> Measure:
    real, synthetic, control = sides
    assert real is not None
    assert synthetic is not None
    applies = [(side[0].sum(axis=0) > 0) & np.array(is_meant, bool) for side in (real, synthetic)]
    chosen = np.flatnonzero(applies[0] & applies[1])
    if not len(chosen):
        is_applicable = bool(applies[0].any())
        reason = "no such rule applies to the twins" if is_applicable else "no such rule applies to the real data"
        return Measure(name, title, None, 0, "lower", reason, is_applicable)
    features = [
        None if side is None else np.concatenate([part[:, chosen] for part in side], axis=1).astype(np.float32)
        for side in (real, synthetic, control)
    ]
    assert features[0] is not None
    assert features[1] is not None
    draws = compare(plan, features[0], features[1], features[2], _excess)
    return Measure(name, title, draws.estimate(plan), len(chosen))


def _excess(real: Sums, synthetic: Sums) -> Floats:
    """Mean over rules of the synthetic share less the real one where it is more, (draws,)."""
    half = real.shape[-1] // 2
    shares = [side[..., half:] / np.maximum(side[..., :half], 1) for side in (real, synthetic)]
    return np.asarray(np.maximum(shares[1] - shares[0], 0).mean(axis=-1))
