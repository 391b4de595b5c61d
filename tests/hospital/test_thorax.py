import math
from dataclasses import replace

import numpy as np
import pytest

from medtwin.hospital.anatomy import LAWS, Anatomy, draw_anatomy, laws_as_dict
from medtwin.hospital.thorax import (
    Ellipsoid,
    Exposure,
    attenuation,
    chest_shapes,
    crossing,
    render_radiograph,
    shadow_edges,
    source_and_detector_y,
)


def draw(seed: int = 0, **kwargs) -> Anatomy:
    return draw_anatomy(np.random.default_rng(seed), **{"sex": "male", "age_years": 50.0, "bmi": 25.0} | kwargs)


def chords(shape: Ellipsoid, exposure: Exposure) -> np.ndarray:
    rays = exposure.rays()
    enter, leave = crossing(rays, shape)
    return (leave - enter) * rays.length


def shadow_width(anatomy: Anatomy, view: str, *names: str) -> float:
    shapes, (source, detector) = chest_shapes(anatomy), source_and_detector_y(anatomy, view)
    edges = [shadow_edges(shapes[name], source, detector) for name in names]
    return max(right for _, right in edges) - min(left for left, _ in edges)


# Geometry


def test_chord_of_a_ball_is_the_diameter_in_the_middle_and_pythagoras_beside_it():
    # A ball of radius 50 at the origin, source far away at y = 1e5: rays are nearly parallel.
    exposure = Exposure((0.0, 1e5, 0.0), -100.0, np.array([0.0, 30.03, 60.0]), np.array([0.0, 40.04]))
    chord = chords(Ellipsoid.of((0, 0, 0), (50, 50, 50)), exposure)
    assert chord[0, 0] == pytest.approx(100.0, rel=1e-4)
    assert chord[0, 1] == pytest.approx(80.0, rel=1e-3)  # 2 sqrt(50^2 - 30^2)
    assert chord[1, 1] == pytest.approx(0.0, abs=2.0)  # 30-40-50: tangent
    assert chord[0, 2] == 0.0


def test_chords_add_up_to_the_volume():
    # Nearly parallel rays on a 1 mm grid: the sum of chords is the volume, 4/3 pi a b c, magnified (1.001)^2.
    grid = np.arange(-99.5, 100.0)
    shape = Ellipsoid.of((5.0, 0.0, -8.0), (60.0, 40.0, 30.0), (0.7, 0.4, -0.5))
    total = float(chords(shape, Exposure((0.0, 1e5, 0.0), -100.0, grid, -grid)).sum())
    assert total == pytest.approx(4.0 / 3.0 * math.pi * 60 * 40 * 30 * 1.001**2, rel=2e-3)


def test_shadow_is_magnified_by_source_detector_over_source_object_distance():
    exposure = Exposure((0.0, 800.0, 0.0), -200.0, np.array([0.0]), np.array([0.0]))
    assert exposure.magnification(np.array([0.0, -200.0])) == pytest.approx([1.25, 1.0])  # 1000/800, 1000/1000
    left, right = shadow_edges(Ellipsoid.of((40.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 800.0, -200.0)
    assert 0.5 * (left + right) == pytest.approx(50.0, rel=1e-4)
    assert right - left == pytest.approx(2.5, rel=3e-3)


def test_source_is_behind_in_pa_and_in_front_in_ap():
    anatomy = draw()
    pa, ap = (source_and_detector_y(anatomy, view) for view in ("PA", "AP"))
    assert pa[0] > 0 > pa[1]
    assert ap[0] < 0 < ap[1]
    assert pa[0] - pa[1] == LAWS.source_detector_pa_mm
    assert ap[1] - ap[0] == LAWS.source_detector_ap_mm


def test_attenuation_is_zero_beside_the_body_and_higher_through_heart_than_lung():
    anatomy = draw()
    source, detector = source_and_detector_y(anatomy, "PA")
    points = Exposure((0.0, source, 0.0), detector, np.linspace(-400, 400, 801), np.linspace(60.0, -160.0, 23))
    path = attenuation(anatomy, points)
    assert (path[:, 0] == 0.0).all()
    heart, lung = path[7, 400 + 45], path[0, 400 - 80]  # at z = -10 mm and 60 mm
    assert heart > lung + 0.8


# Laws


@pytest.mark.parametrize("sex", ["male", "female"])
@pytest.mark.parametrize("severity", [0.0, 1.0])
def test_mean_heart_ratio_follows_the_law(sex, severity):
    rng, n = np.random.default_rng(7), 200
    ratios = [
        draw_anatomy(rng, sex=sex, age_years=60.0, bmi=25.0, heart_failure=severity).heart_ratio for _ in range(n)
    ]
    base = LAWS.ctr_male_at_50 if sex == "male" else LAWS.ctr_female_at_50
    expected = base + 10 * LAWS.ctr_per_year + severity * LAWS.ctr_per_heart_failure
    assert np.mean(ratios) == pytest.approx(expected, abs=3.3 * LAWS.ctr_sd / math.sqrt(n))
    assert np.std(ratios) == pytest.approx(LAWS.ctr_sd, rel=0.2)


def test_heart_ratio_is_that_of_the_projected_shapes():
    for seed in range(5):
        anatomy = draw(seed, heart_failure=0.2 * seed)
        heart, chest = shadow_width(anatomy, "PA", "heart", "atrium"), shadow_width(anatomy, "PA", "cavity")
        assert heart / chest == pytest.approx(anatomy.heart_ratio, abs=1e-4)


def test_heart_is_wider_in_ap_as_published():
    # Chon et al. 2011, J Korean Med Sci 26:1446: PA/AP heart diameter 0.889 at 100 cm, on simulated CT.
    ratios = []
    for seed in range(20):
        anatomy = draw(seed)
        ratios.append(shadow_width(anatomy, "PA", "heart", "atrium") / shadow_width(anatomy, "AP", "heart", "atrium"))
        assert ratios[-1] < 1.0
    assert np.mean(ratios) == pytest.approx(0.889, abs=0.02)


def test_copd_lowers_and_flattens_the_diaphragm_and_narrows_the_heart():
    pairs = [(draw(seed), draw(seed, copd=True)) for seed in range(30)]
    for normal, copd in pairs:
        assert copd.left_dome_z_mm < normal.left_dome_z_mm - 0.49 * LAWS.copd_diaphragm_drop_mm
        assert copd.heart_ratio <= normal.heart_ratio
        flat, round_ = chest_shapes(copd)["dome_r"], chest_shapes(normal)["dome_r"]
        assert flat.inverse[2, 2] > round_.inverse[2, 2]


def test_diseases_leave_the_build_of_a_subject_alone():
    healthy, ill = draw(3), draw(3, heart_failure=0.9, pneumonia=True)
    assert replace(ill, heart_ratio=0.5, congestion=0.0, effusion=0.0, opacities=()) == replace(
        healthy, heart_ratio=0.5
    )
    assert healthy.opacities == ()
    assert ill.opacities
    assert ill.congestion > healthy.congestion == 0.0


def test_pneumonia_prefers_the_lower_zone_and_is_on_its_side():
    patches = [draw(seed, pneumonia=True).opacities for seed in range(200)]
    assert np.mean([len(p) == 2 for p in patches]) == pytest.approx(LAWS.pneumonia_bilateral, abs=0.1)
    assert np.mean([p[0].zone == "lower" for p in patches]) == pytest.approx(0.55, abs=0.11)
    assert all((o.center_mm[0] > 0) == (o.side == "left") for p in patches for o in p)


def test_laws_are_exported_by_name():
    laws = laws_as_dict()
    assert laws["ctr_per_heart_failure"] == LAWS.ctr_per_heart_failure
    assert laws["pneumonia_zone_weights"] == LAWS.pneumonia_zone_weights
    assert sum(LAWS.pneumonia_zone_weights) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("argument", "value"), [("sex", "other"), ("age_years", 3.0), ("bmi", 5.0), ("heart_failure", 1.5)]
)
def test_draw_refuses_what_is_out_of_range(argument, value):
    with pytest.raises(ValueError, match=argument):
        draw(**{argument: value})


# Pictures


@pytest.mark.parametrize("size", [64, 256])
def test_radiograph_form(size):
    radiograph = render_radiograph(draw(), np.random.default_rng(1), view="PA", size=size)
    assert radiograph.pixels.shape == (size, size)
    assert radiograph.pixels.dtype == np.uint16
    assert radiograph.pixels.max() <= 4095
    assert radiograph.imager_pixel_spacing_mm == (400.0 / size, 400.0 / size)
    assert (radiograph.view, radiograph.bits_stored) == ("PA", 12)


def test_same_seed_same_picture_and_other_noise_otherwise():
    a, b, c = (render_radiograph(draw(2), np.random.default_rng(s), view="AP").pixels for s in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_air_is_dark_abdomen_bright_and_lungs_between():
    pixels = render_radiograph(draw(1), np.random.default_rng(0), view="PA").pixels
    lung = np.median(pixels[90:120, 60:90])
    assert pixels[250, 2] < lung < np.median(pixels[235:250, 110:146]) - 1000


def test_apex_of_the_heart_is_on_the_right_of_the_image():
    pixels = render_radiograph(draw(1, heart_failure=0.4), np.random.default_rng(0), view="PA").pixels.astype(float)
    band = pixels[150:165]
    assert band[:, 145:175].mean() > band[:, 81:111].mean() + 200


def test_opacity_brightens_the_picture_where_it_is():
    anatomy = draw(4, pneumonia=True)
    patch = replace(anatomy.opacities[0], side="right", center_mm=(-80.0, 0.0, 60.0), radius_mm=35.0, density=0.9)
    clear, dense = (
        render_radiograph(replace(anatomy, opacities=o), np.random.default_rng(0), view="PA").pixels.astype(float)
        for o in ((), (patch,))
    )
    row, column = np.unravel_index(np.argmax(np.abs(dense - clear)), clear.shape)
    assert (dense - clear)[row, column] > 300
    assert abs(column - (128 - 55)) < 22  # -80 mm, magnified 1.08, is 55 pixels left of the middle
    assert abs(row - 115) < 25


def test_breasts_are_in_women_only():
    woman = draw(5, sex="female", bmi=30.0)
    assert draw(5, bmi=30.0).breast_mm == 0.0
    with_, without = (
        render_radiograph(replace(woman, breast_mm=b), np.random.default_rng(0), view="PA").pixels.astype(float)
        for b in (woman.breast_mm, 0.0)
    )
    assert (with_ - without)[140:180, 50:80].mean() > 100


@pytest.mark.parametrize(("argument", "value"), [("view", "LATERAL"), ("size", 100), ("size", 32)])
def test_render_refuses_unknown_views_and_sizes(argument, value):
    with pytest.raises(ValueError, match=argument):
        render_radiograph(draw(), np.random.default_rng(0), **{"view": "PA", argument: value})
