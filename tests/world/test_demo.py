"""`eyvan demo` as scripts use it: its report, its sound, a second start, two side by side, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from bridge.demo.people import PageClient
from bridge.demo.synapse import Account, ClientApi
from tests.helpers.browser import Browser
from tests.helpers.tone import rms_dbfs

pytestmark = pytest.mark.usefixtures("synapse_python")  # installed before, so that no start waits for it
HANG_S = 150
FIELDS = {"homeserver", "room_id", "stage", "web", "whep", "media_port", "users", "pids"}
USER_FIELDS = {"name", "role", "mxid", "password", "access_token", "link"}


@dataclass
class Demo:
    process: asyncio.subprocess.Process
    report: dict[str, Any]
    out: Path

    def user(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(each for each in self.report["users"] if each["name"] == name)
        return found

    def client(self, name: str) -> ClientApi:
        user = self.user(name)
        account = Account(user["mxid"], user["password"], user["access_token"], "")
        return ClientApi(self.report["partner" if name == "parisa" else "homeserver"], account)


@asynccontextmanager
async def demo(directory: Path, *arguments: str) -> AsyncIterator[Demo]:
    """A running demo in ``directory``; ended by SIGINT, as Ctrl-C does."""
    file, out = directory.with_suffix(".json"), directory.with_suffix(".out")
    command = ("-m", "bridge", "demo", "--headless", "--json", str(file), "--dir", str(directory), *arguments)
    with out.open("ab") as output:
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=output, stderr=output)
    try:
        async with asyncio.timeout(HANG_S):
            while not file.exists():
                assert process.returncode is None, out.read_text()
                await asyncio.sleep(0.05)
        yield Demo(process, json.loads(file.read_text()), out)
    except TimeoutError:
        raise AssertionError(out.read_text()) from None
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), HANG_S)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until_gone(pids: list[int]) -> None:
    """Until none of these processes lives. Raises TimeoutError."""
    async with asyncio.timeout(HANG_S):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110  (they are not our children)
            await asyncio.sleep(0.05)


async def test_report_sound_role_end_and_second_start(tmp_path: Path) -> None:
    async with demo(tmp_path / "one") as one:
        report = one.report
        assert set(report) == FIELDS
        assert all(set(user) == USER_FIELDS for user in report["users"])
        assert {user["role"] for user in report["users"]} == {"moderator", "speaker", "listener"}
        assert set(report["pids"]) == {"homeserver", "bridge"}
        pids = [*report["pids"].values(), *children(report["pids"]["bridge"])]
        assert len(pids) >= 3, "media workers are children of the bridge"

        async with PageClient(one.user("omid")["link"], name="omid") as omid:
            assert omid.stage.id == report["stage"]
            await omid.wait(lambda c: rms_dbfs(c.recent(2)) > -35, HANG_S, "a voice")
            await omid.wait(lambda c: c.levels, HANG_S, "who talks")
            async with one.client("maryam") as maryam:
                key = "_" + one.user("omid")["mxid"]
                await maryam.put_state(report["room_id"], "im.eyvan.role", key, {"role": "speaker"})
            await omid.wait(lambda c: c.me.can_speak, HANG_S, "to be put on air by plain state")

        async with Browser.launch("chromium") as browser:
            page = await browser.open(f"{report['web']}/s/{report['stage']}")
            await page.wait("document.documentElement.dataset.connection === 'live'", HANG_S)
            while rms_dbfs(await page.hear(1.0)) < -35:
                pass

    assert one.process.returncode == 0, one.out.read_text()
    await until_gone(pids)
    assert not (tmp_path / "one.json").exists(), "a report says that a demo is ready"

    async with demo(tmp_path / "one") as second:
        same = ("homeserver", "room_id", "stage", "web", "media_port")
        assert {name: second.report[name] for name in same} == {name: one.report[name] for name in same}
        for before, now in zip(one.report["users"], second.report["users"], strict=True):
            assert now["access_token"] == before["access_token"]
        async with PageClient(second.user("omid")["link"]) as omid:
            await omid.wait(lambda c: rms_dbfs(c.recent(2)) > -35, HANG_S, "a voice")


async def test_two_side_by_side_a_taken_directory_and_a_dead_bridge(tmp_path: Path) -> None:
    async with demo(tmp_path / "left") as left, demo(tmp_path / "right") as right:
        for name in ("homeserver", "web", "media_port"):
            assert left.report[name] != right.report[name]
        async with ClientSession() as http:
            for each in (left, right):
                async with http.get(f"{each.report['web']}/s/{each.report['stage']}") as response:
                    assert response.status == 200

        third = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "demo", "--headless", "--dir", str(tmp_path / "left")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await third.communicate()
        assert third.returncode == 2
        assert said.decode() == (
            f"eyvan demo: {tmp_path}/left: a demo is running in it; stop that or give another --dir\n"
        )

        os.kill(right.report["pids"]["bridge"], signal.SIGKILL)
        assert await asyncio.wait_for(right.process.wait(), HANG_S) == 1
        assert "eyvan demo: the bridge ended with code -9" in right.out.read_text()
        await until_gone([right.report["pids"]["homeserver"]])
        assert alive(left.report["pids"]["bridge"]), "the other demo goes on"


async def test_the_other_homeserver_puts_somebody_on_air(tmp_path: Path) -> None:
    async with demo(tmp_path / "federated", "--federated") as both:
        assert set(both.report) == {*FIELDS, "partner"}
        assert set(both.report["pids"]) == {"homeserver", "bridge", "partner"}
        async with PageClient(both.user("omid")["link"]) as omid, both.client("parisa") as parisa:
            assert not omid.me.can_speak
            key = "_" + both.user("omid")["mxid"]
            await parisa.put_state(both.report["room_id"], "im.eyvan.role", key, {"role": "speaker"})
            await omid.wait(lambda c: c.me.can_speak, HANG_S, "to be put on air by the other homeserver")
    await until_gone([*both.report["pids"].values()])
