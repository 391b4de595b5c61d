"""Collapse: what twins, and the generations before them, say of real anchors and of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medtwin.check.collapse.alarm import Change, change, level_of
from medtwin.check.collapse.diversity import VENDI, diversities
from medtwin.check.collapse.jackknife import Jackknifed
from medtwin.check.collapse.perplexity import (
    ANCHOR,
    ENTROPY,
    MAX_SUBJECTS,
    MIN_SUBJECTS,
    NUM_HALVES,
    SELF,
    Costs,
    Numbers,
    costs,
    sample_size,
)
from medtwin.check.collapse.rare import num_lost, rare_rows, shares_kept
from medtwin.check.collapse_rows import GenerationRow, RareRow
from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.gates import exact_interval
from medtwin.check.records import Records
from medtwin.core.seeds import generator

RARE_KEPT = "rare codes kept"
TITLES = {
    "collapse.anchor_excess": "Real anchors under a model of the twins: nats per token more than under one of patients",
    "collapse.anchor_growth": "The same: nats per token more than under a model of the first generation",
    "collapse.self_loss": "Self-perplexity: nats per token less than of real patients",
    "collapse.entropy_loss": "Entropy of tokens: nats less than of real patients",
    "collapse.rare_lost": "Share of the rare codes that twins have less often than chance explains",
}
_LOGARITHMS = (ANCHOR, SELF, VENDI)
_HIGHER_IS_WORSE = (ANCHOR,)


@dataclass(frozen=True)
class CollapseFindings:
    """What is found of collapse: measures, the numbers of every generation, and the rare codes."""

    measures: tuple[Measure, ...]
    generations: tuple[GenerationRow, ...]
    rare: tuple[RareRow, ...]


def collapse(
    real: Records,
    synthetic: Records,
    anchors: Records | None,
    earlier: Sequence[Records] = (),
    *,
    seed: int,
    depth: int = 1,
) -> CollapseFindings:
    """Everything that is measured of collapse.

    Args:
        real: The reference.
        synthetic: The twins, read with the same vocabulary.
        anchors: Real subjects that no generation was learned from; None: there are none.
        earlier: The generations before the twins, oldest first.
        seed: Decides who is drawn where there are more subjects than are compared.
        depth: Generations of synthetic ancestors, the twins themselves counted.
    """
    drawn = _in_random_order(real, "real", 2 * MAX_SUBJECTS, seed)
    others = None if anchors is None else _in_random_order(anchors, "anchors", MAX_SUBJECTS, seed)
    generations = [
        _in_random_order(one, f"generation {number}", MAX_SUBJECTS, seed)
        for number, one in enumerate((*earlier, synthetic), start=1)
    ]
    rare = rare_rows(real, synthetic)
    if not sample_size(drawn, others, generations) or others is None:
        reason = f"collapse needs {MIN_SUBJECTS} twins and anchors, and twice as many real patients"
        measures = [Measure(name, title, None, 0, reason=reason) for name, title in TITLES.items()]
        return CollapseFindings((*measures[:-1], _rare_measure(rare)), (), tuple(rare))
    found = costs(drawn, others, generations, generator(seed, "check", "collapse", "halves"))
    number = generations[-1].num_subjects
    told = (
        _against_real(found, ANCHOR, "collapse.anchor_excess", number),
        _growth(found, depth),
        _against_real(found, SELF, "collapse.self_loss", number),
        _against_real(found, ENTROPY, "collapse.entropy_loss", number),
        _rare_measure(rare),
    )
    return CollapseFindings(told, tuple(_generation_rows(found, drawn, generations, real)), tuple(rare))


def _in_random_order(records: Records, who: str, most: int, seed: int) -> Records:
    rng = generator(seed, "check", "collapse", who)
    return records.take(rng.permutation(records.num_subjects)[:most])


def _against_real(found: Costs, name: str, measure: str, number: int) -> Measure:
    """How much worse the twins are than real subjects, beside how much worse other real ones are."""
    sign = 1.0 if name in _HIGHER_IS_WORSE else -1.0
    difference = found.generations[-1][name].minus(found.real[name])
    low, high = difference.interval()
    halves = sign * found.halves[name]
    spread = float(np.std(halves, ddof=1)) * float(stats.t.ppf(LEVEL, NUM_HALVES - 1)) * np.sqrt(1 + 1 / NUM_HALVES)
    worst = float(np.mean(halves) + spread)
    ends = (low, high) if sign > 0 else (-high, -low)
    return Measure(
        measure, TITLES[measure], Estimate(sign * difference.value, *ends, float(np.mean(halves)), worst), number
    )


def _growth(found: Costs, depth: int) -> Measure:
    name = "collapse.anchor_growth"
    number = len(found.generations)
    if number < 2:
        reason = "earlier generations were not given"
        return Measure(name, TITLES[name], None, 0, reason=reason, applicable=depth > 1)
    first, last = found.generations[0][ANCHOR], found.generations[-1][ANCHOR]
    difference, judged = last.minus(first), change(first, last, number)
    estimate = Estimate(difference.value, *difference.interval(), 0.0, judged.limit)
    return Measure(name, TITLES[name], estimate, found.num_anchors)


def _rare_measure(rare: Sequence[RareRow]) -> Measure:
    name = "collapse.rare_lost"
    if not rare:
        return Measure(
            name, TITLES[name], None, 0, reason="no rare code is frequent enough to be tested", applicable=False
        )
    lost = sum(row.is_lost for row in rare)
    estimate = Estimate(lost / len(rare), *exact_interval(lost, len(rare)), 0.0, 0.0)
    return Measure(name, TITLES[name], estimate, len(rare))


def _generation_rows(
    found: Costs, drawn: Records, generations: Sequence[Records], real: Records
) -> list[GenerationRow]:
    """The numbers of every generation, and of other real subjects in their place as generation 0."""
    size = found.size
    fresh = drawn.take(np.arange(size, 2 * size))
    sides = [fresh, *(one.take(np.arange(size)) for one in generations)]
    numbers: list[Numbers] = [dict(one) for one in (found.fresh, *found.generations)]
    for one, more in zip(numbers, diversities(drawn.take(np.arange(size)), sides), strict=True):
        one.update(more)
    if kept := shares_kept(real, sides):
        for one, share in zip(numbers, kept, strict=True):
            one[RARE_KEPT] = share
    rows = []
    for generation, one in enumerate(numbers):
        for name, number in one.items():
            judged = None
            if generation > 1 and name == RARE_KEPT:
                judged = _rare_change(sides, generation)
            elif generation > 1:
                judged = _change(numbers[1][name], number, generation, name)
            rows.append(_row(generation, name, number, judged))
    return rows


def _change(first: Jackknifed, later: Jackknifed, generation: int, name: str) -> Change:
    return change(first, later, generation) if name in _HIGHER_IS_WORSE else change(later, first, generation)


def _rare_change(sides: Sequence[Records], generation: int) -> Change:
    """How many rare codes are lost since the first generation; none may be."""
    lost = num_lost(sides[1], sides[generation], level_of(generation))
    return Change(lost, 0.0, lost > 0)


def _row(generation: int, name: str, number: Jackknifed, judged: Change | None) -> GenerationRow:
    value = number.value, *number.interval()
    if name in _LOGARITHMS:
        value = float(np.exp(value[0])), float(np.exp(value[1])), float(np.exp(value[2]))
    if judged is None:
        return GenerationRow(generation, name, *value)
    return GenerationRow(generation, name, *value, judged.value, judged.limit, judged.alarm)
