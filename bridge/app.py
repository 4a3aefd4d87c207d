"""Builds the control process from its parts and stops it in reverse order. No logic.

Start: store → homeserver → relay → rooms (state first, gates second) → replay of the inbox → listeners → ping, which
brings back a homeserver that had given us up for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import time
from collections.abc import Awaitable, Mapping
from functools import partial
from pathlib import Path

from aiohttp import web
from yarl import URL

from bridge.config import Config, WidgetConfig
from bridge.errors import ConfigError, EyvanError
from bridge.identity.call_tokens import CallTokens
from bridge.identity.links import Hearing, LinkSigner, new_device
from bridge.identity.openid import KEPT_S, OpenId
from bridge.identity.safe_http import Network, SafeHttp
from bridge.ids import PeerId, RoomId, StageId, UserId
from bridge.live.confirmations import Confirmations
from bridge.live.notices import Player
from bridge.live.ports import InboxRow, JsonObject
from bridge.live.rooms import Rooms
from bridge.live.stage import World
from bridge.matrix.call_hands import CallHands
from bridge.matrix.calls import Calls
from bridge.matrix.commands import Translator
from bridge.matrix.incoming import Incoming
from bridge.matrix.matrixrtc import CallMembership, tell_of_encryption
from bridge.matrix.outgoing import Outgoing
from bridge.matrix.partner_calls import Line, PartnerCalls, Parts
from bridge.matrix.widgets import StageWidgets, can_be_shown
from bridge.media.control import WorkerSettings
from bridge.media.front import Front
from bridge.media.report import publish
from bridge.media.workers import Workers
from bridge.rules.authority import Permission, Policy
from bridge.store.store import DatabaseStore, open_store
from bridge.telemetry import metrics
from bridge.web.health import HealthServer
from bridge.web.livekit import LiveKit, service_url
from bridge.web.livekit_proxied import Proxied
from bridge.web.server import WebServer
from bridge.web.tls import OwnTls, PassOn

log = logging.getLogger(__name__)


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class _Ears:
    """The relay's listener: made before the rooms it tells."""

    rooms: Rooms

    def peer_connected(self, peer: PeerId) -> None:
        self.rooms.peer_connected(peer)

    def peer_gone(self, peer: PeerId, reason: str) -> None:
        self.rooms.peer_gone(peer, reason)

    def peer_pressed(self, peer: PeerId, key: str) -> None:
        self.rooms.peer_pressed(peer, key)

    def levels(self, stage: StageId, levels: Mapping[int, int]) -> None:
        self.rooms.levels(stage, levels)


def policy_of(config: Config) -> Policy:
    """The operator's rules as the rules of a stage know them."""
    permissions = {"*": Permission.speak, config.homeserver.domain: Permission.host}
    permissions |= {name: Permission(int(level)) for name, level in config.permissions.items()}
    return Policy(
        permissions=permissions,
        speaker_limit=config.stage.speaker_limit,
        guests=config.stage.guests,
        hands=config.stage.hands,
        empty_grace_ms=config.stage.empty_grace_s * 1000,
    )


class App:
    """One control process. ``run`` until SIGINT or SIGTERM."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = WallClock()
        self._ready: str | None = "starting"
        self._partners: PartnerCalls | None = None
        self._front: Front | None = None  # the single port, where there is one

    async def run(self) -> None:
        """Raises ConfigError where the operator must act, other EyvanErrors where the start failed."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with contextlib.AsyncExitStack() as parts:
            await self._start(parts)
            self._ready = None
            log.info("ready: %s", self._config.web.public_url)
            await stop.wait()
            self._ready = "stopping"
            log.info("stopping")

    async def _start(self, parts: contextlib.AsyncExitStack) -> None:
        config = self._config
        store = await open_store(config.database)
        parts.push_async_callback(store.close)
        outgoing = await self._homeserver(parts, store)
        ears = _Ears()
        workers = Workers(self._worker_settings(), ears, len(self._config.media.ports))
        parts.push_async_callback(workers.close)
        await workers.start()
        signer = LinkSigner(config.web.link_secret)
        phone = Calls(config.bot_user, outgoing, self._clock, config.bot.language, config.bot.command_prefix)
        world = self._world(outgoing, workers, store, signer, phone)
        rooms = ears.rooms = phone.rooms = Rooms(config.bot_user, policy_of(config), world)
        parts.push_async_callback(rooms.close)
        parts.push_async_callback(phone.close)
        confirmations = Confirmations(outgoing, self._clock, config.bot.language)
        parts.push_async_callback(confirmations.close)
        hands = CallHands(config.bot_user, rooms, outgoing) if config.matrixrtc.enabled else None
        if hands is not None:
            parts.push_async_callback(hands.close)
            hands.start()
        incoming = self._incoming(store, rooms, phone, confirmations, hands)
        parts.push_async_callback(incoming.close)
        rooms.last_transaction_ms = lambda: incoming.last_transaction_ms or 0
        await rooms.start()
        await incoming.replay()
        openid = self._openid(parts, store)
        calls = await self._calls(parts, rooms, outgoing, openid)
        widget = (config.widget, openid, confirmations) if config.widget.enabled else None
        if widget:
            self._widgets(parts, rooms, outgoing)
        await self._listen(parts, incoming, rooms, store, signer, workers, calls, widget)
        try:
            await outgoing.ping()
        except EyvanError as error:
            log.warning("the homeserver does not reach us at %s: %s", config.appservice.address, error)

    async def _homeserver(self, parts: contextlib.AsyncExitStack, store: DatabaseStore) -> Outgoing:
        own = self._config.appservice
        outgoing = Outgoing(
            self._config.homeserver.address,
            own.as_token,
            self._config.bot_user,
            own.id,
            store,
            display_name=own.bot_displayname,
        )
        parts.push_async_callback(outgoing.close)
        await outgoing.start()
        return outgoing

    def _worker_settings(self) -> WorkerSettings:
        media = self._config.media
        return WorkerSettings(
            bind=media.bind,
            port=media.port,
            announce=tuple(media.announce),
            max_peers=media.max_peers,
            max_mbit=media.max_mbit,
            bitrate=media.bitrate,
            listener_packet_ms=media.listener_packet_ms,
            tcp=media.tcp,
            tcp_handed=bool(media.tcp_single_port),
            tcp_announce_port=media.tcp_single_port or media.tcp_announce_port,
        )

    def _world(
        self, outgoing: Outgoing, workers: Workers, store: DatabaseStore, signer: LinkSigner, phone: Calls
    ) -> World:
        config = self._config
        public = config.web.public_url.rstrip("/")

        def make_link(user: UserId, room: RoomId, stage: StageId) -> str:
            token = signer.make(user, room, stage, self._clock.now_ms(), config.web.link_hours)
            return f"{public}/s/{stage}#l={token}"

        def make_player(user: UserId, room: RoomId, stage: StageId) -> Player:
            now, hours = self._clock.now_ms(), config.web.link_hours
            until = now + hours * 3_600_000
            stream = signer.make_hearing(Hearing(user, room, stage, now, until, until))
            token = signer.make_whep(user, room, stage, now, hours)
            return Player(f"{public}/whep/{stage}", token, f"{public}/listen/{stage}.ogg?t={stream}")

        return World(
            outgoing,
            workers,
            store,
            self._clock,
            make_link,
            config.bot.language,
            config.bot.command_prefix,
            public,
            make_player,
            phone,
        )

    def _incoming(
        self,
        store: DatabaseStore,
        rooms: Rooms,
        phone: Calls,
        confirmations: Confirmations,
        hands: CallHands | None,
    ) -> Incoming:
        config = self._config
        translator = Translator(config.bot_user, config.bot.command_prefix, config.homeserver.domain)

        def deliver(room: RoomId, row: InboxRow) -> None:
            now = self._clock.now_ms()
            age_ms = translator.age_ms(row, now)
            phone.take(room, row, age_ms)
            confirmations.reacted(row.event)
            if hands is not None:
                hands.take(room, row.event, age_ms)
            if self._partners is not None:
                self._partners.take(room, row.event)
            rooms.deliver(room, row, translator.translate(row, now))

        def wanted(event: JsonObject) -> bool:
            return translator.wanted(event) or phone.wanted(event) or self._follows(event)

        return Incoming(config.appservice.hs_token, store, deliver, self._clock, wanted=wanted)

    def _follows(self, event: JsonObject) -> bool:
        return self._config.matrixrtc.enabled and PartnerCalls.wanted(event)

    @property
    def _networks(self) -> list[Network]:
        return [ipaddress.ip_network(each, strict=False) for each in self._config.matrixrtc.openid_networks]

    def _openid(self, parts: contextlib.AsyncExitStack, store: DatabaseStore) -> OpenId:
        config = self._config

        async def remember(mark: str) -> bool:
            """As a link that opens on one device, which is gone by now."""
            until = self._clock.now_ms() + int(KEPT_S * 1000)
            return await store.open_link(f"openid {mark}", new_device(), until, 1)

        domain, address = config.homeserver.domain, config.homeserver.address
        openid = OpenId(domain, address, self._networks, remember=remember)
        parts.push_async_callback(openid.close)
        return openid

    def _widgets(self, parts: contextlib.AsyncExitStack, rooms: Rooms, outgoing: Outgoing) -> None:
        config, url = self._config, self._config.web.public_url
        if not can_be_shown(url):
            log.warning("web.public_url is %s: clients show widgets by https alone, so no room gets one", url)
            return
        language, pin = config.bot.language, config.widget.pin
        widgets = StageWidgets(config.bot_user, url, rooms, outgoing, self._clock, language, pin=pin)
        parts.push_async_callback(widgets.close)
        widgets.start()

    async def _calls(
        self, parts: contextlib.AsyncExitStack, rooms: Rooms, outgoing: Outgoing, openid: OpenId
    ) -> LiveKit | None:
        """What MatrixRTC clients need; None where that is off: no route, no state."""
        config, rtc = self._config, self._config.matrixrtc
        if not rtc.enabled:
            return None
        tokens, public = CallTokens(config.web.link_secret), config.web.public_url
        explain = partial(tell_of_encryption, outgoing, config.bot.language)
        calls = LiveKit(
            rtc, public, config.bot_user, rooms, openid, tokens, self._clock, config.bot.command_prefix, explain
        )
        parts.push_async_callback(calls.close)
        membership = CallMembership(
            config.bot_user, service_url(public), rooms, outgoing, self._clock, config.bot.language
        )
        parts.push_async_callback(membership.close)
        membership.start()
        self._partner_calls(parts, rooms, outgoing)
        return calls

    def _partner_calls(self, parts: contextlib.AsyncExitStack, rooms: Rooms, outgoing: Outgoing) -> None:
        config = self._config
        if not config.matrixrtc.partner_speakers:
            return
        from bridge.media import partner_sfu  # with aiortc, for which nobody else here has a use

        http = SafeHttp(self._networks)

        async def connect(url: str, jwt: str, line: Line) -> partner_sfu.Sfu:
            where = URL(f"{url.rstrip('/')}/rtc").with_query(partner_sfu.query(jwt))
            return partner_sfu.Sfu(await http.socket(where, partner_sfu.MAX_MESSAGE), line, http.check)

        shared = Parts(outgoing, http, connect, partner_sfu.Uplink, self._clock)
        partners = PartnerCalls(service_url(config.web.public_url), config.homeserver.domain, rooms, shared)
        parts.push_async_callback(partners.close)
        self._partners = partners
        partners.start()

    async def _listen(
        self,
        parts: contextlib.AsyncExitStack,
        incoming: Incoming,
        rooms: Rooms,
        store: DatabaseStore,
        signer: LinkSigner,
        workers: Workers,
        calls: LiveKit | None,
        widget: tuple[WidgetConfig, OpenId, Confirmations] | None,
    ) -> None:
        config = self._config

        async def metrics_text() -> str:
            stages, people = rooms.counts()
            metrics.gauge("eyvan_stages_live", "Stages live now").set(stages)
            metrics.gauge("eyvan_people_connected", "Pages and calls connected to them").set(people)
            metrics.gauge("eyvan_transactions", "Transactions taken since the start").set(incoming.transactions)
            metrics.gauge("eyvan_events", "Events in them").set(incoming.events)
            metrics.gauge("eyvan_events_malformed", "Of these, passed over").set(incoming.malformed)
            metrics.gauge("eyvan_requests_refused", "Requests with a wrong token or body").set(incoming.refused)
            if self._front is not None:
                text = "Connections to media.tcp_single_port that were for nobody here"
                metrics.gauge("eyvan_front_refused", text).set(self._front.refused)
            with contextlib.suppress(EyvanError):
                publish(await workers.stats())
            return metrics.render()

        prefix = config.bot.command_prefix
        page = WebServer(config.web, rooms, store, signer, self._clock, prefix, calls, workers, widget)
        health = HealthServer(config.health, lambda: self._ready, metrics_text)
        for part, where in ((page, config.web), (health, config.health)):
            parts.push_async_callback(part.close)
            await _open(part.start(), where.hostname, where.port)
        await self._single_port(parts, page, workers)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(incoming.routes())
        if calls is not None and config.matrixrtc.claim_rtc:
            app.add_routes(Proxied(calls, config.appservice.hs_token).routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        parts.push_async_callback(runner.cleanup)
        await runner.setup()
        own = config.appservice
        await _open(web.TCPSite(runner, own.hostname, own.port).start(), own.hostname, own.port)

    async def _single_port(self, parts: contextlib.AsyncExitStack, page: WebServer, workers: Workers) -> None:
        """The port that page and sound share, where there is one."""
        settings, media = self._config.web, self._config.media
        if not media.tcp_single_port:
            return
        tls: OwnTls | PassOn
        if settings.tls_certificate:
            tls = OwnTls(Path(settings.tls_certificate), Path(settings.tls_key), page.connection)
        else:
            host, _, port = settings.tls_pass_to.rpartition(":")
            tls = PassOn(host.strip("[]"), int(port))
        parts.push_async_callback(tls.close)

        async def listen() -> None:
            front = Front(media.bind, media.tcp_single_port, tls.take, workers.take_connection)
            parts.callback(front.close)
            self._front = front

        await _open(listen(), media.bind, media.tcp_single_port)


async def _open(start: Awaitable[None], hostname: str, port: int) -> None:
    """Raises ConfigError where the address cannot be listened on."""
    try:
        await start
    except OSError as error:
        raise ConfigError(f"{hostname}:{port} cannot be listened on ({error.strerror}); choose another port") from error


async def run(config: Config) -> None:
    await App(config).run()
