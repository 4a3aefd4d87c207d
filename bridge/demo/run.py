"""`eyvan demo`: a homeserver, the bridge and an evening with people who really talk, on this machine.

Start and stop are one stack: what was started last is stopped first, whether Ctrl-C, an error or the
end of a homeserver was the cause. A bridge that dies is started again, and pages and speakers come back by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.demo import cast
from bridge.demo.local_bridge import LocalBridge
from bridge.demo.panel import Facts, Show
from bridge.demo.play import Play
from bridge.demo.site import LOOPBACK, Site, write_whole
from bridge.demo.synapse import LocalSynapse, ensure_synapse
from bridge.demo.voices import Voices, render
from bridge.demo.watch import homeserver_end, keep_bridge
from bridge.errors import ConfigError, EyvanError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="where it keeps everything (default: .demo)")
    parser.add_argument("--headless", action="store_true", help="plain lines instead of the panel, for scripts")
    parser.add_argument(
        "--address", metavar="IPV4", help="serve page and sound on this address of the machine (microphones need https)"
    )
    parser.add_argument("--federated", action="store_true", help="with a second homeserver, which may moderate too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was started to FILE when all is ready")


async def run_demo(args: argparse.Namespace) -> int:
    """Run until Ctrl-C (0), an error (1, one line on standard error) or a missing prerequisite (2)."""
    show = Show(args.headless)
    try:
        with Site.open(args.dir, address=args.address, federated=args.federated) as site:
            await _until_signal(_Demo(site, show, args.json).run())
    except ConfigError as error:
        return _fail(show, error, 2)
    except EyvanError as error:
        return _fail(show, error, 1)
    finally:
        show.close()
    return 0


def _fail(show: Show, error: EyvanError, code: int) -> int:
    show.close()
    print(f"eyvan demo: {error}", file=sys.stderr)
    return code


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it ends or SIGINT or SIGTERM comes; then it is cancelled and has stopped when we return."""
    task = asyncio.create_task(work, name="demo")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _Demo:
    def __init__(self, site: Site, show: Show, report: Path | None) -> None:
        self._site, self._show, self._report = site, show, report
        self._facts: Facts | None = None

    async def run(self) -> None:
        """Start all, show it, play; stops all on its way out."""
        if self._report is not None:
            self._report.unlink(missing_ok=True)  # an old one would say that this start is ready
        async with contextlib.AsyncExitStack() as stack:
            synapse, partner = await self._homeservers(stack)
            bridge = await self._bridge(stack)
            if self._report is not None:
                stack.callback(self._report.unlink, missing_ok=True)
            await _first(
                self._perform(bridge, synapse, partner),
                keep_bridge(bridge, self._show.news, lambda: self._bridge_back(bridge)),
                *(homeserver_end(each) for each in (synapse, partner) if each),
            )
        if not self._show.headless:
            self._show.plain("stopped")

    async def _perform(self, bridge: LocalBridge, synapse: LocalSynapse, partner: LocalSynapse | None) -> None:
        """The evening, from signing in on; never returns by itself, and has closed what it opened when it ends."""
        async with contextlib.AsyncExitStack() as stack:
            evening = await self._evening(stack, synapse, partner)
            with self._show.step("Preparing the voices"):
                voices = await render(self._site.directory / "voices", self._show.doing)
            play = Play(evening, voices, self._show.line)
            stack.push_async_callback(play.close)
            with self._show.step("Bringing the speakers on stage"):
                await play.enter()
            self._ready(evening, voices, bridge, synapse, partner)
            await play.run()

    def _bridge_back(self, bridge: LocalBridge) -> None:
        """The report holds the pid of the bridge that runs now."""
        if self._facts is not None:  # else it is written later, with that pid
            self._write_report(replace(self._facts, pids={**self._facts.pids, "bridge": bridge.pid}))

    def _write_report(self, facts: Facts) -> None:
        self._facts = facts
        if self._report is not None:
            write_whole(self._report, facts.report() + "\n")

    async def _homeservers(self, stack: contextlib.AsyncExitStack) -> tuple[LocalSynapse, LocalSynapse | None]:
        site = self._site
        with self._show.step("Looking for Synapse"):
            python = await ensure_synapse(_synapse_venv(), self._show.doing)
        site.write_files()
        if site.address == LOOPBACK:
            self._show.plain("This machine has no address but loopback; browsers will not connect their sound to it.")
        ours = LocalSynapse(
            site.directory / "synapse",
            site.server_name,
            site.ports["homeserver"],
            site.registration,
            python,
            federation=site.federation("federation"),
        )
        partner = self._partner(python) if site.federated else None
        both = [ours, partner] if partner else [ours]
        for each in both:
            stack.push_async_callback(each.stop)
        with self._show.step("Starting the homeservers" if partner else "Starting the homeserver"):
            await asyncio.gather(*(each.start() for each in both))
        return ours, partner

    def _partner(self, python: Path) -> LocalSynapse:
        site = self._site
        federation = site.federation("partner_federation")
        directory, port = site.directory / "partner", site.ports["partner"]
        return LocalSynapse(directory, site.partner_name, port, None, python, federation=federation)

    async def _bridge(self, stack: contextlib.AsyncExitStack) -> LocalBridge:
        site = self._site
        bridge = LocalBridge(site.config, site.ready_url, site.directory / "bridge.log")
        stack.push_async_callback(bridge.stop)
        with self._show.step("Starting the bridge"):
            await bridge.start()
        return bridge

    async def _evening(
        self, stack: contextlib.AsyncExitStack, synapse: LocalSynapse, partner: LocalSynapse | None
    ) -> cast.Evening:
        site, show = self._site, self._show
        with show.step("Signing the people in"):
            people = await cast.sign_in(synapse, partner, site)
            for person in people.values():
                stack.push_async_callback(person.close)
        host = people["maryam"]
        with show.step("Making the room and inviting the bot"):
            room = await cast.open_room(people, site.bot, site)
        with show.step("Opening the stage"):
            stage = await cast.start_stage(host, room, cast.TOPIC)
            for member in cast.CAST:
                if member.part == "speaker":
                    await cast.give_role(host, room, people[member.name].user, {"role": "speaker", "muted": False})
        with show.step("Asking the bot for personal links"):
            links = await asyncio.gather(*(cast.ask_for_link(each, room, site.bot) for each in people.values()))
        return cast.Evening(room, stage, people, dict(zip(people, links, strict=True)))

    def _ready(
        self,
        evening: cast.Evening,
        voices: Voices,
        bridge: LocalBridge,
        synapse: LocalSynapse,
        partner: LocalSynapse | None,
    ) -> None:
        pids = {"homeserver": synapse.pid, "bridge": bridge.pid}
        facts = Facts(
            homeserver=self._site.homeserver,
            room_id=evening.room,
            stage=evening.stage,
            web=self._site.web,
            media_port=self._site.ports["media"],
            users=tuple(evening.user(member) for member in cast.CAST + ((cast.PARTNER,) if partner else ())),
            pids=pids | ({"partner": partner.pid} if partner else {}),
            spoken=voices.spoken,
            address=self._site.address,
            partner=partner.url if partner else None,
        )
        self._write_report(facts)
        self._show.ready(facts)


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Until one of ``works`` ends; its error is raised, the others are cancelled and joined."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _synapse_venv() -> Path:
    """Beside the checkout, so that every demo and test run shares it; else in the user's cache."""
    root = Path(__file__).resolve().parents[2]
    return root / ".synapse-venv" if (root / "pyproject.toml").exists() else Path.home() / ".cache/eyvan/synapse-venv"
