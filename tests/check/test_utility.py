from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medtwin.check import Findings, Options, Profile, Rule, judge
from medtwin.check.classifiers import GRIDS, folds_of, tune
from medtwin.check.effects import (
    Covariates,
    Survival,
    code_importance,
    hazard_agreement,
    rank_agreement,
    top_overlap,
)
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.task_features import FeatureSpace, fit_feature_space
from medtwin.check.tasks import Labels, Task, find_examples
from medtwin.check.utility import MEASURES, utility_findings
from medtwin.check.utility_rows import SideRow, UtilityFindings, shareable_sides
from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError
from medtwin.core.events import EVENT_SCHEMA
from medtwin.pipelines.check_utility import measure_utility, utility_section, utility_tables
from medtwin.report import Page
from medtwin.report.page import render_page
from tests.check.samples import write_dataset
from tests.check.stays import MORTALITY, records_of, stays

VOCABULARY = Vocabulary()
NUM_RESAMPLES = 60


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A smaller grid; the agreement with scikit-learn has the whole one."""
    with pytest.MonkeyPatch.context() as patch:
        few = ({"max_leaf_nodes": 4, "max_iter": 8}, {"max_leaf_nodes": 4, "max_iter": 20})
        patch.setitem(GRIDS, "boosting", few)
        yield


@pytest.fixture(scope="module")
def train() -> Records:
    return records_of(stays(300, seed=1), VOCABULARY)


@pytest.fixture(scope="module")
def test_side() -> Records:
    return records_of(stays(300, seed=2), VOCABULARY)


def measured(train: Records, test: Records, twins: list[Records], task: Task = MORTALITY) -> UtilityFindings:
    return utility_findings(task, (train, test), twins, Options(num_resamples=NUM_RESAMPLES))


@pytest.fixture(scope="module")
def fresh(train: Records, test_side: Records) -> UtilityFindings:
    """Three independent draws: what perfect twins are."""
    return measured(train, test_side, [records_of(stays(300, seed=seed), VOCABULARY) for seed in (3, 4, 5)])


@pytest.fixture(scope="module")
def shuffled(train: Records, test_side: Records) -> UtilityFindings:
    """Twins whose deaths have nothing to do with their labs."""
    return measured(train, test_side, [records_of(stays(300, seed=3, shuffled=True), VOCABULARY)])


class Clip(TransformerMixin, BaseEstimator):
    def fit(self, x, y=None):
        self.bounds_ = np.nanquantile(x, [0.01, 0.99], axis=0)
        return self

    def transform(self, x):
        return np.clip(x.astype(float), *self.bounds_)


def test_training_on_twins_agrees_with_plain_scikit_learn(train: Records, test_side: Records) -> None:
    """The whole protocol against a grid search in scikit-learn, on the features of the same columns."""
    twins = records_of(stays(260, seed=3), VOCABULARY)
    found = measured(train, test_side, [twins])
    space = fit_feature_space(train, find_examples(MORTALITY, train)[0])
    synthetic, real = (find_examples(MORTALITY, side)[0] for side in (twins, test_side))
    x, y = space.matrix(twins, synthetic), synthetic.label
    z = space.matrix(test_side, real)
    _, fold = folds_of(y, synthetic.subject, seed=0)
    boosting = HistGradientBoostingClassifier(
        learning_rate=0.1, max_bins=63, max_leaf_nodes=4, early_stopping=False, random_state=0
    )
    logistic = make_pipeline(
        Clip(), SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=5000)
    )
    for model, estimator, grid in (
        ("boosting", boosting, {"max_iter": [8, 20]}),
        ("logistic", logistic, {"logisticregression__C": [0.0003, 0.001, 0.01, 0.1]}),
    ):
        search = GridSearchCV(estimator, grid, cv=PredefinedSplit(fold), scoring="neg_log_loss").fit(x, y)
        predicted = search.predict_proba(z)[:, 1]
        assert found.row("twins", "auroc", model).value == pytest.approx(roc_auc_score(real.label, predicted), abs=1e-4)
        precision = average_precision_score(real.label, predicted)
        assert found.row("twins", "auprc", model).value == pytest.approx(precision, abs=1e-4)
        tuned = tune(model, x, y, synthetic.subject, seed=0)
        assert set(tuned.setting.values()) & set(search.best_params_.values())


def test_perfect_twins_lose_no_more_than_real_halves_do(fresh: UtilityFindings) -> None:
    measures = {one.name: one for one in fresh.measures}
    assert list(measures) == [*MEASURES, "fairness.utility"]
    loss = measures["utility.auroc_loss"].estimate
    assert loss is not None
    assert loss.value < 1.5 * loss.baseline_worst < 0.1
    hazard = measures["utility.hazard_ratios"].estimate
    assert hazard is not None
    assert hazard.value < 1.5 * hazard.baseline_worst
    importance = measures["utility.importance"].estimate
    assert importance is not None
    assert importance.value > importance.baseline_worst - 0.2
    assert fresh.row("real").value == pytest.approx(0.82, abs=0.05)  # the law's own: severity seen five times
    assert max(fresh.importances, key=lambda row: row.synthetic).code == "LAB//a"
    assert fresh.notes == ()
    assert fresh.reason == ""


def test_twins_without_the_law_fall_to_the_floor(fresh: UtilityFindings, shuffled: UtilityFindings) -> None:
    loss = {one.name: one.estimate for one in shuffled.measures}["utility.auroc_loss"]
    assert loss is not None
    assert loss.low > 3 * loss.baseline_worst
    trained = shuffled.row("twins").value
    assert trained is not None
    floor = shuffled.row("floor")
    assert floor.low is not None
    assert trained < floor.high + 0.15  # type: ignore[operator]
    reverse, straight = shuffled.row("reverse"), fresh.row("reverse")
    assert reverse.high < straight.low  # type: ignore[operator]
    hazard = {row.covariate: row for row in shuffled.hazards}["LAB//a"]
    assert hazard.difference is not None
    assert hazard.difference < -3


@pytest.mark.parametrize("profile", ["research", "partner", "public"])
def test_the_gate_of_usefulness_fails_outcomes_dealt_anew_and_passes_perfect_twins(
    fresh: UtilityFindings,
    shuffled: UtilityFindings,
    shipped: tuple[dict[str, Profile], tuple[Rule, ...]],
    profile: str,
) -> None:
    chosen = shipped[0][profile]
    judging = replace(chosen, gates=tuple(gate for gate in chosen.gates if gate.name == "usefulness"))
    assert judging.gates[0].control == ("outcomes dealt anew",)
    for found, outcome in ((fresh, "passed"), (shuffled, "failed")):
        (result,) = judge(Findings(300, 300, 0, found.measures), judging)
        assert result.outcome == outcome, result


def test_permuted_labels_are_worth_a_half(fresh: UtilityFindings) -> None:
    for model in ("boosting", "logistic"):
        row = fresh.row("floor", "auroc", model)
        assert row.num_fits == 5
        assert row.low < 0.5 < row.high  # type: ignore[operator]


def test_intervals_hold_the_spread_between_seeds_and_differences_are_paired(fresh: UtilityFindings) -> None:
    twins, real = fresh.row("twins"), fresh.row("real")
    assert (twins.num_fits, twins.against, real.between) == (3, "real", None)
    assert twins.between is not None
    assert twins.between > 0
    assert twins.difference == pytest.approx(twins.value - real.value)  # type: ignore[operator]
    width = real.high - real.low  # type: ignore[operator]
    assert twins.difference_high - twins.difference_low < width  # type: ignore[operator]


def test_augmentation_is_measured_against_the_same_share_alone(fresh: UtilityFindings) -> None:
    arms = {row.arm: row for row in fresh.rows if row.score == "auroc" and row.model == fresh.best}
    # A tenth of 300 has fewer than 11 deaths: it is not measured.
    assert list(arms) == ["real", "twins", "floor", "reverse", "real 25 %", "real 25 % + twins", "real 100 % + twins"]
    assert (arms["real 25 % + twins"].against, arms["real 100 % + twins"].against) == ("real 25 %", "real")
    assert (arms["real 25 %"].num_subjects, arms["real 25 % + twins"].num_subjects) == (75, 375)
    assert arms["real 25 % + twins"].value > arms["real 25 %"].value - 0.02  # type: ignore[operator]


def test_twins_without_the_outcome_are_told_of(train: Records, test_side: Records) -> None:
    found = measured(train, test_side, [records_of(stays(60, seed=3, deaths=False), VOCABULARY)])
    assert found.reason == "twins: 0 eligible subjects with the outcome (11 are needed)"
    assert {row.arm for row in found.rows} == {"real", "floor"}
    assert [(one.estimate, one.applicable, one.reason) for one in found.measures] == [(None, True, found.reason)] * 6
    assert "60 subjects, fewer than the 300 real training subjects" in found.notes[0]


def test_real_data_without_the_outcome_make_it_not_applicable(test_side: Records) -> None:
    alive = records_of(stays(60, seed=3, deaths=False), VOCABULARY)
    found = measured(alive, alive, [test_side])
    assert found.rows == ()
    assert {one.applicable for one in found.measures} == {False}
    assert found.reason == "real train: 0 eligible subjects with the outcome (11 are needed)"


def test_nobody_is_no_crash(train: Records, test_side: Records) -> None:
    nobody = tables_to_records([EVENT_SCHEMA.empty_table()], VOCABULARY)
    assert measured(nobody, nobody, [nobody]).reason.startswith("real train: 0 eligible")
    assert measured(train, test_side, [nobody]).reason.startswith("twins: 0 eligible")
    assert measured(train, test_side, []).reason == "there are no twins"


def test_twins_that_hold_the_test_patients_are_suspect(train: Records, test_side: Records) -> None:
    """Of noisy labels a model learns by heart, if it may."""
    weak = [records_of(stays(300, seed=seed, effect=0.3), VOCABULARY) for seed in (1, 2)]
    found = measured(weak[0], weak[1], [weak[1]])
    assert any("do the twins hold the test subjects?" in note for note in found.notes)


def test_a_rule_that_is_not_the_label_files_is_told_of(train: Records) -> None:
    examples, _ = find_examples(MORTALITY, train)
    labels = Labels(train.subjects[examples.subject], examples.time_us, ~examples.label)
    found = utility_findings(MORTALITY, (train, train), [], Options(num_resamples=5), labels=labels)
    assert "the rule and the label file agree on 0.00% of labels; both sides follow the rule" in found.notes
    strangers = replace(labels, subject_id=labels.subject_id + 10_000)
    found = utility_findings(MORTALITY, (train, train), [], Options(num_resamples=5), labels=strangers)
    assert any("has no label of these subjects" in note for note in found.notes)


def test_importance_by_hand() -> None:
    """A model that reads the first column only: dealing it anew leaves a half, the others leave all."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 3)).astype(np.float32)
    label = features[:, 0] > 0
    weights = np.ones((1, 4000), np.float32)
    fall = code_importance(
        lambda x: 1 / (1 + np.exp(-x[:, 0].astype(float))), features, label, ["a", "b", "b"], weights, seed=1
    )
    assert fall[:, 0].tolist() == pytest.approx([0.5, 0], abs=0.03)
    assert fall[1, 0] == 0
    mine, theirs = np.array([[3.0], [2.0], [1.0], [0.0]]), np.array([[3.0], [1.0], [2.0], [0.0]])
    assert rank_agreement(mine, theirs).tolist() == pytest.approx([0.8])
    assert rank_agreement(mine, np.zeros((4, 1))).tolist() == [0]
    assert top_overlap(mine, theirs, 2).tolist() == [0.5]


def survival(size: int, seed: int, effect: float) -> Survival:
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 2, size=(size, 1)).astype(np.float32)
    return Survival(rng.exponential(np.exp(-effect * (x[:, 0] - 5) / 2)), rng.random(size) < 0.8, x)


def test_hazard_ratios_by_hand() -> None:
    space = FeatureSpace((("LAB//a", "mg"),), np.zeros(1), (), (), ("LAB//a mean",), ("LAB//a",))
    real = survival(600, 1, 0.7)
    covariates = Covariates(["LAB//a", "LAB//none"], space, real.features)

    def agreement(*twins: Survival):
        return hazard_agreement("t", covariates, real, twins, seed=0, num_resamples=40)

    measure, rows = agreement(real)
    assert measure.estimate is not None
    assert measure.estimate.value == 0
    assert (rows[0].difference, rows[0].overlap) == pytest.approx((0, 1))
    assert rows[0].real == pytest.approx(0.7, abs=0.1)  # the law: 0.7 per standard deviation
    assert rows[1].reason == "the real subjects do not have it, or all alike"
    fair, _ = agreement(survival(600, 2, 0.7), survival(600, 3, 0.7), survival(600, 4, 0.7))
    assert fair.estimate is not None
    assert fair.estimate.value < 1.5 * fair.estimate.baseline_worst
    wrong, rows = agreement(survival(600, 2, 0.0))
    assert wrong.estimate is not None
    assert wrong.estimate.low > 2 * wrong.estimate.baseline_worst
    assert rows[0].overlap < 0  # type: ignore[operator]
    few, _ = agreement(survival(10, 2, 0.7))
    assert few.reason == "needs 10 outcomes, the twins of seed 1 have 8"
    none, _ = hazard_agreement("t", Covariates([], space, real.features), real, [real], seed=0, num_resamples=9)
    assert (none.reason, none.applicable) == ("the task names none", False)


def test_small_real_counts_are_not_told() -> None:
    real = SideRow("t", "real train", 300, 40, 40, 12, 3, 0, 10, 11, 0)
    told = shareable_sides([real, replace(real, side="twins")])
    assert (told[0].no_anchor, told[0].already_happened, told[0].unknown, told[0].record_over) == (None, None, 11, 0)
    assert told[1].no_anchor == 3


@pytest.fixture(scope="module")
def real_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("utility") / "real", stays(240, seed=1), "real", held_out=0.4)


def test_the_pipeline_reads_the_splits_and_writes_the_section(real_dataset: Dataset, tmp_path: Path) -> None:
    twins = write_dataset(tmp_path / "twins", stays(150, seed=2), "synthetic")
    labels = tmp_path / "labels.parquet"
    split = {one for one, name in real_dataset.subject_splits().items() if name == "train"}
    mine = records_of(real_dataset.events(), Vocabulary())
    examples, _ = find_examples(MORTALITY, mine)
    truth = Labels(mine.subjects[examples.subject], examples.time_us, examples.label)
    table = {
        "subject_id": truth.subject_id,
        "prediction_time": truth.time_us.astype("datetime64[us]"),
        "boolean_value": truth.label,
    }
    pq.write_table(pa.table(table), labels)
    task = replace(MORTALITY, labels=str(labels))
    stages: list[str] = []
    found = measure_utility(
        real_dataset,
        [twins],
        task,
        Options(num_resamples=30),
        watch=lambda names: [stages.append(one) or one for one in names],
    )
    assert stages == ["features", "boosting", "logistic", "importance", "hazard ratios"]
    assert found.agreement is not None
    assert (found.agreement.num_labels, found.agreement.share) == (len(split), 1.0)
    assert [side.num_subjects for side in found.sides] == [144, 96, 144]
    page = render_page(Page("t", "l", [utility_section(found)]))
    for text in ("the ceiling", "the floor", "Hazard ratios", "100.00%", "LAB//a", "twins, tested on real"):
        assert text in page
    assert set(utility_tables(found)) == {
        "utility", "utility_sides", "utility_importance", "utility_hazards", "utility_groups",
    }  # fmt: skip
    assert found.to_dict()["task"]["name"] == "mortality"
    absent = measure_utility(
        real_dataset, [twins], replace(MORTALITY, labels="task_labels/x.parquet"), Options(num_resamples=20)
    )
    assert "the real dataset has no task_labels/x.parquet to compare the rule with" in absent.notes
    assert "Not measured" not in page


def test_the_pipeline_needs_unseen_patients(tmp_path: Path) -> None:
    real = write_dataset(tmp_path / "real", stays(60, seed=1), "real")
    with pytest.raises(DatasetError, match="must have a held_out split"):
        measure_utility(real, [real], MORTALITY)
