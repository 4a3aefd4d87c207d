"""The one UDP port of a worker: its sockets (one for each family), batched receive, send, what to announce."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

import ifaddr

from bridge.media.stun import Address

_BATCH = 256  # datagrams read before the loop may do something else: the tick must not wait for a flood
_MAX_DATAGRAM = 2048
_BUFFER = 4 << 20
_TRIES = 20


class Port:
    """Owns its sockets; ``on_datagram(data, address)`` is called in the loop for each datagram, and may not raise.

    ``send`` never blocks and never raises: what the kernel does not take is counted and lost, as on any path."""

    def __init__(self, bind: str, port: int) -> None:
        """Raises OSError where the address or port cannot be had."""
        self.send_errors = 0
        self._sockets = _open(bind, port)
        self._v4 = next((each for each in self._sockets if each.family == socket.AF_INET), None)
        self._v6 = next((each for each in self._sockets if each.family == socket.AF_INET6), None)
        self.port: int = self._sockets[0].getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def descriptors(self) -> tuple[int, int]:
        """File descriptors for IPv4 and IPv6, -1 for none; good until ``close``."""
        return tuple(-1 if each is None else each.fileno() for each in (self._v4, self._v6))  # type: ignore[return-value]

    @property
    def families(self) -> set[int]:
        """4, 6 or both."""
        return {4 if each.family == socket.AF_INET else 6 for each in self._sockets}

    def start(self, on_datagram: Callable[[bytes, Address], None]) -> None:
        self._loop = asyncio.get_running_loop()
        for each in self._sockets:
            self._loop.add_reader(each.fileno(), self._receive, each, on_datagram)

    def _receive(self, source: socket.socket, on_datagram: Callable[[bytes, Address], None]) -> None:
        for _ in range(_BATCH):
            try:
                data, address = source.recvfrom(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.send_errors += 1  # an ICMP error about something we sent
                return
            on_datagram(data, address)

    def send(self, datagram: bytes, address: Address) -> None:
        through = self._v4 if len(address) == 2 else self._v6 if len(address) == 4 else None
        if through is None:
            return
        try:
            through.sendto(datagram, address)
        except OSError:
            self.send_errors += 1

    def close(self) -> None:
        for each in self._sockets:
            if each.fileno() >= 0 and self._loop is not None:
                self._loop.remove_reader(each.fileno())
            each.close()


def _open(bind: str, port: int) -> list[socket.socket]:
    if bind:
        family = socket.AF_INET6 if ipaddress.ip_address(bind).version == 6 else socket.AF_INET
        return [_bound(family, bind, port)]
    for attempt in range(_TRIES):
        first = _bound(socket.AF_INET, "0.0.0.0", port)  # noqa: S104
        try:
            return [first, _bound(socket.AF_INET6, "::", first.getsockname()[1])]
        except OSError as error:
            if not socket.has_ipv6 or error.errno in (97, 99):  # EAFNOSUPPORT, EADDRNOTAVAIL: no IPv6 here
                return [first]
            first.close()
            if port or attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


def addresses_of_interfaces() -> list[str]:
    """This machine's addresses that others may reach, IPv4 first. Loopback only if there is no other;
    link-local never (they mean nothing without a zone). Asks the kernel alone."""
    found = []
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            text = each.ip if isinstance(each.ip, str) else each.ip[0]
            found.append(ipaddress.ip_address(text.split("%", 1)[0]))
    usable = [each for each in found if not (each.is_loopback or each.is_link_local or each.is_unspecified)]
    ordered = sorted(dict.fromkeys(usable), key=lambda each: each.version)
    return [str(each) for each in ordered] or ["127.0.0.1"]


def announced(bind: str, announce: tuple[str, ...], families: set[int]) -> tuple[str, ...]:
    """The addresses of our candidates: as configured, else the one we are bound to, else the interfaces'.

    Raises ValueError for one that is no IP address, or where none is left."""
    wanted = announce or ((bind,) if bind and not ipaddress.ip_address(bind).is_unspecified else ())
    if announce:
        return tuple(str(ipaddress.ip_address(each)) for each in wanted)
    found = wanted or tuple(addresses_of_interfaces())
    usable = tuple(each for each in found if ipaddress.ip_address(each).version in families)
    if not usable:
        raise ValueError(f"no address to announce among {', '.join(found)}; set media.announce")
    return usable
