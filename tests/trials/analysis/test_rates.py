"""Tests of rates by hand-computed and published values, invariants and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from scipy.stats import hypergeom

from medtwin.trials.analysis import rates


def test_newcombes_published_intervals() -> None:
    """Newcombe 1998, table II, 56/70 against 48/80: methods 5 (Mee), 10 and 1 (Wald)."""
    pair = (56, 48), (70, 80)
    score = rates.miettinen_nurminen_interval(*pair, bias_corrected=False)
    assert (round(score.low, 4), round(score.high, 4)) == (0.0533, 0.3377)
    found = rates.newcombe_interval(*pair)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    wald = rates.wald_interval(*pair)
    assert (round(wald.low, 4), round(wald.high, 4)) == (0.0575, 0.3425)


def test_the_score_interval_holds_what_the_test_accepts() -> None:
    for scale in ("difference", "ratio", "odds_ratio"):
        found = rates.miettinen_nurminen_interval((12, 7), (40, 45), scale=scale)
        for limit, sign in ((found.low, 1), (found.high, -1)):
            test = rates.miettinen_nurminen_test((12, 7), (40, 45), limit, scale=scale)
            assert test.z == pytest.approx(sign * 1.959964, abs=1e-5)


def test_without_an_effect_the_score_test_is_the_chi_square() -> None:
    chi = rates.chi_square_test([[31, 20], [19, 30]], continuity=False)
    for scale in ("difference", "ratio", "odds_ratio"):
        found = rates.miettinen_nurminen_test((31, 20), (50, 50), scale=scale, bias_corrected=False)
        assert found.z**2 == pytest.approx(chi.chi_square)
    corrected = rates.miettinen_nurminen_test((31, 20), (50, 50))
    assert corrected.z**2 == pytest.approx(chi.chi_square * 99 / 100)


def test_fisher_by_hand() -> None:
    found = rates.fisher_test([[3, 1], [1, 3]])
    assert found.p_value == pytest.approx((1 + 16 + 16 + 1) / 70)
    assert rates.fisher_test([[3, 1], [1, 3]], alternative="greater").p_value == pytest.approx(17 / 70)
    assert rates.fisher_test([[4, 0], [0, 4]]).odds_ratio.estimate == math.inf


def test_the_limits_of_fisher_leave_their_tails() -> None:
    odds = rates.fisher_test([[3, 9], [8, 4]]).odds_ratio
    assert rates.fisher_test([[3, 9], [8, 4]], null=odds.high, alternative="less").p_value == pytest.approx(0.025)
    assert rates.fisher_test([[3, 9], [8, 4]], null=odds.low, alternative="greater").p_value == pytest.approx(0.025)
    assert odds.estimate != pytest.approx(3 * 4 / (9 * 8), rel=0.01)


def test_fisher_of_one_is_the_hypergeometric_tail() -> None:
    found = rates.fisher_test([[7, 5], [2, 9]], alternative="greater").p_value
    assert found == pytest.approx(float(hypergeom.sf(6, 23, 12, 9)))


def test_one_stratum_is_nearly_the_chi_square() -> None:
    found = rates.stratified_test([[[31, 20], [19, 30]]], continuity=False)
    chi = rates.chi_square_test([[31, 20], [19, 30]], continuity=False).chi_square
    assert found.chi_square == pytest.approx(chi * 99 / 100)
    assert found.odds_ratio.estimate == pytest.approx(31 * 30 / (20 * 19))


def test_simpsons_paradox_needs_strata() -> None:
    tables = [[[81, 6], [234, 36]], [[192, 71], [55, 25]]]
    joined = [[273, 77], [289, 61]]
    assert rates.stratified_test(tables).odds_ratio.estimate > 1
    assert joined[0][0] * joined[1][1] < joined[0][1] * joined[1][0]


def test_exact_rate_and_mcnemar_by_hand() -> None:
    assert rates.exact_rate(0, 10).high == pytest.approx(1 - 0.025**0.1)
    assert rates.binomial_test(3, 3, 0.5) == pytest.approx(0.25)
    assert rates.mcnemar_test([[0, 9], [3, 0]], continuity=False).chi_square == pytest.approx(3)
    assert rates.mcnemar_test([[0, 9], [3, 0]]).chi_square == pytest.approx(25 / 12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rates.chi_square_test([[1, 2]]), "counts must be a table"),
        (lambda: rates.chi_square_test([[0, 0], [1, 2]]), "empty margin"),
        (lambda: rates.fisher_test([[1, 2, 3], [1, 2, 3]]), "2 x 2"),
        (lambda: rates.mcnemar_test([[3, 0], [0, 3]]), "discordant"),
        (lambda: rates.stratified_test([[[0, 0], [1, 2]]]), "empty margin"),
        (lambda: rates.miettinen_nurminen_test((5, 3), (4, 9)), "events must be between"),
        (lambda: rates.binomial_test(3, 9, 1.5), "null must be between"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
