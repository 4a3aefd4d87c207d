"""Two network namespaces joined by a veth pair, with no way out; what is sent and asked inside is recorded.

::

    A 203.0.113.1 ──veth── 203.0.113.2 B        no default route; the resolver of each is a recorder of ours

Needs root (CI is root). Without it a test fails with the remedy; ``EYVAN_WITHOUT_ROOT=1`` lets it be skipped, for a
developer's machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import re
import secrets
import shutil
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_ETC = Path("/etc/netns")  # what ip netns exec binds over /etc (ip-netns(8))
_CLONE_NEWNET = 0x4000_0000
_PROGRAMS = {"ip": "iproute2", "nft": "nftables", "strace": "strace"}
_CALLS = "connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


def require_root() -> None:
    """Fails the test (or skips it where the environment says so) unless namespaces can be made here."""
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        pytest.fail(f"apt-get install {' '.join(missing)}")
    if os.geteuid() == 0:
        return
    if os.environ.get("EYVAN_WITHOUT_ROOT") == "1":
        pytest.skip("EYVAN_WITHOUT_ROOT=1: network namespaces need root")
    pytest.fail("network namespaces need root: run as root, or set EYVAN_WITHOUT_ROOT=1 to do without this proof")


@dataclass
class Namespace:
    """One of the two. ``queries``: the names that its resolver was asked for, in order."""

    name: str
    address: str
    queries: list[str] = field(default_factory=list)

    def command(self, *argv: str) -> list[str]:
        """``argv``, to be run inside."""
        return ["ip", "netns", "exec", self.name, *argv]

    async def pids(self) -> list[int]:
        """The processes that are inside."""
        return [int(pid) for pid in (await _ip("netns", "pids", self.name)).split()]


@contextlib.asynccontextmanager
async def two_namespaces() -> AsyncIterator[tuple[Namespace, Namespace]]:
    """Made and removed; a process that is still inside at the end is killed."""
    tag = secrets.token_hex(3)
    pair = Namespace(f"eyvan-a-{tag}", "203.0.113.1"), Namespace(f"eyvan-b-{tag}", "203.0.113.2")
    async with contextlib.AsyncExitStack() as stack:
        for each in pair:
            await _ip("netns", "add", each.name)
            stack.push_async_callback(_remove, each)
        ends = f"ey{tag}a", f"ey{tag}b"
        await _ip(
            *("link", "add", ends[0], "netns", pair[0].name, "type", "veth"),
            *("peer", ends[1]),
            *("netns", pair[1].name),
        )
        for each, end in zip(pair, ends, strict=True):
            await _ip("-n", each.name, "addr", "add", f"{each.address}/24", "dev", end)
            for device in ("lo", end):
                await _ip("-n", each.name, "link", "set", device, "up")
            stack.enter_context(_recorder(each))
        yield pair


async def _remove(namespace: Namespace) -> None:
    for pid in await namespace.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await _ip("netns", "del", namespace.name)


async def _ip(*words: str) -> str:
    return await _run("ip", *words)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {output.decode()}")
    return output.decode()


# -- the resolver that records -------------------------------------------------------------------


@contextlib.contextmanager
def _recorder(namespace: Namespace) -> Iterator[None]:
    """The resolver of the namespace: notes the name and answers that there is none (RFC 1035 §4.1.1, RCODE 3)."""
    directory = _ETC / namespace.name
    directory.mkdir(parents=True)
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    listener = _socket_inside(namespace.name)
    loop = asyncio.get_running_loop()

    def answer() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                query, source = listener.recvfrom(4096)
                namespace.queries.append(_name_in(query))
                listener.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + _question(query), source)

    loop.add_reader(listener.fileno(), answer)
    try:
        yield
    finally:
        loop.remove_reader(listener.fileno())
        listener.close()
        shutil.rmtree(directory)


@contextlib.contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """This thread is in ``namespace``: what it opens and starts meanwhile, also in other tasks, belongs there for good.

    May be nested; what was open before stays where it is."""
    with open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as before:
        _enter(f"/run/netns/{namespace.name}")
        try:
            yield
        finally:
            _enter(f"/proc/self/fd/{before.fileno()}")


def _enter(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path) as place:
        if libc.setns(place.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


async def nft(namespace: Namespace, *commands: str) -> str:
    """Run nft commands inside, such as ``add table ip nat``; what they print."""
    output = ""
    for command in commands:
        output += await _run(*namespace.command("nft", command))
    return output


async def block_udp(namespace: Namespace) -> None:
    """From now on nothing that comes by UDP from elsewhere gets in, and nobody is told (``blocked_udp`` counts)."""
    await nft(
        namespace,
        "add table inet blocked",
        "add chain inet blocked in { type filter hook input priority 0; }",
        'add rule inet blocked in iifname != "lo" meta l4proto udp counter drop',
    )


async def blocked_udp(namespace: Namespace) -> int:
    """Datagrams dropped so far."""
    found = re.search(r"counter packets (\d+)", await nft(namespace, "list table inet blocked"))
    assert found is not None
    return int(found[1])


def _socket_inside(name: str) -> socket.socket:
    """A UDP socket on port 53 of the namespace's loopback. A socket stays in the namespace it was made in, so a
    thread goes inside, makes it, and ends."""
    made: list[socket.socket] = []

    def make() -> None:
        _enter(f"/run/netns/{name}")
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        made[0].bind(("127.0.0.1", 53))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def _question(query: bytes) -> bytes:
    at = 12
    while query[at]:
        at += query[at] + 1
    return query[12 : at + 5]


def _name_in(query: bytes) -> str:
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += query[at] + 1
    return ".".join(labels)


# -- the calls that are recorded -----------------------------------------------------------------


def traced(log: Path, *argv: str) -> list[str]:
    """``argv`` under strace: each call by which it or a child names where something shall go is a line in ``log``."""
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-e", f"trace={_CALLS}", "-e", "signal=none",
            "-o", str(log), *argv]  # fmt: skip


def destinations(log: Path) -> dict[str, str]:
    """Every IP address that a traced call named → the first such line."""
    found: dict[str, str] = {}
    with log.open(errors="replace") as lines:
        for line in lines:
            for four, six in _ADDRESS.findall(line):
                found.setdefault(four or six, line.strip())
    return found


def outside(addresses: dict[str, str], inside: tuple[Namespace, ...]) -> dict[str, str]:
    """Those that are neither loopback nor an address of ``inside``."""
    known = {each.address for each in inside}
    return {
        address: line
        for address, line in addresses.items()
        if address not in known and not _is_loopback(address)
    }  # fmt: skip


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
