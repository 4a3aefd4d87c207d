"""Every message between the page and us, typed. ``page/src/messages.ts`` is generated from this file.

One WebSocket is one page. Frames are JSON objects with a type ``t``. The first frame comes from the
page within 5 s and is ``hello`` with its session. We answer with a ``snapshot``, then send ``patch``
frames: each holds whole new values for the parts that changed, under a sequence number that grows by
one; a page that misses one sends ``resync``. Requests carry an ``id`` chosen by the page and are
answered by ``done`` or ``refused`` with that id: *done* means accepted, the change itself shows in
a patch when it is true.

    page → us   hello · offer · hand · invite_reply · mic · leave_out · act · resync · ping
    us → page   snapshot · patch · answer · done · refused · levels · notice · bye · pong
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from bridge.errors import BadInput
from bridge.live import view
from bridge.live.view import Act, Audience, Face, Hand, Invitation, Me, MyHand, Person, StageInfo
from bridge.rules.content import is_encodable

ByeReason = Literal["ended", "removed", "left_room", "expired", "elsewhere", "restart", "slow", "full"]
NoticeKey = Literal[
    "muted",
    "unmuted",
    "to_stage",
    "to_audience",
    "hand_not_now",
    "invited",
    "invite_declined",
    "not_written",
    "cut_not_written",
    "confirm",  # by_name: the code that also stands in the bot's direct message
    "confirmed",
    "confirm_failed",
]


# -- us → page ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Snapshot:
    seq: int
    stage: StageInfo
    me: Me
    speakers: list[Person]
    audience: Audience
    queue: list[Hand]  # for moderators; others get []
    t: Literal["snapshot"] = "snapshot"


@dataclass(frozen=True, slots=True)
class Patch:
    seq: int
    stage: StageInfo | None = None
    me: Me | None = None
    speakers: list[Person] | None = None
    audience: Audience | None = None
    queue: list[Hand] | None = None
    t: Literal["patch"] = "patch"


@dataclass(frozen=True, slots=True)
class MediaAnswer:
    id: int
    sdp: str
    t: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True)
class Done:
    id: int
    t: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class RefusedAnswer:
    id: int
    errcode: str
    error: str  # a sentence in the page's language
    retry_after_ms: int | None = None  # when it may do
    t: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Levels:
    levels: dict[str, int]  # CSRC → level in −dBov (RFC 6464: 0 loudest … 127 silence); at most 10 a second
    t: Literal["levels"] = "levels"


@dataclass(frozen=True, slots=True)
class Notice:
    key: NoticeKey
    by_name: str
    t: Literal["notice"] = "notice"


@dataclass(frozen=True, slots=True)
class Bye:
    reason: ByeReason
    error: str
    t: Literal["bye"] = "bye"


@dataclass(frozen=True, slots=True)
class Pong:
    t: Literal["pong"] = "pong"


# -- page → us ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    session: str
    lang: Literal["fa", "en"] = "en"
    t: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Offer:
    id: int
    sdp: str
    t: Literal["offer"] = "offer"


@dataclass(frozen=True, slots=True)
class RaiseHand:
    id: int
    raised: bool
    note: str = ""
    t: Literal["hand"] = "hand"


@dataclass(frozen=True, slots=True)
class InviteReply:
    id: int
    accept: bool
    t: Literal["invite_reply"] = "invite_reply"


@dataclass(frozen=True, slots=True)
class MicState:
    id: int
    on: bool
    t: Literal["mic"] = "mic"


@dataclass(frozen=True, slots=True)
class LeaveOut:
    """This page does not hear somebody any more (``out``), or does again; nobody else notices. Kept for the session."""

    id: int
    user: str
    out: bool
    t: Literal["leave_out"] = "leave_out"


@dataclass(frozen=True, slots=True)
class DoAct:
    id: int
    act: Act
    user: str | None = None
    text: str = ""  # the topic, or a reason
    t: Literal["act"] = "act"


@dataclass(frozen=True, slots=True)
class Resync:
    t: Literal["resync"] = "resync"


@dataclass(frozen=True, slots=True)
class Ping:
    t: Literal["ping"] = "ping"


ToPage = Snapshot | Patch | MediaAnswer | Done | RefusedAnswer | Levels | Notice | Bye | Pong
FromPage = Hello | Offer | RaiseHand | InviteReply | MicState | LeaveOut | DoAct | Resync | Ping


# -- HTTP: POST /api/v1/sessions ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenSession:
    """``link`` (with ``device`` from an earlier answer, if any), ``guest`` (a stage id), or ``openid`` with ``room``: a
    token of the person's own homeserver (client-server API "OpenID") as their client hands it to a widget."""

    link: str | None = None
    device: str | None = None
    guest: str | None = None
    openid: dict[str, str | int] | None = None
    room: str | None = None


@dataclass(frozen=True, slots=True)
class SessionOpened:
    session: str  # for ``hello``; good until expires_ts, over restarts too
    device: str | None  # keep it beside the link: a link opens on three devices
    stage: str
    expires_ts: int
    user: str | None


@dataclass(frozen=True, slots=True)
class ErrorBody:
    errcode: str
    error: str
    reason: str | None = None  # expired · altered · revoked · devices · membership · unknown · used
    retry_after_ms: int | None = None


HttpBodies = OpenSession | SessionOpened | ErrorBody

_FROM_PAGE: dict[str, Any] = {cls.__dataclass_fields__["t"].default: cls for cls in typing.get_args(FromPage)}
MAX_FRAME = 96 * 1024  # bytes: an offer of 64 KiB and its JSON escapes


def encode(message: ToPage | SessionOpened | ErrorBody) -> dict[str, Any]:
    """As a JSON object. In a patch a part that did not change is left out."""
    body = dataclasses.asdict(message)
    if isinstance(message, Patch | ErrorBody):
        return {name: value for name, value in body.items() if value is not None}
    return body


def decode(frame: object) -> FromPage:
    """One frame of a page. Raises BadInput naming the field."""
    if not isinstance(frame, dict):
        raise BadInput("frame", frame, "send a JSON object")
    kind = frame.get("t")
    cls = _FROM_PAGE.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise BadInput("t", kind, "use one of " + ", ".join(sorted(_FROM_PAGE)))
    return typing.cast(FromPage, _build(cls, frame))


def decode_open(body: object) -> OpenSession:
    """The body of ``POST /api/v1/sessions``. Raises BadInput."""
    if not isinstance(body, dict):
        raise BadInput("body", body, "send a JSON object")
    parsed = typing.cast(OpenSession, _build(OpenSession, body))
    if [parsed.link, parsed.guest, parsed.openid].count(None) != 2:
        raise BadInput("link", None, "give one of link, guest and openid")
    return parsed


def _build(cls: Any, body: dict[str, Any]) -> object:
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for each in dataclasses.fields(cls):
        if each.name not in body:
            if each.default is dataclasses.MISSING:
                raise BadInput(each.name, None, "this field is missing")
            continue
        value = body[each.name]
        if not _fits(value, hints[each.name]):
            raise BadInput(each.name, value, f"expected {_ts(hints[each.name])}")
        values[each.name] = value
    return cls(**values)


def _fits(value: object, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return isinstance(value, str) and value in typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, each) for each in typing.get_args(kind))
    if origin is dict:  # what is in it is for its reader to judge
        return isinstance(value, dict)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    if kind is str:  # JSON can hold half a surrogate pair, which no UTF-8 can
        return isinstance(value, str) and is_encodable(value)
    return isinstance(value, kind)


# -- TypeScript ---------------------------------------------------------------------------------


def _ts(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " | ".join(f'"{each}"' for each in args)
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_ts(each) for each in args)
    if origin is list:
        inner = _ts(args[0])
        return f"({inner})[]" if " " in inner else f"{inner}[]"
    if origin is dict:
        return f"Record<{_ts(args[0])}, {_ts(args[1])}>"
    named = {int: "number", str: "string", bool: "boolean", type(None): "null"}
    return named.get(kind) or str(kind.__name__)


def typescript() -> str:
    """The text of ``page/src/messages.ts``."""
    lines = ["// Generated from bridge/web/messages.py by `python -m bridge.web.messages`. Do not edit.", ""]
    module = sys.modules[__name__]
    for home, name in [(view, n) for n in ("Place", "Role", "Mic", "Status", "Act")] + [
        (module, n) for n in ("ByeReason", "NoticeKey")
    ]:
        lines += [f"export type {name} = {_ts(getattr(home, name))};"]
    parts = [StageInfo, Person, Face, Audience, Hand, MyHand, Invitation, Me]
    for cls in [*parts, *typing.get_args(ToPage), *typing.get_args(FromPage), *typing.get_args(HttpBodies)]:
        hints = typing.get_type_hints(cls)
        incoming = cls in typing.get_args(ToPage) and cls is not Patch
        lines += ["", f"export interface {cls.__name__} {{"]
        for each in dataclasses.fields(cls):
            has_default = each.default is not dataclasses.MISSING
            optional = "?" if has_default and each.name != "t" and not incoming else ""
            lines += [f"  {each.name}{optional}: {_ts(hints[each.name])};"]
        lines += ["}"]
    for name in ("ToPage", "FromPage"):
        union = " | ".join(cls.__name__ for cls in typing.get_args(getattr(module, name)))
        lines += ["", f"export type {name} = {union};"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(typescript())
