"""Configuration: complete defaults → strict YAML → validated → frozen values.

A key is declared once, here, with its default, its check and its explanation; ``config.example.yaml`` and
``docs/configuration.md`` are printed from these declarations (``python -m bridge.config example|markdown``) and
a test holds them equal. A wrong file is a ConfigError of one line: file, line, key, value, remedy.

A secret may stand in three places; the first that is there counts: the environment
(``EYVAN_<SECTION>_<KEY>``), a file named by ``<key>_file`` (relative to the configuration), the key itself.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bridge.errors import ConfigError, shown
from bridge.ids import ServerName, UserId, server_of

Check = Callable[[Any], str | None]
"""Looks at a value of the right type; the remedy if it cannot be used, else None."""


class Level(IntEnum):
    """What somebody may ask of the bot; each includes the ones before it."""

    LISTEN = 10
    SPEAK = 20
    HOST = 30
    ADMIN = 40


# -- checks of single values --------------------------------------------------------------------


def _between(low: int, high: int) -> Check:
    return lambda value: None if low <= value <= high else f"give a whole number from {low} to {high}"


def _matches(pattern: str, remedy: str) -> Check:
    return lambda value: None if re.fullmatch(pattern, value) else remedy


def _secret(least: int) -> Check:
    remedy = f"give at least {least} random characters without spaces, such as `openssl rand -hex 32` prints"
    return _matches(rf"[!-~]{{{least},}}", remedy)


def _url(value: str) -> str | None:
    remedy = "give a URL such as https://host or http://localhost:8008, without ?query or #fragment"
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return remedy
    return remedy if not good or parts.query or parts.fragment or parts.username or re.search(r"\s", value) else None


def _addresses(value: tuple[str, ...]) -> str | None:
    return _each(value, ipaddress.ip_address, "is no IP address; give numbers such as 203.0.113.7 or 2001:db8::7")


def _networks(value: tuple[str, ...]) -> str | None:
    return _each(value, ipaddress.ip_network, "is no address or network; give one such as 127.0.0.1 or 10.0.0.0/8")


def _each(values: tuple[str, ...], parse: Callable[[str], object], remedy: str) -> str | None:
    for value in values:
        try:
            parse(value)
        except ValueError:
            return f"{shown(value)} {remedy}"
    return None


_PORT = _between(1, 65535)
_HOST = _matches(r"[0-9A-Za-z.:_-]+", "give an address or host name to listen on, such as 127.0.0.1")
_LOCALPART = _matches(r"[a-z0-9._=/-]+", "use only a-z, 0-9 and . _ = - / (Matrix user id grammar)")
_DATABASE = _matches(
    r"sqlite:///[^?#]+|postgres(ql)?://[^/\s]*/\S+",
    "give sqlite:///file.db, sqlite:////absolute/file.db or postgres://user:password@host/database",
)


def _key(
    default: Any, doc: str, check: Check | None = None, *, secret: bool = False, required: bool = False, hint: str = ""
) -> Any:
    """Declare a key. ``required``: the empty default does not do. ``hint``: its value in the example."""
    metadata = {"doc": doc, "check": check, "secret": secret, "required": required, "hint": hint}
    if isinstance(default, MappingProxyType):  # which has no hash, so dataclasses take it for mutable
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


# -- the sections -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HomeserverConfig:
    """Your homeserver, as this bridge reaches it."""

    address: str = _key("http://localhost:8008", "URL of the client-server API, without /_matrix.", _url)
    domain: str = _key(
        "",
        "The server name: what stands after the colon in its user ids.",
        _matches(r"[0-9A-Za-z.\-\[\]:]{1,230}", "give the server name alone, such as example.org"),
        required=True,
        hint="example.org",
    )


@dataclass(frozen=True, slots=True)
class AppserviceConfig:
    """This application service, as the homeserver knows it. Make the registration again after a change."""

    address: str = _key("http://localhost:29340", "URL at which the homeserver reaches hostname and port below.", _url)
    hostname: str = _key("127.0.0.1", "Address to listen on for the homeserver.", _HOST)
    port: int = _key(29340, "TCP port to listen on for the homeserver.", _PORT)
    id: str = _key("eyvan", "The id in the registration; never change it later.", _LOCALPART)
    as_token: str = _key(
        "", "The token with which we ask the homeserver. `eyvan generate-registration` makes one.", _secret(16),
        secret=True, required=True,
    )  # fmt: skip
    hs_token: str = _key(
        "", "The token with which the homeserver comes to us. `eyvan generate-registration` makes one.", _secret(16),
        secret=True, required=True,
    )  # fmt: skip
    bot_username: str = _key("eyvan", "Localpart of the bot.", _LOCALPART)
    bot_displayname: str = _key("Eyvan", "Name of the bot in rooms.")
    user_prefix: str = _key("eyvan_", "Localparts that begin so are reserved for this application service.", _LOCALPART)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The page that people open, and its API."""

    public_url: str = _key(
        "http://localhost:8480",
        "What people open: the page's URL from outside, with its sub-path if it has one. https, except on localhost: "
        "browsers give the microphone to secure pages only.",
        _url,
    )
    hostname: str = _key("127.0.0.1", "Address to listen on for your reverse proxy.", _HOST)
    port: int = _key(8480, "TCP port to listen on for your reverse proxy.", _PORT)
    link_secret: str = _key(
        "", "Signs personal links and sessions; a new one makes all of them void. At least 32 characters.", _secret(32),
        secret=True, required=True,
    )  # fmt: skip
    trusted_proxies: tuple[str, ...] = _key(
        ("127.0.0.1", "::1"), "Proxies whose X-Forwarded-For is believed: addresses or networks.", _networks
    )
    link_hours: int = _key(12, "A personal link opens for so many hours.", _between(1, 720))
    link_devices: int = _key(3, "A personal link opens on so many devices.", _between(1, 20))


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """The sound. One UDP port carries everybody's; open it in the firewall."""

    bind: str = _key("0.0.0.0", "Address to receive on; 0.0.0.0 is every IPv4 interface.", _HOST)  # noqa: S104
    port: int = _key(7400, "UDP port.", _PORT)
    announce: tuple[str, ...] = _key(
        (), "Addresses at which browsers reach the port: yours from outside if you are behind NAT. Empty: those of the "
        "interface. Nobody else is ever asked (no STUN server).", _addresses,
    )  # fmt: skip
    max_peers: int = _key(2000, "So many connections at most; further ones are told: full.", _between(1, 100_000))
    bitrate: int = _key(48_000, "Opus bits per second for each listener.", _between(6_000, 128_000))


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Alive, ready and metrics, on a listener of its own that is not for the world."""

    hostname: str = _key("127.0.0.1", "Address to listen on.", _HOST)
    port: int = _key(8481, "TCP port to listen on.", _PORT)


@dataclass(frozen=True, slots=True)
class BotConfig:
    """How the bot speaks."""

    command_prefix: str = _key(
        "!", "Commands begin with it.", _matches(r"\S{1,8}", "give 1 to 8 characters, no spaces")
    )
    language: Literal["en", "fa"] = _key("en", "The bot's language in a room that has not chosen one: en or fa.")


@dataclass(frozen=True, slots=True)
class StageConfig:
    """What a new stage starts with; its moderators can change it."""

    empty_grace_s: int = _key(300, "A stage without anybody ends after so many seconds.", _between(1, 86_400))
    speaker_limit: int = _key(20, "So many people on stage at once.", _between(1, 100))
    guests: bool = _key(False, "May people without a Matrix account listen?")
    hands: Literal["everyone", "members", "off"] = _key("everyone", "Who may raise a hand: everyone, members or off.")


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """The log, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _key("INFO", "DEBUG, INFO, WARNING or ERROR.")
    json: bool = _key(False, "One JSON object a line, for machines.")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; ``Config()`` is the defaults, which lack the required keys."""

    homeserver: HomeserverConfig = HomeserverConfig()
    appservice: AppserviceConfig = AppserviceConfig()
    database: str = _key(
        "sqlite:///eyvan.db",
        "Where stages, links and the moderation record are kept: sqlite:///relative.db, sqlite:////absolute.db or "
        "postgres://user:password@host/database.",
        _DATABASE,
        secret=True,
    )
    web: WebConfig = WebConfig()
    media: MediaConfig = MediaConfig()
    health: HealthConfig = HealthConfig()
    permissions: Mapping[str, Level] = _key(
        MappingProxyType({"*": Level.SPEAK}),
        "Who may ask what of the bot: listen, speak, host or admin, each with the ones before it. A key is a user id, "
        'a server name or "*" for everybody; a user goes before a server, a server before "*". Where nothing is '
        "said: speak, and host for the users of your own homeserver.",
    )
    bot: BotConfig = BotConfig()
    stage: StageConfig = StageConfig()
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
    source = _Source(Path(path), env, need_secrets)
    config: Config = source.section(Config, source.read(), "")
    if need_secrets and config.appservice.as_token == config.appservice.hs_token:
        raise source.error(None, "appservice.hs_token", "(secret)", "it must differ from as_token")
    return config


class _Source:
    """One configuration file while it is read; knows where each key stands."""

    def __init__(self, path: Path, env: Mapping[str, str], need_secrets: bool) -> None:
        self.path, self.env, self.need_secrets = path, env, need_secrets

    def error(self, line: int | None, key: str, value: object, remedy: str) -> ConfigError:
        where = f"{self.path}:{line}" if line else f"{self.path}"
        text = value if value in ("(secret)", "(missing)") else shown(value)
        return ConfigError(f"{where}: {key}: {text} cannot be used; {remedy}")

    def read(self) -> Any:
        try:
            tree = YAML(typ="rt", pure=True).load(self.path.read_text(encoding="utf-8"))
        except OSError as fault:
            raise ConfigError(f"{self.path}: cannot be read ({fault.strerror}); give its path with -c") from fault
        except UnicodeDecodeError as fault:
            raise ConfigError(f"{self.path}: byte {fault.start} is not UTF-8; save the file as UTF-8") from fault
        except MarkedYAMLError as fault:
            mark = fault.problem_mark
            what = re.sub(r"\s+", " ", fault.problem or "it cannot be read").strip()
            line = f":{mark.line + 1}" if mark else ""
            raise ConfigError(f"{self.path}{line}: not valid YAML: {what}; compare with config.example.yaml") from fault
        except YAMLError as fault:
            what = re.sub(r"\s+", " ", str(fault))
            raise ConfigError(f"{self.path}: not valid YAML: {what}; compare with config.example.yaml") from fault
        return {} if tree is None else tree

    def section(self, cls: type[Any], tree: Any, prefix: str) -> Any:
        name = prefix.rstrip(".") or "the file"
        if not isinstance(tree, dict):
            raise self.error(1, name, tree, "write `key: value` lines, as in config.example.yaml")
        fields = {each.name: each for each in dataclasses.fields(cls)}
        self._refuse_unknown(fields, tree, prefix)
        values: dict[str, Any] = {}
        for key, kind in typing.get_type_hints(cls).items():
            if dataclasses.is_dataclass(kind):
                below = tree.get(key)
                values[key] = self.section(typing.cast(type[Any], kind), {} if below is None else below, f"{key}.")
            else:
                values[key] = self._value(fields[key], kind, tree, prefix)
        return cls(**values)

    def _refuse_unknown(self, fields: Mapping[str, Any], tree: Any, prefix: str) -> None:
        files = [f"{name}_file" for name, each in fields.items() if each.metadata.get("secret")]
        for key in tree:
            if key not in fields and key not in files:
                known = ", ".join([*fields, *files])
                where = _line(tree, key)
                raise self.error(where, f"{prefix}{key}", tree[key], f"there is no such key; known here: {known}")

    def _value(self, each: dataclasses.Field[Any], kind: Any, tree: Any, prefix: str) -> Any:
        key, line, secret = prefix + each.name, _line(tree, each.name), each.metadata["secret"]
        raw, line = self._secret(key, each.name, tree, line) if secret else (tree.get(each.name), line)
        if raw is None:
            return self._default(each, key, line)
        raw = self._permissions(raw) if key == "permissions" else self._typed(raw, kind, key, line, secret)
        if raw == "" and each.metadata["required"]:
            return self._default(each, key, line)
        check = each.metadata["check"]
        remedy = check(raw) if check else None
        if remedy:
            raise self.error(line, key, "(secret)" if secret else raw, remedy)
        return str(raw).rstrip("/") if check is _url else raw

    def _default(self, each: dataclasses.Field[Any], key: str, line: int | None) -> Any:
        """The default, unless the key is one that has none."""
        secret = each.metadata["secret"]
        if each.metadata["required"] and (self.need_secrets or not secret):
            raise self.error(line, key, "(missing)", self._missing(key, secret))
        return getattr(Config() if "." not in key else getattr(Config(), key.split(".")[0]), each.name)

    def _secret(self, key: str, name: str, tree: Any, line: int | None) -> tuple[Any, int | None]:
        """The value from environment, file or the key itself, and the line to name in an error."""
        from_env = self.env.get(env_name(key))
        if from_env:
            return from_env, None
        file_key = f"{name}_file"
        if tree.get(file_key) is None:
            return tree.get(name), line
        where = _line(tree, file_key)
        if tree.get(name):
            raise self.error(where, f"{key}_file", tree[file_key], f"{name} is given too; keep one of the two")
        file = self.path.parent / self._typed(tree[file_key], str, f"{key}_file", where, False)
        try:
            return file.read_text(encoding="utf-8").strip(), where
        except (OSError, UnicodeDecodeError) as fault:
            reason = getattr(fault, "strerror", None) or "not UTF-8"
            raise self.error(where, f"{key}_file", str(file), f"it cannot be read ({reason})") from fault

    def _missing(self, key: str, secret: bool) -> str:
        if not secret:
            return "write it into the file"
        make = "openssl rand -hex 32" if key == "web.link_secret" else "eyvan generate-registration"
        return f"make one with `{make}`, then write it here, into a file named by {key}_file, or into {env_name(key)}"

    def _typed(self, raw: Any, kind: Any, key: str, line: int | None, secret: bool) -> Any:
        value, wanted = _convert(raw, kind)
        if wanted:
            raise self.error(line, key, "(secret)" if secret else raw, wanted)
        return value

    def _permissions(self, tree: Any) -> Mapping[str, Level]:
        if not isinstance(tree, dict):
            raise self.error(None, "permissions", tree, 'write lines such as `"*": speak`')
        levels: dict[str, Level] = {}
        for who, name in tree.items():
            key, line = f"permissions.{who}", _line(tree, who)
            if not isinstance(who, str) or not re.fullmatch(r"\*|@[^:\s]+:\S+|[0-9A-Za-z.\-\[\]:]+", who):
                raise self.error(line, key, name, 'the key must be "*", a server name or a user id, in quotes')
            if not isinstance(name, str) or name.upper() not in Level.__members__:
                raise self.error(line, key, name, "give one of listen, speak, host, admin")
            levels[str(who)] = Level[name.upper()]
        return MappingProxyType(levels)


def _convert(raw: Any, kind: Any) -> tuple[Any, str]:
    """``raw`` as a plain value of ``kind``, or what to write instead."""
    if typing.get_origin(kind) is Literal:
        options = typing.get_args(kind)
        good = isinstance(raw, str) and raw in options
        return (str(raw), "") if good else (None, "give one of " + ", ".join(options))
    if typing.get_origin(kind) is tuple:
        good = isinstance(raw, list) and all(isinstance(each, str) for each in raw)
        return (tuple(str(each) for each in raw), "") if good else (None, 'give a list such as ["203.0.113.7"]')
    if kind is bool:
        return (bool(raw), "") if isinstance(raw, bool) else (None, "give true or false")
    if kind is int:
        good = isinstance(raw, int) and not isinstance(raw, bool)
        return (int(raw), "") if good else (None, "give a whole number without quotes")
    return (str(raw), "") if isinstance(raw, str) else (None, "give a text, in quotes if it looks like a number")


def _line(tree: Any, key: object) -> int | None:
    """The line on which ``key`` stands, or that of its section."""
    where = getattr(tree, "lc", None)
    if where is None or where.line is None:
        return None
    data = where.data or {}
    return int(data[key][0] if key in data else where.line) + (1 if key in data else 0) or None


def env_name(key: str) -> str:
    """The environment variable of a secret: ``web.link_secret`` → ``EYVAN_WEB_LINK_SECRET``."""
    return "EYVAN_" + key.replace(".", "_").upper()
