"""Which URLs may be asked for pictures: public ones alone, looked up once and then held to.

A server that fetches what people name could be sent to its own neighbours. So a name is looked up here, every address
it has must be public, and the connection is made to such an address and not to the name again: a second look-up could
answer otherwise (DNS rebinding).
"""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from django.conf import settings

from annotator.importing.pictures import UnusableFileError

DEFAULT_PORTS = {"http": 80, "https": 443}
PORTS = frozenset({80, 443, 8000, 8080, 8443})
LONGEST_URL = 4000
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# IANA's special registries, as far as a Python of some version takes their addresses for public; and the address at
# which Azure's machines ask their host for settings and certificates, which looks like any public one.
SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
]
SAFE = "/%:@!$&'()*+,;=~-._?"

NOT_A_URL = "not a URL that begins with http:// or https://"
WITH_PERSON = "the URL holds a user name or password, which would be stored: leave it out"
OTHER_PORT = "a port that is not one of the web's (80, 443, 8000, 8080, 8443)"
NOT_PUBLIC = "its server has no public address: only pictures on the internet are fetched"
UNKNOWN_NAME = "no server of this name is known"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Target:
    """A URL taken apart, with the checked addresses of its server."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]


def find_target(url: str) -> Target:
    """Take a URL apart and look its server up, once. Raises UnusableFileError when it may not be asked."""
    parts, port = split(url)
    host = in_ascii(parts.hostname or "")
    found = look_up(host, port)
    permitted = [address for address in found if is_allowed(address, port)]
    if len(permitted) < len(found):
        raise UnusableFileError(NOT_PUBLIC)
    if port not in PORTS and not all(named(address, port) in settings.URL_IMPORT_ALLOWED for address in found):
        raise UnusableFileError(OTHER_PORT)
    path = quote(parts.path or "/", safe=SAFE) + (f"?{quote(parts.query, safe=SAFE)}" if parts.query else "")
    return Target(parts.scheme.lower(), host, port, path, tuple(str(address) for address in found))


def split(url: str) -> tuple[SplitResult, int]:
    """Return a URL's parts and its port. Raises UnusableFileError."""
    if len(url) > LONGEST_URL or not url.isprintable():
        raise UnusableFileError(NOT_A_URL)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnusableFileError(NOT_A_URL) from None
    if parts.scheme.lower() not in DEFAULT_PORTS or not parts.hostname:
        raise UnusableFileError(NOT_A_URL)
    if parts.username is not None or parts.password is not None:
        raise UnusableFileError(WITH_PERSON)
    return parts, DEFAULT_PORTS[parts.scheme.lower()] if port is None else port


def in_ascii(host: str) -> str:
    """Return a host's name as look-ups spell it. Raises UnusableFileError."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise UnusableFileError(NOT_A_URL) from None


def look_up(host: str, port: int) -> list[Address]:
    """Return every address of a host, asked for once. Raises UnusableFileError."""
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        found = [ipaddress.ip_address(str(row[4][0])) for row in rows]
    except (OSError, UnicodeError, ValueError):
        raise UnusableFileError(UNKNOWN_NAME) from None
    if not found:
        raise UnusableFileError(UNKNOWN_NAME)
    return list(dict.fromkeys(found))


def named(address: Address, port: int) -> str:
    """Return an address and port as the setting writes them."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def is_allowed(address: Address, port: int) -> bool:
    return named(address, port) in settings.URL_IMPORT_ALLOWED or is_public(address)


def is_public(address: Address) -> bool:
    """Say whether an address is one of the internet's, also where an IPv4 address hides in it."""
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if hidden is None and address in NAT64:
            hidden = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if hidden is not None:
            return is_public(hidden)
    if any(address in network for network in SPECIAL):
        return False
    refused = address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified
    return address.is_global and not (refused or address.is_reserved)
