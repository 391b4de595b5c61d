from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.enrolment.factors import Factor, as_factors, strata
from medtwin.trials.enrolment.randomisation import (
    BiasedCoin,
    BigStick,
    PermutedBlocks,
    Randomisation,
    SimpleRandomisation,
    Urn,
    assign_in_turn,
    ratio_parts,
)

DRAWS = TrialDraws(5, 400)
ONE_STRATUM = np.zeros((0, 400, 60), dtype=np.int64)


def test_levels_and_strata() -> None:
    assert Factor("age", (50.0,)).levels([49.0, 50.0, np.nan]).tolist() == [0, 1, 2]
    code, made = strata(np.array([[[0, 1], [1, 0]], [[2, 0], [0, 2]]]))
    assert code.tolist() == [[0, 1], [1, 0]]
    assert made == [(0, 2), (1, 0)]
    assert [factor.name for factor in as_factors(["sex", Factor("age", (65.0,))])] == ["sex", "age"]


@pytest.mark.parametrize("parts", [(1, 1), (2, 1), (1, 2, 3)])
def test_simple_randomisation_has_the_shares_and_no_memory(parts: tuple[int, ...]) -> None:
    arms = SimpleRandomisation().assign(ONE_STRATUM, parts, DRAWS)
    shares = np.bincount(arms.ravel()) / arms.size
    assert shares == pytest.approx(np.array(parts) / sum(parts), abs=4 * 0.5 / arms.size**0.5)
    assert abs(np.corrcoef(arms[:, 1:].ravel(), arms[:, :-1].ravel())[0, 1]) < 4 / arms.size**0.5


@pytest.mark.parametrize(("parts", "size"), [((1, 1), 4), ((1, 2), 6), ((1, 1, 2), 8), ((2, 3), 5)])
def test_the_ratio_holds_in_every_block(parts: tuple[int, ...], size: int) -> None:
    arms = PermutedBlocks(size).assign(ONE_STRATUM, parts, DRAWS)
    whole = arms[:, : 60 // size * size].reshape(400, -1, size)
    for arm, part in enumerate(parts):
        assert ((whole == arm).sum(axis=2) == size // sum(parts) * part).all()


def test_all_orders_of_a_block_are_equally_likely() -> None:
    arms = PermutedBlocks(4).assign(ONE_STRATUM, (1, 1), DRAWS).reshape(-1, 4)
    counts = np.array(list(Counter(map(tuple, arms.tolist())).values()))
    assert len(counts) == 6
    assert chi2.sf(((counts - 1000) ** 2 / 1000).sum(), 5) > 0.01


def test_blocks_of_varying_size_balance_at_their_ends_only() -> None:
    blocks = PermutedBlocks([6, 2, 4])
    arms, number = blocks.listed(60, (1, 1), DRAWS), blocks._block_numbers(66, DRAWS)[:, :60]
    sizes = Counter()
    for row, block in zip(arms, number, strict=True):
        for which in range(block[-1]):  # the last one may be cut
            here = row[block == which]
            assert here.sum() * 2 == len(here)
            sizes[len(here)] += 1
    total = sum(sizes.values())
    assert set(sizes) == {2, 4, 6}
    assert all(abs(count / total - 1 / 3) < 0.03 for count in sizes.values())
    assert np.abs(np.cumsum(2 * arms - 1, axis=1)).max() == 3
    assert len({tuple(block) for block in number.tolist()}) > 350


def test_strata_have_lists_of_their_own() -> None:
    rng = np.random.default_rng(1)
    levels = rng.integers(2, size=(2, 400, 60))
    blocks = PermutedBlocks(4, ["sex", "site"])
    arms = blocks.assign(levels, (1, 1), DRAWS)
    stratum, made = strata(levels)
    firsts = []
    for number, combination in enumerate(made):
        lists = blocks.listed(60, (1, 1), DRAWS, *combination)
        for row in range(0, 400, 40):
            here = arms[row, stratum[row] == number]
            np.testing.assert_array_equal(here, lists[row, : len(here)])
        firsts.append(lists[:, :40].ravel())
    assert np.abs(np.corrcoef(firsts) - np.eye(4)).max() < 4 / firsts[0].size ** 0.5
    fewer = blocks.assign(np.where(levels == 1, levels, 0)[:, :, :30], (1, 1), DRAWS)
    np.testing.assert_array_equal(fewer, arms[:, :30])  # a longer trial does not move the first patients
    overall = PermutedBlocks(4).assign(levels[:0], (1, 1), DRAWS)
    imbalance = [np.abs(((2 * a - 1) * (stratum == 0)).sum(axis=1)).mean() for a in (arms, overall)]
    assert imbalance[0] < 0.5 * imbalance[1]  # a control: without strata each of them is out of balance


def test_efrons_coin_by_hand() -> None:
    """From no lead: 1/2; the arm behind has 3/4."""
    uniform = np.array([[0.6, 0.7, 0.8, 0.2, 0.2]])  # the control's probabilities: 1/2, 1/4, 3/4, 1/2, 3/4 below
    arms = assign_in_turn(np.zeros((1, 1, 5), dtype=np.int64), 2, uniform, BiasedCoin(0.75).probabilities)
    # u = .6 >= 1/2: experimental; it leads, control 3/4 > .7: control; level, .8: experimental; leads, .2: control; ...
    assert arms.tolist() == [[1, 0, 1, 0, 0]]


def test_the_laws_of_coins_and_urns() -> None:
    efron = BiasedCoin(2 / 3).assign(ONE_STRATUM, (1, 1), DRAWS)
    lead = (2 * efron - 1).sum(axis=1)
    # Efron 1971: after an even number of patients the probability of no lead tends to 1 - q/p
    assert (lead == 0).mean() == pytest.approx(0.5, abs=4 * 0.5 / 20)
    stick = BigStick(3).assign(ONE_STRATUM, (1, 1), DRAWS)
    path = np.cumsum(2 * stick - 1, axis=1)
    assert np.abs(path).max() == 3
    assert (np.abs(path) == 3).any(axis=1).mean() > 0.9
    assert BigStick(1).assign(ONE_STRATUM, (1, 1), DRAWS).reshape(400, -1, 2).sum(axis=2).tolist() == [[1] * 30] * 400
    fair = SimpleRandomisation().assign(ONE_STRATUM, (1, 1), DRAWS)
    urn, still = Urn(0, 1).assign(ONE_STRATUM, (1, 1), DRAWS), Urn(1, 0).assign(ONE_STRATUM, (1, 1), DRAWS)
    spread = [(2 * arms - 1).sum(axis=1).var() / 60 for arms in (fair, still, urn)]
    assert spread == pytest.approx([1, 1, 1 / 3], abs=0.3)  # Wei 1978: n / 3 of UD(0, 1)
    np.testing.assert_array_equal(urn[:, 1], 1 - urn[:, 0])
    three = Urn(1, 2).probabilities(np.array([[[2]], [[0]], [[1]]]))
    assert three.ravel() == pytest.approx(np.array([3, 7, 5]) / 15)


def test_coins_in_strata_do_not_mind_other_strata() -> None:
    levels = np.random.default_rng(2).integers(2, size=(1, 400, 60))
    arms = BigStick(1, ["sex"]).assign(levels, (1, 1), DRAWS)
    for level in (0, 1):
        assert np.abs(np.cumsum((2 * arms - 1) * (levels[0] == level), axis=1)).max() == 1


def test_ratios() -> None:
    assert (ratio_parts(2.0), ratio_parts(0.5), ratio_parts(1.5)) == ((1, 2), (2, 1), (2, 3))


@pytest.mark.parametrize(
    ("made", "parts", "message"),
    [
        (PermutedBlocks(4), (1, 2), "block_size must be a multiple of 3 for allocation 1:2, got 4"),
        (PermutedBlocks([4, 6]), (1, 1, 2), "block_size must be a multiple of 4 for allocation 1:1:2, got 6"),
        (PermutedBlocks(4), (1,), "parts must be two or more integers"),
        (SimpleRandomisation(), (1, 0), "parts must be two or more integers"),
        (SimpleRandomisation(), (1, 1.5), "parts must be two or more integers"),
        (BiasedCoin(), (1, 2), "parts must be equal for a biased coin"),
        (BigStick(2), (1, 1, 1), "parts must be two for the big stick"),
        (Urn(), (1, 2), "parts must be equal for an urn"),
    ],
)
def test_ratios_that_cannot_be_had_are_refused(made: Randomisation, parts: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made.assign(ONE_STRATUM, parts, DRAWS)


def test_refusals() -> None:
    for call, message in (
        (lambda: PermutedBlocks(0), "block_size must be one or more integers"),
        (lambda: PermutedBlocks([]), "block_size must be one or more integers"),
        (lambda: BiasedCoin(1.1), "probability must be from 1/2 to 1"),
        (lambda: BiasedCoin(0.4), "probability must be from 1/2 to 1"),
        (lambda: BigStick(0), "limit must be 1 or more"),
        (lambda: Urn(0, 0), "initial and added"),
        (lambda: Urn(-1, 1), "initial and added"),
        (lambda: Factor("age", (2.0, 1.0)), "cuts of age must be finite and increase"),
        (lambda: Factor(""), "name must be that of a covariate"),
        (lambda: as_factors(["a", "a"]), "factors must differ"),
        (lambda: ratio_parts(0.0), "allocation_ratio must be above 0"),
        (lambda: ratio_parts(0.123456), "quotient of integers up to 100"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
