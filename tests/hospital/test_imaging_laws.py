"""The pictures of 2,000 subjects obey the imaging laws: cardiothoracic ratio by disease, opacity by pneumonia."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medtwin.hospital import ImageOrder, draw_picture, simulate_subject
from medtwin.hospital.anatomy import LAWS
from medtwin.hospital.imaging import anatomy_of
from medtwin.hospital.measure import cardiothoracic_ratio, lung_opacity

NUM_SUBJECTS, SEED, NUM_DRAWN = 2000, 2024, 180


pytestmark = pytest.mark.slow  # thousands of images; tests/hospital/test_measure.py has the measures


@pytest.fixture(scope="module")
def orders() -> list[ImageOrder]:
    """One radiograph of each subject that has any, so that the subjects are independent."""
    found = []
    for index in range(NUM_SUBJECTS):
        images = [order for order in simulate_subject(SEED, index).image_orders if order.modality == "CR"]
        found += images[:1]
    return found


def expected_ratio(order: ImageOrder, hyperinflation: float) -> float:
    """The law a second time: Mensah et al. 2015 for healthy adults, Philbin et al. 1998 for heart failure."""
    healthy = {"M": 0.452, "F": 0.467}[order.sex] + 0.0005 * (order.age_years - 50)
    return healthy + 0.10 * order.heart_failure - 0.03 * hyperinflation


def test_cardiothoracic_ratio_follows_its_law(orders: list[ImageOrder]) -> None:
    anatomies = [anatomy_of(order, SEED) for order in orders]
    residuals = np.array(
        [a.heart_ratio - expected_ratio(o, a.hyperinflation) for o, a in zip(orders, anatomies, strict=True)]
    )
    assert len(residuals) > 600
    half = stats.t.ppf(0.995, len(residuals) - 1) * residuals.std(ddof=1) / np.sqrt(len(residuals))
    assert abs(residuals.mean()) < half
    low, high = stats.chi2.ppf([0.0005, 0.9995], len(residuals) - 1) / (len(residuals) - 1)
    assert low < residuals.var(ddof=1) / LAWS.ctr_sd**2 < high


def test_heart_failure_widens_the_heart_by_its_law_and_a_shuffled_record_does_not(orders: list[ImageOrder]) -> None:
    ratios = np.array([anatomy_of(order, SEED).heart_ratio for order in orders])
    severity = np.array([order.heart_failure for order in orders])
    assert (severity > 0).sum() > 40
    slope = stats.linregress(severity, ratios)
    half = stats.norm.ppf(0.995) * slope.stderr
    assert abs(slope.slope - LAWS.ctr_per_heart_failure) < half + 0.02  # age confounds by less than 0.02
    shuffled = stats.linregress(np.random.default_rng(0).permutation(severity), ratios)
    assert abs(shuffled.slope) < 3.3 * shuffled.stderr
    assert abs(shuffled.slope - LAWS.ctr_per_heart_failure) > 3.3 * shuffled.stderr


@pytest.fixture(scope="module")
def pictures(orders: list[ImageOrder]) -> list[tuple[ImageOrder, float, float]]:
    """Some pictures of the sick and the well, with what can be measured on the pixels alone."""
    sick = [order for order in orders if order.heart_failure > 0 or order.pneumonia]
    well = [order for order in orders if not (order.heart_failure > 0 or order.pneumonia)]
    measured = []
    for order in [*sick[: NUM_DRAWN // 2], *well[: NUM_DRAWN // 2]]:
        pixels = draw_picture(order, SEED).pixels  # type: ignore[union-attr]
        measured.append((order, cardiothoracic_ratio(pixels), lung_opacity(pixels)))
    return measured


def test_the_pixels_show_the_heart_failure_of_the_record(pictures: list[tuple[ImageOrder, float, float]]) -> None:
    seen = [(o.heart_failure, ratio) for o, ratio, _ in pictures if np.isfinite(ratio) and not o.pneumonia]
    severity, ratios = np.array(seen).T
    slope = stats.linregress(severity, ratios)
    assert slope.slope > 0
    assert slope.pvalue < 0.01
    shuffled = stats.linregress(np.random.default_rng(1).permutation(severity), ratios)
    assert shuffled.pvalue > 0.01


def test_the_pixels_show_the_pneumonia_of_the_record(pictures: list[tuple[ImageOrder, float, float]]) -> None:
    with_it = [opacity for o, _, opacity in pictures if o.pneumonia and np.isfinite(opacity)]
    without = [
        opacity for o, _, opacity in pictures if not o.pneumonia and o.heart_failure == 0 and np.isfinite(opacity)
    ]
    assert len(with_it) > 20
    test = stats.mannwhitneyu(with_it, without, alternative="greater")
    assert test.pvalue < 1e-4
    assert test.statistic / (len(with_it) * len(without)) > 0.8  # AUROC
