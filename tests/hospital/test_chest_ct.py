from dataclasses import replace

import numpy as np
import pytest

from medtwin.hospital.anatomy import LAWS, Anatomy, draw_anatomy
from medtwin.hospital.chest_ct import CtSeries, render_ct, slice_heights
from medtwin.hospital.thorax import chest_shapes, shadow_edges, source_and_detector_y


def draw(seed: int = 0, **kwargs) -> Anatomy:
    return draw_anatomy(np.random.default_rng(seed), **{"sex": "male", "age_years": 50.0, "bmi": 27.0} | kwargs)


def patch(series: CtSeries, k: int, x: float, y: float, half: int = 2) -> np.ndarray:
    """HU around a point (x, y) in mm of slice k."""
    x0, y0, _ = series.slice_positions_mm[k]
    row, column = round((y - y0) / series.pixel_spacing_mm[0]), round((x - x0) / series.pixel_spacing_mm[1])
    return series.voxels[k, row - half : row + half + 1, column - half : column + half + 1]


def test_form_and_geometry():
    series = render_ct(draw(), np.random.default_rng(0), num_slices=4, size=128)
    assert series.voxels.shape == (4, 128, 128)
    assert series.voxels.dtype == np.int16
    assert series.voxels.min() >= -1024
    assert series.voxels.max() <= 3071
    assert series.image_orientation == (1, 0, 0, 0, 1, 0)
    positions = np.array(series.slice_positions_mm)
    assert (np.ptp(positions[:, :2], axis=0) == 0).all()
    steps = np.diff(positions[:, 2])
    assert (steps > 0).all()
    assert steps == pytest.approx(steps[0])
    # The field of view is centred across: the first and last pixel centres are symmetric about x = 0.
    assert positions[0, 0] == pytest.approx(-127 / 2 * series.pixel_spacing_mm[1])


def test_slices_reach_from_the_middle_of_the_heart_to_the_carina():
    anatomy = draw()
    low, _, high = slice_heights(anatomy, 3)
    assert low == pytest.approx(chest_shapes(anatomy)["heart"].center[2], abs=0.1)
    assert high == pytest.approx(anatomy.apex_z_mm - 100.0, abs=0.2)


def test_tissues_have_their_numbers():
    anatomy = draw(1)
    series = render_ct(anatomy, np.random.default_rng(0))
    shapes = chest_shapes(anatomy)
    heart, spine = shapes["heart"].center, shapes["spine"].center
    skin = 1.0 / np.sqrt(shapes["trunk"].inverse[0, 0])
    assert patch(series, 0, heart[0], heart[1], 6).mean() == pytest.approx(LAWS.hu_blood, abs=8)
    assert patch(series, 0, spine[0], spine[1]).mean() == pytest.approx(LAWS.hu_trabecular, abs=30)
    assert patch(series, 0, -skin + 6, 0.0, 1).mean() == pytest.approx(LAWS.hu_fat, abs=30)
    assert series.voxels[:, :8, :8].mean() == pytest.approx(LAWS.hu_air, abs=15)
    lung = patch(series, 0, -0.7 * anatomy.chest_half_width_mm, -20.0, 8)
    assert np.median(lung) == pytest.approx(LAWS.hu_lung, abs=25)


def test_noise_has_its_stated_sd_and_its_seed():
    anatomy = draw(1)
    a, b, c = (render_ct(anatomy, np.random.default_rng(s)).voxels for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    corner = render_ct(anatomy, np.random.default_rng(2), num_slices=6).voxels[:, :24, :24]
    # Clipping at -1024 HU is 1.2 SD below air, so the upper half tells the SD.
    above = corner[corner >= -1000] + 1000.0
    assert np.sqrt((above**2).mean()) == pytest.approx(LAWS.ct_noise_sd, rel=0.1)
    heart = chest_shapes(anatomy)["heart"].center
    inside = patch(render_ct(anatomy, np.random.default_rng(3)), 0, heart[0], heart[1], 12)
    assert inside.std() == pytest.approx(LAWS.ct_noise_sd_body, rel=0.25)


def test_consolidation_effusion_and_emphysema_show():
    anatomy = draw(3, pneumonia=True)
    z = float(slice_heights(anatomy, 1)[0])
    dense = replace(anatomy.opacities[0], center_mm=(-85.0, 0.0, z), radius_mm=40.0, density=0.95)
    clear, ill = (
        render_ct(replace(anatomy, opacities=o), np.random.default_rng(0), num_slices=1) for o in ((), (dense,))
    )
    assert patch(ill, 0, -85.0, 0.0, 6).mean() > patch(clear, 0, -85.0, 0.0, 6).mean() + 200
    wet = render_ct(replace(anatomy, opacities=(), effusion=0.8), np.random.default_rng(0), num_slices=1)
    y = 0.8 * anatomy.chest_half_depth_mm
    assert patch(wet, 0, -50.0, y, 2).mean() == pytest.approx(LAWS.hu_effusion, abs=20)
    copd = render_ct(replace(anatomy, opacities=(), hyperinflation=1.0), np.random.default_rng(0), num_slices=1)
    assert patch(copd, 0, -85.0, 0.0, 8).mean() < patch(clear, 0, -85.0, 0.0, 8).mean() - 40


def test_ct_and_radiograph_agree_about_the_heart():
    # From lung to lung across the heart on CT, and the shadow of the heart on a PA view.
    widths, shadows = [], []
    for ratio in (0.40, 0.48, 0.56):
        anatomy = replace(draw(1), heart_ratio=ratio)
        shapes = chest_shapes(anatomy)
        series = render_ct(anatomy, np.random.default_rng(0), num_slices=1)
        heart = shapes["heart"].center
        x0, y0, _ = series.slice_positions_mm[0]
        pitch = series.pixel_spacing_mm[0]
        row, column = round((heart[1] - y0) / pitch), round((heart[0] - x0) / pitch)
        lung = np.flatnonzero(series.voxels[0, row - 2 : row + 3].mean(axis=0) < -300)
        widths.append((lung[lung > column].min() - lung[lung < column].max() - 1) * pitch)
        edges = [shadow_edges(shapes[n], *source_and_detector_y(anatomy, "PA")) for n in ("heart", "atrium")]
        shadows.append(max(e[1] for e in edges) - min(e[0] for e in edges))
    assert np.diff(widths).min() > 10
    assert np.diff(shadows).min() > 10
    # Side by side: the section of the heart is narrower than its magnified shadow, by no more than a third.
    assert all(0.66 < a / s < 1.0 for a, s in zip(widths, shadows, strict=True))


@pytest.mark.parametrize(("argument", "value"), [("num_slices", 0), ("size", 32)])
def test_refuses_too_few_slices_or_pixels(argument, value):
    with pytest.raises(ValueError, match=argument):
        render_ct(draw(), np.random.default_rng(0), **{argument: value})
