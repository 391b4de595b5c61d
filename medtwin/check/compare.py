"""Measures a synthetic dataset against the real one that it was learned from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from medtwin.check.attacks.canaries import no_canaries
from medtwin.check.attacks.measures import attack_measures, no_attacks
from medtwin.check.attacks.membership import MIN_PEOPLE
from medtwin.check.attacks.suite import attack
from medtwin.check.codes import code_measures
from medtwin.check.collapse.lineage import Lineage, Relatives, read_relatives
from medtwin.check.collapse.suite import collapse
from medtwin.check.copies import copy_rows
from medtwin.check.estimates import Measure
from medtwin.check.fairness.attacks import attacks_by_group, no_fair_attacks
from medtwin.check.fairness.fidelity import fidelity_by_group
from medtwin.check.fairness.groups import divisions_of
from medtwin.check.fairness.representation import source_representation, target_representation
from medtwin.check.findings import Findings
from medtwin.check.identifiers.scan import no_scan
from medtwin.check.image_findings import ImageFindings, compare_images, not_measured
from medtwin.check.kinds import kind_measures
from medtwin.check.labs import correlation_measures
from medtwin.check.likelihoods import no_likelihood
from medtwin.check.missingness import co_missingness_measures, missingness_measures
from medtwin.check.options import DEFAULT_OPTIONS, Options
from medtwin.check.pairs import encounter_measures, lag_measures, pair_measures
from medtwin.check.pictures import read_pictures
from medtwin.check.plausibility import Rule, RuleCounter, rule_rows
from medtwin.check.records import Records, Vocabulary, read_records
from medtwin.check.resample import MIN_CONTROL, Plan, make_plan
from medtwin.check.rule_measures import rule_measures
from medtwin.check.small_cells import small_cells
from medtwin.check.strata import stratum_measures
from medtwin.check.summaries import summary_measures
from medtwin.check.times import age_rows, survival_row, time_measures
from medtwin.check.trajectories import trajectory_measures
from medtwin.check.utility import no_task
from medtwin.check.values import unit_measures, value_measures, within_measures
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import DatasetError

CONTROL = ("tuning", "held_out")
NO_MODEL = "no model that made them was named (timelines=RUN)"
NO_CANARIES = "no training with canaries was named (canaries=RUN)"
NOT_ATTACKED = "the twins were not attacked"
Watch = Callable[[Sequence[str]], Iterable[str]]
Parts: TypeAlias = "dict[str, Any]"
Sides: TypeAlias = "tuple[Records, Records, Records]"


@dataclass(frozen=True)
class Comparison:
    """What the stages share.

    Attributes:
        real: The reference, of the vocabulary of all three. synthetic: The twins. control: Real subjects that training
            did not see; None where they are too few.
        plan: How subjects are drawn. descriptions: Of codes.
        relatives: Generations before the twins, and real anchors; None: the control are the anchors.
    """

    real: Records
    synthetic: Records
    control: Records | None
    plan: Plan
    options: Options
    descriptions: Mapping[str, str]
    relatives: Relatives | None = None

    @property
    def sides(self) -> tuple[Records, Records, Records | None]:
        """Reference, twins, control."""
        return self.real, self.synthetic, self.control


def _codes(one: Comparison) -> Parts:
    measures, rows, deciles = code_measures(*one.sides, one.plan, one.descriptions)
    return {"measures": measures, "codes": rows, "deciles": deciles}


def _values(one: Comparison) -> Parts:
    measures, rows = value_measures(*one.sides, one.plan, one.descriptions)
    units, unit_rows = unit_measures(*one.sides, one.plan, one.descriptions)
    within, within_rows = within_measures(*one.sides, one.plan, one.descriptions)
    return {"measures": [*measures, *units, *within], "values": rows, "units": unit_rows, "within": within_rows}


def _labs(one: Comparison) -> Parts:
    measures, rows = correlation_measures(*one.sides, one.plan)
    return {"measures": measures, "correlations": rows}


def _trajectories(one: Comparison) -> Parts:
    measures, rows = trajectory_measures(*one.sides, one.plan, one.descriptions)
    return {"measures": measures, "trajectories": rows}


def _missingness(one: Comparison) -> Parts:
    measures, rows = missingness_measures(*one.sides, one.plan, one.descriptions)
    together, pairs = co_missingness_measures(*one.sides, one.plan)
    return {"measures": [*measures, *together], "missingness": rows, "co_missingness": pairs}


def _times(one: Comparison) -> Parts:
    measures, shown = time_measures(*one.sides, one.plan)
    deaths = survival_row(one.real, one.synthetic)
    return {
        "measures": measures,
        "distributions": shown,
        "ages": age_rows(one.real, one.synthetic),
        "survival": [] if deaths is None else [deaths],
    }


def _kinds(one: Comparison) -> Parts:
    measures, rows = kind_measures(*one.sides, one.plan)
    return {"measures": measures, "kinds": rows}


def _pairs(one: Comparison) -> Parts:
    measures, rows = pair_measures(*one.sides, one.plan)
    lags, lag_rows = lag_measures(*one.sides, one.plan)
    encounters, encounter_rows = encounter_measures(*one.sides, one.plan)
    return {
        "measures": [*measures, *lags, *encounters],
        "pairs": [*rows, *encounter_rows],
        "lags": lag_rows,
    }


def _summaries(one: Comparison) -> Parts:
    options = one.options
    measures, rows = summary_measures(*one.sides, seed=options.seed, num_resamples=options.num_resamples)
    return {"measures": measures, "separators": rows}


def _strata(one: Comparison) -> Parts:
    measures, rows = stratum_measures(*one.sides, one.plan, one.options.strata, seed=one.options.seed)
    return {"measures": measures, "strata": rows}


def _fairness(one: Comparison) -> Parts:
    options = one.options
    sides = [side for side in one.sides if side is not None]
    divisions = divisions_of(options.strata, *sides)
    source, of_source = source_representation(divisions, one.plan, options.fairness, seed=options.seed)
    target, of_target = target_representation(divisions, one.plan, options.fairness, seed=options.seed)
    fidelity, of_fidelity = fidelity_by_group(sides, divisions, one.plan, options.fairness)
    cells, of_cells = small_cells(divisions, seed=options.seed, num_resamples=options.num_resamples)
    rows = [*of_source, *of_target, *of_fidelity]
    return {"measures": [source, target, fidelity, cells], "fairness": rows, "small_cells": of_cells}


def _collapse(one: Comparison) -> Parts:
    relatives = one.relatives or Relatives(anchors=one.control)
    found = collapse(
        one.real,
        one.synthetic,
        relatives.anchors,
        relatives.earlier,
        seed=one.options.seed,
        depth=relatives.depth,
    )
    return {"measures": found.measures, "generations": found.generations, "rare_codes": found.rare}


def _copies(one: Comparison) -> Parts:
    rows, notes = copy_rows(*one.sides, seed=one.options.seed)
    return {"copies": rows, "notes": notes}


STAGES: Mapping[str, Callable[[Comparison], Parts]] = {
    "codes": _codes,
    "numbers": _values,
    "correlations": _labs,
    "courses": _trajectories,
    "missing numbers": _missingness,
    "times": _times,
    "kinds": _kinds,
    "pairs": _pairs,
    "classifiers": _summaries,
    "groups": _strata,
    "fairness": _fairness,
    "collapse": _collapse,
    "copies": _copies,
}
"""What is measured of records, in this order."""


def compare_records(
    real: Records,
    synthetic: Records,
    control: Records | None = None,
    options: Options = DEFAULT_OPTIONS,
    *,
    descriptions: Mapping[str, str] | None = None,
    relatives: Relatives | None = None,
    watch: Watch = lambda stages: stages,
) -> Findings:
    """Everything that is measured of records alone: no hard rules, no images.

    Args:
        real: The reference; at least 2 subjects.
        synthetic: The twins, read with the same vocabulary; at least 2.
        control: Real subjects that training did not see; they are left out where there are fewer than `MIN_CONTROL`.
        options: Seed, resamples, strata.
        descriptions: Of codes, for the tables.
        relatives: Generations before the twins, and real anchors; None: the control are the anchors.
        watch: Wraps the names of the stages; a place for a progress bar.
    """
    num_control = 0 if control is None else control.num_subjects
    numbers = real.num_subjects, synthetic.num_subjects, num_control
    plan = make_plan(*numbers, seed=options.seed, num_resamples=options.num_resamples)
    used = control if num_control >= MIN_CONTROL else None
    one = Comparison(real, synthetic, used, plan, options, descriptions or {}, relatives)
    unmeasured = [*no_task(), *no_attacks(NOT_ATTACKED), no_fair_attacks(NOT_ATTACKED), *no_canaries(NO_CANARIES)]
    found: Parts = {"measures": [*unmeasured, *no_likelihood(NO_MODEL), no_scan("the files were not scanned")]}
    for stage in watch(list(STAGES)):
        _add(found, STAGES[stage](one))
    rows: Parts = {name: tuple(part) if isinstance(part, list) else part for name, part in found.items()}
    return _finite(Findings(*numbers, **rows))


def _finite(findings: Findings) -> Findings:
    """The findings, with measures that came out as no number as what they are: not measured."""
    return replace(findings, measures=tuple(_measured(one) for one in findings.measures))


def _measured(measure: Measure) -> Measure:
    estimate = measure.estimate
    if estimate is None or math.isfinite(estimate.value):
        return measure
    return replace(measure, estimate=None, reason="it came out as no number")


def _add(found: Parts, parts: Parts) -> None:
    for name, rows in parts.items():
        found[name] = {**found.get(name, {}), **rows} if isinstance(rows, Mapping) else [*found.get(name, []), *rows]


def compare_datasets(
    real: Dataset | Path | str,
    synthetic: Dataset | Path | str,
    options: Options = DEFAULT_OPTIONS,
    *,
    watch: Watch = lambda stages: stages,
) -> Findings:
    """Everything that `check` measures, each number beside its real-versus-real baseline and with its interval.

    Args:
        real: The dataset that the twins were learned from: its train split is the reference, tuning and held_out are
            the control (real subjects that training did not see). Without a train split all of it is the reference.
        synthetic: The twins; all splits.
        options: Seed, resamples, rules, strata, whether to read images.
        watch: Wraps the names of the stages; a place for a progress bar.

    Raises:
        DatasetError: If the two cannot be compared: the same directory, real given as synthetic, nobody in a split, no
            code in common.
    """
    first = real if isinstance(real, Dataset) else open_dataset(real)
    second = synthetic if isinstance(synthetic, Dataset) else open_dataset(synthetic)
    require_comparable(first, second)
    stages = iter(watch(["records", *STAGES, *(["attacks"] if options.with_attacks else []), "images"]))
    next(stages)
    sides, counters = _read(first, second, options.rules)
    findings = compare_records(
        *sides,
        options,
        descriptions={**_descriptions(second), **_descriptions(first)},
        relatives=read_relatives(options.lineage or Lineage(), first, sides[0], sides[2]),
        watch=lambda names: (next(stages) for _ in names),
    )
    if options.with_attacks:
        next(stages)
        findings = _attacked(findings, sides, options)
    next(stages)
    rules = _rules(sides, counters, options)
    images = _images(first, second, options)
    for _ in stages:  # lets a progress bar end
        pass
    return _finite(
        replace(
            findings,
            measures=(*findings.measures, *rules["measures"], *images.measures),
            copies=(*findings.copies, *images.copies),
            rules=tuple(rules["rules"]),
            image_groups=images.groups,
            image_strata=images.strata,
            image_labels=images.labels,
            num_images=images.num_images,
            risks=(*findings.risks, *images.risks),
            memberships=(*findings.memberships, *images.memberships),
        )
    )


def _read(real: Dataset, synthetic: Dataset, rules: Sequence[Rule]) -> tuple[Sides, list[RuleCounter]]:
    """Reference, twins and control, and what was counted of the rules in each."""
    vocabulary = Vocabulary()
    splits = reference_splits(real)
    counters = [RuleCounter(rules) for _ in range(3)]
    parts = ((real, splits[0]), (synthetic, list(synthetic.splits)), (real, splits[1]))
    reference, twins, control = (
        read_records(dataset, vocabulary, names, look=counter.look)
        for (dataset, names), counter in zip(parts, counters, strict=True)
    )
    sides = reference, twins, control
    for name, side, dataset in (("real", sides[0], real), ("synthetic", sides[1], synthetic)):
        if side.num_subjects < 2:
            raise DatasetError(f"{name}={dataset.path} must hold at least 2 subjects, got {side.num_subjects}")
    if not set(sides[0].code.tolist()) & set(sides[1].code.tolist()):
        raise DatasetError(
            f"synthetic={synthetic.path} has no code in common with real={real.path}: it was learned from another "
            "dataset, or from another code system"
        )
    return sides, counters


def _rules(sides: Sides, counters: list[RuleCounter], options: Options) -> Parts:
    """The rules and how often twins break them, in the plan of everything else."""
    numbers = [side.num_subjects for side in sides]
    plan = make_plan(*numbers, seed=options.seed, num_resamples=options.num_resamples)
    has_control = numbers[2] >= MIN_CONTROL
    measures = rule_measures(
        options.rules,
        (counters[0], counters[1], counters[2] if has_control else None),
        (sides[0].subjects, sides[1].subjects, sides[2].subjects if has_control else None),
        plan,
    )
    return {"measures": measures, "rules": rule_rows(options.rules, counters[0], counters[1])}


def _attacked(findings: Findings, sides: Sides, options: Options) -> Findings:
    """The findings with what attacks find; they need people whom training did not see."""
    few = [side.num_subjects for side in sides]
    if min(few) < MIN_PEOPLE:
        reason = (
            f"attacks need {MIN_PEOPLE} training subjects, twins and others, there are {few[0]}, {few[1]}, {few[2]}"
        )
        return findings.with_measures([*no_attacks(reason), no_fair_attacks(reason)])
    found = attack(*sides, seed=options.seed, strata=options.strata)
    by_group, rows = attacks_by_group(found.by_person, options.fairness, seed=options.seed)
    return replace(
        findings.with_measures([*attack_measures(found), by_group]),
        risks=(*found.risks, *found.by_attribute),
        group_risks=found.by_group,
        memberships=found.memberships,
        fairness=(*findings.fairness, *rows),
    )


def _images(real: Dataset, synthetic: Dataset, options: Options) -> ImageFindings:
    num_images = len(synthetic.images())
    if not options.with_images or not num_images:
        reason = "the images were not read" if num_images else "the twins have no images"
        return replace(not_measured(reason, has_images=num_images > 0), num_images=(0, num_images))
    parts = (real, reference_splits(real)[0]), (synthetic, list(synthetic.splits)), (real, reference_splits(real)[1])
    sides = [list(read_pictures(dataset, splits, seed=options.seed)) for dataset, splits in parts]
    found = compare_images(
        sides[0],
        sides[1],
        sides[2],
        encode=options.encode,
        seed=options.seed,
        num_resamples=options.num_resamples,
        with_attacks=options.with_attacks,
    )
    return replace(found, num_images=(len(sides[0]), len(sides[1])))


def require_comparable(real: Dataset, synthetic: Dataset) -> None:
    """Refuses two datasets that cannot be what the caller says.

    Raises:
        DatasetError: If they are the same directory, or the origins say that they are swapped.
    """
    if real.path.resolve() == synthetic.path.resolve():
        raise DatasetError(f"synthetic={synthetic.path} and real={real.path} are the same directory")
    if synthetic.origin == "real":
        raise DatasetError(
            f"synthetic={synthetic.path} must not hold real patients, its origin is real: are synthetic= and real= "
            "swapped? (a dataset without metadata/dataset.json counts as real)"
        )
    if real.origin == "synthetic":
        raise DatasetError(
            f"real={real.path} must be what the twins were learned from, its origin is synthetic: are synthetic= and "
            "real= swapped?"
        )


def reference_splits(real: Dataset) -> tuple[list[str], list[str]]:
    """The splits of the reference and those of the control: train, and whatever training did not see."""
    names = list(real.splits)
    if "train" in names:
        return ["train"], [name for name in names if name in CONTROL]
    return names, []


def _descriptions(dataset: Dataset) -> Mapping[str, str]:
    table = dataset.codes()
    if "description" not in table.column_names:
        return {}
    pairs: Iterator[tuple[str, str | None]] = zip(
        table["code"].to_pylist(), table["description"].to_pylist(), strict=True
    )
    return {code: text for code, text in pairs if text}
