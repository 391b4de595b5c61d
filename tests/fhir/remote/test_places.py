from __future__ import annotations

import pytest

from medtwin.config import settings
from medtwin.core.errors import ConfigError
from medtwin.core.places import NetworkError, checked_url
from medtwin.fhir.remote.places import followed
from medtwin.fhir.remote.settings import AuthSettings, BulkSettings, ServerSettings, ServerSource


@pytest.mark.parametrize(
    "url", ["https://example.org/fhir/", "http://127.0.0.1:8080/fhir", "http://localhost/fhir", "http://[::1]:80/fhir"]
)
def test_https_and_this_machine_may_be_asked(url: str) -> None:
    assert checked_url(url, "url") == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://example.org/fhir", "plain http to example.org"),
        ("http://127.0.0.1.example.org/fhir", "plain http"),
        ("http://0.0.0.0/fhir", "plain http"),
        ("https://user:hunter2@example.org/fhir", "must not hold a user or a password"),
        ("https://example.org/fhir?key=hunter2", "without \\? and #"),
        ("ftp://example.org/fhir", "must be an http"),
        ("example.org/fhir", "must be an http"),
        ("https://example.org:port/fhir", "must be an http"),
        ("https://", "must be an http"),
    ],
)
def test_other_places_are_refused_without_a_secret_in_the_message(url: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        ServerSettings(url=url)
    assert "hunter2" not in str(caught.value)


def test_plain_http_needs_a_word() -> None:
    assert ServerSettings(url="http://example.org/fhir", allow_http=True).base() == "http://example.org/fhir"


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/fhir/next?page=2", "https://example.org/fhir/next?page=2"),
        ("?page=2", "https://example.org/fhir/Patient?page=2"),
        ("https://example.org:443/fhir/x", "https://example.org:443/fhir/x"),
    ],
)
def test_links_on_the_same_host_are_followed(link: str, target: str) -> None:
    assert followed(link, "https://example.org/fhir/Patient?page=1", "next page") == target


@pytest.mark.parametrize(
    "link", ["https://evil.example/fhir", "http://example.org/fhir", "https://example.org:8443/x", "//evil.example/x"]
)
def test_links_to_another_place_are_not(link: str) -> None:
    with pytest.raises(NetworkError, match="leads to another place"):
        followed(link, "https://example.org/fhir", "next page")


def test_settings_name_their_group() -> None:
    with pytest.raises(ConfigError, match=r"^server: max_entries must be more than 0"):
        settings(ServerSettings, {"max_entries": 0}, "server")
    with pytest.raises(ConfigError, match=r"^server\.auth: kind=bearer needs token_env"):
        settings(ServerSettings, {"auth": {"kind": "bearer"}}, "server")
    with pytest.raises(ConfigError, match=r"^server\.write must be one of put, if_none_exist"):
        settings(ServerSettings, {"write": "post"}, "server")


def test_settings_that_contradict_themselves() -> None:
    with pytest.raises(ConfigError, match="one of them"):
        AuthSettings(kind="bearer")
    with pytest.raises(ConfigError, match="needs client_id"):
        AuthSettings(kind="backend_services")
    with pytest.raises(ConfigError, match="go together"):
        ServerSource(level="group")
    with pytest.raises(ConfigError, match="types must be resource types"):
        ServerSource(types=("Patient/../x",))
    with pytest.raises(ConfigError, match="gzip=true is for dialect=hapi alone"):
        BulkSettings(dialect="azure", gzip=True)
    with pytest.raises(ConfigError, match=r"url=\.\.\. is required"):
        ServerSettings().base()


def test_conditional_entries_have_their_own_limit() -> None:
    chosen = {"max_entries": 50, "max_conditional_entries": 8}
    assert ServerSettings(**chosen).entries == 50
    assert ServerSettings(write="if_none_exist", **chosen).entries == 8
