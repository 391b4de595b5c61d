"""The same person with another age or sex."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medtwin.core.errors import ConfigError
from medtwin.hospital.counterfactual import NO_CHANGE, Change, change_from, paired_life, paired_record
from medtwin.hospital.hazards import NEVER
from medtwin.hospital.simulate import draw_life

NUM_LIVES = 2_000


def test_age_is_set_and_what_age_does_not_act_on_stays() -> None:
    for index in range(100):
        was, older = paired_life(3, index), paired_life(3, index, Change(age=75.0))
        assert older.person.age == pytest.approx(75.0, abs=1 / 365)
        for name in ("sex", "race", "hispanic", "smoking", "bmi", "height_cm", "traits"):
            assert getattr(older.person, name) == getattr(was.person, name), name
        # Chronic courses start at an age; the age at the start of the record acts on none of them.
        for name in ("hypertension", "diabetes", "ckd", "heart_failure", "copd", "breast_cancer", "osteoarthritis"):
            assert getattr(older, name) == getattr(was, name), name


def test_older_by_adds_to_the_age_that_was() -> None:
    young = [index for index in range(60) if paired_life(3, index).person.age < 50]
    for index in young:
        was, older = paired_life(3, index), paired_life(3, index, Change(older_by=20.0))
        assert older.person.age == pytest.approx(was.person.age + 20, abs=2 / 365)
        assert older.person.traits == was.person.traits
    old = next(index for index in range(200) if paired_life(3, index).person.age > 70)
    with pytest.raises(ConfigError, match="older_by must leave everybody"):
        paired_life(3, old, Change(older_by=20.0))


def test_sex_is_set_and_acts_on_what_depends_on_it() -> None:
    for index in range(60):
        man, woman = (paired_life(3, index, Change(sex=sex)) for sex in ("M", "F"))
        assert (man.person.sex, woman.person.sex) == ("M", "F")
        assert man.person.age == woman.person.age
        assert man.person.traits == woman.person.traits
        assert man.person.height_cm - woman.person.height_cm == pytest.approx(175.3 - 161.3)
        assert not man.pregnancies
        # The hazard ratio of men is 1.15 on diabetes; of no disease that a pregnancy foreshadows.
        if not any(one.gestational_diabetes for one in woman.pregnancies):
            assert man.diabetes <= woman.diabetes


def test_no_change_is_the_law_of_the_hospital() -> None:
    lives = [[draw(7, index) for index in range(NUM_LIVES)] for draw in (draw_life, paired_life)]
    shares = {
        "hypertension": lambda one: one.hypertension <= one.age_at_start,
        "diabetes": lambda one: one.diabetes <= one.age_at_start,
        "heart failure": lambda one: one.heart_failure <= one.last_age,
        "copd": lambda one: one.copd <= one.last_age,
        "pneumonia": lambda one: any(acute.kind == "pneumonia" for acute in one.acutes),
        "pregnancy": lambda one: any(one.in_record(birth.birth) for birth in one.pregnancies),
        "death": lambda one: one.death < NEVER,
    }
    for name, share in shares.items():
        first, second = (np.mean([share(one) for one in side]) for side in lives)
        pooled = (first + second) / 2
        error = math.sqrt(2 * pooled * (1 - pooled) / NUM_LIVES)
        assert abs(first - second) < 3.5 * error, name


def test_courses_do_not_share_noise() -> None:
    """Women's draws for pregnancies would otherwise be men's draws for hypertension."""
    man, woman = (np.array([paired_life(1, i, Change(sex=sex)).hypertension for i in range(500)]) for sex in ("M", "F"))
    births = np.array([len(paired_life(1, i, Change(sex="F")).pregnancies) for i in range(500)])
    finite = np.isfinite(man) & np.isfinite(woman)
    assert np.corrcoef(man[finite], woman[finite])[0, 1] > 0.8
    assert abs(np.corrcoef(births[finite], woman[finite])[0, 1]) < 0.15


def test_a_record_follows_its_life() -> None:
    record = paired_record(3, 5, Change(age=60.0, sex="F"))
    codes = {event.code for event in record.events}
    assert "GENDER//F" in codes
    birth = next(event.time for event in record.events if event.code == "MEDS_BIRTH")
    assert birth is not None
    assert birth.year in (1954, 1955)
    assert paired_record(3, 5).events == paired_record(3, 5, NO_CHANGE).events


def test_changes_are_read_and_refused() -> None:
    assert change_from({"set": {"sex": "F"}}) == Change(sex="F")
    assert change_from({"add": {"age": 20}}) == Change(older_by=20.0)
    for wrong in ({}, {"set": {}}, {"set": {"race": "2106-3"}}, {"set": {"sex": "X"}}, {"set": {"age": 12}}):
        with pytest.raises(ConfigError):
            change_from(wrong)
    with pytest.raises(ConfigError, match="older_by"):
        Change(age=50.0, older_by=5.0)
