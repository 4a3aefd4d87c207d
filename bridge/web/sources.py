"""Where requests come from, and how much one source or person may have of us. All tables are bounded."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from aiohttp import web

from bridge.errors import Full
from bridge.ids import UserId

_SOURCES = 10_000  # the least recent is forgotten


class Sources:
    """Source addresses, and a token bucket for each: ``a_minute`` requests."""

    def __init__(self, trusted_proxies: Sequence[str], a_minute: int) -> None:
        self._a_minute = float(a_minute)
        self._proxies = [ipaddress.ip_network(each, strict=False) for each in trusted_proxies]
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def of(self, request: web.Request) -> str:
        """The address the request came from; a proxy's word counts only from a trusted proxy."""
        source = request.remote or ""
        forwarded = [each.strip() for each in request.headers.get("X-Forwarded-For", "").split(",") if each.strip()]
        while forwarded and self._is_proxy(source):
            source = forwarded.pop()
        return source[:64]

    def _is_proxy(self, source: str) -> bool:
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def take(self, source: str, now: float) -> None:
        """Count one request of somebody unknown. Raises Full."""
        tokens, at = self._buckets.pop(source, (self._a_minute, now))
        tokens = min(self._a_minute, tokens + (now - at) * self._a_minute / 60)
        self._buckets[source] = (max(0.0, tokens - 1), now)
        if len(self._buckets) > _SOURCES:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise Full("too many sign-ins from this address; wait a moment", 5_000)


class Places:
    """So many at a time: in all, of one person, of one source where the person is not known."""

    def __init__(self, what: str, total: int, per_user: int, per_source: int) -> None:
        self._what, self._total, self._per_user, self._per_source = what, total, per_user, per_source
        self._taken: Counter[str] = Counter()
        self._count = 0

    def take(self, user: UserId | None, source: str) -> Callable[[], None]:
        """A place; the answer gives it back, and is harmless twice. Raises Full."""
        key, limit = (user, self._per_user) if user is not None else (f"from {source}", self._per_source)
        if self._count >= self._total:
            raise Full(f"this server gives {self._total} {self._what} at once", 10_000)
        if self._taken[key] >= limit:
            whose = "you" if user is not None else "this address"
            raise Full(f"{whose} can have {limit} {self._what} at once; close another", 5_000)
        self._taken[key] += 1
        self._count += 1
        held = [key]

        def give_back() -> None:
            if held:
                self._count -= 1
                self._taken[key] -= 1
                if not self._taken[key]:
                    del self._taken[key]
                held.clear()

        return give_back
