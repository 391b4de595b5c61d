from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medtwin.check.estimates import Measure
from medtwin.check.image_features import encode_sides, equal_estimate, frechet, kid, projected
from medtwin.check.image_findings import ImageFindings, compare_images, not_measured
from medtwin.check.image_strata import in_mix_of
from medtwin.check.images import image_measures
from medtwin.check.marginals import total_variation
from medtwin.check.pictures import Picture
from tests.check import images_samples as samples

Pictures = list[Picture]
FEATURES = ("frechet", "kid", "precision", "recall", "density", "coverage", "c2st", "frechet_within")


def test_frechet_distance_of_known_samples() -> None:
    """Means (1, 0) and (4, 4); variances 2 and 8 along x, 2 and 18 along y: 9 + 16 + (2 + 8 - 2*4) + (2 + 18 - 2*6)."""
    first = np.array([[0.0, 1.0], [2.0, -1.0], [0.0, -1.0], [2.0, 1.0]]) * np.sqrt(3 / 4) * np.sqrt(2)
    assert np.cov(first.T) == pytest.approx(np.array([[2.0, 0.0], [0.0, 2.0]]))
    second = first * np.array([2.0, 3.0])
    first, second = first - first.mean(axis=0) + [1, 0], second - second.mean(axis=0) + [4, 4]
    assert frechet(first, second) == pytest.approx(25 + 2 + 8)
    assert frechet(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_fewer_rows_than_features_is_real() -> None:
    rng = np.random.default_rng(0)
    few, others = rng.normal(size=(5, 20)), rng.normal(size=(6, 20))
    assert frechet(few, others) == pytest.approx(frechet(others, few))
    assert frechet(few, few + 3) == pytest.approx(20 * 9)


def test_kernel_distance_leaves_pairs_of_one_subject_out() -> None:
    """Rows 0 and 1 of one subject, 2 of another: pairs (0, 2), (1, 2) count, kernels 1 and (1*2 + 1)^3 = 27."""
    first, second = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.0]])
    found = kid(first, second, np.array([7, 7, 8]), np.array([1, 2]))
    assert found == pytest.approx((1 + 27) / 2 + 1 - 2 * 1)
    assert kid(first, first[[0, 2]], np.array([1, 2, 3]), np.array([1, 2])) < kid(
        first, first[[0, 2]] + 5, np.array([1, 2, 3]), np.array([1, 2])
    )


def test_kernel_distance_of_one_law_is_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    number = np.arange(20)
    values = [kid(*rng.normal(size=(2, 20, 3)), number, number) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_features_are_scaled_by_the_real_ones_and_projected_to_the_same_distances() -> None:
    real, twins = samples.pictures(40, 1), samples.pictures(30, 2)

    def wide(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :400].astype(np.float64)

    encoded = encode_sides(wide, real, twins, [])
    assert encoded[0].features.mean(axis=0) == pytest.approx(np.zeros(400), abs=1e-6)
    assert encoded[0].features.std(axis=0).max() <= 1.001
    narrow = projected(encoded, seed=0)
    assert [side.features.shape for side in narrow] == [(48, 64), (36, 64), (0, 64)]
    wide_norm, norm = (np.linalg.norm(sides[1].features, axis=1).mean() for sides in (encoded, narrow))
    assert norm == pytest.approx(wide_norm, rel=0.3)
    with pytest.raises(ValueError, match="finite"):
        encode_sides(lambda images: np.full((len(images), 2), np.nan), real, twins)


def test_bound_of_equal_draws_is_students() -> None:
    found = equal_estimate(np.array([3.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert (found.value, found.baseline) == (3, 2)
    assert found.baseline_worst == pytest.approx(2 + 2.919986 * 1 * np.sqrt(4 / 3), abs=1e-5)


@pytest.fixture(scope="module")
def real() -> Pictures:
    return samples.pictures(160, 1)


@pytest.fixture(scope="module")
def fresh() -> Pictures:
    return samples.pictures(90, 2)


def compared(real: Pictures, twins: Pictures) -> ImageFindings:
    return compare_images(real, twins, samples.pictures(40, 3), encode=samples.encode, seed=0, num_resamples=20)


def off(findings: ImageFindings) -> set[str]:
    """The measures beyond what real images reach among themselves."""
    return {one.name.removeprefix("images.") for one in findings.measures if _is_off(one)}


def _is_off(one: Measure) -> bool:
    if one.estimate is None:
        return False
    if one.better == "higher":
        return one.estimate.value < one.estimate.baseline_worst
    return one.estimate.value > one.estimate.baseline_worst


def test_an_independent_draw_moves_nothing(real: Pictures, fresh: Pictures) -> None:
    found = compared(real, fresh)
    assert off(found) == set()
    measured = {one.name.removeprefix("images.") for one in found.measures if one.estimate is not None}
    assert measured >= {*FEATURES, "intensity", "spectrum", "diversity", "ms_ssim", "mixture"}
    assert measured >= {"tstr", "adherence", "conditions"}
    control = {one.name: one.estimate.control for one in found.measures if one.estimate is not None}
    assert control["images.frechet"] is not None
    assert [one.num_copies for one in found.copies] == [0, 0, 0]


@pytest.mark.parametrize(
    ("how", "moved", "unmoved"),
    [
        pytest.param(lambda a: gaussian_filter(a, 0.7), {*FEATURES, "spectrum"}, {"mixture"}, marks=pytest.mark.slow),
        pytest.param(
            lambda a: a + 0.02 * np.random.default_rng(int(1e6 * a.sum())).normal(size=a.shape),
            {*FEATURES, "spectrum"},
            {"mixture"},
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda a: 0.8 * a, {*FEATURES, "intensity"}, {"mixture"}, marks=pytest.mark.slow),
        (
            lambda a: np.full_like(a, 0.3) + np.indices(a.shape)[0] / 100,
            {"frechet", "recall", "coverage", "vendi", "diversity", "ms_ssim", "tstr", "adherence", "conditions"},
            {"mixture"},
        ),
    ],
    ids=["blur", "noise", "dark", "one image"],
)
def test_broken_images_move_what_looks_for_it(
    real: Pictures,
    fresh: Pictures,
    how: Callable[[np.ndarray], np.ndarray],
    moved: set[str],
    unmoved: set[str],
) -> None:
    found = off(compared(real, samples.changed(fresh, how)))
    assert moved - found == set()
    assert unmoved & found == set()


def test_a_wrong_mixture_is_told_from_wrong_images(real: Pictures) -> None:
    found = compared(real, samples.pictures(90, 4, share_ap=0.75))
    assert off(found) >= {"mixture", "frechet"}
    assert not off(found) & {"intensity", "spectrum", "frechet_within"}
    views = {row.stratum: row for row in found.strata if row.division == "view"}
    assert views["CR AP"].share_synthetic > 0.65
    assert views["CR AP"].share_real < 0.45
    intensity = views["CR PA"].intensity
    assert intensity is not None
    assert intensity.value < intensity.baseline_worst
    parts = {row.stratum for row in found.strata if row.division != "view"}
    assert parts >= {"CR PA, F", "CR PA, M", "CR PA, 18\N{EN DASH}39", "CR PA, 65 and over"}


@pytest.mark.slow
def test_a_dropped_view_moves_the_mixture_and_not_what_is_left(real: Pictures, fresh: Pictures) -> None:
    found = compared(real, [one for one in fresh if one.view == "PA"])
    assert off(found) >= {"mixture", "frechet", "recall", "coverage"}
    assert not off(found) & {"intensity", "spectrum", "frechet_within"}


@pytest.mark.slow
def test_copies_are_found_however_many(real: Pictures, fresh: Pictures) -> None:
    for share in (0.1, 1.0):
        number = round(share * len(fresh))
        stolen = [replace(real[i % len(real)], subject_id=one.subject_id) for i, one in enumerate(fresh[:number])]
        _, _, copies = image_measures(real, [*stolen, *fresh[number:]], [], seed=0, num_resamples=10)
        assert copies[0].num_copies == number


def test_mixing_takes_the_most_pictures_that_have_the_shares(real: Pictures) -> None:
    encoded = encode_sides(samples.encode, real)[0]
    groups = [one.group for one in real]
    wanted = encoded.where(lambda one: one.group == "CR PA")
    one_view = in_mix_of(encoded, wanted, np.random.default_rng(0))
    assert {one.group for one in one_view.pictures} == {"CR PA"}
    assert len(one_view.pictures) == groups.count("CR PA")
    ap = next(number for number, group in enumerate(groups) if group == "CR AP")
    pa = [number for number, group in enumerate(groups) if group == "CR PA"][:3]
    quarter = replace(encoded, pictures=[real[i] for i in [ap, *pa]], features=encoded.features[[ap, *pa]])
    mixed = in_mix_of(encoded, quarter, np.random.default_rng(0))
    number = [one.group for one in mixed.pictures].count("CR AP")
    assert number == round(groups.count("CR PA") / 3)
    assert len(mixed.pictures) == number + groups.count("CR PA")


def test_total_variation_of_shares() -> None:
    assert total_variation(np.array([[2.0, 2.0, 0.0]]), np.array([[1.0, 0.0, 3.0]])).tolist() == [0.75]


def test_hounsfield_units_are_compared_in_hounsfield_units() -> None:
    """The same pixels, of which 0 and 1 stand for other units: all of them moved by 80."""
    plain = [replace(one, group="CT", view=None) for one in samples.pictures(40, 1)]
    first, second = ([replace(one, hounsfield=(low, low + 2048.0)) for one in plain] for low in (-1024.0, -944.0))
    measures = {one.name: one for one in image_measures(first, second, [], seed=0, num_resamples=10)[0]}
    estimate = measures["images.hounsfield"].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(80, abs=1e-6)
    assert estimate.value > estimate.baseline_worst
    mixed = [*second[1:], replace(second[0], hounsfield=None)]
    measures = {one.name: one for one in image_measures(first, mixed, [], seed=0, num_resamples=10)[0]}
    assert measures["images.hounsfield"].estimate is None
    assert measures["images.hounsfield"].applicable
    measures = {one.name: one for one in image_measures(plain, plain, [], seed=0, num_resamples=10)[0]}
    assert not measures["images.hounsfield"].applicable


@pytest.mark.parametrize("number", [0, 1, pytest.param(25, marks=pytest.mark.slow)])
def test_too_few_images_are_never_a_number_of_features(real: Pictures, fresh: Pictures, number: int) -> None:
    found = {one.name: one for one in compared(real, fresh[:number]).measures}
    for name in (*FEATURES, "tstr", "adherence", "conditions"):
        assert found[f"images.{name}"].estimate is None
        assert found[f"images.{name}"].reason
        assert found[f"images.{name}"].applicable == (number > 0)
    assert list(found) == [one.name for one in not_measured("", has_images=True).measures]


def test_without_an_encoder_the_rest_is_measured(real: Pictures, fresh: Pictures) -> None:
    found = compare_images(real, fresh, [], encode=None, seed=0, num_resamples=10)
    estimates = {one.name: one.estimate for one in found.measures}
    assert estimates["images.intensity"] is not None
    assert estimates["images.frechet"] is None
    assert any(row.intensity is not None for row in found.strata)


@pytest.mark.slow
def test_one_subject_of_many_images_is_no_crash(real: Pictures, fresh: Pictures) -> None:
    one_subject = [replace(one, subject_id=1) for one in real]
    compare_images(one_subject, fresh, [], encode=samples.encode, seed=0, num_resamples=10)
    compare_images(
        real, [replace(one, subject_id=1) for one in fresh], [], encode=samples.encode, seed=0, num_resamples=10
    )


@pytest.mark.slow
def test_unknown_conditions_are_left_out(real: Pictures, fresh: Pictures) -> None:
    blank = [replace(one, view=None, sex=None, age_years=None, labels=None, group="CR") for one in fresh]
    found = compared(
        [replace(one, view=None, sex=None, age_years=None, labels=None, group="CR") for one in real], blank
    )
    measures = {one.name: one for one in found.measures}
    assert measures["images.tstr"].estimate is None
    assert not measures["images.tstr"].applicable
    assert measures["images.conditions"].estimate is None
    assert measures["images.frechet"].estimate is not None
    assert found.labels == ()
