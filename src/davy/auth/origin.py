"""Under which names a server is asked, and from whose pages: what another site's page, or another site's name for this machine, sends is refused."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from davy.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))


class Origins:
    """The names that this server answers to.

    A name that somebody else owns could be pointed at this machine (DNS rebinding), an address could not: so a server that is bound to
    all addresses takes any address, and of names only those it knows.

    Args:
        bound: the address that it listens on.
        hosts: further names, with or without a port.
    """

    def __init__(self, bound: str = "127.0.0.1", hosts: Iterable[str] = ()) -> None:
        address = _address(bound)
        self._any = address is not None and address.is_unspecified
        self._names = LOOPBACK | {bound.lower()} | {_hostname(host) for host in hosts}
        if not is_loopback(bound):
            self._names |= {socket.gethostname().lower()}

    def check(self, scope: Any) -> None:
        """Let it pass.

        Raises:
            Forbidden: another name, or another site's page.
        """
        host = scope.headers.get("host") or scope.authority or ""
        if not self._is_here(_hostname(host)):
            raise Forbidden(f"The request is addressed to {host!r}.", f"This server answers as {', '.join(sorted(self._names))}.",
                            "Use the address that davy up printed, or add the name to server.hosts in davy.toml.")
        origin = scope.headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            raise Forbidden(f"The request comes from a page of {origin}.", "Only this server's own pages may send requests.", "Send it from a program instead.")

    def _is_here(self, name: str) -> bool:
        if name in self._names:
            return True
        address = _address(name)
        return address is not None and (self._any or address.is_loopback)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches this address."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def plain_address(text: str) -> str:
    """An address in its one spelling, without a port; one of IPv4 as such, also where it came through a socket of IPv6.

    >>> plain_address("::ffff:192.0.2.7"), plain_address("192.0.2.7:5123"), plain_address("[2001:DB8::1]:443")
    ('192.0.2.7', '192.0.2.7', '2001:db8::1')
    """
    found = _address(text) or _address(_hostname(text))
    return text if found is None else str(found)


def network_of(address: str) -> str:
    """What one client can choose its addresses from freely: of IPv6 the first 64 bits."""
    found = _address(address)
    return str(ipaddress.ip_network((found, 64), strict=False)) if found is not None and found.version == 6 else address


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.lower() if host.count(":") > 1 else host.partition(":")[0].lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if found.version == 6 else found
