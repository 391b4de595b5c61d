from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime

import pytest

from medtwin.core.patience import Pace, Stopped, retry_after
from medtwin.core.places import NetworkError
from medtwin.fhir.remote.answers import PASSING


def test_only_faults_that_pass_are_tried_again() -> None:
    assert sorted(PASSING) == [408, 409, 425, 429, 500, 502, 503, 504]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Wed, 01 Jan 2025 00:02:00 GMT", 120.0),
        ("Tue, 31 Dec 2024 23:00:00 GMT", 0.0),
        ("-3", None),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, datetime(2025, 1, 1, tzinfo=UTC)) == seconds


def test_waits_are_jittered_and_bounded() -> None:
    pace = Pace(10.0, generator=random.Random(1))
    for attempt, bound in [(0, 0.5), (1, 1.0), (3, 4.0), (30, 10.0)]:
        drawn = [pace.backoff(attempt) for _ in range(300)]
        assert 0 <= min(drawn) < 0.1 * bound
        assert 0.9 * bound < max(drawn) <= bound


def test_a_retry_after_holds_every_worker() -> None:
    pace = Pace(10.0)
    pace.hold(0.2)
    begun = time.monotonic()
    workers = [threading.Thread(target=pace.wait) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert time.monotonic() - begun >= 0.2


def test_a_server_that_asks_for_too_much_stops_the_run() -> None:
    with pytest.raises(NetworkError, match=r"asks to wait 3600 s, more than max_wait_s=300"):
        Pace(300.0).hold(3600.0)


def test_stopping_ends_a_wait() -> None:
    pace = Pace(100.0)
    threading.Timer(0.05, pace.stop).start()
    begun = time.monotonic()
    with pytest.raises(Stopped):
        pace.wait(30.0)
    assert time.monotonic() - begun < 5
    with pytest.raises(Stopped):
        pace.wait()
