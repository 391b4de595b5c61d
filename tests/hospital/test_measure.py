import math

import numpy as np
import pytest

from medtwin.hospital.anatomy import draw_anatomy
from medtwin.hospital.measure import cardiothoracic_ratio, find_lungs, lung_opacity
from medtwin.hospital.thorax import render_radiograph


@pytest.fixture(scope="module")
def ward():
    """120 subjects: pictures, measured and true ratios, views, heart failure and pneumonia."""
    rng = np.random.default_rng(2026)
    pictures, truth = [], []
    for i in range(120):
        failure = float(rng.random()) if i % 3 == 0 else 0.0
        pneumonia = i % 4 == 0
        anatomy = draw_anatomy(
            rng,
            sex=("male", "female")[i % 2],
            age_years=float(rng.uniform(25, 88)),
            bmi=float(np.clip(rng.normal(27, 4), 17, 42)),
            heart_failure=failure,
            copd=i % 7 == 0,
            pneumonia=pneumonia,
        )
        view = "AP" if i % 5 == 0 else "PA"
        pictures.append(render_radiograph(anatomy, rng, view=view).pixels)
        truth.append((anatomy.heart_ratio, view == "PA", failure, pneumonia))
    ratio, is_pa, failure, pneumonia = (np.array(column) for column in zip(*truth, strict=True))
    measured = np.array([cardiothoracic_ratio(p) for p in pictures])
    return pictures, measured, ratio, is_pa, failure, pneumonia


def shrink(pixels):
    return pixels.reshape(64, 4, 64, 4).mean(axis=(1, 3))


def auroc(positive, negative):
    return float(np.mean(positive[:, None] > negative[None]) + 0.5 * np.mean(positive[:, None] == negative[None]))


@pytest.mark.parametrize("size", [256, 64])
def test_ratio_follows_the_truth_at_any_size(ward, size):
    pictures, measured, ratio, is_pa, _, _ = ward
    if size == 64:
        measured = np.array([cardiothoracic_ratio(shrink(p)) for p in pictures])
    assert np.isfinite(measured).mean() > 0.98
    ok = np.isfinite(measured) & is_pa
    assert np.corrcoef(measured[ok], ratio[ok])[0, 1] > 0.88
    assert (measured - ratio)[ok].mean() == pytest.approx(-0.025, abs=0.01)


def test_scale_of_intensities_does_not_matter(ward):
    for picture in ward[0][:5]:
        small = shrink(picture)
        for measure in (cardiothoracic_ratio, lung_opacity):
            assert measure(0.01 * small - 7.0) == pytest.approx(measure(small), abs=1e-6)


def test_opacity_tells_pneumonia_also_from_heart_failure(ward):
    pictures, _, _, _, failure, pneumonia = ward
    for change in (lambda p: p, shrink):
        score = np.array([lung_opacity(change(p)) for p in pictures])
        ok = np.isfinite(score)
        assert ok.mean() > 0.98
        assert auroc(score[ok & pneumonia], score[ok & ~pneumonia]) > 0.88
        assert auroc(score[ok & pneumonia], score[ok & ~pneumonia & (failure > 0.3)]) > 0.75


def test_heart_failure_and_ap_measure_wider(ward):
    _, measured, _, _, failure, pneumonia = ward
    ill, well = (failure > 0.5) & ~pneumonia, (failure == 0.0) & ~pneumonia
    assert np.nanmean(measured[ill]) > np.nanmean(measured[well]) + 0.03
    anatomy = draw_anatomy(np.random.default_rng(0), sex="male", age_years=60, bmi=25, heart_failure=0.5)
    pa, ap = (
        cardiothoracic_ratio(render_radiograph(anatomy, np.random.default_rng(1), view=view).pixels)
        for view in ("PA", "AP")
    )
    assert ap > pa + 0.005


@pytest.mark.parametrize("measure", [cardiothoracic_ratio, lung_opacity])
def test_no_number_without_lungs(ward, measure):
    rng, pictures = np.random.default_rng(3), ward[0][:8]
    for picture in pictures:
        assert math.isnan(measure(rng.permutation(picture.ravel()).reshape(picture.shape)))
        assert math.isnan(measure(rng.permutation(picture, axis=0)))  # rows mixed
        assert math.isnan(measure(picture.T))
        assert math.isnan(measure(rng.normal(size=(64, 64))))
    assert math.isnan(measure(np.ones((64, 64))))
    assert math.isnan(measure(np.outer(np.linspace(0, 1, 80), np.ones(80))))


def test_lungs_are_found_on_their_sides(ward):
    fields = find_lungs(ward[0][1])
    right, left = (np.nonzero(mask)[1] for mask in (fields.right, fields.left))
    assert right.max() < fields.midline < left.min() + 1
    assert fields.wall[0].min() >= 0
    assert abs(fields.midline - 64) < 6


@pytest.mark.parametrize("bad", [np.zeros((32, 64)), np.zeros((3, 64, 64)), np.full((64, 64), np.nan)])
def test_refuses_what_is_not_an_image(bad):
    with pytest.raises(ValueError, match="pixels"):
        cardiothoracic_ratio(bad)
