"""Laws of patients under which tests of means, rates, counts and repeated measures are tried; what is known of them.

Patients come in a fixed order of arms; the looks at FRACTIONS see the first of them. A family draws trials and gives
the one-sided statistic of every test at every look, (trials, looks), as z; columns of nan are not computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from trials_errors_designs import ALPHA, FRACTIONS, Design
from trials_errors_exact import exact_ancova, exact_counts, exact_rank_sum, exact_t
from trials_errors_law_of_t import statistics_of_means

from medtwin.trials.analysis.batched.ancova import Variance, analyses_of_covariance
from medtwin.trials.analysis.batched.glm import logistic_models, poisson_models
from medtwin.trials.analysis.batched.mmrm import repeated_measures_by
from medtwin.trials.analysis.batched.negative_binomial import negative_binomial_models
from medtwin.trials.analysis.batched.ranks import rank_sum_tests, signed_rank_tests
from medtwin.trials.analysis.batched.rates import (
    Counts,
    fisher_p,
    log_odds_ratios,
    log_rate_ratios,
    miettinen_nurminen_z,
    pearson_z,
    risk_differences,
)
from medtwin.trials.analysis.batched.standardised_risks import augmented_risks, standardised_risks
from medtwin.trials.analysis.batched.stratified_rates import stratified_miettinen_nurminen_z, stratified_z
from medtwin.trials.analysis.batched.t_tests import one_sample_t_tests, pooled_t_tests, welch_t_tests
from medtwin.trials.design.log_rates import LogRatesTest
from medtwin.trials.design.means import MeansTest
from medtwin.trials.design.ordinal import OrdinalTest
from medtwin.trials.design.rates import RatesTest

Floats = NDArray[np.float64]
Statistics = dict[str, Floats]
AtLook = Callable[[np.random.Generator, int], list[Statistics]]
CHUNK, CHUNK_OF_COUNTS = 250, 5000  # trials at once: patients fill the cache, counts that are equal are tested once


def arm_order(patients: int, ratio: int) -> Floats:
    """1 experimental, 0 control, (patients,): ratio of the first to one of the second, over and over."""
    return (np.arange(patients) % (ratio + 1) < ratio).astype(np.float64)


@dataclass(frozen=True)
class Family:
    """Trials of one law.

    Attributes:
        name: In the table. is_null: Whether the null holds. patients: In all. ratio: Experimental : control.
        draw: Draws so many trials, and gives the statistics of each look, by the name of the test.
        looks: Of FRACTIONS that are computed.
        drifts: Of tests whose power a design of the room says: E Z at the last look that the designs count with.
        exact: A value that is not of the kernels, or None, of a test and a design.
        law: Draws statistics of some of the tests from their joint law, (trials, looks), without patients.
        chunk: Trials that are drawn at once.
    """

    name: str
    is_null: bool
    patients: int
    ratio: int
    draw: AtLook
    looks: tuple[int, ...] = (0, 1, 2, 3)
    drifts: Mapping[str, float] = field(default_factory=dict)
    exact: Callable[[str, Design], float | None] = lambda test, design: None
    law: Callable[[np.random.Generator, int], Statistics] | None = None
    chunk: int = CHUNK

    def statistics(self, rng: np.random.Generator, trials: int) -> Statistics:
        """Of so many trials: z of every test, (trials, looks)."""
        found: dict[str, list[Floats]] = {}
        for start in range(0, trials, self.chunk):
            num = min(self.chunk, trials - start)
            at_looks = self.draw(rng, num)
            for test in at_looks[-1]:
                z = np.full((num, len(FRACTIONS)), np.nan)
                for column, here in zip(self.looks, at_looks, strict=True):
                    z[:, column] = here.get(test, np.nan)
                found.setdefault(test, []).append(z)
        return {test: np.concatenate(parts) for test, parts in found.items()}


def _sizes(patients: int, ratio: int, looks: tuple[int, ...]) -> list[tuple[int, int]]:
    arm = arm_order(patients, ratio)
    counts = [round(patients * FRACTIONS[look]) for look in looks]
    return [(int(arm[:n].sum()), int(n - arm[:n].sum())) for n in counts]


def means(
    name: str,
    patients: int,
    ratio: int = 1,
    effect: float = 0.0,
    sd: float = 1.0,
    margin: float = 0.0,
    looks: tuple[int, ...] = (0, 1, 2, 3),
) -> Family:
    """Normal values with a covariate of correlation 0.5; sd: of the experimental arm; margin: of non-inferiority."""
    arm, rho = arm_order(patients, ratio), 0.5
    sizes = [sum(each) for each in _sizes(patients, ratio, looks)]

    def draw(rng: np.random.Generator, num: int) -> list[Statistics]:
        x, e = rng.standard_normal((2, num, patients))
        y = (rho * x + math.sqrt(1 - rho**2) * e) * np.where(arm > 0, sd, 1.0) + effect * arm
        return [
            _adjusted(y[:, :n], arm[:n], x[:, :n], -margin, is_last=n == patients, equal=sd == 1)
            | _unadjusted(y[:, :n], arm[:n], -margin, equal=sd == 1, paired=ratio == 1)
            for n in sizes
        ]

    n1, n0 = _sizes(patients, ratio, (3,))[0]
    shift, drifts = effect + margin, {}
    if shift > 0:
        both = MeansTest(shift, 1.0, allocation_ratio=n1 / n0)
        left = MeansTest(shift, math.sqrt(1 - rho**2), allocation_ratio=n1 / n0)
        drifts = {"pooled t": both.drift(patients, ALPHA), "ANCOVA": left.drift(patients, ALPHA)}
        if ratio == 1:
            drifts["paired t"] = MeansTest(shift, math.sqrt(2), groups=1).drift(n1, ALPHA)

    def exact(test: str, design: Design) -> float | None:
        known = design.name == "fixed" and sd == 1
        return _exact_of_means(test, shift, rho, (n1, n0)) if known else None

    law = statistics_of_means(_sizes(patients, ratio, looks), shift, rho) if sd == 1 and len(looks) > 1 else None
    return Family(name, shift == 0, patients, ratio, draw, looks, drifts, exact, law)


def _adjusted(y: Floats, arm: Floats, x: Floats, null: float, *, is_last: bool, equal: bool) -> Statistics:
    """Analyses of covariance; the lesser robust variances at the last look only."""
    variances: dict[str, Variance] = {"ANCOVA": "model"} if equal else {}
    variances["ANCOVA HC3"] = "HC3"
    if is_last:
        variances |= {"ANCOVA HC2": "HC2", "ANCOVA HC1": "HC1", "ANCOVA HC0": "HC0"}
    return {name: analyses_of_covariance(y, arm, x, variance=kind).z(null) for name, kind in variances.items()}


def _unadjusted(y: Floats, arm: Floats, null: float, *, equal: bool, paired: bool) -> Statistics:
    """Tests of two means and of ranks; equal: variances of the arms; paired: patients make pairs as they come."""
    found = {"Welch's t": welch_t_tests(y, arm).z(null)}
    if equal:
        found["pooled t"] = pooled_t_tests(y, arm).z(null)
        if null == 0:
            ranks = rank_sum_tests(y, arm)
            found["rank sum"], found["rank sum, continuity"] = ranks.z(), ranks.z(continuity=True)
    if paired:
        pairs = y[:, arm > 0] - y[:, arm == 0]
        found["paired t"] = one_sample_t_tests(pairs).z(null)
        if null == 0:
            found["signed rank"] = signed_rank_tests(pairs).z(continuity=True)
    return found


def _exact_of_means(test: str, shift: float, rho: float, sizes: tuple[int, int]) -> float | None:
    """Of the fixed design, at a distance from the null."""
    n1, n0 = sizes
    spread = math.sqrt(1 / n1 + 1 / n0)
    if test == "ANCOVA":
        return exact_ancova(shift, math.sqrt(1 - rho**2), n1, n0)
    if test == "pooled t":
        return exact_t(shift / spread, n1 + n0 - 2)
    if test == "paired t":
        return exact_t(shift / spread, n1 - 1)
    if test.startswith("rank sum") and shift == 0:
        return exact_rank_sum(n1, n0, continuity=test.endswith("continuity"))
    return None


def ordinal(name: str, patients: int, experimental: tuple[float, ...], control: tuple[float, ...]) -> Family:
    """Five ordered categories: ranks with many ties."""
    arm = arm_order(patients, 1)
    sizes = [sum(each) for each in _sizes(patients, 1, (0, 1, 2, 3))]
    cuts = [np.cumsum(shares)[:-1] for shares in (control, experimental)]

    def draw(rng: np.random.Generator, num: int) -> list[Statistics]:
        u = rng.random((num, patients))
        y = np.where(arm > 0, np.searchsorted(cuts[1], u), np.searchsorted(cuts[0], u)).astype(np.float64)
        return [{"rank sum, ordinal": rank_sum_tests(y[:, :n], arm[:n]).z()} for n in sizes]

    is_null = experimental == control
    drifts = {} if is_null else {"rank sum, ordinal": OrdinalTest(experimental, control).drift(patients, ALPHA)}
    return Family(name, is_null, patients, 1, draw, drifts=drifts)


def rates(
    name: str,
    patients: int,
    true: tuple[float, float],
    ratio: int = 1,
    null: Mapping[str, float] | None = None,
    looks: tuple[int, ...] = (0, 1, 2, 3),
) -> Family:
    """Independent binary responses; null: margins of non-inferiority by scale."""
    margins, sizes = dict(null or {}), _sizes(patients, ratio, looks)
    all_sizes = tuple(_sizes(patients, ratio, (0, 1, 2, 3)))
    difference = margins.get("difference", 0.0)

    def draw(rng: np.random.Generator, num: int) -> list[Statistics]:
        found, x1, x0, before = [], np.zeros(num), np.zeros(num), (0, 0)
        for n1, n0 in sizes:
            x1, x0 = x1 + rng.binomial(n1 - before[0], true[0], num), x0 + rng.binomial(n0 - before[1], true[1], num)
            before = n1, n0
            found.append(_tests_of_counts(Counts.of((x1, x0), (n1, n0)), margins))
        return found

    r = sizes[-1][0] / sizes[-1][1]
    at_null = _is_null(true, margins)
    drifts = {}
    if not at_null:
        gap = RatesTest(*true, difference, allocation_ratio=r).drift(patients, ALPHA)
        drifts = {"Farrington-Manning difference": gap, "Miettinen-Nurminen difference": gap}
        if not margins:
            drifts["Pearson"] = gap
        drifts["Miettinen-Nurminen ratio"] = RatesTest(*true, margins.get("ratio"), "ratio", r).drift(patients, ALPHA)
        log_ratio = LogRatesTest(*true, margins.get("ratio", 1.0), "ratio", r)
        log_odds_ratio = LogRatesTest(*true, margins.get("odds_ratio", 1.0), "odds_ratio", r)
        drifts["log ratio, Wald"] = log_ratio.drift(patients, ALPHA)
        drifts["log odds ratio, Wald"] = log_odds_ratio.drift(patients, ALPHA)

    def exact(test: str, design: Design) -> float:
        return exact_counts(test, margins, true, all_sizes, design)

    return Family(name, at_null, patients, ratio, draw, looks, drifts, exact, chunk=CHUNK_OF_COUNTS)


def _is_null(true: tuple[float, float], margins: Mapping[str, float]) -> bool:
    return math.isclose(true[0] - true[1], margins.get("difference", 0.0), abs_tol=1e-12)


def _tests_of_counts(counts: Counts, null: Mapping[str, float]) -> Statistics:
    difference, ratio, odds = null.get("difference", 0.0), null.get("ratio", 1.0), null.get("odds_ratio", 1.0)
    found = {
        "risk difference, Wald": risk_differences(counts).z(difference),
        "Miettinen-Nurminen difference": miettinen_nurminen_z(counts, difference),
        "Farrington-Manning difference": miettinen_nurminen_z(counts, difference, bias_corrected=False),
        "Miettinen-Nurminen ratio": miettinen_nurminen_z(counts, ratio, scale="ratio"),
        "Miettinen-Nurminen odds ratio": miettinen_nurminen_z(counts, odds, scale="odds_ratio"),
        "log ratio, Wald": log_rate_ratios(counts).z(math.log(ratio)),
        "log odds ratio, Wald": log_odds_ratios(counts).z(math.log(odds)),
    }
    if not null:
        found |= {
            "Pearson": pearson_z(counts),
            "Pearson, Yates": pearson_z(counts, continuity=True),
            "Fisher, one-sided": np.asarray(-ndtri(fisher_p(counts))),
        }
    return found


def strata(name: str, patients: int, margin: float = 0.0) -> Family:
    """Binary responses in three strata of rates 0.25, 0.4 and 0.6 of the controls."""
    arm, base = arm_order(patients, 1), np.array([0.25, 0.4, 0.6])
    sizes = [sum(each) for each in _sizes(patients, 1, (0, 1, 2, 3))]

    def draw(rng: np.random.Generator, num: int) -> list[Statistics]:
        stratum = rng.integers(0, 3, (num, patients))
        y = rng.random((num, patients)) < base[stratum] - margin * arm
        found = []
        for n in sizes:
            parts = []
            for s in range(3):
                here = stratum[:, :n] == s
                first, second = here & (arm[:n] > 0), here & (arm[:n] == 0)
                parts.append([(y[:, :n] & first).sum(1), (y[:, :n] & second).sum(1), first.sum(1), second.sum(1)])
            cells = np.array(parts, dtype=np.float64).transpose(1, 2, 0)
            counts = Counts(*cells)
            here_z = {"Miettinen-Nurminen, strata": stratified_miettinen_nurminen_z(counts, -margin)}
            if margin == 0:
                here_z["Cochran-Mantel-Haenszel"] = stratified_z(counts)
            found.append(here_z)
        return found

    return Family(name, True, patients, 1, draw)


def logistic(name: str, patients: int, looks: tuple[int, ...]) -> Family:
    """Binary responses that a covariate of the odds ratio 2.7 for a standard deviation predicts."""
    arm, sizes = arm_order(patients, 1), [sum(each) for each in _sizes(patients, 1, looks)]

    def draw(rng: np.random.Generator, num: int) -> list[Statistics]:
        x = rng.standard_normal((num, patients))
        y = rng.random((num, patients)) < expit(x - 0.5)
        found = []
        for n in sizes:
            fits = logistic_models(y[:, :n], arm[:n], x[:, :n])
            plain, augmented = standardised_risks(fits), augmented_risks(fits)
            found.append(
                {
                    "logistic, Wald": fits.arm_effect.z(),
                    "g-computation difference, delta": plain.difference().z(),
                    "g-computation difference, influence": augmented.difference().z(),
                    "g-computation ratio": augmented.log_ratio().z(),
                    "g-computation odds ratio": augmented.log_odds_ratio().z(),
                }
            )
        return found

    return Family(name, True, patients, 1, draw, looks)


def counts(name: str, patients: int, looks: tuple[int, ...], theta: float = math.inf) -> Family:
    """Counts of mean 1.2 a year over 0.5 to 1.5 years, of Poisson's law or a negative binomial one."""
    arm, sizes = arm_order(patients, 1), [sum(each) for each in _sizes(patients, 1, looks)]

    def draw(rng: np.random.Generator, num: int) -> list[Statistics]:
        time = rng.uniform(0.5, 1.5, (num, patients))
        frailty = 1.0 if math.isinf(theta) else rng.gamma(theta, 1 / theta, (num, patients))
        y = rng.poisson(1.2 * time * frailty)
        fit = poisson_models if math.isinf(theta) else negative_binomial_models
        label = "Poisson, Wald" if math.isinf(theta) else "negative binomial, Wald"
        return [{label: fit(y[:, :n], arm[:n], time[:, :n]).arm_effect.z()} for n in sizes]

    return Family(name, True, patients, 1, draw, looks)


def longitudinal(name: str, patients: int, looks: tuple[int, ...]) -> Family:
    """A baseline and three visits of correlation 0.5, of which 8 % of patients a visit drop out."""
    arm, sizes = arm_order(patients, 1), [sum(each) for each in _sizes(patients, 1, looks)]

    def draw(rng: np.random.Generator, num: int) -> list[Statistics]:
        y = math.sqrt(0.5) * (rng.standard_normal((num, patients, 4)) + rng.standard_normal((num, patients, 1)))
        last = 1 + (rng.random((num, patients, 2)) > 0.08).cumprod(axis=2).sum(axis=2)
        seen = np.where(np.arange(1, 4) <= last[:, :, None], y[:, :, 1:], np.nan)
        found = []
        for n in sizes:
            fits = repeated_measures_by(seen[:, :n], arm[:n], y[:, :n, 0])
            found.append({f"MMRM, {each}": fit.at(-1).z() for each, fit in fits.items()})
        return found

    return Family(name, True, patients, 1, draw, looks)


def families() -> list[Family]:
    """All of them."""
    last = (3,)
    return [
        rates("rates 30 % : 30 %, 60 + 60", 120, (0.3, 0.3)),
        rates("rates 30 % : 30 %, 80 + 40", 120, (0.3, 0.3), ratio=2),
        rates("rates 30 % : 30 %, 15 + 15", 30, (0.3, 0.3), looks=last),
        rates("rates 55 % : 30 %, 60 + 60", 120, (0.55, 0.3)),
        rates("rates 55 % : 30 %, 80 + 40", 120, (0.55, 0.3), ratio=2),
        rates(
            "non-inferior rates at the margin, 60 % : 75 %, 60 + 60",
            120,
            (0.6, 0.75),
            null={"difference": -0.15, "ratio": 0.8, "odds_ratio": 0.5},
        ),
        rates(
            "non-inferior rates, 75 % : 75 %, 60 + 60",
            120,
            (0.75, 0.75),
            null={"difference": -0.2, "ratio": 0.75, "odds_ratio": 0.3},
        ),
        means("means, 60 + 60", 120),
        means("means, 80 + 40", 120, ratio=2),
        means("means, 10 + 10", 20, looks=last),
        means("means, effect 0.52, 60 + 60", 120, effect=0.52),
        means("means, effect 0.52, 80 + 40", 120, ratio=2, effect=0.52),
        means("means, sd 1.5 : 1, 80 + 40", 120, ratio=2, sd=1.5),
        means("non-inferior means at the margin 0.4, 60 + 60", 120, effect=-0.4, margin=0.4),
        ordinal("categories, 60 + 60", 120, (0.1, 0.2, 0.3, 0.25, 0.15), (0.1, 0.2, 0.3, 0.25, 0.15)),
        ordinal("categories, shifted, 60 + 60", 120, (0.05, 0.1, 0.25, 0.35, 0.25), (0.1, 0.25, 0.35, 0.2, 0.1)),
        strata("rates in 3 strata, 60 + 60", 120),
        strata("non-inferior rates in 3 strata at the margin 0.15, 60 + 60", 120, margin=0.15),
        logistic("logistic law, 60 + 60", 120, (0, 1, 2, 3)),
        logistic("logistic law, 20 + 20", 40, last),
        counts("Poisson counts, 60 + 60", 120, (0, 1, 2, 3)),
        counts("negative binomial counts, theta 1, 60 + 60", 120, (1, 3), theta=1.0),
        longitudinal("3 visits, 60 + 60", 120, (1, 3)),
        longitudinal("3 visits, 15 + 15", 30, last),
    ]
