"""Whether twins serve a prediction task as real subjects do: trained on one, tested on the other.

The protocol is fixed. Columns come from the real training subjects; a classifier's clipping, scaling, imputation and
hyper-parameters come from its own training data, so that one trained on twins sees nothing real but the columns' names.
Labels and features come from every timeline by the same rule (`medtwin.check.tasks`). Real test subjects are used for
nothing but the scores. Esteban, Hyland & Raetsch 2017 (arXiv:1706.02633) for training on synthetic, testing on real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from medtwin.check.classifiers import MODELS, Fitted, ModelName, fit, tune
from medtwin.check.effects import (
    Covariates,
    Survival,
    code_importance,
    hazard_agreement,
    rank_agreement,
    top_overlap,
)
from medtwin.check.estimates import LEVEL, Estimate, Measure
from medtwin.check.fairness.groups import divisions_of
from medtwin.check.fairness.utility import Predicted, no_fair_utility, utility_by_group
from medtwin.check.options import Options
from medtwin.check.records import Records
from medtwin.check.resample import subject_weights
from medtwin.check.scores import SCORES, Summary, summarise
from medtwin.check.task_features import fit_feature_space
from medtwin.check.tasks import (
    Examples,
    Labels,
    Task,
    agree_with_labels,
    find_examples,
)
from medtwin.check.utility_arms import LOST, Arms
from medtwin.check.utility_rows import HazardRow, ImportanceRow, SideRow, UtilityFindings, UtilityRow
from medtwin.check.utility_sides import Side, stack
from medtwin.core.seeds import generator

NUM_SEEDS = 3
"""Generator seeds from which on the spread between them means something."""
NUM_FLOORS = 5
NUM_HALVES = 5
FRACTIONS = (0.1, 0.25, 1.0)
MAX_IMPORTANCE_ROWS = 2000
Better = Literal["lower", "higher"]
MEASURES: dict[str, tuple[str, Better]] = {
    "utility.auroc_loss": ("AUROC lost by training on twins instead of real subjects", "lower"),
    "utility.auprc_loss": ("Average precision lost by training on twins instead of real subjects", "lower"),
    "utility.importance": ("Rank correlation of the codes' importance, twins against real", "higher"),
    "utility.importance_top": ("Share of the ten most important codes in common", "higher"),
    "utility.hazard_ratios": ("Hazard ratios: mean absolute difference of their logarithms, per real SD", "lower"),
}


def no_task() -> list[Measure]:
    """The measures of a check without a task: not applicable."""
    why = "no task was given"
    measures = [Measure(name, title, None, 0, better, why, False) for name, (title, better) in MEASURES.items()]
    return [*measures, no_fair_utility(why)]


Floats = NDArray[np.float64]
Watch = Callable[[Sequence[str]], Iterable[str]]


def utility_findings(
    task: Task,
    real: tuple[Records, Records],
    twins: Sequence[Records],
    options: Options,
    *,
    labels: Labels | None = None,
    watch: Watch = lambda stages: stages,
) -> UtilityFindings:
    """Everything that is measured of one task.

    Args:
        task: The rule of prediction times and labels.
        real: Subjects that the generator learned from, and subjects that nothing has seen.
        twins: One set of records per generator seed; of each as many subjects are used as there are of the first.
        options: Seed, resamples of test subjects, divisions of subjects, and from how many on a group is judged.
        labels: A label file of the real subjects, to check the rule against.
        watch: Wraps the names of the stages; a place for a progress bar.
    """
    seed, num_train = options.seed, real[0].num_subjects
    names = ["real train", "real test", *(_twins_name(number, len(twins)) for number in range(len(twins)))]
    everybody = [*real, *(_sample(records, num_train, seed, number) for number, records in enumerate(twins))]
    found = [find_examples(task, records, seed=seed) for records in everybody]
    notes = [
        f"{name}: {records.num_subjects:,} subjects, fewer than the {num_train:,} real training subjects"
        for name, records in zip(names, everybody, strict=True)
        if name.startswith("twins") and records.num_subjects < num_train
    ]
    if len(twins) < NUM_SEEDS:
        notes.append(f"generator seeds: {len(twins)}; the spread between seeds needs {NUM_SEEDS} or more")
    sides = [
        SideRow(task.name, name, side.num_subjects, len(one.first_rows), len(one), one.num_positive, **asdict(excluded))
        for name, side, (one, excluded) in zip(names, everybody, found, strict=True)
    ]
    agreement = None
    if labels is not None:
        agreement = agree_with_labels(task, real[0], found[0][0], labels)
        if not agreement.num_compared:
            notes.append("the label file has no label of these subjects at a time that the rule could label")
        elif agreement.num_equal < agreement.num_compared:
            notes.append(
                f"the rule and the label file agree on {agreement.share:.2%} of labels; both sides follow the rule"
            )
    result = _Protocol(task, names, seed, options.num_resamples)
    stages = result.stages(everybody, [one for one, _ in found])
    for stage in watch(list(stages)):
        stages[stage]()
    divisions = divisions_of(options.strata, real[1], *everybody[2:3])
    applicable = any(one.applicable for one in result.measures)
    by_group, groups = utility_by_group(
        result.predicted, divisions, options.fairness, reason=result.reason, applicable=applicable
    )
    return UtilityFindings(
        task,
        tuple(result.rows),
        (*result.measures, by_group),
        tuple(result.importances),
        tuple(result.hazards),
        tuple(sides),
        result.best,
        agreement,
        (*notes, *result.notes),
        result.reason,
        tuple(groups),
    )


def _twins_name(number: int, total: int) -> str:
    return "twins" if total == 1 else f"twins {number + 1}"


def _sample(records: Records, wanted: int, seed: int, number: int) -> Records:
    """As many subjects as wanted, or all where there are fewer."""
    if records.num_subjects <= wanted:
        return records
    order = generator(seed, "utility", "twins", number).permutation(records.num_subjects)
    return records.take(np.sort(order[:wanted]))


class _Protocol:
    """The arms of one task, one after the other."""

    def __init__(self, task: Task, names: Sequence[str], seed: int, num_resamples: int) -> None:
        self._task, self._names, self._seed, self._num_resamples = task, names, seed, num_resamples
        self.rows: list[UtilityRow] = []
        self.measures: list[Measure] = []
        self.importances: list[ImportanceRow] = []
        self.hazards: list[HazardRow] = []
        self.notes: list[str] = []
        self.reason = ""
        self.best = ""
        self.predicted: Predicted | None = None
        self._fitted: dict[ModelName, tuple[Fitted, list[Fitted]]] = {}
        self._losses: dict[ModelName, dict[str, Floats]] = {}

    def stages(self, records: Sequence[Records], examples: Sequence[Examples]) -> dict[str, Callable[[], None]]:
        """The steps, in order, of train, test and twins."""
        return {
            "features": lambda: self._read(records, examples),
            **{model: partial(self._arms, model) for model in MODELS},
            "importance": self._agreements,
            "hazard ratios": self._hazards,
        }

    def _read(self, records: Sequence[Records], examples: Sequence[Examples]) -> None:
        """Features of every side, the columns from the first; and what there is too little of."""
        space = fit_feature_space(records[0], examples[0])
        self._space, self._survivals, sides = space, [], []
        for one, rows in zip(records, examples, strict=True):
            features = space.matrix(one, rows)
            sides.append(Side(features, rows.label, rows.subject))
            first = rows.first_rows
            self._survivals.append(Survival(rows.hours[first], rows.happened[first], features[first]))
        self._train, self._test, *self._twins = sides
        short = {name: lack for name, side in zip(self._names, sides, strict=True) if (lack := side.lacks())}
        of_real = [name for name in ("real train", "real test") if name in short]
        self._has_real = not of_real
        if not self._twins:
            self.reason = "there are no twins"
        if short:
            name = of_real[0] if of_real else next(iter(short))
            self.reason, self._twins = f"{name}: {short[name]}", []
        if not self._twins:
            self._unmeasured(applicable=self._has_real or any(side.label.any() for side in sides[:2]))
        if self._has_real:
            draws = generator(self._seed, "utility", "test")
            self._weights = subject_weights(self._test.subject, self._num_resamples, draws)

    def _unmeasured(self, *, applicable: bool) -> None:
        for name, (title, better) in MEASURES.items():
            self.measures.append(Measure(name, title, None, 0, better, self.reason, applicable))

    def _arms(self, model: ModelName) -> None:
        """Every arm of one classifier; keeps the models of real subjects and of twins."""
        if not self._has_real:
            return
        train, test, seed = self._train, self._test, self._seed
        ceiling = self._tune(model, train)
        arms = Arms(self._task.name, model, test.label, self._weights)
        arms.add("real", "real, tested on real: the ceiling", [ceiling.predict(test.features)], [train])
        models = [self._tune(model, side) for side in self._twins]
        if models:
            predicted = [one.predict(test.features) for one in models]
            arms.add("twins", "twins, tested on real", predicted, self._twins, against="real")
            self._losses[model] = {score: arms.draws["real"][score] - arms.draws["twins"][score] for score in SCORES}
        floors = []
        for number in range(NUM_FLOORS):
            permuted = generator(seed, "utility", "floor", number).permutation(train.label)
            floors.append(fit(model, ceiling.setting, train.features, permuted, seed=seed).predict(test.features))
        arms.add("floor", "real with permuted labels: the floor", floors, [train], against="real")
        if models:
            arms.add_reverse("reverse", "real, tested on twins", ceiling, self._twins, train, seed)
            for fraction in FRACTIONS:
                self._augment(arms, model, fraction)
        self.rows += arms.rows
        self._fitted[model] = ceiling, models
        self.best = self._best_model()

    def _best_model(self) -> ModelName:
        """The classifier that real training data prefer by cross-validation."""
        return min(self._fitted, key=lambda one: self._fitted[one][0].loss)

    def _tune(self, model: ModelName, side: Side) -> Fitted:
        return tune(model, side.features, side.label, side.subject, seed=self._seed)

    def _augment(self, arms: Arms, model: ModelName, fraction: float) -> None:
        """A share of the real subjects, without and with the twins added."""
        name = f"real {fraction:.0%}".replace("%", " %")
        test, alone, together = self._test, [], []
        parts, sums = [], []
        for number, side in enumerate(self._twins):
            everybody = self._train.subjects
            order = generator(self._seed, "utility", "fraction", number).permutation(everybody)
            part = self._train.of_subjects(order[: round(fraction * len(everybody))])
            if part.lacks():
                return
            parts.append(part)
            sums.append(stack(part, side))
            if fraction < 1:
                alone.append(self._tune(model, part).predict(test.features))
            together.append(self._tune(model, sums[-1]).predict(test.features))
        against = "real"
        if fraction < 1:
            arms.add(name, f"{name} of subjects, tested on real", alone, parts, against="real")
            against = name
        arms.add(
            f"{name} + twins", f"{name} of subjects and the twins, tested on real", together, sums, against=against
        )

    def _agreements(self) -> None:
        """The measures of the best classifier: what is lost, and whether the same codes matter; with halves beside."""
        if not self._twins:
            return
        test, seed = self._test, self._seed
        model = self._best_model()
        ceiling, twins = self._fitted[model]
        few = self._few_rows()
        small, weights, groups = test.rows(few), self._weights[:, few], self._space.groups

        def importance(one: Fitted, draws: NDArray[np.float32]) -> Floats:
            return code_importance(one.predict, small.features, small.label, groups, draws, seed=seed)

        real = importance(ceiling, weights)
        synthetic = [importance(one, weights) for one in twins]
        names = list(dict.fromkeys(groups))
        mean = np.mean([one[:, 0] for one in synthetic], axis=0)
        self.importances = [
            ImportanceRow(self._task.name, *row) for row in zip(names, real[:, 0].tolist(), mean.tolist(), strict=True)
        ]
        pairs, of_halves = [], []
        for number in range(NUM_HALVES):
            halves = self._halves(model, ceiling, number)
            if halves is None:
                continue
            predicted = [one.predict(test.features) for one in halves]
            of_halves.append((predicted[0], predicted[1]))
            once = self._weights[:1]
            lost = [abs(float(np.subtract(*(SCORES[s](p, test.label, once)[0] for p in predicted)))) for s in LOST]
            first, second = (importance(one, weights[:1]) for one in halves)
            pairs.append([*lost, rank_agreement(first, second)[0], top_overlap(first, second)[0]])
        of_twins = [one.predict(test.features) for one in twins]
        self.predicted = Predicted(
            test.label,
            test.subject,
            ceiling.predict(test.features),
            of_twins,
            of_halves,
            self._weights,
            self._half_scale,
        )
        baselines = np.array(pairs).T
        for name, score, half in zip(("utility.auroc_loss", "utility.auprc_loss"), LOST, baselines[:2], strict=True):
            self._add(name, summarise(self._losses[model][score]), *self._noise(half), len(test.subjects))
        self._suspect(self.measures[0].estimate)
        for name, of, half in (
            ("utility.importance", rank_agreement, baselines[2]),
            ("utility.importance_top", top_overlap, baselines[3]),
        ):
            draws = np.stack([of(real, one) for one in synthetic])
            # The lower 5 % point of a further pair of halves, Student's.
            spread = float(half.std(ddof=1)) * (1 + 1 / len(half)) ** 0.5 if len(half) > 1 else 0.0
            worst = float(half.mean()) - float(student_t.ppf(LEVEL, max(len(half) - 1, 1))) * spread
            self._add(name, summarise(draws), float(half.mean()), worst, len(names))

    def _suspect(self, loss: Estimate | None) -> None:
        """Notes where a classifier learns more from twins than real subjects hold: they may hold the test subjects."""
        for model, losses in self._losses.items():
            one = summarise(losses["auroc"])
            if one is not None and loss is not None and one.high < 0 and one.value < -loss.baseline_worst:
                self.notes.append(
                    f"{model} learns to predict better from twins than from real subjects: do the twins hold the test "
                    "subjects?"
                )

    def _few_rows(self) -> NDArray[np.int64]:
        """Test rows for the importances: up to half of them positive, which moves no AUROC."""
        label = self._test.label
        order = generator(self._seed, "utility", "importance").permutation(len(label))
        positive = order[label[order]][: MAX_IMPORTANCE_ROWS // 2]
        return np.sort(np.r_[positive, order[~label[order]][: MAX_IMPORTANCE_ROWS - len(positive)]])

    def _hazards(self) -> None:
        if not self._twins:
            return
        train, _, *twins = self._survivals
        measure, self.hazards = hazard_agreement(
            self._task.name,
            Covariates(self._task.covariates, self._space, train.features),
            train,
            twins,
            seed=self._seed,
            num_resamples=self._num_resamples,
        )
        self.measures.append(measure)

    def _halves(self, model: ModelName, ceiling: Fitted, number: int) -> list[Fitted] | None:
        """Models of two random halves of the real training subjects; None where one has one class only."""
        train = self._train
        order = generator(self._seed, "utility", "halves", number).permutation(train.subjects)
        sides = [train.of_subjects(part) for part in np.array_split(order, 2)]
        if any(side.label.all() or not side.label.any() for side in sides):
            return None
        return [fit(model, ceiling.setting, side.features, side.label, seed=self._seed) for side in sides]

    @property
    def _half_scale(self) -> float:
        """Turns a difference between models of two halves into one between models of samples of these sizes."""
        n, m = len(self._train.subjects), min(len(side.subjects) for side in self._twins)
        return float(np.sqrt((1 / n + 1 / m) / (4 / n)))

    def _noise(self, halves: Floats) -> tuple[float, float]:
        """Mean and 95 % point of the absolute difference between models of two real samples of these sizes.

        Halves differ with variance 4 / n of a subject, samples of n and m with 1 / n + 1 / m. The 95 % point is that of
        a further difference, Student's, because the halves are few.
        """
        scaled = halves * self._half_scale
        point = float(student_t.ppf((1 + LEVEL) / 2, len(scaled)))
        return float(scaled.mean()), point * float(np.sqrt((scaled**2).mean()))

    def _add(self, name: str, summary: Summary | None, baseline: float, worst: float, number: int) -> None:
        title, better = MEASURES[name]
        if summary is None:
            self.measures.append(Measure(name, title, None, 0, better, "it has no finite value"))
            return
        estimate = Estimate(summary.value, summary.low, summary.high, baseline, worst)
        self.measures.append(Measure(name, title, estimate, number, better))
