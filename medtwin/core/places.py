"""Where requests may go: https, or this machine, unless the user says otherwise."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from medtwin.core.errors import ConfigError, MedtwinError

_DEFAULT_PORTS = {"http": 80, "https": 443}


class NetworkError(MedtwinError):
    """What a server answered, or did not, that the user has to know; the message holds no content of a record."""


class SettingError(ConfigError, ValueError):
    """A setting of a server that cannot be used; `medtwin.config.settings` puts its group before the message."""


def checked_url(url: str, setting: str, *, allow_http: bool = False) -> str:
    """The URL without a slash at its end.

    Raises:
        SettingError: If it is no http(s) URL, carries a password, a query or a fragment, or is plain http to a host
            that is not this machine.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise SettingError(f"{setting} must be an http(s) URL such as https://example.org/fhir")
    if parts.username is not None or parts.password is not None:
        raise SettingError(
            f"{setting} must not hold a user or a password: give a token by auth.token_env or auth.token_file"
        )
    if parts.query or parts.fragment:
        raise SettingError(f"{setting} must be a base without ? and #")
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise SettingError(
            f"{setting} is plain http to {parts.hostname}, which anyone on the way can read and change: use https, "
            "or allow_http=true"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("localhost.evil.example")
    (True, True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL.

    >>> origin("https://Example.org/fhir")
    ('https', 'example.org', 443)
    """
    parts = _split(url)
    if parts is None or not parts.hostname:
        return ("", "", 0)
    return parts.scheme, parts.hostname.lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return None
    return parts
