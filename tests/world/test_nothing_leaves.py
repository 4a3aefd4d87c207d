"""Nothing leaves the machine: a whole evening and its listeners between two namespaces that have no way out.

In A the demo runs as anybody starts it (homeserver, bridge, media worker, people who talk), in B a listener by the
page's protocol and one in real Chromium. strace keeps every address that our processes and Synapse name to the kernel,
a resolver of ours every name they ask for, the browser every request, session description and candidate of the page.
A probe inside the same trace proves first that the recorders see what they must. What Chromium asks on its own account
is not ours: it is told, and goes nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helpers import far_ear
from tests.helpers.netns import Namespace, destinations, outside, require_root, traced, two_namespaces

ROOT = Path(__file__).parents[2]
HANG_S = 240
PROBE_ADDRESS, PROBE_NAME = "198.51.100.77", "probe.example"
PROBE = f"""
import contextlib, os, socket, sys
with contextlib.suppress(OSError):
    socket.create_connection(("{PROBE_ADDRESS}", 443), timeout=5)
with contextlib.suppress(OSError):
    socket.getaddrinfo("{PROBE_NAME}", 443)
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextlib.asynccontextmanager
async def demo_in(place: Namespace, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """The demo with the probe before it, under strace; yields its report."""
    report = directory / "demo.json"
    command = [sys.executable, "-m", "bridge", "demo", "--headless", "--address", place.address]
    command += ["--json", str(report), "--dir", str(directory / "demo")]
    with (directory / "demo.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *place.command(*traced(directory / "demo.trace", sys.executable, "-c", PROBE, *command)),
            cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        async with asyncio.timeout(HANG_S):
            while not report.exists():
                assert process.returncode is None, (directory / "demo.log").read_text()
                await asyncio.sleep(0.1)
        yield json.loads(report.read_text())
    finally:
        _end_traced(process.pid)
        await asyncio.wait_for(process.wait(), HANG_S)


def _end_traced(tracer: int) -> None:
    """SIGTERM to the demo, not to strace, which would let go of it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for pid in Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split():
            os.kill(int(pid), signal.SIGTERM)


async def listen(place: Namespace, kind: str, link: str, trace: Path | None) -> dict[str, Any]:
    """What a listener in ``place`` heard and did."""
    command = [sys.executable, "-m", "tests.helpers.far_ear", kind, link]
    process = await asyncio.create_subprocess_exec(
        *place.command(*(traced(trace, *command) if trace else command)),
        cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(HANG_S):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.timeout(2 * HANG_S)
async def test_nothing_leaves(synapse_python: Path, tmp_path: Path, tell: Callable[[str], None]) -> None:
    require_root()
    async with two_namespaces() as (a, b):
        async with demo_in(a, tmp_path) as report:
            assert urlsplit(report["web"]).hostname == a.address
            link = next(user["link"] for user in report["users"] if user["name"] == "omid")
            by_protocol = await listen(b, "page", link, tmp_path / "page.trace")
            asked_by_page = list(b.queries)
            in_browser = await listen(b, "chromium", link, None)
        assert await a.pids() == [], "the demo left processes behind"

    assert by_protocol["dbfs"] > far_ear.VOICE_DBFS
    assert in_browser["dbfs"] > far_ear.VOICE_DBFS, in_browser["console"]
    assert_our_processes_stayed_inside(tmp_path, (a, b), asked_by_page)
    assert_the_page_stayed_inside(in_browser, report, (a, b))
    own = sorted(set(b.queries) - set(asked_by_page))
    heard = f"heard at {by_protocol['dbfs']:.0f} dBFS, in Chromium at {in_browser['dbfs']:.0f} dBFS"
    tell(f"{heard}; Chromium itself asked for {own}")


def assert_our_processes_stayed_inside(traces: Path, inside: tuple[Namespace, ...], asked_by_page: list[str]) -> None:
    of_demo, of_page = destinations(traces / "demo.trace"), destinations(traces / "page.trace")
    # The recorders work: they show the probe, and the sound that went over.
    assert PROBE_ADDRESS in of_demo
    assert PROBE_NAME in inside[0].queries
    assert inside[1].address in of_demo
    assert inside[0].address in of_page

    assert set(outside(of_demo, inside)) == {PROBE_ADDRESS}, outside(of_demo, inside)
    assert outside(of_page, inside) == {}
    assert set(inside[0].queries) == {PROBE_NAME}
    assert asked_by_page == []


def assert_the_page_stayed_inside(seen: dict[str, Any], report: dict[str, Any], inside: tuple[Namespace, ...]) -> None:
    web = urlsplit(report["web"])
    requests = [urlsplit(url) for url in seen["requests"]]
    assert {"http", "ws"} <= {each.scheme for each in requests}, seen["requests"]
    leaving = [each.geturl() for each in requests if each.scheme not in ("data", "blob") and each.netloc != web.netloc]
    assert leaving == []

    known = {each.address for each in inside}
    assert seen["peers"], "the page made no peer connection that we saw"
    for peer in seen["peers"]:
        assert not (peer["settings"] or {}).get("iceServers"), peer["settings"]
        addresses = _addresses(peer["offer"]) | _addresses(peer["answer"])
        addresses |= {each["address"] for each in peer["candidates"] if each["address"]}
        assert inside[0].address in addresses
        assert {each for each in addresses if not _is_here(each, known)} == set()
        assert {each["type"] for each in peer["candidates"]} <= {"host", "prflx"}  # srflx, relay: somebody was asked


def _addresses(sdp: str) -> set[str]:
    """Of candidates and of c= lines (RFC 8839 §5.1, RFC 8866 §5.7)."""
    return set(re.findall(r"^a=candidate:(?:\S+ ){4}(\S+)", sdp, re.M)) | set(
        re.findall(r"^c=IN IP[46] (\S+)", sdp, re.M)
    )


def _is_here(address: str, known: set[str]) -> bool:
    """A namespace's own, the unspecified one of a c= line, or an mDNS name, which is never asked beyond the link."""
    if address in known or re.fullmatch(r"[0-9a-f-]{36}\.local", address):
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_unspecified or parsed.is_loopback or parsed.is_link_local
