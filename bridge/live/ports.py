"""What a live stage needs of the world: five small Protocols, owned by their caller.

A live stage calls these from its one task. An implementation is met by shape: it need not import
this module. ``tests/contracts`` holds one suite for each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bridge.ids import EventId, PeerId, RoomId, StageId, UserId
from bridge.rules.content import Sound

if TYPE_CHECKING:
    from bridge.live.view import Me, View

JsonObject = Mapping[str, Any]


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""


class Matrix(Protocol):
    """The homeserver, as the bot sees it. Raises MatrixRefused (final) or Unavailable (after retries)."""

    async def read_room(self, room: RoomId) -> Sequence[JsonObject]:
        """All current state events of the room, whole."""

    async def read_state(self, room: RoomId, kind: str, key: str) -> JsonObject | None:
        """The current state event, whole (with ``event_id`` and ``sender``), or None where there is none."""

    async def write_state(
        self, room: RoomId, kind: str, key: str, content: JsonObject, *, urgent: bool = False
    ) -> EventId:
        """``urgent``: it writes down a cut, and passes by the rate limit."""

    async def send(self, room: RoomId, text: str, html: str, *, reply_to: EventId | None, txn: str) -> EventId:
        """A notice in the room. ``txn`` makes a retry harmless (client-server API, "Transaction identifiers")."""

    async def edit(self, room: RoomId, event: EventId, text: str, html: str) -> None:
        """Replace the text of a notice of ours (``m.replace``)."""

    async def tell(self, user: UserId, text: str, html: str) -> tuple[RoomId, EventId]:
        """A notice in the direct chat with ``user``, which is opened unencrypted if there is none. Where it stands."""

    async def react(self, room: RoomId, event: EventId, key: str) -> None:
        """A reaction of the bot (``m.annotation``); one that is there already is fine."""

    async def kick(self, room: RoomId, user: UserId, reason: str) -> None: ...

    async def join(self, room: RoomId, via: Sequence[str] = ()) -> None:
        """``via``: servers that are in the room, where ours may not be; harmless where the bot is in already."""

    async def leave(self, room: RoomId) -> None: ...

    async def joined_rooms(self) -> Sequence[RoomId]: ...

    async def ping(self) -> object:
        """Appservice ping (MSC2659), ms: the homeserver comes back to us and sends at once what it held back."""


class Media(Protocol):
    """The relay. ``owner`` is an opaque name: peers of one owner never hear each other or themselves.

    Every method returns when the worker has done it, so a caller that awaited ``gate`` may show the change.
    Raises BadInput (an offer it cannot take), Full, NotFound (unknown peer), Unavailable (no worker).
    """

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
    ) -> Answer:
        """Answer a WebRTC offer (SDP, RFC 8829; at most 64 KiB). The peer connection is sendrecv from the start;
        whether it is heard is the gate's matter alone. A second offer of the same peer restarts ICE. ``answer_to``:
        an offer of ours for that peer (`offer`), and ``offer`` is its answer. ``may_speak``: soon, if not now; some
        places are kept for such people where listeners are told that it is full."""

    async def offer(self, stage: StageId, peer: PeerId) -> str:
        """An offer (SDP) for somebody who is called. Where it is not answered, ``leave`` gives its seat back."""

    async def gate(self, peer: PeerId, *, hear: bool, speak: bool) -> None:
        """Let the peer hear the stage, and be heard on it. Closing fades out within 10 ms, then nothing more."""

    async def leave_out(self, peer: PeerId, owners: Collection[str]) -> None:
        """The peer does not hear these owners from now on (at most 20; none: it hears all), nor its own. Who leaves out
        the same share a mix; raises Full where a stage would need more than eight of those for two owners and more."""

    async def tune(self, stage: StageId, sound: Sound) -> None:
        """How the stage sounds from now on, until it is closed: changed while people listen, within 20 ms and without a
        click. Kept where no worker runs, and over restarts of one."""

    async def leave(self, peer: PeerId) -> None:
        """Harmless for a peer that is gone."""

    async def close_stage(self, stage: StageId) -> None:
        """All peers of the stage leave. Harmless twice."""


class Answer(Protocol):
    @property
    def sdp(self) -> str: ...

    @property
    def csrc(self) -> int:
        """The number under which the peer's voice stands in the CSRC list (RFC 3550 §5.1) of what others hear,
        and in the levels reported. Unique in its stage, 1 … 2^32 - 1."""


class MediaListener(Protocol):
    """What the relay tells, from its own task; an implementation returns at once."""

    def peer_connected(self, peer: PeerId) -> None:
        """ICE and DTLS are up; sound can flow."""

    def peer_gone(self, peer: PeerId, reason: str) -> None:
        """``reason``: ``closed`` (by the other side), ``timeout`` (silent for 30 s), ``worker`` (its worker died)."""

    def peer_pressed(self, peer: PeerId, key: str) -> None:
        """A key of a telephone's keypad went down: ``0`` … ``9``, ``*``, ``#``, ``A`` … ``D`` (RFC 4733 §3.2)."""

    def levels(self, stage: StageId, levels: Mapping[int, int]) -> None:
        """At most 10 times a second: who talks now, CSRC → level in −dBov (0 loudest … 127 silence, RFC 6464 §3).
        An empty mapping is sent once when the last one falls silent."""


class Page(Protocol):
    """One connected page (or call), as its live stage sees it. Every method returns at once; what a slow page cannot
    take is coalesced (``show``: the newest counts) or dropped (``levels``)."""

    def show(self, view: View, me: Me) -> None:
        """New truth. ``view`` is the same object for all pages that see the same."""

    def levels(self, levels: Mapping[int, int]) -> None: ...

    def notice(self, key: str, by_name: str) -> None:
        """What was done to this person; ``key`` as in `bridge.rules.effects.Tell`."""

    def sound_lost(self) -> None:
        """The relay has no peer for this page any more; it should offer again."""

    def bye(self, reason: str) -> None:
        """The last call: ``ended``, ``removed``, ``left_room``, ``restart``."""


@runtime_checkable
class Keypad(Protocol):
    """A `Page` that is a telephone."""

    def pressed(self, key: str) -> None:
        """As `MediaListener.peer_pressed`. Returns at once."""


class Phone(Protocol):
    """Classic 1:1 calls with the bot. Every method returns at once."""

    def expect(self, user: UserId, room: RoomId) -> None:
        """The next call of this person is meant for the stage of that room."""

    def ring(self, user: UserId, room: RoomId, by_name: str, told: Callable[[str], None]) -> None:
        """Call somebody to the stage of that room. ``told`` hears the key of a sentence that says what came of
        it, once and only where nobody came."""


class Store(Protocol):
    """What survives a crash. Every method returns after the commit."""

    async def add_transaction(self, txn_id: str, events: Sequence[JsonObject], received_ms: int) -> Sequence[InboxRow]:
        """Keep a transaction and its events once. An id that is known already adds nothing and returns ()."""

    async def unapplied(self) -> Sequence[InboxRow]:
        """Events kept and not yet marked, oldest first: what a crash left undone."""

    async def mark_applied(self, rows: Sequence[int]) -> None: ...

    async def save_stage(self, room: RoomId, saved: JsonObject) -> None:
        """Keep what a stage cannot read back from room state (hands, card, counters), replacing the older value."""

    async def load_stages(self) -> Mapping[RoomId, JsonObject]: ...

    async def forget_stage(self, room: RoomId) -> None: ...

    async def add_cut(self, room: RoomId, cut_id: str, cut: JsonObject) -> None:
        """Keep a cut that acts already and is not yet in room state."""

    async def drop_cut(self, cut_id: str) -> None: ...

    async def load_cuts(self) -> Sequence[tuple[RoomId, str, JsonObject]]: ...

    async def add_record(self, room: RoomId, stage: StageId, at_ms: int, record: JsonObject) -> None:
        """One line of the moderation record."""

    async def records(self, room: RoomId, limit: int) -> Sequence[JsonObject]: ...

    async def open_link(self, link_id: str, device_hash: str, expires_ms: int, max_devices: int) -> bool:
        """Bind a device to a link. False where ``max_devices`` others have it already. Whether the link was revoked
        is asked apart (``links_revoked_before``)."""

    async def revoke_links(self, user: UserId, room: RoomId, now_ms: int) -> None:
        """Links made for that person and room before now open nothing any more."""

    async def links_revoked_before(self, user: UserId, room: RoomId) -> int:
        """Milliseconds; a link issued before it is void. 0 where none was revoked."""

    async def get_value(self, key: str) -> str | None:
        """One of the few values of the whole installation (direct chats, keys made at first start)."""

    async def set_value(self, key: str, value: str) -> None: ...


class InboxRow(Protocol):
    @property
    def row(self) -> int: ...

    @property
    def event(self) -> JsonObject: ...

    @property
    def received_ms(self) -> int: ...
