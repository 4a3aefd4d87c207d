"""``eyvan doctor``: what an operator would otherwise find out one failure at a time.

It stands beside ``app.py``, not in one of the packages: like the composition root it needs all of them at once
(configuration, store, homeserver, page, media port), and nobody imports it but ``__main__``. It changes nothing in
the homeserver and leaves one value in a database that is there.

Each check is a function that returns one finding: ✓, ! (works, but look at it) or ✗ with the remedy.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import os
import secrets
import socket
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import aiohttp
import ifaddr
from aiohttp import web

from bridge.config import MediaConfig, load_config
from bridge.doctor_calls import CALL_CHECKS, DEPENDS
from bridge.doctor_widget import check_widget
from bridge.errors import ConfigError, EyvanError, shown
from bridge.findings import Finding, Patient, ask, bad, good, json_of, warn, why
from bridge.store import open_store, sqlite_file

STATIC = Path(__file__).parent / "web" / "static"
_TIMEOUT_S = 15.0
_CLOCK_S = 5.0
_RESTART = "register with the present registration and restart the homeserver"


async def run_doctor(
    config_path: Path | str, env: Mapping[str, str] | None = None, out: TextIO | None = None, static: Path = STATIC
) -> int:
    """Print one line for each check; 0 where none failed, 1 where one did, 2 where the configuration cannot be read."""
    out = out or sys.stdout
    path = Path(config_path)
    try:
        config = load_config(path, os.environ if env is None else env, need_secrets=False)
    except ConfigError as fault:
        out.write(f"{bad('configuration', str(fault))}\n")
        return 2
    findings = [good("configuration", f"{path} can be read")]
    out.write(f"{findings[0]}\n")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as http:
        patient = Patient(path, config, http, static)
        calls = CALL_CHECKS if config.matrixrtc.enabled else (check_calls_off,)
        for check in (*CHECKS, check_widget, *calls):
            findings.append(await check(patient))
            out.write(f"{findings[-1]}\n")
            out.flush()
    return 1 if any(each.mark == "✗" for each in findings) else 0


# -- on this machine ----------------------------------------------------------------------------


async def check_secrets(patient: Patient) -> Finding:
    own, web_ = patient.config.appservice, patient.config.web
    texts = {
        "appservice.as_token": own.as_token,
        "appservice.hs_token": own.hs_token,
        "web.link_secret": web_.link_secret,
    }
    missing = [name for name, text in texts.items() if not text]
    if missing:
        return bad(
            "secrets",
            f"{', '.join(missing)} missing; tokens are made by `eyvan generate-registration`, "
            "web.link_secret by `openssl rand -hex 32`",
        )
    weak = [name for name, text in texts.items() if len(set(text)) < 8]
    if weak:
        return bad("secrets", f"{', '.join(weak)} can be guessed; make another with `openssl rand -hex 32`")
    if patient.path.stat().st_mode & stat.S_IROTH:
        return warn("secrets", f"everybody on this machine can read {patient.path}; run: chmod o-r {patient.path}")
    return good("secrets", "all there")


async def check_database(patient: Patient) -> Finding:
    file = sqlite_file(patient.config.database)
    if file is not None and file.parent.is_dir() and not file.exists():
        # Not made here: whoever runs the doctor may be another user, elsewhere.
        where = file.parent.absolute()
        if not os.access(where, os.W_OK | os.X_OK):
            return bad("database", f"no file can be made in {where}; let the user who runs Eyvan write there")
        return good("database", f"SQLite: {file.name} will be made in {where}")
    finding = await _written(patient)
    open_ = [each for each in _files(file) if each.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)]
    if finding.mark == "✓" and open_:
        names = " ".join(map(str, open_))
        return warn("database", f"others on this machine can read {names}; run: chmod 600 {names}")
    return finding


def _files(file: Path | None) -> list[Path]:
    """SQLite's database with its log and index, as far as they are there."""
    beside = [file.with_name(file.name + end) for end in ("", "-wal", "-shm")] if file else []
    return [each for each in beside if each.exists()]


async def _written(patient: Patient) -> Finding:
    token = secrets.token_hex(8)
    try:
        store = await open_store(patient.config.database)
    except ConfigError as fault:
        return bad("database", str(fault).removeprefix("database: "))
    try:
        await store.set_value("doctor", token)
        found = await store.get_value("doctor")
    except EyvanError as fault:
        return bad("database", f"{fault}; see that it may be written and has room")
    finally:
        await store.close()
    kind = "SQLite" if patient.config.database.startswith("sqlite") else "PostgreSQL"
    if found != token:
        return bad("database", f"{kind} gave back another value than was written; use a database of Eyvan's own")
    return good("database", f"{kind} opened, written and read")


async def check_udp(patient: Patient) -> Finding:
    media = patient.config.media
    where = f"UDP {media.bind} {_ports(media.ports)}"
    taken = _first_taken(media, socket.SOCK_DGRAM)
    if taken is None:
        return good("sound port", f"{where} can be bound; see that the firewall lets it in")
    port, fault = taken
    if fault.errno == errno.EADDRINUSE and patient.running:
        return good("sound port", f"{where} is taken, by the running bridge it seems")
    where = f"UDP {media.bind} port {port}"
    return bad("sound port", f"{where} cannot be bound ({why(fault)}); set media.bind and media.port")


async def check_tcp(patient: Patient) -> Finding:
    media = patient.config.media
    where = f"TCP {media.bind} {_ports(media.ports)}"
    if not media.tcp:
        return warn("sound by TCP", "off: where a network blocks UDP nothing is heard; set media.tcp to true")
    if media.tcp_single_port:
        return _single_port(patient)
    told = media.tcp_announce_port or media.port
    forwarded = f", and port {told} forwarded to it" if told != media.port else ""
    taken = _first_taken(media, socket.SOCK_STREAM)
    if taken is None:
        return good("sound by TCP", f"{where} can be bound; see that the firewall lets it in{forwarded}")
    port, fault = taken
    if fault.errno == errno.EADDRINUSE and patient.running:
        return good("sound by TCP", f"{where} is taken, by the running bridge it seems")
    where = f"TCP {media.bind} port {port}"
    return bad(
        "sound by TCP", f"{where} cannot be bound ({why(fault)}); set media.bind and media.port, or media.tcp: false"
    )


def _single_port(patient: Patient) -> Finding:
    media, web = patient.config.media, patient.config.web
    where = f"TCP {media.bind} port {media.tcp_single_port}, for page and sound,"
    for name in ("tls_certificate", "tls_key"):
        path = Path(getattr(web, name) or os.devnull)
        try:
            path.read_bytes()
        except OSError as fault:
            return bad("sound by TCP", f"{path} cannot be read ({why(fault)}); set web.{name}")
    try:
        _bound(media.bind, media.tcp_single_port, socket.SOCK_STREAM).close()
    except OSError as fault:
        if fault.errno == errno.EADDRINUSE and patient.running:
            return good("sound by TCP", f"{where} is taken, by the running bridge it seems")
        remedy = "below 1024 it needs CAP_NET_BIND_SERVICE (docs/operation.md); no other program may have it"
        return bad("sound by TCP", f"{where} cannot be bound ({why(fault)}); {remedy}")
    return good("sound by TCP", f"{where} can be bound; see that the firewall lets it in")


def _ports(ports: range) -> str:
    return f"port {ports[0]}" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]}, one for each media worker,"


def _first_taken(media: MediaConfig, kind: socket.SocketKind) -> tuple[int, OSError] | None:
    """The first of the workers' ports that cannot be bound, and why."""
    for port in media.ports:
        try:
            _bound(media.bind, port, kind).close()
        except OSError as fault:
            return port, fault
    return None


async def check_announce(patient: Patient) -> Finding:
    media = patient.config.media
    texts = media.announce or tuple(_own_addresses(media.bind))
    if not texts:
        return bad("addresses", "this machine has none but loopback; set media.announce to the one browsers reach")
    addresses = [ipaddress.ip_address(text) for text in texts]
    shown_ = ", ".join(texts)
    unusable = [str(each) for each in addresses if each.is_unspecified or each.is_loopback or each.is_multicast]
    if unusable:
        return bad("addresses", f"no browser elsewhere reaches {', '.join(unusable)}; take it out of media.announce")
    private = [each for each in addresses if each.is_private]
    refused = _refused_by_chromium(media, private)
    if refused is not None:
        return refused
    if len(private) == len(addresses):
        return warn(
            "addresses",
            f"{shown_}: private, so only your own network reaches it; set media.announce to the address from outside",
        )
    return good("addresses", f"browsers are told {shown_}")


def _refused_by_chromium(
    media: MediaConfig, private: list[ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> Finding | None:
    """libwebrtc's VerifyCandidate, which Chromium runs on each candidate: of the ports below 1024 it takes 80 and
    443 alone, and these not at a private address."""
    told = [("media.port", port) for port in media.ports]
    for name in ("tcp_announce_port", "tcp_single_port"):
        if media.tcp and getattr(media, name):
            told.append((f"media.{name}", getattr(media, name)))
    for name, port in told:
        if port in (80, 443) and private:
            text = f"Chromium refuses port {port} at the private address {private[0]}; set {name} above 1023"
            return warn("addresses", text)
        if port < 1024 and port not in (80, 443):
            return warn("addresses", f"Chromium refuses port {port}; set {name} above 1023, or to 443")
    return None


async def check_page(patient: Patient) -> Finding:
    if not (patient.static / "index.html").is_file():
        return bad("page", f"there is no index.html in {patient.static}; build it with `make page`")
    return good("page", "its files are there")


async def check_public_url(patient: Patient) -> Finding:
    url = patient.config.web.public_url
    parts = urlsplit(url)
    local = parts.hostname == "localhost" or (parts.hostname or "").endswith(".localhost")
    with suppress(ValueError):
        local = local or ipaddress.ip_address(parts.hostname or "").is_loopback
    if parts.scheme != "https" and not local:
        return bad("public URL", f"{url}: browsers give no microphone to a page without https; put it behind https")
    if local:
        return warn("public URL", f"{url} opens on this machine alone; set web.public_url to what people open")
    return good("public URL", url)


async def check_calls_off(patient: Patient) -> Finding:
    return good("calls", f"Element Call is off. {DEPENDS}; docs/element-call.md says what goes where")


# -- the homeserver -----------------------------------------------------------------------------


async def check_homeserver(patient: Patient) -> Finding:
    address = patient.config.homeserver.address
    before = time.time()
    try:
        async with patient.http.get(f"{address}/_matrix/client/versions") as answer:
            body = await json_of(answer)
            date = answer.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError) as fault:
        return bad("homeserver", f"{address} cannot be reached ({why(fault)}); see homeserver.address")
    if answer.status != 200 or not isinstance(body.get("versions"), list):
        return bad("homeserver", f"{address} is no homeserver: {answer.status} {shown(body)}; see homeserver.address")
    patient.reached = True
    with suppress(TypeError, ValueError):
        # The header has whole seconds, so on average it is half a second late.
        patient.offset_s = parsedate_to_datetime(date or "").timestamp() + 0.5 - (before + time.time()) / 2
    return good("homeserver", f"{address} answers, Matrix {body['versions'][-1] if body['versions'] else '?'}")


async def check_clock(patient: Patient) -> Finding:
    if patient.offset_s is None:
        return warn("clock", "not compared: the homeserver told no time")
    off = abs(patient.offset_s)
    if off > _CLOCK_S:
        which = "behind" if patient.offset_s > 0 else "ahead of"
        return warn("clock", f"ours is {off:.0f} s {which} the homeserver's; let chrony or systemd-timesyncd set both")
    return good("clock", "ours and the homeserver's agree")


async def check_token(patient: Patient) -> Finding:
    """Who does the homeserver take us for? Without ``user_id`` it names the registration's sender."""
    config = patient.config
    if not patient.reached or not config.appservice.as_token:
        return bad("bot", "not tried: see above")
    status, body = await ask(patient, "GET", "/_matrix/client/v3/account/whoami")
    if status == 401:
        return bad("bot", f"the homeserver does not know appservice.as_token; {_RESTART}")
    if status != 200:
        return bad("bot", f"whoami was answered {status} {shown(body)}; see the homeserver's log")
    patient.known = True
    found = body.get("user_id")
    if found != config.bot_user:
        return bad(
            "bot",
            f"the homeserver calls it {found}, the configuration {config.bot_user}; "
            f"correct homeserver.domain or appservice.bot_username, or {_RESTART}",
        )
    return good("bot", f"{found}, and its token is known")


async def check_way_back(patient: Patient) -> Finding:
    """MSC2659, client-server API v1.7: the homeserver is asked to call us."""
    own = patient.config.appservice
    where = f"{own.hostname} port {own.port}"
    listener = _Listener(patient)
    try:
        await listener.start()
    except OSError as fault:
        if fault.errno != errno.EADDRINUSE:
            return bad("way back", f"{where} cannot be listened on ({why(fault)}); see appservice.hostname and port")
        patient.running = True
    try:
        if not patient.known:
            return bad("way back", "not tried: see above")
        path = f"/_matrix/client/v1/appservice/{own.id}/ping"
        for _ in range(2):  # a homeserver may first try a connection that it kept from before and that is dead
            status, body = await ask(patient, "POST", path, {"transaction_id": "doctor-" + secrets.token_hex(4)})
            if body.get("errcode") != "M_CONNECTION_FAILED":
                break
    finally:
        await listener.close()
    return _pinged(patient, status, body)


def _pinged(patient: Patient, status: int, body: Mapping[str, Any]) -> Finding:
    own = patient.config.appservice
    errcode = body.get("errcode")
    wrong_token = bool(patient.pinged_with) or (errcode == "M_BAD_STATUS" and body.get("status") in (401, 403))
    if status == 200:
        by = "the bridge that is running" if patient.running else f"port {own.port}"
        return good("way back", f"the homeserver reaches {by} in {body.get('duration_ms', '?')} ms")
    if wrong_token:
        return bad("way back", f"the homeserver comes with another hs_token; {_RESTART}")
    if errcode == "M_FORBIDDEN":
        return bad("way back", f"the homeserver knows our token under another id than {own.id}; {_RESTART}")
    if errcode == "M_URL_NOT_SET":
        return bad("way back", f"the registration has no url; {_RESTART}")
    if errcode == "M_UNRECOGNIZED":
        return bad("way back", "the homeserver has no appservice ping; use Synapse 1.84 or later")
    return bad(
        "way back",
        f"the homeserver does not reach {own.address} ({errcode}: {shown(body.get('error'))}); it must lead to "
        f"{own.hostname} port {own.port}. After a change of appservice.address, {_RESTART}",
    )


class _Listener:
    """Answers the ping in the bridge's place, while the bridge does not run."""

    def __init__(self, patient: Patient) -> None:
        app = web.Application()
        app.router.add_post("/_matrix/app/v1/ping", self._ping)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        self._patient = patient

    async def start(self) -> None:
        own = self._patient.config.appservice
        await self._runner.setup()
        await web.TCPSite(self._runner, own.hostname, own.port).start()

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _ping(self, request: web.Request) -> web.Response:
        came = request.headers.get("Authorization", "")
        wanted = f"Bearer {self._patient.config.appservice.hs_token}"
        if hmac.compare_digest(came.encode(), wanted.encode()):
            return web.json_response({})
        self._patient.pinged_with.append(came)
        return web.json_response({"errcode": "M_FORBIDDEN", "error": "wrong hs_token"}, status=403)


# Reach before token before way back before the port: a later one uses what an earlier one found.
CHECKS: tuple[Callable[[Patient], Awaitable[Finding]], ...] = (
    check_secrets,
    check_database,
    check_homeserver,
    check_clock,
    check_token,
    check_way_back,
    check_udp,
    check_tcp,
    check_announce,
    check_public_url,
    check_page,
)


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket bound there. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:  # as the relay does: connections that have ended do not hold the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _own_addresses(bind: str) -> list[str]:
    """Where the media port would be reached: the address bound, or all of its family but loopback and link-local."""
    bound = None
    with suppress(ValueError):  # a host name: its family is not known
        bound = ipaddress.ip_address(bind)
        if not bound.is_unspecified:
            return [bind]
    texts = [str(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for nic in ifaddr.get_adapters() for ip in nic.ips]
    found = [ipaddress.ip_address(text) for text in texts]
    return [
        str(each)
        for each in found
        if not each.is_loopback and not each.is_link_local and (bound is None or each.version == bound.version)
    ]


__all__ = ["CHECKS", "Finding", "Patient", "run_doctor"]
