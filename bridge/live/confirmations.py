"""Once per page session: the person says in the bot's direct chat that it is them who moderates by a widget.

An OpenID token (MSC1960) names no audience: whoever was handed one could hand it on and be taken for that person. So
such a session listens, raises a hand and speaks where the room's state lets that person speak; for acts on others it
waits for a reaction from the person's own client, which no token can make::

      act ─▶ refused, code shown ─▶ direct message with the code ─▶ 👍 by that person ─▶ acts are carried out
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import EyvanError, Full, Refused
from bridge.ids import EventId, RoomId, SessionId, UserId
from bridge.live.card import html_of, plain_of
from bridge.live.ports import Clock, Matrix
from bridge.rules.content import is_yes_emoji
from bridge.rules.state import StageState
from bridge.text import Lang, say

log = logging.getLogger(__name__)

GOOD_MS = 10 * 60_000  # a question is good for so long
KEPT_MS = 12 * 3_600_000  # as long as a session
MAX_OPEN = 1_000  # questions; further ones are refused
MAX_OF_ONE = 3  # open questions to one person: somebody with stolen tokens shall not flood a chat
MAX_KEPT = 10_000  # confirmed sessions; the oldest is forgotten, and asked again
YES = "👍"


@dataclass(slots=True)
class _Question:
    user: UserId
    code: str
    asked_ms: int
    lang: Lang
    notice: Callable[[str, str], None]
    room: RoomId | None = None
    event: EventId | None = None  # of the direct message, once it is sent


class Confirmations:
    """Owns one task a direct message under way; ``close`` joins them, harmless twice. Kept in memory: after a restart a
    person is asked again."""

    def __init__(self, matrix: Matrix, clock: Clock, lang: Lang) -> None:
        self._matrix, self._clock, self._lang = matrix, clock, lang
        self._open: OrderedDict[SessionId, _Question] = OrderedDict()
        self._confirmed: OrderedDict[SessionId, int] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def require(self, session: SessionId, user: UserId, stage: StageState, notice: Callable[[str, str], None]) -> None:
        """Return where the person has confirmed this session. Else ask, once, and raise Refused, or Full where too many
        questions are open. ``notice(key, code)`` tells the page what comes of it."""
        now = self._clock.now_ms()
        if now < self._confirmed.get(session, 0):
            return
        self._forget_old(now)
        question = self._open.get(session)
        if question is None:
            lang = (stage.stage.language if stage.stage else None) or self._lang
            topic = (stage.stage.topic if stage.stage else "") or stage.room.name or say(lang, "card-untitled")
            code = f"{secrets.randbelow(10_000):04}"
            question = self._ask(session, _Question(user, code, now, lang, notice), topic)
        question.notice = notice  # of the page that is here now
        notice("confirm", question.code)
        raise Refused("confirm-first", code=question.code)

    def reacted(self, event: Mapping[str, Any]) -> None:
        """An event of any room: it confirms a session where it is the asked person's 👍 to our question. Never
        raises."""
        content = event.get("content")
        if event.get("type") != "m.reaction" or not isinstance(content, Mapping):
            return
        relates = content.get("m.relates_to")
        if not isinstance(relates, Mapping) or not is_yes_emoji(relates.get("key")):
            return
        self._forget_old(self._clock.now_ms())
        for session, question in list(self._open.items()):
            if question.event is not None and question.event == relates.get("event_id"):
                if question.user == event.get("sender"):
                    self._confirm(session, question)
                return

    def _confirm(self, session: SessionId, question: _Question) -> None:
        del self._open[session]
        self._confirmed[session] = self._clock.now_ms() + KEPT_MS
        if len(self._confirmed) > MAX_KEPT:
            self._confirmed.popitem(last=False)
        log.info("%s confirmed a widget's session", question.user)
        question.notice("confirmed", "")
        self._run(self._thank(question))

    def _ask(self, session: SessionId, question: _Question, topic: str) -> _Question:
        of_one = sum(each.user == question.user for each in self._open.values())
        if len(self._open) >= MAX_OPEN or of_one >= MAX_OF_ONE:
            raise Full("too many pages wait for a confirmation; answer in the bot's direct chat", GOOD_MS)
        self._open[session] = question
        self._run(self._write(session, question, topic))
        return question

    async def _write(self, session: SessionId, question: _Question, topic: str) -> None:
        text = say(question.lang, "confirm-question", topic=topic, code=question.code, yes=YES)
        try:
            question.room, question.event = await self._matrix.tell(question.user, plain_of(text), html_of(text))
        except EyvanError as error:
            log.warning("no chat with %s, who is to confirm a session: %s", question.user, error)
            self._open.pop(session, None)
            question.notice("confirm_failed", "")
            return
        await self._matrix.react(question.room, question.event, YES)  # so that a touch is enough

    async def _thank(self, question: _Question) -> None:
        if question.room is not None and question.event is not None:
            text = say(question.lang, "confirm-thanks", code=question.code)
            await self._matrix.edit(question.room, question.event, plain_of(text), html_of(text))

    def _forget_old(self, now: int) -> None:
        while self._open and next(iter(self._open.values())).asked_ms < now - GOOD_MS:
            self._open.popitem(last=False)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        async def logged() -> None:
            try:
                await work
            except EyvanError as error:
                log.warning("%s", error)

        task = asyncio.create_task(logged(), name="confirmation")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


__all__ = ["Confirmations"]
