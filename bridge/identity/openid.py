"""Who somebody is, by their own homeserver's word: OpenID tokens (client-server API "OpenID", MSC1960).

A client asks its homeserver for a token and hands it to us; we ask that homeserver whose it is. Such a token names no
audience: whoever was given it could hand it on. So each is taken once, and it opens nothing but listening and raising
a hand; speaking is decided by the state of the room.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import dns.asyncresolver
import dns.exception
from dns.rdtypes.IN.SRV import SRV
from yarl import URL

from bridge.errors import BadInput, BadToken, Full, Unavailable
from bridge.identity.safe_http import LIMIT_S, MAX_BODY, Network, SafeHttp
from bridge.ids import UserId, parse_user, server_of

USERINFO = "/_matrix/federation/v1/openid/userinfo"
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,230})(:(?P<port>[0-9]{1,5}))?\Z")
_FEDERATION_PORT = 8448
KEPT_S = 7200.0  # Synapse's tokens are good for an hour
_KEPT = 100_000  # hashes of tokens; where so many came within KEPT_S, further ones are refused
_SRV_S = 2.0
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class OpenIdToken:
    """What a client hands over. ``server``: its homeserver's name."""

    access_token: str
    server: str

    @classmethod
    def parse(cls, body: object) -> OpenIdToken:
        """``{access_token, matrix_server_name, …}``. Raises BadInput."""
        if not isinstance(body, Mapping):
            raise BadInput("openid_token", type(body).__name__, "send the object that your homeserver gave you")
        token, server = body.get("access_token"), body.get("matrix_server_name")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,2048}", token):
            raise BadInput("openid_token.access_token", "(hidden)", "send the token that your homeserver gave you")
        if not isinstance(server, str) or not _SERVER.match(server):
            raise BadInput("openid_token.matrix_server_name", server, "send a server name such as example.org")
        return cls(token, server)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a server name leads: connect to ``host`` and ``port``, as ``header``, with a certificate for ``name``."""

    host: str
    port: int
    header: str
    name: str


class OpenId:
    """Asks homeservers whose tokens these are. ``close`` is harmless twice. Bounds: 50 questions to others'
    servers at once, 100,000 hashes in memory."""

    def __init__(
        self,
        own_server: str,
        own_address: str,
        allowed: Iterable[Network] = (),
        trust: ssl.SSLContext | None = None,
        now: Callable[[], float] | None = None,
        remember: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """``own_address``: URL at which our own homeserver is asked, which may be private. ``now``: seconds.
        ``remember``: keeps a token's hash for KEPT_S over restarts; False where it is kept already. None: it goes with
        the process."""
        self._remember = remember
        self._own_server, self._own_address = own_server, own_address
        self._safe = SafeHttp(allowed, trust)
        self._own: aiohttp.ClientSession | None = None
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._taken: OrderedDict[bytes, float] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.close()
        await self._safe.close()

    async def user_of(self, token: OpenIdToken) -> UserId:
        """Whose token it is. A token is taken once, by whatever way it comes: one that Element Call handed to us and to
        others opens no page.

        Raises BadToken (not theirs, or taken before), Unavailable (their server cannot be asked), Full."""
        mark = hashlib.sha256(f"{token.server}\0{token.access_token}".encode()).digest()
        self._take(mark)
        try:
            async with asyncio.timeout(LIMIT_S):
                status, body = await self._ask(token)
            user = _subject(token, status, body)
            if self._remember is not None and not await self._remember(mark.hex()):
                raise _used()
        except (BadToken, BadInput):
            raise
        except BaseException as error:  # it was not answered: the same token may come again
            self._taken.pop(mark, None)
            if isinstance(error, TimeoutError):
                raise Unavailable(f"{token.server} did not answer within {LIMIT_S:g} s") from None
            raise
        return user

    def _take(self, mark: bytes) -> None:
        now = self._now()
        while self._taken and next(iter(self._taken.values())) < now - KEPT_S:
            self._taken.popitem(last=False)
        if mark in self._taken:
            raise _used()
        if len(self._taken) >= _KEPT:
            raise Full("too many sign-ins; try again later", 60_000)
        self._taken[mark] = now

    async def _ask(self, token: OpenIdToken) -> tuple[int, Any]:
        query = {"access_token": token.access_token}
        if token.server == self._own_server:
            return await self._ask_own(URL(self._own_address + USERINFO).update_query(query))
        async with self._slots:  # others' servers may be slow on purpose; our own users never wait for them
            target = await self._resolve(token.server)
            url = URL.build(scheme="https", host=target.host, port=target.port, path=USERINFO, query=query)
            answer = await self._safe.get(url, host=target.header, certificate=target.name)
        return answer.status, answer.body

    async def _ask_own(self, url: URL) -> tuple[int, Any]:
        if self._own is None:
            self._own = aiohttp.ClientSession()
        try:
            async with self._own.get(url, allow_redirects=False) as response:
                if int(response.headers.get("Content-Length", 0)) > MAX_BODY:
                    raise Unavailable("our homeserver's answer is too long")
                body = await response.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"our homeserver cannot be asked: {error}") from error
        if response.status == 404:
            raise Unavailable(
                f"{self._own_address} does not serve OpenID; add the resource openid (or federation) to that listener"
            )
        return response.status, body

    # -- server-server API v1.15, "Resolving server names" ------------------------------------------

    async def _resolve(self, server: str) -> _Target:
        host, port = _split(server)
        if port is not None or _is_literal(host):
            return _Target(_bare(host), port or _FEDERATION_PORT, server, _bare(host))
        delegated = await self._well_known(host)
        if delegated is not None:
            server, (host, port) = delegated, _split(delegated)
            if port is not None or _is_literal(host):
                return _Target(_bare(host), port or _FEDERATION_PORT, server, _bare(host))
        for service in ("_matrix-fed", "_matrix"):
            found = await _service(f"{service}._tcp.{host}")
            if found is not None:
                return _Target(*found, host, host)
        return _Target(host, _FEDERATION_PORT, server, host)

    async def _well_known(self, host: str) -> str | None:
        """The delegated server name; whatever is wrong with the file means that there is none."""
        try:
            answer = await self._safe.get(
                URL.build(scheme="https", host=host, path="/.well-known/matrix/server"), follow=True
            )
        except Unavailable:
            return None
        server = answer.body.get("m.server") if answer.status == 200 and isinstance(answer.body, dict) else None
        return server if isinstance(server, str) and _SERVER.match(server) else None


async def _service(name: str) -> tuple[str, int] | None:
    """(host, port) of an SRV record: of the lowest priority one by weight (RFC 2782)."""
    try:
        answer = await dns.asyncresolver.resolve(name, "SRV", lifetime=_SRV_S)
    except (dns.exception.DNSException, OSError):
        return None
    records = [each for each in answer if isinstance(each, SRV)]
    if not records:
        return None
    first = min(each.priority for each in records)
    best = [each for each in records if each.priority == first]
    chosen = secrets.SystemRandom().choices(best, [each.weight + 1 for each in best])[0]
    return chosen.target.to_text(omit_final_dot=True), chosen.port


def _used() -> BadToken:
    return BadToken("used", "this OpenID token was used before; get a fresh one from your homeserver")


def _subject(token: OpenIdToken, status: int, body: Any) -> UserId:
    if status != 200 or not isinstance(body, dict):
        raise BadToken("unknown", f"{token.server} does not know this OpenID token")
    user = parse_user(body.get("sub"), "sub")
    if server_of(user) != token.server:
        raise BadToken("unknown", f"{token.server} speaks for its own users alone, not for {server_of(user)}")
    return user


def _split(server: str) -> tuple[str, int | None]:
    parts = _SERVER.match(server)
    assert parts is not None  # parsed before
    port = parts["port"]
    return parts["host"], int(port) if port and 0 < int(port) < 65536 else None


def _bare(host: str) -> str:
    return host.strip("[]")


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(_bare(host))
    except ValueError:
        return False
    return True
