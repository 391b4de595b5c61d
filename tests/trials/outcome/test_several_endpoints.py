"""Several endpoints of the same patients: arms, a biomarker, responses that go with a time to an event."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from scipy.stats import norm

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.enrolment.draws import TrialDraws
from medtwin.trials.outcome.joint import GumbelPfsOs, IllnessDeath
from medtwin.trials.outcome.several_endpoints import (
    Draws,
    Group,
    PfsAndOs,
    Response,
    TimeToEvent,
    draw_endpoints,
    hazard_with_ratio,
    names_of,
)

COUNT = 300


def rate(value: float) -> PiecewiseRate:
    return PiecewiseRate((0.0,), (value,))


def group(*, biomarker: bool = False) -> Group:
    arm = np.tile(np.array([0, 1]), (100, COUNT // 2)).astype(np.int64)
    inside = np.tile(np.array([True, True, False, False]), (100, COUNT // 4)) if biomarker else None
    return Group(arm, inside)


def draws(seed: int = 2) -> Draws:
    return cast(Draws, TrialDraws(seed, 100))


def test_each_group_has_its_own_law() -> None:
    who = group(biomarker=True)
    time = TimeToEvent("ttd", rate(0.1), rate(0.05), outside=(rate(0.2), rate(0.4)))
    drawn = draw_endpoints([time, Response("orr", 2.0, 0.2, 0.5, (0.1, 0.3))], draws(), who)
    assert who.inside is not None
    for arm, inside, hazard, share in (
        (0, True, 0.1, 0.2),
        (1, True, 0.05, 0.5),
        (0, False, 0.2, 0.1),
        (1, False, 0.4, 0.3),
    ):
        here = (who.arm == arm) & (who.inside == inside)
        assert drawn.months["ttd"][here].mean() * hazard == pytest.approx(1.0, abs=4 / np.sqrt(here.sum()))
        assert drawn.response["orr"][here].mean() == pytest.approx(share, abs=4 * 0.5 / np.sqrt(here.sum()))


def test_a_patient_keeps_its_draws_in_the_other_arm() -> None:
    who = group()
    other = Group(1 - who.arm)
    law = PfsAndOs(GumbelPfsOs(rate(0.1), rate(0.04)), GumbelPfsOs(rate(0.05), rate(0.02)))
    one, two = (draw_endpoints([law], draws(), each).months["os"] for each in (who, other))
    np.testing.assert_allclose(one[who.arm == 0] / two[who.arm == 0], 0.5)


@pytest.mark.parametrize("correlation", [-0.5, 0.6])
@pytest.mark.parametrize("joint", [True, False])
def test_responders_have_later_events_as_far_as_asked(correlation: float, joint: bool) -> None:
    who = group()
    times = (
        PfsAndOs(*(IllnessDeath(rate(0.08), rate(0.02), rate(h)) for h in (0.06, 0.05)))
        if joint
        else TimeToEvent("pfs", rate(0.1), rate(0.1))
    )
    response = Response("orr", 3.0, 0.4, 0.4, correlation=correlation, correlated_with="pfs")
    drawn = draw_endpoints([times, response], draws(), who)
    score = norm.ppf(1 - np.exp(-0.1 * drawn.months["pfs"])).ravel()
    found = drawn.response["orr"].ravel()
    assert found.mean() == pytest.approx(0.4, abs=0.012)
    # biserial correlation of a dichotomised normal score
    biserial = (
        (score[found].mean() - score[~found].mean()) * found.mean() * (1 - found.mean()) / norm.pdf(norm.ppf(0.4))
    )
    assert biserial == pytest.approx(correlation, abs=0.03)


def test_independent_responses_are_independent() -> None:
    drawn = draw_endpoints([TimeToEvent("pfs", rate(0.1), rate(0.1)), Response("orr", 3.0, 0.4, 0.4)], draws(), group())
    found = drawn.response["orr"]
    assert drawn.months["pfs"][found].mean() == pytest.approx(drawn.months["pfs"][~found].mean(), abs=0.5)


def test_nulls_are_known() -> None:
    same, better = GumbelPfsOs(rate(0.1), rate(0.04), 1.5), GumbelPfsOs(rate(0.07), rate(0.04), 1.2)
    both = PfsAndOs(same, better, outside=(same, same))
    assert not both.is_null("pfs", inside=False)
    assert both.is_null("os", inside=False)
    only_inside = TimeToEvent("ttd", rate(0.1), rate(0.1), outside=(rate(0.1), rate(0.05)))
    assert only_inside.is_null("ttd", inside=True)
    assert not only_inside.is_null("ttd", inside=False)
    mixed = PfsAndOs(IllnessDeath(rate(0.1), rate(0.02), rate(0.1)), IllnessDeath(rate(0.1), rate(0.02), rate(0.05)))
    assert mixed.is_null("pfs", inside=False)
    assert not mixed.is_null("os", inside=False)


def test_a_delayed_effect() -> None:
    found = hazard_with_ratio(PiecewiseRate((0.0, 6.0), (0.1, 0.2)), (0.0, 4.0), (1.0, 0.5))
    assert (tuple(found.starts), tuple(found.rates)) == ((0.0, 4.0, 6.0), (0.1, 0.05, 0.1))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="probabilities from 0 to 1"):
        Response("orr", 6.0, 0.2, 1.2)
    with pytest.raises(ValueError, match="come with correlated_with"):
        Response("orr", 6.0, 0.2, 0.3, correlation=0.5)
    with pytest.raises(ValueError, match="'os' twice"):
        names_of([PfsAndOs(*[GumbelPfsOs(rate(0.1), rate(0.04))] * 2), TimeToEvent("os", rate(0.1), rate(0.1))])
    late = Response("orr", 6.0, 0.2, 0.3, correlation=0.5, correlated_with="pfs")
    with pytest.raises(ValueError, match="stands before it"):
        draw_endpoints([late, TimeToEvent("pfs", rate(0.1), rate(0.1))], draws(), group())
    law = GumbelPfsOs(rate(0.1), rate(0.04))
    late = Response("orr", 6.0, 0.2, 0.3, correlation=0.5, correlated_with="os")
    with pytest.raises(ValueError, match="no closed form"):
        draw_endpoints([PfsAndOs(law, law), late], draws(), group())
    with pytest.raises(ValueError, match="without a biomarker"):
        draw_endpoints([TimeToEvent("pfs", rate(0.1), rate(0.1), (rate(0.1), rate(0.1)))], draws(), group())
