"""Enrolment and failure tables of gsDesign2 as trials of medtwin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtwin.trials.design.hazard import PiecewiseRate
from medtwin.trials.design.timing import Arm
from medtwin.trials.design.two_arm_survival import Stratum, TwoArmSurvival
from tests.trials.reference.evaluate import Frame, vector
from tests.trials.reference.signatures import Arguments

Floats = NDArray[np.float64]


def frame(**columns: Any) -> Frame:
    size = max(len(np.atleast_1d(each)) for each in columns.values())
    return Frame({name: np.resize(np.atleast_1d(each), size) for name, each in columns.items()})


def rate_table(given: Arguments) -> Frame:
    return frame(**given)


def column(frame: Mapping[str, Any], name: str) -> Any:
    values = np.atleast_1d(vector(frame[name]))
    return np.resize(values, max(len(np.atleast_1d(vector(each))) for each in frame.values()))


def starts_of(durations: Floats) -> tuple[float, ...]:
    return tuple(np.concatenate([[0.0], np.cumsum(durations[:-1])]).tolist())


def strata_of(frame: Mapping[str, Any]) -> list[str]:
    if "stratum" not in frame:
        return ["All"]
    return list(dict.fromkeys(column(frame, "stratum").tolist()))


def _of(frame: Mapping[str, Any], stratum: str) -> dict[str, Floats]:
    here = np.ones(len(column(frame, next(iter(frame)))), dtype=bool)
    if "stratum" in frame:
        here = column(frame, "stratum") == stratum
    return {name: column(frame, name)[here].astype(np.float64) for name in frame if name != "stratum"}


def trial_of(enroll: Mapping[str, Any], fail: Mapping[str, Any], ratio: float = 1.0) -> TwoArmSurvival:
    """The trial that an enrolment and a failure table describe."""
    groups, end = [], 0.0
    for stratum in strata_of(fail):
        entry, failing = _of(enroll, stratum), _of(fail, stratum)
        starts = starts_of(failing["duration"])
        control = PiecewiseRate(starts, tuple(failing["fail_rate"]))
        treated = PiecewiseRate(starts, tuple(failing["fail_rate"] * failing.get("hr", np.ones(len(starts)))))
        leaving = PiecewiseRate(starts, tuple(failing["dropout_rate"]))
        entering = PiecewiseRate((*starts_of(entry["duration"]), float(entry["duration"].sum())), (*entry["rate"], 0.0))
        end = max(end, float(entry["duration"].sum()))
        groups.append(Stratum(Arm(treated, leaving), Arm(control, leaving), entering))
    return TwoArmSurvival(tuple(groups), end, ratio)


def trial_in(given: Arguments) -> TwoArmSurvival:
    return trial_of(given["enroll_rate"], given["fail_rate"], float(given.get("ratio") or 1.0))


ENROLL = frame(stratum="All", duration=[2.0, 2.0, 10.0], rate=[3.0, 6.0, 9.0])
FAIL = frame(
    stratum="All",
    duration=[3.0, 100.0],
    fail_rate=[math.log(2) / 9, math.log(2) / 18],
    hr=[0.9, 0.6],
    dropout_rate=0.001,
)
TRIAL: Arguments = {"enroll_rate": ENROLL, "fail_rate": FAIL}
