"""The demo's directory: ports, secrets and what was made at earlier starts; configuration and registration.

::

    DIR/state.json          ports, tokens, accounts, room: what a second start takes up (mode 600)
    DIR/config.yaml         for `eyvan run`           DIR/registration.yaml   for the homeserver
    DIR/synapse/  eyvan.db  bridge.log  voices/       DIR/lock                held while a demo runs
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import random
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ifaddr

from bridge.config import load_config
from bridge.demo.federation import make_authority, server_name
from bridge.demo.synapse import FederationSettings
from bridge.errors import ConfigError
from bridge.registration import registration

SERVER_NAME = "eyvan.localhost"
LOOPBACK = "127.0.0.1"
_PORTS = ("homeserver", "appservice", "web", "health", "media")
_FEDERATED = ("federation", "partner", "partner_federation")
_RANGE = range(20_000, 32_000)  # below the ports that the kernel gives to outgoing connections (ip(7))


def own_address() -> str:
    """An IPv4 address of this machine that browsers take for WebRTC: they skip loopback.

    Read from the interfaces; nobody is asked. 127.0.0.1 where there is no other, which `eyvan demo` then says.
    """
    found = [
        address
        for adapter in ifaddr.get_adapters()
        for address in (each.ip for each in adapter.ips)
        if isinstance(address, str) and not _local(address)
    ]
    return found[0] if found else LOOPBACK


def _usable(address: str) -> str:
    """``address`` where it is an IPv4 address of this machine. Raises ConfigError."""
    try:
        if isinstance(ipaddress.ip_address(address), ipaddress.IPv4Address) and _free(address, 0, socket.SOCK_STREAM):
            return address
    except ValueError:
        pass
    raise ConfigError(f"--address {address} cannot be used; give an IPv4 address of this machine, as `ip addr` shows")


def _local(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_link_local


def _free(address: str, port: int, *kinds: socket.SocketKind) -> bool:
    """Whether all these sockets can be had there."""
    for kind in kinds:
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


@dataclass(slots=True)
class Site:
    """One demo's directory. ``open`` holds its lock: one demo in a directory at a time."""

    directory: Path
    server_name: str = SERVER_NAME
    federated: bool = False  # with a second homeserver, a partner's
    ports: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)  # accounts and the room of earlier starts
    media: dict[str, Any] = field(default_factory=dict)  # goes over the media section
    address: str = field(default_factory=own_address)
    page_address: str = LOOPBACK

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        directory: Path,
        server_name: str = SERVER_NAME,
        address: str | None = None,
        *,
        federated: bool = False,
    ) -> Iterator[Site]:
        """Take the directory. ``address`` of this machine: page and sound are served there, to others too.
        ``federated``: the name is made from the port, and there are ports for a partner's homeserver.

        Raises ConfigError where another demo has the directory, it cannot be written or was made the other way,
        or the address is not ours."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / "lock").open("w")
        except OSError as error:
            raise ConfigError(f"{directory}: {error.strerror}; give another directory with --dir") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"{directory}: a demo is running in it; stop that or give another --dir") from None
            site = cls(directory.absolute(), server_name, federated)
            if address is not None:
                site.address = site.page_address = _usable(address)
            site._load()
            yield site

    @property
    def homeserver(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['homeserver']}"

    @property
    def web(self) -> str:
        """The page's base URL; loopback is a secure context, so that browsers give the microphone without TLS."""
        return f"http://{self.page_address}:{self.ports['web']}"

    @property
    def ready_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['health']}/health/ready"

    @property
    def bot(self) -> str:
        return f"@eyvan:{self.server_name}"

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def registration(self) -> Path:
        return self.directory / "registration.yaml"

    def _load(self) -> None:
        try:
            kept = json.loads((self.directory / "state.json").read_text())
        except FileNotFoundError:
            kept = {}
        except ValueError as error:
            raise ConfigError(f"{self.directory}/state.json: {error}; remove the directory and start again") from None
        self.tokens = kept.get("tokens") or {
            name: secrets.token_hex(32) for name in ("as_token", "hs_token", "link_secret")
        }
        self.made = kept.get("made", {})
        ports = kept.get("ports", {})
        if kept and self.federated != ("partner" in ports):
            was = "without" if self.federated else "with"
            raise ConfigError(f"{self.directory}: it was made {was} --federated; give another directory with --dir")
        for name in _PORTS + (_FEDERATED if self.federated else ()):
            self.ports[name] = self._port(name, ports.get(name))
        if not self.federated:
            self.server_name = kept.get("server_name", self.server_name)
            return
        self.server_name = server_name(self.ports["federation"])
        if kept and kept["server_name"] != self.server_name:
            raise ConfigError(
                f"{self.directory}: port {ports['federation']} is taken, and the homeserver's name has it in it; "
                "free it or give another directory with --dir"
            )

    def _port(self, name: str, earlier: int | None) -> int:
        address = {"media": self.address, "web": self.page_address}.get(name, LOOPBACK)
        kinds = [socket.SOCK_STREAM] + ([socket.SOCK_DGRAM] if name == "media" else [])
        tries = [earlier] if earlier else []
        tries += random.sample(_RANGE, 200)
        for port in tries:
            if port not in self.ports.values() and _free(address, port, *kinds):
                return port
        raise ConfigError(f"{name}: no free port on {address} between {_RANGE[0]} and {_RANGE[-1]}; close some")

    def federation(self, port: str) -> FederationSettings | None:
        """The settings of the homeserver whose federation listener is ``ports[port]``; None where it is alone."""
        if not self.federated:
            return None
        names = (self.server_name, self.partner_name)
        return make_authority(self.directory / "authority").settings(self.ports[port], names)

    @property
    def partner_name(self) -> str:
        return server_name(self.ports["partner_federation"])

    def save(self) -> None:
        """Write ``state.json`` whole."""
        kept = {"server_name": self.server_name, "ports": self.ports, "tokens": self.tokens, "made": self.made}
        write_whole(self.directory / "state.json", json.dumps(kept, indent=1, ensure_ascii=False))

    def write_files(self, **stage: Any) -> None:
        """``config.yaml`` and ``registration.yaml`` (JSON, which is YAML). ``stage`` goes over the stage section."""
        write_whole(self.config, json.dumps(self._config(stage), indent=1))
        made = registration(load_config(self.config, {}))
        write_whole(self.registration, json.dumps(made, indent=1))
        self.save()

    def _config(self, stage: dict[str, Any]) -> dict[str, Any]:
        listen = {"hostname": LOOPBACK}
        return {
            "homeserver": {"address": self.homeserver, "domain": self.server_name},
            "appservice": {
                "address": f"http://{LOOPBACK}:{self.ports['appservice']}",
                "port": self.ports["appservice"],
                "as_token": self.tokens["as_token"],
                "hs_token": self.tokens["hs_token"],
                **listen,
            },
            "database": f"sqlite:///{self.directory / 'eyvan.db'}",
            "web": {
                "public_url": self.web,
                "port": self.ports["web"],
                "link_secret": self.tokens["link_secret"],
                "link_devices": 20,  # one shows a demo on many screens
                "hostname": self.page_address,
            },
            "media": {
                "bind": self.address,
                "port": self.ports["media"],
                "announce": [self.address],
                "workers": 1,
                **self.media,
            },
            "health": {"port": self.ports["health"], **listen},
            "stage": {"guests": True, "empty_grace_s": 86_400, **stage},
        }


def write_whole(path: Path, text: str) -> None:
    """Write so that ``path`` is there whole or not at all, readable by its owner alone (it holds tokens)."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)
