"""A real Synapse on this machine, for the demo and for tests: made, started, filled with users, stopped.

Everything of one homeserver is in one directory (``homeserver.yaml``, SQLite database, keys, log); a second start
with the same directory takes up the same data. Configuration keys are those of Synapse's configuration manual.
It calls nobody: no key server, no statistics, no previews, no push, and federation only with the named servers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bridge.demo.child import start_child, until_ready
from bridge.demo.client_api import Account, ClientApi, call
from bridge.errors import ConfigError, MatrixRefused
from bridge.ids import UserId

__all__ = ["SYNAPSE_VERSION", "Account", "ClientApi", "FederationSettings", "LocalSynapse", "ensure_synapse"]

SYNAPSE_VERSION = "1.163.2"
_START_LIMIT_S = 120  # a first start makes the database: 8 s on an idle core, far more on a busy one
_STOP_LIMIT_S = 15
_LOG_TAIL = 2_000  # characters
_PLENTY = {"per_second": 10_000, "burst_count": 10_000}

# The distribution's version: synapse.__version__ has the branch of a git checkout around it added.
_PROBE = f"""
import importlib.metadata, sys, synapse.app
sys.exit(importlib.metadata.version("matrix-synapse") != {SYNAPSE_VERSION!r})
"""


@dataclass(frozen=True, slots=True)
class FederationSettings:
    """A TLS listener for other homeservers. ``ca`` signs every server in ``allow`` (server names) and nothing else."""

    port: int
    certificate: Path
    key: Path
    ca: Path
    allow: tuple[str, ...]


async def ensure_synapse(venv: Path, progress: Callable[[str], None]) -> Path:
    """The Python of a venv that holds Synapse, made where it is missing or broken.

    ``progress`` is called with what is being done now, one short sentence. Raises ConfigError with the remedy."""
    python = venv / "bin" / "python"
    async with _alone(venv.with_name(venv.name + ".lock"), progress):
        if python.exists() and (await _run(str(python), "-c", _PROBE))[0] == 0:
            return python
        progress(f"making {venv}")
        code, output = await _run(sys.executable, "-m", "venv", "--clear", str(venv))
        if code:
            raise ConfigError(f"{venv}: python -m venv failed ({output}); apt install python3-venv")
        package = f"matrix-synapse=={SYNAPSE_VERSION}"
        progress(f"installing Synapse {SYNAPSE_VERSION} (about a minute, once)")
        code, output = await _run(str(python), "-m", "pip", "install", "-q", package)
        if code:
            raise ConfigError(f"pip install {package} failed ({output}); is a package index reachable?")
    return python


@contextlib.asynccontextmanager
async def _alone(lock: Path, progress: Callable[[str], None]) -> AsyncIterator[None]:
    """Two demos that start at once must not make the same venv; the lock goes with its holder's end (flock(2))."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    progress("waiting for another start that installs Synapse")
                    told = True
                await asyncio.sleep(0.2)
        yield


async def _run(*command: str) -> tuple[int, str]:
    """Exit code and the last line of what the command said."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    lines = output.decode(errors="replace").strip().splitlines()
    return process.returncode or 0, lines[-1] if lines else ""


class LocalSynapse:
    """One homeserver process. Owned by one task: ``start``, calls, ``stop``; ``stop`` twice is harmless.

    ``registration`` is the appservice's registration file, ``python`` an interpreter that has Synapse, ``extra`` is
    laid over the configuration (for tests of limits)."""

    def __init__(
        self,
        directory: Path,
        server_name: str,
        port: int,
        registration: Path | None,
        python: Path,
        *,
        federation: FederationSettings | None = None,
        address: str = "127.0.0.1",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory, self.server_name, self.port = directory, server_name, port
        self.url = f"http://{address}:{port}"
        self._registration, self._python, self._address = registration, python, address
        self._federation, self._extra = federation, dict(extra or {})
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    def user_id(self, name: str) -> UserId:
        return UserId(f"@{name}:{self.server_name}")

    # Configuration

    def write_config(self) -> Path:
        """Write ``homeserver.yaml`` (JSON, which is YAML) and what it names; secrets and keys already there stay."""
        self.directory.mkdir(parents=True, exist_ok=True)
        signing_key = self.directory / "signing.key"
        if not signing_key.exists():
            _write_private(signing_key, f"ed25519 a_eyvan {_unpadded_base64(secrets.token_bytes(32))}\n")
        (self.directory / "log.yaml").write_text(json.dumps(self._log_config(), indent=1))
        config = self.directory / "homeserver.yaml"
        _write_private(config, json.dumps(self._config(signing_key), indent=1))
        return config

    def _config(self, signing_key: Path) -> dict[str, Any]:
        federation = self._federation
        listener = {"port": self.port, "bind_addresses": [self._address], "type": "http", "tls": False}
        config: dict[str, Any] = {
            "server_name": self.server_name,
            "public_baseurl": f"{self.url}/",
            "listeners": [{**listener, "resources": [{"names": ["client", "openid"], "compress": False}]}],
            "database": {"name": "sqlite3", "args": {"database": str(self.directory / "homeserver.db")}},
            "media_store_path": str(self.directory / "media"),
            "signing_key_path": str(signing_key),
            "log_config": str(self.directory / "log.yaml"),
            "app_service_config_files": [str(self._registration)] if self._registration else [],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "report_stats": False,
            "url_preview_enabled": False,
            "push": {"enabled": False},
            "presence": {"enabled": False},
            "stats": {"enabled": False},
            "enable_registration": False,
            # Two first syncs of one person within 2 minutes would get one answer.
            "caches": {"sync_response_cache_duration": "0s"},
            "bcrypt_rounds": 4,  # logins of a demo: speed, not safety
            "federation_domain_whitelist": list(federation.allow) if federation else [],
            **_secrets(self.directory / "secrets.json"),
            **_LIMITS,
        }
        if federation:
            config |= self._federation_config(federation, listener, config["listeners"])
        return config | self._extra

    def _federation_config(
        self, federation: FederationSettings, listener: Mapping[str, Any], plain: list[Any]
    ) -> dict[str, Any]:
        resources = [{"names": ["federation", "keys"], "compress": False}]
        return {
            "listeners": [*plain, {**listener, "port": federation.port, "tls": True, "resources": resources}],
            "tls_certificate_path": str(federation.certificate),
            "tls_private_key_path": str(federation.key),
            "federation_custom_ca_list": [str(federation.ca)],
            "federation_verify_certificates": True,
            # Loopback and private ranges are refused by default; here they are all there is.
            "federation_ip_range_blacklist": [],
            "ip_range_blacklist": [],
            "allow_public_rooms_over_federation": True,
            # One failure (the other is still starting) would count it as gone for 10 minutes.
            "federation": {
                "destination_min_retry_interval": "1s",
                "destination_max_retry_interval": "2s",
                "destination_retry_multiplier": 1,
            },
        }

    def _log_config(self) -> dict[str, Any]:
        handler = {
            "class": "logging.handlers.RotatingFileHandler",
            "formatter": "line",
            "filename": str(self.directory / "synapse.log"),
            "maxBytes": 20_000_000,
            "backupCount": 2,
        }
        return {
            "version": 1,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {"file": handler},
            "root": {"level": "INFO", "handlers": ["file"]},
            "disable_existing_loggers": False,
        }

    # Life

    async def start(self) -> None:
        """Start and return when it answers. Raises Unavailable with the end of its log where it dies or hangs."""
        if self.pid:
            return
        config = self.write_config()
        self._process = await start_child(
            *(str(self._python), "-m", "synapse.app.homeserver", "-c", str(config)),
            output=self.directory / "synapse.out",
            dies_by=signal.SIGKILL,
            cwd=self.directory,
        )
        try:
            await until_ready(self._process, f"Synapse on {self.url}", self._ask, _START_LIMIT_S, self.log_tail)
        except BaseException:
            await self.stop()
            raise

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        async with http.get(f"{self.url}/health") as response:
            response.raise_for_status()
        await call(http, self.url, "GET", "/_matrix/client/versions")

    async def wait(self) -> int:
        """Until it has ended by itself; its exit code."""
        assert self._process
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process and wait until it is gone; killed if it does not end within a few seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            await _signal_and_wait(process, signal.SIGTERM, _STOP_LIMIT_S)
        except TimeoutError:
            await _signal_and_wait(process, signal.SIGKILL, None)
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise

    def log_tail(self) -> str:
        """The end of what it printed and logged."""
        texts = []
        for name in ("synapse.out", "synapse.log"):
            with contextlib.suppress(FileNotFoundError):
                texts.append((self.directory / name).read_text(errors="replace")[-_LOG_TAIL:])
        return f"the end of {self.directory}/synapse.log:\n" + "\n".join(texts)

    # Users

    async def register(self, name: str, password: str, admin: bool = False) -> Account:
        """A new user, signed in. Raises MatrixRefused (M_USER_IN_USE where the name is taken).

        Synapse admin API, "Shared-secret registration"."""
        secret = json.loads((self.directory / "secrets.json").read_text())["registration_shared_secret"]
        async with aiohttp.ClientSession() as http:
            path = "/_synapse/admin/v1/register"
            nonce = (await call(http, self.url, "GET", path))["nonce"]
            parts = (nonce, name, password, "admin" if admin else "notadmin")
            mac = hmac.new(secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
            body = {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac}
            return _account(await call(http, self.url, "POST", path, body), password)

    async def login(self, name: str, password: str) -> Account:
        """A new device of a user who exists. Raises MatrixRefused (M_FORBIDDEN for a wrong name or password)."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": password,
        }
        async with aiohttp.ClientSession() as http:
            return _account(await call(http, self.url, "POST", "/_matrix/client/v3/login", body), password)

    async def register_or_login(self, name: str, password: str) -> Account:
        """For a second start with the same directory."""
        try:
            return await self.register(name, password)
        except MatrixRefused as error:
            if error.errcode != "M_USER_IN_USE":
                raise
        return await self.login(name, password)

    def client(self, account: Account) -> ClientApi:
        return ClientApi(self.url, account)


_LIMITS: dict[str, Any] = {
    "rc_message": _PLENTY,
    "rc_registration": _PLENTY,
    "rc_login": {"address": _PLENTY, "account": _PLENTY, "failed_attempts": _PLENTY},
    "rc_admin_redaction": _PLENTY,
    "rc_joins": {"local": _PLENTY, "remote": _PLENTY},
    "rc_joins_per_room": _PLENTY,
    "rc_invites": {"per_room": _PLENTY, "per_user": _PLENTY, "per_issuer": _PLENTY},
    "rc_room_creation": _PLENTY,
    "rc_profile": _PLENTY,
    "rc_federation": {"sleep_limit": 10_000, "reject_limit": 10_000, "concurrent": 50},
}


async def _signal_and_wait(process: asyncio.subprocess.Process, number: signal.Signals, limit_s: float | None) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    async with asyncio.timeout(limit_s):
        await process.wait()


def _account(answer: Mapping[str, Any], password: str) -> Account:
    return Account(UserId(answer["user_id"]), password, answer["access_token"], answer["device_id"])


def _secrets(path: Path) -> dict[str, str]:
    """Made at the first start and kept: signed-in devices stay so."""
    if not path.exists():
        names = ("registration_shared_secret", "macaroon_secret_key", "form_secret")
        _write_private(path, json.dumps({name: secrets.token_urlsafe(32) for name in names}))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _unpadded_base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
