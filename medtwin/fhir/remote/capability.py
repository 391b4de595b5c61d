"""What a server says it can do, asked before anything is sent or read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from medtwin.core.places import NetworkError
from medtwin.fhir.remote.client import Answer, FhirClient
from medtwin.fhir.remote.settings import ServerSettings


def read_capability(client: FhirClient) -> tuple[dict[str, Any], datetime | None]:
    """The CapabilityStatement of a server, and the time on its clock, if it tells it.

    Raises:
        NetworkError: If it has none, or speaks another version of FHIR than R4.
    """
    answer = client.request("GET", f"{client.base}/metadata")
    if answer.status != 200:
        raise NetworkError(
            f"the server answers {answer.status} to a request for its /metadata: is the url its FHIR base?"
        )
    statement = answer.resource("/metadata")
    if statement.get("resourceType") != "CapabilityStatement":
        raise NetworkError("the /metadata of the server is no CapabilityStatement: is the url its FHIR base?")
    version = str(statement.get("fhirVersion", ""))
    if not version.startswith("4.0."):
        shown = version[:20] if version.replace(".", "").replace("-", "").isalnum() else "no version"
        raise NetworkError(f"the server speaks FHIR {shown}, and medtwin R4 (4.0.1): use an R4 endpoint of it")
    return statement, _clock(answer)


def require_capability(statement: Mapping[str, Any], chosen: ServerSettings, kinds: Iterable[str]) -> None:
    """Refuses a server that does not declare what sending needs.

    Args:
        statement: Its CapabilityStatement.
        chosen: How we want to write.
        kinds: The resource types to send.

    Raises:
        NetworkError: Naming what is missing, and what to set instead.
    """
    rest = _rest(statement)
    declared = {each.get("code") for each in rest.get("interaction", []) if isinstance(each, dict)}
    # HAPI declares transaction alone, and takes batches too.
    wanted = {"transaction"} if chosen.bundle == "transaction" else {"batch", "transaction"}
    hint = "server.check_capability=false sends all the same"
    if not declared & wanted:
        other = "batch" if chosen.bundle == "transaction" and "batch" in declared else None
        advice = f"use server.bundle={other}" if other else hint
        raise NetworkError(f"the server does not declare the {chosen.bundle} interaction: {advice}")
    resources = {each.get("type"): each for each in rest.get("resource", []) if isinstance(each, dict)}
    if not resources:
        return
    missing = sorted(set(kinds) - set(resources))
    if missing:
        raise NetworkError(f"the server does not declare the resource types {', '.join(missing)}: {hint}")
    name, advice = (
        ("updateCreate", "the server lets nobody choose ids: use server.write=if_none_exist")
        if chosen.write == "put"
        else ("conditionalCreate", "the server has no conditional create: use server.write=put")
    )
    refusing = sorted(kind for kind in kinds if resources[kind].get(name) is False)
    if refusing:
        raise NetworkError(f"{advice} ({', '.join(refusing)}); {hint}")


def declared_types(statement: Mapping[str, Any]) -> list[str]:
    """The resource types that a server declares, in its order; empty if it lists none."""
    listed = _rest(statement).get("resource", [])
    return [each["type"] for each in listed if isinstance(each, dict) and isinstance(each.get("type"), str)]


def _rest(statement: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the statement about the server's own REST interface."""
    parts = statement.get("rest", [])
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("mode") == "server":
            return part
    return {}


def _clock(answer: Answer) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return None
