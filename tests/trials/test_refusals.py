"""The table "What is refused" of docs/trials.md, line by line: each message names the field and what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtwin.trials import (
    AssumedOutcome,
    Discontinuation,
    Endpoint,
    Estimand,
    GroupSequential,
    Minimisation,
    PermutedBlocks,
    PiecewiseRate,
    SurvivalTrial,
)
from medtwin.trials.engine.milestones import (
    Enrich,
    Events,
    Hypothesis,
    Milestone,
    MilestoneTrial,
    Month,
    Resize,
    Statistic,
)
from medtwin.trials.engine.response_design import NonInferiority
from medtwin.trials.enrolment.accrual import Accrual, Site

CODES = ("SNOMED//32485007",)
STOP = Discontinuation(PiecewiseRate((0.0,), (0.01,)))


def trial(**changes: Any) -> SurvivalTrial:
    return SurvivalTrial(
        **{"title": "t", "plan": GroupSequential(), "hazard_ratio": 0.7, "assumed": AssumedOutcome(12.0), **changes}
    )


def with_action(action: Any) -> MilestoneTrial:
    end = Milestone("end", Month(30.0))
    looks = [Milestone("look", Events("pfs", 20), [action]), end]
    return MilestoneTrial(60, Accrual([Site(10.0)]), looks, 30.0, [Hypothesis("PFS", "pfs", ["end"])])


REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("HR 1", lambda: trial(hazard_ratio=1.0), "non-inferiority has a null of its own, a margin above 1"),
    ("margin of 0", lambda: NonInferiority(0.0), "without one the trial tests superiority"),
    ("`Enrich`", lambda: with_action(Enrich("marker")), "closed combination tests of the stages"),
    (
        "without death",
        lambda: trial(endpoint=Endpoint("a", CODES, death=False)),
        "competing risk would be censored silently",
    ),
    ("fine_gray", lambda: Endpoint("a", CODES, death=False, competing="fine_gray"), "must be cause_specific"),  # type: ignore[arg-type]
    ("block", lambda: trial(allocation_ratio=2.0, randomisation=PermutedBlocks(4)), "multiple of 3"),
    ("increase", lambda: GroupSequential(looks=(0.7, 0.5, 1.0)), "looks must be increasing information fractions"),
    ("no patients", lambda: trial(num_subjects=0), "num_subjects must be 1 or more, got 0"),
    ("external_controls", lambda: trial(external_controls="my/twins"), "never enter the primary test"),
    (
        "difference between",
        lambda: with_action(Resize(90, Statistic("pfs", below=1.0))),
        "which needs a combination test",
    ),
    (
        "estimand",
        lambda: trial(estimand=Estimand(), num_subjects=400, treatment_changes=[STOP]),
        "lacks discontinuation",
    ),
    ("minimisation", lambda: trial(randomisation=Minimisation(["sex"])), "analysis_strata must be given with minim"),
    (
        "changes of treatment",
        lambda: trial(treatment_changes=[STOP]),
        "num_subjects must be given where patients change",
    ),
]


@pytest.mark.parametrize(("line", "make", "message"), REFUSED, ids=[line for line, _, _ in REFUSED])
def test_refused_with_a_reason(line: str, make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_page_has_a_line_for_each() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "trials.md").read_text(encoding="utf-8")
    table = page.partition("## What is refused")[2].partition("\n## ")[0]
    assert [line for line, _, _ in REFUSED if line not in table] == []


def test_what_says_how_is_taken() -> None:
    trial(endpoint=Endpoint("a", CODES, death=False, competing="cause_specific"))
    trial(endpoint=Endpoint("a", CODES, death=False), estimand=Estimand(intercurrent_events={"death": "while_alive"}))
    trial(allocation_ratio=2.0, randomisation=PermutedBlocks(6))
