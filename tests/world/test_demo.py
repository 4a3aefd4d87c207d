"""`eyvan demo` as scripts use it: its report, its sound, a second start, two side by side, kills, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from bridge.demo.cast import ROLE
from bridge.demo.people import PageClient
from bridge.demo.synapse import Account, ClientApi
from tests.helpers.browser import Browser
from tests.helpers.hearing import TimedEar
from tests.helpers.tone import rms_dbfs
from tests.helpers.whep import WhepPlayer

pytestmark = pytest.mark.usefixtures("synapse_python")  # installed before, so that no start waits for it
HANG_S = 150
FIELDS = {"homeserver", "room_id", "stage", "web", "whep", "media_port", "users", "pids"}
USER_FIELDS = {"name", "role", "mxid", "password", "access_token", "link"}


@dataclass
class Demo:
    process: asyncio.subprocess.Process
    report: dict[str, Any]
    file: Path
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
        yield Demo(process, json.loads(file.read_text()), file, out)
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

        async with ClientSession() as http:
            guest = await WhepPlayer(http, report["whep"], None).play()
            await guest.client.hear(lambda heard: rms_dbfs(heard) > -35, HANG_S)
            assert await guest.delete() == 200
            await guest.close()

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


async def test_a_killed_worker_and_a_killed_bridge_come_back(tmp_path: Path, tell: Callable[[str], None]) -> None:
    ear = TimedEar()
    async with (
        demo(tmp_path / "killed") as one,
        one.client("maryam") as maryam,
        PageClient(one.user("omid")["link"], name="omid", ear=ear) as omid,
    ):
        report, room = one.report, one.report["room_id"]
        await maryam.put_state(room, ROLE, "_" + one.user("omid")["mxid"], {"role": "speaker"})
        await omid.wait(lambda c: c.me.can_speak and voice_since(ear, 0), HANG_S, "a voice, and to be on the stage")
        socket = omid._socket

        [worker] = children(report["pids"]["bridge"])
        gap = await gap_after_kill(worker, omid, ear)
        assert omid._socket is socket, "the sound alone is renewed: long before ICE gives the old connection up"
        assert json.loads(one.file.read_text()) == report

        roles, on_stage = await roles_of(maryam, room), {each.user for each in omid.speakers}
        whole = await gap_after_kill(report["pids"]["bridge"], omid, ear)
        async with asyncio.timeout(HANG_S):
            while (now := json.loads(one.file.read_text())) == report:  # noqa: ASYNC110  (another process writes it)
                await asyncio.sleep(0.05)
        bridge = now["pids"]["bridge"]
        assert now == {**report, "pids": {**report["pids"], "bridge": bridge}}, "nothing else is another"
        assert alive(bridge)
        assert bridge != report["pids"]["bridge"]
        assert omid.stage.id == report["stage"]
        assert await roles_of(maryam, room) == roles
        await omid.wait(
            lambda c: c.me.can_speak and {each.user for each in c.speakers} == on_stage, HANG_S, "as before"
        )
        said = one.out.read_text()
        assert f"the bridge (pid {report['pids']['bridge']}) ended with code -9; starting it again\n" in said
        assert f"the bridge is back (pid {bridge})\n" in said
        tell(f"voices again {gap:.1f} s after the worker's kill, {whole:.1f} s after the bridge's")
    assert one.process.returncode == 0, one.out.read_text()
    assert not one.file.exists()
    await until_gone([*now["pids"].values()])


def voice_since(ear: TimedEar, moment: float) -> float | None:
    """The first moment since then, by time.monotonic, at which somebody was heard."""
    return next((each.at for each in ear.since(moment) if rms_dbfs(each.samples) > -35), None)


async def gap_after_kill(pid: int, page: PageClient, ear: TimedEar) -> float:
    """Kill it and wait until that page has a new connection and hears a voice by it; seconds from one to the other."""
    connections, killed = page.connections, time.monotonic()
    os.kill(pid, signal.SIGKILL)
    await page.wait(lambda c: c.connections > connections and c.state == "live", HANG_S, "a new connection")
    back = time.monotonic()
    await page.wait(lambda _: voice_since(ear, back), HANG_S, "a voice")
    return (voice_since(ear, back) or 0) - killed


async def roles_of(api: ClientApi, room: str) -> dict[str, Any]:
    events = await api.get_all_state(room)
    return {each["state_key"]: (each["event_id"], each["content"]) for each in events if each["type"] == ROLE}


async def test_two_side_by_side_a_taken_directory_and_what_ends_a_demo(tmp_path: Path) -> None:
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

        (tmp_path / "right" / "config.yaml").write_text("homeserver: nobody\n")  # no further start succeeds
        os.kill(right.report["pids"]["bridge"], signal.SIGKILL)
        assert await asyncio.wait_for(right.process.wait(), HANG_S) == 1
        told = right.out.read_text()
        assert told.count("; starting it again\n") == 4
        assert "eyvan demo: the bridge ended with code 2, the 5th end within 60 s; the end of " in told
        assert "homeserver: 'nobody'" in told.rpartition("eyvan demo: ")[2], "the log's tail"
        await until_gone([right.report["pids"]["homeserver"]])
        assert not right.file.exists()

        assert alive(left.report["pids"]["bridge"]), "the other demo goes on"
        homeserver = left.report["pids"]["homeserver"]
        os.kill(homeserver, signal.SIGKILL)
        assert await asyncio.wait_for(left.process.wait(), HANG_S) == 1
        ended = f"eyvan demo: the homeserver eyvan.localhost (pid {homeserver}) ended with code -9; stopped all; "
        assert ended in left.out.read_text()
        assert not alive(left.report["pids"]["bridge"])


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
