"""Who somebody is by their server's word: over real TLS and HTTP, with servers that lie, lead astray or say nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import web

from bridge.demo.federation import Authority, make_authority
from bridge.errors import BadInput, BadToken, Unavailable
from bridge.identity.openid import USERINFO, OpenId, OpenIdToken
from bridge.identity.safe_http import MAX_BODY, RefusedAddress, SafeHttp
from tests.helpers.ports import free_port

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1")]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@dataclass
class Server:
    """A homeserver that answers as ``says``; ``asked`` keeps the tokens and Host headers."""

    port: int
    trust: ssl.SSLContext
    says: Handler
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"localhost:{self.port}"

    def openid(self, **more: object) -> OpenId:
        return OpenId("own.test", "http://127.0.0.1:1", LOOPBACK, self.trust, **more)  # type: ignore[arg-type]

    def token(self, text: str = "t0ken", server: str = "") -> OpenIdToken:
        return OpenIdToken(text, server or self.name)


@asynccontextmanager
async def serving(authority: Authority, path: str, says: Handler) -> AsyncIterator[Server]:
    port = free_port()
    made = authority.settings(port, ())
    server = Server(port, ssl.create_default_context(cafile=made.ca), says)

    async def answer(request: web.Request) -> web.StreamResponse:
        server.asked.append((request.query.get("access_token", ""), request.headers["Host"]))
        return await server.says(request)

    app = web.Application()
    app.router.add_get(path, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    try:
        yield server
    finally:
        await runner.cleanup()


def speaks_for(user: str) -> Handler:
    async def says(_: web.Request) -> web.Response:
        return web.json_response({"sub": user})

    return says


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[Server]:
    async with serving(authority, USERINFO, speaks_for("")) as made:
        made.says = speaks_for(f"@ava:{made.name}")
        yield made


async def test_the_users_own_server_says_who_it_is(server: Server) -> None:
    openid = server.openid()
    assert await openid.user_of(server.token()) == f"@ava:{server.name}"
    assert server.asked == [("t0ken", server.name)]
    await openid.close()
    await openid.close()


async def test_a_token_is_taken_once(server: Server) -> None:
    now = [0.0]
    openid = server.openid(now=lambda: now[0])
    await openid.user_of(server.token())
    with pytest.raises(BadToken, match="used before"):
        await openid.user_of(server.token())
    assert len(server.asked) == 1, "a replay is not even asked about"
    await openid.user_of(server.token("another"))
    now[0] = 7201.0  # by then no homeserver knows the token any more
    await openid.user_of(server.token())
    await openid.close()


async def test_a_token_is_taken_once_over_restarts(server: Server) -> None:
    kept: set[str] = set()

    async def remember(mark: str) -> bool:
        new = mark not in kept
        kept.add(mark)
        return new

    for run in range(2):
        openid = server.openid(remember=remember)
        if run == 0:
            await openid.user_of(server.token())
        for _ in range(2):
            with pytest.raises(BadToken, match="used before"):
                await openid.user_of(server.token())
        await openid.close()
    assert "t0ken" not in str(kept)


async def test_two_at_once_with_one_token_are_one(server: Server) -> None:
    openid = server.openid()
    both = await asyncio.gather(*(openid.user_of(server.token()) for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in both) == ["BadToken", "str"]
    await openid.close()


async def test_a_server_speaks_for_its_own_users_alone(server: Server) -> None:
    openid = server.openid()
    for user in ("@ava:elsewhere.test", "@ava:localhost", f"@ava:x.{server.name}"):
        server.says = speaks_for(user)
        with pytest.raises(BadToken, match="its own users alone"):
            await openid.user_of(server.token(user))
    server.says = speaks_for("ava")
    with pytest.raises(BadInput, match="sub"):
        await openid.user_of(server.token("z"))
    await openid.close()


async def test_what_a_server_does_not_know_is_refused(server: Server) -> None:
    async def unknown(_: web.Request) -> web.Response:
        return web.json_response({"errcode": "M_UNKNOWN_TOKEN"}, status=401)

    async def not_json(_: web.Request) -> web.Response:
        return web.Response(text="<html>")

    openid = server.openid()
    for number, says in enumerate((unknown, not_json)):
        server.says = says
        with pytest.raises(BadToken, match="does not know"):
            await openid.user_of(server.token(str(number)))
    await openid.close()


async def test_long_answers_redirects_and_silence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def long(_: web.Request) -> web.Response:
        return web.Response(body=b"{" + b" " * MAX_BODY + b"}")

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound(f"https://{server.name}{USERINFO}")

    async def silence(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("bridge.identity.safe_http.LIMIT_S", 0.3)
    openid = server.openid()
    for says, why in ((long, "more than"), (elsewhere, "elsewhere"), (silence, "did not answer")):
        server.says = says
        with pytest.raises(Unavailable, match=why):
            await openid.user_of(server.token())
    server.says = speaks_for(f"@ava:{server.name}")
    monkeypatch.undo()
    assert await openid.user_of(server.token()), "a token that was not answered may come again"
    await openid.close()


async def test_an_unknown_certificate_is_refused(server: Server) -> None:
    openid = OpenId("own.test", "http://127.0.0.1:1", LOOPBACK)
    with pytest.raises(Unavailable, match="certificate"):
        await openid.user_of(server.token())
    assert not server.asked
    await openid.close()


async def test_private_addresses_are_not_asked(server: Server) -> None:
    """By name, as a literal, and in every form in which an IPv6 address stands for an IPv4 one."""
    openid = OpenId("own.test", "http://127.0.0.1:1", (), server.trust)
    for number, host in enumerate(("localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]")):
        with pytest.raises(Unavailable, match="public internet"):
            await openid.user_of(server.token(str(number), f"{host}:{server.port}"))
    assert not server.asked
    await openid.close()


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "127.0.0.1",
     "255.255.255.255", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "2002:0a00:0001::1", "::1",
     "64:ff9b::7f00:1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"],
)  # fmt: skip
def test_refused_addresses(address: str) -> None:
    with pytest.raises(RefusedAddress):
        SafeHttp().check(address)


def test_public_and_allowed_addresses() -> None:
    SafeHttp().check("8.8.8.8")
    SafeHttp().check("2606:4700:4700::1111")
    SafeHttp([ip_network("10.0.0.0/8")]).check("10.1.2.3")
    with pytest.raises(RefusedAddress):
        SafeHttp([ip_network("10.0.0.0/8")]).check("192.168.0.1")


async def test_delegation_by_well_known(authority: Authority, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """``localhost`` without a port: its .well-known names the server; the token's name stays ``localhost``."""

    async def names(_: web.Request) -> web.Response:
        return web.json_response({"m.server": server.name})

    async with serving(authority, "/.well-known/matrix/server", names) as delegates:
        openid = server.openid()
        await redirect_443(monkeypatch, openid, delegates.port)
        server.says = speaks_for("@ava:localhost")
        assert await openid.user_of(server.token("a", "localhost")) == "@ava:localhost"
        assert server.asked == [("a", server.name)]

        async def to_the_inside(_: web.Request) -> web.Response:
            return web.json_response({"m.server": "169.254.169.254"})

        delegates.says = to_the_inside
        with pytest.raises(Unavailable, match="public internet"):
            await openid.user_of(server.token("b", "localhost"))
        await openid.close()


async def redirect_443(monkeypatch: pytest.MonkeyPatch, openid: OpenId, port: int) -> None:
    """Port 443 is not ours to listen on here."""
    get = openid._safe.get

    async def moved(url, **more):  # type: ignore[no-untyped-def]
        return await get(url.with_port(port) if url.port == 443 else url, **more)

    monkeypatch.setattr(openid._safe, "get", moved)


async def test_our_own_server_is_asked_where_the_configuration_says(tmp_path: Path) -> None:
    async def says(request: web.Request) -> web.Response:
        return web.json_response({"sub": "@ben:own.test"})

    app = web.Application()
    app.router.add_get(USERINFO, says)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    openid = OpenId("own.test", f"http://127.0.0.1:{port}")
    assert await openid.user_of(OpenIdToken("t", "own.test")) == "@ben:own.test"
    await runner.cleanup()
    with pytest.raises(Unavailable, match="our homeserver"):
        await openid.user_of(OpenIdToken("u", "own.test"))
    await openid.close()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (None, "openid_token"),
        ("x", "openid_token"),
        ({"access_token": 3, "matrix_server_name": "a.org"}, "access_token"),
        ({"access_token": "a b", "matrix_server_name": "a.org"}, "access_token"),
        ({"access_token": "x" * 3000, "matrix_server_name": "a.org"}, "access_token"),
        ({"access_token": "x", "matrix_server_name": "a.org/../x"}, "matrix_server_name"),
        ({"access_token": "x", "matrix_server_name": "a.org@b.org"}, "matrix_server_name"),
        ({"access_token": "x"}, "matrix_server_name"),
    ],
)
def test_bad_tokens_are_named(body: object, field: str) -> None:
    with pytest.raises(BadInput, match=field):
        OpenIdToken.parse(body)
