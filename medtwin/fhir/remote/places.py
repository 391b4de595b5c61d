"""Where links of an answer may lead: to the host that gave it, and nowhere else."""

from __future__ import annotations

from urllib.parse import urljoin

from medtwin.core.places import NetworkError, origin


def followed(link: str, base: str, what: str) -> str:
    """Where a link of an answer leads, if that is the host that gave it.

    Args:
        link: A next page, a status, a redirect; may be relative.
        base: The URL that the answer came from.
        what: Names it in the error.

    Raises:
        NetworkError: If it leads to another host: it would learn the query, and could be handed the token.
    """
    target = urljoin(base, link)
    if origin(target) != origin(base):
        scheme, host, port = origin(target)
        raise NetworkError(
            f"the server's {what} leads to another place ({scheme}://{host}:{port}): it is not followed; "
            "give that place as the url if it is yours"
        )
    return target
