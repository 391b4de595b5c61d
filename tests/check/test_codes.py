from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats
from scipy.spatial import distance as scipy_distance

from medtwin.check.codes import code_measures, disagreement_of_ranks, kl_divergence
from medtwin.check.estimates import Estimate
from medtwin.check.marginals import js_divergence
from medtwin.check.records import Records, Vocabulary, tables_to_records
from medtwin.check.resample import make_plan
from medtwin.core.events import Event
from tests.check import samples
from tests.check.timelines import HOURS_PER_YEAR, at, estimates, is_ordinary, records


def test_divergences_by_hand() -> None:
    first, second = np.array([[3.0, 0.0]]), np.array([[1.0, 2.0]])
    # p = (3.5, 0.5) / 4, q = (1.5, 2.5) / 4: 0.875 ln(7/3) + 0.125 ln(1/5)
    assert kl_divergence(first, second)[0] == pytest.approx(0.5402058)
    assert kl_divergence(first, first)[0] == 0
    # p = (1/2, 1/2), q = (1, 0), middle (3/4, 1/4)
    assert js_divergence(np.array([[2.0, 2.0]]), np.array([[5.0, 0.0]]))[0] == pytest.approx(0.3112781)
    assert js_divergence(np.array([[2.0, 0.0]]), np.array([[0.0, 7.0]]))[0] == pytest.approx(1)
    assert js_divergence(first, first)[0] == 0
    assert js_divergence(first, np.zeros((1, 2))).tolist() == [1]


def test_divergences_and_ranks_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, (4, 30)).astype(float), rng.integers(0, 9, (4, 30)).astype(float)
    for row in range(4):
        p, q = ((side[row] + 0.5) / (side[row] + 0.5).sum() for side in (first, second))
        assert kl_divergence(first, second)[row] == pytest.approx(stats.entropy(p, q))
        bits = scipy_distance.jensenshannon(first[row], second[row], base=2) ** 2
        assert js_divergence(first, second)[row] == pytest.approx(bits)
        rho = stats.spearmanr(first[row], second[row]).statistic
        assert disagreement_of_ranks(first, second)[row] == pytest.approx(1 - rho)


def test_rank_correlation_by_hand() -> None:
    first = np.array([[0.1, 0.2, 0.3, 0.4]])
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8
    assert disagreement_of_ranks(first, np.array([[5.0, 7.0, 6.0, 8.0]]))[0] == pytest.approx(0.2)
    assert disagreement_of_ranks(first, first[:, ::-1])[0] == pytest.approx(2)
    constant = np.full((1, 4), 0.5)
    assert disagreement_of_ranks(first, constant).tolist() == [1]
    assert disagreement_of_ranks(constant, constant).tolist() == [0]


def yearly(num_subjects: int, counts: dict[str, int]) -> list[Event]:
    """Each subject has each code so many times within one year, which the last code ends."""
    rows = []
    for subject in range(num_subjects):
        for code, count in counts.items():
            hours = np.linspace(0, HOURS_PER_YEAR, count) if count > 1 else [0.0]
            rows += [at(subject, hour, code) for hour in hours]
    return rows


def test_rates_and_divergence_of_two_hospitals_by_hand() -> None:
    vocabulary = Vocabulary()
    real = records(yearly(40, {"A": 1, "B": 2, "C": 4}), vocabulary)
    twins = records(yearly(40, {"A": 1, "B": 2, "C": 3}), vocabulary)
    plan = make_plan(40, 40, 0, seed=0, num_resamples=20)
    found = estimates(code_measures(real, twins, None, plan, {})[0])
    # events per year, half an event added in 40 years: 1.0125 2.0125 4.0125 against 1.0125 2.0125 3.0125
    # sum of squares about the mean 2.345833: 4.666667; squared error 1
    assert found["rate.r2"].value == pytest.approx(1 - 1 / 4.666667)
    # logarithms 0.012423 0.699378 1.389414 about their mean: 0.948034; squared error 0.286644 ** 2 = 0.082165
    assert found["rate.log_r2"].value == pytest.approx(1 - 0.082165 / 0.948034, abs=1e-5)
    # ln(241.5 / 281.5) + 160.5 / 281.5 * ln(160.5 / 120.5) = -0.153263 + 0.163433
    assert found["codes.kl"].value == pytest.approx(0.010170, abs=1e-6)
    assert found["prevalence.spearman"].value == 1  # everybody has every code on both sides
    assert found["prevalence.r2"].value == 1


def test_of_one_code_there_is_no_r2() -> None:
    side = records([at(subject, hour, "A") for subject in range(30) for hour in (0, 5)])
    found = {one.name: one for one in code_measures(side, side, None, make_plan(30, 30, 0, seed=0), {})[0]}
    for name in ("prevalence.r2", "prevalence.spearman", "rate.r2", "rate.log_r2"):
        assert found[name].estimate is None
        assert found[name].reason == "fewer than 2 codes to compare"
    assert found["codes.kl"].estimate is not None
    assert found["codes.kl"].estimate.value == 0


# Broken data

HIGHER = ("prevalence.r2", "prevalence.spearman", "rate.r2", "rate.log_r2")
DIVERGENCES = ("codes.kl", "codes.js")


def repeated(table: pa.Table, factor: int) -> pa.Table:
    """Events of the rarer half of the codes so many times: who has which code stays, and the common codes too."""
    names, counts = np.unique(table["code"].to_numpy(zero_copy_only=False).astype(str), return_counts=True)
    rare = names[np.argsort(counts, kind="stable")[: len(names) // 2]]
    rows = samples.without_identity(table.filter(pc.is_in(table["code"], value_set=pa.array(rare))))
    return pa.concat_tables([table, *[rows] * (factor - 1)])


def measured(real: Records, twins: pa.Table) -> dict[str, Estimate]:
    side = tables_to_records([twins], real.vocabulary)
    plan = make_plan(real.num_subjects, side.num_subjects, 0, seed=0, num_resamples=40)
    return estimates(code_measures(real, side, None, plan, {})[0])


def test_an_independent_draw_differs_no_more_than_real_subjects_do(real_table: pa.Table, fresh_table: pa.Table) -> None:
    found = measured(tables_to_records([real_table], Vocabulary()), fresh_table)
    for name in HIGHER:
        assert is_ordinary(found[name], better="higher"), name
    for name in DIVERGENCES:
        assert is_ordinary(found[name]), name


def test_broken_codes_move_what_they_should(real_table: pa.Table, fresh_table: pa.Table) -> None:
    real = tables_to_records([real_table], Vocabulary())
    often = measured(real, repeated(fresh_table, 4))
    assert is_ordinary(often["prevalence.r2"], better="higher")
    assert is_ordinary(often["rate.r2"], better="higher")  # the common codes decide it, hence the logarithm
    assert not is_ordinary(often["rate.log_r2"], better="higher")
    assert not any(is_ordinary(often[name]) for name in DIVERGENCES)
    renamed = measured(real, samples.renamed_codes(fresh_table))
    assert not any(is_ordinary(renamed[name], better="higher") for name in HIGHER)
    assert not any(is_ordinary(renamed[name]) for name in DIVERGENCES)
    collapsed = measured(real, samples.collapsed(fresh_table))
    assert not any(is_ordinary(collapsed[name], better="higher") for name in HIGHER)
    assert not any(is_ordinary(collapsed[name]) for name in DIVERGENCES)
