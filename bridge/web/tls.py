"""TLS that came to the port of page and sound (``media.tcp_single_port``): served here, or passed on to a proxy."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError

log = logging.getLogger(__name__)

_HANDSHAKE_S = 10.0
_CONNECT_S = 5.0
_MOST = 4_000  # connections at once; further ones are closed
_BUFFER = 64 * 1024  # bytes on their way in one direction; then its sender waits
_READ = 16 * 1024


class _Takes:
    """Owns a task for each connection that it takes, until ``close`` joins them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0

    def _run(self, connection: socket.socket, steps: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> None:
        if len(self._tasks) >= _MOST:
            self.refused += 1
            connection.close()
            return
        task = asyncio.create_task(self._quietly(connection, steps))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _quietly(connection: socket.socket, steps: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> None:
        """What goes wrong with one connection ends it, and says nothing about us."""
        try:
            await steps(connection)
        except (OSError, TimeoutError, ssl.SSLError) as error:
            log.debug("a connection ended: %s", error)
            connection.close()

    async def close(self) -> None:
        """Harmless twice."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class OwnTls(_Takes):
    """Serves the page with a certificate of ours. ``protocol`` makes aiohttp's side of a connection. Files that have
    changed since (a renewed certificate) are read again for the next connection."""

    def __init__(self, certificate: Path, private_key: Path, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Raises ConfigError naming the file."""
        super().__init__()
        self._files, self._protocol = (certificate, private_key), protocol
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.set_alpn_protocols(["http/1.1"])
        try:
            self._read = self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"web.tls_certificate, web.tls_key: {error}; give PEM files that belong together"
            ) from None

    def _load(self) -> tuple[int, ...]:
        read = self._changed()
        self._context.load_cert_chain(*self._files)
        return read

    def _changed(self) -> tuple[int, ...]:
        return tuple(each.stat().st_mtime_ns for each in self._files)

    def take(self, connection: socket.socket) -> None:
        """The socket is this one's from now on."""
        try:
            if self._changed() != self._read:
                self._read = self._load()
        except (OSError, ssl.SSLError) as error:
            log.error("the renewed certificate cannot be used, the one before is: %s", error)
        self._run(connection, self._serve)

    async def _serve(self, connection: socket.socket) -> None:
        """Until the handshake is done; then the connection is the web server's."""
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            self._protocol, connection, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_S
        )


class PassOn(_Takes):
    """Passes connections on to a proxy that serves the page, with a PROXY line in front that says from where they came
    (haproxy's PROXY protocol, version 1)."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._host, self._port = host, port

    def take(self, connection: socket.socket) -> None:
        """The socket is this one's from now on."""
        self._run(connection, self._pass)

    async def _pass(self, connection: socket.socket) -> None:
        line = proxy_line(connection.getpeername(), connection.getsockname())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        async with asyncio.timeout(_CONNECT_S):
            upstream, to_proxy = await asyncio.open_connection(self._host, self._port, limit=_BUFFER)
        downstream, to_browser = await asyncio.open_connection(sock=connection, limit=_BUFFER)
        to_proxy.write(line)
        try:
            await asyncio.gather(_pump(downstream, to_proxy), _pump(upstream, to_browser))
        finally:
            to_proxy.close()
            to_browser.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has nothing more to say, which the other is told."""
    while data := await reader.read(_READ):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def proxy_line(remote: tuple[Any, ...], local: tuple[Any, ...]) -> bytes:
    """The PROXY protocol, version 1, §2.1."""
    family = "TCP6" if ":" in remote[0] else "TCP4"
    return (
        f"PROXY {family} {remote[0].partition('%')[0]} {local[0].partition('%')[0]} {remote[1]} {local[1]}\r\n".encode()
    )
