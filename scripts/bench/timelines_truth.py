#!/usr/bin/env python3
"""Twins of the embedded hospital against what is known to be true of it: one page of tables.

    .venv/bin/python scripts/bench/timelines_truth.py --real my/dataset --twins my/twins [more/twins ...]
        [--counterfactual my/twins my/older my/women] [--fresh-cache FOLDER] [--write docs/results/timelines_truth.md]
    .venv/bin/python scripts/bench/timelines_truth.py ablation full=my/twins without_z=other/twins --real my/dataset
    .venv/bin/python scripts/bench/timelines_truth.py controls --real my/dataset

`--real` is an ingested draw of the hospital with another seed than 1 to 5, which are drawn here: 1 is the fresh draw
that transitions, numbers and lengths are compared with, 2 the large draw that gives the effects their truth, 5 are
pairs of lives with and without a change; 3 and 4 stand for twins in the controls. They are made once per cache, at
about 150 subjects a second of one core.

Every number has a 95 % interval from resampled subjects (200 resamples). `real` is the same number of as many training
subjects: the best that a model can learn from them. `floor` is data that is broken: codes dealt anew over all events,
numbers from a normal law, ages and sexes of somebody else. Several sets of twins, such as those of three training
seeds, stand below each other.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pages import read_page, said_lines
from timelines_truth_cohorts import Cohort, read_cohort, shuffled_subjects, shuffled_values
from timelines_truth_counterfactual import Pairs, Shift, kept, label_of, read_pairs, shifts, true_pairs
from timelines_truth_measures import NUM_RESAMPLES, Interval
from timelines_truth_scores import (
    MAX_MASKED,
    Line,
    Scores,
    Tally,
    Violations,
    World,
    count_rules,
    fidelity_lines,
    masked_mass,
    normal_values,
    tally,
    violations,
)

from medtwin.check.controls import shuffled_columns
from medtwin.core.seeds import generator
from medtwin.hospital.counterfactual import Change

SECOND_SEED, OTHER_PAIRS_SEED, PAIRS_SEED = 3, 4, 5
CONTROL_PAIRS = 4_000
_ROW = "| {} | n | R2 joint | R2 given | R2 visits | KS | worst length error | goals | effects held | told | {} |"
_RULE = "|---|---|---|---|---|---|---|---|---|---|---|"


def shown(value: float, digits: int = 3) -> str:
    """A number, or a dash."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def spread(one: Interval, digits: int = 3) -> str:
    """A number with its interval."""
    if not math.isfinite(one.low):
        return shown(one.value, digits)
    return f"{one.value:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"


def answer(is_met: bool | None) -> str:
    """yes, NO, or not measured."""
    return "not measured" if is_met is None else "yes" if is_met else "**NO**"


@dataclass(frozen=True)
class Judged:
    """One set of twins with all that was found."""

    scores: Scores
    lines: list[Line]
    tally: Tally
    effects: list[str]

    @property
    def num_met(self) -> int:
        """Goals of fidelity that are reached."""
        return sum(line.is_met is True for line in self.lines)


def judge(world: World, name: str, cohort: Cohort) -> Judged:
    """Measures and judges a cohort."""
    scores = world.score(name, cohort)
    lines = fidelity_lines(scores, world.real_of(cohort.size), world.floor_of(cohort))
    strict, fair = world.held(scores)
    rows = []
    for one, other, train in zip(strict, fair, world.train_effects, strict=True):
        truth = one.truth.interval
        cells = [
            one.twins.family,
            one.twins.name,
            "" if one.twins.law is None else f"{one.twins.law:.2f}",
            f"{shown(truth.value, 2)} +- {shown(truth.error, 2)}",
            spread(train.interval, 2),
            spread(one.twins.interval, 2),
            f"{one.twins.size:,}",
            answer(one.holds),
            shown(other.z, 1),
            "yes" if one.is_told else "no",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return Judged(scores, lines, tally(strict, fair, world.train_effects), rows)


def fidelity_table(one: Judged) -> list[str]:
    """Transitions, numbers and lengths."""
    lines = ["| measure | twins (95 %) | real | floor | goal | met |", "|---|---|---|---|---|---|"]
    for line in one.lines:
        cells = [line.what, spread(line.twins), shown(line.real), shown(line.floor), line.goal, answer(line.is_met)]
        lines.append(f"| {' | '.join(cells)} |")
    worst = sorted(one.scores.values.by_code.items(), key=lambda item: -item[1])[:5]
    named = ", ".join(f"{code} {distance:.3f}" for code, distance in worst)
    return [*lines, "", f"Codes whose numbers are farthest off (KS): {named}."]


def effects_table(one: Judged) -> list[str]:
    """Effects, and how many hold."""
    counts = one.tally
    head = "| family | effect | law | truth +- SE | training subjects | twins (95 %) | n | holds | z | told from 0 |"
    return [
        head,
        "|---|---|---|---|---|---|---|---|---|---|",
        *one.effects,
        "",
        f"`holds`: the twins' own interval contains the truth: {counts.strict} of {counts.asked}",
        f"({counts.measured} could be measured); a perfect model of these training subjects would reach",
        f"{counts.expected:.1f}, since it inherits their sampling error. `z` counts that error and the truth's too:",
        f"{counts.fair} of {counts.asked} lie within 1.96; chance alone misses up to {counts.most_missed} in 99 of 100",
        f"cases. Goal met: {answer(counts.is_met)}. Power: of {counts.tellable} effects that are not none, the twins'",
        f"intervals tell {counts.told} from none.",
    ]


def shift_table(pairs: Pairs, rows: Sequence[Shift]) -> list[str]:
    """What a change does."""
    head = (
        "| outcome | lives before | twins before | true change (95 %) | twins' change (95 %) | off | pairs | verdict |"
    )
    lines = [f"{pairs.factual.size:,} pairs, {label_of(pairs.change)}.", "", head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        off = (row.twins.value / row.truth.value - 1) if row.is_real else float("nan")
        cells = [
            row.outcome,
            shown(row.true_before, 2),
            shown(row.before, 2),
            spread(row.truth, 3),
            spread(row.twins, 3),
            f"{off:+.0%}" if math.isfinite(off) else f"of {row.allowed:.3f} allowed",
            f"{row.num_pairs:,}",
            row.verdict,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    real = [row for row in rows if row.is_real]
    small = [row for row in rows if not row.is_real]
    lines += [
        "",
        f"Of {len(real)} effects (more than 0.2 SD), within 10 % of the truth: {_verdicts(real)}. Of {len(small)}",
        f"that are as good as none, within 0.02 SD or 10 %: {_verdicts(small)}.",
        "",
        "| kept or reached | share | pairs that state it |",
        "|---|---|---|",
    ]
    lines += [f"| {one.what} | {shown(one.share, 4)} | {one.num_pairs:,} |" for one in kept(pairs)]
    return lines


def _verdicts(rows: Sequence[Shift]) -> str:
    verdicts = [row.verdict for row in rows]
    good = sum(one in ("within", "proven") for one in verdicts)
    others = ", ".join(
        f"{verdicts.count(one)} {one}" for one in ("unclear", "outside", "not measured") if one in verdicts
    )
    return f"{good} ({verdicts.count('proven')} proven){', ' if others else ''}{others}"


def masks_text(found: Violations) -> str:
    """Violations, in a sentence."""
    broken = ", ".join(f"{rule} ({mine}; real {theirs})" for rule, (mine, theirs) in found.masked.items()) or "none"
    others = ", ".join(f"{rule} ({mine:.1%}; real {theirs:.1%})" for rule, (mine, theirs) in found.others.items())
    mass = "not stated" if found.mass is None else f"{found.mass:.2%} (goal under {MAX_MASKED:.0%})"
    return (
        f"Rules that masks keep, broken: {broken} (of {found.num_rules} that apply). Masked probability: {mass}. "
        f"Other hard rules, share of subjects that break them: {others or 'none'}."
    )


def counterfactual_section(world: World, folders: Sequence[Path], chosen: argparse.Namespace) -> list[str]:
    """The tables of some counterfactual datasets of one factual dataset."""
    factual = read_cohort(folders[0], world.vocabulary)
    lines = ["", "## Counterfactual twins"]
    for folder in folders[1:]:
        pairs = read_pairs(factual, read_cohort(folder, world.vocabulary), folder)
        lives = true_pairs(chosen.fresh_cache, world.vocabulary, pairs.change, chosen.pairs, PAIRS_SEED)
        rows = shifts(pairs, lives, seed=world.seed, num_resamples=NUM_RESAMPLES)
        lines += ["", f"### {folder.name}", "", *shift_table(pairs, rows)]
    return lines


def report(world: World, chosen: argparse.Namespace) -> list[str]:
    """The page of some sets of twins."""
    lines = [*_head(world), f"Command: `.venv/bin/python scripts/bench/timelines_truth.py --real {chosen.real} ...`"]
    real = count_rules(chosen.real)
    judged = [judge(world, folder.name, read_cohort(folder, world.vocabulary)) for folder in chosen.twins]
    if len(judged) > 1:
        lines += ["", _ROW.format("twins", "masked"), _RULE]
        lines += [
            _row(one.scores.name, one, _percent(masked_mass(at))) for at, one in zip(chosen.twins, judged, strict=True)
        ]
    for folder, one in zip(chosen.twins, judged, strict=True):
        lines += ["", f"## {one.scores.name}: {one.scores.size:,} twins", "", *fidelity_table(one)]
        lines += ["", "### Effects", "", *effects_table(one)]
        lines += ["", "### Masks", "", masks_text(violations(folder, real))]
    if chosen.counterfactual:
        lines += counterfactual_section(world, chosen.counterfactual, chosen)
    return lines


def ablation(world: World, chosen: argparse.Namespace) -> list[str]:
    """One row per model."""
    lines = [*_head(world), _ROW.format("model", "masked"), _RULE]
    lines.append(_row("training subjects", judge(world, "training subjects", world.train), "-"))
    for text in chosen.models:
        name, _, folder = text.partition("=")
        one = judge(world, name, read_cohort(Path(folder), world.vocabulary))
        lines.append(_row(name, one, _percent(masked_mass(Path(folder)))))
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _row(name: str, one: Judged, last: str) -> str:
    found = one.scores.transitions
    longest = max((abs(row.relative.value) for row in one.scores.lengths if row.what == "events"), default=float("nan"))
    cells = [
        name,
        f"{one.scores.size:,}",
        *(spread(found[key]) for key in ("joint", "given", "visits")),
        spread(one.scores.values.mean),
        f"{longest:.1%}",
        f"{one.num_met} of {len(one.lines)}",
        f"{one.tally.fair} of {one.tally.asked}",
        f"{one.tally.told} of {one.tally.tellable}",
        last,
    ]
    return f"| {' | '.join(cells)} |"


def controls(world: World, chosen: argparse.Namespace) -> list[str]:
    """Data whose verdict is known: a second real draw must pass, each broken one must fail."""
    second = world.draw(chosen.fresh_cache, SECOND_SEED, chosen.fresh)
    rng = generator(world.seed, "controls")
    cases = {
        "second real draw": second,
        "codes dealt anew": Cohort(shuffled_columns(second.records, second.records, rng), second.smoking),
        "numbers dealt anew over patients": shuffled_values(second, rng),
        "numbers from normal laws": normal_values(second, rng),
        "ages and sexes of somebody else": shuffled_subjects(second, rng),
    }
    lines = [*_head(world), _ROW.format("data", "passes"), _RULE]
    for name, cohort in cases.items():
        one = judge(world, name, cohort)
        passes = one.num_met == len(one.lines) and one.tally.is_met
        lines.append(_row(name, one, answer(passes)))
    for change in (Change(age=75.0), Change(sex="F")):
        lives = true_pairs(chosen.fresh_cache, world.vocabulary, change, chosen.pairs, PAIRS_SEED)
        others = true_pairs(chosen.fresh_cache, world.vocabulary, change, CONTROL_PAIRS, OTHER_PAIRS_SEED)
        for name, pairs in (("other lives", others), ("nothing changed", replace(others, changed=others.factual))):
            rows = shifts(pairs, lives, seed=world.seed, num_resamples=NUM_RESAMPLES)
            lines += ["", f"## Counterfactual control: {name}", "", *shift_table(pairs, rows)]
    return lines


def _head(world: World) -> list[str]:
    return [
        "# Twins of the embedded hospital against the known truth",
        "",
        f"{world.train.size:,} training subjects; fresh draw {world.fresh.size:,}; truth of effects",
        f"from {world.num_truth:,} subjects. `scripts/bench/timelines_truth.py` says what each column is.",
        "",
    ]


def main() -> None:
    """Measures, prints, and writes if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", default="report", choices=["report", "ablation", "controls"])
    parser.add_argument("models", nargs="*", help="of ablation: NAME=DIR, a set of twins")
    parser.add_argument("--real", type=Path, required=True, help="the dataset that the twins were learned from")
    parser.add_argument("--twins", type=Path, nargs="+", default=[], help="sets of twins")
    parser.add_argument("--counterfactual", type=Path, nargs="+", help="factual twins, then sets made from them")
    parser.add_argument("--fresh-cache", type=Path, default=Path("outputs/truth"), help="folder of drawn hospitals")
    parser.add_argument("--fresh", type=int, default=5_000, help="subjects of the fresh draw")
    parser.add_argument("--truth", type=int, default=20_000, help="subjects of the large draw")
    parser.add_argument("--pairs", type=int, default=10_000, help="pairs of lives for the truth of a change")
    parser.add_argument("--seed", type=int, default=0, help="decides the resamples")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file; what it says by hand stays")
    chosen = parser.parse_args()
    if chosen.mode == "report" and not chosen.twins and not chosen.counterfactual:
        parser.error("report needs --twins or --counterfactual")
    world = World(chosen.real, chosen.fresh_cache, num_fresh=chosen.fresh, num_truth=chosen.truth, seed=chosen.seed)
    modes = {"report": report, "ablation": ablation, "controls": controls}
    lines = modes[chosen.mode](world, chosen)
    lines[len(_head(world)) : len(_head(world))] = said_lines(read_page(chosen.write))
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
