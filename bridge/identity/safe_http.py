"""Outbound HTTP to servers that others name: resolution, refusal of private addresses, limits of time and size.

A person tells us which homeserver is theirs, so the address is an outsider's choice: it must not lead into the
operator's own network. An address is looked at where the connection is made, after every resolution and redirect,
so that a name cannot point elsewhere the second time it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bridge.errors import Unavailable

LIMIT_S = 5.0
MAX_BODY = 16 * 1024  # bytes
_REDIRECTS = 3
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052 §2.1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedAddress(OSError):
    """The name leads to an address that is not of the public internet."""


@dataclass(frozen=True, slots=True)
class Response:
    """``body``: JSON, None where it is none."""

    status: int
    body: Any


class SafeHttp:
    """HTTPS requests to servers that others name. ``close`` is harmless twice.

    ``allowed``: networks that are asked although they are private. ``trust``: whose certificates are good; None is
    the system's list."""

    def __init__(self, allowed: Iterable[Network] = (), trust: ssl.SSLContext | None = None) -> None:
        self._allowed = tuple(allowed)
        self._trust: ssl.SSLContext | bool = trust or True
        self._http: aiohttp.ClientSession | None = None

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(
                resolver=_Resolver(self), use_dns_cache=False, limit=50, force_close=True, ssl=self._trust
            )
            self._http = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._http

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def check(self, address: str) -> None:
        """Raises RefusedAddress unless ``address`` is public or allowed."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        for each in (ip, *_inside(ip)):
            if any(each in network for network in self._allowed):
                continue
            if not each.is_global or each.is_multicast or each.is_reserved:
                raise RefusedAddress(errno.EACCES, f"{address} is not an address of the public internet")

    async def get(self, url: URL, *, host: str = "", certificate: str | None = None, follow: bool = False) -> Response:
        """GET ``url`` (https). ``host``: the Host header; ``certificate``: the name it must be for, where these are not
        the URL's. ``follow``: up to 3 redirects. Raises Unavailable: refused address, no answer in 5 s, over 16 KiB."""
        async with _limited(url):
            for _ in range(_REDIRECTS + 1):
                answer = await self._once("GET", url, host, certificate)
                if not follow or isinstance(answer, Response):
                    break
                url, host, certificate = answer, "", None
        return _final(url, answer)

    async def post(self, url: URL, body: Any) -> Response:
        """POST JSON to ``url`` (https). Raises as `get`."""
        async with _limited(url):
            answer = await self._once("POST", url, "", None, json.dumps(body).encode())
        return _final(url, answer)

    async def socket(self, url: URL, max_message: int) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to ``url`` (wss), open. The caller closes it. Raises as `get`."""
        async with _limited(url):
            self._checked(url, "wss")
            return await self._session().ws_connect(url, max_msg_size=max_message, heartbeat=20)

    def _checked(self, url: URL, scheme: str) -> None:
        if url.scheme != scheme or not url.host:
            raise ValueError(f"only {scheme} is asked")
        if _is_literal(url.host):  # aiohttp resolves no literal, so the resolver below does not see it
            self.check(url.host)

    async def _once(
        self, method: str, url: URL, host: str, certificate: str | None, data: bytes | None = None
    ) -> Response | URL:
        self._checked(url, "https")
        headers = {"Host": host} if host else {}
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self._session().request(
            method, url, headers=headers, data=data, server_hostname=certificate, allow_redirects=False
        ) as response:
            if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                return url.join(URL(response.headers["Location"]))
            body = b""
            async for part in response.content.iter_chunked(4096):
                body += part
                if len(body) > MAX_BODY:
                    raise ValueError(f"the answer has more than {MAX_BODY} bytes")
            return Response(response.status, _json(body))


@contextlib.asynccontextmanager
async def _limited(url: URL) -> AsyncIterator[None]:
    """5 seconds, and one error for all that can go wrong."""
    try:
        async with asyncio.timeout(LIMIT_S):
            yield
    except TimeoutError:
        raise Unavailable(f"{url.host} did not answer within {LIMIT_S:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unavailable(f"{url.host} cannot be asked: {error}") from error


def _final(url: URL, answer: Response | URL) -> Response:
    if not isinstance(answer, Response):
        raise Unavailable(f"{url.host} sends us elsewhere, which is not followed")
    return answer


class _Resolver(AbstractResolver):
    """The system's resolution, without the addresses that are refused."""

    def __init__(self, safe: SafeHttp) -> None:
        self._safe, self._inner = safe, aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        good, refused = [], None
        for found in await self._inner.resolve(host, port, family):
            try:
                self._safe.check(found["host"])
                good.append(found)
            except RefusedAddress as error:
                refused = error
        if not good:
            raise refused or OSError(f"{host} has no address")
        return good

    async def close(self) -> None:
        await self._inner.close()


def _inside(ip: Ip) -> list[Ip]:
    """IPv4 addresses that an IPv6 one stands for: mapped, 6to4, Teredo, NAT64."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found: list[Ip | None] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
