"""A homeserver, a relay, a clock and pages in memory, driven through the Protocols of ``bridge.live.ports``; and a
house: the live part of the bridge on them and on a real SQLite database.

The homeserver keeps state with event ids, checks the sender's power as the authorization rules do, answers 403, pushes
transactions, and can be slow, refuse, or be away. The relay keeps what each peer may do and every change of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import Full, MatrixRefused, NotFound, Unavailable
from bridge.ids import EventId, PeerId, RoomId, SessionId, StageId, UserId, role_key
from bridge.live.ports import InboxRow, JsonObject, Store
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage, World
from bridge.live.view import Me, View
from bridge.matrix.commands import Translator
from bridge.rules.authority import Policy
from bridge.rules.content import MEMBER, POWER_LEVELS, ROLE, STAGE, Sound
from bridge.text import Lang

HANG_S = 30.0
SERVER = "a.org"
BOT = UserId("@eyvan:a.org")
ADMIN = UserId("@admin:a.org")
MOD = UserId("@mod:a.org")
AVA = UserId("@ava:a.org")
BEN = UserId("@ben:b.org")
CYD = UserId("@cyd:c.org")
ROOM = RoomId("!hall:a.org")
OTHER = RoomId("!other:a.org")

_numbers = itertools.count(1)  # never the same transaction twice, over restarts too
Place = tuple[str, str]
Hook = Callable[[str, tuple[Any, ...]], Awaitable[None]]


async def until(holds: Callable[[], Any], what: str, show: Callable[[], Any] = lambda: "") -> None:
    """Wait for ``holds``; the limit is for hangs only."""
    try:
        async with asyncio.timeout(HANG_S):
            while not holds():  # noqa: ASYNC110  (any condition, of parts that know nothing of tests)
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"{what} did not come; {show()}") from None


@dataclass
class HandClock:
    """Time stands still until a test moves it."""

    ms: int = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


def levels(**more: Any) -> dict[str, Any]:
    users = {ADMIN: 100, MOD: 50, BOT: 50}
    return {"users": users, "users_default": 0, "state_default": 50, "events_default": 0, "kick": 50, **more}


@dataclass
class FakeRoom:
    state: dict[Place, dict[str, Any]] = field(default_factory=dict)
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def content(self, kind: str, key: str = "") -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.state.get((kind, key), {}).get("content", {})
        return found

    def membership(self, user: str) -> str:
        return str(self.content(MEMBER, user).get("membership", "leave"))

    def level(self, user: str) -> int:
        power = self.content(POWER_LEVELS)
        return int(power.get("users", {}).get(user, power.get("users_default", 0)))

    def needed(self, kind: str, *, state: bool) -> int:
        power = self.content(POWER_LEVELS)
        default = power.get("state_default", 50) if state else power.get("events_default", 0)
        return int(power.get("events", {}).get(kind, default))


class FakeMatrix:
    """`bridge.live.ports.Matrix` for ``BOT``, and what people do beside it (`put`, `message`, `member` …)."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self._ids = itertools.count(1)
        self.rooms: dict[RoomId, FakeRoom] = {}
        self.chats: dict[UserId, list[str]] = {}
        self.edits: list[tuple[EventId, str]] = []
        self.pings = 0
        self.push: Callable[[list[dict[str, Any]]], None] = lambda events: None
        """The appservice: called with each new event, in order."""
        self.before: dict[str, Hook] = {}
        """Name of a method → awaited before the homeserver does it; may raise or wait."""
        self.after: dict[str, Hook] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._txns: dict[str, EventId] = {}

    # -- people --------------------------------------------------------------------------------

    def make_room(self, room: RoomId = ROOM, *people: UserId, power: Mapping[str, Any] | None = None) -> FakeRoom:
        made = self.rooms[room] = FakeRoom()
        self._event(room, "m.room.create", ADMIN, {"room_version": "11"}, "")
        for user in (ADMIN, *people):
            self._event(room, MEMBER, user, {"membership": "join", "displayname": user[1:4].title()}, user)
        self._event(room, POWER_LEVELS, ADMIN, dict(power or levels()), "")
        return made

    def put(self, sender: UserId, kind: str, key: str, content: Mapping[str, Any], room: RoomId = ROOM) -> EventId:
        """State by ``sender``. Raises MatrixRefused as a homeserver does."""
        here = self.rooms[room]
        if here.membership(sender) != "join":
            raise MatrixRefused("M_FORBIDDEN", 403, f"{sender} is not in {room}")
        if key.startswith("@") and key != sender:
            raise MatrixRefused("M_FORBIDDEN", 403, "you are not allowed to set others state")
        if here.level(sender) < here.needed(kind, state=True):
            raise MatrixRefused("M_FORBIDDEN", 403, "you have no power for that")
        stands = here.state.get((kind, key))
        if stands is not None and stands["content"] == content and stands["sender"] == sender:
            return EventId(stands["event_id"])  # as Synapse does
        return self._event(room, kind, sender, dict(content), key)

    def role(self, sender: UserId, user: UserId, room: RoomId = ROOM, **content: Any) -> EventId:
        return self.put(sender, ROLE, role_key(user), content, room)

    def member(self, sender: UserId, user: UserId, membership: str, room: RoomId = ROOM) -> EventId:
        return self._event(room, MEMBER, sender, {"membership": membership, "displayname": user[1:4].title()}, user)

    def message(
        self, sender: UserId, body: str, room: RoomId = ROOM, *, ts: int | None = None, **content: Any
    ) -> EventId:
        body_and_all = {"msgtype": "m.text", "body": body, **content}
        return self._event(room, "m.room.message", sender, body_and_all, None, ts=ts)

    def reaction(self, sender: UserId, target: EventId, key: str = "✋", room: RoomId = ROOM) -> EventId:
        relates = {"rel_type": "m.annotation", "event_id": target, "key": key}
        return self._event(room, "m.reaction", sender, {"m.relates_to": relates}, None)

    def redact(self, sender: UserId, target: EventId, room: RoomId = ROOM) -> EventId:
        for event in self.rooms[room].state.values():
            if event["event_id"] == target:
                event["content"] = {}
        return self._event(room, "m.room.redaction", sender, {"redacts": target}, None)

    def _event(
        self, room: RoomId, kind: str, sender: str, content: Mapping[str, Any], key: str | None, ts: int | None = None
    ) -> EventId:
        event: dict[str, Any] = {
            "type": kind,
            "room_id": room,
            "sender": sender,
            "content": content,
            "event_id": f"$e{next(self._ids)}",
            "origin_server_ts": self._clock.now_ms() if ts is None else ts,
        }
        if key is not None:
            event["state_key"] = key
            self.rooms[room].state[kind, key] = event
        self.rooms[room].timeline.append(event)
        self.push([event])
        return EventId(event["event_id"])

    def said(self, room: RoomId = ROOM) -> list[str]:
        """What the bot said in the room."""
        return [
            event["content"]["body"]
            for event in self.rooms[room].timeline
            if event["type"] == "m.room.message" and event["sender"] == BOT
        ]

    # -- the port ------------------------------------------------------------------------------

    async def _call(self, method: str, *args: Any) -> None:
        self.calls.append((method, args))
        if hook := self.before.get(method):
            await hook(method, args)
        else:
            await asyncio.sleep(0)

    async def _done(self, method: str, *args: Any) -> None:
        if hook := self.after.get(method):
            await hook(method, args)

    def _here(self, room: RoomId) -> FakeRoom:
        here = self.rooms.get(room)
        if here is None or here.membership(BOT) != "join":
            raise MatrixRefused("M_FORBIDDEN", 403, f"{BOT} is not in {room}")
        return here

    async def read_room(self, room: RoomId) -> Sequence[JsonObject]:
        await self._call("read_room", room)
        answer = [dict(event) for event in self._here(room).state.values()]
        await self._done("read_room", room)
        return answer

    async def read_state(self, room: RoomId, kind: str, key: str) -> JsonObject | None:
        await self._call("read_state", room, kind, key)
        found = self._here(room).state.get((kind, key))
        answer = dict(found) if found else None
        await self._done("read_state", room, kind, key)
        return answer

    async def write_state(
        self, room: RoomId, kind: str, key: str, content: JsonObject, *, urgent: bool = False
    ) -> EventId:
        await self._call("write_state", room, kind, key, content)
        event = self.put(BOT, kind, key, content, room)
        await self._done("write_state", room, kind, key, content)
        return event

    async def send(self, room: RoomId, text: str, html: str, *, reply_to: EventId | None, txn: str) -> EventId:
        await self._call("send", room, text)
        self._here(room)
        if txn not in self._txns:
            content: dict[str, Any] = {"msgtype": "m.notice", "body": text, "formatted_body": html}
            if reply_to:
                content["m.relates_to"] = {"m.in_reply_to": {"event_id": reply_to}}
            self._txns[txn] = self._event(room, "m.room.message", BOT, content, None)
        await self._done("send", room, text)
        return self._txns[txn]

    async def edit(self, room: RoomId, event: EventId, text: str, html: str) -> None:
        await self._call("edit", room, event, text)
        self.edits.append((event, text))

    async def tell(self, user: UserId, text: str, html: str) -> tuple[RoomId, EventId]:
        await self._call("tell", user, text)
        chat = self.chats.setdefault(user, [])
        chat.append(text)
        return RoomId(f"!chat-{user}"), EventId(f"$chat-{user}-{len(chat)}")

    async def react(self, room: RoomId, event: EventId, key: str) -> None:
        await self._call("react", room, event, key)
        self.reaction(BOT, event, key, room)

    async def kick(self, room: RoomId, user: UserId, reason: str) -> None:
        await self._call("kick", room, user)
        here = self._here(room)
        if here.membership(user) not in ("join", "invite") or here.level(BOT) <= here.level(user):
            raise MatrixRefused("M_FORBIDDEN", 403, f"you cannot kick {user}")
        self._event(room, MEMBER, BOT, {"membership": "leave", "reason": reason}, user)
        await self._done("kick", room, user)

    async def join(self, room: RoomId, via: Sequence[str] = ()) -> None:
        await self._call("join", room, tuple(via))
        here = self.rooms.get(room)
        public = here is not None and here.content("m.room.join_rules").get("join_rule") == "public"
        if here is None or not (public or here.membership(BOT) in ("invite", "join")):
            raise MatrixRefused("M_FORBIDDEN", 403, f"{BOT} is not invited to {room}")
        if here.membership(BOT) != "join":
            self._event(room, MEMBER, BOT, {"membership": "join"}, BOT)

    async def leave(self, room: RoomId) -> None:
        await self._call("leave", room)
        self._event(room, MEMBER, BOT, {"membership": "leave"}, BOT)

    async def joined_rooms(self) -> Sequence[RoomId]:
        await self._call("joined_rooms")
        return [room for room, here in self.rooms.items() if here.membership(BOT) == "join"]

    async def ping(self) -> None:
        await self._call("ping")
        self.pings += 1


@dataclass(frozen=True)
class FakeAnswer:
    sdp: str
    csrc: int


@dataclass
class FakePeer:
    stage: StageId
    owner: str
    hear: bool
    speak: bool
    csrc: int
    left_out: frozenset[str] = frozenset()


class FakeMedia:
    """`bridge.live.ports.Media`. ``heard`` says who is heard now; ``changes`` every opening and shutting."""

    def __init__(self) -> None:
        self.peers: dict[PeerId, FakePeer] = {}
        self.changes: list[tuple[str, bool, bool]] = []  # owner, hear, speak
        self.gone: Callable[[PeerId, str], None] = lambda peer, reason: None
        self.before: dict[str, Hook] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.watch: Callable[[], None] = lambda: None
        """Called after each change."""
        self._csrc = itertools.count(1)
        self.dead = False
        self.sounds: dict[StageId, Sound] = {}
        self.most_left_out = 8
        self.kept_for: set[str] = set()  # who joined as somebody who may speak

    def heard(self, user: str) -> bool:
        return any(peer.speak for peer in self.peers.values() if peer.owner == user)

    def hears(self, user: str) -> bool:
        return any(peer.hear for peer in self.peers.values() if peer.owner == user)

    def die(self) -> None:
        """The worker dies, its peers with it."""
        lost, self.peers = list(self.peers), {}
        for peer in lost:
            self.gone(peer, "worker")

    async def _call(self, method: str, *args: Any) -> None:
        self.calls.append((method, args))
        if hook := self.before.get(method):
            await hook(method, args)
        else:
            await asyncio.sleep(0)
        if self.dead:
            raise Unavailable("no media worker is running")

    def _changed(self, peer: FakePeer) -> None:
        self.changes.append((peer.owner, peer.hear, peer.speak))
        self.watch()

    async def join(
        self,
        stage: StageId,
        peer: PeerId,
        owner: str,
        offer: str,
        *,
        hear: bool,
        speak: bool,
        answer_to: str = "",
        may_speak: bool = False,
    ) -> FakeAnswer:
        await self._call("join", stage, peer, owner)
        if may_speak:
            self.kept_for.add(owner)
        known = self.peers.get(peer)
        made = self.peers[peer] = FakePeer(stage, owner, hear, speak, known.csrc if known else next(self._csrc))
        self._changed(made)
        return FakeAnswer("answer to " + offer, made.csrc)

    async def offer(self, stage: StageId, peer: PeerId) -> str:
        await self._call("offer", stage, peer)
        return f"offer for {peer}"

    async def gate(self, peer: PeerId, *, hear: bool, speak: bool) -> None:
        await self._call("gate", peer, hear, speak)
        known = self.peers.get(peer)
        if known is None:
            raise NotFound(f"peer {peer} is not connected")
        known.hear, known.speak = hear, speak
        self._changed(known)

    async def leave_out(self, peer: PeerId, owners: Collection[str]) -> None:
        await self._call("leave_out", peer, frozenset(owners))
        if peer not in self.peers:
            raise NotFound(f"peer {peer} is not connected")
        if owners and len(self.left_out | {frozenset(owners)}) > self.most_left_out:
            raise Full("no mix left", 0)
        self.peers[peer].left_out = frozenset(owners)

    @property
    def left_out(self) -> set[frozenset[str]]:
        return {peer.left_out for peer in self.peers.values() if peer.left_out}

    async def tune(self, stage: StageId, sound: Sound) -> None:
        await self._call("tune", stage, sound)
        self.sounds[stage] = sound

    async def leave(self, peer: PeerId) -> None:
        await self._call("leave", peer)
        known = self.peers.pop(peer, None)
        if known is not None:
            known.hear = known.speak = False
            self._changed(known)

    async def close_stage(self, stage: StageId) -> None:
        await self._call("close_stage", stage)
        self.peers = {name: peer for name, peer in self.peers.items() if peer.stage != stage}


class FakePage:
    """`bridge.live.ports.Page`: keeps what it was shown."""

    def __init__(self) -> None:
        self.view: View | None = None
        self.me: Me | None = None
        self.shown = 0
        self.notices: list[tuple[str, str]] = []
        self.byes: list[str] = []
        self.lost = 0
        self.heard_levels: list[Mapping[int, int]] = []

    def show(self, view: View, me: Me) -> None:
        self.view, self.me = view, me
        self.shown += 1

    def levels(self, levels: Mapping[int, int]) -> None:
        self.heard_levels.append(levels)

    def notice(self, key: str, by_name: str) -> None:
        self.notices.append((key, by_name))

    def sound_lost(self) -> None:
        self.lost += 1

    def bye(self, reason: str) -> None:
        self.byes.append(reason)


class FaultyStore:
    """A store whose methods fail (``broken``) or wait (``before``), by name; else those of ``inner``."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.broken: set[str] = set()
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any) -> Any:
            self.calls.append(name)
            if hook := self.before.get(name):
                await hook(name, args)
            if name in self.broken:
                raise Unavailable(f"the database does not answer ({name})")
            answer = await method(*args)
            if hook := self.after.get(name):
                await hook(name, args)
            return answer

        return call


class House:
    """The live part of a bridge. ``start``, then people act on ``matrix``; ``close``, or ``kill`` as kill -9 does."""

    def __init__(
        self,
        matrix: FakeMatrix,
        store: Any,
        clock: HandClock,
        *,
        policy: Policy | None = None,
        lang: Lang = "en",
        media: FakeMedia | None = None,
    ) -> None:
        self.matrix, self.store, self.clock = matrix, store, clock
        self.media = media or FakeMedia()
        world = World(
            matrix, self.media, store, clock, lambda u, r, s: f"https://x/s/{s}#l={u}", lang, "!", "https://x"
        )
        self.rooms = Rooms(BOT, policy or Policy(), world)
        self.media.gone = self.rooms.peer_gone
        self._translator = Translator(BOT, "!", SERVER)
        self._pushes: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None
        self.rows: list[InboxRow] = []
        self.also: Callable[[JsonObject], None] = lambda event: None
        """Called with each event before its room is, as the composition root does for confirmations."""

    async def start(self) -> House:
        self.matrix.push = self._pushes.put_nowait
        await self.rooms.start()
        for row in await self.store.unapplied():
            self._deliver(row)
        self._pump = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        while True:
            events = await self._pushes.get()
            try:
                kept = [event for event in events if self._translator.wanted(event)]
                for row in await self.store.add_transaction(f"t{next(_numbers)}", kept, self.clock.now_ms()):
                    self._deliver(row)
            finally:
                self._pushes.task_done()

    def _deliver(self, row: InboxRow) -> None:
        self.rows.append(row)
        self.also(row.event)
        room = RoomId(row.event["room_id"])
        self.rooms.deliver(room, row, self._translator.translate(row, self.clock.now_ms()))

    async def close(self) -> None:
        await self._unplug()
        await self.rooms.close()

    async def kill(self) -> None:
        """No good-byes, nothing flushed; the media worker dies with its parent."""
        await self._unplug()
        self.media.watch = lambda: None
        tasks = [task for task in asyncio.all_tasks() if _belongs_to_bridge(task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stage in self.rooms._stages.values():
            stage._window.close()
            stage._closed = True

    async def _unplug(self) -> None:
        self.matrix.push = lambda events: None
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    # -- short words for tests -----------------------------------------------------------------

    def stage(self, room: RoomId = ROOM) -> LiveStage:
        found = self.rooms.of_room(room)
        assert found is not None
        return found

    async def live(self, host: UserId = ADMIN, room: RoomId = ROOM) -> StageId:
        """Start a stage by command."""
        self.matrix.message(host, "!stage start Talk", room)
        await until(lambda: self.stage(room).state.live, "a live stage", lambda: self.matrix.said(room))
        stage_id = self.stage(room).stage_id
        assert stage_id is not None
        return stage_id

    async def seat(self, user: UserId | None, session: str = "", room: RoomId = ROOM) -> tuple[FakePage, SessionId]:
        """A page of this person, connected and with sound."""
        page, name = FakePage(), SessionId(session or f"session of {user} {next(_numbers)}")
        stage = self.stage(room)
        assert stage.stage_id is not None
        await stage.sit(name, user, page, stage.stage_id)
        await stage.offer(name, page, "offer")
        return page, name

    async def on_air(self, user: UserId, room: RoomId = ROOM) -> FakePage:
        """On stage, by state, and heard."""
        page, _ = await self.seat(user, room=room)
        self.matrix.role(ADMIN, user, room, role="speaker", stage_id=self.stage(room).stage_id)
        await until(lambda: self.media.heard(user), f"{user} on air", lambda: self.stage(room).state)
        return page

    async def quiet(self, rooms: Iterable[RoomId] = (ROOM,)) -> None:
        """Until nothing is under way any more: every event pushed is applied and nothing is unread or unwritten."""
        async with asyncio.timeout(HANG_S):
            await self._pushes.join()
        await until(lambda: self._pushes.empty() and all(self._is_quiet(self.stage(room)) for room in rooms), "quiet")

    async def marked(self) -> None:
        """Until no event waits in the inbox of the database."""
        async with asyncio.timeout(HANG_S):
            while await self.store.unapplied():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    @staticmethod
    def _is_quiet(stage: LiveStage) -> bool:
        state = stage.state
        return not len(stage._inbox) and not state.hints and not state.writes and not stage._keeping.owes


_OURS = ("bridge/live/", "bridge/matrix/")


def _belongs_to_bridge(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and any(part in code.co_filename for part in _OURS)


def stage_content(room: FakeRoom) -> Mapping[str, Any]:
    return room.content(STAGE)
