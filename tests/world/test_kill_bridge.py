"""The bridge is killed (SIGKILL) at 20 moments of a live stage, while roles, cuts and hands are on their way.

After each restart the same is asked: do room state, the store and every page agree, is heard who may be heard and,
frame by frame since the kill, nobody else; did the pages and the sound come back by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge.demo.cast import ROLE
from bridge.demo.people import PageClient, RequestRefused
from bridge.errors import Unavailable
from tests.helpers.hearing import TimedEar, until
from tests.helpers.tap import MOMENTS, Tap, rows, tapped
from tests.helpers.tone import sine
from tests.helpers.world import StageHandle, World, running_world

SEED = 7411
KILLS = 20
HANG_S = 90
TONES = {"ava": 450, "ben": 700, "cyrus": 1000}  # no harmonic or difference of one is another
PAGES = ("host", "ava", "ben", "cyrus", "dara")
MEMBERS = (*PAGES, "eli", "fay")
LATE_S = 0.5  # what was on its way at a kill, or at a change that the page had shown, has been heard by then
Allowed = frozenset[str]


@dataclass
class Scene:
    """A live stage: ava speaks throughout, ben is muted and moved by the host's page, cyrus promoted and demoted by
    plain state events; eli and fay raise hands by events, dara by her page. dara's ear is the proof."""

    world: World
    tap: Tap
    stage: StageHandle
    rng: random.Random
    pages: dict[str, PageClient]
    ear: TimedEar
    hands: dict[str, bool] = field(default_factory=lambda: {"eli": False, "fay": False})
    silent_since: dict[str, float] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.world.site.directory / "eyvan.db"

    def user(self, name: str) -> str:
        return self.world.users[name].user

    # -- what is true ----------------------------------------------------------------------------

    async def roles(self) -> dict[str, dict[str, Any]]:
        """user → content of the role events in room state."""
        events = await self.stage.host.get_all_state(self.stage.room_id)
        return {each["state_key"][1:]: each["content"] for each in events if each["type"] == ROLE and each["content"]}

    async def queue(self) -> list[str]:
        content = await self.stage.host.get_state(self.stage.room_id, "im.eyvan.queue") or {}
        return [hand["user"] for hand in content.get("hands", ()) if content["stage_id"] == self.stage.stage_id]

    def stored_hands(self) -> list[str]:
        saved = [json.loads(text) for (text,) in rows(self.database, "SELECT saved FROM eyvan_stage")]
        return [hand["user"] for each in saved if each["stage_id"] == self.stage.stage_id for hand in each["hands"]]

    def cuts(self) -> list[dict[str, Any]]:
        return [json.loads(text) for (text,) in rows(self.database, "SELECT cut FROM eyvan_cut")]

    def allowed(self, roles: dict[str, dict[str, Any]], cuts: list[dict[str, Any]]) -> Allowed:
        """Who of the three may be heard."""
        cut = {each["user"] for each in cuts}
        return frozenset(
            name
            for name in TONES
            if (role := roles.get(self.user(name), {})).get("role") in ("speaker", "moderator")
            and not role.get("muted")
            and self.user(name) not in cut
        )

    def away(self) -> list[str]:
        """Whose page has no connection now."""
        return [name for name, page in self.pages.items() if page.state != "live" or not page.media_connected]

    # -- what happens ----------------------------------------------------------------------------

    async def turn_cyrus(self) -> None:
        roles = await self.roles()
        up = roles.get(self.user("cyrus"), {}).get("role") != "speaker"
        if up:
            self.silent_since.pop("cyrus", None)
        await self.world.set_role(self.stage, "cyrus", "speaker" if up else "listener")

    async def turn_ben(self) -> None:
        """By the host's page: a cut where he may speak, a grant where not."""
        person = self.pages["host"].speaker(self.user("ben"))
        if person is None:
            self.silent_since.pop("ben", None)
            await self.pages["host"].act("bring_up", self.user("ben"))
        elif person.mic == "muted":
            self.silent_since.pop("ben", None)
            await self.pages["host"].act("unmute", self.user("ben"))
        else:
            await self.pages["host"].act(self.rng.choice(("mute", "to_audience")), self.user("ben"))

    async def let_ben_speak(self) -> None:
        """So that the next turn cuts him off."""
        while "ben" not in await settled(self):
            await self.turn_ben()

    async def turn_hand(self, name: str) -> None:
        raised = self.hands[name] = not self.hands[name]
        await self.world.users[name].send(self.stage.room_id, {"raised": raised}, "im.eyvan.hand")

    async def turn_dara(self) -> None:
        await self.pages["dara"].hand(self.pages["dara"].me.hand is None)

    async def everything(self) -> None:
        """All at once, in a random order; a page's request may be cut off by the kill."""
        works = [self.turn_cyrus(), self.turn_ben(), self.turn_hand("eli"), self.turn_hand("fay")]
        if self.rng.random() < 0.5:
            works.append(self.turn_dara())
        self.rng.shuffle(works)
        for outcome in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, (Unavailable, RequestRefused)):
                raise outcome


@pytest.fixture(scope="module")
async def scene(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    rng = random.Random(SEED)
    async with contextlib.AsyncExitStack() as stack:
        directory = tmp_path_factory.mktemp("kill")
        world = await stack.enter_async_context(running_world(directory, synapse_python, people=MEMBERS))
        tap = await stack.enter_async_context(tapped(world, rng))
        stage = await world.new_stage(members=MEMBERS)
        for name in ("ava", "ben"):
            await world.set_role(stage, name, "speaker")
        ear = TimedEar()
        pages = {}
        for name in PAGES:
            page = PageClient(await world.link(name, stage), name=name, ear=ear if name == "dara" else None)
            pages[name] = await stack.enter_async_context(page)
            if name in TONES:
                page.say(sine(TONES[name], 1, dbfs=-18), loop=True)
        made = Scene(world, tap, stage, rng, pages, ear)
        made.silent_since["cyrus"] = time.monotonic()
        await settled(made)
        yield made


# -- the kill ------------------------------------------------------------------------------------


def moments(rng: random.Random) -> Iterator[tuple[Any, str]]:
    """(when, the kind of event it is about): each moment of a transaction, of a cut, and any other."""
    kinds = (ROLE, "im.eyvan.hand")
    made: list[tuple[Any, str]] = [(moment, kind) for moment in MOMENTS for kind in kinds for _ in range(2)]
    made += [("cut", "") for _ in range(2)] + [("any", "") for _ in range(KILLS - len(made) - 2)]
    rng.shuffle(made)
    yield from made


async def kill_at(scene: Scene, when: Any, about: str) -> float:
    """Let everything happen and kill the bridge then; the moment of it. Returns when its workers are gone, too.

    Raises TimeoutError where the moment does not come."""
    pid = scene.world.bridge.pid
    assert pid is not None
    workers = children(pid)
    assert workers, "the bridge has no media worker"
    struck: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def strike() -> None:
        if not struck.done():
            os.kill(pid, signal.SIGKILL)
            struck.set_result(time.monotonic())

    async def at_the_cut() -> None:
        while not scene.cuts() and not struck.done():  # noqa: ASYNC110  (another process writes them)
            await asyncio.sleep(0)

    async def at_any() -> None:
        await asyncio.sleep(scene.rng.uniform(0, 0.25))

    if when in MOMENTS:
        scene.tap.arm(when, about, strike)
    happening = asyncio.create_task(scene.everything())
    try:
        async with asyncio.timeout(30):
            await {"cut": at_the_cut, "any": at_any}.get(when, lambda: asyncio.shield(struck))()
    finally:
        scene.tap.disarm()
        strike()
    await scene.world.kill_bridge()
    await happening
    await until(lambda: not any(map(is_running, workers)), lambda: f"media workers {workers} outlive the bridge")
    return struck.result()


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- what must hold afterwards -------------------------------------------------------------------


async def settled(scene: Scene) -> Allowed:
    """Until room state, store and pages say the same and dara hears those who may speak; who that is."""
    end = time.monotonic() + HANG_S
    await until(lambda: not scene.away(), lambda: f"pages of {scene.away()} are not back", HANG_S)
    while True:
        roles, queue, cuts = await scene.roles(), await scene.queue(), scene.cuts()
        allowed = scene.allowed(roles, cuts)
        fault = disagreement(scene, roles, queue, cuts, allowed)
        if fault is None:
            for name in allowed:
                if not scene.pages[name]._mic:
                    await scene.pages[name].mic(True)
            deaf = [name for name in TONES if scene.ear.hears(TONES[name]) != (name in allowed)]
            fault = f"{deaf} are not heard as they should be; allowed {set(allowed)}" if deaf else None
        if fault is None:
            return allowed
        assert time.monotonic() < end, f"{fault}\n{scene.pages}\n{scene.world.bridge.log_tail()}"
        await asyncio.sleep(0.1)


def disagreement(
    scene: Scene, roles: dict[str, Any], queue: list[str], cuts: list[dict[str, Any]], allowed: Allowed
) -> str | None:
    """What does not agree with room state; None where all does."""
    if cuts:
        return f"cuts not yet in room state: {cuts}"
    if away := scene.away():
        return f"pages of {away} are not back"
    stage = {scene.user("host")} | {user for user, role in roles.items() if role["role"] != "listener"}
    for name, page in scene.pages.items():
        if {each.user for each in page.speakers} != stage:
            return f"{name}'s page shows {[each.user for each in page.speakers]} on stage, room state {stage}"
        if name in TONES and page.me.can_speak != (name in allowed):
            return f"{name}'s page says can_speak={page.me.can_speak}, room state {roles.get(scene.user(name))}"
    shown = [each.user for each in scene.pages["host"].queue]
    if not queue == shown == scene.stored_hands():
        return f"hands: room state {queue}, page {shown}, store {scene.stored_hands()}"
    expected = {scene.user(name) for name, raised in scene.hands.items() if raised}
    if set(queue) - {scene.user("dara")} != expected:
        return f"hands {queue} instead of {expected}"
    return None


def assert_nobody_else_was_heard(scene: Scene) -> None:
    for name, since in scene.silent_since.items():
        came = scene.ear.came(TONES[name], since + LATE_S)
        assert came == [], f"{name} was heard {len(came)} times, first {came[0] - since:.3f} s after being cut off"


@pytest.mark.timeout(600)
async def test_killed_at_twenty_moments(scene: Scene, tell: Callable[[str], None]) -> None:
    for number, (when, about) in enumerate(moments(scene.rng), 1):
        if when == "cut":
            await scene.let_ben_speak()
        connections = {name: page.connections for name, page in scene.pages.items()}
        killed = await kill_at(scene, when, about)
        before = scene.allowed(await scene.roles(), scene.cuts())
        await scene.world.start_bridge()
        ready = time.monotonic()
        after = scene.allowed(await scene.roles(), scene.cuts())
        for name in TONES:
            if name not in before | after:
                scene.silent_since.setdefault(name, killed)

        allowed = await settled(scene)
        assert allowed == after, f"after {when} {about}"
        assert_nobody_else_was_heard(scene)
        for name, page in scene.pages.items():
            assert page.connections > connections[name], f"{name}'s page did not come back by itself"
        for name in allowed:
            scene.silent_since.pop(name, None)
        gap = scene.ear.gap_ms(TONES["ava"], killed - 1)
        down = 1000 * (ready - killed)
        tell(f"kill {number:2} {when:9} {about:13} gap {gap:5.0f} ms, of it {down:5.0f} ms down")


@pytest.mark.timeout(300)
async def test_down_until_the_homeserver_backs_off(scene: Scene, tell: Callable[[str], None]) -> None:
    """Synapse waits 2, 4, 8, 16 … s between two tries; our ping at the start makes it try at once."""
    world, tap = scene.world, scene.tap
    if "cyrus" not in scene.allowed(await scene.roles(), []):
        scene.silent_since.pop("cyrus", None)
        await world.set_role(scene.stage, "cyrus", "speaker")
        await settled(scene)
    await world.kill_bridge()
    tap.failures.clear()
    demoted = time.monotonic()
    await world.set_role(scene.stage, "cyrus", "listener")
    await until(lambda: len(tap.failures) >= 4, lambda: f"{len(tap.failures)} tries of the homeserver", 90)
    last = tap.failures[-1]

    await world.start_bridge()
    ready = time.monotonic()
    scene.silent_since["cyrus"] = demoted
    assert "cyrus" not in await settled(scene)
    right = time.monotonic() - ready
    scene.silent_since.pop("cyrus")
    assert scene.ear.came(TONES["cyrus"], demoted + LATE_S) == []
    # And what comes now is not held back until the homeserver's next try of its own.
    await world.set_role(scene.stage, "cyrus", "speaker")
    assert "cyrus" in await settled(scene)
    granted = time.monotonic() - last
    assert granted < 15.5, f"{granted:.1f} s after the last failed try: the ping brought nothing forward"
    tell(f"right {right:.1f} s after the start; next grant {granted:.1f} s after the last failed try")
