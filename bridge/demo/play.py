"""The course of the demo's evening: who speaks when, the hand, the mute. One task, over and over.

The people give way to whoever sits at the browser: a speaker who was muted or moved to the audience
by a real moderator skips his turns, a mute that is not ours is not undone, and nilufar speaks when
her hand has been accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from bridge.demo.cast import Evening, give_role
from bridge.demo.people import PageClient, RequestRefused
from bridge.demo.voices import PLAY, QUESTION, Do, Say, Voices
from bridge.errors import EyvanError, MatrixRefused, Unavailable


class Play:
    """Owned by the demo's task: ``enter`` connects the people, ``run`` never returns, ``close`` ends their pages.

    ``tell`` is called with one line for each thing that happens.
    """

    def __init__(self, evening: Evening, voices: Voices, tell: Callable[[str], None]) -> None:
        self._evening, self._voices, self._tell = evening, voices, tell
        names = ("arash", "sara", "nilufar")
        self.pages: Mapping[str, PageClient] = {name: PageClient(evening.links[name], name=name) for name in names}
        self._our_mute = False

    async def enter(self) -> None:
        """All three pages connected, both speakers with their microphones on. Raises what ``connect`` raises."""
        await asyncio.gather(*(page.connect() for page in self.pages.values()))
        for name in ("arash", "sara"):
            page = self.pages[name]
            await page.wait(lambda c: c.me.can_speak, what=f"{name} to be let on stage")
            await page.mic(True)

    async def run(self) -> None:
        while True:
            for step in PLAY:
                try:
                    await (self._say(step) if isinstance(step, Say) else self._do(step))
                except (RequestRefused, MatrixRefused, Unavailable) as error:
                    # A stage that a visitor ended, a bridge that restarts: the show goes on when it can.
                    self._tell(f"({step.who if isinstance(step, Say) else step.what}: {error})")
                    await asyncio.sleep(2)

    async def close(self) -> None:
        await asyncio.gather(*(page.close() for page in self.pages.values()))

    async def _say(self, say: Say) -> None:
        page = self.pages[say.who]
        if page.state != "live" or not (page.me.can_speak or self._our_mute):
            await asyncio.sleep(1)
            return
        self._tell(f"{say.who}: {say.text}")
        page.say(self._voices.turns[say])
        await page.voice.said()
        await asyncio.sleep(say.pause_s)

    async def _do(self, do: Do) -> None:
        nilufar = self.pages["nilufar"]
        match do.what:
            case "raise hand" if nilufar.me.place == "audience" and nilufar.me.hand is None:
                self._tell(f"nilufar raises her hand: {do.note}")
                await nilufar.hand(True, do.note)
            case "lower hand" if nilufar.me.hand is not None:
                self._tell("nilufar lowers her hand")
                await nilufar.hand(False)
            case "nilufar speaks" if nilufar.me.place == "stage" and nilufar.me.can_speak:
                await self._question(nilufar)
            case "mute arash" if self.pages["arash"].me.can_speak:
                self._tell("maryam mutes arash")
                self._our_mute = True
                await self._mute(True)
            case "unmute arash" if self._our_mute:
                self._tell("maryam lets arash speak again")
                self._our_mute = False
                await self._mute(False)

    async def _mute(self, muted: bool) -> None:
        """By maryam's own token and a plain state event; her power alone makes it count."""
        arash = self._evening.people["arash"].user
        page = self.pages["arash"]
        content = {"role": "speaker", "muted": muted}
        await give_role(self._evening.people["maryam"], self._evening.room, arash, content)
        await page.wait(lambda c: c.me.muted == muted, what=f"arash's page to show muted={muted}")
        if muted:
            page.say(next(sound for say, sound in self._voices.turns.items() if say.who == "arash"))  # heard by nobody
            return
        await page.wait(lambda c: c.me.can_speak, what="arash to be heard again")
        await page.mic(True)

    async def _question(self, page: PageClient) -> None:
        """Her hand was accepted: she asks, then leaves the stage by her own microphone."""
        await page.mic(True)
        self._tell(f"nilufar: {QUESTION.text}")
        page.say(self._voices.turns[QUESTION])
        await page.voice.said()
        await asyncio.sleep(QUESTION.pause_s)
        with contextlib.suppress(EyvanError):
            await page.mic(False)
