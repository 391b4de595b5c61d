"""When to ask again: which faults may pass, how long to wait, and one pace for all workers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from medtwin.core.places import NetworkError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of HTTP after which asking again may help. Not 409: what a conflict is, each protocol says itself."""

_FIRST_WAIT_S = 0.5


class Stopped(Exception):  # noqa: N818 (no fault: the user, or another worker, asked to stop)
    """The run is being stopped; what is confirmed stays confirmed."""


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number of seconds, or an HTTP date; None if it says nothing.

    >>> retry_after("7"), retry_after("soon")
    (7.0, None)
    >>> retry_after("Wed, 01 Jan 2025 00:00:10 GMT", datetime(2025, 1, 1, tzinfo=UTC))
    10.0
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


class Pace:
    """The waits of all workers of a run: exponential with full jitter, and never before a server's Retry-After.

    A Retry-After holds for every worker, since it speaks of the server and not of the request.

    Source: Brooker 2015, "Exponential Backoff And Jitter" (full jitter).
    """

    def __init__(
        self,
        max_wait_s: float,
        *,
        generator: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_wait_s = max_wait_s
        self._generator = generator or random.SystemRandom()
        self._clock = clock
        self._not_before = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.num_retries = 0

    def stop(self) -> None:
        """Ends every wait, now and later."""
        self._stop.set()

    @property
    def is_stopped(self) -> bool:
        """Whether the run is being stopped."""
        return self._stop.is_set()

    def hold(self, seconds: float) -> None:
        """Keeps every worker back for some time.

        Raises:
            NetworkError: If the server asks for more than max_wait_s.
        """
        if seconds > self._max_wait_s:
            raise NetworkError(
                f"the server asks to wait {seconds:.0f} s, more than max_wait_s={self._max_wait_s:.0f}: "
                "repeat the command later, it continues where it was"
            )
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)

    def again(self, attempt: int, asked: float | None = None) -> None:
        """Waits before a further attempt: as long as the server asked, else between 0 and a bound that doubles.

        Args:
            attempt: How many attempts have failed before this one.
            asked: Seconds of a Retry-After.

        Raises:
            NetworkError: If the server asks for more than max_wait_s.
            Stopped: If the run is being stopped.
        """
        with self._lock:
            self.num_retries += 1
        if asked:
            self.hold(asked)
            self.wait()
        else:
            self.wait(self.backoff(attempt))

    def backoff(self, attempt: int) -> float:
        """Seconds to wait before a further attempt: between 0 and a bound that doubles with each."""
        return self._generator.uniform(0.0, min(self._max_wait_s, _FIRST_WAIT_S * 2.0 ** min(attempt, 30)))

    def wait(self, seconds: float = 0.0) -> None:
        """Waits this long, and until no Retry-After holds us back.

        Raises:
            Stopped: If the run is being stopped.
        """
        self._sleep(seconds)
        while (left := self._left()) > 0:
            # Spread over a moment, so that not all workers ask in the same instant.
            self._sleep(left + self._generator.uniform(0.0, _FIRST_WAIT_S))

    def _left(self) -> float:
        with self._lock:
            return self._not_before - self._clock()

    def _sleep(self, seconds: float) -> None:
        if self._stop.is_set() or (seconds > 0 and self._stop.wait(seconds)):
            raise Stopped
