"""The law of attributes, on a law that is known: an old woman's disease, and windows that it shortens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medtwin.core.codes import DEATH
from medtwin.core.errors import ConfigError
from medtwin.core.seeds import generator
from medtwin.timelines.generation.generate import draw_attributes
from medtwin.timelines.generation.plans import Target
from medtwin.timelines.reading import profile
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.openings import Openings
from medtwin.timelines.reading.profile import ProfileLaw, fit_profile
from medtwin.timelines.reading.quantiles import Quantiles

SEXES = ("GENDER//U", "GENDER//F", "GENDER//M")
FACTS = ("DISEASE", "RACE//A", "WOMEN")
YEAR = 525_960
FIRST = 20_000_000


def chance(sex: np.ndarray, age: np.ndarray) -> np.ndarray:
    """Of the disease: it rises with age, and women have it more often."""
    return 1 / (1 + np.exp(-((age - 60) / 8 + 1.0 * (sex == 1))))


def subjects(num: int = 1000, seed: int = 0) -> list[Attributes]:
    rng = np.random.default_rng(seed)
    sex = rng.choice([1, 2], num, p=[0.7, 0.3])
    race = rng.random(num) < 0.25
    age = np.where(sex == 1, rng.normal(60, 12, num), rng.normal(50, 8, num)).clip(1, 95)
    ill = rng.random(num) < chance(sex, age)
    women = (sex == 1) & (rng.random(num) < 0.5)
    window = np.where(ill, rng.lognormal(np.log(2 * YEAR), 0.3, num), rng.lognormal(np.log(6 * YEAR), 0.3, num))
    window[rng.random(num) < 0.1] = 0
    start = FIRST + rng.integers(0, 10 * YEAR, num)
    rows = zip(sex, age, start, window, ill, race, women, strict=True)
    return [Attributes(int(s), float(a), int(t), int(w), (int(i), int(r), int(f))) for s, a, t, w, i, r, f in rows]


@pytest.fixture(scope="module")
def law() -> ProfileLaw:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "_STEPS", 200)
        return fit_profile(subjects(), SEXES, FACTS, np.array([False, True, False]))


def drawn(law: ProfileLaw, num: int = 4000, seed: int = 1, roots: list[Attributes] | None = None) -> list[Attributes]:
    return law.draw(np.random.default_rng(seed).random((num, law.num_uniforms)), roots)


def columns(people: list[Attributes]) -> dict[str, np.ndarray]:
    names = ("sex", "age_start_years", "start_minute", "window_minutes")
    found = {name: np.array([getattr(one, name) for one in people]) for name in names}
    return {**found, "facts": np.array([one.facts for one in people])}


def test_records_begin_when_clinics_are_open() -> None:
    """Weekdays and hours of starts are the training subjects' own, and the date is next to what the law drew."""
    rng = np.random.default_rng(0)
    days = FIRST // 1440 + rng.integers(0, 3650, 3000)
    days = days[np.isin(days % 7, (4, 5, 6, 0, 1))]  # no Saturday (2), no Sunday (3)
    hours = rng.choice([8, 9, 14], len(days), p=[0.5, 0.3, 0.2])
    minutes = days * 1440 + hours * 60 + 15 * rng.integers(0, 4, len(days))
    openings = Openings.of(minutes)
    assert openings.grain == 15
    assert Openings.from_json(openings.to_json()).counts.tolist() == openings.counts.tolist()
    asked = FIRST + rng.uniform(0, 10 * YEAR, 20_000)
    placed = openings.place(asked, rng.random((20_000, 2))).astype(np.int64)
    assert np.abs(placed - asked).max() <= 3.5 * 1440 + 1440
    assert not np.isin(placed // 1440 % 7, (2, 3)).any()
    assert (placed % 15 == 0).all()
    hours, real = placed % 1440 // 60, minutes % 1440 // 60
    for hour in (8, 9, 14):
        assert np.mean(hours == hour) == pytest.approx(np.mean(real == hour), abs=0.015)
    assert np.isin(hours, (8, 9, 14)).all()
    before = asked.astype(np.int64)  # the control: dates alone begin on any day at any hour
    assert np.isin(before // 1440 % 7, (2, 3)).mean() > 0.2
    assert not np.isin(before % 1440 // 60, (8, 9, 14)).all()


def test_a_law_draws_starts_as_its_subjects_had_them() -> None:
    people = [replace(one, start_minute=one.start_minute // 1440 * 1440 + 540) for one in subjects(300)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "_STEPS", 20)
        law = fit_profile(people, SEXES, FACTS, np.array([False, True, False]))
    assert {one.start_minute % 1440 for one in drawn(law, 200)} == {540}


def test_draws_follow_the_law(law: ProfileLaw) -> None:
    real, made = columns(subjects(4000, 7)), columns(drawn(law, 20_000))
    assert np.mean(made["sex"] == 1) == pytest.approx(0.7, abs=0.03)
    trained_on = columns(subjects())["facts"][:, 1]
    assert np.mean(made["facts"][:, 1]) == pytest.approx(np.mean(trained_on), abs=0.03)
    assert made["facts"][made["sex"] == 2, 2].mean() < 0.03
    assert made["facts"][made["sex"] == 1, 2].mean() == pytest.approx(0.5, abs=0.05)
    for sex in (1, 2):
        ages = [part["age_start_years"][part["sex"] == sex] for part in (real, made)]
        assert stats.ks_2samp(*ages).statistic < 0.08
    for low, high in ((35, 50), (50, 60), (60, 70), (70, 95)):
        for sex in (1, 2):
            mine = (made["age_start_years"] >= low) & (made["age_start_years"] < high) & (made["sex"] == sex)
            if mine.sum() < 100:
                continue
            wanted = chance(made["sex"][mine], made["age_start_years"][mine]).mean()
            assert made["facts"][mine, 0].mean() == pytest.approx(wanted, abs=0.1)
    for ill in (0, 1):
        windows = [part["window_minutes"][(part["facts"][:, 0] == ill)] for part in (real, made)]
        assert stats.ks_2samp(*windows).statistic < 0.1
        assert np.mean(windows[1] == 0) == pytest.approx(0.1, abs=0.04)
    assert stats.ks_2samp(*(part["start_minute"] for part in (real, made))).statistic < 0.08


def test_a_strong_effect_of_a_fact_on_another_is_learned_though_windows_are_soon_learned() -> None:
    """Windows and ages are pure noise, so that what describes them overfits at once; the facts are next to one."""
    rng, num = np.random.default_rng(5), 1500
    first = rng.random(num) < 0.15
    second = rng.random(num) < np.where(first, 0.6, 0.03)
    windows = rng.integers(YEAR, 9 * YEAR, num)
    rows = zip(first, second, windows, rng.uniform(20, 90, num), strict=True)
    people = [Attributes(1, float(age), FIRST, int(w), (int(a), int(b))) for a, b, w, age in rows]
    fitted = fit_profile(people, SEXES, ("FIRST", "SECOND"), np.array([False, False]))

    def log_odds_ratio(facts: np.ndarray) -> float:
        counts = [((facts[:, 0] == a) & (facts[:, 1] == b)).sum() + 0.5 for a in (1, 0) for b in (1, 0)]
        return float(np.log(counts[0] * counts[3] / counts[1] / counts[2]))

    true = log_odds_ratio(np.stack([first, second], axis=1))
    assert true > 3.5
    assert log_odds_ratio(columns(drawn(fitted, 20_000))["facts"]) == pytest.approx(true, abs=0.35)


def test_an_unfitted_law_fails_the_same_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr("medtwin.timelines.reading.profile._STEPS", 0)
    with pytest.raises(AssertionError):
        test_draws_follow_the_law(fit_profile(subjects(300), SEXES, FACTS, np.array([False, True, False])))


def test_abducted_numbers_give_back_facts_and_windows(law: ProfileLaw) -> None:
    known = subjects(300, 3)
    noise = law.abduct(known, np.random.default_rng(0))
    assert ((noise >= 0) & (noise <= 1)).all()
    again = law.draw(noise, known)
    assert [one.facts for one in again] == [one.facts for one in known]
    for one, other in zip(again, known, strict=True):
        assert (one.sex, one.age_start_years, one.start_minute) == (
            other.sex,
            other.age_start_years,
            other.start_minute,
        )
        assert (one.window_minutes == 0) == (other.window_minutes == 0)
    # Beyond the outer knots, which are means of several subjects, nobody's own window is known.
    low, high = np.quantile([one.window_minutes for one in known if one.window_minutes], [0.03, 0.97])
    inner = [
        (a.window_minutes, b.window_minutes) for a, b in zip(again, known, strict=True) if low < b.window_minutes < high
    ]
    assert np.array([pair[0] for pair in inner]) == pytest.approx(np.array([pair[1] for pair in inner]), rel=0.02)


def test_abducted_numbers_of_drawn_people_are_uniform(law: ProfileLaw) -> None:
    noise = law.abduct(drawn(law, 3000), np.random.default_rng(5))
    for column in range(-5, 0):
        assert stats.kstest(noise[:, column], "uniform").statistic < 0.04


def test_an_older_self_is_ill_more_often_and_never_cured(law: ProfileLaw) -> None:
    """Counterfactual ages: with the noise held the disease can only come, where it rises with age."""
    known = [replace(one, age_start_years=50.0) for one in subjects(800, 4)]
    noise = law.abduct(known, np.random.default_rng(0))
    older = law.draw(noise, [replace(one, age_start_years=75.0) for one in known])
    ill, later = (columns(part)["facts"][:, 0] for part in (known, older))
    assert (later >= ill).mean() > 0.99
    sex = columns(known)["sex"]
    healthy = ill == 0
    before, after = (chance(sex, np.full(len(sex), age)) for age in (50.0, 75.0))
    wanted = ((after - before) / (1 - before))[healthy].mean()
    assert later[healthy].mean() == pytest.approx(wanted, abs=0.1)
    assert [one.facts[1] for one in older] == [one.facts[1] for one in known]


def test_roots_are_held_when_given(law: ProfileLaw) -> None:
    known = subjects(50, 9)
    for one, other in zip(drawn(law, 50, 2, known), known, strict=True):
        assert (one.sex, one.age_start_years, one.start_minute, one.facts[1]) == (
            other.sex, other.age_start_years, other.start_minute, other.facts[1],
        )  # fmt: skip


def test_it_comes_back_from_disk(law: ProfileLaw, tmp_path: Path) -> None:
    law.save(tmp_path)
    back = ProfileLaw.load(tmp_path, law.to_json())
    assert str(drawn(back, 20)) == str(drawn(law, 20))
    assert not any(parameter.requires_grad for parameter in back.net.parameters())


def test_nobodys_own_numbers_are_kept(law: ProfileLaw, tmp_path: Path) -> None:
    known = columns(subjects())
    windows = [("window_minutes", one) for one in (law.windows, *law.windows_by_death)]
    for name, kept in (("age_start_years", law.ages), ("start_minute", law.starts), *windows):
        assert not np.isin(kept.knots, known[name]).any()
        assert len(kept.knots) <= len(known[name]) // 5
    made = columns(drawn(law, 200))
    assert not np.isin(made["start_minute"], known["start_minute"]).sum() > 1


def test_rejection_meets_targets_and_keeps_the_law(law: ProfileLaw) -> None:
    wanted = {"sex": "F", "age": [55.0, 70.0], "facts": ["DISEASE"], "without": ["RACE//A"], "window_years": [1.0, 3.0]}
    target = Target.of(law, wanted)
    for index in range(10):
        numbers, one = draw_attributes(law, generator(0, "a", index), target)
        assert one.sex == 1
        assert 55 <= one.age_start_years <= 70
        assert one.facts[:2] == (1, 0)
        assert YEAR <= one.window_minutes <= 3 * YEAR
        assert law.draw(numbers[None])[0] == one
    free = [draw_attributes(law, generator(0, "a", index), Target())[1] for index in (0, 0, 1)]
    assert str(free[0]) == str(free[1]) != str(free[2])


def test_what_next_to_nobody_has_is_refused(law: ProfileLaw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtwin.timelines.generation.generate._MOST_CANDIDATES", 100)
    with pytest.raises(ConfigError, match="nobody among 192 drawn has all that was asked for"):
        draw_attributes(law, generator(0, "a", 0), Target(age=(150.0, 160.0)))


@pytest.mark.parametrize("num", [1, 2, 7])
def test_few_subjects_without_age_or_window_have_a_law(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_STEPS", 40)
    few = [Attributes(0, float("nan"), FIRST + n, 0, ()) for n in range(num)]
    law = fit_profile(few, SEXES[:1], (), np.zeros(0, dtype=bool))
    for one in drawn(law, 20):
        assert one.sex == 0
        assert one.facts == ()
        assert abs(one.start_minute - FIRST) < 60  # in the hour in which they all start


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_quantiles_rise_and_stay_near_what_was_seen(values: list[float], scores: list[float]) -> None:
    law = Quantiles.of(np.array(values))
    found = law.value(np.sort(scores))
    assert (np.diff(found) >= -1e-6).all()
    spread = law.knots[-1] - law.knots[0]
    assert law.knots[0] - spread - 1e-6 <= found.min() <= found.max() <= law.knots[-1] + spread + 1e-6
    assert np.isfinite(law.score(np.array([*values, 1e9, -1e9]))).all()


def test_scores_of_many_values_are_normal_and_come_back() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 3000)
    law = Quantiles.of(values)
    scores = law.score(values)
    assert stats.kstest(scores, "norm").statistic < 0.02
    inner = abs(scores) < 2
    assert law.value(scores[inner]) == pytest.approx(values[inner], abs=0.05)


def test_death_ends_a_window_at_any_time() -> None:
    """All are looked at for ten years but who dies: half of the old, at any time."""
    rng = np.random.default_rng(5)
    age = rng.uniform(20, 90, 1500)
    dies = (age > 70) & (rng.random(1500) < 0.5)
    window = np.where(dies, rng.uniform(0.1, 10, 1500), rng.uniform(9.5, 10, 1500)) * YEAR
    rows = zip(age, window, dies, rng.integers(0, 9, 1500), strict=True)
    known = [Attributes(1, a, FIRST + int(s), int(w), (int(d),)) for a, w, d, s in rows]
    law = fit_profile(known, SEXES, (DEATH,), np.array([False]))
    made = columns(drawn(law, 4000))
    gone = made["facts"][:, 0] > 0
    assert stats.ks_2samp(made["window_minutes"][gone], window[dies]).pvalue > 0.01
    assert stats.ks_2samp(made["window_minutes"][~gone], window[~dies]).statistic < 0.08
    old = made["age_start_years"] > 70
    assert made["window_minutes"][old].mean() == pytest.approx(window[age > 70].mean(), rel=0.03)
    few = fit_profile([replace(one, facts=(0,)) for one in known], SEXES, (DEATH,), np.array([False]))
    assert np.array_equal(few.windows_by_death[1].knots, few.windows.knots)


def test_an_age_that_many_share_keeps_its_share() -> None:
    """A fifth join on the day of coming of age, most of them men; the mixtures of scores are smooth all the same."""
    rng = np.random.default_rng(6)
    sex = rng.choice([1, 2], 3000)
    joins = rng.random(3000) < np.where(sex == 2, 0.3, 0.1)
    age = np.where(joins, 18.0, rng.gamma(4.0, 8.0, 3000) + 18.5)
    window = np.where(rng.random(3000) < 0.4, 2 * YEAR, rng.lognormal(np.log(YEAR), 0.5, 3000))
    rows = zip(sex, age, window, strict=True)
    known = [Attributes(int(s), float(a), FIRST + 60 * n, int(w), ()) for n, (s, a, w) in enumerate(rows)]
    law = fit_profile(known, SEXES, (), np.zeros(0, dtype=bool))
    made = columns(drawn(law, 6000))
    for code in (1, 2):
        mine = made["age_start_years"][made["sex"] == code]
        assert np.mean(mine == 18.0) == pytest.approx(
            np.mean(joins[sex == code]), abs=0.04
        )  # but for a knot on its edge
        assert np.mean(mine < 18.6) == pytest.approx(np.mean(joins[sex == code]), abs=0.03)
    assert np.mean(made["window_minutes"] == 2 * YEAR) == pytest.approx(0.4, abs=0.03)
    noise = law.abduct(known, np.random.default_rng(0))
    again = np.array([one.window_minutes for one in law.draw(noise, known)])
    assert (again[window == 2 * YEAR] == 2 * YEAR).all()
    assert np.isclose(again, window, rtol=0.02).mean() > 0.95
