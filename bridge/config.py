"""Configuration: complete defaults → strict YAML → validated → frozen values.

A key is declared once, here, with its default, its check and its explanation; ``config.example.yaml`` and
``docs/configuration.md`` are printed from these declarations (``python -m bridge.config example|markdown``) and
a test holds them equal. A wrong file is a ConfigError of one line: file, line, key, value, remedy.

A secret may stand in three places; the first that is there counts: the environment
(``EYVAN_<SECTION>_<KEY>``), a file named by ``<key>_file`` (relative to the configuration), the key itself.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from bridge.config_checks import (
    DATABASE,
    HOST,
    LOCALPART,
    PORT,
    addresses,
    ancestors,
    between,
    matches,
    networks,
    optional_url,
    packet_ms,
    secret,
    url,
)
from bridge.errors import BadInput, ConfigError
from bridge.ids import ServerName, UserId, server_of
from bridge.strict_yaml import example, key, markdown, read


class Level(IntEnum):
    """What somebody may ask of the bot; each includes the ones before it."""

    LISTEN = 10
    SPEAK = 20
    HOST = 30
    ADMIN = 40


# -- checks of single values: bridge.config_checks has those that know nothing of Eyvan -----------


_MOST_WORKERS = 64


def _workers(value: Any) -> int | str:
    if value == "auto" or (type(value) is int and 1 <= value <= _MOST_WORKERS):
        return value if value == "auto" else int(value)
    raise BadInput("", value, f"give auto, or a whole number from 1 to {_MOST_WORKERS}")


_FROM_REGISTRATION = "make it with `eyvan generate-registration`, which says where to put it"


def _levels(tree: Any) -> Mapping[str, Level]:
    if not isinstance(tree, dict):
        raise BadInput("", tree, 'write lines such as `"*": speak`')
    levels: dict[str, Level] = {}
    for who, level in tree.items():
        if not isinstance(who, str) or not re.fullmatch(r"\*|@[^:\s]+:\S+|[0-9A-Za-z.\-\[\]:]+", who):
            raise BadInput(str(who), level, 'the key must be "*", a server name or a user id, in quotes')
        if not isinstance(level, str) or level.upper() not in Level.__members__:
            raise BadInput(str(who), level, "give one of " + ", ".join(each.name.lower() for each in Level))
        levels[str(who)] = Level[level.upper()]
    return MappingProxyType(levels)


# -- the sections -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HomeserverConfig:
    """Your homeserver, as this bridge reaches it."""

    address: str = key("http://localhost:8008", "URL of the client-server API, without /_matrix.", parse=url)
    domain: str = key(
        "",
        "The server name: what stands after the colon in its user ids.",
        matches(r"[0-9A-Za-z.\-\[\]:]{1,230}", "give the server name alone, such as example.org"),
        required="write it into the file",
        hint="example.org",
    )


@dataclass(frozen=True, slots=True)
class AppserviceConfig:
    """This application service, as the homeserver knows it. Make the registration again after a change."""

    address: str = key(
        "http://localhost:29340", "URL at which the homeserver reaches hostname and port below.", parse=url
    )
    hostname: str = key("127.0.0.1", "Address to listen on for the homeserver.", HOST)
    port: int = key(29340, "TCP port to listen on for the homeserver.", PORT)
    id: str = key("eyvan", "The id in the registration; never change it later.", LOCALPART)
    as_token: str = key(
        "", "The token with which we ask the homeserver. `eyvan generate-registration` makes one.", secret(16),
        secret=True, required=_FROM_REGISTRATION,
    )  # fmt: skip
    hs_token: str = key(
        "", "The token with which the homeserver comes to us. `eyvan generate-registration` makes one.", secret(16),
        secret=True, required=_FROM_REGISTRATION,
    )  # fmt: skip
    bot_username: str = key("eyvan", "Localpart of the bot.", LOCALPART)
    bot_displayname: str = key("Eyvan", "Name of the bot in rooms.")
    user_prefix: str = key("eyvan_", "Localparts that begin so are reserved for this application service.", LOCALPART)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The page that people open, and its API."""

    public_url: str = key(
        "http://localhost:8480",
        "What people open: the page's URL from outside, with its sub-path if it has one. https, except on localhost: "
        "browsers give the microphone to secure pages only.",
        parse=url,
    )
    hostname: str = key("127.0.0.1", "Address to listen on for your reverse proxy.", HOST)
    port: int = key(8480, "TCP port to listen on for your reverse proxy.", PORT)
    link_secret: str = key(
        "", "Signs personal links and sessions; a new one makes all of them void. At least 32 characters.", secret(32),
        secret=True, required="make one with `openssl rand -hex 32` (config.example.yaml says where it may stand)",
    )  # fmt: skip
    trusted_proxies: tuple[str, ...] = key(
        ("127.0.0.1", "::1"), "Proxies whose X-Forwarded-For is believed: addresses or networks.", networks
    )
    tls_certificate: str = key(
        "", "PEM file with the certificate chain of the page, where media.tcp_single_port serves it without a proxy. "
        "Read again when it changes.",
    )  # fmt: skip
    tls_key: str = key("", "PEM file with the private key that belongs to it.")
    tls_pass_to: str = key(
        "", "Or: where TLS that comes to media.tcp_single_port is passed on to, such as 127.0.0.1:8443; your proxy, "
        "which must take the PROXY protocol there.",
        matches(r"|[^\s:]+:[1-9][0-9]{0,4}|\[[0-9A-Fa-f:]+\]:[1-9][0-9]{0,4}", "give host:port"),
    )  # fmt: skip
    requests_a_minute: int = key(
        60, "So many requests a minute of one address that say who they are by nothing yet: sign-ins and guests. Whole "
        "mobile carriers stand behind one address; Element Call may ask five times as often.", between(1, 1_000_000),
    )  # fmt: skip
    sessions: int = key(5000, "So many pages connected at once.", between(1, 1_000_000))
    sessions_per_user: int = key(20, "… of one person.", between(1, 1000))
    guests_per_source: int = key(
        200,
        "… and of guests from one address; as many of its streams, and of its WHEP players.",
        between(1, 1_000_000),
    )
    link_hours: int = key(12, "A personal link opens for so many hours.", between(1, 720))
    link_devices: int = key(3, "A personal link opens on so many devices.", between(1, 20))


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """The sound. Each media worker has one port, by UDP and where that is blocked by TCP; open them in the firewall."""

    bind: str = key("0.0.0.0", "Address to receive on; 0.0.0.0 is every IPv4 interface.", HOST)  # noqa: S104
    port: int = key(7400, "UDP port, and TCP port, of the first worker; the next ones take those that follow.", PORT)
    workers: int | Literal["auto"] = key(
        "auto", "Processes that carry sound, 1 to 64; a stage may span all of them. auto: as many as the machine has "
        "cores but one, which the rest keeps, and at least one.", parse=_workers,
    )  # fmt: skip
    tcp: bool = key(True, "Also take sound by TCP (ICE-TCP), for people whose network lets no UDP through.")
    tcp_announce_port: int = key(
        0, "The TCP port that browsers are told, where something forwards it to ours: 443 passes almost everywhere, "
        "but needs a public address (Chromium refuses it at private ones). 0: media.port.", between(0, 65535),
    )  # fmt: skip
    tcp_single_port: int = key(
        0, "One TCP port for page and sound, such as 443, for networks that let nothing else through: we listen on it "
        "and look at the first bytes. TLS goes to the page (web.tls_certificate or web.tls_pass_to), sound to its "
        "worker. 0: off.", between(0, 65535),
    )  # fmt: skip
    announce: tuple[str, ...] = key(
        (), "Addresses at which browsers reach the port: yours from outside if you are behind NAT. Empty: those of the "
        "interface. Nobody else is ever asked (no STUN server).", addresses,
    )  # fmt: skip
    max_peers: int = key(
        2000, "So many connections at most; further ones are told: full. A few places are kept for who may speak.",
        between(1, 100_000),
    )  # fmt: skip
    max_mbit: int = key(
        0, "So many Mbit/s of sound sent at most, headers included; then new listeners are told: full. A listener "
        "counts as if somebody talked all the time, about 57 kbit/s. Above four fifths of it new listeners of a stage "
        "for voices get 24 kbit/s of sound. 0: no limit.", between(0, 1_000_000),
    )  # fmt: skip
    bitrate: int = key(
        48_000,
        "Opus bits per second for each listener; a stage set to low takes 24000 at most, one for music 128000.",
        between(6_000, 128_000),
    )
    listener_packet_ms: int = key(
        60, "Milliseconds of sound in one packet to those who only listen: 20, 40 or 60. Longer ones cost much less "
        "and come up to 40 ms later; who may speak gets 20.", packet_ms,
    )  # fmt: skip

    @property
    def ports(self) -> range:
        """The port of each worker, in their order."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = max(1, min(cores - 1, _MOST_WORKERS)) if self.workers == "auto" else self.workers
        return range(self.port, self.port + count)


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Alive, ready and metrics, on a listener of its own that is not for the world."""

    hostname: str = key("127.0.0.1", "Address to listen on.", HOST)
    port: int = key(8481, "TCP port to listen on.", PORT)


@dataclass(frozen=True, slots=True)
class BotConfig:
    """How the bot speaks."""

    command_prefix: str = key("!", "Commands begin with it.", matches(r"\S{1,8}", "give 1 to 8 characters, no spaces"))
    language: Literal["en", "fa"] = key("en", "The language of the bot in rooms and chats: en or fa.")


@dataclass(frozen=True, slots=True)
class StageConfig:
    """What a new stage starts with; its moderators can change it."""

    empty_grace_s: int = key(
        300,
        "A stage whose host has left, with nobody on it who could host, ends after so many seconds.",
        between(1, 86_400),
    )
    speaker_limit: int = key(20, "So many people on stage at once.", between(1, 100))
    guests: bool = key(False, "May people without a Matrix account listen?")
    hands: Literal["everyone", "members", "off"] = key("everyone", "Who may raise a hand: everyone, members or off.")


@dataclass(frozen=True, slots=True)
class MatrixRtcConfig:
    """Element Call and other MatrixRTC clients. Off unless you turn it on; read docs/element-call.md before."""

    enabled: bool = key(
        False,
        "Let Element Call join stages. Your homeserver then names this bridge as its RTC transport, so all its calls "
        "ask here first.",
    )
    fallback_service: str = key(
        "",
        "URL of your lk-jwt-service: it is asked for rooms without a stage, as if this bridge were not there. Empty: "
        "such rooms have no calls.",
        parse=optional_url,
    )
    partner_speakers: bool = key(
        True,
        "Let people of other homeservers speak by Element Call: while one of them is on stage, the relay fetches their "
        "voice from the LiveKit server of their homeserver.",
    )
    claim_rtc: bool = key(
        False,
        "Let clients get the tokens of their calls from the homeserver, which asks this bridge (MSC4512; Synapse 1.163 "
        "with experimental_features.msc4512_enabled). It changes the registration: write that anew. Rooms without a "
        "stage get none that way.",
    )
    openid_networks: tuple[str, ...] = key(
        (),
        "Private addresses or networks at which homeservers of your users may be asked who they are, for Element Call "
        "and for the widget. Others than public ones are refused.",
        networks,
    )


@dataclass(frozen=True, slots=True)
class WidgetConfig:
    """The page inside Element Web and Desktop: a widget that the bot adds to the room while a stage is live."""

    enabled: bool = key(
        True, "Add it. It needs https (web.public_url), and in the room level 50 for the bot, as a stage does."
    )
    pin: bool = key(True, "Show it above the timeline, where the room has a place there.")
    clients: tuple[str, ...] = key(
        (),
        "Only these clients may show it: origins such as https://app.element.io, and vector: for Element Desktop. "
        "Empty: any; users of other homeservers have clients that you do not know.",
        ancestors,
    )


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """The log, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = key("INFO", "DEBUG, INFO, WARNING or ERROR.")
    json: bool = key(False, "One JSON object a line, for machines.")


@dataclass(frozen=True, slots=True)
class Config:
    """Eyvan's configuration. A key that is left out has the value shown here; empty ones are required."""

    homeserver: HomeserverConfig = HomeserverConfig()
    appservice: AppserviceConfig = AppserviceConfig()
    database: str = key(
        "sqlite:///eyvan.db",
        "Where stages, links and the moderation record are kept: sqlite:///relative.db, sqlite:////absolute.db or "
        "postgres://user:password@host/database.",
        DATABASE,
        secret=True,
    )
    web: WebConfig = WebConfig()
    media: MediaConfig = MediaConfig()
    health: HealthConfig = HealthConfig()
    permissions: Mapping[str, Level] = key(
        MappingProxyType({"*": Level.SPEAK}),
        "Who may ask what of the bot: listen, speak, host or admin, each with the ones before it. A key is a user id, "
        'a server name or "*" for everybody; a user goes before a server, a server before "*". Where nothing is '
        "said: speak, and host for the users of your own homeserver.",
        parse=_levels,
        hint={"*": "speak", "example.org": "host", "@ava:example.org": "admin"},
    )
    bot: BotConfig = BotConfig()
    stage: StageConfig = StageConfig()
    matrixrtc: MatrixRtcConfig = MatrixRtcConfig()
    widget: WidgetConfig = WidgetConfig()
    logging: LoggingConfig = LoggingConfig()

    def permission(self, user: UserId) -> Level:
        """The level of ``user``: the rule about the user, else about their server, else about everybody."""
        server = server_of(user)
        own = Level.HOST if server == self.homeserver.domain else None
        rules = self.permissions
        for level in (rules.get(user), rules.get(server), own, rules.get("*")):
            if level is not None:
                return level
        return Level.SPEAK

    @property
    def bot_user(self) -> UserId:
        return UserId(f"@{self.appservice.bot_username}:{self.homeserver.domain}")

    @property
    def server_name(self) -> ServerName:
        return ServerName(self.homeserver.domain)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no log line may contain."""
        return tuple(s for s in (self.appservice.as_token, self.appservice.hs_token, self.web.link_secret) if s)


# -- reading ------------------------------------------------------------------------------------


def load_config(path: Path | str, env: Mapping[str, str], *, need_secrets: bool = True) -> Config:
    """Read and check the file. ``need_secrets=False`` lets secrets be empty, for the command that makes them.

    Raises ConfigError: one line, ``file:line: key: value cannot be used; remedy``.
    """
    config: Config = read(Config, Path(path), env, need_secrets=need_secrets)
    if config.appservice.as_token and config.appservice.as_token == config.appservice.hs_token:
        raise ConfigError(f"{path}: appservice.hs_token: (secret) cannot be used; it must differ from as_token")
    _check_single_port(config, path)
    if config.media.ports[-1] > 65535:
        last, count = config.media.ports[-1], len(config.media.ports)
        raise ConfigError(
            f"{path}: media.port: {config.media.port} cannot be used; {count} workers take ports up to {last}, so "
            f"choose one up to {65536 - count}, or fewer media.workers"
        )
    return config


def _check_single_port(config: Config, path: Path | str) -> None:
    """Raises ConfigError where keys that only make sense together are not together."""
    web, media = config.web, config.media
    if bool(web.tls_certificate) != bool(web.tls_key):
        missing = "tls_key" if web.tls_certificate else "tls_certificate"
        raise ConfigError(f"{path}: web.{missing}: '' cannot be used; certificate and key belong together, give both")
    if not media.tcp_single_port:
        return
    if bool(web.tls_certificate) == bool(web.tls_pass_to):
        how = "give one of web.tls_certificate (with web.tls_key) and web.tls_pass_to, for the page there"
        raise ConfigError(f"{path}: media.tcp_single_port: {media.tcp_single_port} cannot be used; {how}")
    if media.tcp_announce_port or not media.tcp:
        which = "tcp_announce_port" if media.tcp_announce_port else "tcp"
        raise ConfigError(
            f"{path}: media.{which}: {getattr(media, which)} cannot be used; media.tcp_single_port is the port that is "
            "announced, so leave it out"
        )


def example_file() -> str:
    """The text of ``config.example.yaml``."""
    return example(Config)


def reference() -> str:
    """The text of ``docs/configuration.md``."""
    title = "# Configuration\n\nPrinted from `bridge/config.py` by `python -m bridge.config markdown`. Do not edit.\n"
    return f"{title}\n{markdown(Config)}"


if __name__ == "__main__":
    sys.stdout.write({"example": example_file, "markdown": reference}[sys.argv[1]]())
