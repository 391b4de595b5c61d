"""The measurement of errors (`scripts/bench/trials_errors_means_rates.py`): broken tests must be flagged."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, hypergeom, norm

sys.path.append(str(Path(__file__).resolve().parents[4] / "scripts" / "bench"))

import trials_errors_exact as exact
import trials_errors_independent as independent
import trials_errors_means_rates as script
import trials_errors_prognosis as prognosis
from trials_errors_designs import Design, designs
from trials_errors_families import Family, families
from trials_errors_law_of_t import statistics_of_means
from trials_errors_rates import do_agree
from trials_errors_store import Store

FIXED = designs()[0]


def family(start: str) -> Family:
    return next(each for each in families() if each.name.startswith(start))


def rows(of: Family, trials: int, scale: float = 1.0, null_shift: float = 0.0) -> list[script.Row]:
    """Rows of a family, whose statistics may be broken."""
    z = of.statistics(np.random.default_rng(1), trials)
    broken = {test: values * scale + null_shift for test, values in z.items()}
    with np.errstate(invalid="ignore"):
        return script.rows_of(of, trials, script.rejections(broken), [])


@pytest.mark.parametrize("name", ["rates in 3 strata", "rates 30 % : 30 %, 15"])
def test_honest_tests_hold(name: str) -> None:
    # Here fewer trials than 100,000 may be 4 standard errors from the nominal error.
    assert not [each for each in rows(family(name), 4000) if each.verdict == "MISSES"]


def test_a_standard_error_that_is_a_tenth_too_small_is_flagged() -> None:
    found = rows(family("rates in 3 strata"), 20_000, scale=1.15)
    assert all(each.verdict == "MISSES" for each in found if each.design == "fixed")


def test_a_margin_that_is_forgotten_is_flagged() -> None:
    honest = family("non-inferior rates in 3 strata")
    assert {each.verdict for each in rows(honest, 4000) if each.design == "fixed"} == {"holds"}
    forgotten = rows(replace(honest), 4000, null_shift=-0.9)
    assert {each.verdict for each in forgotten if each.design == "fixed"} == {"MISSES"}


def test_looks_without_their_bounds_are_flagged() -> None:
    """Three looks, each at the bound of one."""
    honest = family("rates in 3 strata")
    z = honest.statistics(np.random.default_rng(2), 4000)
    plan = next(each for each in designs() if each.name.startswith("3 looks, Pocock"))
    naive = replace(plan, bounds=replace(plan.bounds, efficacy=np.full(3, 1.96), futility=np.array([-9, -9, 1.96])))
    count = int(naive.rejects(z["Cochran-Mantel-Haenszel"]).sum())
    (row,) = script.rows_of(honest, 4000, {f"Cochran-Mantel-Haenszel|{plan.name}": count}, [])
    assert row.verdict == "MISSES"


def test_a_simulation_that_disagrees_with_the_enumeration_is_flagged_even_near_the_nominal_error() -> None:
    row = script.Row("f", True, "t", "fixed", 100_000, 0.0250, 0.025, exact=0.0275)
    assert row.verdict == "MISSES"
    assert replace(row, exact=0.0251).verdict == "holds"
    assert replace(row, rate=0.0310, exact=0.0312).verdict == "as exact"
    assert replace(row, rate=0.0310, exact=None, independent=(0.0305, 20_000), source="R").verdict == "as R"
    assert replace(row, rate=0.0310, exact=None, independent=(0.0250, 20_000)).verdict == "MISSES"
    assert replace(row, rate=0.0260, exact=None, independent=(0.0350, 20_000), source="R").verdict == "MISSES"
    assert replace(row, is_null=False, rate=0.80, expected=0.79, exact=None).verdict == "MISSES"
    assert replace(row, is_null=False, rate=0.80, expected=None, exact=None).verdict == "-"


def test_enumeration_by_hand() -> None:
    """Fisher's test of 5 and 5: all tables written out; and a design whose first look cannot be crossed."""
    sizes = ((2, 2), (3, 3), (4, 4), (5, 5))
    by_hand = sum(
        binom.pmf(a, 5, 0.9) * binom.pmf(b, 5, 0.2)
        for a in range(6)
        for b in range(6)
        if hypergeom.sf(a - 1, 10, a + b, 5) <= 0.025
    )
    args: tuple[str, dict[str, float], tuple[float, float], tuple[tuple[int, int], ...]]
    args = "Fisher, one-sided", {}, (0.9, 0.2), sizes
    assert exact.exact_counts(*args, FIXED) == pytest.approx(by_hand, rel=1e-9)
    plan = designs()[1]
    closed = replace(plan.bounds, efficacy=np.array([np.inf, norm.isf(0.025)]), futility=np.array([-np.inf, 0.0]))
    assert exact.exact_counts(*args, Design("closed", plan.columns, closed)) == pytest.approx(by_hand, rel=1e-9)


def test_rank_sums_by_hand() -> None:
    """Of 4 and 4 only the highest of 70 counts is beyond 1.96, and of 3 and 3 none."""
    assert exact.exact_rank_sum(4, 4, continuity=False) == pytest.approx(2 / 70)
    assert exact.exact_rank_sum(3, 3, continuity=True) == 0.0


def test_power_of_covariance_analysis_without_imbalance_is_that_of_t() -> None:
    assert exact.exact_ancova(0.0, 1.0, 20, 20) == pytest.approx(0.025, abs=1e-6)
    large = exact.exact_ancova(0.1, 1.0, 2000, 2000)
    assert large == pytest.approx(float(norm.sf(norm.isf(0.025) - 0.1 * math.sqrt(1000))), abs=1e-3)


def test_the_law_of_t_is_known_at_one_look_and_that_of_patients_at_three() -> None:
    trials, fixed = 20_000, designs()[0]
    sizes = ((20, 20), (30, 30), (40, 40), (60, 60))
    z = statistics_of_means(sizes, 0.5, 0.6)(np.random.default_rng(3), trials)
    known = {
        "pooled t": exact.exact_t(0.5 * math.sqrt(30), 118),
        "paired t": exact.exact_t(0.5 * math.sqrt(30), 59),
        "ANCOVA": exact.exact_ancova(0.5, 0.8, 60, 60),
    }
    for test, power in known.items():
        assert do_agree((float(fixed.rejects(z[test]).mean()), trials), (power, 10**9))
    plan = next(each for each in designs() if each.name == "3 looks, Pocock spending")
    of_patients = family("means, effect 0.52, 60").statistics(np.random.default_rng(4), 1500)
    for effect, agrees in ((0.52, True), (0.6, False)):
        z = statistics_of_means(sizes, effect, 0.5)(np.random.default_rng(5), trials)
        for test in known:
            rates = [(float(plan.rejects(each[test]).mean()), len(each[test])) for each in (z, of_patients)]
            assert do_agree(rates[0], rates[1]) == agrees


def test_what_r_found_is_kept_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, store, sizes = family("logistic law, 20"), Store(tmp_path / "state.jsonl", 1), []
    monkeypatch.setattr(independent.shutil, "which", lambda _: "Rscript")

    def run(_: Family, command: list[str], trials: int) -> dict[str, int]:
        sizes.append((trials, command[5]))
        return {"logistic, Wald|fixed": 7}

    monkeypatch.setattr(independent, "_run", run)
    assert independent.from_r(of, 0, store) is None
    found = independent.from_r(of, 2600, store)
    assert found == independent.Independent("R", 2600, {"logistic, Wald|fixed": 14})
    assert found == independent.from_r(of, 2600, Store(store.path, 1)) == independent.from_r(of, 0, store)
    assert sizes == [(2500, "1000"), (100, "1001")]
    assert independent.from_r(family("rates in 3 strata"), 2600, store) is None


def test_a_score_that_treatment_changes_is_flagged(tmp_path: Path) -> None:
    store, arm = Store(tmp_path / "state.jsonl", 1), (np.arange(2 * prognosis.ARM) + 1) % 2
    honest = prognosis.measure("honest", 2000, store, prognosis.normal_draw(0.7))
    assert prognosis._row("", 0.51, honest)[1]

    def treated(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        y, m = prognosis.normal_draw(0.7)(rng, num)
        return y, m - 0.3 * arm

    line, good = prognosis._row("", 0.51, prognosis.measure("treated", 2000, store, treated))
    assert not good
    assert "MISSES" in line


def test_finished_blocks_are_not_simulated_again(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    name = "rates in 3 strata, 60 + 60"
    found = script.simulate_block((name, 0, 200), 1)
    assert found == script.simulate_block((name, 0, 200), 1)
    Store(path, 1).add([200, found[3]], "block", name, 0)
    assert script.totals(Store(path, 1), name, 5) == (200, found[3])
    assert script.totals(Store(path, 2), name, 5) == (0, {})
    numbers = Store(path, 1).once(lambda: [1.0], "score", "normal", 10)
    assert Store(path, 1).once(lambda: [2.0], "score", "normal", 10) == numbers == [1.0]
