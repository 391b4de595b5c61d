"""Measures a synthetic dataset against the real one that it was learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medtwin.check.codes import code_measures
from medtwin.check.copies import copy_rows
from medtwin.check.findings import Findings
from medtwin.check.images import Picture, image_measures, read_pictures, unmeasured
from medtwin.check.pairs import pair_measures
from medtwin.check.plausibility import Rule, RuleCounter, rule_rows
from medtwin.check.records import Records, Vocabulary, read_records
from medtwin.check.resample import MIN_CONTROL, NUM_RESAMPLES, make_plan
from medtwin.check.times import age_rows, time_measures
from medtwin.check.values import value_measures
from medtwin.core.dataset import Dataset, open_dataset
from medtwin.core.errors import DatasetError

CONTROL = ("tuning", "held_out")
Watch = Callable[[Sequence[str]], Iterable[str]]


def compare_datasets(
    real: Dataset | Path | str,
    synthetic: Dataset | Path | str,
    *,
    seed: int = 0,
    rules: Sequence[Rule] = (),
    num_resamples: int = NUM_RESAMPLES,
    with_images: bool = True,
    watch: Watch = lambda stages: stages,
) -> Findings:
    """Everything that `check` measures, each number beside its real-versus-real baseline and with its interval.

    Args:
        real: The dataset that the twins were learned from: its train split is the reference, tuning and held_out are
            the control (real subjects that training did not see). Without a train split all of it is the reference.
        synthetic: The twins; all splits.
        seed: Decides the resampling.
        rules: Hard rules to count (`rules_from`).
        num_resamples: Bootstrap resamples of subjects.
        with_images: Also read and compare the images.
        watch: Wraps the names of the stages; a place for a progress bar.

    Raises:
        DatasetError: If the two cannot be compared: the same directory, real given as synthetic, nobody in a split, no
            code in common.
    """
    first = real if isinstance(real, Dataset) else open_dataset(real)
    second = synthetic if isinstance(synthetic, Dataset) else open_dataset(synthetic)
    require_comparable(first, second)
    found = _Comparison(first, second, seed, rules, num_resamples)
    stages: dict[str, Callable[[], None]] = {
        "records": found.read,
        "codes": found.codes,
        "numbers": found.values,
        "times": found.times,
        "pairs": found.pairs,
        "copies": found.copies,
    }
    stages["images"] = found.images if with_images else found.skip_images
    for stage in watch(list(stages)):
        stages[stage]()
    return found.findings()


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
    """The splits of the reference and those of the control.

    >>> reference_splits.__name__
    'reference_splits'
    """
    names = list(real.splits)
    if "train" in names:
        return ["train"], [name for name in names if name in CONTROL]
    return names, []


class _Comparison:
    """What the stages share: the records of the three sides, and the findings so far."""

    def __init__(self, real: Dataset, synthetic: Dataset, seed: int, rules: Sequence[Rule], num_resamples: int) -> None:
        self._datasets = real, synthetic
        self._splits = reference_splits(real)
        self._seed, self._rules, self._num_resamples = seed, rules, num_resamples
        self._found: dict[str, list[Any]] = {
            name: []
            for name in (
                "measures", "codes", "deciles", "values", "distributions", "pairs", "ages", "image_groups", "rules",
                "copies",
            )
        }  # fmt: skip
        self._notes: dict[str, float] = {}
        self._num_images = 0, 0

    def read(self) -> None:
        real, synthetic = self._datasets
        vocabulary = Vocabulary()
        counters = RuleCounter(self._rules), RuleCounter(self._rules)
        self._real = read_records(real, vocabulary, self._splits[0], look=counters[0].look)
        self._synthetic = read_records(synthetic, vocabulary, list(synthetic.splits), look=counters[1].look)
        control = read_records(real, vocabulary, self._splits[1])
        self._control = control if control.num_subjects >= MIN_CONTROL else None
        for name, side, dataset in (("real", self._real, real), ("synthetic", self._synthetic, synthetic)):
            if side.num_subjects < 2:
                raise DatasetError(f"{name}={dataset.path} must hold at least 2 subjects, got {side.num_subjects}")
        if not set(self._real.code.tolist()) & set(self._synthetic.code.tolist()):
            raise DatasetError(
                f"synthetic={synthetic.path} has no code in common with real={real.path}: it was learned from another "
                "dataset, or from another code system"
            )
        numbers = self._real.num_subjects, self._synthetic.num_subjects, control.num_subjects
        self._plan = make_plan(*numbers, seed=self._seed, num_resamples=self._num_resamples)
        self._num_control = control.num_subjects
        self._descriptions = {**_descriptions(synthetic), **_descriptions(real)}
        self._found["ages"] = age_rows(self._real, self._synthetic)
        self._found["rules"] = rule_rows(self._rules, *counters)

    @property
    def _sides(self) -> tuple[Records, Records, Records | None]:
        return self._real, self._synthetic, self._control

    def codes(self) -> None:
        measures, rows, deciles = code_measures(*self._sides, self._plan, self._descriptions)
        self._add(measures=measures, codes=rows, deciles=deciles)

    def values(self) -> None:
        measures, rows = value_measures(*self._sides, self._plan, self._descriptions)
        self._add(measures=measures, values=rows)

    def times(self) -> None:
        measures, shown = time_measures(*self._sides, self._plan)
        self._add(measures=measures, distributions=shown)

    def pairs(self) -> None:
        measures, rows = pair_measures(*self._sides, self._plan)
        self._add(measures=measures, pairs=rows)

    def copies(self) -> None:
        rows, notes = copy_rows(*self._sides, seed=self._seed)
        self._add(copies=rows)
        self._notes.update(notes)

    def images(self) -> None:
        real, synthetic = self._datasets
        twins = list(read_pictures(synthetic, list(synthetic.splits), seed=self._seed))
        reference: list[Picture] = []
        control: list[Picture] = []
        if twins:
            reference = list(read_pictures(real, self._splits[0], seed=self._seed))
            control = list(read_pictures(real, self._splits[1], seed=self._seed))
        self._num_images = len(reference), len(twins)
        measures, groups, copies = image_measures(
            reference, twins, control, seed=self._seed, num_resamples=self._num_resamples
        )
        self._add(measures=measures, image_groups=groups, copies=copies)

    def skip_images(self) -> None:
        num_images = len(self._datasets[1].images())
        self._num_images = 0, num_images
        reason = "the images were not read" if num_images else "the twins have no images"
        self._add(measures=unmeasured(reason, has_images=num_images > 0))

    def _add(self, **parts: Iterable[Any]) -> None:
        for name, rows in parts.items():
            self._found[name] += rows

    def findings(self) -> Findings:
        return Findings(
            self._real.num_subjects,
            self._synthetic.num_subjects,
            self._num_control,
            **{name: tuple(rows) for name, rows in self._found.items()},
            notes=self._notes,
            num_images=self._num_images,
        )


def _descriptions(dataset: Dataset) -> Mapping[str, str]:
    table = dataset.codes()
    if "description" not in table.column_names:
        return {}
    pairs: Iterator[tuple[str, str | None]] = zip(
        table["code"].to_pylist(), table["description"].to_pylist(), strict=True
    )
    return {code: text for code, text in pairs if text}
