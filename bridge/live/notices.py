"""What the bot says: replies, notices and the card in the room, links and news in direct chats."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import EyvanError, MatrixRefused
from bridge.ids import EventId, RoomId, StageId, UserId, new_txn_id
from bridge.live import card
from bridge.live.lanes import Courier
from bridge.live.ports import Clock, Matrix, Media, Phone, Store
from bridge.live.reply import Reply
from bridge.live.view import View
from bridge.rules.content import StageContent
from bridge.rules.inputs import CardPosted, Input
from bridge.rules.state import StageState
from bridge.text import Lang, say

log = logging.getLogger(__name__)

MAX_CHATS = 5_000  # links and news that wait for a direct chat
_CHATS_AT_ONCE = 4  # a server of a guest that answers slowly holds up only one of them
_LATE_TOLD = 1_000  # people
_LATE_AGAIN_MS = 600_000
_CARD_AGAIN_MS = 5_000
_LINK = ("link-sent", "link-refused", "link-later")
_CALL = ("call-sent", "call-refused", "call-later")


@dataclass(frozen=True, slots=True)
class Player:
    """What a person gives to a player or studio gear to hear a stage."""

    whep: str  # URL
    token: str  # a bearer token for it
    stream: str  # URL of the Ogg stream, with a token that begins it


@dataclass(frozen=True, slots=True)
class World:
    """What a live stage needs of the world."""

    matrix: Matrix
    media: Media
    store: Store
    clock: Clock
    make_link: Callable[[UserId, RoomId, StageId], str]  # a personal URL
    lang: Lang = "en"
    prefix: str = "!"
    public_url: str = ""
    make_player: Callable[[UserId, RoomId, StageId], Player] | None = None
    phone: Phone | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to somebody who asked: ``text`` is the key of a sentence."""

    ok: bool
    text: str
    args: Mapping[str, Any] = field(default_factory=dict)


class Notices:
    """Owned by a LiveStage, which runs and joins ``runs()``. Nothing here waits but in those lanes."""

    def __init__(self, room: RoomId, world: World, state: Callable[[], StageState], happened: Callable[[Input], None]):
        self._room, self._world, self._state, self._happened = room, world, state, happened
        self._notices = Courier(f"room {room}")
        self._chats = Courier(f"direct chats of {room}", MAX_CHATS)
        self._card_text = ""
        self._posting = False
        self._post_after_ms = 0
        self._late: OrderedDict[UserId, int] = OrderedDict()

    def runs(self) -> list[Coroutine[Any, Any, None]]:
        return [self._notices.run(), *(self._chats.run() for _ in range(_CHATS_AT_ONCE))]

    @property
    def _lang(self) -> Lang:
        """The room's own, where a moderator chose one."""
        stage = self._state().room.stage
        return (stage.language if stage else None) or self._world.lang

    def _say(self, key: str, args: Mapping[str, Any] | None = None) -> str:
        return say(self._lang, key, **{"prefix": self._world.prefix, **(args or {})})

    # -- in the room ---------------------------------------------------------------------------

    def answer(self, to: EventId, outcome: Outcome) -> None:
        """The answer to a command. ``to`` names the transaction, so that a crash answers not twice."""
        self._send(self._say(outcome.text, outcome.args), f"eyvan-{to}", to)

    def announce(self, key: str, args: Mapping[str, Any]) -> None:
        self._send(self._say(key, args), new_txn_id())

    def reply(self, reply: Reply) -> None:
        """Only where it is ours to speak; the same person is told of what came late once in ten minutes."""
        state = self._state()
        if (state.live and not state.ours) or (reply.about is not None and reply.about != state.card):
            return
        if reply.key == "too-old":
            now = self._world.clock.now_ms()
            if now - self._late.get(reply.user, -_LATE_AGAIN_MS) < _LATE_AGAIN_MS:
                return
            self._late[reply.user] = now
            if len(self._late) > _LATE_TOLD:
                self._late.popitem(last=False)
        self._send(self._say(reply.key, reply.args), f"eyvan-{reply.to}{reply.part}", reply.to)

    def _send(self, text: str, txn: str, reply_to: EventId | None = None) -> None:
        html, plain = card.html_of(text), card.plain_of(text)

        async def job() -> None:
            await self._world.matrix.send(self._room, plain, html, reply_to=reply_to, txn=txn)

        self._notices.send(job)

    # -- in direct chats -----------------------------------------------------------------------

    def tell(self, user: UserId, key: str, args: Mapping[str, Any]) -> None:
        state = self._state()
        if user == state.bot:
            return
        topic = (state.stage.topic if state.stage else "") or state.room.name or self._say("card-untitled")
        text = self._say("tell-" + key.replace("_", "-"), {"topic": topic, **args})
        self._chats.send(lambda: self._world.matrix.tell(user, card.plain_of(text), card.html_of(text)))

    def send_link(
        self, user: UserId, stage: StageContent, answer: Callable[[Outcome], None], *, player: bool = False
    ) -> None:
        """``answer`` is called once. ``player``: what a player needs, instead of the page's link."""
        state, world = self._state(), self._world
        topic = stage.topic or state.room.name
        if player and world.make_player is not None:
            made = world.make_player(user, self._room, stage.stage_id)
            text, html = card.player_message(self._lang, topic, made.whep, made.token, made.stream, world.prefix)
        else:
            url = world.make_link(user, self._room, stage.stage_id)
            text, html = card.link_message(self._lang, topic, url, world.prefix)
        self._write_to(user, text, html, answer, _LINK)

    def await_call(self, user: UserId, answer: Callable[[Outcome], None]) -> None:
        """What to press. ``answer`` is called once."""
        stage, room = self._state().stage, self._state().room
        topic = (stage.topic if stage else "") or room.name or self._say("card-untitled")
        text = self._say("call-intro", {"topic": topic})
        self._write_to(user, card.plain_of(text), card.html_of(text), answer, _CALL)

    def _write_to(
        self, user: UserId, text: str, html: str, answer: Callable[[Outcome], None], words: tuple[str, str, str]
    ) -> None:
        name = {"name": self._state().name(user)}
        sent, not_let, later = words

        async def job() -> None:
            outcome = Outcome(False, later, name)
            try:
                await self._world.matrix.tell(user, text, html)
                outcome = Outcome(True, sent, name)
            except MatrixRefused as refused:
                log.warning("no chat with %s: %s", user, refused)
                outcome = Outcome(False, not_let, name)
            finally:
                answer(outcome)

        if not self._chats.send(job):
            answer(Outcome(False, later, name))

    # -- the card ------------------------------------------------------------------------------

    def show_card(self, view: View) -> None:
        """Posted when the stage is live, then edited (throttled on its way out)."""
        state = self._state()
        stage = state.stage
        if stage is None or not state.live or not state.ours:
            return
        text, html = card.card(self._lang, view, self._world.prefix, self._world.public_url, stage)
        event = state.card
        if event is not None:
            if text != self._card_text:
                self._card_text = text
                self._notices.send(lambda: self._world.matrix.edit(self._room, event, text, html))
        elif not self._posting and self._world.clock.now_ms() >= self._post_after_ms:
            self._posting = self._notices.send(lambda: self._post_card(stage.stage_id, text, html))

    async def _post_card(self, stage_id: StageId, text: str, html: str) -> None:
        """One that could not be posted is posted later. ``txn``: a crash in between makes no second card."""
        matrix = self._world.matrix
        try:
            event = await matrix.send(self._room, text, html, reply_to=None, txn=f"eyvan-card-{stage_id}")
        except EyvanError:
            self._post_after_ms = self._world.clock.now_ms() + _CARD_AGAIN_MS
            self._posting = False
            raise
        stage = self._state().stage
        if stage is None or stage.stage_id != stage_id:  # another stage is live by now
            self._posting = False
            return
        self._card_text = text
        self._happened(CardPosted(event))
        await matrix.react(self._room, event, "✋")

    def end_card(self, event: EventId | None, topic: str) -> None:
        """The stage is over: its card says so, and the next stage has one of its own."""
        self._posting, self._card_text, self._post_after_ms = False, "", 0
        if event is not None:
            text = self._say("card-ended", {"topic": topic or self._say("card-untitled")})
            self._notices.send(lambda: self._world.matrix.edit(self._room, event, text, card.html_of(text)))
