"""By which names, and from whose pages, a server is asked."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import pytest

from davy.auth.origin import Origins, is_loopback, network_of, plain_address
from davy.errors import Forbidden


@dataclass
class Scope:
    headers: dict[str, str] = field(default_factory=dict)
    authority: str | None = None


def passes(origins: Origins, host: str, origin: str | None = None) -> bool:
    try:
        origins.check(Scope({"host": host} | ({} if origin is None else {"origin": origin})))
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.8.9.1", "::1"])
def test_loopback_goes_by_all_its_names(host: str) -> None:
    assert passes(Origins(), host)


@pytest.mark.parametrize("host", ["", "evil.example.com", "localhost.evil.example.com", "127.0.0.1.evil.example.com", "10.0.0.5", "[::2]", "0.0.0.0", "[", "@",
                                  "127.0.0.1@evil.example.com", "evil.example.com:127.0.0.1"])
def test_another_name_for_this_machine_is_refused(host: str) -> None:
    assert not passes(Origins(), host)


def test_a_configured_name_passes_and_its_neighbours_do_not() -> None:
    origins = Origins("127.0.0.1", ["Davy.example.com", "other.example.com:8443"])
    assert passes(origins, "davy.example.com")
    assert passes(origins, "davy.example.com:443", "https://davy.example.com:443")
    assert passes(origins, "other.example.com:8443")
    assert not passes(origins, "example.com")
    assert not passes(origins, "a.davy.example.com")


def test_a_server_on_all_addresses_takes_any_address_and_of_names_its_own() -> None:
    for bound in ("0.0.0.0", "::"):
        origins = Origins(bound)
        assert all(passes(origins, host) for host in ("10.0.0.5:8080", "[fd00::1]:8080", "127.0.0.1", "localhost", socket.gethostname()))
        assert not passes(origins, "evil.example.com")


def test_a_server_on_one_address_takes_that_one() -> None:
    origins = Origins("10.0.0.5")
    assert passes(origins, "10.0.0.5:8080")
    assert not passes(origins, "10.0.0.6:8080")


@pytest.mark.parametrize(("origin", "good"), [
    (None, True), ("http://127.0.0.1:8080", True), ("http://127.0.0.1:8081", False), ("http://localhost:8080", False), ("null", False), ("", False),
    ("https://evil.example.com", False), ("http://127.0.0.1:8080.evil.example.com", False), ("http://[", False), ("127.0.0.1:8080", False),
])
def test_only_its_own_pages_may_send(origin: str | None, good: bool) -> None:
    assert passes(Origins(), "127.0.0.1:8080", origin) is good


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.1.2.3", True), ("0.0.0.0", False), ("::", False),
                                             ("10.0.0.1", False), ("example.com", False), ("", False)])
def test_what_only_this_machine_reaches(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize(("text", "plain", "network"), [
    ("192.0.2.7", "192.0.2.7", "192.0.2.7"), ("192.0.2.7:5123", "192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
    ("[::ffff:192.0.2.7]:5123", "192.0.2.7", "192.0.2.7"), ("2001:DB8:0:0::1", "2001:db8::1", "2001:db8::/64"),
    ("[2001:db8::2]:1", "2001:db8::2", "2001:db8::/64"),
    ("unknown", "unknown", "unknown"), ("", "", ""),
])
def test_an_address_has_one_spelling_and_one_network(text: str, plain: str, network: str) -> None:
    assert (plain_address(text), network_of(plain_address(text))) == (plain, network)
    assert network_of("::ffff:192.0.2.7") != network_of("::ffff:198.51.100.1")
