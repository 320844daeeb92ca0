"""How often somebody may do what costs the server much, or guess: counted in the web process, told in words.

Labelling is not among it: no person answers as fast as the one limit that is left for scripts.
"""

import ipaddress
import time
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

MINUTE, HOUR = 60, 3600
IPV6_NETWORK = 64  # whoever has one IPv6 address has all of its network


@dataclass(frozen=True)
class Limit:
    """At most `count` within `seconds` of the first; `words` say what there was too much of."""

    name: str
    count: int
    seconds: int
    words: str

    def take(self, who: str) -> int:
        """Count one more and return 0, or, where there is none left, the seconds until there is."""
        key = self._key(who)
        if cache.add(key, 0, timeout=self.seconds):
            cache.set(f"{key}:end", time.time() + self.seconds, timeout=self.seconds)
        try:
            used = cache.incr(key)
        except ValueError:  # its time ended between the two
            return 0
        return 0 if used <= self.count else self._rest(key)

    def wait(self, who: str) -> int:
        """Return the seconds until there is one left, 0 where there is; nothing is counted."""
        key = self._key(who)
        return 0 if cache.get(key, 0) < self.count else self._rest(key)

    def _key(self, who: str) -> str:
        return f"limit:{self.name}:{who}"

    def _rest(self, key: str) -> int:
        # Between 1 and all of it, whatever the clock did meanwhile.
        left = cache.get(f"{key}:end", 0.0) - time.time()
        return max(1, min(int(left) + 1, self.seconds))


SIGN_INS = Limit("sign-ins", 30, 15 * MINUTE, "Too many sign-ins from your address have failed.")
UPLOADS = Limit("uploads", 120, 10 * MINUTE, "You have sent very many uploads. Put more pictures into each zip.")
PROJECTS = Limit("projects", 60, HOUR, "You have made very many projects.")
TOKENS = Limit("tokens", 30, HOUR, "You have made very many tokens.")
ACCOUNTS = Limit("accounts", 300, HOUR, "You have made very many accounts or links.")
# A hundred a second and person: for scripts that have run wild.
REQUESTS = Limit("requests", 6000, MINUTE, "You have sent more than 6,000 requests within a minute.")
FAILURES = Limit("failures", 60, MINUTE, "Too many requests without a valid token have come from your address.")


def client_address(request: HttpRequest) -> str:
    """Return the address that a request came from: what the outermost of our own proxies saw, if there are any.

    What a client says of itself in X-Forwarded-For stands further left and is never believed.
    """
    seen = str(request.META.get("REMOTE_ADDR", ""))
    named = [part.strip() for part in str(request.META.get("HTTP_X_FORWARDED_FOR", "")).split(",")]
    if settings.PROXIES and len(named) >= settings.PROXIES:
        try:
            return str(ipaddress.ip_address(named[-settings.PROXIES].strip("[]")))
        except ValueError:
            return seen
    return seen


def client_network(request: HttpRequest) -> str:
    """Return who is counted for an address: for IPv6 its whole network."""
    address = client_address(request)
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_NETWORK), strict=False))


def nameless(*_who: object) -> str:
    """Return what a log says of whoever failed to sign in: neither the name they tried nor their address."""
    return "somebody"


def in_words(seconds: int) -> str:
    """Return a time to wait as people say it."""
    if seconds < 2 * MINUTE:
        return "in a minute" if seconds > 30 else "in a moment"
    return f"in {seconds // MINUTE + 1} minutes"
