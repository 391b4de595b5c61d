"""FHIR's asynchronous requests: started with one request, asked after until the server is done."""

from __future__ import annotations

import time
from collections.abc import Mapping

from medtwin.core.patience import retry_after
from medtwin.core.places import NetworkError
from medtwin.fhir.remote.answers import PASSING, issues_of
from medtwin.fhir.remote.client import Answer, FhirClient
from medtwin.fhir.remote.places import followed

# A job that failed answers 500: asking again would change nothing.
_PASSING = PASSING - {500}
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 120.0


def kick_off(client: FhirClient, method: str, url: str, *, content: bytes | None = None, what: str = "export") -> str:
    """Starts a job; returns where its status is.

    Raises:
        NetworkError: If the server does not take it, or does not say where to ask after it.
    """
    answer = client.request(method, url, content=content, headers={"prefer": "respond-async"}, passing=_PASSING)
    if answer.status != 202:
        raise NetworkError(f"the server does not start the {what}: {explain(answer)}")
    place = answer.headers.get("content-location")
    if not place:
        raise NetworkError(f"the server started the {what} without saying where to ask after it (Content-Location)")
    return followed(place, answer.url, "status address")


def poll(client: FhirClient, url: str, max_poll_s: float, what: str = "export") -> Answer:
    """The final answer of a job, whatever its status; waits as the server's Retry-After says, else longer each time.

    Raises:
        NetworkError: If the server is not done in time.
        Stopped: If the run is being stopped.
    """
    end = time.monotonic() + max_poll_s
    pause = _FIRST_WAIT_S
    while True:
        answer = client.request("GET", url, passing=_PASSING)
        if answer.status != 202:
            return answer
        asked = retry_after(answer.headers.get("retry-after"))
        seconds = min(asked if asked is not None else pause, _LONGEST_WAIT_S)
        if time.monotonic() + seconds > end:
            raise NetworkError(
                f"the server is not done with the {what} after max_poll_s={max_poll_s:.0f}: "
                "repeat the command later, it goes on asking"
            )
        client.pace.wait(seconds)
        pause = min(2 * pause, _LONGEST_WAIT_S)


def explain(answer: Answer) -> str:
    """An answer that is no success, in its status and its issue codes.

    >>> explain(Answer(422, {}, b'{"resourceType":"OperationOutcome","issue":[{"code":"value"}]}', ""))
    '422 (value)'
    """
    outcome: Mapping[str, object] | None = None
    if b"OperationOutcome" in answer.body:
        outcome = answer.resource("a job")
    codes, elements = issues_of(outcome)
    return f"{answer.status} ({', '.join([*codes, *elements])})"
