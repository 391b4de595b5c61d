"""Attacks on images find copies at their share, and nothing where twins are other people's images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.check.attacks.images import COPIES, MEMBERSHIP, attack_images
from medtwin.check.estimates import Measure
from medtwin.check.findings import Findings
from medtwin.check.gates import judge, profile_from
from medtwin.check.image_features import Encoded
from medtwin.config import compose
from tests.check.images_samples import pictures

WIDTH = 12


def _side(num: int, seed: int) -> Encoded:
    shown = pictures(num, seed)
    return Encoded(shown, np.random.default_rng(seed).normal(size=(len(shown), WIDTH)))


def _copied(train: Encoded, fresh: Encoded, share: float) -> Encoded:
    """As many images, the first share of them near copies of training images."""
    number = round(share * len(train.pictures))
    features = fresh.features.copy()
    features[:number] = train.features[:number] + 0.02 * np.random.default_rng(9).normal(size=(number, WIDTH))
    return Encoded(fresh.pictures, features)


@pytest.fixture(scope="module")
def sides() -> tuple[Encoded, Encoded, Encoded]:
    return _side(110, 1), _side(110, 2), _side(110, 3)


_found: dict[float, tuple[Measure, ...]] = {}


def _attacked(sides: tuple[Encoded, Encoded, Encoded], share: float) -> tuple[Measure, ...]:
    if share not in _found:
        train, fresh, control = sides
        _found[share] = attack_images(train, _copied(train, fresh, share), control, seed=0).measures
    return _found[share]


def _measures(sides: tuple[Encoded, Encoded, Encoded], share: float) -> dict[str, tuple[float, float, float]]:
    estimates = {one.name: one.estimate for one in _attacked(sides, share)}
    return {name: (one.low, one.value, one.high) for name, one in estimates.items() if one is not None}


@pytest.mark.parametrize("share", [0.0, pytest.param(0.3, marks=pytest.mark.slow), 1.0])
def test_the_risk_of_copies_is_the_share_that_is_copied(sides: tuple[Encoded, Encoded, Encoded], share: float) -> None:
    low, risk, high = _measures(sides, share)[COPIES]
    assert low - 0.02 <= share <= high + 0.02  # of people: those with two images are copied a little more often
    assert risk == pytest.approx(share, abs=0.06)


def test_membership_is_told_where_images_are_copies_and_not_elsewhere(sides: tuple[Encoded, Encoded, Encoded]) -> None:
    assert _measures(sides, 1.0)[MEMBERSHIP][0] > 0.9
    low, _, high = _measures(sides, 0.0)[MEMBERSHIP]
    assert low <= 0.5 <= high


def test_scores_that_are_handed_in_take_part(sides: tuple[Encoded, Encoded, Encoded]) -> None:
    train, fresh, control = sides
    rng = np.random.default_rng(0)
    losses = rng.normal(3, 1, 110), rng.normal(0, 1, 110)
    found = attack_images(train, fresh, control, seed=0, scores={"minus loss": losses})
    assert [one.name for one in found.memberships][-1] == "minus loss"
    measure = next(one for one in found.measures if one.name == MEMBERSHIP)
    assert measure.estimate is not None
    assert measure.estimate.low > 0.9


def test_few_people_are_not_judged(sides: tuple[Encoded, Encoded, Encoded]) -> None:
    train, fresh, _ = sides
    found = attack_images(train, fresh, _side(20, 4), seed=0)
    assert [one.estimate for one in found.measures] == [None, None]
    assert "needs 30 people on both sides, there are 110 and 20" in found.measures[0].reason
    some = attack_images(train, fresh, _side(40, 4), seed=0)
    assert "needs 100 images that training did not see" in some.measures[1].reason


@pytest.mark.parametrize("profile", ["research", "partner", "public"])
def test_gates_fail_where_every_image_is_copied_and_not_where_none_is(
    sides: tuple[Encoded, Encoded, Encoded], profile: str
) -> None:
    shipped = profile_from(compose("check", ["synthetic=x", "real=x", f"gates={profile}"])["gates"])
    gates = tuple(gate for gate in shipped.gates if gate.control == ("every image copied",))
    assert len(gates) == 2
    for share, outcomes in ((1.0, {"failed"}), (0.0, {"passed", "unchecked"})):
        found = Findings(110, 110, 110, _attacked(sides, share))
        assert {one.outcome for one in judge(found, replace(shipped, gates=gates))} <= outcomes
